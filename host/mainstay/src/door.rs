//! The way from plugins to endpoints.
//!
//! Owns [`Door`], the endpoints as plugins see them. Separate from the interfaces that plugins call, which know a trait only.
//! Bounded and failing as traffic; a plugin that stands in for a model gets no chain of fallbacks behind what it asks.

use std::sync::Arc;

use async_trait::async_trait;
use http::{HeaderMap, HeaderName, HeaderValue};
use mainstay_base::{Error, ErrorKind, Result};
use mainstay_inference::{Asker, InferRequest, Models, Parameter};
use mainstay_interfaces::{DoorAnswer, DoorAsk, DoorAssignment, DoorEndpoint, InferenceDoor};
use mainstay_serving::{Endpoints, answer_headers};
use mainstay_traffic::{Caller, Source, Traffic};

/// See the module.
pub struct Door {
    /// The endpoints.
    pub traffic: Traffic,
    /// The same, as models of the protocol.
    pub models: Endpoints,
}

#[async_trait]
impl InferenceDoor for Door {
    fn endpoints(&self) -> Vec<Arc<str>> {
        self.traffic.list()
    }

    async fn find(&self, endpoint: &str) -> Result<Option<DoorEndpoint>> {
        let status = match self.traffic.status(endpoint) {
            Ok(status) => status,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let metadata = self.models.metadata(&Asker::default(), endpoint, None).await.unwrap_or_default();
        Ok(Some(DoorEndpoint {
            name: endpoint.to_owned(),
            is_ready: status.variants.iter().any(|variant| variant.identity.is_some()),
            plan_version: status.plan_version,
            variants: status.variants.iter().map(|variant| variant.name.to_string()).collect(),
            inputs: metadata.inputs,
            outputs: metadata.outputs,
        }))
    }

    fn assign(&self, endpoint: &str, key: &str) -> Result<DoorAssignment> {
        let source = self.traffic.show(endpoint)?.active.plan.split.key;
        let (mut headers, mut request, mut tenant) = (HeaderMap::new(), InferRequest::default(), None);
        let mut put = |name: &str, value: &str| -> Result<()> {
            let bad = |_| Error::invalid(format!("the key cannot be the header `{name}`"));
            let name: HeaderName = name.parse().map_err(|_| Error::invalid(format!("`{name}` is no header")))?;
            headers.insert(name.clone(), HeaderValue::from_str(value).map_err(bad)?);
            Ok(())
        };
        match source {
            Some(Source::Header(name)) => put(&name, key)?,
            Some(Source::Cookie(name)) => put("cookie", &format!("{name}={key}"))?,
            Some(Source::Parameter(name) | Source::Field(name)) => {
                request.parameters.push((name, Parameter::String(key.to_owned())));
            }
            Some(Source::Tenant) => tenant = Some(Arc::<str>::from(key)),
            Some(Source::RequestId) | None => request.id = Some(key.to_owned()),
        }
        let caller = Caller { tenant: tenant.as_ref(), ..Caller::new(&headers) };
        let assigned = self.traffic.assign(endpoint, caller, &request)?;
        Ok(DoorAssignment {
            variant: assigned.variant.to_string(),
            plan_version: assigned.plan_version,
            is_sticky: assigned.is_sticky,
        })
    }

    async fn infer(&self, ask: DoorAsk) -> Result<DoorAnswer> {
        let endpoint = ask.request.model.clone();
        let caller = Caller {
            headers: &ask.headers,
            tenant: ask.tenant.as_ref(),
            deadline: ask.deadline,
            trace: ask.traceparent.as_deref(),
            may_inject_faults: false,
            may_fall_back: !ask.within_fallback,
        };
        let served = self.traffic.infer(&endpoint, caller, ask.request).await?;
        let headers = answer_headers(&served.labels);
        let told = headers.iter().filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned())));
        Ok(DoorAnswer {
            headers: told.collect(),
            variant: served.labels.variant.clone(),
            run: served.labels.run.clone(),
            fallback: served.labels.fallback.as_ref().map(|fallback| fallback.label.clone()),
            answer: served.answer,
        })
    }
}
