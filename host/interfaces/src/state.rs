//! What the host keeps about one call beside its [`CallContext`]: the view, the handles, the message being answered.
//!
//! [`State::enter`] and [`State::ambient`] are the only doors: every host function passes one of them first, and a
//! test reads the sources to hold this.

use std::sync::Arc;
use std::time::Instant;

use mainstay_arrays::{Budget, Column, Frame};
use mainstay_base::Result;
use mainstay_bindings::Failure;
use mainstay_kernels::{Caller, Loaded};
use mainstay_outbound::Answer;
use mainstay_runtime::{CallContext, Capability, Grants, HostData, HostTime, Refusal};
use mainstay_schedule::{AttemptContext, Run};
use mainstay_store::{Overtaken, Receipt, Space, Transaction, View};
use mainstay_tables::TableSpec;

use crate::door::{DoorAnswer, DoorAssignment, DoorEndpoint};
use crate::guard;
use crate::handles::Handles;
use crate::imports::arrays::{COLUMNS_MAX, FRAMES_MAX};
use crate::imports::asks::{ASKS_MAX, FallbackAsk, FallbackReply, LESSONS_MAX, Lesson, REPLIES_MAX};
use crate::imports::batches::{BATCHES_MAX, TransformBatch};
use crate::imports::http::Reply;
use crate::imports::jobs::RUNS_MAX;
use crate::imports::models::MODELS_MAX;
use crate::imports::outbound::{ANSWERS_MAX, CALLS_MAX, OutboundCall};
use crate::imports::tables::{JOINS_MAX, JoinPlan, SCHEMAS_MAX};
use crate::imports::traffic::{ENDPOINTS_MAX, InferenceCall, REQUESTS_MAX};
use crate::imports::work::{WORK_MAX, WorkEvent, WorkTimer};
use crate::lines::{Lines, Turn};
use crate::message::HttpRequest;
use crate::services::Services;
use crate::telemetry::Telemetry;

/// Transactions that a call may hold: each collects up to 16 MiB in the host.
pub const TRANSACTIONS_MAX: usize = 4;
/// Requests and replies that a call may hold.
pub const MESSAGES_MAX: usize = 16;

/// What is the same for all calls of a plugin.
pub(crate) struct PluginFacts {
    pub(crate) name: Arc<str>,
    pub(crate) services: Services,
    pub(crate) space: Space,
    pub(crate) config_json: String,
    pub(crate) telemetry: Arc<Telemetry>,
    /// What all its calls hold together.
    pub(crate) budget: Arc<Budget>,
    /// In whose name numeric work is asked for.
    pub(crate) caller: Caller,
    /// What it may do; for what two capabilities allow in different measure.
    pub(crate) grants: Grants,
    /// What its guarded calls may still judge.
    pub(crate) guard_budget: guard::Budget,
    /// Where this plugin's calls stand in line after conflicts.
    pub(crate) lines: Lines,
}

/// Whom a commit wakes.
#[derive(Default)]
pub(crate) struct Wakes {
    pub(crate) scheduler: bool,
    pub(crate) events: bool,
}

/// The data of a store while it serves a call.
pub struct State {
    context: CallContext,
    pub(crate) plugin: Arc<PluginFacts>,
    view: Option<View>,
    /// After a conflict, until the next commit: this call is the next to change what it lost.
    turn: Option<Turn>,
    pub(crate) transactions: Handles<Transaction>,
    pub(crate) requests: Handles<Arc<HttpRequest>>,
    pub(crate) replies: Handles<Reply>,
    pub(crate) columns: Handles<Column>,
    pub(crate) frames: Handles<Frame>,
    pub(crate) batches: Handles<TransformBatch>,
    pub(crate) models: Handles<Arc<Loaded>>,
    pub(crate) runs: Handles<Run>,
    pub(crate) calls: Handles<OutboundCall>,
    pub(crate) answers: Handles<Answer>,
    pub(crate) events: Handles<WorkEvent>,
    pub(crate) attempts: Handles<AttemptContext>,
    pub(crate) timers: Handles<WorkTimer>,
    pub(crate) asks: Handles<FallbackAsk>,
    pub(crate) stand_ins: Handles<FallbackReply>,
    pub(crate) lessons: Handles<Lesson>,
    pub(crate) inference_calls: Handles<InferenceCall>,
    pub(crate) inference_answers: Handles<DoorAnswer>,
    pub(crate) endpoints: Handles<DoorEndpoint>,
    pub(crate) assignments: Handles<DoorAssignment>,
    /// The endpoint in whose place this call answers.
    pub(crate) stands_in_for: Option<Arc<str>>,
    /// When nobody waits for this call any more.
    pub(crate) deadline: Option<Instant>,
    /// What a worker said of the run that it was given: not yet, and after how long to ask again.
    pub(crate) not_yet: Option<Option<u64>>,
    pub(crate) schemas: Handles<TableSpec>,
    pub(crate) joins: Handles<JoinPlan>,
    /// See [`crate::guard`].
    pub(crate) guarded: bool,
    /// Whom the next commit wakes.
    pub(crate) wakes: Wakes,
    pub(crate) trace_id: String,
    pub(crate) log_bytes: usize,
    /// Bytes written to all replies of this call, dropped ones included.
    pub(crate) output_bytes: usize,
}

impl State {
    pub(crate) fn new(context: CallContext, plugin: Arc<PluginFacts>, trace_id: String) -> State {
        State {
            context,
            plugin,
            view: None,
            turn: None,
            transactions: Handles::new("transaction", TRANSACTIONS_MAX),
            requests: Handles::new("request", MESSAGES_MAX),
            replies: Handles::new("reply", MESSAGES_MAX),
            columns: Handles::new("column", COLUMNS_MAX),
            frames: Handles::new("frame", FRAMES_MAX),
            batches: Handles::new("batch", BATCHES_MAX),
            models: Handles::new("model", MODELS_MAX),
            runs: Handles::new("run", RUNS_MAX),
            calls: Handles::new("call", CALLS_MAX),
            answers: Handles::new("answer", ANSWERS_MAX),
            events: Handles::new("event", WORK_MAX),
            attempts: Handles::new("attempt", WORK_MAX),
            timers: Handles::new("timer", WORK_MAX),
            asks: Handles::new("ask", ASKS_MAX),
            stand_ins: Handles::new("reply", REPLIES_MAX),
            lessons: Handles::new("lesson", LESSONS_MAX),
            inference_calls: Handles::new("inference request", REQUESTS_MAX),
            inference_answers: Handles::new("inference response", REQUESTS_MAX),
            endpoints: Handles::new("endpoint", ENDPOINTS_MAX),
            assignments: Handles::new("assignment", ENDPOINTS_MAX),
            stands_in_for: None,
            deadline: None,
            not_yet: None,
            schemas: Handles::new("schema", SCHEMAS_MAX),
            joins: Handles::new("as-of join", JOINS_MAX),
            guarded: false,
            wakes: Wakes::default(),
            trace_id,
            log_bytes: 0,
            output_bytes: 0,
        }
    }

    /// The door of every host function that can tell the plugin of a failure.
    #[inline]
    pub(crate) fn enter(&mut self, capability: Capability) -> Result<HostTime, Failure> {
        self.context.enter(capability).map_err(|refusal| match refusal {
            Refusal::Denied(error) => Failure::Answer(error),
            Refusal::Ends(error) => Failure::Trap(error.into()),
        })
    }

    /// The door of a host function for which any of several capabilities is enough; the last is named where none is there.
    pub(crate) fn enter_any(&mut self, capabilities: &[Capability]) -> Result<HostTime, Failure> {
        let granted = capabilities.iter().find(|capability| self.plugin.grants.allow(**capability));
        self.enter(*granted.or(capabilities.last()).unwrap_or(&Capability::AMBIENT))
    }

    /// The door of every host function that needs no capability and cannot tell the plugin of a failure.
    #[inline]
    pub(crate) fn ambient(&mut self) -> wasmtime::Result<HostTime> {
        self.context.enter(Capability::AMBIENT).map_err(|refusal| match refusal {
            Refusal::Denied(error) => error.into(),
            Refusal::Ends(error) => error.into(),
        })
    }

    /// The call's view: taken at the first read, the same until it is renewed.
    pub(crate) fn view(&mut self) -> &View {
        self.view.get_or_insert_with(|| self.plugin.services.store.view())
    }

    /// The next read takes a new view.
    pub(crate) fn renew(&mut self) {
        self.view = None;
    }

    /// A commit is over. When it was overtaken, wait until it is this call's turn to try again.
    pub(crate) async fn committed(&mut self, outcome: &Result<Receipt>) {
        let held = self.turn.take();
        if outcome.is_ok() {
            self.wake();
        }
        if let Some(overtaken) = outcome.as_ref().err().and_then(Overtaken::of) {
            self.turn = self.plugin.lines.stand(overtaken.key(), held).await;
        }
    }

    /// Tell whoever waits for what this call's transactions held. A hint: they look by themselves, too.
    fn wake(&mut self) {
        let Wakes { scheduler, events } = std::mem::take(&mut self.wakes);
        if scheduler {
            self.plugin.services.scheduler.wake();
        }
        if events {
            self.plugin.services.events.wake();
        }
    }

    /// W3C trace context of this call, for what it causes; none where it is not traced.
    pub(crate) fn traceparent(&self) -> Option<String> {
        let span = self.plugin.services.random.number() | 1;
        (self.trace_id.len() == 32).then(|| format!("00-{}-{span:016x}-01", self.trace_id))
    }

    /// The call is over: a warm instance that waits for the next one must hold back neither the store nor other calls, and no
    /// columns.
    pub(crate) fn end_call(&mut self) {
        self.view = None;
        self.turn = None;
        self.transactions.clear();
        self.requests.clear();
        self.replies.clear();
        self.columns.clear();
        self.frames.clear();
        self.batches.clear();
        self.models.clear();
        self.runs.clear();
        self.calls.clear();
        self.answers.clear();
        self.events.clear();
        self.attempts.clear();
        self.timers.clear();
        self.asks.clear();
        self.stand_ins.clear();
        self.lessons.clear();
        self.inference_calls.clear();
        self.inference_answers.clear();
        self.endpoints.clear();
        self.assignments.clear();
        self.stands_in_for = None;
        self.deadline = None;
        self.schemas.clear();
        self.joins.clear();
        self.not_yet = None;
        self.guarded = false;
    }
}

impl HostData for State {
    #[inline]
    fn call_context(&mut self) -> &mut CallContext {
        &mut self.context
    }

    fn trace_id(&self) -> &str {
        &self.trace_id
    }

    fn inherit(&mut self, before: &mut State) {
        self.transactions.continue_from(&before.transactions);
        self.requests.continue_from(&before.requests);
        self.replies.continue_from(&before.replies);
        self.columns.continue_from(&before.columns);
        self.frames.continue_from(&before.frames);
        self.batches.continue_from(&before.batches);
        self.models.continue_from(&before.models);
        self.runs.continue_from(&before.runs);
        self.calls.continue_from(&before.calls);
        self.answers.continue_from(&before.answers);
        self.events.continue_from(&before.events);
        self.attempts.continue_from(&before.attempts);
        self.timers.continue_from(&before.timers);
        self.asks.continue_from(&before.asks);
        self.stand_ins.continue_from(&before.stand_ins);
        self.lessons.continue_from(&before.lessons);
        self.inference_calls.continue_from(&before.inference_calls);
        self.inference_answers.continue_from(&before.inference_answers);
        self.endpoints.continue_from(&before.endpoints);
        self.assignments.continue_from(&before.assignments);
        self.schemas.continue_from(&before.schemas);
        self.joins.continue_from(&before.joins);
    }
}
