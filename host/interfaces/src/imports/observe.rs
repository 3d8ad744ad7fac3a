//! `mainstay:host/observe`: what a plugin tells its operator.
//!
//! Messages go to the host's log under the target `plugin`, with the plugin's name and the request's trace id. Bounded by
//! [`MESSAGE_BYTES_MAX`] a message, [`FIELDS_MAX`] fields, and the plugin's `log_bytes` a call: what is beyond is cut and
//! counted, and the cut itself is logged once a call. Nothing here fails a call.

use mainstay_bindings::mainstay::host::observe::{Host, Kind, Level};
use mainstay_runtime::HostData;

use crate::state::State;
use crate::telemetry::MetricKind;

/// The longest message, its fields included.
pub const MESSAGE_BYTES_MAX: usize = 8 << 10;
/// Fields of one message.
pub const FIELDS_MAX: usize = 64;
/// The longest attribute of a span.
pub const ATTRIBUTE_BYTES_MAX: usize = 256;

impl Host for State {
    fn log(&mut self, level: Level, message: String, fields: Vec<(String, String)>) -> wasmtime::Result<()> {
        let _host = self.ambient()?;
        let line = line(&message, &fields);
        let asked_bytes = message.len() + fields.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>();
        let limit = self.call_context().limits().log_bytes;
        let left = limit.saturating_sub(self.log_bytes);
        let shown = &line[..line.floor_char_boundary(left)];
        let cut_bytes = asked_bytes.saturating_sub(shown.len());
        if cut_bytes > 0 {
            self.call_context().note_log_cut(cut_bytes);
        }
        if self.log_bytes <= limit && self.log_bytes + line.len() > limit {
            tracing::warn!(target: "plugin", plugin = %self.plugin.name, trace_id = %self.trace_id, limit,
                "the plugin logged more than its limit in one call; the rest is cut");
        }
        self.log_bytes = self.log_bytes.saturating_add(line.len());
        if !shown.is_empty() || (line.is_empty() && left > 0) {
            write(level, &self.plugin.name, &self.trace_id, shown);
        }
        Ok(())
    }

    fn metric(&mut self, kind: Kind, name: String, value: f64, labels: Vec<(String, String)>) -> wasmtime::Result<()> {
        let _host = self.ambient()?;
        let kind = match kind {
            Kind::Counter => MetricKind::Counter,
            Kind::Gauge => MetricKind::Gauge,
            Kind::Histogram => MetricKind::Histogram,
        };
        self.plugin.telemetry.record(&self.plugin.name, kind, &name, value, labels);
        Ok(())
    }

    fn span_attribute(&mut self, key: String, value: String) -> wasmtime::Result<()> {
        let _host = self.ambient()?;
        // Fields of a span are fixed when it is made, so an attribute is an event of the span.
        let (key, value) = (cut(&key, ATTRIBUTE_BYTES_MAX), cut(&value, ATTRIBUTE_BYTES_MAX));
        tracing::info!(target: "plugin::attribute", plugin = %self.plugin.name, key, value);
        Ok(())
    }
}

fn cut(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

/// The message and its fields in one line, within the bound; control characters are escaped, so that a message cannot
/// pretend to be another.
fn line(message: &str, fields: &[(String, String)]) -> String {
    let mut line = String::with_capacity(message.len().min(MESSAGE_BYTES_MAX));
    push_escaped(&mut line, message);
    for (key, value) in fields.iter().take(FIELDS_MAX) {
        if line.len() >= MESSAGE_BYTES_MAX {
            break;
        }
        line.push(' ');
        push_escaped(&mut line, key);
        line.push('=');
        push_escaped(&mut line, value);
    }
    line.truncate(line.floor_char_boundary(MESSAGE_BYTES_MAX));
    line
}

fn push_escaped(line: &mut String, text: &str) {
    let left = MESSAGE_BYTES_MAX.saturating_sub(line.len());
    for character in cut(text, left).chars() {
        if character.is_control() {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
}

fn write(level: Level, plugin: &str, trace_id: &str, line: &str) {
    match level {
        Level::Debug => tracing::debug!(target: "plugin", plugin, trace_id, "{line}"),
        Level::Info => tracing::info!(target: "plugin", plugin, trace_id, "{line}"),
        Level::Warn => tracing::warn!(target: "plugin", plugin, trace_id, "{line}"),
        Level::Error => tracing::error!(target: "plugin", plugin, trace_id, "{line}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_bounded_and_cannot_pretend() {
        fn check(message: &str, fields: &[(&str, &str)], expect: &str) {
            let fields: Vec<_> = fields.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
            assert_eq!(line(message, &fields), expect);
        }
        check("hello", &[("a", "1"), ("b", "2")], "hello a=1 b=2");
        check("one\nERROR two\u{1b}[0m", &[], "one\\nERROR two\\u{1b}[0m");
        check(&"x".repeat(MESSAGE_BYTES_MAX), &[], &"x".repeat(MESSAGE_BYTES_MAX));
        check(&"x".repeat(MESSAGE_BYTES_MAX + 1), &[("a", "1")], &"x".repeat(MESSAGE_BYTES_MAX));
        assert!(line(&"é".repeat(MESSAGE_BYTES_MAX), &[]).len() <= MESSAGE_BYTES_MAX);
    }
}
