//! YAML text to a tree with places: the only file that knows the YAML library.
//! The text of every scalar is cut out of the source, so nothing is lost to
//! numbers and booleans on the way.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::options::{DuplicateKeyPolicy, NonFiniteFloatPolicy};
use serde_saphyr::{Location, Spanned};

use crate::problem::{Place, Problem};
use crate::tree::{Entry, Node, Shape};

/// Where the text of a document comes from.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    File(Arc<PathBuf>),
    Variable(Arc<str>),
}

impl Source {
    fn place(&self, location: Location) -> Place {
        match self {
            Self::File(file) => {
                Place::File { file: file.clone(), line: location.line(), column: location.column() }
            }
            Self::Variable(name) => {
                Place::InVariable { name: name.clone(), line: location.line(), column: location.column() }
            }
        }
    }

    fn whole(&self) -> Place {
        match self {
            Self::File(file) => Place::Whole(file.clone()),
            Self::Variable(name) => Place::Variable(name.clone()),
        }
    }
}

/// Parses one document; a key that is written twice is a warning and the last one counts, as in Patroni.
///
/// # Errors
/// The problem that makes the text unreadable.
pub(crate) fn parse(text: &str, source: &Source) -> Result<(Node, Vec<Problem>), Problem> {
    match read(text, DuplicateKeyPolicy::Error) {
        Ok(found) => Ok((plant(found, text, source), Vec::new())),
        Err(error) => match read(text, DuplicateKeyPolicy::LastWins) {
            Ok(found) => Ok((plant(found, text, source), vec![twice(&error, source)])),
            Err(error) => Err(unreadable(text, source, &error)),
        },
    }
}

fn read(text: &str, duplicate_keys: DuplicateKeyPolicy) -> Result<Spanned<Raw>, serde_saphyr::Error> {
    let options = serde_saphyr::options! {
        strict_booleans: true,
        with_snippet: false,
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
        duplicate_keys: duplicate_keys,
    };
    serde_saphyr::from_str_with_options(text, options)
}

fn twice(error: &serde_saphyr::Error, source: &Source) -> Problem {
    let place = error.location().map_or_else(|| source.whole(), |l| source.place(l));
    let message = error.to_string();
    let key = message.split_once("mapping key: ").map_or("", |(_, rest)| rest);
    let key = key.split(',').next().unwrap_or_default();
    Problem::warning(
        &place,
        key,
        "is written twice in the same section",
        "the last one counts: remove the other",
    )
}

fn unreadable(text: &str, source: &Source, error: &serde_saphyr::Error) -> Problem {
    let message = error.to_string();
    let message = message.split(" at line ").next().unwrap_or_default();
    let place = error.location().map_or_else(|| source.whole(), |l| source.place(l));
    let number = error.location().and_then(|l| usize::try_from(l.line()).ok()).unwrap_or(1);
    let line = text.lines().nth(number.saturating_sub(1)).unwrap_or_default();
    // The library may stop at the line before the tab.
    let near = text.lines().enumerate().skip(number.saturating_sub(1)).take(2);
    let tab = near
        .map(|(index, line)| (index + 1, line.trim_start_matches(' ')))
        .find(|(_, l)| l.starts_with('\t'));
    let advice = if let Some((number, _)) = tab {
        format!("YAML is indented with spaces: replace the tab at the beginning of line {number}")
    } else if message.starts_with("multiple YAML documents") {
        "keep one document per file: remove everything from the second --- on".to_owned()
    } else if let Some((key, _)) = line.trim().split_once(':').filter(|(key, _)| key.len() <= 40) {
        // A line may hold a password, so only its key is repeated.
        format!("look at {key:?} and the line above it: quotes, brackets and indentation")
    } else {
        "look at this line and the one above it: quotes, brackets and indentation".to_owned()
    };
    Problem::error(&place, "", format!("this is not YAML: {}", plainly(message)), advice)
}

fn plainly(message: &str) -> &str {
    match message {
        "multiple YAML documents detected; use from_str_multiple or from_str_multiple_with_options" => {
            "the file holds more than one document"
        }
        "cannot deserialize null into string; use Option<String>" => "a key is empty",
        _ => message.split(", set ").next().unwrap_or(message),
    }
}

/// A value as the library gives it; scalars are looked up in the source by their span.
enum Raw {
    Null,
    Text(String),
    Number,
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

fn plant(found: Spanned<Raw>, source_text: &str, source: &Source) -> Node {
    let place = source.place(found.defined);
    let written = slice(source_text, found.defined);
    let shape = match found.value {
        Raw::Null => Shape::Null,
        Raw::Number => Shape::Text { text: written.unwrap_or_default().to_owned(), plain: true },
        Raw::Text(text) => {
            let plain = written == Some(text.as_str()) && !written.is_some_and(looks_numeric);
            Shape::Text { text, plain }
        }
        Raw::List(list) => {
            Shape::List(list.into_iter().map(|item| plant(item, source_text, source)).collect())
        }
        Raw::Map(map) => Shape::Map(
            map.into_iter()
                .map(|(key, value)| Entry {
                    place: source.place(key.defined),
                    key: key.value,
                    node: plant(value, source_text, source),
                })
                .collect(),
        ),
    };
    Node { place, shape }
}

/// A number that arrives as text was tagged `!!str`.
fn looks_numeric(text: &str) -> bool {
    text.parse::<f64>().is_ok()
}

fn slice(text: &str, location: Location) -> Option<&str> {
    let span = location.span();
    let from = usize::try_from(span.byte_offset()?).ok()?;
    let length = usize::try_from(span.byte_len()?).ok()?;
    text.get(from..from.checked_add(length)?)
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }
    fn visit_bool<E>(self, _: bool) -> Result<Raw, E> {
        Ok(Raw::Number)
    }
    fn visit_i64<E>(self, _: i64) -> Result<Raw, E> {
        Ok(Raw::Number)
    }
    fn visit_i128<E>(self, _: i128) -> Result<Raw, E> {
        Ok(Raw::Number)
    }
    fn visit_u64<E>(self, _: u64) -> Result<Raw, E> {
        Ok(Raw::Number)
    }
    fn visit_u128<E>(self, _: u128) -> Result<Raw, E> {
        Ok(Raw::Number)
    }
    fn visit_f64<E>(self, _: f64) -> Result<Raw, E> {
        Ok(Raw::Number)
    }
    fn visit_bytes<E>(self, _: &[u8]) -> Result<Raw, E> {
        Ok(Raw::Number)
    }
    fn visit_str<E>(self, text: &str) -> Result<Raw, E> {
        Ok(Raw::Text(text.to_owned()))
    }
    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }
    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }
    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<Raw, D::Error> {
        Raw::deserialize(inner)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Raw, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Raw::List(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Raw, A::Error> {
        let mut map = Vec::new();
        while let Some(key) = entries.next_key()? {
            map.push((key, entries.next_value()?));
        }
        Ok(Raw::Map(map))
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}
