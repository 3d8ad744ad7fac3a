//! Protected pointers: which evidence a version needs, and whether it is there.
//!
//! A rule names pointers (by kind, a pattern of names, and the pointer) and the evidence that a version must have before
//! such a pointer moves to it. A piece of evidence is a path of relations that must be walkable from the version, a label
//! that must stand where the path ends, or both; no path means the version itself. Several rules that name one pointer all
//! hold. An edge counts only while both its ends exist.
//!
//! A search answers with every key that it relied on, so that they can be guarded: evidence that goes away between the
//! look and the commit is a conflict. Bounded by [`SEARCHED_EDGES_MAX`]; what lies beyond is not found.

use std::collections::BTreeSet;

use bytes::Bytes;
use mainstay_base::{Error, Result};
use mainstay_store::{Space, Transaction, View};
use serde::{Deserialize, Serialize};

use crate::directory::each;
use crate::keys::{self, EdgeRecord};
use crate::limits::{EVIDENCE_PER_RULE_MAX, KEY_BYTES_MAX, PATH_STEPS_MAX, RULES_MAX, SEARCHED_EDGES_MAX};
use crate::model::{Node, check_text, check_word, shown};

/// Which pointers are protected, and by what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ProtectionRule {
    /// The kind of subject, for example `model`.
    pub kind: String,
    /// Names of subjects; `*` stands for any run of characters.
    pub name_pattern: String,
    /// The pointer's name.
    pub pointer: String,
    /// What a version needs; all of it.
    pub requires: Vec<Evidence>,
}

/// One thing that a version needs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Evidence {
    /// Relations to walk from the version, one after the other; empty means the version itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub path: Vec<String>,
    /// A label where the path ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<LabelEvidence>,
}

/// A label that must be there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct LabelEvidence {
    /// Its key.
    pub key: String,
    /// Its value; none means any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The plugin that must have set it; none means any that may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_by: Option<String>,
}

impl Evidence {
    fn check(&self) -> Result<()> {
        if self.path.is_empty() && self.label.is_none() {
            return Err(Error::invalid("a piece of evidence names neither a path nor a label; give one of them"));
        }
        if self.path.len() > PATH_STEPS_MAX {
            return Err(Error::invalid(format!(
                "a path of {} relations; the most is {PATH_STEPS_MAX}",
                self.path.len()
            )));
        }
        self.path.iter().try_for_each(|relation| check_word("a relation", relation))?;
        self.label.as_ref().map_or(Ok(()), |label| check_text("a label's key", &label.key, KEY_BYTES_MAX))
    }

    /// In words, from a version.
    fn words(&self, from: &Node, reached: usize) -> String {
        let path = self.path.iter().map(|relation| format!("`{relation}`")).collect::<Vec<_>>().join(" then ");
        let label = self.label.as_ref().map(LabelEvidence::words);
        let whole = match (&label, self.path.as_slice()) {
            (Some(label), []) => format!("{label} on {from}"),
            (Some(label), _) => format!("{label} where {path} leads from {from}"),
            (None, [_]) => format!("an edge {path} from {from}"),
            (None, _) => format!("a path {path} from {from}"),
        };
        match self.path.get(reached) {
            Some(relation) if reached > 0 => format!("{whole} (no `{relation}` behind `{}`)", self.path[reached - 1]),
            _ => whole,
        }
    }
}

impl LabelEvidence {
    fn words(&self) -> String {
        let value = self.value.as_ref().map_or(String::new(), |value| format!(" = `{}`", shown(value)));
        let by = self.set_by.as_ref().map_or(String::new(), |by| format!(" set by `{by}`"));
        format!("the label `{}`{value}{by}", shown(&self.key))
    }
}

/// The operator's rules, checked.
pub(crate) struct Rules {
    rules: Vec<ProtectionRule>,
}

impl Rules {
    pub fn new(rules: Vec<ProtectionRule>) -> Result<Rules> {
        if rules.len() > RULES_MAX {
            return Err(Error::invalid(format!("{} protection rules; the most is {RULES_MAX}", rules.len())));
        }
        for (number, rule) in rules.iter().enumerate() {
            check_rule(rule).map_err(|error| error.context(format_args!("protection rule {}", number + 1)))?;
        }
        Ok(Rules { rules })
    }

    /// Whether a pointer is protected.
    pub fn protect(&self, kind: &str, name: &str, pointer: &str) -> bool {
        self.of(kind, name, pointer).next().is_some()
    }

    /// All evidence that a version needs for a pointer.
    pub fn required(&self, kind: &str, name: &str, pointer: &str) -> impl Iterator<Item = &Evidence> {
        self.of(kind, name, pointer).flat_map(|rule| &rule.requires)
    }

    fn of(&self, kind: &str, name: &str, pointer: &str) -> impl Iterator<Item = &ProtectionRule> {
        self.rules
            .iter()
            .filter(move |rule| rule.kind == kind && rule.pointer == pointer && matches(&rule.name_pattern, name))
    }
}

fn check_rule(rule: &ProtectionRule) -> Result<()> {
    check_word("a kind", &rule.kind)?;
    check_text("a pattern of names", &rule.name_pattern, crate::limits::NAME_BYTES_MAX)?;
    check_text("a pointer's name", &rule.pointer, KEY_BYTES_MAX)?;
    if !(1..=EVIDENCE_PER_RULE_MAX).contains(&rule.requires.len()) {
        return Err(Error::invalid(format!(
            "it requires {} pieces of evidence; a rule has 1 to {EVIDENCE_PER_RULE_MAX}",
            rule.requires.len()
        )));
    }
    rule.requires.iter().try_for_each(Evidence::check)
}

/// Whether a name matches a pattern in which `*` stands for any run of characters.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut name) = name.strip_prefix(first) else { return false };
    let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
    for piece in middle.split('*') {
        match name.find(piece) {
            Some(at) => name = &name[at + piece.len()..],
            None => return false,
        }
    }
    name.ends_with(last)
}

/// Looks for evidence in a view, with a transaction laid over it.
pub(crate) struct Search<'a> {
    space: &'a Space,
    view: &'a View,
    tx: Option<&'a Transaction>,
    edges_left: usize,
}

/// A node that a path has come to, and what it relied on.
struct Reached {
    node: Node,
    keys: Vec<Vec<u8>>,
}

impl<'a> Search<'a> {
    pub fn new(space: &'a Space, view: &'a View, tx: Option<&'a Transaction>) -> Search<'a> {
        Search { space, view, tx, edges_left: SEARCHED_EDGES_MAX }
    }

    /// The stored keys that the evidence stands on, or what is missing, in words.
    pub fn find(&mut self, evidence: &Evidence, from: &Node) -> Result<Result<Vec<Vec<u8>>, String>> {
        let mut front = vec![Reached { node: from.clone(), keys: Vec::new() }];
        for (at, relation) in evidence.path.iter().enumerate() {
            front = self.step(&front, relation)?;
            if front.is_empty() {
                return Ok(Err(evidence.words(from, at)));
            }
        }
        let Some(label) = &evidence.label else { return Ok(Ok(front.swap_remove(0).keys)) };
        for reached in front {
            if let Some(keys) = self.label(label, reached)? {
                return Ok(Ok(keys));
            }
        }
        Ok(Err(evidence.words(from, evidence.path.len())))
    }

    /// Every node that one more relation leads to.
    fn step(&mut self, front: &[Reached], relation: &str) -> Result<Vec<Reached>> {
        let (mut next, mut seen) = (Vec::new(), BTreeSet::new());
        for reached in front {
            for (key, record, is_pending) in self.edges(&reached.node, relation)? {
                let target = record.edge.target;
                let node_key = keys::record(&target);
                let (exists, node_is_pending) = self.look_up(&node_key)?;
                if (!target.is_external() && exists.is_none()) || !seen.insert(target.clone()) {
                    continue;
                }
                let mut keys = reached.keys.clone();
                keys.extend((!is_pending).then_some(key));
                keys.extend((!target.is_external() && !node_is_pending).then_some(node_key));
                next.push(Reached { node: target, keys });
            }
        }
        Ok(next)
    }

    /// Edges of one relation that leave a node: key, record, and whether the transaction adds it.
    fn edges(&mut self, node: &Node, relation: &str) -> Result<Vec<(Vec<u8>, EdgeRecord, bool)>> {
        let range = keys::edges_with(node, relation);
        let mut found = Vec::new();
        if let Some(tx) = self.tx {
            for (key, value) in tx.pending_under(self.space, &range.start) {
                found.push((key, keys::decode(&value)?, true));
            }
        }
        let edges_left = &mut self.edges_left;
        each(self.space, self.view, &range, |key, value| {
            if *edges_left == 0 {
                return Ok(false);
            }
            *edges_left -= 1;
            found.push((key.to_vec(), keys::decode(value)?, false));
            Ok(true)
        })?;
        Ok(found)
    }

    fn label(&self, wanted: &LabelEvidence, reached: Reached) -> Result<Option<Vec<Vec<u8>>>> {
        let key = keys::label(&reached.node, &wanted.key);
        let (Some(found), is_pending) = self.look_up(&key)? else { return Ok(None) };
        let (by, value) = keys::decode_label(&found)?;
        let holds = wanted.value.as_ref().is_none_or(|wanted| wanted == value)
            && wanted.set_by.as_ref().is_none_or(|wanted| wanted == by);
        let mut keys = reached.keys;
        keys.extend((!is_pending).then_some(key));
        Ok(holds.then_some(keys))
    }

    /// What stands under a key, and whether the transaction says so.
    fn look_up(&self, key: &[u8]) -> Result<(Option<Bytes>, bool)> {
        match self.tx.and_then(|tx| tx.pending(self.space, key)) {
            Some(pending) => Ok((pending, true)),
            None => Ok((self.view.get(self.space, key)?, false)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_of_names() {
        fn check(pattern: &str, name: &str, expect: bool) {
            assert_eq!(matches(pattern, name), expect, "`{pattern}` `{name}`");
        }
        check("*", "anything", true);
        check("*", "", true);
        check("prod-*", "prod-a", true);
        check("prod-*", "prod-", true);
        check("prod-*", "pro", false);
        check("*-model", "a-model", true);
        check("*-model", "a-models", false);
        check("a*b*c", "axxbyyc", true);
        check("a*b*c", "acb", false);
        check("a*a", "a", false);
        check("a**b", "ab", true);
        check("exact", "exact", true);
        check("exact", "exactly", false);
        check("é*", "ésprit", true);
    }

    #[test]
    fn rules_are_read_from_configuration() {
        let text = r#"{"kind": "model", "name-pattern": "*", "pointer": "champion", "requires": [
            {"path": ["produced-by", "trained-on"], "label": {"key": "sha256"}},
            {"label": {"key": "gate.passed", "value": "true", "set-by": "gate"}}]}"#;
        let rule: ProtectionRule = serde_json::from_str(text).unwrap();
        assert_eq!(rule.requires[0].path.len(), 2);
        Rules::new(vec![rule.clone()]).map(drop).unwrap();
        serde_json::from_str::<ProtectionRule>(&text.replace("set-by", "setby")).unwrap_err();

        fn check(rule: ProtectionRule, expect: &str) {
            let error = Rules::new(vec![rule]).map(drop).unwrap_err();
            assert!(error.message().contains("protection rule 1"), "{error}");
            assert!(error.message().contains(expect), "{error}");
        }
        check(ProtectionRule { kind: "Model".into(), ..rule.clone() }, "is not a kind");
        check(ProtectionRule { requires: vec![], ..rule.clone() }, "0 pieces");
        check(ProtectionRule { requires: vec![Evidence::default()], ..rule.clone() }, "neither a path nor a label");
        let long = Evidence { path: vec!["r".into(); PATH_STEPS_MAX + 1], label: None };
        check(ProtectionRule { requires: vec![long], ..rule }, "9 relations");
    }
}
