//! What kind of value a key takes: how one is recognised, and how to say in
//! words what was expected. A kind never knows which key it belongs to.

use crate::address::{Address, Listen};
use crate::quantity;
use crate::tree::{Node, Shape};

/// The type of a key's value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    Text,
    /// Text that no message repeats.
    Secret,
    Path,
    Bool,
    /// A whole number within bounds.
    Integer(i64, i64),
    /// A duration of at least so many seconds.
    Seconds(u64),
    /// A size of at least so many bytes.
    Bytes(u64),
    /// A size of at least 0, or -1 for off.
    BytesOrOff,
    Permissions,
    OneOf(&'static [&'static str]),
    /// A boolean or one of these words.
    BoolOr(&'static [&'static str]),
    /// `host:port`.
    Address,
    /// `addr[,addr]:port`.
    Listen,
    /// A list of texts, or one text with commas.
    Names,
    /// A list of texts, each a line of a file.
    Lines,
    /// Text, or a list.
    Format,
    /// A map from names to scalars.
    Texts,
    /// A list of texts or pairs, or a map: the options of a program.
    Options,
    /// A map with names of its own.
    Section,
    /// The dynamic configuration.
    Dynamic,
    Anything,
}

pub(crate) const ANY_INTEGER: Kind = Kind::Integer(i64::MIN, i64::MAX);
pub(crate) const COUNT: Kind = Kind::Integer(0, i64::MAX);

impl Kind {
    /// Whether a value of this kind may be shown.
    pub(crate) fn is_secret(self) -> bool {
        self == Self::Secret
    }

    /// What in `node` keeps it from being of this kind: the node, and its name if it is one of several.
    pub(crate) fn culprit(self, node: &Node) -> Option<(&Node, Option<&str>)> {
        if self.accepts(node) {
            return None;
        }
        let named = match (self, &node.shape) {
            (Self::Texts, Shape::Map(entries)) => {
                entries.iter().find(|e| !is_scalar(&e.node)).map(|e| (&e.node, Some(e.key.as_str())))
            }
            (Self::Names | Self::Lines, Shape::List(list)) => {
                list.iter().find(|item| item.as_text().is_none()).map(|item| (item, None))
            }
            _ => None,
        };
        Some(named.unwrap_or((node, None)))
    }

    /// Whether `node` is of this kind.
    fn accepts(self, node: &Node) -> bool {
        let text = node.as_text();
        let read = |test: &dyn Fn(&str) -> bool| text.is_some_and(test);
        match self {
            Self::Text | Self::Secret => text.is_some(),
            Self::Path => text.is_some(),
            Self::Bool => read(&|t| quantity::boolean(t).is_some()),
            Self::Integer(low, high) => {
                read(&|t| quantity::integer(t).is_some_and(|n| (low..=high).contains(&n)))
            }
            Self::Seconds(low) => read(&|t| quantity::seconds(t).is_some_and(|d| d.as_secs() >= low)),
            Self::Bytes(low) => read(&|t| quantity::bytes(t).is_some_and(|n| n >= low)),
            Self::BytesOrOff => read(&|t| t.trim() == "-1" || quantity::bytes(t).is_some()),
            Self::Permissions => read(&|t| quantity::permissions(t).is_some()),
            Self::OneOf(words) => read(&|t| words.contains(&t)),
            Self::BoolOr(words) => {
                read(&|t| quantity::boolean(t).is_some() || words.contains(&t.to_ascii_lowercase().as_str()))
            }
            Self::Address => read(&|t| Address::parse(t).is_some()),
            Self::Listen => read(&|t| Listen::parse(t).is_some()),
            Self::Names => text.is_some() || node.as_list().is_some_and(all_texts),
            Self::Lines => node.as_list().is_some_and(all_texts),
            Self::Format => read(&|t| !t.is_empty()) || node.as_list().is_some(),
            Self::Texts => match &node.shape {
                Shape::Map(entries) => entries.iter().all(|e| is_scalar(&e.node)),
                _ => false,
            },
            Self::Options => match &node.shape {
                Shape::Map(entries) => {
                    entries.iter().all(|e| is_scalar(&e.node) || e.node.as_list().is_some())
                }
                Shape::List(list) => list.iter().all(|n| n.as_text().is_some() || n.entries().len() == 1),
                _ => false,
            },
            Self::Section | Self::Dynamic => matches!(node.shape, Shape::Map(_)),
            Self::Anything => true,
        }
    }

    /// What to write, as the rest of "write …".
    pub(crate) fn wanted(self) -> String {
        match self {
            Self::Text => "text, in quotes if in doubt".to_owned(),
            Self::Secret => "text in quotes".to_owned(),
            Self::Path => "an absolute path".to_owned(),
            Self::Bool => "on or off".to_owned(),
            Self::Integer(i64::MIN, i64::MAX) => "a whole number".to_owned(),
            Self::Integer(low, i64::MAX) => format!("a whole number of at least {low}"),
            Self::Integer(low, high) => format!("a whole number from {low} to {high}"),
            Self::Seconds(0) => "seconds such as 10, or a duration such as 10s, 500ms or 2min".to_owned(),
            Self::Seconds(low) => format!("seconds, at least {low}, such as 10 or 10s"),
            Self::Bytes(0) => "bytes such as 1048576, or a size such as 1MB".to_owned(),
            Self::Bytes(low) => format!("a size of at least {low} bytes, such as 1MB"),
            Self::BytesOrOff => "bytes such as 1048576 or 1MB, or -1 to switch it off".to_owned(),
            Self::Permissions => "octal file permissions such as 0644".to_owned(),
            Self::OneOf(words) => format!("one of {}", words.join(", ")),
            Self::BoolOr(words) => format!("on, off or {}", words.join(", ")),
            Self::Address => "host and port such as 10.0.0.1:8008 or [fd00::1]:8008".to_owned(),
            Self::Listen => "addresses and a port such as 0.0.0.0:5432 or 10.0.0.1,127.0.0.1:5432".to_owned(),
            Self::Names => "a list, or one text with commas".to_owned(),
            Self::Lines => "a list of lines, each beginning with a dash".to_owned(),
            Self::Format => "text, or a list of field names for json".to_owned(),
            Self::Texts => "a section of names and plain values".to_owned(),
            Self::Options => "a list of options such as - data-checksums or - encoding: UTF8".to_owned(),
            Self::Section | Self::Dynamic => "a section: indented keys below it".to_owned(),
            Self::Anything => "anything".to_owned(),
        }
    }

    /// What it should be, as the rest of "which is not …".
    pub(crate) fn article(self) -> &'static str {
        match self {
            Self::Text | Self::Secret => "plain text",
            Self::Path => "a path",
            Self::Bool | Self::BoolOr(_) => "a boolean",
            Self::Integer(..) => "a number it can take",
            Self::Seconds(_) => "a duration it can take",
            Self::Bytes(_) | Self::BytesOrOff => "a size it can take",
            Self::Permissions => "a file mode",
            Self::OneOf(_) => "one of its words",
            Self::Address => "a host and a port",
            Self::Listen => "addresses with a port",
            Self::Names | Self::Lines => "a list",
            Self::Format => "a format",
            Self::Texts => "a section of plain values",
            Self::Options => "a list of options",
            Self::Section | Self::Dynamic => "a section",
            Self::Anything => "anything",
        }
    }

    /// The type in the reference page.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Text | Self::Secret => "text".to_owned(),
            Self::Path => "path".to_owned(),
            Self::Bool => "boolean".to_owned(),
            Self::Integer(i64::MIN, i64::MAX) => "number".to_owned(),
            Self::Integer(low, i64::MAX) => format!("number ≥ {low}"),
            Self::Integer(low, high) => format!("number {low}…{high}"),
            Self::Seconds(0) => "duration".to_owned(),
            Self::Seconds(low) => format!("duration ≥ {low} s"),
            Self::Bytes(_) => "size".to_owned(),
            Self::BytesOrOff => "size or -1".to_owned(),
            Self::Permissions => "octal".to_owned(),
            Self::OneOf(words) => words.join(", "),
            Self::BoolOr(words) => format!("boolean, {}", words.join(", ")),
            Self::Address => "host:port".to_owned(),
            Self::Listen => "address[,address]:port".to_owned(),
            Self::Names => "list".to_owned(),
            Self::Lines => "list of lines".to_owned(),
            Self::Format => "text or list".to_owned(),
            Self::Texts => "names and values".to_owned(),
            Self::Options => "options".to_owned(),
            Self::Section => "section".to_owned(),
            Self::Dynamic => "cluster settings".to_owned(),
            Self::Anything => "any".to_owned(),
        }
    }
}

fn is_scalar(node: &Node) -> bool {
    matches!(node.shape, Shape::Null | Shape::Text { .. })
}

fn all_texts(list: &[Node]) -> bool {
    list.iter().all(|node| node.as_text().is_some())
}
