//! Imputation, scaling, encoding, bucketing and thresholds inside a model's graph.
//!
//! Owns nothing but the way from a node's settings to the SDK's steps ([`mainstay_sdk::tabular`]): they are the settings'
//! `steps`, fitted by the SDK, or what its `onnx` means, the file (in base64) that skl2onnx writes for a scikit-learn
//! pipeline. It computes by handle and has no right to read a value. The steps of the last settings are kept, so that a
//! warm instance reads them once. Bounded by: the steps' own limits. On failure: the step and the column, and the batch
//! fails; a file that is not understood refuses the graph.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mainstay_sdk::columns::Frame;
use mainstay_sdk::tabular::Steps;
use mainstay_sdk::transform::{Batch, Transform, settings};
use mainstay_sdk::{Error, Result};
use serde::Deserialize;
use std::cell::RefCell;

/// The plugin.
pub struct Tabular;

/// Settings of a node: one of the two.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    steps: Option<Steps>,
    onnx: Option<String>,
}

impl Settings {
    fn into_steps(self) -> Result<Steps> {
        match (self.steps, self.onnx) {
            (Some(steps), None) => steps.check().map(|()| steps),
            (None, Some(text)) => {
                let file = STANDARD.decode(text);
                let file = file.map_err(|error| Error::invalid(format!("the setting `onnx` is no base64: {error}")))?;
                Steps::from_onnx(&file)
            }
            (Some(_), Some(_)) => Err(Error::invalid("the settings have `steps` and `onnx`; give one of them")),
            (None, None) => Err(Error::invalid("the settings have neither `steps` nor `onnx`; give one of them")),
        }
    }
}

/// Steps and the settings that they are from.
struct Known {
    json: String,
    steps: Steps,
}

thread_local! {
    static KNOWN: RefCell<Option<Known>> = const { RefCell::new(None) };
}

/// Act with the steps of these settings, which are read unless they are those of the last call.
fn with_steps<T>(json: &str, act: impl FnOnce(&Steps) -> Result<T>) -> Result<T> {
    KNOWN.with_borrow_mut(|known| {
        let known = match known {
            Some(known) if known.json == json => known,
            _ => {
                let steps = settings::<Settings>(json)?.into_steps()?;
                known.insert(Known { json: json.to_owned(), steps })
            }
        };
        act(&known.steps)
    })
}

impl Transform for Tabular {
    fn check(json: &str) -> Result<()> {
        settings::<Settings>(json)?.into_steps().map(drop)
    }

    fn transform(batch: &Batch) -> Result<Frame> {
        with_steps(batch.settings_json(), |steps| steps.apply(batch.frame()))
    }
}

mainstay_sdk::export_transform!(Tabular);

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_sdk::columns::Column;
    use mainstay_sdk::testing::Host;
    use serde_json::json;

    fn people() -> String {
        STANDARD.encode(include_bytes!("../../../sdk/rust/tests/data/onnx/people.onnx"))
    }

    fn refused(settings: serde_json::Value, words: &str) {
        let error = Tabular::check(&settings.to_string()).unwrap_err();
        assert!(error.message().contains(words), "{error}");
    }

    #[test]
    fn settings_are_steps_or_a_file() {
        Tabular::check(&json!({"steps": []}).to_string()).unwrap();
        Tabular::check(&json!({"onnx": people()}).to_string()).unwrap();
        refused(json!({}), "neither `steps` nor `onnx`");
        refused(json!({"steps": [], "onnx": people()}), "`steps` and `onnx`; give one");
        refused(json!({"onnx": "!"}), "the setting `onnx` is no base64");
        refused(json!({"onnx": "aGk="}), "the ONNX file: ");
        let model = include_bytes!("../../../sdk/rust/tests/data/onnx/refused_model.onnx");
        refused(json!({"onnx": STANDARD.encode(model)}), "`LinearRegressor`");
    }

    #[test]
    fn settings_that_change_are_read_again() {
        let scale = |by: f64| json!({"steps": [{"op": "scale", "columns": {"a": {"subtract": 0.0, "multiply": by}}}]});
        Host::new()
            .enter(|| {
                let frame = Frame::of([("a", &Column::real64(&[1.0])?)])?;
                for by in [2.0, 2.0, 3.0] {
                    let scaled = with_steps(&scale(by).to_string(), |steps| steps.apply(&frame))?;
                    assert_eq!(scaled.column("a")?.read_numbers(0, 1)?, [by]);
                }
                assert!(with_steps("{}", |steps| steps.apply(&frame)).is_err());
                Ok::<_, Error>(())
            })
            .unwrap();
    }
}
