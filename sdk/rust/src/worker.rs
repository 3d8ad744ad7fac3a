//! What a plugin of world `worker` is.
//!
//! Owns [`Worker`], what it is given ([`Event`], [`Attempt`], [`Timer`]) and [`export_worker!`](crate::export_worker). Bounded
//! by: the limits of the manifest. On failure: the event, attempt or time comes again as its retry policy says; attempts and
//! times not after `invalid`, `denied` and `not-found`. A panic is logged with its place and ends the call.
//!
//! Everything comes at least once. Doing it twice must leave what doing it once leaves: write under a key that the event or run
//! names, or let [`Event::settle`] make the change and the event's end one.

use crate::{Error, Result, Transaction, sys};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// A plugin that does something because time came, an event happened, or a job wants it done.
pub trait Worker {
    /// An event of a topic that the manifest names.
    fn on_event(event: &Event) -> Result<()> {
        Err(Error::invalid(format!("this plugin does nothing with events; it was told of `{}`", event.topic())))
    }

    /// One attempt at a run of a job; what came out of it.
    fn on_job(attempt: &Attempt) -> Result<Value> {
        Err(Error::invalid(format!("this plugin carries out no jobs; it was asked for `{}`", attempt.job())))
    }

    /// A time that the manifest names has come.
    fn on_timer(timer: &Timer) -> Result<()> {
        Err(Error::invalid(format!("this plugin has no timer `{}`", timer.name())))
    }

    /// As [`Api::start`](crate::Api::start).
    fn start(previous: Option<&str>) -> Result<()> {
        let _ = previous;
        Ok(())
    }
}

/// Something that happened.
#[derive(Debug)]
pub struct Event(pub(crate) sys::Event);

impl Event {
    /// Names it, unlike any other event; the same at every delivery.
    pub fn id(&self) -> String {
        self.0.id()
    }

    /// The plugin that published it, a slash, and the topic.
    pub fn topic(&self) -> String {
        self.0.topic()
    }

    /// What happened.
    pub fn kind(&self) -> String {
        self.0.kind()
    }

    /// To what.
    pub fn key(&self) -> Option<String> {
        self.0.key()
    }

    /// What is told of it.
    pub fn payload<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.0.payload())
            .map_err(|error| Error::invalid(format!("the payload of event {}: {error}", self.id())))
    }

    /// When it was published, in milliseconds since 1970-01-01 UTC.
    pub fn published_ms(&self) -> i64 {
        self.0.published_ms()
    }

    /// W3C trace context of what caused it.
    pub fn traceparent(&self) -> Option<String> {
        self.0.traceparent()
    }

    /// 1 at the first delivery.
    pub fn delivery(&self) -> u32 {
        self.0.delivery()
    }

    /// Take the event as done in this transaction: its changes are then made exactly once.
    pub fn settle(&self, transaction: &Transaction) -> Result<()> {
        self.0.settle(&transaction.0)
    }
}

/// One attempt at a run of a job.
#[derive(Debug)]
pub struct Attempt(pub(crate) sys::Attempt);

impl Attempt {
    /// The job's name.
    pub fn job(&self) -> String {
        self.0.job()
    }

    /// The run's name; the same at every attempt.
    pub fn run(&self) -> String {
        self.0.run()
    }

    /// 1 at the first attempt.
    pub fn number(&self) -> u32 {
        self.0.number()
    }

    /// Larger than at all attempts of this run before.
    pub fn token(&self) -> u64 {
        self.0.token()
    }

    /// The run's parameters.
    pub fn parameters<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_str(&self.0.parameters())
            .map_err(|error| Error::invalid(format!("the parameters of job `{}`: {error}", self.job())))
    }

    /// The occurrence that it stands for, in milliseconds since 1970-01-01 UTC; none when somebody asked for it.
    pub fn scheduled_ms(&self) -> Option<i64> {
        self.0.scheduled_ms()
    }

    /// Add a line to the attempt's log.
    pub fn log(&self, line: impl AsRef<str>) {
        self.0.log(line.as_ref());
    }

    /// The attempt is alive.
    pub fn beat(&self) {
        self.0.beat();
    }

    /// The answer of `on_job` does not end the run: ask again after this time, or after the job's `poll-ms`.
    pub fn not_yet(&self, wait_ms: Option<u64>) {
        self.0.not_yet(wait_ms);
    }
}

/// A time that has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timer {
    pub(crate) name: String,
    pub(crate) scheduled_ms: i64,
}

impl Timer {
    /// Its name in the manifest.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// For when it was meant, in milliseconds since 1970-01-01 UTC.
    pub fn scheduled_ms(&self) -> i64 {
        self.scheduled_ms
    }
}

/// Make a type that implements [`Worker`](crate::Worker) this component's exports. Once per plugin; one that answers HTTP too
/// says `export_worker!(Plugin, beside api)`, and then its `start` is that of [`Api`](crate::Api).
///
/// ```compile_fail,E0277
/// struct NoWorker;
/// mainstay_sdk::export_worker!(NoWorker);
/// ```
#[macro_export]
macro_rules! export_worker {
    ($plugin:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            struct Exported;

            impl $crate::sys::LifecycleGuest for Exported {
                fn start(
                    previous: ::std::option::Option<::std::string::String>,
                ) -> ::std::result::Result<(), $crate::sys::WitError> {
                    $crate::sys::start_worker::<$plugin>(previous)
                }
            }

            $crate::sys::bindings::export_lifecycle!(Exported with_types_in $crate::sys::bindings);
        };
        $crate::export_worker!($plugin, beside api);
    };
    ($plugin:ty, beside api) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            struct Exported;

            impl $crate::sys::WorkerGuest for Exported {
                fn on_event(event: $crate::sys::WitEvent) -> ::std::result::Result<(), $crate::sys::WitError> {
                    $crate::sys::on_event::<$plugin>(event)
                }

                fn on_job(
                    attempt: $crate::sys::WitAttempt,
                ) -> ::std::result::Result<::std::string::String, $crate::sys::WitError> {
                    $crate::sys::on_job::<$plugin>(attempt)
                }

                fn on_timer(timer: $crate::sys::WitTimer) -> ::std::result::Result<(), $crate::sys::WitError> {
                    $crate::sys::on_timer::<$plugin>(timer)
                }
            }

            $crate::sys::bindings::worker::export_duties!(Exported with_types_in $crate::sys::bindings::worker);
        };
        #[cfg(not(target_arch = "wasm32"))]
        const _: () = {
            // Checked on every target, so that `cargo check` finds a type that is no plugin.
            const fn is_a_worker<P: $crate::Worker>() {}
            is_a_worker::<$plugin>();
        };
    };
}
