//! `mainstay:host/config`: the plugin's validated configuration.

use mainstay_bindings::mainstay::host::config::Host;

use crate::state::State;

impl Host for State {
    fn get(&mut self) -> wasmtime::Result<String> {
        let _host = self.ambient()?;
        Ok(self.plugin.config_json.clone())
    }
}
