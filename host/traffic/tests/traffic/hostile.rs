//! Hostile specifications and requests: refused with a reason, never a panic; and every limit at n and n + 1.

use mainstay_traffic::limits::*;
use mainstay_traffic::*;
use proptest::prelude::*;

use crate::support::*;

fn ok(spec: &EndpointSpec) -> bool {
    match spec.check() {
        Ok(()) => true,
        Err(error) => {
            assert!(error.message().contains('`'), "it names no field: {error}");
            false
        }
    }
}

#[test]
fn limits_hold_at_n_and_not_at_n_plus_one() {
    fn check(what: &str, max: usize, with: impl Fn(&mut EndpointSpec, usize)) {
        let of = |count: usize| spec(|spec| with(spec, count));
        assert!(ok(&of(max)), "{what}: {max}: {:?}", of(max).check());
        assert!(!ok(&of(max + 1)), "{what}: {max} + 1");
    }
    let many = |count: usize| (0..count).map(|number| format!("n{number}"));
    check("name", NAME_BYTES_MAX, |spec, n| spec.name = "n".repeat(n));
    check("description", REASON_BYTES_MAX, |spec, n| spec.description = "n".repeat(n));
    check("variants", VARIANTS_MAX, |spec, n| {
        let more = many(n - 3).map(|name| VariantSpec::new(name, "models:/m/1".parse().unwrap()));
        spec.variants.extend(more);
    });
    check("plans", PLANS_MAX, |spec, n| {
        spec.plans = many(n).map(|name| NamedPlan { name, plan: Plan::of("a") }).collect();
    });
    let condition = || Condition { of: Source::Tenant, is: Test::Present };
    let rule = |conditions: usize| Rule { when: vec![condition(); conditions], split: Plan::of("a").split };
    check("rules", RULES_MAX, |spec, n| spec.plan.rules = vec![rule(1); n]);
    check("conditions", CONDITIONS_MAX, |spec, n| spec.plan.rules = vec![rule(n)]);
    check("text", TEXT_BYTES_MAX, |spec, n| {
        let is = Test::Exact("x".repeat(n));
        spec.plan.rules = vec![Rule { when: vec![Condition { is, ..condition() }], ..rule(1) }];
    });
    check("mirrors", MIRRORS_MAX, |spec, n| {
        let more = many(2).map(|name| VariantSpec::new(name, "models:/m/1".parse().unwrap()));
        spec.variants.extend(more);
        let of = |name: &str| serde_json::from_str(&format!(r#"{{"variant": "{name}"}}"#)).unwrap();
        spec.plan.mirrors = ["a", "b", "c", "n0", "n1"][..n].iter().map(|name| of(name)).collect();
    });
    check("mirror concurrency", MIRRORED_MAX as usize, |spec, n| {
        let mirror = format!(r#"{{"variant": "b", "concurrency": {n}}}"#);
        spec.plan.mirrors = vec![serde_json::from_str(&mirror).unwrap()];
    });
    check("tiers", TIERS_MAX, |spec, n| {
        spec.plan.fallbacks = vec![Tier { by: Stand::Variant("b".into()), timeout_ms: 1 }; n];
    });
    check("tripwires", TRIPWIRES_MAX, |spec, n| {
        spec.plans = vec![NamedPlan { name: "p".into(), plan: Plan::of("a") }];
        let wire = |name: String| Tripwire {
            name,
            variant: None,
            signal: Signal::Errors,
            percent: 1.0,
            window_ms: 1_000,
            minimum: 1,
            grace_ms: 0,
            plan: "p".into(),
        };
        spec.plan.tripwires = many(n).map(wire).collect();
    });
    check("faults", FAULTS_MAX, |spec, n| {
        let fault = |name: String| {
            let fault = format!(r#"{{"name": "{name}", "percent": 1, "effect": {{"abort": 500}}, "until-ms": 1}}"#);
            serde_json::from_str(&fault).unwrap()
        };
        spec.faults = many(n).map(fault).collect();
    });
    check("guards", GUARDS_MAX, |spec, n| {
        let rule = |name: String| serde_json::from_str(&format!(r#"{{"output": "{name}"}}"#)).unwrap();
        spec.variants[0].guard.outputs = many(n).map(rule).collect();
    });
    check("dimensions", DIMENSIONS_MAX, |spec, n| {
        let mut rule: OutputRule = serde_json::from_str(r#"{"output": "y"}"#).unwrap();
        rule.shape = Some(vec![-1; n]);
        spec.variants[0].guard.outputs = vec![rule];
    });
    check("tenants", TENANT_LIMITS_MAX, |spec, n| {
        spec.plan.limits.tenants = many(n).map(|name| (name, TenantLimits::default())).collect();
    });
    check("windows", WINDOWS_MAX as usize, |spec, n| spec.plan.signals.windows = n as u32);
    check("window", WINDOW_MS_MAX as usize, |spec, n| spec.plan.signals.window_ms = n as u64);
    check("timeout", SPAN_MS_MAX as usize, |spec, n| spec.plan.limits.timeout_ms = n as u64);
    check("concurrency", CONCURRENCY_MAX as usize, |spec, n| spec.plan.limits.concurrency = n as u32);
    check("queue", QUEUE_MAX as usize, |spec, n| spec.plan.limits.queue = n as u32);
    check("retries", RETRIES_MAX as usize, |spec, n| spec.plan.retry.retries = n as u32);
    check("probes", PROBES_MAX as usize, |spec, n| spec.plan.breaker.probes = n as u32);
    check("count", COUNT_MAX as usize, |spec, n| spec.plan.breaker.consecutive = n as u32);
}

#[test]
fn the_shortest_window_holds_and_nothing_below() {
    assert!(ok(&spec(|spec| spec.plan.signals.window_ms = WINDOW_MS_MIN)));
    assert!(!ok(&spec(|spec| spec.plan.signals.window_ms = WINDOW_MS_MIN - 1)));
}

#[test]
fn a_document_has_a_largest_size() {
    let json = serde_json::to_string(&spec(|_| {})).unwrap();
    let padded = |length: usize| format!("{json}{}", " ".repeat(length - json.len()));
    EndpointSpec::from_json(&padded(DOCUMENT_BYTES_MAX)).unwrap();
    let error = EndpointSpec::from_json(&padded(DOCUMENT_BYTES_MAX + 1)).unwrap_err();
    assert!(error.message().contains("1048576"), "{error}");
    assert!(EndpointSpec::from_toml(&" ".repeat(DOCUMENT_BYTES_MAX + 1)).is_err());
}

#[tokio::test(start_paused = true)]
async fn a_house_has_a_largest_number_of_endpoints() {
    let house = House::new().await;
    let mut one = spec(|spec| spec.variants.truncate(1));
    for number in 0..ENDPOINTS_MAX {
        one.name = format!("e{number}");
        house.apply(one.clone()).await;
    }
    one.name = "one-more".into();
    let error = house.traffic.apply(one, None, reason()).await.unwrap_err();
    assert_eq!(error.kind(), mainstay_base::ErrorKind::Exhausted);
}

/// A specification in which any leaf is replaced by something else.
fn mutated() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        ".{0,12}".prop_map(Into::into),
        Just(serde_json::json!([])),
        Just(serde_json::json!({})),
    ];
    (any::<prop::sample::Index>(), leaf).prop_map(|(at, leaf)| {
        let mut json = serde_json::to_value(full()).unwrap();
        let places = leaves(&json, String::new());
        *json.pointer_mut(&places[at.index(places.len())]).unwrap() = leaf;
        json
    })
}

fn full() -> EndpointSpec {
    spec(|spec| {
        spec.plan.split = Split { shares: shares(&[("a", 60.0), ("b", 40.0)]), key: Some(Source::Tenant) };
        let condition = Condition { of: Source::Field("x".into()), is: Test::Prefix("1".into()) };
        spec.plan.rules = vec![Rule { when: vec![condition], split: Plan::of("c").split }];
        spec.plan.mirrors = serde_json::from_str(r#"[{"variant": "b", "compare": {}}]"#).unwrap();
        spec.plan.fallbacks = vec![Tier { by: Stand::Named("popular".into()), timeout_ms: 10 }];
        spec.plan.breaker.rate = Some(FailureRate { percent: 50.0, window_ms: 1_000, minimum: 5 });
        spec.plan.limits.tenant.rate = Some(Rate { per_second: 10.0, burst: 5 });
        spec.plan.signals.segment = Some(Source::Header("x".into()));
        spec.plans = vec![NamedPlan { name: "p".into(), plan: Plan::of("a") }];
        let fault = r#"{"name": "f", "percent": 50, "effect": {"latency-ms": 5}, "until-ms": 1800000000000}"#;
        spec.faults = vec![serde_json::from_str(fault).unwrap()];
        spec.variants[0].guard.outputs = vec![serde_json::from_str(r#"{"output": "score", "max": 1}"#).unwrap()];
    })
}

fn leaves(json: &serde_json::Value, path: String) -> Vec<String> {
    let mut all = vec![path.clone()];
    match json {
        serde_json::Value::Object(object) => {
            all.extend(object.iter().flat_map(|(key, value)| leaves(value, format!("{path}/{key}"))));
        }
        serde_json::Value::Array(array) => {
            all.extend(array.iter().enumerate().flat_map(|(n, value)| leaves(value, format!("{path}/{n}"))));
        }
        _ => {}
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..Default::default() })]

    /// It is refused, or it works.
    #[test]
    fn whatever_stands_in_a_specification_nothing_panics(json in mutated()) {
        let Ok(spec) = EndpointSpec::from_json(&json.to_string()) else { return Ok(()) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let house = House::new().await;
            house.fallback("popular", Do::Answer(0.0), None);
            if let Ok(record) = house.traffic.apply(spec, None, reason()).await {
                let headers = http::HeaderMap::new();
                for _ in 0..3 {
                    let _ = house.traffic.infer(&record.spec.name, Caller::new(&headers), request()).await;
                }
            }
        });
    }

    #[test]
    fn no_text_panics_when_it_is_read(text in "\\PC{0,200}") {
        let _ = EndpointSpec::from_toml(&text);
        let _ = EndpointSpec::from_json(&text);
        let _ = text.parse::<Reference>();
    }
}
