//! How one text is written in YAML: plain, in single quotes, or in double
//! quotes with escapes, as Patroni's YAML library decides it.

/// How a text is written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// As it is.
    Plain,
    /// In single quotes.
    Single,
    /// In double quotes, with escapes.
    Double,
}

/// The simplest style in which `text` is read back as the same text.
#[must_use]
pub fn style(text: &str, flow: bool) -> Style {
    let characters: Vec<char> = text.chars().collect();
    let printable = |c: &char| {
        matches!(c, '\n' | ' '..='~' | '\u{85}' | '\u{A0}'..='\u{D7FF}' | '\u{E000}'..='\u{FFFD}')
            && *c != '\u{FEFF}'
            || *c >= '\u{10000}'
    };
    let breaks = |c: char| matches!(c, '\n' | '\u{85}' | '\u{2028}' | '\u{2029}');
    let pair = |first: fn(char) -> bool, second: fn(char) -> bool| {
        characters.windows(2).any(|w| matches!(w, [a, b] if first(*a) && second(*b)))
    };
    let is_break: fn(char) -> bool = |c| matches!(c, '\n' | '\u{85}' | '\u{2028}' | '\u{2029}');
    if !characters.iter().all(printable) || pair(|c| c == ' ', is_break) || pair(is_break, |c| c == ' ') {
        return Style::Double;
    }
    if text.is_empty()
        || text.starts_with(' ')
        || text.ends_with(' ')
        || characters.iter().any(|c| breaks(*c))
        || has_indicator(&characters, flow)
        || means_something_else(text)
    {
        return Style::Single;
    }
    Style::Plain
}

fn has_indicator(characters: &[char], flow: bool) -> bool {
    let blank = |c: Option<&char>| c.is_none_or(|c| matches!(c, ' ' | '\0' | '\t' | '\r' | '\n'));
    let document = characters.starts_with(&['-', '-', '-']) || characters.starts_with(&['.', '.', '.']);
    document
        || characters.iter().enumerate().any(|(index, c)| {
            let ends_word = blank(characters.get(index + 1));
            match c {
                ':' => flow || ends_word,
                '?' => flow || index == 0 && ends_word,
                '-' => index == 0 && ends_word,
                '#' => index == 0 || blank(characters.get(index - 1)),
                ',' | '[' | ']' | '{' | '}' => flow || index == 0,
                '&' | '*' | '!' | '|' | '>' | '\'' | '"' | '%' | '@' | '`' => index == 0,
                _ => false,
            }
        })
}

/// Whether YAML 1.1 reads the plain text as something that is no text.
fn means_something_else(text: &str) -> bool {
    const WORDS: &[&str] =
        &["yes", "no", "true", "false", "on", "off", "null", ".inf", "-.inf", "+.inf", ".nan"];
    let cased = text.to_lowercase();
    let usual_case = text == cased
        || text == text.to_uppercase()
        || text.chars().skip(1).collect::<String>() == cased.chars().skip(1).collect::<String>();
    if matches!(text, "~" | "=" | "<<") || WORDS.contains(&cased.as_str()) && usual_case {
        return true;
    }
    number(text) || timestamp(text)
}

fn number(text: &str) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let all = |part: &str, of: fn(char) -> bool| !part.is_empty() && part.chars().all(|c| of(c) || c == '_');
    let decimal: fn(char) -> bool = |c| c.is_ascii_digit();
    let leads = digits.starts_with(|c: char| c.is_ascii_digit());
    if let Some(rest) = digits.strip_prefix("0x") {
        return all(rest, |c| c.is_ascii_hexdigit());
    }
    if let Some(rest) = digits.strip_prefix("0b") {
        return all(rest, |c| matches!(c, '0' | '1'));
    }
    if leads && all(digits, decimal) {
        return !digits.starts_with('0')
            || digits.len() == 1
            || digits.chars().all(|c| matches!(c, '0'..='7' | '_'));
    }
    if leads && digits.contains(':') {
        let mut parts = digits.split(':');
        let head = parts.next().unwrap_or_default();
        let sixty = |part: &str| {
            let whole = part.split('.').next().unwrap_or_default();
            (1..=2).contains(&whole.len()) && whole.parse::<u32>().is_ok_and(|n| n < 60)
        };
        return all(head, decimal) && parts.all(sixty);
    }
    let (mantissa, exponent) = digits.split_once(['e', 'E']).unwrap_or((digits, "+0"));
    let signed = exponent.strip_prefix(['-', '+']);
    let exponent_fits = signed.is_some_and(|e| !e.is_empty() && e.chars().all(decimal));
    let Some((whole, part)) = mantissa.split_once('.') else { return false };
    let fits = |p: &str| p.is_empty() || all(p, decimal);
    exponent_fits && fits(part) && (leads && fits(whole) || whole.is_empty() && part.starts_with(decimal))
}

fn timestamp(text: &str) -> bool {
    let bytes = text.as_bytes();
    let digit = |index: usize| bytes.get(index).is_some_and(u8::is_ascii_digit);
    let dated = [0, 1, 2, 3, 5, 6, 8, 9].into_iter().all(digit)
        && bytes.get(4) == Some(&b'-')
        && bytes.get(7) == Some(&b'-');
    if !dated {
        return false;
    }
    let rest = text.get(10..).unwrap_or_default();
    rest.is_empty()
        || rest.starts_with(['T', 't', ' ', '\t'])
            && rest.contains(':')
            && rest.chars().all(|c| {
                c.is_ascii_digit() || matches!(c, ':' | '.' | '+' | '-' | 'Z' | 'T' | 't' | ' ' | '\t')
            })
}

/// The text between double quotes.
#[must_use]
pub fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\0' => out.push_str("\\0"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\u{B}' => out.push_str("\\v"),
            '\u{C}' => out.push_str("\\f"),
            '\r' => out.push_str("\\r"),
            '\u{1B}' => out.push_str("\\e"),
            '\u{85}' => out.push_str("\\N"),
            '\u{2028}' => out.push_str("\\L"),
            '\u{2029}' => out.push_str("\\P"),
            ' '..='~' | '\u{A0}'..='\u{D7FF}' | '\u{E000}'..='\u{FEFE}' | '\u{FF00}'..='\u{FFFD}' => {
                out.push(c);
            }
            c if u32::from(c) <= 0xFF => out.push_str(&format!("\\x{:02X}", u32::from(c))),
            c if u32::from(c) <= 0xFFFF => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push_str(&format!("\\U{:08X}", u32::from(c))),
        }
    }
    out
}
