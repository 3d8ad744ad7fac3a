//! Checks of the whole: floors, words, generated references, crashes, hostile plugins.

/// The work of the process that the crash test kills, shared by that process and the test.
#[path = "../crash/workload.rs"]
pub mod crash_workload;
