//! `mainstay:fallback/asks`: what a fallback is asked, what it answers, and the good answers that it is told of.
//!
//! Asks and lessons are put there by the world's entry and die with the call. Bounded by: one ask, [`REPLIES_MAX`] replies and
//! [`LESSONS_MAX`] lessons a call; [`TENSOR_BYTES_MAX`] bytes of tensors each way. On failure: a typed error to the plugin.

use std::sync::Arc;
use std::time::Instant;

use mainstay_base::{Error, Result as HostResult};
use mainstay_bindings::Failure;
use mainstay_bindings::mainstay::fallback::asks::{
    Ask as AskHandle, Host, HostAsk, HostLesson, HostReply, Lesson as LessonHandle, Reply as ReplyHandle,
};
use mainstay_bindings::mainstay::host::tensors::{Parameter as WireParameter, Tensor as WireTensor};
use mainstay_inference::limits::TENSORS_MAX;
use mainstay_inference::{InferAnswer, InferRequest};
use wasmtime::component::Resource;

use crate::imports::arrays::ended;
use crate::imports::tensors;
use crate::state::State;

/// Asks that a call may hold.
pub const ASKS_MAX: usize = 1;
/// Replies that a call may hold.
pub const REPLIES_MAX: usize = 4;
/// Lessons of one batch.
pub const LESSONS_MAX: usize = 64;
/// Bytes of the inputs that a fallback is given at once, of the outputs that it answers, and of a lesson.
pub const TENSOR_BYTES_MAX: usize = 64 << 10;
/// Parameters of a reply.
const PARAMETERS_MAX: usize = 64;
/// The longest label of a reply, in bytes.
const LABEL_BYTES_MAX: usize = 64;
/// The tenant of those of whom none is known.
const DEFAULT_TENANT: &str = "default";

type Answer<T> = Result<T, Failure>;

/// A request that was not answered, on its way to a fallback.
#[derive(Clone, Debug)]
pub struct FallbackAsk {
    /// The endpoint that was asked.
    pub endpoint: Arc<str>,
    /// The variant that should have answered.
    pub variant: Option<Arc<str>>,
    /// Why it did not, in one word of the contract's.
    pub why: String,
    /// On whose account.
    pub tenant: Option<Arc<str>>,
    /// What was asked.
    pub request: Arc<InferRequest>,
    /// W3C trace context of the request.
    pub traceparent: Option<String>,
}

/// What a fallback answered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FallbackReply {
    /// What kind of answer it is.
    pub label: String,
    /// Model and version are empty where it is no model's answer.
    pub answer: InferAnswer,
}

/// A good answer, on its way to a fallback that learns.
#[derive(Clone, Debug)]
pub struct Lesson {
    /// The endpoint that was asked.
    pub endpoint: Arc<str>,
    /// The variant that answered.
    pub variant: Arc<str>,
    /// On whose account.
    pub tenant: Option<Arc<str>>,
    /// When, in milliseconds since 1970-01-01 UTC.
    pub answered_ms: i64,
    /// What was asked.
    pub request: Arc<InferRequest>,
    /// What was answered.
    pub answer: Arc<InferAnswer>,
}

impl Lesson {
    /// Bytes of its tensors; one with more than [`TENSOR_BYTES_MAX`] is not taught.
    pub fn tensor_bytes(&self) -> usize {
        tensors::bytes_of(&self.request.inputs) + tensors::bytes_of(&self.answer.outputs)
    }
}

impl Host for State {}

impl HostAsk for State {
    fn endpoint(&mut self, ask: Resource<AskHandle>) -> wasmtime::Result<String> {
        let _host = self.ambient()?;
        Ok(self.asks.get(&ask).map_err(ended)?.endpoint.to_string())
    }

    fn variant(&mut self, ask: Resource<AskHandle>) -> wasmtime::Result<Option<String>> {
        let _host = self.ambient()?;
        Ok(self.asks.get(&ask).map_err(ended)?.variant.as_deref().map(str::to_owned))
    }

    fn why(&mut self, ask: Resource<AskHandle>) -> wasmtime::Result<String> {
        let _host = self.ambient()?;
        Ok(self.asks.get(&ask).map_err(ended)?.why.clone())
    }

    fn tenant(&mut self, ask: Resource<AskHandle>) -> wasmtime::Result<String> {
        let _host = self.ambient()?;
        let ask = self.asks.get(&ask).map_err(ended)?;
        Ok(ask.tenant.as_deref().unwrap_or(DEFAULT_TENANT).to_owned())
    }

    fn rows(&mut self, ask: Resource<AskHandle>) -> wasmtime::Result<u64> {
        let _host = self.ambient()?;
        Ok(self.asks.get(&ask).map_err(ended)?.request.rows())
    }

    fn inputs(&mut self, ask: Resource<AskHandle>) -> Answer<Vec<WireTensor>> {
        let _host = self.ambient()?;
        let inputs = &self.asks.get(&ask)?.request.inputs;
        Ok(tensors::all_to_wire("the inputs", inputs, TENSOR_BYTES_MAX)?)
    }

    fn input(&mut self, ask: Resource<AskHandle>, name: String) -> Answer<Option<WireTensor>> {
        let _host = self.ambient()?;
        Ok(tensors::one_to_wire(&self.asks.get(&ask)?.request.inputs, &name, TENSOR_BYTES_MAX)?)
    }

    fn parameters(&mut self, ask: Resource<AskHandle>) -> wasmtime::Result<Vec<WireParameter>> {
        let _host = self.ambient()?;
        Ok(tensors::parameters_to_wire(&self.asks.get(&ask).map_err(ended)?.request.parameters))
    }

    fn wanted(&mut self, ask: Resource<AskHandle>) -> wasmtime::Result<Vec<String>> {
        let _host = self.ambient()?;
        let outputs = &self.asks.get(&ask).map_err(ended)?.request.outputs;
        Ok(outputs.iter().map(|output| output.name.clone()).collect())
    }

    fn remaining_ms(&mut self, ask: Resource<AskHandle>) -> wasmtime::Result<u32> {
        let _host = self.ambient()?;
        self.asks.get(&ask).map_err(ended)?;
        let left = self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()).as_millis());
        Ok(left.map_or(u32::MAX, |left| u32::try_from(left).unwrap_or(u32::MAX)))
    }

    fn drop(&mut self, ask: Resource<AskHandle>) -> wasmtime::Result<()> {
        let _host = self.ambient()?;
        self.asks.drop(&ask);
        Ok(())
    }
}

impl HostReply for State {
    fn new(&mut self, label: String) -> Answer<Resource<ReplyHandle>> {
        let _host = self.ambient()?;
        check_label(&label)?;
        Ok(self.stand_ins.add(FallbackReply { label, answer: InferAnswer::default() })?)
    }

    fn output(&mut self, reply: Resource<ReplyHandle>, tensor: WireTensor) -> Answer<()> {
        let _host = self.ambient()?;
        let outputs = &mut self.stand_ins.get(&reply)?.answer.outputs;
        if outputs.len() >= TENSORS_MAX {
            return Err(Error::invalid(format!("an answer has at most {TENSORS_MAX} outputs")).into());
        }
        Ok(tensors::add("the outputs of a fallback", outputs, tensor, TENSOR_BYTES_MAX)?)
    }

    fn parameter(&mut self, reply: Resource<ReplyHandle>, parameter: WireParameter) -> Answer<()> {
        let _host = self.ambient()?;
        let parameters = &mut self.stand_ins.get(&reply)?.answer.parameters;
        Ok(tensors::add_parameter(parameters, parameter, PARAMETERS_MAX)?)
    }

    fn model(&mut self, reply: Resource<ReplyHandle>, name: String, version: String) -> Answer<()> {
        let _host = self.ambient()?;
        tensors::check_name(&name)?;
        tensors::check_name(&version)?;
        let answer = &mut self.stand_ins.get(&reply)?.answer;
        (answer.model, answer.version) = (name, version);
        Ok(())
    }

    fn drop(&mut self, reply: Resource<ReplyHandle>) -> wasmtime::Result<()> {
        let _host = self.ambient()?;
        self.stand_ins.drop(&reply);
        Ok(())
    }
}

fn check_label(label: &str) -> HostResult<()> {
    let is_good = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    if (1..=LABEL_BYTES_MAX).contains(&label.len()) && label.bytes().all(is_good) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "`{}` is no label of an answer; use 1 to {LABEL_BYTES_MAX} of a-z, 0-9 and `-`",
        label.escape_debug()
    )))
}

impl HostLesson for State {
    fn endpoint(&mut self, lesson: Resource<LessonHandle>) -> wasmtime::Result<String> {
        let _host = self.ambient()?;
        Ok(self.lessons.get(&lesson).map_err(ended)?.endpoint.to_string())
    }

    fn variant(&mut self, lesson: Resource<LessonHandle>) -> wasmtime::Result<String> {
        let _host = self.ambient()?;
        Ok(self.lessons.get(&lesson).map_err(ended)?.variant.to_string())
    }

    fn tenant(&mut self, lesson: Resource<LessonHandle>) -> wasmtime::Result<String> {
        let _host = self.ambient()?;
        let lesson = self.lessons.get(&lesson).map_err(ended)?;
        Ok(lesson.tenant.as_deref().unwrap_or(DEFAULT_TENANT).to_owned())
    }

    fn model(&mut self, lesson: Resource<LessonHandle>) -> wasmtime::Result<String> {
        let _host = self.ambient()?;
        Ok(self.lessons.get(&lesson).map_err(ended)?.answer.model.clone())
    }

    fn version(&mut self, lesson: Resource<LessonHandle>) -> wasmtime::Result<String> {
        let _host = self.ambient()?;
        Ok(self.lessons.get(&lesson).map_err(ended)?.answer.version.clone())
    }

    fn answered_ms(&mut self, lesson: Resource<LessonHandle>) -> wasmtime::Result<i64> {
        let _host = self.ambient()?;
        Ok(self.lessons.get(&lesson).map_err(ended)?.answered_ms)
    }

    fn rows(&mut self, lesson: Resource<LessonHandle>) -> wasmtime::Result<u64> {
        let _host = self.ambient()?;
        Ok(self.lessons.get(&lesson).map_err(ended)?.request.rows())
    }

    fn inputs(&mut self, lesson: Resource<LessonHandle>) -> wasmtime::Result<Vec<WireTensor>> {
        let _host = self.ambient()?;
        let lesson = self.lessons.get(&lesson).map_err(ended)?;
        Ok(lesson.request.inputs.iter().map(tensors::to_wire).collect())
    }

    fn parameters(&mut self, lesson: Resource<LessonHandle>) -> wasmtime::Result<Vec<WireParameter>> {
        let _host = self.ambient()?;
        Ok(tensors::parameters_to_wire(&self.lessons.get(&lesson).map_err(ended)?.request.parameters))
    }

    fn outputs(&mut self, lesson: Resource<LessonHandle>) -> wasmtime::Result<Vec<WireTensor>> {
        let _host = self.ambient()?;
        let lesson = self.lessons.get(&lesson).map_err(ended)?;
        Ok(lesson.answer.outputs.iter().map(tensors::to_wire).collect())
    }

    fn drop(&mut self, lesson: Resource<LessonHandle>) -> wasmtime::Result<()> {
        let _host = self.ambient()?;
        self.lessons.drop(&lesson);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_short_words() {
        assert!(check_label("popular-2").is_ok());
        assert!(check_label(&"a".repeat(64)).is_ok());
        for wrong in ["", "Last", "a b", "a:b", &"a".repeat(65)] {
            assert!(check_label(wrong).unwrap_err().message().contains("no label"), "{wrong}");
        }
    }
}
