//! What is told to the user, and commands that run under it.
//!
//! Owns the form: one line a step; a spinner with the time and the newest line of output while something long and quiet
//! runs, on a terminal; plain lines elsewhere. On failure of a quiet command: its whole output, then which command it was.

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{BufRead, BufReader, IsTerminal};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Lines of a failed quiet command that are shown.
const SHOWN_LINES_MAX: usize = 200;

/// A step begins.
pub fn step(text: &str) {
    eprintln!("==> {text}");
}

/// Something is done, or needs no doing.
pub fn done(text: &str) {
    eprintln!("    {text}");
}

/// Run a command that talks to the user itself.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("starting {}", shown(command)))?;
    if !status.success() {
        bail!("{} ended with {status}", shown(command));
    }
    Ok(())
}

/// Run a long and quiet command under a spinner.
pub fn run_quietly(doing: &str, command: &mut Command) -> Result<()> {
    let started = Instant::now();
    let spinner = spinner(doing);
    let (reader, writer) = std::io::pipe()?;
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    let mut child = command.spawn().with_context(|| format!("starting {}", shown(command)))?;
    // The command holds the pipe's other end open until it is told to forget it.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut lines: Vec<String> = Vec::new();
    for line in BufReader::new(reader).lines() {
        let line = line.unwrap_or_else(|_| "(a line that is not text)".to_owned());
        spinner.set_message(line.chars().take(90).collect::<String>());
        lines.push(line);
    }
    let status = child.wait()?;
    spinner.finish_and_clear();
    if !status.success() {
        let shown_from = lines.len().saturating_sub(SHOWN_LINES_MAX);
        lines[shown_from..].iter().for_each(|line| eprintln!("    {line}"));
        bail!("{doing} failed: {} ended with {status}", shown(command));
    }
    done(&format!("{doing}: done in {}", seconds(started.elapsed())));
    Ok(())
}

/// A spinner that turns while something runs; only a line where nobody watches.
pub fn spinner(doing: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        eprintln!("    {doing} …");
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("    {spinner} {prefix} [{elapsed}] {wide_msg:.dim}");
    let bar = ProgressBar::new_spinner().with_prefix(doing.to_owned());
    bar.set_style(style.expect("the template is well formed"));
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

/// A bar over things that are counted.
pub fn bar(count: usize) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("    {bar:30} {pos}/{len} {wide_msg}");
    let bar = ProgressBar::new(count as u64);
    bar.set_style(style.expect("the template is well formed"));
    bar
}

/// A duration for people.
pub fn seconds(duration: Duration) -> String {
    match duration.as_secs() {
        0..60 => format!("{:.1} s", duration.as_secs_f64()),
        long => format!("{} min {} s", long / 60, long % 60),
    }
}

/// A command as the user could type it.
pub fn shown(command: &Command) -> String {
    let words: Vec<_> =
        std::iter::once(command.get_program()).chain(command.get_args()).map(|word| word.to_string_lossy()).collect();
    format!("`{}`", words.join(" "))
}
