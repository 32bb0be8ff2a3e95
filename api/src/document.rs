//! JSON in the layout that Patroni prints: keys in a chosen order, `", "` between
//! items and `": "` after keys. It formats; it knows no meaning.

use std::fmt::{Display, Write as _};
use std::io;

use serde::Serialize;
use serde_json::Value;
use serde_json::ser::{Formatter, Serializer};

/// An object under construction; keys come out in the order in which they went in.
pub(crate) struct Object(String);

impl Object {
    pub(crate) fn new() -> Self {
        Self("{".to_owned())
    }

    fn key(&mut self, key: &str) {
        if self.0.len() > 1 {
            self.0.push_str(", ");
        }
        self.0.push_str(&quoted(key));
        self.0.push_str(": ");
    }

    /// Adds text that is JSON already.
    pub(crate) fn raw(&mut self, key: &str, json: &str) -> &mut Self {
        self.key(key);
        self.0.push_str(json);
        self
    }

    pub(crate) fn text(&mut self, key: &str, text: &str) -> &mut Self {
        self.raw(key, &quoted(text))
    }

    pub(crate) fn number(&mut self, key: &str, number: impl Display) -> &mut Self {
        self.key(key);
        let _ = write!(self.0, "{number}");
        self
    }

    pub(crate) fn flag(&mut self, key: &str, on: bool) -> &mut Self {
        self.raw(key, if on { "true" } else { "false" })
    }

    /// Adds `"key": true` if it is so, and nothing otherwise.
    pub(crate) fn flag_if(&mut self, key: &str, on: bool) -> &mut Self {
        if on { self.flag(key, true) } else { self }
    }

    pub(crate) fn null(&mut self, key: &str) -> &mut Self {
        self.raw(key, "null")
    }

    pub(crate) fn value(&mut self, key: &str, value: &Value) -> &mut Self {
        self.raw(key, &spaced(value))
    }

    pub(crate) fn finish(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

/// An array of texts that are JSON already.
pub(crate) fn array(items: impl IntoIterator<Item = String>) -> String {
    let mut text = "[".to_owned();
    for item in items {
        if text.len() > 1 {
            text.push_str(", ");
        }
        text.push_str(&item);
    }
    text.push(']');
    text
}

/// `value` with Patroni's separators.
pub(crate) fn spaced(value: &Value) -> String {
    let mut bytes = Vec::new();
    // Writing plain values into memory cannot fail.
    let _ = value.serialize(&mut Serializer::with_formatter(&mut bytes, Spaced));
    String::from_utf8(bytes).unwrap_or_default()
}

/// `text` as a JSON string.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_default()
}

struct Spaced;

impl Spaced {
    fn separate<W: ?Sized + io::Write>(writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }
}

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        Self::separate(writer, first)
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        Self::separate(writer, first)
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}
