//! Who answers when the chosen variant does not.
//!
//! Owns the walk along the fallback chain: each tier in its order, each with its own deadline, and last the answer that stands in
//! the plan. Separate from attempts, because whoever stands in is not tried again, and is labelled.
//!
//! Bounded by the tiers' deadlines and the request's. On failure: a tier that does not answer is passed over; when none does,
//! the caller gets the reason why the variant did not.

use std::sync::Arc;
use std::time::Duration;

use mainstay_base::Error;
use mainstay_inference::InferAnswer;
use tokio::time::{Instant, timeout_at};

use crate::backend::{Identity, Instead, StoodIn};
use crate::endpoint::Tier;
use crate::guard;
use crate::passage::{Passage, Stop};
use crate::served::{FellBack, Why};

impl Passage {
    /// An answer instead, if the plan has one for this reason.
    pub async fn stand_in(&mut self, stop: &Stop) -> Option<(Arc<InferAnswer>, FellBack)> {
        let active = self.active.clone();
        if !active.plan().fall_back_on.contains(&stop.why) {
            return None;
        }
        for (number, (tier, spec)) in active.tiers.iter().zip(&active.plan().fallbacks).enumerate() {
            let now = Instant::now();
            let end = self.deadline.min(now + Duration::from_millis(spec.timeout_ms));
            if end <= now {
                continue;
            }
            let answered = match tier {
                Tier::Variant(place) => self.variant_stands_in(*place, end).await,
                Tier::Named(name) => self.named_stands_in(name, stop.why, end).await,
            };
            match answered {
                Ok((answer, label)) => {
                    return Some((answer, FellBack { tier: number as u32, label, why: stop.why }));
                }
                Err(error) => {
                    tracing::debug!(endpoint = %self.endpoint.name, tier = number, %error, "a fallback did not answer");
                }
            }
        }
        let (label, answer) = active.fixed.clone()?;
        self.answered_by(&Identity::default());
        Some((answer, FellBack { tier: active.tiers.len() as u32, label, why: stop.why }))
    }

    async fn variant_stands_in(&mut self, place: usize, end: Instant) -> Result<(Arc<InferAnswer>, Arc<str>), Error> {
        let variant = self.active.variants.get(place).cloned();
        let variant = variant.ok_or_else(|| Error::internal("a tier names no variant"))?;
        let answer = self.attempt(&variant, None, end).await.map_err(|stop| stop.error)?;
        Ok((answer, variant.name.clone()))
    }

    async fn named_stands_in(
        &mut self,
        name: &Arc<str>,
        why: Why,
        end: Instant,
    ) -> Result<(Arc<InferAnswer>, Arc<str>), Error> {
        let ask = self.ask(end, 0);
        let answered = timeout_at(end, async {
            let fallback = self.inner.backends.fallback(name).await?;
            let instead = Instead { request: &self.request, variant: self.labels.variant.as_ref(), why, ask: &ask };
            let StoodIn { answer, kind } = fallback.answer(&instead).await?;
            let label = fallback.label();
            Ok::<_, Error>((answer, kind.map_or_else(|| label.clone(), |kind| format!("{label}/{kind}"))))
        });
        let (answer, label) = answered
            .await
            .unwrap_or_else(|_| Err(Error::unavailable(format!("fallback `{name}` did not answer in time"))))?;
        guard::check_finite(&answer).map_err(|reason| Error::internal(format!("fallback `{name}`: {reason}")))?;
        let (model, version) = (answer.model.as_str().into(), answer.version.as_str().into());
        self.answered_by(&Identity { model, version, run: None });
        Ok((Arc::new(answer), label.into()))
    }
}
