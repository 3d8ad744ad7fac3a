//! Calls of cargo for the host's workspace.

use crate::place::Place;
use std::process::Command;

/// Cargo, in the root of the checkout, without what the cargo that runs xtask told xtask about itself.
pub fn command(place: &Place) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    forget_own(&mut command);
    command.current_dir(&place.root);
    command
}

/// Cargo describes the package that it runs in the environment; a nested cargo must not see that.
pub fn forget_own(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let Some(name) = name.to_str() else { continue };
        let is_own = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"].iter().any(|prefix| name.starts_with(prefix));
        if is_own || name == "CARGO_PRIMARY_PACKAGE" {
            command.env_remove(name);
        }
    }
}
