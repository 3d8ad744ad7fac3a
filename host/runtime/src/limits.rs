//! Every limit of a call, in one place: named with its unit, documented, tested at n and n+1.
//!
//! A limit belongs to a plugin: the manifest may ask for other values, the operator's `ceiling` bounds what it gets.

use serde::{Deserialize, Serialize};

use mainstay_base::{Error, Result};

/// What one call of a plugin may use, and how many calls may run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Linear memory of one instance, all its memories together.
    pub memory_bytes: usize,
    /// Processor time of the plugin's own code in one call. Time inside the host is not billed.
    pub call_cpu_ms: u64,
    /// Time from the start of a call to its answer, waiting in the host included (waiting in the queue is not).
    pub call_wall_ms: u64,
    /// Calls into the host during one call.
    pub host_calls: u64,
    /// Bytes of one answer: what the plugin writes or returns.
    pub output_bytes: usize,
    /// Bytes of columns that all calls of the plugin hold together in the host.
    pub array_bytes: usize,
    /// Bytes of log messages in one call; what is beyond is cut and counted.
    pub log_bytes: usize,
    /// Calls that run at the same time.
    pub concurrency: usize,
    /// Calls that wait for one of those to end; a further one is answered `Busy`.
    pub queue: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            memory_bytes: 64 << 20,
            call_cpu_ms: 2_000,
            call_wall_ms: 30_000,
            host_calls: 100_000,
            output_bytes: 32 << 20,
            array_bytes: 256 << 20,
            log_bytes: 64 << 10,
            concurrency: 32,
            queue: 1_024,
        }
    }
}

impl Limits {
    /// The most that any plugin may be given: what the instance pool is built for, and what keeps one plugin from being
    /// the whole host.
    pub fn ceiling() -> Limits {
        Limits {
            memory_bytes: 1 << 30,
            call_cpu_ms: 600_000,
            call_wall_ms: 3_600_000,
            host_calls: 100_000_000,
            output_bytes: 256 << 20,
            array_bytes: 64 << 30,
            log_bytes: 16 << 20,
            concurrency: 256,
            queue: 65_536,
        }
    }

    /// Refuses a value of zero or above [`Limits::ceiling`], naming it.
    pub fn validate(&self) -> Result<()> {
        let ceiling = Limits::ceiling();
        let rows: [(&str, u64, u64, u64); 9] = [
            ("memory_bytes", self.memory_bytes as u64, 64 << 10, ceiling.memory_bytes as u64),
            ("call_cpu_ms", self.call_cpu_ms, 1, ceiling.call_cpu_ms),
            ("call_wall_ms", self.call_wall_ms, 1, ceiling.call_wall_ms),
            ("host_calls", self.host_calls, 1, ceiling.host_calls),
            ("output_bytes", self.output_bytes as u64, 1, ceiling.output_bytes as u64),
            ("array_bytes", self.array_bytes as u64, 1, ceiling.array_bytes as u64),
            ("log_bytes", self.log_bytes as u64, 0, ceiling.log_bytes as u64),
            ("concurrency", self.concurrency as u64, 1, ceiling.concurrency as u64),
            ("queue", self.queue as u64, 0, ceiling.queue as u64),
        ];
        for (name, value, least, most) in rows {
            if value < least || value > most {
                return Err(Error::invalid(format!("the limit `{name}` is {value}; give {least} to {most}")));
            }
        }
        Ok(())
    }

    /// The limits of `lifecycle.start`: ten times a call's time.
    pub fn for_start(&self) -> Limits {
        Limits {
            call_cpu_ms: self.call_cpu_ms.saturating_mul(10),
            call_wall_ms: self.call_wall_ms.saturating_mul(10),
            host_calls: self.host_calls.saturating_mul(10),
            ..self.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_held_at_n_and_n_plus_one() {
        fn check(change: impl Fn(&mut Limits, bool), name: &str) {
            let mut limits = Limits::default();
            change(&mut limits, false);
            assert!(limits.validate().is_ok(), "{name} at its ceiling");
            change(&mut limits, true);
            let error = limits.validate().unwrap_err();
            assert!(error.message().contains(name), "{error}");
        }
        let ceiling = Limits::ceiling();
        check(|l, over| l.memory_bytes = ceiling.memory_bytes + over as usize, "memory_bytes");
        check(|l, over| l.call_cpu_ms = ceiling.call_cpu_ms + over as u64, "call_cpu_ms");
        check(|l, over| l.call_wall_ms = ceiling.call_wall_ms + over as u64, "call_wall_ms");
        check(|l, over| l.host_calls = ceiling.host_calls + over as u64, "host_calls");
        check(|l, over| l.output_bytes = ceiling.output_bytes + over as usize, "output_bytes");
        check(|l, over| l.array_bytes = ceiling.array_bytes + over as usize, "array_bytes");
        check(|l, over| l.log_bytes = ceiling.log_bytes + over as usize, "log_bytes");
        check(|l, over| l.concurrency = ceiling.concurrency + over as usize, "concurrency");
        check(|l, over| l.queue = ceiling.queue + over as usize, "queue");
    }
}
