//! Durations, sizes, booleans and numbers as Postgres and Patroni write them
//! (`30`, `"10s"`, `"500ms"`, `64MB`, `on`, `yes`, `1_000`). Pure text to value.

use std::time::Duration;

use serde_json::{Number, Value};

/// Reads `on`, `true`, `yes`, `1` and their opposites, in any case.
#[must_use]
pub fn boolean(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "on" | "true" | "yes" | "1" => Some(true),
        "off" | "false" | "no" | "0" => Some(false),
        _ => None,
    }
}

/// Reads a whole number: decimal, `1_000`, `0x1F` or `0o755`; a fraction of zero (`30.0`) is dropped.
#[must_use]
pub fn integer(text: &str) -> Option<i64> {
    let text = text.trim();
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => (-1_i128, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let digits = digits.replace('_', "");
    let magnitude = if let Some(hex) = digits.strip_prefix("0x") {
        parse_radix(hex, 16)?
    } else if let Some(octal) = digits.strip_prefix("0o") {
        parse_radix(octal, 8)?
    } else {
        let whole = match digits.split_once('.') {
            Some((whole, fraction)) if !fraction.is_empty() && fraction.bytes().all(|b| b == b'0') => whole,
            Some(_) => return None,
            None => digits.as_str(),
        };
        parse_radix(whole, 10)?
    };
    i64::try_from(sign * magnitude).ok()
}

/// Reads file permissions: octal whether or not a leading zero says so.
#[must_use]
pub fn permissions(text: &str) -> Option<u32> {
    let digits = text.trim().trim_start_matches("0o");
    u32::try_from(parse_radix(digits, 8)?).ok().filter(|mode| *mode <= 0o777)
}

fn parse_radix(digits: &str, radix: u32) -> Option<i128> {
    let plain = !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix));
    plain.then(|| i128::from_str_radix(digits, radix).ok()).flatten()
}

/// Reads a duration; without a unit it is in seconds. Units: us, ms, s, min, h, d.
#[must_use]
pub fn seconds(text: &str) -> Option<Duration> {
    let (number, unit) = split_unit(text)?;
    let scale = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "min" => 60.0,
        "h" => 3_600.0,
        "d" => 86_400.0,
        _ => return None,
    };
    // Three decades are more than anybody means, and sums of such times never overflow.
    let seconds = number * scale;
    (0.0..1e9).contains(&seconds).then(|| Duration::try_from_secs_f64(seconds).ok()).flatten()
}

/// Reads a size in bytes; without a unit it is in bytes. Units: B, kB, MB, GB, TB, powers of 1024 as in Postgres.
#[must_use]
pub fn bytes(text: &str) -> Option<u64> {
    let (number, unit) = split_unit(text)?;
    let power = match unit {
        "" | "B" => 0,
        "kB" | "KB" | "k" | "K" => 1,
        "MB" | "M" => 2,
        "GB" | "G" => 3,
        "TB" | "T" => 4,
        _ => return None,
    };
    let size = number * 1024_f64.powi(power);
    // Above 2^53 a float no longer tells neighbouring bytes apart.
    (0.0..9.0e15).contains(&size).then_some(size.round() as u64)
}

/// Reads a size like [`bytes`], but a number without a unit counts mebibytes (`wal_keep_size`).
#[must_use]
pub fn mebibytes(text: &str) -> Option<u64> {
    let (number, unit) = split_unit(text)?;
    if unit.is_empty() {
        return (0.0..9.0e9).contains(&number).then_some(number.round() as u64);
    }
    bytes(text).map(|size| size.div_ceil(1024 * 1024))
}

fn split_unit(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '_')).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number = number.replace('_', "").parse::<f64>().ok()?;
    Some((number, unit.trim()))
}

/// A plain scalar as YAML 1.1 reads it, which is how Patroni writes it into the store.
pub(crate) fn yaml_json(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "yes" | "Yes" | "YES" | "on" | "On" | "ON" | "true" | "True" | "TRUE" => return Value::Bool(true),
        "no" | "No" | "NO" | "off" | "Off" | "OFF" | "false" | "False" | "FALSE" => {
            return Value::Bool(false);
        }
        _ => {}
    }
    let unsigned = text.trim_start_matches(['-', '+']);
    let octal =
        unsigned.len() > 1 && unsigned.starts_with('0') && unsigned.bytes().all(|b| b.is_ascii_digit());
    if octal {
        let mode = parse_radix(unsigned, 8).and_then(|n| i64::try_from(n).ok());
        return mode.map_or_else(|| Value::String(text.to_owned()), Value::from);
    }
    if let Some(number) = integer(text).filter(|_| !text.contains('.') && !text.starts_with("0o")) {
        return Value::from(number);
    }
    float(text).map_or_else(|| Value::String(text.to_owned()), Value::Number)
}

/// A plain scalar as JSON only if that keeps its text exactly; otherwise as a string.
pub(crate) fn exact_json(text: &str) -> Value {
    let value = match text {
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        _ => text
            .parse::<i64>()
            .map(Value::from)
            .ok()
            .or_else(|| float(text).map(Value::Number))
            .unwrap_or_default(),
    };
    let written = value.to_string();
    if written == text { value } else { Value::String(text.to_owned()) }
}

fn float(text: &str) -> Option<Number> {
    let first = text.trim_start_matches(['-', '+']).bytes().next()?;
    let numeric = (first.is_ascii_digit() || first == b'.') && text.contains('.');
    numeric.then(|| text.parse::<f64>().ok()).flatten().and_then(Number::from_f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn booleans_are_read_in_every_spelling_patroni_accepts() {
        for text in ["on", "TRUE", "yes", "1"] {
            assert_eq!(boolean(text), Some(true), "{text}");
        }
        for text in ["off", "False", "no", "0"] {
            assert_eq!(boolean(text), Some(false), "{text}");
        }
        assert_eq!(boolean("maybe"), None);
    }

    #[test]
    fn durations_take_postgres_units_and_default_to_seconds() {
        assert_eq!(seconds("30"), Some(Duration::from_secs(30)));
        assert_eq!(seconds("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(seconds("2 min"), Some(Duration::from_secs(120)));
        assert_eq!(seconds("1d"), Some(Duration::from_secs(86_400)));
        assert_eq!(seconds("-1"), None);
        assert_eq!(seconds("fast"), None);
        assert_eq!(seconds("1e400"), None);
        assert_eq!(seconds("99999999999"), None);
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        assert_eq!(bytes("1MB"), Some(1_048_576));
        assert_eq!(bytes("25000000"), Some(25_000_000));
        assert_eq!(mebibytes("128MB"), Some(128));
        assert_eq!(mebibytes("2GB"), Some(2048));
        assert_eq!(mebibytes("256"), Some(256));
        assert_eq!(bytes("1 parsec"), None);
    }

    #[test]
    fn whole_numbers_refuse_fractions_and_words() {
        assert_eq!(integer("1_000"), Some(1000));
        assert_eq!(integer("-1"), Some(-1));
        assert_eq!(integer("30.0"), Some(30));
        assert_eq!(integer("1.5"), None);
        assert_eq!(integer("99999999999999999999"), None);
        assert_eq!(permissions("0640"), Some(0o640));
        assert_eq!(permissions("999"), None);
    }

    #[test]
    fn plain_scalars_become_json_as_in_yaml_1_1() {
        assert_eq!(yaml_json("on"), Value::Bool(true));
        assert_eq!(yaml_json("0755"), Value::from(493));
        assert_eq!(yaml_json("1.10").to_string(), "1.1");
        assert_eq!(yaml_json("16MB"), Value::from("16MB"));
    }

    #[test]
    fn parameters_become_json_only_where_no_text_is_lost() {
        assert_eq!(exact_json("200"), Value::from(200));
        assert_eq!(exact_json("0.9").to_string(), "0.9");
        assert_eq!(exact_json("on"), Value::from("on"));
        assert_eq!(exact_json("0755"), Value::from("0755"));
        assert_eq!(exact_json("1.10"), Value::from("1.10"));
    }
}
