//! Cron expressions in a time zone.
//!
//! Owns the bridge between two well-kept libraries: croner knows patterns, jiff knows zones. Five fields, or six with
//! seconds in front. Daylight saving is treated as Vixie's cron does it: a pattern with one fixed time of day that falls
//! into a gap runs at the first moment behind the gap, and in a repeated hour it runs once, the first time; any other
//! pattern (`*`, lists, ranges, steps in its time of day) runs whenever the wall clock shows a matching time: not in a gap,
//! and in both passes of a repeated hour.
//!
//! Bounded by croner's search (to the year 5000). On failure: an expression or zone that nobody knows is `invalid`; a
//! pattern that never comes (30 February) has no next occurrence.

use std::cmp::Ordering;

use croner::errors::CronError;
use croner::parser::{CronParser, Seconds, Year};
use croner::time::{CivilDate, CivilDateTime, CivilTime, CronDateTime, Resolution, Weekday};
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp};
use mainstay_base::{Error, Result};

/// A pattern and the zone whose wall clock it is read on.
#[derive(Clone, Debug)]
pub(crate) struct Cron {
    pattern: croner::Cron,
    zone: TimeZone,
}

impl Cron {
    pub fn parse(expression: &str, zone: &str) -> Result<Cron> {
        let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
        let pattern = parser.parse(expression).map_err(|error| {
            Error::invalid(format!("`{expression}` is no cron expression: {error}; an example is `30 2 * * mon-fri`"))
        })?;
        let zone = TimeZone::get(zone).map_err(|_| {
            Error::invalid(format!("no time zone `{zone}` is known on this machine; an example is `Europe/Berlin`"))
        })?;
        Ok(Cron { pattern, zone })
    }

    /// The first occurrence behind a moment, both in milliseconds since 1970.
    pub fn next_after(&self, after_ms: i64) -> Option<i64> {
        let after = Timestamp::from_millisecond(after_ms).ok()?;
        let next = self.pattern.find_next_occurrence(&Moment { at: after, zone: &self.zone }, false).ok()?;
        Some(next.at.as_millisecond())
    }
}

/// A moment on the wall clock of a zone, as croner sees it.
#[derive(Clone)]
struct Moment<'a> {
    at: Timestamp,
    zone: &'a TimeZone,
}

impl CronDateTime for Moment<'_> {
    fn to_civil(&self) -> CivilDateTime {
        let shown = self.zone.to_datetime(self.at);
        // jiff's parts are in range.
        let date = CivilDate::from_ymd_opt(i32::from(shown.year()), shown.month() as u32, shown.day() as u32);
        let time = CivilTime::from_hms_opt(shown.hour() as u32, shown.minute() as u32, shown.second() as u32);
        CivilDateTime::new(date.expect("a date of the calendar"), time.expect("a time of the clock"))
    }

    fn civil_weekday(&self) -> Weekday {
        let weekday = self.zone.to_datetime(self.at).weekday();
        Weekday::from_days_from_sunday(weekday.to_sunday_zero_offset() as u32)
    }

    fn resolve_civil(&self, civil: CivilDateTime) -> Result<Resolution<Self>, CronError> {
        let year = i16::try_from(civil.year()).map_err(|_| CronError::InvalidDate)?;
        let (month, day) = (civil.month() as i8, civil.day() as i8);
        let (hour, minute, second) = (civil.hour() as i8, civil.minute() as i8, civil.second() as i8);
        let shown = DateTime::new(year, month, day, hour, minute, second, 0).map_err(|_| CronError::InvalidDate)?;
        let found = self.zone.to_ambiguous_timestamp(shown);
        let moment = |at: Result<Timestamp, jiff::Error>| match at {
            Ok(at) => Ok(Moment { at, zone: self.zone }),
            Err(_) => Err(CronError::InvalidTime),
        };
        Ok(match found.offset() {
            AmbiguousOffset::Unambiguous { .. } => Resolution::Single(moment(found.unambiguous())?),
            AmbiguousOffset::Fold { .. } => Resolution::Ambiguous(moment(found.earlier())?, moment(found.later())?),
            AmbiguousOffset::Gap { .. } => Resolution::Gap,
        })
    }

    fn checked_add_seconds(&self, seconds: i64) -> Option<Self> {
        let at = self.at.checked_add(SignedDuration::from_secs(seconds)).ok()?;
        Some(Moment { at, zone: self.zone })
    }

    fn cmp_instant(&self, other: &Self) -> Ordering {
        self.at.cmp(&other.at)
    }
}
