//! The main job, told once: a fresh server, the real client, the story of `demo/story.py`.

use crate::place::Place;
use crate::server::Server;
use crate::{python, say};
use anyhow::Result;
use std::process::Command;

/// Build, start, tell, and say where to look.
pub fn run(place: &Place, allow_rustup: bool, keep: bool) -> Result<()> {
    let binary = crate::build(place, allow_rustup, false)?;
    let python = python::environment(place, "tests/conformance/requirements.txt")?;
    // Triton's client wants other versions of what both need.
    let triton = python::environment(place, "tests/conformance/inference/requirements.txt")?;
    let folder = tempfile::Builder::new().prefix("mainstay-demo-").tempdir()?;
    say::step("Starting a server on a fresh folder");
    let server = Server::start(&binary, folder.path())?;
    say::done(&format!("{} with its data in {}", server.url, folder.path().display()));

    say::step("Telling the story with the unmodified client");
    let mut story = Command::new(python.program());
    story.arg(place.root.join("demo/story.py")).current_dir(folder.path());
    story.env("MAINSTAY_BIN", &binary).env("MAINSTAY_DATA", folder.path().join("data"));
    story.env("MLFLOW_TRACKING_URI", &server.url).env("MLFLOW_REGISTRY_URI", &server.url);
    story.env("MAINSTAY_HTTP", &server.url).env("MAINSTAY_GRPC", &server.grpc).env("TRITON_PYTHON", triton.program());
    say::run(&mut story)?;

    let url = server.url.clone();
    if keep {
        let folder = folder.keep();
        let process = server.leave();
        say::step("Look around");
        say::done(&format!("export MLFLOW_TRACKING_URI={url}"));
        say::done(&format!("curl {url}/-/version; curl {url}/metrics"));
        say::done(&format!("the server's log is {}", folder.join("server.log").display()));
        say::done(&format!("stop it with: kill {process}; then remove {}", folder.display()));
        return Ok(());
    }
    server.stop()?;
    say::step("The server was stopped and its folder removed. `cargo xtask demo --keep` leaves both to look at.");
    Ok(())
}
