//! What every plugin has without asking: its configuration, its log, metrics, time and randomness.
//!
//! Owns the modules [`config`], [`log`], [`metric`], [`clock`] and [`random`]. One file, because each is a few lines over one
//! host call. Bounded by: 64 KiB of messages a call, 8 KiB a message, 100 metric names; the host cuts and counts what is
//! beyond. On failure: only reading the configuration can fail, when the type does not fit the schema.

/// This plugin's configuration, validated by the host against the schema in the package, defaults filled in.
pub mod config {
    use crate::{Error, Result, sys};
    use serde::de::DeserializeOwned;

    /// The configuration as a type of the plugin's own.
    ///
    /// ```
    /// #[derive(serde::Deserialize)]
    /// struct Config {
    ///     greeting: String,
    /// }
    /// # let host = mainstay_sdk::testing::Host::new().config(serde_json::json!({"greeting": "hello"}));
    /// # host.enter(|| {
    /// let config: Config = mainstay_sdk::config::get()?;
    /// assert_eq!(config.greeting, "hello");
    /// # Ok::<(), mainstay_sdk::Error>(())
    /// # }).unwrap();
    /// ```
    pub fn get<T: DeserializeOwned>() -> Result<T> {
        serde_json::from_str(&text())
            .map_err(|error| Error::internal(format!("the configuration does not fit the type it is read as: {error}")))
    }

    /// The configuration as JSON text.
    pub fn text() -> String {
        sys::config_text()
    }
}

/// Structured messages in the host's log, with the plugin's name and the request's trace id.
///
/// ```
/// # use mainstay_sdk::log;
/// # let host = mainstay_sdk::testing::Host::new();
/// # host.enter(|| {
/// let guest = "ada";
/// log::info!("signed the book");
/// log::warn!("{guest} signed twice"; guest = guest, times = 2);
/// # });
/// # assert_eq!(host.log().len(), 2);
/// # assert_eq!(host.log()[1].fields[1], ("times".to_owned(), "2".to_owned()));
/// ```
pub mod log {
    pub use crate::{__debug as debug, __error as error, __info as info, __warn as warn};

    /// How important a message is.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub enum Level {
        /// Of interest to the plugin's author.
        Debug,
        /// Of interest to the operator.
        Info,
        /// Something to look at.
        Warn,
        /// Something to act on.
        Error,
    }

    /// Write one message with fields; the macros of this module call it.
    pub fn write(level: Level, message: &str, fields: &[(&str, &dyn std::fmt::Display)]) {
        let fields = fields.iter().map(|(key, value)| ((*key).to_owned(), value.to_string())).collect();
        crate::sys::log(level, message, fields);
    }
}

#[doc(hidden)]
#[macro_export]
macro_rules! __log {
    ($level:ident, $format:literal $(, $argument:expr)* $(,)? $(; $($key:ident = $value:expr),+ $(,)?)?) => {
        $crate::log::write(
            $crate::log::Level::$level,
            &::std::format!($format $(, $argument)*),
            &[$($((::std::stringify!($key), &$value as &dyn ::std::fmt::Display)),+)?],
        )
    };
}

/// Write a message of interest to the plugin's author.
#[doc(hidden)]
#[macro_export]
macro_rules! __debug { ($($all:tt)+) => { $crate::__log!(Debug, $($all)+) }; }
/// Write a message of interest to the operator.
#[doc(hidden)]
#[macro_export]
macro_rules! __info { ($($all:tt)+) => { $crate::__log!(Info, $($all)+) }; }
/// Write a message about something to look at.
#[doc(hidden)]
#[macro_export]
macro_rules! __warn { ($($all:tt)+) => { $crate::__log!(Warn, $($all)+) }; }
/// Write a message about something to act on.
#[doc(hidden)]
#[macro_export]
macro_rules! __error { ($($all:tt)+) => { $crate::__log!(Error, $($all)+) }; }

/// Numbers on the host's `/metrics`, as `mainstay_plugin_<name>` with the label `plugin`.
pub mod metric {
    use crate::sys;

    /// What a metric means.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub enum Kind {
        /// Only grows.
        Counter,
        /// Goes up and down.
        Gauge,
        /// A distribution of observations.
        Histogram,
    }

    /// Add to a counter.
    pub fn add(name: &str, amount: f64, labels: &[(&str, &str)]) {
        sys::metric(Kind::Counter, name, amount, labels);
    }

    /// Set a gauge.
    pub fn set(name: &str, value: f64, labels: &[(&str, &str)]) {
        sys::metric(Kind::Gauge, name, value, labels);
    }

    /// Observe into a histogram.
    pub fn observe(name: &str, value: f64, labels: &[(&str, &str)]) {
        sys::metric(Kind::Histogram, name, value, labels);
    }

    /// Put an attribute on the request's span.
    pub fn span_attribute(key: &str, value: &str) {
        sys::span_attribute(key, value);
    }
}

/// Time. Virtual in tests and replays.
pub mod clock {
    use crate::sys;

    /// Milliseconds since 1970-01-01 UTC.
    pub fn now_ms() -> i64 {
        sys::now_ms()
    }

    /// Nanoseconds that only grow, from a point without meaning; for measuring.
    pub fn monotonic_ns() -> u64 {
        sys::monotonic_ns()
    }
}

/// Random numbers fit for identifiers and secrets. Seeded in tests and replays.
pub mod random {
    use crate::sys;

    /// At most 64 KiB.
    pub fn bytes(length: u32) -> Vec<u8> {
        sys::random_bytes(length)
    }

    /// One number, all values equally likely.
    pub fn number() -> u64 {
        sys::random_number()
    }

    /// Sixteen random bytes as 32 lowercase hexadecimal digits: an identifier nobody else has.
    ///
    /// ```
    /// # let host = mainstay_sdk::testing::Host::new();
    /// # host.enter(|| {
    /// let id = mainstay_sdk::random::id();
    /// assert_eq!(id.len(), 32);
    /// assert_ne!(id, mainstay_sdk::random::id());
    /// # });
    /// ```
    pub fn id() -> String {
        format!("{:016x}{:016x}", number(), number())
    }

    /// A random UUID (version 4).
    pub fn uuid() -> String {
        let high = number() & !0xf000 | 0x4000;
        let low = number() & !(0b11 << 62) | 0b10 << 62;
        let digits = format!("{high:016x}{low:016x}");
        let [a, b, c, d, e] = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
        format!("{a}-{b}-{c}-{d}-{e}")
    }
}
