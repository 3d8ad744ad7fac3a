//! ONNX's support vector machines: SVMClassifier and SVMRegressor of `ai.onnx.ml`, version 1.
//!
//! Owns what their lists of numbers mean. Without support vectors both are linear, and the coefficients stand in the vectors'
//! place, as in onnxruntime. Bounded by: [`CLASSES_MAX`] and lists as long as the file has them. On failure: `invalid` names
//! the list that does not fit or has a number that is not finite.

use std::sync::Arc;

use mainstay_base::{Error, Result};

use super::proto::{Node, shown};
use super::{Builder, unsupported};
use crate::import::limits::Limits;
use crate::link::Link;
use crate::pipeline::{CLASSES_MAX, Kernel, Op, Pairs, SvmClassifier, SvmRegressor, Vectors};

/// Numbers of a list, all finite.
fn finite(node: &Node<'_>, name: &str) -> Result<Vec<f64>> {
    let values = node.floats(name)?;
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(values),
        Some(at) => Err(Error::invalid(format!("`{name}` has {} at place {at}", values[at]))),
    }
}

fn sized(node: &Node<'_>, name: &str, count: usize) -> Result<Vec<f64>> {
    let values = finite(node, name)?;
    match values.len() == count {
        true => Ok(values),
        false => Err(Error::invalid(format!("`{name}` has {} places; {count} are expected", values.len()))),
    }
}

/// The kernel with its parameters gamma, offset and degree.
fn kernel(node: &Node<'_>) -> Result<Kernel> {
    let parameters = finite(node, "kernel_params")?;
    let [gamma, offset, degree] = match parameters.as_slice() {
        [] => [0.0; 3],
        [gamma, offset, degree] => [*gamma as f32, *offset as f32, *degree as f32],
        other => return Err(Error::invalid(format!("`kernel_params` has {} places; 3 are expected", other.len()))),
    };
    Ok(match node.text("kernel_type")?.unwrap_or("LINEAR") {
        "LINEAR" => Kernel::Linear,
        "POLY" => Kernel::Poly { gamma, offset, degree },
        "RBF" => Kernel::Rbf { gamma },
        "SIGMOID" => Kernel::Sigmoid { gamma, offset },
        other => return Err(Error::invalid(format!("`kernel_type` is `{}`", shown(other)))),
    })
}

impl<'a> Builder<'a> {
    pub(super) fn svm_regressor(&mut self, node: &Node<'a>) -> Result<()> {
        let count = node.integer("n_supports")?.unwrap_or(0);
        let count = usize::try_from(count).map_err(|_| Error::invalid(format!("`n_supports` is {count}")))?;
        let offset = first_offset(&finite(node, "rho")?)?;
        let is_one_class = node.integer("one_class")?.unwrap_or(0) != 0;
        let (vectors, coefficients) = match count {
            0 => (Vectors::new(Kernel::Linear, &finite(node, "coefficients")?, 1)?, vec![1.0]),
            _ => {
                let vectors = Vectors::new(kernel(node)?, &finite(node, "support_vectors")?, count)?;
                (vectors, sized(node, "coefficients", count)?)
            }
        };
        // onnxruntime leaves the link of a regressor alone, so another one than none is not ours to guess.
        if super::operations::post_transform(node)? != Link::Identity {
            return Err(unsupported("SVMRegressor with a link".to_owned(), node.name));
        }
        let (input, output) = (self.input(node)?, super::operations::output(node)?);
        let svm = SvmRegressor { vectors, coefficients, offset, is_one_class };
        self.step(node, Op::SvmRegressor(Arc::new(svm)), vec![input], output).map(|_| ())
    }

    pub(super) fn svm_classifier(&mut self, node: &Node<'a>) -> Result<()> {
        let labels = super::operations::class_labels(node)?;
        let labels = labels.ok_or_else(|| Error::invalid("it has no class labels"))?;
        let classes = labels.values.len();
        Limits::check("classes", classes, CLASSES_MAX.min(self.limits.classes))?;
        if classes < 2 {
            return Err(Error::invalid("it has one class; two are the fewest"));
        }
        let link = super::operations::post_transform(node)?;
        let coefficients = finite(node, "coefficients")?;
        let per_class = node.integers("vectors_per_class")?;
        let (vectors, pairs, offset) = match per_class.is_empty() {
            true => {
                let offset = first_offset(&finite(node, "rho")?)?;
                (Vectors::new(Kernel::Linear, &coefficients, classes)?, None, offset)
            }
            false => {
                let pairs = pairs(node, &per_class, classes)?;
                let count = pairs.starts[classes];
                (Vectors::new(kernel(node)?, &finite(node, "support_vectors")?, count)?, Some(pairs), 0.0)
            }
        };
        let is_one_decision = classes == 2 && pairs.as_ref().is_some_and(|pairs| pairs.sigmoids.is_none());
        if link == Link::Probit && is_one_decision {
            return Err(unsupported("SVMClassifier with PROBIT of one decision".to_owned(), node.name));
        }
        self.labels = Some(labels.clone());
        let is_all_positive = coefficients.iter().all(|coefficient| *coefficient >= 0.0);
        let svm = SvmClassifier { vectors, labels, link, pairs, offset, is_all_positive };
        let (input, outputs) = (self.input(node)?, self.label_and_scores(node)?);
        self.push(node, Op::SvmClassifier(Arc::new(svm)), vec![input], outputs)
    }
}

fn first_offset(offsets: &[f64]) -> Result<f64> {
    offsets.first().copied().ok_or_else(|| Error::invalid("`rho` is empty"))
}

/// The decisions between pairs of classes, whose vectors lie class after class.
fn pairs(node: &Node<'_>, per_class: &[i64], classes: usize) -> Result<Pairs> {
    if per_class.len() != classes {
        let given = per_class.len();
        return Err(Error::invalid(format!("`vectors_per_class` has {given} places for {classes} classes")));
    }
    let mut starts = vec![0_usize];
    for count in per_class {
        let end = usize::try_from(*count).ok().and_then(|count| starts[starts.len() - 1].checked_add(count));
        starts.push(end.ok_or_else(|| Error::invalid(format!("a class has {count} vectors")))?);
    }
    let coefficients = (classes - 1).saturating_mul(starts[classes]);
    let decisions = classes * (classes - 1) / 2;
    let sigmoids = match (node.has("prob_a"), node.has("prob_b")) {
        (false, false) => None,
        _ => Some((sized(node, "prob_a", decisions)?, sized(node, "prob_b", decisions)?)),
    };
    Ok(Pairs {
        coefficients: sized(node, "coefficients", coefficients)?,
        starts,
        offsets: sized(node, "rho", decisions)?,
        sigmoids,
    })
}
