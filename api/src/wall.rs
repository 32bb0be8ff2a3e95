//! The wall clock, for schedules, stamps and nothing else: it steps, so no
//! deadline of the cluster may come from it.

use jiff::Timestamp;
use jiff::fmt::temporal::Pieces;
use jiff::tz::Offset;

/// The time on the wall.
#[must_use]
pub fn now() -> Timestamp {
    Timestamp::now()
}

/// Seconds since 1970, with their fraction.
#[must_use]
pub fn epoch(time: Timestamp) -> f64 {
    time.as_duration().as_secs_f64()
}

/// `2026-11-20T09:04:00.123456+00:00`, as Python's `isoformat` in UTC.
#[must_use]
pub fn iso(time: Timestamp) -> String {
    text(time, Offset::UTC, 'T')
}

/// `2026-11-20 07:00:39.805522+00:00`, as Patroni prints times in JSON.
#[must_use]
pub fn spaced(time: Timestamp) -> String {
    text(time, Offset::UTC, ' ')
}

/// `2026-11-20 07:00:39,805`, as Python's logging prints local time.
#[must_use]
pub fn comma(time: Timestamp) -> String {
    let local = jiff::tz::TimeZone::system().to_datetime(time);
    let clock = format!("{:02}:{:02}:{:02}", local.hour(), local.minute(), local.second());
    format!("{} {clock},{:03}", local.date(), local.millisecond())
}

fn text(time: Timestamp, offset: Offset, between: char) -> String {
    let local = offset.to_datetime(time);
    let micros = local.subsec_nanosecond() / 1000;
    let fraction = if micros == 0 { String::new() } else { format!(".{micros:06}") };
    let seconds = offset.seconds();
    let sign = if seconds < 0 { '-' } else { '+' };
    let (hours, minutes) = (seconds.abs() / 3600, seconds.abs() % 3600 / 60);
    let time = format!("{:02}:{:02}:{:02}", local.hour(), local.minute(), local.second());
    format!("{}{between}{time}{fraction}{sign}{hours:02}:{minutes:02}", local.date())
}

/// Why a text is no time at which something could be scheduled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadSchedule {
    /// It is no time at all.
    #[error("it is no point in time")]
    NotATime,
    /// It does not say in which time zone.
    #[error("it names no time zone")]
    NoZone,
}

/// Reads an ISO 8601 time that names its zone; gives it back with its text as
/// Patroni stores it (`isoformat`, offset kept).
///
/// # Errors
/// [`BadSchedule`] says what is missing.
pub fn schedule(given: &str) -> Result<(Timestamp, String), BadSchedule> {
    let tidy = tidy(given);
    let pieces = Pieces::parse(&tidy).map_err(|_| match tidy.parse::<jiff::civil::Time>() {
        // An hour of some day.
        Ok(_) => BadSchedule::NoZone,
        Err(_) => BadSchedule::NotATime,
    })?;
    let local = pieces.date().to_datetime(pieces.time().unwrap_or_default());
    let (time, offset) = match (pieces.to_numeric_offset(), pieces.to_time_zone()) {
        (Some(offset), _) => (offset.to_timestamp(local).map_err(|_| BadSchedule::NotATime)?, offset),
        (None, Ok(Some(zone))) => {
            let time = zone.to_timestamp(local).map_err(|_| BadSchedule::NotATime)?;
            (time, zone.to_offset(time))
        }
        _ => return Err(BadSchedule::NoZone),
    };
    Ok((time, text(time, offset, 'T')))
}

/// Brings common spellings (`2026-11-20 09:04 +0000`, `... UTC`) into the form that is parsed.
fn tidy(given: &str) -> String {
    let text = given.trim();
    let text = ["UTC", "GMT"]
        .iter()
        .find_map(|zone| text.strip_suffix(zone).map(|rest| format!("{}+00:00", rest.trim_end())))
        .unwrap_or_else(|| text.to_owned());
    let text = text.replace(" +", "+");
    match text.rsplit_once(" -") {
        Some((time, offset)) => format!("{time}-{offset}"),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_keep_their_offset() {
        for (given, kept) in [
            ("2026-11-20T09:04:00+00:00", "2026-11-20T09:04:00+00:00"),
            ("2026-11-20T09:04:00Z", "2026-11-20T09:04:00+00:00"),
            ("2026-11-20 09:04+02:00", "2026-11-20T09:04:00+02:00"),
            ("2026-11-20 09:04:05.25 -0330", "2026-11-20T09:04:05.250000-03:30"),
            ("2026-11-20T09:04 UTC", "2026-11-20T09:04:00+00:00"),
        ] {
            assert_eq!(schedule(given).unwrap().1, kept, "{given}");
        }
        assert_eq!(schedule("2026-11-20T09:04:00"), Err(BadSchedule::NoZone));
        assert_eq!(schedule("2026-11-20"), Err(BadSchedule::NoZone));
        assert_eq!(schedule("09:04"), Err(BadSchedule::NoZone));
        assert_eq!(schedule("tomorrow"), Err(BadSchedule::NotATime));
        assert_eq!(schedule(""), Err(BadSchedule::NotATime));
    }

    /// P085.
    #[test]
    fn times_print_as_python_prints_them() {
        let time: Timestamp = "2026-11-20T07:00:39.805522Z".parse().unwrap();
        assert_eq!(spaced(time), "2026-11-20 07:00:39.805522+00:00");
        assert_eq!(iso("2026-11-20T07:00:39Z".parse().unwrap()), "2026-11-20T07:00:39+00:00");
    }
}
