//! What every model that was taken in must bear.

use mainstay_models::explain::Explainer;
use mainstay_models::import::{Limits, import_within};
use mainstay_models::{Output, Rows};

/// Small, so that a file that claims much is refused and not merely slow.
fn limits() -> Limits {
    Limits { trees: 1_000, nodes: 10_000, features: 1_000, classes: 100, depth: 64, ..Limits::default() }
}

/// Import these bytes; if that works, ask the model everything.
pub fn model(bytes: &[u8]) {
    let Ok(model) = import_within(bytes, &limits()) else { return };
    let features = model.features().len();
    let values: Vec<f64> = (0..3 * features).map(|at| [0.0, -1.5, f64::NAN, 1e30][at % 4]).collect();
    let rows = Rows::F64 { values: &values, features };
    for output in [Output::Score, Output::Raw, Output::Leaf, Output::Label] {
        let Ok(width) = model.width(output) else { continue };
        let mut out = vec![0.0; 3 * width];
        let _ = model.predict(&rows, output, &mut out);
    }
    if let Some(forest) = model.forest()
        && let Ok(explainer) = Explainer::new(forest)
    {
        let mut out = vec![0.0; 3 * features * explainer.expected_values().len()];
        let _ = explainer.explain(&rows, &mut out);
    }
}
