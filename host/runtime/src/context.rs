//! What the host keeps about one call: the one place that every host function passes.
//!
//! [`CallContext::enter`] counts the call into the host, checks the grant and starts the host's clock; dropping what it
//! returns stops that clock. The context is also the engine's resource limiter: it notes a refused allocation, so that the
//! trap that follows in the plugin is reported as what it is.
//!
//! Bounded by: the plugin's [`Limits`]. On failure: a denied call is an answer that the plugin can handle; an exhausted
//! limit ends the call.

use std::sync::Arc;

use mainstay_base::Error;
use wasmtime::{ResourceLimiter, UpdateDeadline};

use crate::error::{CallError, Deadline};
use crate::grants::{Capability, Grants};
use crate::limits::Limits;
use crate::meter::Meter;
use crate::stats::Counters;

/// Table entries that one component may have in all.
const TABLE_ELEMENTS_MAX: usize = 20_000;

/// Calls into the host that a plugin may make between a denial and the trap that it leads to.
const LAST_WORDS_CALLS: u64 = 2;

/// Why a call into the host is not made.
#[derive(Debug)]
pub enum Refusal {
    /// The plugin may be told and go on.
    Denied(Error),
    /// The call ends.
    Ends(CallError),
}

/// What is the same for all calls of a plugin.
pub(crate) struct Facts {
    pub(crate) plugin: Arc<str>,
    pub(crate) grants: Grants,
    pub(crate) limits: Limits,
    pub(crate) counters: Counters,
}

/// The host's side of one call.
pub struct CallContext {
    facts: Arc<Facts>,
    /// The limits of this call, where they differ from the plugin's.
    limits: Option<Box<Limits>>,
    meter: Arc<Meter>,
    host_calls: u64,
    memory_bytes: usize,
    refused_bytes: Option<usize>,
    /// What was denied last, and at which call into the host.
    denied: Option<(&'static str, u64)>,
}

/// What the data of a store must give access to.
pub trait HostData: Send + 'static {
    /// The context of the call that the store is serving.
    fn call_context(&mut self) -> &mut CallContext;

    /// Which trace the call belongs to, for the log; empty when to none.
    fn trace_id(&self) -> &str {
        ""
    }

    /// This data replaces `before` in a warm instance: take over what must not start anew.
    fn inherit(&mut self, before: &mut Self) {
        let _ = before;
    }
}

/// The host is at work for the plugin until this is dropped.
#[must_use = "the host's time is measured until this is dropped"]
pub struct HostTime {
    meter: Arc<Meter>,
}

impl Drop for HostTime {
    #[inline]
    fn drop(&mut self) {
        self.meter.leave_host();
    }
}

impl CallContext {
    pub(crate) fn new(facts: Arc<Facts>, limits: Option<Box<Limits>>) -> CallContext {
        CallContext {
            facts,
            limits,
            meter: Arc::new(Meter::new()),
            host_calls: 0,
            memory_bytes: 0,
            refused_bytes: None,
            denied: None,
        }
    }

    /// Every host function calls this first and keeps what it returns until it answers.
    #[inline]
    pub fn enter(&mut self, capability: Capability) -> Result<HostTime, Refusal> {
        self.meter.enter_host();
        let time = HostTime { meter: self.meter.clone() };
        self.host_calls += 1;
        if self.host_calls > self.limits().host_calls {
            return Err(Refusal::Ends(CallError::HostCalls {
                plugin: self.facts.plugin.clone(),
                limit: self.limits().host_calls,
            }));
        }
        if !self.facts.grants.allow(capability) {
            return Err(Refusal::Denied(self.deny(capability)));
        }
        Ok(time)
    }

    #[cold]
    fn deny(&mut self, capability: Capability) -> Error {
        self.facts.counters.denied.add(1);
        self.denied = Some((capability.name, self.host_calls));
        let denied = CallError::Denied { plugin: self.facts.plugin.clone(), capability: capability.name };
        Error::denied(denied.to_string())
    }

    /// The error of an answer that is larger than it may be.
    pub fn output_too_large(&self) -> CallError {
        CallError::OutputTooLarge { plugin: self.facts.plugin.clone(), limit_bytes: self.limits().output_bytes }
    }

    /// Whose call it is.
    pub fn plugin(&self) -> &Arc<str> {
        &self.facts.plugin
    }

    /// The limits of this call.
    #[inline]
    pub fn limits(&self) -> &Limits {
        match &self.limits {
            Some(limits) => limits,
            None => &self.facts.limits,
        }
    }

    /// Count log bytes that were cut.
    pub fn note_log_cut(&self, bytes: usize) {
        self.facts.counters.log_cut_bytes.add(bytes as u64);
    }

    /// What was denied just before: within the last calls into the host, which is where a plugin that panics over the
    /// denial still writes its last words.
    pub(crate) fn denied_just_now(&self) -> Option<&'static str> {
        let (capability, at) = self.denied?;
        (self.host_calls - at <= LAST_WORDS_CALLS).then_some(capability)
    }

    /// How often the plugin has called the host.
    pub fn host_calls(&self) -> u64 {
        self.host_calls
    }

    pub(crate) fn meter(&self) -> &Arc<Meter> {
        &self.meter
    }

    pub(crate) fn refused_bytes(&self) -> Option<usize> {
        self.refused_bytes
    }

    /// The next call in the same instance: its memory is still there.
    pub(crate) fn inherit_memory(&mut self, before: &CallContext) {
        self.memory_bytes = before.memory_bytes;
    }

    /// What happens at each tick of the engine: yield, so that neighbours run, or end the call.
    pub(crate) fn on_tick(&mut self) -> wasmtime::Result<UpdateDeadline> {
        let limit_ms = self.limits().call_cpu_ms;
        if self.meter.guest_ns() > limit_ms * 1_000_000 {
            let plugin = self.facts.plugin.clone();
            return Err(CallError::TimedOut { plugin, deadline: Deadline::Cpu, limit_ms }.into());
        }
        Ok(UpdateDeadline::Yield(1))
    }
}

impl ResourceLimiter for CallContext {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let wanted = self.memory_bytes.saturating_add(desired.saturating_sub(current));
        if wanted > self.limits().memory_bytes {
            self.refused_bytes = Some(wanted);
            return Ok(false);
        }
        self.memory_bytes = wanted;
        Ok(true)
    }

    fn table_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_ELEMENTS_MAX)
    }
}
