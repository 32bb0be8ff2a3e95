//! Numbers with Postgres's units, as query parameters and bodies write them
//! (`1MB`, `0x400 kB`, `1.5 min`). Memory units are powers of 1024.

/// Bytes; nothing if the text is no amount of memory.
pub(crate) fn bytes(text: &str) -> Option<i64> {
    let (number, unit) = split(text)?;
    let factor = match unit {
        "" | "B" => 1.0,
        "kB" => 1024.0,
        "MB" => 1_048_576.0,
        "GB" => 1_073_741_824.0,
        "TB" => 1_099_511_627_776.0,
        _ => return None,
    };
    // A float's cast saturates, which is what a limit wants.
    #[allow(clippy::cast_possible_truncation)]
    Some((number * factor).round() as i64)
}

/// Seconds; nothing if the text is no time.
pub(crate) fn seconds(text: &str) -> Option<f64> {
    let (number, unit) = split(text)?;
    let factor = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "min" => 60.0,
        "h" => 3600.0,
        "d" => 86400.0,
        _ => return None,
    };
    Some(number * factor)
}

/// The number at the beginning (decimal, hexadecimal, octal, fraction, exponent), and the unit behind it.
fn split(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    let radix = |digits: &str, radix: u32| -> Option<(f64, usize)> {
        let end = digits.find(|c: char| !c.is_digit(radix)).unwrap_or(digits.len());
        #[allow(clippy::cast_precision_loss)]
        u64::from_str_radix(digits.get(..end)?, radix).ok().map(|n| (n as f64, end))
    };
    if let Some(hex) = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        let (number, end) = radix(hex, 16)?;
        return Some((sign * number, hex.get(end..)?.trim()));
    }
    let end = float_end(digits);
    let (number, unit) = digits.split_at_checked(end)?;
    let octal =
        number.len() > 1 && number.starts_with('0') && number.bytes().all(|b| (b'0'..b'8').contains(&b));
    let number = if octal { radix(number, 8)?.0 } else { number.parse::<f64>().ok()? };
    Some((sign * number, unit.trim()))
}

fn float_end(text: &str) -> usize {
    let bytes = text.as_bytes();
    let digits = |from: usize| bytes.iter().skip(from).take_while(|b| b.is_ascii_digit()).count();
    let mut end = digits(0);
    if bytes.get(end) == Some(&b'.') {
        end += 1 + digits(end + 1);
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        let exponent = digits(end + 1 + sign);
        if exponent > 0 {
            end += 1 + sign + exponent;
        }
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_read_as_postgres_reads_them() {
        for (text, expected) in [
            ("1", Some(1)),
            ("1kB", Some(1024)),
            (" 2 MB ", Some(2_097_152)),
            ("0x10", Some(16)),
            ("010", Some(8)),
            ("1.5GB", Some(1_610_612_736)),
            ("1e3", Some(1000)),
            ("-5", Some(-5)),
            ("1TB", Some(1_099_511_627_776)),
            ("1mb", None),
            ("nonsense", None),
            ("", None),
            ("99999999999999999999TB", Some(i64::MAX)),
        ] {
            assert_eq!(bytes(text), expected, "{text:?}");
        }
    }

    #[test]
    fn seconds_accept_units() {
        assert_eq!(seconds("90"), Some(90.0));
        assert_eq!(seconds("1.5min"), Some(90.0));
        assert_eq!(seconds("100ms"), Some(0.1));
        assert_eq!(seconds("1 fortnight"), None);
    }
}
