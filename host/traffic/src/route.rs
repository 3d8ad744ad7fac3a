//! Where a request goes.
//!
//! Owns [`Route`]: rules and splits of a plan, made ready to decide without allocation. Separate from carrying the decision
//! out, so that the same code answers who would get what.
//!
//! Bounded by the plan's number of rules and variants. Does not fail: a request whose key is missing is placed by chance.

use mainstay_base::Result;
use mainstay_inference::InferRequest;

use crate::caller::{Caller, Matcher, Reader};
use crate::plan::{Plan, Rule, Split};
use crate::split::{Salt, Wheel, key_hash};

/// Where a request goes, and how that was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Decision {
    /// The variant's place in the endpoint.
    pub variant: usize,
    /// The rule that matched, by its place in the plan.
    pub rule: Option<usize>,
    /// Whether the same key goes there again.
    pub is_sticky: bool,
}

struct Ready {
    wheel: Wheel,
    key: Option<Reader>,
}

/// See the module.
pub(crate) struct Route {
    rules: Box<[(Box<[Matcher]>, Ready)]>,
    otherwise: Ready,
    salt: Salt,
}

impl Route {
    pub fn new(plan: &Plan, salt: &Salt, place: &impl Fn(&str) -> Option<usize>) -> Result<Route> {
        let ready = |split: &Split| -> Result<Ready> {
            let key = split.key.as_ref().map(|key| Reader::new(key, "split.key")).transpose()?;
            Ok(Ready { wheel: Wheel::new(split, salt, place), key })
        };
        let rule = |rule: &Rule| Ok((Matcher::all(&rule.when, "when")?, ready(&rule.split)?));
        let rules = plan.rules.iter().map(rule).collect::<Result<_>>()?;
        Ok(Route { rules, otherwise: ready(&plan.split)?, salt: *salt })
    }

    /// None only of a plan in which nobody has a share, which no check lets pass.
    pub fn decide(
        &self,
        caller: &Caller<'_>,
        request: &InferRequest,
        chance: impl FnOnce() -> u64,
    ) -> Option<Decision> {
        let matches = |matchers: &[Matcher]| matchers.iter().all(|matcher| matcher.matches(caller, request));
        let rule = self.rules.iter().position(|(matchers, _)| matches(matchers));
        let ready = rule.map_or(&self.otherwise, |rule| &self.rules[rule].1);
        let key = ready.key.as_ref().and_then(|key| key.read(caller, request));
        // Everybody without a name would be the same user.
        let key = key.filter(|text| !text.bytes().is_empty());
        let (hash, is_sticky) = match key {
            Some(text) => (key_hash(&self.salt, text.bytes()), true),
            None => (chance(), false),
        };
        Some(Decision { variant: ready.wheel.choose(hash)?, rule, is_sticky })
    }
}
