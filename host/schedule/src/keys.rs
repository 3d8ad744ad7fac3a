//! How jobs lie in the ordered keys.
//!
//! Owns every key of the scheduler's space. Separate so that the order which makes finding cheap is in one place: times as
//! eight bytes that sort like the numbers, higher priorities first, names behind their length so that none is a prefix of
//! another. The first byte says what a key is:
//!
//! | first | then | holds |
//! | --- | --- | --- |
//! | `j` | job | the job's record |
//! | `r` | run | the run |
//! | `d` | time, `j` or `r`, job or run | what has to be looked at then |
//! | `w` | job, priority, time, run | runs that wait to begin |
//! | `q` | pool, priority, time, run | runs that want a slot |
//! | `p`, `u` | pool | the pool, and how many of its slots are taken |
//! | `a`, `n` | job | how many of its runs have begun, and how many wait |
//! | `o` | job, trigger, time | the run of an occurrence |
//! | `k` | job, idempotency key | the run that it started |
//! | `t` | topic, job | who is started by an event |
//! | `b` | job, time, run | a job's runs in order |
//! | `e` | time, run | ended runs in order |
//! | `l` | run, token, part | a part of an attempt's log |
//! | `i` | run | a start that came with somebody else's transaction |
//! | `m` | job | more of its runs may begin |
//!
//! Bounded by the lengths of names. Reading a key that is not laid out so is none, never a guess.

/// A key.
pub(crate) type Key = Vec<u8>;

const RUN_ID_BYTES: usize = 32;

pub(crate) const DUE: &[u8] = b"d";
pub(crate) const JOBS: &[u8] = b"j";
pub(crate) const POOLS: &[u8] = b"p";
pub(crate) const ENDED: &[u8] = b"e";
pub(crate) const REQUESTS: &[u8] = b"i";
pub(crate) const MORE: &[u8] = b"m";

/// What a due entry is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DueWhat {
    Job(String),
    Run(String),
}

fn ordered(number: i64) -> [u8; 8] {
    ((number as u64) ^ (1 << 63)).to_be_bytes()
}

fn number(bytes: [u8; 8]) -> i64 {
    (u64::from_be_bytes(bytes) ^ (1 << 63)) as i64
}

/// Higher priorities sort first.
fn priority_bytes(priority: i32) -> [u8; 4] {
    (!((priority as u32) ^ (1 << 31))).to_be_bytes()
}

fn counted(name: &str) -> Key {
    // Names are at most 128 bytes, idempotency keys come last.
    [&[name.len() as u8], name.as_bytes()].concat()
}

fn plain(first: u8, name: &str) -> Key {
    [&[first], name.as_bytes()].concat()
}

fn in_order(first: u8, name: &str, priority: i32, since_ms: i64, run: &str) -> Key {
    [&[first], &counted(name)[..], &priority_bytes(priority), &ordered(since_ms), run.as_bytes()].concat()
}

pub(crate) fn job(name: &str) -> Key {
    plain(b'j', name)
}

pub(crate) fn run(id: &str) -> Key {
    plain(b'r', id)
}

pub(crate) fn due_job(at_ms: i64, name: &str) -> Key {
    [DUE, &ordered(at_ms), b"j", name.as_bytes()].concat()
}

pub(crate) fn due_run(at_ms: i64, id: &str) -> Key {
    [DUE, &ordered(at_ms), b"r", id.as_bytes()].concat()
}

/// The first key behind everything that is due by then.
pub(crate) fn due_end(by_ms: i64) -> Key {
    [DUE, &ordered(by_ms.saturating_add(1))].concat()
}

pub(crate) fn parse_due(key: &[u8]) -> Option<(i64, DueWhat)> {
    let (time, rest) = key.strip_prefix(DUE)?.split_first_chunk::<8>()?;
    let (kind, name) = rest.split_first()?;
    let name = std::str::from_utf8(name).ok()?.to_owned();
    let what = match kind {
        b'j' => DueWhat::Job(name),
        b'r' => DueWhat::Run(name),
        _ => return None,
    };
    Some((number(*time), what))
}

pub(crate) fn waiting(job: &str, priority: i32, since_ms: i64, run: &str) -> Key {
    in_order(b'w', job, priority, since_ms, run)
}

pub(crate) fn waiting_of(job: &str) -> Key {
    [b"w", &counted(job)[..]].concat()
}

pub(crate) fn ready(pool: &str, priority: i32, since_ms: i64, run: &str) -> Key {
    in_order(b'q', pool, priority, since_ms, run)
}

pub(crate) fn ready_of(pool: &str) -> Key {
    [b"q", &counted(pool)[..]].concat()
}

/// The run at the end of a key.
pub(crate) fn run_at_end(key: &[u8]) -> Option<String> {
    let start = key.len().checked_sub(RUN_ID_BYTES)?;
    Some(std::str::from_utf8(&key[start..]).ok()?.to_owned())
}

/// What follows the first byte.
pub(crate) fn name_at_end(key: &[u8]) -> Option<String> {
    Some(std::str::from_utf8(key.get(1..)?).ok()?.to_owned())
}

pub(crate) fn pool(name: &str) -> Key {
    plain(b'p', name)
}

pub(crate) fn used(pool: &str) -> Key {
    plain(b'u', pool)
}

pub(crate) fn active_count(job: &str) -> Key {
    plain(b'a', job)
}

pub(crate) fn waiting_count(job: &str) -> Key {
    plain(b'n', job)
}

pub(crate) fn occurrence(job: &str, trigger: &str, scheduled_ms: i64) -> Key {
    [b"o", &counted(job)[..], trigger.as_bytes(), &ordered(scheduled_ms)].concat()
}

pub(crate) fn idempotency(job: &str, key: &str) -> Key {
    [b"k", &counted(job)[..], key.as_bytes()].concat()
}

pub(crate) fn topic(topic: &str, job: &str) -> Key {
    [b"t", &counted(topic)[..], job.as_bytes()].concat()
}

pub(crate) fn topic_of(topic: &str) -> Key {
    [b"t", &counted(topic)[..]].concat()
}

/// The job at the end of a topic's key.
pub(crate) fn job_of_topic(key: &[u8], topic: &str) -> Option<String> {
    Some(std::str::from_utf8(key.get(topic_of(topic).len()..)?).ok()?.to_owned())
}

pub(crate) fn by_job(job: &str, created_ms: i64, run: &str) -> Key {
    [b"b", &counted(job)[..], &ordered(created_ms), run.as_bytes()].concat()
}

pub(crate) fn of_job(job: &str) -> Key {
    [b"b", &counted(job)[..]].concat()
}

pub(crate) fn ended(at_ms: i64, run: &str) -> Key {
    [ENDED, &ordered(at_ms), run.as_bytes()].concat()
}

pub(crate) fn ended_end(before_ms: i64) -> Key {
    [ENDED, &ordered(before_ms)].concat()
}

pub(crate) fn log_of(run: &str) -> Key {
    [b"l", run.as_bytes()].concat()
}

pub(crate) fn log_of_attempt(run: &str, token: u64) -> Key {
    [b"l", run.as_bytes(), &token.to_be_bytes()].concat()
}

pub(crate) fn log(run: &str, token: u64, part: u32) -> Key {
    [&log_of_attempt(run, token)[..], &part.to_be_bytes()].concat()
}

pub(crate) fn request(run: &str) -> Key {
    plain(b'i', run)
}

pub(crate) fn more(job: &str) -> Key {
    plain(b'm', job)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn keys_sort_like_what_they_stand_for(a: (i32, i64), b: (i32, i64)) {
            let key = |(priority, since): (i32, i64)| ready("p", priority, since, &"0".repeat(32));
            let before = (std::cmp::Reverse(a.0), a.1) < (std::cmp::Reverse(b.0), b.1);
            prop_assert_eq!(key(a) < key(b), before);
            prop_assert_eq!(due_run(a.1, "x") < due_run(b.1, "x"), a.1 < b.1);
            prop_assert_eq!(parse_due(&due_job(a.1, "x")), Some((a.1, DueWhat::Job("x".into()))));
            prop_assert!(due_run(a.1, "x") < due_end(a.1) || a.1 == i64::MAX);
        }
    }

    #[test]
    fn no_name_is_a_prefix_of_another() {
        assert!(!ready("ab", 0, 0, "r").starts_with(&ready_of("a")));
        assert_eq!(job_of_topic(&topic("t", "job"), "t").unwrap(), "job");
        assert_eq!(run_at_end(&waiting("j", 1, 2, &"f".repeat(32))).unwrap(), "f".repeat(32));
    }
}
