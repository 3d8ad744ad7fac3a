//! What a plugin of world `fallback` is.
//!
//! Owns [`Fallback`] and [`Learner`], what they are given ([`Ask`], [`Lesson`]), what they answer ([`Reply`]) and
//! [`export_fallback!`](crate::export_fallback). Bounded by: the time that the ask has, 64 KiB of tensors each way, and the limits
//! of the manifest. On failure: an error means "no answer here", and the next tier of the plan is asked; a panic is logged with
//! its place and ends the call.

use crate::tensors::{Parameter, Tensor};
use crate::{Result, sys};

/// A plugin that answers while a model cannot.
pub trait Fallback {
    /// Answer instead. An error means that there is no answer here: `not-found` where nothing fits.
    fn answer(ask: &Ask) -> Result<Reply>;

    /// As [`Api::start`](crate::Api::start).
    fn start(previous: Option<&str>) -> Result<()> {
        let _ = previous;
        Ok(())
    }
}

/// A fallback that is told of good answers.
pub trait Learner {
    /// Good answers, a sample of them, oldest first. Told at most once; an error drops them.
    fn learn(lessons: &[Lesson]) -> Result<()>;
}

/// A request that was not answered.
#[derive(Debug)]
pub struct Ask(pub(crate) sys::Ask);

impl Ask {
    /// The endpoint that was asked.
    pub fn endpoint(&self) -> String {
        self.0.endpoint()
    }

    /// The variant that should have answered.
    pub fn variant(&self) -> Option<String> {
        self.0.variant()
    }

    /// Why it did not, in one word; treat an unknown one as `failed`.
    pub fn why(&self) -> String {
        self.0.why()
    }

    /// On whose account it was asked.
    pub fn tenant(&self) -> String {
        self.0.tenant()
    }

    /// Rows of the first input.
    pub fn rows(&self) -> u64 {
        self.0.rows()
    }

    /// All inputs; `exhausted` when they have more than 64 KiB.
    pub fn inputs(&self) -> Result<Vec<Tensor>> {
        self.0.inputs()
    }

    /// One input; `exhausted` when it has more than 64 KiB.
    pub fn input(&self, name: &str) -> Result<Option<Tensor>> {
        self.0.input(name)
    }

    /// What was said beside the tensors.
    pub fn parameters(&self) -> Vec<(String, Parameter)> {
        self.0.parameters()
    }

    /// Names of the outputs that are wanted; none for all.
    pub fn wanted(&self) -> Vec<String> {
        self.0.wanted()
    }

    /// How long the answer may still take, in milliseconds.
    pub fn remaining_ms(&self) -> u32 {
        self.0.remaining_ms()
    }
}

/// What is answered instead.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    pub(crate) label: String,
    pub(crate) outputs: Vec<Tensor>,
    pub(crate) parameters: Vec<(String, Parameter)>,
    pub(crate) model: Option<(String, String)>,
}

impl Reply {
    /// An answer without outputs; at least one must follow. `label` says what kind of answer it is, in 1 to 64 of a-z, 0-9, `-`.
    pub fn new(label: impl Into<String>) -> Reply {
        Reply { label: label.into(), outputs: Vec::new(), parameters: Vec::new(), model: None }
    }

    /// With one more output.
    #[must_use]
    pub fn output(mut self, tensor: Tensor) -> Reply {
        self.outputs.push(tensor);
        self
    }

    /// With these outputs too.
    #[must_use]
    pub fn with_outputs(mut self, tensors: impl IntoIterator<Item = Tensor>) -> Reply {
        self.outputs.extend(tensors);
        self
    }

    /// With one more parameter.
    #[must_use]
    pub fn parameter(mut self, name: impl Into<String>, value: Parameter) -> Reply {
        self.parameters.push((name.into(), value));
        self
    }

    /// As an answer of this model and version, which was kept or comes from elsewhere.
    #[must_use]
    pub fn model(mut self, name: impl Into<String>, version: impl Into<String>) -> Reply {
        self.model = Some((name.into(), version.into()));
        self
    }

    /// What kind of answer it is.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Its outputs.
    pub fn outputs(&self) -> &[Tensor] {
        &self.outputs
    }
}

/// A good answer that a model gave.
#[derive(Clone, Debug, PartialEq)]
pub struct Lesson {
    /// The endpoint that was asked.
    pub endpoint: String,
    /// The variant that answered.
    pub variant: String,
    /// On whose account it was asked.
    pub tenant: String,
    /// The model that answered.
    pub model: String,
    /// Its version.
    pub version: String,
    /// When, in milliseconds since 1970-01-01 UTC.
    pub answered_ms: i64,
    /// Its inputs.
    pub inputs: Vec<Tensor>,
    /// What was said beside the tensors.
    pub parameters: Vec<(String, Parameter)>,
    /// Its outputs.
    pub outputs: Vec<Tensor>,
}

/// Make a type that implements [`Fallback`](crate::Fallback) this component's exports. Once per plugin; one that learns too says
/// `export_fallback!(Plugin, learns)`.
///
/// ```compile_fail,E0277
/// struct NoFallback;
/// mainstay_sdk::export_fallback!(NoFallback);
/// ```
#[macro_export]
macro_rules! export_fallback {
    ($plugin:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            struct Exported;

            impl $crate::sys::LifecycleGuest for Exported {
                fn start(
                    previous: ::std::option::Option<::std::string::String>,
                ) -> ::std::result::Result<(), $crate::sys::WitError> {
                    $crate::sys::start_fallback::<$plugin>(previous)
                }
            }

            impl $crate::sys::FallbackGuest for Exported {
                fn answer(
                    ask: $crate::sys::WitAsk,
                ) -> ::std::result::Result<$crate::sys::WitStandIn, $crate::sys::WitError> {
                    $crate::sys::answer_instead::<$plugin>(ask)
                }
            }

    $crate::sys::bindings::export_lifecycle!(Exported with_types_in $crate::sys::bindings);
    $crate::sys::bindings::fallback::export_answers!(Exported with_types_in $crate::sys::bindings::fallback);
        };
        #[cfg(not(target_arch = "wasm32"))]
        const _: () = {
            // Checked on every target, so that `cargo check` finds a type that is no plugin.
            const fn is_a_fallback<P: $crate::Fallback>() {}
            is_a_fallback::<$plugin>();
        };
    };
    ($plugin:ty, learns) => {
        $crate::export_fallback!($plugin);
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            struct Exported;

            impl $crate::sys::LearnerGuest for Exported {
                fn learn(
                    lessons: ::std::vec::Vec<$crate::sys::WitLesson>,
                ) -> ::std::result::Result<(), $crate::sys::WitError> {
                    $crate::sys::learn::<$plugin>(lessons)
                }
            }

    $crate::sys::bindings::learns::export_learns!(Exported with_types_in $crate::sys::bindings::learns);
        };
        #[cfg(not(target_arch = "wasm32"))]
        const _: () = {
            const fn is_a_learner<P: $crate::fallback::Learner>() {}
            is_a_learner::<$plugin>();
        };
    };
}
