//! `mainstay:host/clock`: time, from the host's clock, which is virtual in tests and replays.

use mainstay_bindings::mainstay::host::clock::Host;

use crate::state::State;

impl Host for State {
    fn now_ms(&mut self) -> wasmtime::Result<i64> {
        let _host = self.ambient()?;
        Ok(self.plugin.services.clock.now_ms())
    }

    fn monotonic_ns(&mut self) -> wasmtime::Result<u64> {
        let _host = self.ambient()?;
        Ok(self.plugin.services.clock.monotonic_ns())
    }
}
