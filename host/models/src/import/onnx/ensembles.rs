//! ONNX's tree ensembles as steps of a graph: what their raw scores are and what makes labels of them.
//!
//! Owns where onnxruntime, whose answers ours are, goes beyond the operators' documents: two classes with one score or two,
//! base values of outputs that no leaf speaks of, links of a single target. Forms in which that differs from row to row are
//! not ours, so that a general runtime answers them. The forests themselves are made in `trees`. Bounded and failing as the
//! module above.

use std::sync::Arc;

use mainstay_base::{Error, Result};

use super::operations::{class_labels, output, post_transform};
use super::proto::Node;
use super::trees::{Adds, Weights, adds, parallel_lists, version_5};
use super::{Builder, unsupported};
use crate::forest::Forest;
use crate::import::limits::Limits;
use crate::layout::Layout;
use crate::link::Link;
use crate::pipeline::{BinaryCase, Classify, Ensemble, Op};

impl<'a> Builder<'a> {
    pub(super) fn tree_classifier(&mut self, node: &Node<'a>) -> Result<()> {
        let labels = class_labels(node)?.ok_or_else(|| Error::invalid("it has no class labels"))?;
        let (classes, link) = (labels.values.len(), post_transform(node)?);
        Limits::check("classes", classes, self.limits.classes)?;
        let (weights, (base, _)) = (Weights::read(node, "class")?, node.reals("base_values")?);
        let mut is_silent = Vec::new();
        let (forest, binary) = match classes {
            2 => self.two_classes(node, weights, base, link)?,
            _ => {
                let has_base = !base.is_empty();
                let forest = self.forest(node, &weights, classes, base)?;
                // Without base values a class that no leaf spoke of for a row is not its label, however low the others.
                if !has_base {
                    let adds = adds(&forest);
                    is_silent = adds.iter().map(|adds| *adds == Adds::Never).collect();
                    if weights.has_negative() && adds.contains(&Adds::Sometimes) {
                        return Err(unsupported("TreeEnsembleClassifier with silent leaves".to_owned(), node.name));
                    }
                }
                (forest, BinaryCase::No)
            }
        };
        let input = self.input(node)?;
        let raw = self.step(node, ensemble(forest), vec![input], "")?;
        self.classify(node, raw, Classify { link, labels, binary, is_silent })
    }

    /// Two classes as onnxruntime has them: which leaves speak of which class, and how many base values there are, decide
    /// what the raw scores are and which of them makes the label. Forms in which that differs from row to row are not ours.
    fn two_classes(
        &self,
        node: &Node<'a>,
        mut weights: Weights,
        base: Vec<f64>,
        link: Link,
    ) -> Result<(Forest, BinaryCase)> {
        let odd = |what: &str| unsupported(format!("TreeEnsembleClassifier with {what}"), node.name);
        let is_all = |class: i64| weights.outputs.iter().all(|output| *output == class);
        let threshold = if weights.has_negative() { 0.0 } else { 0.5 };
        match (is_all(0), is_all(1), base.as_slice()) {
            (true, _, [] | [_]) => {
                if link == Link::Probit {
                    return Err(odd("PROBIT of one score"));
                }
                let is_margin = weights.has_negative();
                let forest = self.forest(node, &weights, 1, base)?;
                if forest.base[0] != 0.0 && adds(&forest)[0] != Adds::Always {
                    return Err(odd("silent leaves"));
                }
                Ok((forest, if is_margin { BinaryCase::Margin } else { BinaryCase::Probability }))
            }
            (true, _, [first, _]) => {
                let forest = self.forest(node, &weights, 2, vec![*first, 0.0])?;
                match adds(&forest)[0] == Adds::Always {
                    true => Ok((forest, BinaryCase::Pair { decides: 0, threshold })),
                    false => Err(odd("silent leaves")),
                }
            }
            (_, true, [] | [_]) => {
                let forest = self.forest(node, &weights, 2, Vec::new())?;
                match adds(&forest)[1] == Adds::Always {
                    true => Ok((forest, BinaryCase::Pair { decides: 1, threshold })),
                    false => Err(odd("silent leaves")),
                }
            }
            (false, false, [] | [_] | [_, _]) => {
                let first = if base.len() == 1 { base[0] } else { 0.0 };
                let forest = self.forest(node, &weights, 2, vec![first, 0.0])?;
                if adds(&forest) != [Adds::Always; 2] {
                    return Err(odd("silent leaves"));
                }
                let [_, second] = base.as_slice() else {
                    return Ok((forest, BinaryCase::Pair { decides: 1, threshold: 0.0 }));
                };
                // The scores of the first class stand for both, and the base is that of the second.
                weights.keep(0);
                Ok((self.forest(node, &weights, 1, vec![*second])?, BinaryCase::Mirror))
            }
            (_, true, [_, _]) => Err(odd("two base values of one class")),
            _ => Err(Error::invalid(format!("{} base values for 2 classes", base.len()))),
        }
    }

    pub(super) fn tree_regressor(&mut self, node: &Node<'a>) -> Result<()> {
        let targets = usize::try_from(node.integer("n_targets")?.unwrap_or(1)).unwrap_or(0);
        Limits::check("targets", targets, self.limits.classes)?;
        let (weights, (base, _)) = (Weights::read(node, "target")?, node.reals("base_values")?);
        let mut forest = self.forest(node, &weights, targets, base)?;
        // onnxruntime gives one of several targets its base value only where a leaf spoke of it.
        let found = if targets > 1 { adds(&forest) } else { Vec::new() };
        for (target, adds) in found.into_iter().enumerate() {
            if adds == Adds::Never {
                forest.base[target] = 0.0;
            } else if adds == Adds::Sometimes && forest.base[target] != 0.0 {
                return Err(unsupported("TreeEnsembleRegressor with silent leaves".to_owned(), node.name));
            }
        }
        self.regress(node, forest, post_transform(node)?)
    }

    fn regress(&mut self, node: &Node<'a>, forest: Forest, link: Link) -> Result<()> {
        let (input, output) = (self.input(node)?, output(node)?);
        // Of a single target onnxruntime knows no other link than PROBIT.
        if link == Link::Identity || (forest.outputs == 1 && link != Link::Probit) {
            return self.step(node, ensemble(forest), vec![input], output).map(|_| ());
        }
        let raw = self.step(node, ensemble(forest), vec![input], "")?;
        self.step(node, Op::Apply(link), vec![raw], output).map(|_| ())
    }

    fn forest(&self, node: &Node<'a>, weights: &Weights, outputs: usize, base: Vec<f64>) -> Result<Forest> {
        let base = match base.len() {
            0 => vec![0.0; outputs],
            given if given == outputs => base,
            given => return Err(Error::invalid(format!("{given} base values for {outputs} outputs"))),
        };
        let features = self.row_width(node, &node.integers("nodes_featureids")?);
        parallel_lists(node, weights, outputs, base, features, self.limits)
    }

    /// How many features trees may ask for: the width of their rows, or what they ask for where that is not known yet.
    fn row_width(&self, node: &Node<'a>, asked: &[i64]) -> usize {
        let most = asked.iter().copied().max().unwrap_or(0).clamp(0, self.limits.features as i64 - 1);
        self.width(node).unwrap_or(most as usize + 1)
    }

    pub(super) fn tree_ensemble(&mut self, node: &Node<'a>) -> Result<()> {
        let features = self.row_width(node, &node.integers("nodes_featureids")?);
        let (forest, link) = version_5(node, features, self.limits)?;
        self.regress(node, forest, link)
    }
}

fn ensemble(forest: Forest) -> Op {
    Op::Ensemble(Arc::new(Ensemble { layout: Layout::new(&forest), forest }))
}
