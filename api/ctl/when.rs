//! Times that people write and read: schedules and stamps, on the wall clock.

use anyhow::bail;
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
