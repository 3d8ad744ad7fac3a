//! A server on a fresh folder, for as long as something needs it.

use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const START_WAIT: Duration = Duration::from_secs(120);
const STOP_WAIT: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A running server. Dropped, it is stopped.
pub struct Server {
    child: Option<Child>,
    /// Where it listens.
    pub url: String,
    /// Where it listens for gRPC.
    pub grpc: String,
    /// Its log.
    pub log: PathBuf,
}

impl Server {
    /// Start the binary with its data under `folder`, on free ports, and wait until it is ready.
    pub fn start(binary: &Path, folder: &Path) -> Result<Server> {
        let (ready, log) = (folder.join("ready.json"), folder.join("server.log"));
        let output = fs::File::create(&log)?;
        let child = Command::new(binary)
            .arg("serve")
            .args(["--listen", "127.0.0.1:0", "--grpc", "127.0.0.1:0"])
            .arg("--data")
            .arg(folder.join("data"))
            .arg("--ready-file")
            .arg(&ready)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("starting {}", binary.display()))?;
        let mut server = Server { child: Some(child), url: String::new(), grpc: String::new(), log };
        (server.url, server.grpc) = server.wait_until_ready(&ready)?;
        Ok(server)
    }

    fn wait_until_ready(&mut self, ready: &Path) -> Result<(String, String)> {
        let end = Instant::now() + START_WAIT;
        loop {
            if let Ok(text) = fs::read_to_string(ready)
                && let Ok(said) = serde_json::from_str::<serde_json::Value>(&text)
                && let Some(url) = said["http"].as_str()
            {
                return Ok((url.to_owned(), said["grpc"].as_str().unwrap_or_default().to_owned()));
            }
            let child = self.child.as_mut().context("the server was not stopped")?;
            if let Some(status) = child.try_wait()? {
                bail!("the server ended with {status}:\n{}", fs::read_to_string(&self.log)?);
            }
            if Instant::now() > end {
                bail!("the server was not ready after {START_WAIT:?}:\n{}", fs::read_to_string(&self.log)?);
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Leave it running; returns its process id.
    pub fn leave(mut self) -> u32 {
        self.child.take().map_or(0, |child| child.id())
    }

    /// Stop it as an operator would; an error if it does not end well.
    pub fn stop(mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        terminate(&child)?;
        let end = Instant::now() + STOP_WAIT;
        while Instant::now() < end {
            if let Some(status) = child.try_wait()? {
                if !status.success() {
                    bail!("the server ended with {status}:\n{}", fs::read_to_string(&self.log)?);
                }
                return Ok(());
            }
            std::thread::sleep(LOOK_EVERY);
        }
        child.kill()?;
        child.wait()?;
        bail!("the server did not stop within {STOP_WAIT:?} and was killed; its log is {}", self.log.display())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Something else failed already; what matters is that no server stays behind.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn terminate(child: &Child) -> Result<()> {
    crate::say::run(Command::new("kill").args(["-TERM", &child.id().to_string()]))
}
