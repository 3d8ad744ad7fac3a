//! `mainstay job …`: definitions, runs and logs of durable jobs, on a running server.
//!
//! Owns the file of definitions ([`JobFile`]), and how jobs and runs are shown. Separate from the admin API, which it calls:
//! jobs live in a server, so without one there is nothing to do, and the message says so. A file is checked as a whole before
//! anything of it is applied. On failure: file, line and column for what is written wrongly; else the server's own message.

use crate::admin_client::AdminClient;
use crate::cli::JobCommand;
use crate::exit::{Exit, Failure, print_text, say};
use crate::settings::Settings;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use mainstay_base::{Error, Result};
use mainstay_gateway::{BackfillOrder, RunOrder};
use mainstay_market::located::{Document, check};
use mainstay_schedule::{JobDefinition, JobRecord, Pool, Run, RunEnd, RunState};
use schemars::{JsonSchema, generate::SchemaSettings};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

/// How often a run that is waited for is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// A file of jobs and pools.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct JobFile {
    /// Jobs to make or change.
    pub jobs: Vec<JobDefinition>,
    /// Pools to make or change.
    pub pools: Vec<Pool>,
}

static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<JobFile>().to_value()
});

impl JobFile {
    /// Read and check a file's text.
    pub fn parse(name: &str, text: &str) -> Result<JobFile> {
        static VALIDATOR: LazyLock<jsonschema::Validator> =
            LazyLock::new(|| jsonschema::validator_for(&SCHEMA).expect("a generated schema is valid"));
        let document = Document::parse(name, text)?;
        document.refuse(check(&SCHEMA, &VALIDATOR, document.value(), "the file"))?;
        let file: JobFile = serde_json::from_value(document.value().clone())
            .map_err(|error| Error::invalid(format!("{name}: {error}; `mainstay job apply --help` says more")))?;
        for job in &file.jobs {
            job.check().map_err(|error| error.context(name))?;
        }
        if file.jobs.is_empty() && file.pools.is_empty() {
            return Err(Error::invalid(format!("{name} has neither `[[jobs]]` nor `[[pools]]`; write one")));
        }
        Ok(file)
    }
}

/// Run a job command.
pub fn run(settings: &Settings, command: JobCommand) -> std::result::Result<Exit, Failure> {
    let client = || AdminClient::of_running(&settings.data, "job");
    match command {
        JobCommand::Apply { file, dry_run } => apply(&client()?, &file, dry_run)?,
        JobCommand::List { job: None, json } => list(&client()?, json)?,
        JobCommand::List { job: Some(job), json } => list_runs(&client()?, &job, json)?,
        JobCommand::Show { name } => show(&client()?, &name)?,
        JobCommand::Run { job, set, key, detach } => return start(&client()?, &job, &set, key, detach),
        JobCommand::Logs { run, no_follow } => follow(&client()?, &run, !no_follow).map(|_| ())?,
        JobCommand::Cancel { run } => {
            let run = client()?.cancel_run(&run)?;
            say!("{}", describe(&run));
        }
        JobCommand::Backfill { job, from, to, limit, dry_run } => {
            let from_ms = moment(&from)?;
            let to_ms = to.as_deref().map_or_else(|| Ok(Timestamp::now().as_millisecond()), moment)?;
            backfill(&client()?, &job, &BackfillOrder { from_ms, to_ms, limit, dry_run })?;
        }
        JobCommand::Pause { job } => {
            client()?.hold_job(&job, true)?;
            say!("No further run of `{job}` begins; `mainstay job resume {job}` lets them.");
        }
        JobCommand::Resume { job } => {
            let record = client()?.hold_job(&job, false)?;
            say!("{}", describe_job(&record));
        }
        JobCommand::Remove { job } => {
            client()?.remove_job(&job)?;
            say!("Removed `{job}`.");
        }
    }
    Ok(Exit::Done)
}

fn apply(client: &AdminClient, path: &Path, dry_run: bool) -> Result<()> {
    let text = std::fs::read_to_string(path).map_err(|error| Error::io("read the jobs", path, error))?;
    let file = JobFile::parse(&path.display().to_string(), &text)?;
    for pool in &file.pools {
        if !dry_run {
            client.set_pool(pool)?;
        }
        say!("pool {}: {} slots", pool.name, pool.slots);
    }
    for definition in &file.jobs {
        let before = match client.job(&definition.name) {
            Ok(record) => Some(record),
            Err(error) if error.kind() == mainstay_base::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let change = match &before {
            None => "new",
            Some(record) if record.definition == *definition => "unchanged",
            Some(_) => "changed",
        };
        let next = match dry_run || change == "unchanged" {
            true => before.as_ref().and_then(JobRecord::next_ms),
            false => client.apply_job(definition)?.next_ms(),
        };
        let next = next.map_or_else(String::new, |at| format!(", next {}", shown(at)));
        say!("job {}: {change}{next}", definition.name);
    }
    if dry_run {
        say!("Nothing was changed.");
    }
    Ok(())
}

fn list(client: &AdminClient, json: bool) -> Result<()> {
    let mut jobs = Vec::new();
    let mut after = None;
    loop {
        let page = client.jobs(after.as_deref())?;
        jobs.extend(page.jobs);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    if json {
        return print_json(&jobs);
    }
    if jobs.is_empty() {
        say!("There is no job; `mainstay job apply FILE` makes some.");
    }
    jobs.iter().for_each(|job| say!("{}", describe_job(job)));
    Ok(())
}

fn list_runs(client: &AdminClient, job: &str, json: bool) -> Result<()> {
    // Whether there is such a job is told by its own route.
    client.job(job)?;
    let runs = client.runs(job)?.runs;
    if json {
        return print_json(&runs);
    }
    if runs.is_empty() {
        say!("`{job}` has no run; `mainstay job run {job}` starts one.");
    }
    runs.iter().for_each(|run| say!("{}", describe(run)));
    Ok(())
}

fn show(client: &AdminClient, name: &str) -> Result<()> {
    let is_run = name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    match is_run {
        true => print_json(&client.run(name)?),
        false => print_json(&client.job(name)?),
    }
}

fn print_json(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Error::internal(error.to_string()))?;
    say!("{text}");
    Ok(())
}

fn start(
    client: &AdminClient,
    job: &str,
    set: &[String],
    key: Option<String>,
    detach: bool,
) -> std::result::Result<Exit, Failure> {
    let parameters = set.iter().map(|pair| parameter(pair)).collect::<Result<_>>()?;
    let order = RunOrder { parameters, idempotency_key: key, ..RunOrder::default() };
    let started = client.start_run(job, &order)?;
    if detach {
        say!("{}", started.run);
        return Ok(Exit::Done);
    }
    eprintln!("run {}{}", started.run, if started.existed { " (it was there already)" } else { "" });
    let run = follow(client, &started.run, true)?;
    eprintln!("{}", describe(&run));
    Ok(match run.end() {
        Some(RunEnd::Success) => Exit::Done,
        _ => Exit::Failed,
    })
}

fn parameter(pair: &str) -> Result<(String, Value)> {
    let (name, text) = pair
        .split_once('=')
        .ok_or_else(|| Error::invalid(format!("`--set {pair}`: write a name, `=`, and a value, `--set days=30`")))?;
    let value = serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()));
    Ok((name.to_owned(), value))
}

/// Print the logs of a run's attempts, one after the other; with `waits`, until it ends.
fn follow(client: &AdminClient, run: &str, waits: bool) -> Result<Run> {
    let mut token = 0;
    let mut after = 0;
    loop {
        // The run before its log, so that what is read last is all there is.
        let found = client.run(run)?;
        if found.token != token && token != 0 {
            print_text(&client.log(run, token, after)?.text);
        }
        if found.token != token {
            (token, after) = (found.token, 0);
        }
        if token != 0 {
            let page = client.log(run, token, after)?;
            print_text(&page.text);
            after = page.next;
        }
        if !waits || found.end().is_some() {
            return Ok(found);
        }
        std::thread::sleep(LOOK);
    }
}

fn backfill(client: &AdminClient, job: &str, order: &BackfillOrder) -> Result<()> {
    let filled = client.backfill(job, order)?;
    for occurrence in &filled.occurrences {
        let what = match (&occurrence.run, occurrence.existed) {
            (Some(run), true) => format!("has run {run}"),
            (Some(run), false) => format!("started as {run}"),
            (None, _) => "would be started".to_owned(),
        };
        say!("{}  {what}", shown(occurrence.scheduled_ms));
    }
    match filled.next_ms {
        Some(next) => say!("The limit was reached; go on with `--from {}`.", shown(next)),
        None if filled.occurrences.is_empty() => say!("No occurrence lies between these times."),
        None => {}
    }
    Ok(())
}

/// A date or a time, as milliseconds since 1970-01-01 UTC.
pub(crate) fn moment(text: &str) -> Result<i64> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at.as_millisecond());
    }
    let day = text.parse::<Date>().ok().and_then(|day| day.to_zoned_datetime(TimeZone::UTC).ok());
    day.map(|day| day.timestamp().as_millisecond()).ok_or_else(|| {
        Error::invalid(format!(
            "`{text}` is no time; write a date, `2026-01-31`, or a time with its zone, `2026-01-31T03:00:00Z`"
        ))
    })
}

/// A time as it can be given back as `--from`.
fn shown(at_ms: i64) -> String {
    Timestamp::from_millisecond(at_ms).map_or_else(|_| at_ms.to_string(), |at| at.to_string())
}

fn describe_job(record: &JobRecord) -> String {
    let JobRecord { definition, paused, .. } = record;
    let next = match (paused, record.next_ms()) {
        (true, _) => "paused".to_owned(),
        (false, Some(at)) => format!("next {}", shown(at)),
        (false, None) => "starts when asked to".to_owned(),
    };
    format!("{}  {}  {next}", definition.name, definition.action.kind)
}

fn describe(run: &Run) -> String {
    let what = match &run.state {
        RunState::Scheduled { until_ms } => format!("scheduled for {}", shown(*until_ms)),
        RunState::Waiting { .. } => "waits for its job to have room".to_owned(),
        RunState::Ready { .. } => format!("waits for a slot of the pool `{}`", run.plan.pool),
        RunState::Running { started_ms, .. } => format!("running since {}", shown(*started_ms)),
        RunState::Delayed { until_ms } => format!("tried again at {}", shown(*until_ms)),
        RunState::Ended { end, reason, at_ms, .. } => {
            let end = match end {
                RunEnd::Success => "success",
                RunEnd::Failed => "failure",
                RunEnd::Skipped => "skipped",
                RunEnd::Cancelled => "cancelled",
            };
            let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
            format!("{end} at {}{reason}", shown(*at_ms))
        }
    };
    format!("{}  {}  {what}", run.id, run.job)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_checked_as_a_whole() {
        fn check(text: &str, expect: &str) {
            let told = JobFile::parse("jobs.toml", text).map(|file| format!("{} jobs", file.jobs.len()));
            let told = told.unwrap_or_else(|error| error.to_string());
            assert!(told.contains(expect), "{told} should hold {expect}");
        }
        let job = "[[jobs]]\nname = \"nightly\"\naction = { kind = \"process\" }\n";
        check(job, "1 jobs");
        check("[[pools]]\nname = \"gpu\"\nslots = 1\n", "0 jobs");
        check("", "neither");
        check("[[jobs]]\nname = \"a\"\n", "action");
        check(&format!("{job}colour = 1\n"), "jobs.toml:4");
        check(&format!("{job}concurrency = 0\n"), "pause the job instead");
    }

    #[test]
    fn times_are_read_with_or_without_a_clock() {
        fn check(text: &str, expect: Option<i64>) {
            assert_eq!(moment(text).ok(), expect, "{text}");
        }
        check("2026-01-01", Some(1_767_225_600_000));
        check("2026-01-01T01:00:00+01:00", Some(1_767_225_600_000));
        check("yesterday", None);
        check("2026-13-01", None);
        assert_eq!(moment(&shown(1_767_225_600_123)).unwrap(), 1_767_225_600_123);
    }

    #[test]
    fn parameters_are_json_or_text() {
        assert_eq!(parameter("days=30").unwrap(), ("days".to_owned(), Value::from(30)));
        assert_eq!(parameter("name=a=b").unwrap(), ("name".to_owned(), Value::from("a=b")));
        assert!(parameter("days").unwrap_err().message().contains("--set days"));
    }
}
