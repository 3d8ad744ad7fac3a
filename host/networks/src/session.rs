//! From rows to a graph's tensors and back.
//!
//! Owns the rules by which a graph can stand for a model here: its inputs are batches of tensors of a known shape, laid side
//! by side in a row; the first output of real numbers that has a row for each row is the score; an output of whole numbers
//! beside it, one a row, is the label. A graph that was saved for a fixed number of rows is run in such batches, the last one
//! filled with zeros. Separate from the runtimes, which know nothing of rows.
//!
//! Bounded by: [`FEATURES_MAX`]; the runtime allocates what its graph asks for. On failure: `invalid` names the input or
//! output, and its shape.

use mainstay_base::{Error, Result};
use mainstay_models::Network;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::engine::{Engine, Port, Tensor, Values};
use crate::onnx_runtime::OnnxRuntime;
use crate::rust_runtime::RustRuntime;
use crate::{BATCH_ROWS, Runtime};

/// Values in a row.
const FEATURES_MAX: usize = 1 << 20;

/// What is known of a graph once it has answered a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Described {
    pub runtime: String,
    /// Names, and whether they are whole numbers.
    pub features: Vec<(String, bool)>,
    /// Name of the score, and how many values it has for a row.
    pub score: (String, usize),
    /// Name of the label.
    pub label: Option<String>,
}

/// Answers, row after row.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Answers {
    pub scores: Vec<f64>,
    /// One a row, if there are labels.
    pub labels: Vec<f64>,
}

/// A loaded graph.
pub(crate) struct Session {
    engine: Box<dyn Engine>,
    ports: Vec<(Port, usize)>,
    /// The number of rows that the graph was saved for.
    fixed_rows: Option<usize>,
    described: Described,
}

impl Session {
    /// Load a graph and ask it for a first row.
    pub fn load(bytes: &[u8], runtime: &Runtime, threads: usize) -> Result<Session> {
        let engine: Box<dyn Engine> = match runtime {
            Runtime::Rten => Box::new(RustRuntime::load(bytes, threads)?),
            Runtime::OnnxRuntime(library) => Box::new(OnnxRuntime::load(bytes, library, threads)?),
        };
        let (mut ports, mut fixed_rows) = (Vec::new(), None);
        for port in engine.inputs()? {
            let (rows, width) = row_of(&port)?;
            if let (Some(one), Some(other)) = (fixed_rows, rows)
                && one != other
            {
                return Err(Error::invalid(format!("its inputs have {one} and {other} rows; they must be alike")));
            }
            fixed_rows = fixed_rows.or(rows);
            ports.push((port, width));
        }
        let width = ports.iter().try_fold(0_usize, |sum, (_, width)| sum.checked_add(*width));
        if !width.is_some_and(|width| (1..=FEATURES_MAX).contains(&width)) {
            return Err(Error::invalid(format!("a row of it has no value or more than {FEATURES_MAX}")));
        }
        let runtime = engine.name().to_owned();
        let described = Described { runtime, features: features(&ports), score: (String::new(), 0), label: None };
        let mut session = Session { engine, ports, fixed_rows, described };
        session.meet()?;
        Ok(session)
    }

    pub fn described(&self) -> Described {
        self.described.clone()
    }

    /// Learn from the answer to a row of zeros what the outputs are.
    fn meet(&mut self) -> Result<()> {
        let rows = self.fixed_rows.unwrap_or(1);
        let zeros = vec![0.0; self.described.features.len() * rows];
        let made = self.engine.run(self.tensors(&zeros, rows))?;
        let is_row_each = |tensor: &Tensor| tensor.shape.first() == Some(&rows);
        let is_real = |tensor: &Tensor| matches!(tensor.values, Values::Real(_));
        let has_rows = || made.iter().filter(|(_, tensor)| is_row_each(tensor));
        let score = has_rows().find(|(_, tensor)| is_real(tensor)).or_else(|| has_rows().next());
        let (name, tensor) = score.ok_or_else(|| {
            let shapes: Vec<String> = made.iter().map(|(name, made)| format!("`{name}` {:?}", made.shape)).collect();
            let shapes = shapes.join(", ");
            Error::invalid(format!("none of its outputs has a row for each row: for {rows} they are {shapes}"))
        })?;
        let label = has_rows().find(|(_, made)| is_real(tensor) && !is_real(made) && made.len() == rows);
        self.described.score = (name.clone(), tensor.len() / rows);
        self.described.label = label.map(|(name, _)| name.clone());
        match self.described.score.1 {
            0 => Err(Error::invalid(format!("its output `{name}` has no value"))),
            _ => Ok(()),
        }
    }

    /// Answers to these rows.
    pub fn run(&mut self, values: &[f32]) -> Result<Answers> {
        let width = self.described.features.len();
        let mut answers = Answers::default();
        match self.fixed_rows {
            None => self.run_batch(values, values.len() / width, &mut answers)?,
            Some(rows) => {
                for part in values.chunks(width * rows) {
                    let mut filled = part.to_vec();
                    filled.resize(width * rows, 0.0);
                    let mut found = Answers::default();
                    self.run_batch(&filled, rows, &mut found)?;
                    found.scores.truncate(part.len() / width * self.described.score.1);
                    found.labels.truncate(part.len() / width);
                    answers.scores.extend(found.scores);
                    answers.labels.extend(found.labels);
                }
            }
        }
        Ok(answers)
    }

    fn run_batch(&mut self, values: &[f32], rows: usize, answers: &mut Answers) -> Result<()> {
        for (name, made) in self.engine.run(self.tensors(values, rows))? {
            let (score, label) = (&self.described.score, &self.described.label);
            let (into, width) = match name {
                _ if name == score.0 => (&mut answers.scores, score.1),
                _ if label.as_ref() == Some(&name) => (&mut answers.labels, 1),
                _ => continue,
            };
            if made.shape.first() != Some(&rows) || made.len() != rows * width {
                let shape = made.shape;
                return Err(Error::invalid(format!("its output `{name}` has the shape {shape:?} for {rows} rows")));
            }
            match made.values {
                Values::Real(values) => into.extend(values.into_iter().map(f64::from)),
                Values::Integer(values) => into.extend(values.into_iter().map(|value| value as f64)),
            }
        }
        Ok(())
    }

    /// The inputs' tensors out of whole rows.
    fn tensors(&self, values: &[f32], rows: usize) -> Vec<Tensor> {
        let row_width = self.described.features.len();
        let mut from = 0;
        let tensors = self.ports.iter().map(|(port, width)| {
            let own = from..from + width;
            from += width;
            let own = values.chunks_exact(row_width).flat_map(|row| row[own.clone()].iter().copied());
            let values = match port.is_integer {
                true => Values::Integer(own.map(|value| value as i64).collect()),
                false if self.ports.len() == 1 => Values::Real(values.to_vec()),
                false => Values::Real(own.collect()),
            };
            let rest = port.shape[1..].iter().map(|size| size.unwrap_or(1));
            Tensor { shape: std::iter::once(rows).chain(rest).collect(), values }
        });
        tensors.collect()
    }
}

impl Tensor {
    fn len(&self) -> usize {
        match &self.values {
            Values::Real(values) => values.len(),
            Values::Integer(values) => values.len(),
        }
    }
}

/// How many rows an input has, if that is fixed, and how many values each.
fn row_of(port: &Port) -> Result<(Option<usize>, usize)> {
    let wrong = |why: &str| {
        let shown: Vec<String> =
            port.shape.iter().map(|size| size.map_or_else(|| "?".to_owned(), |size| size.to_string())).collect();
        Error::invalid(format!("its input `{}` of the shape [{}] {why}", port.name, shown.join(", ")))
    };
    let [rows, rest @ ..] = port.shape.as_slice() else {
        return Err(wrong("has no dimension for rows; save it with one"));
    };
    if rows.is_some_and(|rows| !(1..=BATCH_ROWS).contains(&rows)) {
        return Err(wrong("is for another number of rows than can be run; save it with a free first dimension"));
    }
    let width = rest.iter().try_fold(1_usize, |product, size| product.checked_mul((*size)?));
    match width {
        Some(width) if (1..=FEATURES_MAX).contains(&width) => Ok((*rows, width)),
        Some(_) => Err(wrong("has no value in a row, or too many")),
        None => Err(wrong("has a free dimension beside the rows; save it with fixed ones")),
    }
}

fn features(ports: &[(Port, usize)]) -> Vec<(String, bool)> {
    let named = ports.iter().flat_map(|(port, width)| {
        let name = |at| if *width == 1 { port.name.clone() } else { format!("{}[{at}]", port.name) };
        (0..*width).map(move |at| (name(at), port.is_integer))
    });
    named.collect()
}

/// A session in this process.
pub(crate) struct Shared(Mutex<Session>);

impl Shared {
    pub fn new(session: Session) -> Shared {
        Shared(Mutex::new(session))
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Network for Shared {
    fn run(&self, values: &[f32], scores: &mut Vec<f64>, labels: &mut Vec<f64>) -> Result<()> {
        let answers = self.0.lock().run(values)?;
        scores.extend(answers.scores);
        labels.extend(answers.labels);
        Ok(())
    }
}
