//! Aliases and stages move, and endpoints follow.
//!
//! Owns the watch over pointers: whenever the store has changed, those that variants refer to are looked up again, and traffic is
//! told of each that moved. Separate from traffic, which knows no registry, and from whoever moves pointers, who need not know
//! that anybody follows.
//!
//! Bounded by: one look each [`LOOK`], and only when something was committed. On failure: said in the host's log; the endpoint
//! answers with what it has, and the next look tries again.

use std::collections::BTreeMap;
use std::time::Duration;

use mainstay_store::Store;
use mainstay_traffic::{Reference, Traffic};

use crate::registered::Registered;

/// How often to look whether something was committed.
const LOOK: Duration = Duration::from_millis(200);

/// Follow until dropped.
pub async fn follow(store: Store, traffic: Traffic, registered: Registered) {
    let mut seen = BTreeMap::new();
    let mut sequence = None;
    loop {
        tokio::time::sleep(LOOK).await;
        let now = store.sequence();
        if sequence.replace(now) == Some(now) {
            continue;
        }
        for reference in references(&traffic) {
            look(&traffic, &registered, &reference, &mut seen).await;
        }
    }
}

/// What variants refer to that may move.
fn references(traffic: &Traffic) -> Vec<Reference> {
    let records = traffic.list().into_iter().filter_map(|name| traffic.show(&name).ok());
    let variants = records.flat_map(|record| record.spec.variants);
    variants.map(|variant| variant.backend).filter(|backend| backend.pointer().is_some()).collect()
}

async fn look(traffic: &Traffic, registered: &Registered, reference: &Reference, seen: &mut BTreeMap<Reference, u64>) {
    let (Some((model, pointer)), Ok((_, version))) = (reference.pointer(), registered.number(reference)) else {
        return;
    };
    match seen.insert(reference.clone(), version) {
        Some(before) if before != version => {}
        // The first look: it was resolved when the endpoint was applied.
        _ => return,
    }
    if let Err(error) = traffic.moved(model, pointer).await {
        tracing::warn!(%reference, version, %error, "an endpoint could not follow; it is tried again with the next change");
        seen.remove(reference);
    }
}
