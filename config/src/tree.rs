//! A configuration as it was written: text, lists and maps, each with its
//! place. Nothing is interpreted here, so `0755`, `1.10` and `on` stay exact.

use serde_json::Value;

use crate::problem::Place;
use crate::quantity;

/// One value with the place where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) shape: Shape,
}

/// What a value is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Shape {
    Null,
    /// A scalar exactly as written; `plain` if no quotes forbid to read it as a number or boolean.
    Text {
        text: String,
        plain: bool,
    },
    List(Vec<Node>),
    /// In the order of the file; keys are unique.
    Map(Vec<Entry>),
}

/// One key of a map with its value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) place: Place,
    pub(crate) node: Node,
}

impl Node {
    pub(crate) fn empty() -> Self {
        Self { place: Place::Missing, shape: Shape::Map(Vec::new()) }
    }

    pub(crate) fn text(place: &Place, text: &str) -> Self {
        Self { place: place.clone(), shape: Shape::Text { text: text.to_owned(), plain: true } }
    }

    /// The JSON document `value`, every part of it at `place`.
    pub(crate) fn from_json(value: &Value, place: &Place) -> Self {
        let shape = match value {
            Value::Null => Shape::Null,
            Value::Bool(on) => Shape::Text { text: on.to_string(), plain: true },
            Value::Number(number) => Shape::Text { text: number.to_string(), plain: true },
            Value::String(text) => Shape::Text { text: text.clone(), plain: false },
            Value::Array(list) => Shape::List(list.iter().map(|v| Self::from_json(v, place)).collect()),
            Value::Object(map) => Shape::Map(
                map.iter()
                    .map(|(key, v)| Entry {
                        key: key.clone(),
                        place: place.clone(),
                        node: Self::from_json(v, place),
                    })
                    .collect(),
            ),
        };
        Self { place: place.clone(), shape }
    }

    pub(crate) fn as_text(&self) -> Option<&str> {
        match &self.shape {
            Shape::Text { text, .. } => Some(text),
            _ => None,
        }
    }

    pub(crate) fn is_section(&self) -> bool {
        matches!(self.shape, Shape::Map(_))
    }

    pub(crate) fn as_list(&self) -> Option<&[Self]> {
        match &self.shape {
            Shape::List(list) => Some(list),
            _ => None,
        }
    }

    /// The entries of a map; of anything else none.
    pub(crate) fn entries(&self) -> &[Entry] {
        match &self.shape {
            Shape::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The value under `key`; a null counts as absent, as in Patroni.
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        self.entries().iter().find(|e| e.key == key).map(|e| &e.node).filter(|n| n.shape != Shape::Null)
    }

    /// The value under a dotted path.
    pub(crate) fn at(&self, path: &str) -> Option<&Self> {
        path.split('.').try_fold(self, |node, key| node.get(key))
    }

    /// Where a value under `path` stands, or where the nearest section above it does.
    pub(crate) fn place_of(&self, path: &str) -> Place {
        let mut node = self;
        for key in path.split('.') {
            match node.get(key) {
                Some(next) => node = next,
                None => break,
            }
        }
        node.place.clone()
    }

    /// Puts `value` under a dotted path, making sections on the way.
    pub(crate) fn put(&mut self, path: &str, value: Self) {
        let parts: Vec<&str> = path.split('.').collect();
        self.put_at(&parts, value);
    }

    fn put_at(&mut self, path: &[&str], value: Self) {
        let Some((key, rest)) = path.split_first() else {
            *self = value;
            return;
        };
        if !matches!(self.shape, Shape::Map(_)) {
            self.shape = Shape::Map(Vec::new());
        }
        let Shape::Map(entries) = &mut self.shape else { return };
        if !entries.iter().any(|e| e.key == *key) {
            let place = value.place.clone();
            let node = Self { place: place.clone(), shape: Shape::Null };
            entries.push(Entry { key: (*key).to_owned(), place, node });
        }
        if let Some(entry) = entries.iter_mut().find(|e| e.key == *key) {
            entry.node.put_at(rest, value);
        }
    }

    /// Puts what `good` has under `path` in the place of what is there, or nothing if it has nothing.
    pub(crate) fn settle(&mut self, path: &[String], good: &Self) {
        let parts: Vec<&str> = path.iter().map(String::as_str).collect();
        let replacement = parts.iter().try_fold(good, |node, key| node.get(key)).cloned();
        let place = self.place.clone();
        self.put_at(&parts, replacement.unwrap_or(Self { place, shape: Shape::Null }));
    }

    /// Puts `value` under one key, which may hold dots.
    pub(crate) fn set(&mut self, key: &str, value: Self) {
        self.take(key);
        if let Shape::Map(entries) = &mut self.shape {
            entries.push(Entry { key: key.to_owned(), place: value.place.clone(), node: value });
        }
    }

    /// Takes the value under `key` out of a map.
    pub(crate) fn take(&mut self, key: &str) -> Option<Self> {
        let Shape::Map(entries) = &mut self.shape else { return None };
        let index = entries.iter().position(|e| e.key == key)?;
        Some(entries.remove(index).node)
    }

    /// Merges `over` into this map: maps deeply, anything else replaces, null removes.
    pub(crate) fn merge(&mut self, over: Self) {
        let over_entries = match over.shape {
            Shape::Map(entries) => entries,
            shape => {
                *self = Self { place: over.place, shape };
                return;
            }
        };
        if !matches!(self.shape, Shape::Map(_)) {
            *self = Self { place: over.place, shape: Shape::Map(Vec::new()) };
        }
        let Shape::Map(entries) = &mut self.shape else { return };
        for entry in over_entries {
            let existing = entries.iter().position(|e| e.key == entry.key);
            match (existing.and_then(|i| entries.get_mut(i)), &entry.node.shape) {
                (Some(_), Shape::Null) => entries.retain(|e| e.key != entry.key),
                (Some(old), Shape::Map(_)) if matches!(old.node.shape, Shape::Map(_)) => {
                    old.node.merge(entry.node);
                }
                (Some(old), _) => *old = entry,
                (None, _) => entries.push(entry),
            }
        }
    }

    /// The value as JSON, read as YAML 1.1 does; Postgres parameters stay as they were written.
    pub(crate) fn to_json(&self) -> Value {
        self.json(false)
    }

    fn json(&self, exact: bool) -> Value {
        match &self.shape {
            Shape::Null => Value::Null,
            Shape::Text { text, plain: false } => Value::String(text.clone()),
            Shape::Text { text, plain: true } if exact => quantity::exact_json(text),
            Shape::Text { text, plain: true } => quantity::yaml_json(text),
            Shape::List(list) => Value::Array(list.iter().map(|n| n.json(exact)).collect()),
            Shape::Map(entries) => Value::Object(
                entries
                    .iter()
                    .map(|e| {
                        let exact = exact || e.key == "parameters" || e.key.starts_with("parameters_");
                        (e.key.clone(), e.node.json(exact))
                    })
                    .collect(),
            ),
        }
    }

    /// How the value looks in a message.
    pub(crate) fn shown(&self) -> String {
        match &self.shape {
            Shape::Null => "empty".to_owned(),
            Shape::Text { text, .. } if text.chars().count() > 60 => {
                format!("\"{}…\"", text.chars().take(60).collect::<String>())
            }
            Shape::Text { text, .. } => format!("{text:?}"),
            Shape::List(_) => "a list".to_owned(),
            Shape::Map(_) => "a section".to_owned(),
        }
    }
}
