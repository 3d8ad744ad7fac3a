//! Specifications: read, described, compared, and refused by the name of the field.

use mainstay_traffic::*;

use crate::support::*;

const FULL: &str = r#"
name = "churn"
description = "Who is about to leave."

[[variants]]
name = "champion"
backend = "models:/churn@live"
resource = "cpu-pool"

[[variants.guard.outputs]]
output = "score"
datatype = "FP32"
shape = [-1]
min = 0.0
max = 1.0
constant-after = 50

[[variants]]
name = "challenger"
backend = "models:/churn/7"

[[variants]]
name = "old"
backend = "grpc://old-triton:8001"

[plan.split]
shares = [{ variant = "champion", percent = 95 }, { variant = "challenger", percent = 5 }]
key = { header = "x-user" }

[[plan.rules]]
when = [{ of = "tenant", is = { exact = "acme" } }, { of = { cookie = "beta" }, is = "present" }]
split = { shares = [{ variant = "challenger", percent = 100 }] }

[[plan.mirrors]]
variant = "old"
percent = 10
compare = { absolute = 0.01 }

[[plan.fallbacks]]
by = { variant = "old" }
timeout-ms = 100

[[plan.fallbacks]]
by = { named = "popular" }

[plan.answer]
label = "nobody"
outputs = [{ name = "score", datatype = "FP32", shape = [1], data = [0.0] }]

[plan.limits]
concurrency = 64
tenant = { concurrency = 16, rate = { per-second = 100, burst = 50 } }

[plan.limits.tenants.gold]
concurrency = 48

[plan.breaker]
rate = { percent = 50, window-ms = 10000, minimum = 20 }

[plan.signals]
segment = { header = "x-country" }

[[plan.tripwires]]
name = "slow"
variant = "challenger"
signal = { slower-than-ms = 500 }
percent = 1
window-ms = 300000
minimum = 100
plan = "safe"

[[plan.tripwires]]
name = "errors"
signal = "errors"
percent = 2
window-ms = 300000
minimum = 100
plan = "safe"

[[plans]]
name = "safe"
plan.split.shares = [{ variant = "champion", percent = 100 }]

[[faults]]
name = "slow"
variant = "challenger"
percent = 20
effect = { latency-ms = 500 }
until-ms = 1800000000000
stop = { percent = 10, window-ms = 60000, minimum = 50 }
"#;

#[test]
fn a_full_specification_is_read_from_toml_and_json_alike() {
    let spec = EndpointSpec::from_toml(FULL).unwrap();
    let json = serde_json::to_string(&spec).unwrap();
    assert_eq!(EndpointSpec::from_json(&json).unwrap(), spec);
    assert_eq!(spec.plan.tripwires[0].signal, Signal::SlowerThanMs(500));
    assert_eq!(spec.plan.limits.tenants["gold"].concurrency, Some(48));
    assert_eq!(spec.plan.breaker.consecutive, 5);
}

#[test]
fn every_field_is_described_in_the_schema() {
    fn walk(path: &str, schema: &serde_json::Value, problems: &mut Vec<String>) {
        let Some(object) = schema.as_object() else { return };
        for (name, property) in object.get("properties").and_then(|all| all.as_object()).into_iter().flatten() {
            // The only property of a choice is described by the choice itself.
            if property.get("description").or(object.get("description")).is_none() {
                problems.push(format!("{path}.{name}"));
            }
        }
        for (name, part) in object {
            if let Some(parts) = part.as_array() {
                parts.iter().for_each(|part| walk(path, part, problems));
            }
            walk(&format!("{path}/{name}"), part, problems);
        }
    }
    let schema = schemars::schema_for!(EndpointSpec);
    let mut problems = Vec::new();
    walk("", schema.as_value(), &mut problems);
    assert!(problems.is_empty(), "{problems:#?}");
}

#[test]
fn what_makes_no_sense_is_refused_by_the_name_of_its_field() {
    fn check(change: impl FnOnce(&mut EndpointSpec), expect: &str) {
        let mut spec = EndpointSpec::from_toml(FULL).unwrap();
        change(&mut spec);
        let error = spec.check().expect_err(expect);
        assert!(error.message().contains(expect), "{error}, not {expect}");
    }
    check(|spec| spec.name = "a/b".into(), "`name`");
    check(|spec| spec.variants.clear(), "`variants` is empty");
    check(|spec| spec.variants[1].name = "champion".into(), "`variants` has `champion` twice");
    check(|spec| spec.variants[0].guard.outputs[0].min = Some(2.0), "`variants[0].guard.outputs[0].min`");
    check(|spec| spec.variants[0].guard.outputs[0].datatype = Some("F".into()), "guard.outputs[0].datatype");
    check(|spec| spec.variants[0].guard.outputs[0].constant_after = Some(1), "constant-after");
    check(|spec| spec.variants[0].guard.outputs[0].shape = Some(vec![-2]), "guard.outputs[0].shape");
    check(|spec| spec.plan.split.shares[0].percent = 94.0, "`plan.split.shares` sum to 99 %");
    check(|spec| spec.plan.split.shares[0].percent = f64::NAN, "`plan.split.shares[0].percent` is NaN");
    check(|spec| spec.plan.split.shares[0].percent = -5.0, "`plan.split.shares[0].percent` is -5");
    check(
        |spec| spec.plan.split.shares[1].variant = "x".into(),
        "`plan.split.shares[1].variant` is `x`; the variants are",
    );
    check(|spec| spec.plan.split.shares[1].variant = "champion".into(), "`plan.split.shares` has `champion` twice");
    check(|spec| spec.plan.split.key = Some(Source::Header("a b".into())), "`plan.split.key`");
    check(|spec| spec.plan.rules[0].when.clear(), "`plan.rules[0].when` is empty");
    check(|spec| spec.plan.rules[0].split.shares.clear(), "`plan.rules[0].split.shares` sum to 0 %");
    check(|spec| spec.plan.mirrors[0].variant = "x".into(), "`plan.mirrors[0].variant`");
    check(|spec| spec.plan.mirrors[0].compare.as_mut().unwrap().absolute = -1.0, "mirrors[0].compare.absolute");
    check(|spec| spec.plan.fallbacks[0].by = Stand::Variant("champion".into()), "both would fail together");
    check(|spec| spec.plan.fallbacks[0].timeout_ms = 0, "`plan.fallbacks[0].timeout-ms`");
    check(|spec| spec.plan.fall_back_on.push(Why::Invalid), "`plan.fall-back-on` has `invalid`");
    check(|spec| spec.plan.limits.concurrency = 0, "`plan.limits.concurrency`");
    check(|spec| spec.plan.limits.tenant.rate.as_mut().unwrap().per_second = 0.0, "limits.tenant.rate.per-second");
    check(
        |spec| spec.plan.limits.tenants.get_mut("gold").unwrap().concurrency = Some(0),
        "limits.tenants.gold.concurrency",
    );
    check(|spec| spec.plan.breaker.cap_ms = 1, "`plan.breaker.cap-ms` is below");
    check(|spec| spec.plan.breaker.jitter = 1.5, "`plan.breaker.jitter`");
    check(|spec| spec.plan.breaker.factor = f64::INFINITY, "`plan.breaker.factor`");
    check(|spec| spec.plan.retry.retries = 4, "`plan.retry.retries` is 4");
    check(|spec| spec.plan.tripwires[0].plan = "x".into(), "`plan.tripwires[0].plan` is `x`");
    check(|spec| spec.plan.tripwires[1].name = "slow".into(), "`plan.tripwires` has `slow` twice");
    check(|spec| spec.plan.tripwires[1].signal = Signal::Disagreements, "`plan.tripwires[1].variant` is missing");
    check(|spec| spec.plan.signals.score.max = 0.0, "`plan.signals.score.min`");
    check(|spec| spec.plans[0].plan = Plan::of("x"), "`plans[0].plan.split.shares[0].variant`");
    check(|spec| spec.faults[0].until_ms = i64::MIN, "`faults[0].until-ms`");
    check(|spec| spec.faults[0].effect = Effect::Abort(200), "`faults[0].effect.abort`");
    check(|spec| spec.faults[0].effect = Effect::Saturation(5), "leave `variant` and `when` out");
}

#[test]
fn plans_that_lead_back_to_themselves_are_refused() {
    fn check(edges: &[(&str, &str)], expect: Option<&str>) {
        let mut spec = spec(|_| {});
        for name in ["p", "q", "r"] {
            let mut plan = Plan::of("a");
            for (number, (_, to)) in edges.iter().filter(|(from, _)| *from == name).enumerate() {
                let wire = format!(
                    r#"{{"name": "w{number}", "signal": "errors", "percent": 1, "window-ms": 1000, "minimum": 1, "plan": "{to}"}}"#
                );
                plan.tripwires.push(serde_json::from_str(&wire).unwrap());
            }
            spec.plans.push(NamedPlan { name: name.into(), plan });
        }
        match (spec.check(), expect) {
            (Ok(()), None) => {}
            (Err(error), Some(expect)) if error.message().contains(expect) => {}
            (found, expect) => panic!("{found:?}, not {expect:?}"),
        }
    }
    check(&[("p", "q"), ("q", "r"), ("p", "r")], None);
    check(&[("p", "p")], Some("`p` → `p`"));
    check(&[("p", "q"), ("q", "r"), ("r", "p")], Some("lead back to themselves"));
}

#[test]
fn unknown_fields_and_storage_paths_are_refused() {
    fn check(from: &str, to: &str, expect: &str) {
        assert!(FULL.contains(from), "{from}");
        let error = EndpointSpec::from_toml(&FULL.replacen(from, to, 1)).expect_err(expect);
        assert!(error.message().contains(expect), "{error}, not {expect}");
    }
    check("resource = ", "ressource = ", "ressource");
    check("percent = 10\n", "percnt = 10\n", "percnt");
    check("models:/churn/7", "s3://models/churn.onnx", "storage path");
    check("models:/churn/7", "/srv/churn.onnx", "models:/NAME@ALIAS");
    check("signal = \"errors\"", "signal = \"mood\"", "mood");
}

#[test]
fn differences_are_told_in_words() {
    fn check(change: impl FnOnce(&mut EndpointSpec), expect: &[&str]) {
        let before = EndpointSpec::from_toml(FULL).unwrap();
        let mut after = before.clone();
        change(&mut after);
        assert_eq!(diff(Some(&before), &after), expect);
    }
    check(|_| {}, &[]);
    check(
        |spec| (spec.plan.split.shares[0].percent, spec.plan.split.shares[1].percent) = (80.0, 20.0),
        &[
            "`plan.split.shares[champion].percent` changes from 95.0 to 80.0",
            "`plan.split.shares[challenger].percent` changes from 5.0 to 20.0",
        ],
    );
    check(|spec| spec.variants.reverse(), &[]);
    check(|spec| spec.plan.split.key = None, &[r#"`plan.split.key` is removed; it was {"header":"x-user"}"#]);
    check(
        |spec| spec.variants[1].backend = "models:/churn/8".parse().unwrap(),
        &[r#"`variants[challenger].backend` changes from "models:/churn/7" to "models:/churn/8""#],
    );
    check(
        |spec| {
            spec.plan.fallbacks.remove(0);
            spec.plan.answer = None;
        },
        &[
            r#"`plan.answer` is removed; it was {"label":"nobody","outputs":[{"data":[0.0],"datatype":"FP32","name":"score","shape":[1]}]}"#,
            r#"`plan.fallbacks[0].by.named` is added: "popular""#,
            r#"`plan.fallbacks[0].by.variant` is removed; it was "old""#,
            "`plan.fallbacks[0].timeout-ms` changes from 100 to 50",
            r#"`plan.fallbacks[1]` is removed; it was {"by":{"named":"popular"},"timeout-ms":50}"#,
        ],
    );
    assert_eq!(diff(None, &EndpointSpec::from_toml(FULL).unwrap()), ["endpoint `churn` is new"]);
}
