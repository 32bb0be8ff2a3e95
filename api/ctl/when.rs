//! Times that people write and read: schedules and stamps, on the wall clock.

use anyhow::{Context, bail};
use jiff::civil::{DateTime, Time};
use jiff::{Timestamp, Zoned, tz::TimeZone};

fn now() -> Zoned {
    api::wall::now().to_zoned(TimeZone::system())
}

/// The time now, local, with five digits of a second (`precise`) or none.
#[must_use]
pub fn stamp(precise: bool) -> String {
    let now = now();
    let seconds = now.strftime("%Y-%m-%d %H:%M:%S").to_string();
    if precise { format!("{seconds}.{:05}", now.subsec_nanosecond() / 10_000) } else { seconds }
}

/// The local time in one hour, as an example of what to write.
#[must_use]
pub fn in_an_hour() -> String {
    let soon = now().saturating_add(jiff::SignedDuration::from_hours(1));
    soon.strftime("%Y-%m-%dT%H:%M").to_string()
}

/// Reads a time to schedule something at; `now` is `None`. A time without a zone is local.
/// The result is ISO 8601 with an offset.
///
/// # Errors
/// If it is no point in time.
pub fn scheduled(text: Option<&str>) -> anyhow::Result<Option<String>> {
    let Some(text) = text.map(str::trim).filter(|text| !text.is_empty() && *text != "now") else {
        return Ok(None);
    };
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(Some(with_offset(text, time)));
    }
    let local = TimeZone::system();
    let civil = text.replace(' ', "T").parse::<DateTime>().ok();
    let today = || text.parse::<Time>().ok().map(|time| now().date().to_datetime(time));
    match civil.or_else(today).and_then(|at| local.to_zoned(at).ok()) {
        Some(at) => Ok(Some(iso(&at))),
        None => bail!(
            "Unable to parse scheduled timestamp ({text}). It should be in an unambiguous format (e.g. ISO 8601)"
        ),
    }
}

/// Reads a time in the past: a point in time as for [`scheduled`], an hour of the last day, or how long ago.
///
/// # Errors
/// If it is none of these.
pub fn since(text: &str) -> anyhow::Result<Timestamp> {
    let text = text.trim();
    let now = now();
    if let Ok(ago) = text.parse::<jiff::Span>()
        && let Ok(then) = now.checked_sub(ago)
    {
        return Ok(then.timestamp());
    }
    let found = match (text.parse::<Time>(), scheduled(Some(text))) {
        (Ok(hour), _) => {
            let today = TimeZone::system().to_zoned(now.date().to_datetime(hour)).ok();
            let yesterday = |at: Zoned| if at > now { at.yesterday().ok() } else { Some(at) };
            today.and_then(yesterday).map(|at| at.timestamp())
        }
        (_, Ok(Some(at))) => at.parse().ok(),
        _ => None,
    };
    found.with_context(|| {
        format!(
            "{text:?} is no time: write for example 2026-11-20T22:00, 22:00, or how long ago, 90min or 12h"
        )
    })
}

/// A recorded time as people here read it: local, with milliseconds; as it stands if it is no time.
#[must_use]
pub fn local(at: &str) -> String {
    let read = at.parse::<Timestamp>();
    let local =
        read.map(|time| time.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S%.3f").to_string());
    local.unwrap_or_else(|_| at.to_owned())
}

fn iso(at: &Zoned) -> String {
    let micros = at.subsec_nanosecond() / 1000;
    let fraction = if micros == 0 { String::new() } else { format!(".{micros:06}") };
    format!("{}{fraction}{}", at.strftime("%Y-%m-%dT%H:%M:%S"), at.strftime("%:z"))
}

/// Keeps the offset that the text itself names.
fn with_offset(text: &str, time: Timestamp) -> String {
    let offset = jiff::fmt::temporal::Pieces::parse(text).ok().and_then(|pieces| pieces.to_numeric_offset());
    iso(&time.to_zoned(TimeZone::fixed(offset.unwrap_or(jiff::tz::Offset::UTC))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_in_the_past_are_points_hours_or_ages() {
        let now = api::wall::now();
        assert_eq!(since("2026-11-20T09:04Z").unwrap().to_string(), "2026-11-20T09:04:00Z");
        for (text, hours) in [("12h", 12), ("90min", 2), ("2 days", 48), ("00:00", 24), ("23:59", 24)] {
            let age = now.duration_since(since(text).unwrap());
            assert!(age >= jiff::SignedDuration::ZERO - jiff::SignedDuration::from_secs(1), "{text}: {age}");
            assert!(age <= jiff::SignedDuration::from_hours(hours + 1), "{text}: {age}");
        }
        assert!(since("yesterdayish").unwrap_err().to_string().contains("how long ago"));
        assert!(local("2026-11-20T09:04:00.123456+00:00").ends_with(":00.123"));
    }

    #[test]
    fn schedules_are_iso_with_an_offset() {
        assert_eq!(scheduled(Some("now")).unwrap(), None);
        assert_eq!(scheduled(None).unwrap(), None);
        let cases = [
            ("2026-11-20T09:04:00+00:00", "2026-11-20T09:04:00+00:00"),
            ("2026-11-20T09:04Z", "2026-11-20T09:04:00+00:00"),
            ("2026-11-20 09:04:00.5-03:30", "2026-11-20T09:04:00.500000-03:30"),
        ];
        for (given, expected) in cases {
            assert_eq!(scheduled(Some(given)).unwrap().as_deref(), Some(expected), "{given}");
        }
        assert!(scheduled(Some("2099-01-01T10:00")).unwrap().unwrap().starts_with("2099-01-01T10:00:00"));
        assert!(scheduled(Some("10:00")).unwrap().unwrap().contains("T10:00:00"));
        assert!(scheduled(Some("tomorrow")).is_err());
    }
}
