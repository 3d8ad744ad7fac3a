//! The parent of one command: bounds it, waits for it, and leaves nothing of it behind.
//!
//! Owns the supervisor's side. Its standard input is a socket to the host: the command comes in, `t` asks it to stop, the end
//! of the stream means kill; how it ended goes out. It is a subreaper, so whatever the command leaves behind becomes its
//! child, and it kills its children until there are none. A second stage of the same program sets the limits, which cannot be
//! raised again, and becomes the command.
//!
//! Bounded by: one command, one thread that listens. On failure: a word to the host; a host that is gone is the reason to
//! kill and go, too. If the supervisor itself is killed, the command is killed by the kernel (its parent's death signal).

use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use mainstay_base::{Error, Result};
use rustix::process::{
    Pid, Resource, Rlimit, Signal, WaitOptions, getpid, kill_process, kill_process_group, set_child_subreaper,
    set_parent_process_death_signal, setrlimit, wait,
};

use super::command::{Command, Ended, ProcessLimits};

/// The first argument of the second stage.
const STAGE: &str = "become";
/// The largest command that is read.
const COMMAND_BYTES_MAX: usize = 16 << 20;
/// What the second stage ends with when it cannot become the command; it has said why on its standard error.
const NOT_STARTED: i32 = 127;

/// What the supervisor does; `before` are the arguments that lead here, for the second stage, and `arguments` those behind
/// them.
pub fn supervisor_main(
    before: impl IntoIterator<Item = OsString>,
    arguments: impl IntoIterator<Item = OsString>,
) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    if arguments.first().is_some_and(|first| first == STAGE) {
        let error = become_command(&arguments[1..]);
        eprintln!("{error}");
        return ExitCode::from(NOT_STARTED as u8);
    }
    match supervise(before.into_iter().collect()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn supervise(before: Vec<OsString>) -> Result<()> {
    let lost = |error: std::io::Error| Error::unavailable(format!("the host cannot be talked to: {error}"));
    let socket = std::io::stdin().as_fd().try_clone_to_owned().map_err(lost)?;
    let mut socket = UnixStream::from(socket);
    let command = read_command(&mut socket)?;
    set_child_subreaper(Some(getpid()))
        .map_err(|error| Error::unavailable(format!("this system does not hand orphans to a supervisor: {error}")))?;
    let ended = match start(&command, before) {
        Ok(pid) => {
            listen(socket.try_clone().map_err(lost)?, pid);
            wait_for(pid)
        }
        Err(error) => Ended::NotStarted { reason: error.to_string() },
    };
    let text = serde_json::to_vec(&ended).map_err(|error| Error::internal(error.to_string()))?;
    socket.write_all(&text).map_err(lost)
}

fn read_command(socket: &mut UnixStream) -> Result<Command> {
    let lost = |error: std::io::Error| Error::unavailable(format!("no command came: {error}"));
    let mut length = [0; 4];
    socket.read_exact(&mut length).map_err(lost)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > COMMAND_BYTES_MAX {
        return Err(Error::invalid(format!("a command of {length} bytes")));
    }
    let mut text = vec![0; length];
    socket.read_exact(&mut text).map_err(lost)?;
    serde_json::from_slice(&text).map_err(|error| Error::invalid(format!("the command cannot be read: {error}")))
}

fn start(command: &Command, before: Vec<OsString>) -> Result<Pid> {
    let program = &command.program;
    let file = command.find_program().ok_or_else(|| {
        Error::not_found(format!("there is no program `{program}` in the PATH of the job's environment; name its path"))
    })?;
    let metadata = std::fs::metadata(command.folder.join(&file)).map_err(|error| Error::io("run", &file, error))?;
    if !metadata.is_file() {
        return Err(Error::invalid(format!("`{program}` is no file that can be run")));
    }
    let own = std::env::current_exe().map_err(|error| Error::unavailable(error.to_string()))?;
    let mut stage = std::process::Command::new(own);
    stage.args(before).arg(STAGE).args(limit_arguments(&command.limits)).arg(&file).args(&command.arguments);
    stage.env_clear().envs(command.environment.iter().map(|(name, value)| (name, value)));
    stage.current_dir(&command.folder).stdin(Stdio::null()).process_group(0);
    let child = stage.spawn().map_err(|error| Error::io("start in", &command.folder, error))?;
    let pid = Pid::from_raw(child.id() as i32);
    pid.ok_or_else(|| Error::internal("a child without a number"))
}

/// Do what the host says, until it says nothing more.
fn listen(mut socket: UnixStream, pid: Pid) {
    std::thread::spawn(move || {
        let mut word = [0];
        while let Ok(1) = socket.read(&mut word) {
            // The group may be gone already.
            let _ = kill_process_group(pid, Signal::TERM);
        }
        loop {
            kill_all(pid);
            std::thread::sleep(Duration::from_millis(20));
        }
    });
}

/// Wait for the command, then for everything that it left behind.
fn wait_for(pid: Pid) -> Ended {
    let mut ended = None;
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((gone, status))) if gone == pid => {
                let status = std::process::ExitStatus::from_raw(status.as_raw());
                ended = Some(match (status.code(), status.signal()) {
                    (Some(code), _) => Ended::Code { code },
                    (None, signal) => {
                        let signal = signal.unwrap_or(0);
                        Ended::Signal { signal, name: signal_name(signal).to_owned() }
                    }
                });
                kill_all(pid);
            }
            Ok(_) => {
                // An orphan, which may have left children of its own to us.
                if ended.is_some() {
                    kill_all(pid);
                }
            }
            Err(rustix::io::Errno::INTR) => {}
            // No children are left.
            Err(_) => return ended.unwrap_or(Ended::Signal { signal: 0, name: "unknown".to_owned() }),
        }
    }
}

/// Kill the command's group, and every child of this process. Their own children become ours when they die, and are found
/// the next time.
fn kill_all(group: Pid) {
    let _ = kill_process_group(group, Signal::KILL);
    for child in children() {
        let _ = kill_process(child, Signal::KILL);
    }
}

/// Processes whose parent is this one.
fn children() -> Vec<Pid> {
    let own = getpid().as_raw_nonzero().get();
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let numbers = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    numbers.filter(|number| parent_of(*number) == Some(own)).filter_map(Pid::from_raw).collect()
}

fn parent_of(number: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{number}/stat")).ok()?;
    // The name in parentheses may contain anything; behind it come the state and the parent.
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

fn signal_name(signal: i32) -> &'static str {
    match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        15 => "SIGTERM",
        24 => "SIGXCPU",
        25 => "SIGXFSZ",
        _ => "another signal",
    }
}

const LIMITS: usize = 4;

fn limit_arguments(limits: &ProcessLimits) -> [String; LIMITS] {
    let mebibytes = |value: Option<u64>| value.map(|mib| mib.saturating_mul(1 << 20));
    let all = [mebibytes(limits.memory_mib), limits.cpu_s, mebibytes(limits.file_mib), limits.open_files];
    all.map(|limit| limit.map_or("-".to_owned(), |limit| limit.to_string()))
}

/// The second stage: bound this process, and become the command. Comes back only with an error.
fn become_command(arguments: &[OsString]) -> Error {
    let Some((limits, [program, arguments @ ..])) = arguments.split_at_checked(LIMITS) else {
        return Error::internal("expected: four limits, a program and its arguments");
    };
    if let Err(error) = bound_self(limits) {
        return Error::unavailable(format!("the limits of the job cannot be set: {error}"));
    }
    let error = std::process::Command::new(program).args(arguments).exec();
    Error::io("run", std::path::Path::new(program), error)
}

fn bound_self(limits: &[OsString]) -> rustix::io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    // Open files and memory last: this process needs both until it is another.
    for (resource, place) in [(Resource::Cpu, 1), (Resource::Fsize, 2), (Resource::Nofile, 3), (Resource::As, 0)] {
        let Some(limit) = limits[place].to_str().and_then(|text| text.parse::<u64>().ok()) else { continue };
        // A second more of CPU, so that the signal which says why comes before the one that kills.
        let maximum = if place == 1 { limit.saturating_add(1) } else { limit };
        setrlimit(resource, Rlimit { current: Some(limit), maximum: Some(maximum) })?;
    }
    Ok(())
}
