//! `mainstay:host/random`: random numbers, from the host's generator, which is seeded in tests and replays.
//!
//! Bounded by [`BYTES_MAX`]; asking for more ends the call, because the function has no other way to refuse.

use mainstay_bindings::mainstay::host::random::Host;

use crate::state::State;

/// The most that one call gives.
pub const BYTES_MAX: u32 = 64 << 10;

impl Host for State {
    fn bytes(&mut self, length: u32) -> wasmtime::Result<Vec<u8>> {
        let _host = self.ambient()?;
        if length > BYTES_MAX {
            wasmtime::bail!("`random.bytes` was asked for {length} bytes; it gives at most {BYTES_MAX} at a time");
        }
        let mut bytes = vec![0; length as usize];
        self.plugin.services.random.fill(&mut bytes);
        Ok(bytes)
    }

    fn number(&mut self) -> wasmtime::Result<u64> {
        let _host = self.ambient()?;
        Ok(self.plugin.services.random.number())
    }
}
