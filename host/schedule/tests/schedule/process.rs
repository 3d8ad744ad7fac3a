//! Real processes: how they end, what they print, what they see, what they may use, and that nothing of them stays.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mainstay_base::{OsRandom, SystemClock};
use mainstay_schedule::process::ProcessExecutor;
use mainstay_schedule::{Driver, DriverOptions, JobDefinition, Run, RunEnd, RunState, Scheduler, Start};
use mainstay_store::Store;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// Run one process to its end; the shell is the test's program, not the executor's. Answers the run and its log.
fn run(script: &str, settings: Value, change: impl FnOnce(&mut JobDefinition)) -> (Run, String) {
    run_then(script, settings, change, |_, _| {})
}

fn run_then(
    script: &str,
    settings: Value,
    change: impl FnOnce(&mut JobDefinition),
    meanwhile: impl Fn(&Scheduler, &Run),
) -> (Run, String) {
    let mut whole = json!({"program": "/bin/sh", "arguments": ["-c", script], "folder": "/tmp"});
    whole.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    let mut job = JobDefinition::new("p", "process");
    job.action.settings = whole;
    change(&mut job);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let scheduler = Scheduler::new(Store::in_memory(), Arc::new(SystemClock::default()), Arc::new(OsRandom));
        let executor = ProcessExecutor::new(env!("CARGO_BIN_EXE_mainstay-job-supervisor"), Vec::new());
        let driver = Driver::new(scheduler.clone(), DriverOptions::new("test")).with("process", Arc::new(executor));
        driver.check(&job).expect("good settings");
        let shutdown = CancellationToken::new();
        let driving = tokio::spawn(Arc::new(driver).run(shutdown.clone()));
        scheduler.apply(job).await.unwrap();
        let id = scheduler.start(Start::of("p")).await.unwrap().run;
        let begun = Instant::now();
        let ended = loop {
            let run = scheduler.run(&id).unwrap().unwrap();
            if run.is_ended() {
                break run;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "{run:#?}");
            meanwhile(&scheduler, &run);
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        let log = scheduler.log(&id, ended.token, 0).unwrap();
        shutdown.cancel();
        driving.await.unwrap();
        (ended, String::from_utf8_lossy(&log.bytes).into_owned())
    })
}

fn reason(run: &Run) -> String {
    match &run.state {
        RunState::Ended { reason, .. } => reason.clone(),
        state => panic!("{state:?}"),
    }
}

#[test]
fn exit_codes_mean_what_the_settings_say() {
    fn check(code: i32, settings: Value, end: RunEnd, failures: u32) {
        let (run, _) = run(&format!("exit {code}"), settings, |job| {
            job.retry.attempts = 2;
            job.retry.base_ms = 1;
        });
        assert_eq!((run.end(), run.failures), (Some(end), failures), "{code}: {}", reason(&run));
    }
    check(0, json!({}), RunEnd::Success, 0);
    check(3, json!({}), RunEnd::Failed, 2);
    check(3, json!({"final-exit-codes": [3]}), RunEnd::Failed, 1);
}

#[test]
fn output_is_kept_and_the_last_line_is_the_result() {
    let (run, log) = run("echo one; echo two >&2; echo '{\"rows\": 5}'", json!({}), |_| {});
    let RunState::Ended { result, .. } = &run.state else { panic!("{run:?}") };
    assert_eq!(result, &json!({"rows": 5}));
    assert!(log.contains("one\n") && log.contains("two\n") && log.contains("rows"), "{log}");
}

#[test]
fn the_environment_is_clean() {
    let settings = json!({"environment": {"MINE": "x y"}, "keep-environment": ["PATH"]});
    let (run, log) = run("env", settings, |_| {});
    assert_eq!(run.end(), Some(RunEnd::Success));
    let mut names: Vec<&str> = log.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    // What the shell adds itself.
    names.retain(|name| !["PWD", "OLDPWD", "SHLVL", "_"].contains(name));
    names.sort_unstable();
    assert_eq!(names, ["MAINSTAY_JOB", "MAINSTAY_PARAMETERS", "MAINSTAY_RUN", "MAINSTAY_TOKEN", "MINE", "PATH"]);
    assert!(log.contains("MINE=x y"));
}

#[test]
fn a_log_that_is_too_long_is_cut() {
    let (run, log) = run("head -c 3000000 /dev/zero | tr '\\0' x", json!({"keep-environment": ["PATH"]}), |_| {});
    assert_eq!(run.end(), Some(RunEnd::Success));
    assert_eq!(log.matches('x').count(), 1 << 20);
    assert!(log.contains("1951424 more were dropped"), "{}", &log[log.len() - 200..]);
}

#[test]
fn limits_are_hit() {
    let path = json!(["PATH"]);
    let cpu = json!({"limits": {"cpu-s": 1}});
    let (spun, _) = run("while :; do :; done", cpu, |_| {});
    assert!(reason(&spun).contains("CPU"), "{}", reason(&spun));
    let folder = tempfile::tempdir().unwrap();
    let file = json!({"limits": {"file-mib": 1}, "keep-environment": path, "folder": folder.path()});
    let (written, _) = run("exec head -c 3000000 /dev/zero > big", file, |_| {});
    assert_eq!(written.end(), Some(RunEnd::Failed), "{}", reason(&written));
    assert_eq!(std::fs::metadata(folder.path().join("big")).unwrap().len(), 1 << 20);
    let memory = json!({"limits": {"memory-mib": 64}, "keep-environment": path});
    let (grown, log) = run("exec dd if=/dev/zero of=/dev/null bs=500M count=1", memory, |_| {});
    assert_eq!(grown.end(), Some(RunEnd::Failed), "{log}");
}

#[test]
fn a_program_that_is_not_there_is_not_tried_again() {
    let (run, log) = run("", json!({"program": "/no/such/program"}), |job| job.retry.attempts = 5);
    assert_eq!((run.end(), run.failures), (Some(RunEnd::Failed), 1));
    assert!(log.contains("/no/such/program"), "{log}");
    let (run, _) = self::run("", json!({"folder": "/no/such/folder"}), |job| job.retry.attempts = 5);
    assert_eq!((run.end(), run.failures), (Some(RunEnd::Failed), 1), "{}", reason(&run));
}

/// Children in the group, in a session of their own, and orphaned ones: each writes its number to a file, and ignores SIGTERM.
const FAMILY: &str = "trap '' TERM; echo $$ >> pids; \
    sh -c 'echo $$ >> pids; sleep 300' & \
    setsid sh -c 'echo $$ >> pids; sleep 300' & \
    (setsid sh -c 'echo $$ >> pids; sleep 300' &) ; \
    while :; do sleep 1; done";

fn assert_all_gone(folder: &Path, expect: usize) {
    let pids = std::fs::read_to_string(folder.join("pids")).unwrap();
    let pids: Vec<&str> = pids.lines().collect();
    assert_eq!(pids.len(), expect, "{pids:?}");
    for pid in pids {
        let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        assert!(state.is_empty() || state.contains(") Z "), "{pid} is still there: {state}");
    }
}

#[test]
fn at_its_timeout_a_process_goes_with_all_its_children() {
    let folder = tempfile::tempdir().unwrap();
    let settings = json!({"folder": folder.path(), "keep-environment": ["PATH"], "stop-grace-ms": 100});
    let (run, log) = run(FAMILY, settings, |job| job.attempt_timeout_ms = Some(800));
    assert_eq!(run.end(), Some(RunEnd::Failed), "{log}");
    assert!(reason(&run).contains("longer than 800 ms"), "{}", reason(&run));
    assert_all_gone(folder.path(), 4);
}

#[test]
fn a_cancelled_process_goes_with_all_its_children() {
    let folder = tempfile::tempdir().unwrap();
    let settings = json!({"folder": folder.path(), "keep-environment": ["PATH"], "stop-grace-ms": 100});
    let pids = folder.path().join("pids");
    let (run, _) = run_then(
        FAMILY,
        settings,
        |_| {},
        |scheduler, run| {
            let has_begun = std::fs::read_to_string(&pids).is_ok_and(|text| text.lines().count() == 4);
            if has_begun && matches!(run.state, RunState::Running { stop: None, .. }) {
                futures::executor::block_on(scheduler.cancel(&run.id, "enough")).unwrap();
            }
        },
    );
    assert_eq!(run.end(), Some(RunEnd::Cancelled), "{}", reason(&run));
    assert_all_gone(folder.path(), 4);
}

#[test]
fn what_a_command_leaves_behind_goes_when_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    let settings = json!({"folder": folder.path(), "keep-environment": ["PATH"]});
    let script = "(setsid sh -c 'echo $$ >> pids; sleep 300' &) ; while [ ! -s pids ]; do sleep 0.01; done; exit 0";
    let (run, _) = run(script, settings, |_| {});
    assert_eq!(run.end(), Some(RunEnd::Success));
    assert_all_gone(folder.path(), 1);
}
