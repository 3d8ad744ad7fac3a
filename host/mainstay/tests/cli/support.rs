//! Running the binary, and small components to run in it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Longest wait for anything that a test waits for.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A data folder of a test, and the binary to run on it.
pub struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Place {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("no-packages")).unwrap();
        Place { folder }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn data(&self) -> PathBuf {
        self.path("data")
    }

    /// The binary on this data folder, in an environment without settings of whoever runs the tests, and without the
    /// plugins that were built into it.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mainstay"));
        command.args(arguments).current_dir(self.folder.path()).env_clear();
        command.env("HOME", self.folder.path()).env("MAINSTAY_DATA", self.data());
        command.env("MAINSTAY_REGISTRY", self.path("no-packages"));
        command
    }

    /// Run it to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.run_with(arguments, "")
    }

    /// Run it with something to read. What does not end is killed, and the test fails.
    pub fn run_with(&self, arguments: &[&str], input: &str) -> Output {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let id = child.id().to_string();
        let (ended, watched) = std::sync::mpsc::channel::<()>();
        let watchman = std::thread::spawn(move || {
            if watched.recv_timeout(PATIENCE) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                Command::new("kill").args(["-KILL", &id]).status().unwrap();
            }
        });
        let output = child.wait_with_output().unwrap();
        drop(ended);
        watchman.join().unwrap();
        assert!(output.status.code().is_some(), "{arguments:?} did not end: {}", self.told(&output));
        output
    }

    /// Exit code, output and errors, with what differs between runs replaced.
    pub fn told(&self, output: &Output) -> String {
        let mut text = format!("exit {}\n", output.status.code().unwrap_or(-1));
        for (name, bytes) in [("stdout", &output.stdout), ("stderr", &output.stderr)] {
            if !bytes.is_empty() {
                text.push_str(&format!("--- {name}\n{}", String::from_utf8_lossy(bytes)));
            }
        }
        self.plain(&text)
    }

    pub fn plain(&self, text: &str) -> String {
        let text = text.replace(&self.folder.path().display().to_string(), "[DIR]");
        let text = replace_runs(&text, "[DIGEST]", 64, |c| c.is_ascii_hexdigit());
        let text = replace_after(&text, "127.0.0.1:", "[PORT]", |c| c.is_ascii_digit());
        let text = replace_after(&text, "process ", "[PID]", |c| c.is_ascii_digit());
        replace_after(&text, "ready after ", "[TIME]", |c| c.is_ascii_digit() || c == '.')
    }

    /// Run it, and expect success.
    pub fn must(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", self.told(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Start a server and wait until it is ready.
    pub fn serve(&self, arguments: &[&str]) -> Server<'_> {
        self.serve_with(arguments, &[])
    }

    pub fn serve_with(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Server<'_> {
        let ready = self.path("ready.json");
        let mut all = vec!["serve", "--grpc", "127.0.0.1:0", "--ready-file", "ready.json"];
        if !arguments.contains(&"--listen") {
            all.extend(["--listen", "127.0.0.1:0"]);
        }
        all.extend(arguments);
        let mut command = self.command(&all);
        command.envs(environment.iter().copied()).stdin(Stdio::null());
        command.stdout(std::fs::File::create(self.path("stdout")).unwrap());
        command.stderr(std::fs::File::create(self.path("stderr")).unwrap());
        let mut child = command.spawn().unwrap();
        wait_until("the server is ready", || {
            if let Some(status) = child.try_wait().unwrap() {
                panic!("the server ended with {status}: {}", std::fs::read_to_string(self.path("stderr")).unwrap());
            }
            ready.exists()
        });
        let owner: serde_json::Value = serde_json::from_slice(&std::fs::read(&ready).unwrap()).unwrap();
        Server { place: self, url: owner["http"].as_str().unwrap().into(), child }
    }

    /// A plugin's folder: its component answers every request with this status.
    pub fn plugin(&self, name: &str, status: u16, more: &str) -> String {
        self.plugin_with(name, more, &answering(status))
    }

    pub fn plugin_with(&self, name: &str, more: &str, component: &[u8]) -> String {
        let folder = self.path(&format!("plugins-{name}"));
        std::fs::create_dir_all(&folder).unwrap();
        let manifest = format!(
            "name = \"{name}\"\nversion = \"0.1.0\"\ndescription = \"Answers for a test\"\nlicense = \"Apache-2.0\"\n\
             component = \"answer.wasm\"\nworlds = [\"mainstay:api/api@0.1.0\"]\ncapabilities = [\"keys\", \"blobs\"]\n\
             hints = [\"export {0}={{url}}/{name}\", \"export {0}_TOKEN={{token}}\"]\n\n[[routes]]\npath = \"/{name}\"\nmethods = [\"GET\"]\nright = \
             \"read\"\n{more}",
            name.to_uppercase()
        );
        std::fs::write(folder.join("plugin.toml"), manifest).unwrap();
        std::fs::write(folder.join("answer.wasm"), component).unwrap();
        folder.display().to_string()
    }
}

/// A running server; killed when the test ends otherwise.
pub struct Server<'a> {
    place: &'a Place,
    pub url: String,
    pub child: Child,
}

impl Server<'_> {
    /// Status of a GET.
    pub fn get(&self, path: &str) -> u16 {
        self.get_with(path, None)
    }

    pub fn get_with(&self, path: &str, token: Option<&str>) -> u16 {
        let request = client().get(format!("{}{path}", self.url));
        let request = match token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        request.send().unwrap().status().as_u16()
    }

    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Exit code after the signals that were sent.
    pub fn wait(&mut self) -> i32 {
        let mut code = None;
        wait_until("the server ends", || {
            code = self.child.try_wait().unwrap();
            code.is_some()
        });
        code.unwrap().code().unwrap_or(-1)
    }

    /// SIGTERM, and a clean end.
    pub fn stop(mut self) {
        self.signal("-TERM");
        assert_eq!(self.wait(), 0, "{}", self.errors());
    }

    /// What it printed.
    pub fn screen(&self) -> String {
        self.place.plain(&std::fs::read_to_string(self.place.path("stdout")).unwrap())
    }

    /// Its log.
    pub fn errors(&self) -> String {
        std::fs::read_to_string(self.place.path("stderr")).unwrap()
    }
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        // It has ended already unless the test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn client() -> reqwest::blocking::Client {
    reqwest::blocking::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap()
}

/// Wait for something that takes at most [`PATIENCE`].
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "waited too long until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn replace_runs(text: &str, with: &str, length: usize, fits: impl Fn(char) -> bool) -> String {
    let mut out = String::new();
    let mut run = String::new();
    let flush = |run: &mut String, out: &mut String| {
        out.push_str(if run.len() == length { with } else { run });
        run.clear();
    };
    for c in text.chars() {
        if fits(c) {
            run.push(c);
        } else {
            flush(&mut run, &mut out);
            out.push(c);
        }
    }
    flush(&mut run, &mut out);
    out
}

fn replace_after(text: &str, before: &str, with: &str, fits: impl Fn(char) -> bool) -> String {
    let mut parts = text.split(before);
    let mut out = parts.next().unwrap_or_default().to_string();
    for part in parts {
        let rest = part.trim_start_matches(&fits);
        out.push_str(before);
        if rest.len() < part.len() {
            out.push_str(with);
        }
        out.push_str(rest);
    }
    out
}

/// A component that answers every request with a status and no body.
pub fn answering(status: u16) -> Vec<u8> {
    component(&format!(
        r#"(module
            (import "mainstay:api/http@0.1.0" "[static]reply.respond" (func $respond (param i32 i32)))
            (memory (export "memory") 1)
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) i32.const 1024)
            (func (export "mainstay:lifecycle/lifecycle@0.1.0#start") (param i32 i32 i32) (result i32) i32.const 512)
            (func $answer (result i32) (call $respond (i32.const {status}) (i32.const 256)) i32.const 256)
            (func (export "mainstay:api/handler@0.1.0#handle") (param i32) (result i32) call $answer)
            (func (export "mainstay:api/handler@0.1.0#received") (param i32 i32 i32 i32 i32 i64) (result i32) call $answer))"#
    ))
}

/// A component that starts well and traps when it is asked.
pub fn trapping_when_asked() -> Vec<u8> {
    component(
        r#"(module
            (memory (export "memory") 1)
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) i32.const 1024)
            (func (export "mainstay:lifecycle/lifecycle@0.1.0#start") (param i32 i32 i32) (result i32) i32.const 512)
            (func (export "mainstay:api/handler@0.1.0#handle") (param i32) (result i32) unreachable)
            (func (export "mainstay:api/handler@0.1.0#received") (param i32 i32 i32 i32 i32 i64) (result i32) unreachable))"#,
    )
}

/// A component that traps when it is started.
pub fn trapping() -> Vec<u8> {
    component(
        r#"(module
            (memory (export "memory") 1)
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) i32.const 1024)
            (func (export "mainstay:lifecycle/lifecycle@0.1.0#start") (param i32 i32 i32) (result i32) unreachable)
            (func (export "mainstay:api/handler@0.1.0#handle") (param i32) (result i32) unreachable)
            (func (export "mainstay:api/handler@0.1.0#received") (param i32 i32 i32 i32 i32 i64) (result i32) unreachable))"#,
    )
}

fn component(module: &str) -> Vec<u8> {
    let mut resolve = wit_parser::Resolve::default();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit");
    let mut package = None;
    for name in ["types", "host", "lifecycle", "numeric", "data", "api"] {
        let mut sources = wit_parser::SourceMap::default();
        for file in std::fs::read_dir(root.join(name)).unwrap() {
            let path = file.unwrap().path();
            sources.push(&path, std::fs::read_to_string(&path).unwrap());
        }
        let group = sources.parse().unwrap_or_else(|(_, error)| panic!("{error:?}"));
        package = Some(resolve.push_group(group).unwrap());
    }
    let world = resolve.packages[package.unwrap()].worlds["api"];
    let mut module = wat::parse_str(module).unwrap();
    let encoding = wit_component::StringEncoding::UTF8;
    wit_component::embed_component_metadata(&mut module, &resolve, world, encoding, false).unwrap();
    wit_component::ComponentEncoder::default().module(&module).unwrap().encode().unwrap()
}
