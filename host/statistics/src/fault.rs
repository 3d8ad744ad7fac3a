//! What can be wrong with what a statistic was given.
//!
//! Separate from the house's error because callers decide by the kind: a check turns `constant_reference` into "nothing to
//! compare", not into a failure. Every kind has a stable code; the message says what, to what, and what to do next.

use std::fmt;

use mainstay_base::{Error, ErrorKind};

/// Result with a [`Fault`].
pub type Result<T, E = Fault> = std::result::Result<T, E>;

/// The message of a fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detail(Box<str>);

macro_rules! faults {
    ($($(#[$doc:meta])* $variant:ident, $make:ident, $code:literal;)*) => {
        /// Why a statistic was not computed.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Fault {
            $($(#[$doc])* $variant(Detail),)*
        }

        impl Fault {
            $($(#[$doc])* pub fn $make(message: impl Into<String>) -> Fault {
                Fault::$variant(Detail(message.into().into()))
            })*

            /// Its stable name for machines.
            pub fn code(&self) -> &'static str {
                match self {
                    $(Fault::$variant(_) => $code,)*
                }
            }

            /// What a person reads.
            pub fn message(&self) -> &str {
                match self {
                    $(Fault::$variant(detail) => &detail.0,)*
                }
            }
        }
    };
}

faults! {
    /// No values are left to compute on.
    EmptyInput, empty_input, "empty_input";
    /// A value is missing, NaN or infinite where it may not be.
    NonFinite, non_finite, "non_finite";
    /// The reference has one value only, so that it spans no bins.
    ConstantReference, constant_reference, "constant_reference";
    /// Two classes are compared, one has no rows.
    SingleClass, single_class, "single_class";
    /// Columns that belong together are of different lengths.
    LengthMismatch, length_mismatch, "length_mismatch";
    /// An expected frequency is zero.
    ZeroExpected, zero_expected, "zero_expected";
    /// A count or a weight is below zero.
    NegativeCount, negative_count, "negative_count";
    /// A vector of length zero has no direction.
    ZeroNorm, zero_norm, "zero_norm";
    /// A label is neither 0 nor 1.
    NotBinary, not_binary, "not_binary";
    /// A parameter is outside its range.
    BadArgument, bad_argument, "bad_argument";
    /// More groups, pairs or rows than one call may work on.
    TooMany, too_many, "too_many";
}

impl Fault {
    /// The fault that an error was made from, if it was.
    pub fn of(error: &Error) -> Option<&Fault> {
        std::error::Error::source(error)?.downcast_ref()
    }

    /// Two columns that belong together.
    pub(crate) fn lengths(first: usize, second: usize) -> Fault {
        Fault::length_mismatch(format!(
            "columns of {first} and {second} places; those that belong together must be of one length"
        ))
    }

    /// Nothing is left.
    pub(crate) fn nothing(what: &str) -> Fault {
        Fault::empty_input(format!("{what} has no values that are there; give at least one"))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

impl std::error::Error for Fault {}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Error {
        let kind = if matches!(fault, Fault::TooMany(_)) { ErrorKind::Exhausted } else { ErrorKind::Invalid };
        Error::new(kind, fault.message()).with_source(fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_survives_as_the_source_of_an_error() {
        let error = Error::from(Fault::single_class("all labels are 1")).context("column `y`");
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert_eq!(error.message(), "column `y`: all labels are 1");
        assert_eq!(Fault::of(&error).map(Fault::code), Some("single_class"));
        assert_eq!(Error::from(Fault::too_many("groups")).kind(), ErrorKind::Exhausted);
        assert_eq!(Fault::of(&Error::invalid("other")), None);
    }
}
