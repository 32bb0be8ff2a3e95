//! Rows of cells in the four formats of patronictl: pretty, tsv, json, yaml.
//! Returns text; whoever calls prints it.

use clap::ValueEnum;
use serde_json::Value;

use crate::table::{self, Align};
use crate::yaml;

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A table for people.
    Pretty,
    /// Tab-separated values, with a line of column names.
    Tsv,
    /// A JSON array of objects.
    Json,
    /// A YAML list of mappings.
    #[value(alias = "yml")]
    Yaml,
}

/// One cell of a row.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// Nothing to say.
    Empty,
    /// Text.
    Text(String),
    /// A whole number.
    Number(i64),
    /// Anything structured.
    Tree(Value),
}

impl Cell {
    /// A cell that is empty if there is no text.
    pub fn text(text: impl Into<String>) -> Self {
        let text = text.into();
        if text.is_empty() { Self::Empty } else { Self::Text(text) }
    }

    fn plain(&self, pretty: bool) -> String {
        match self {
            Self::Empty => String::new(),
            Self::Text(text) => text.clone(),
            Self::Number(number) => number.to_string(),
            Self::Tree(Value::Null) => "None".to_owned(),
            Self::Tree(Value::Bool(true)) => "True".to_owned(),
            Self::Tree(Value::Bool(false)) => "False".to_owned(),
            Self::Tree(Value::Number(number)) => number.to_string(),
            Self::Tree(tree) if pretty => yaml::block(tree).trim().to_owned(),
            Self::Tree(tree) => yaml::flow(tree),
        }
    }

    fn value(&self) -> Value {
        match self {
            Self::Empty => Value::String(String::new()),
            Self::Text(text) => Value::String(text.clone()),
            Self::Number(number) => Value::from(*number),
            Self::Tree(tree) => tree.clone(),
        }
    }
}

/// Rows under named columns.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Sheet {
    /// What stands in the top line of a table.
    pub title: String,
    /// The columns; a name may repeat in tables only.
    pub columns: Vec<String>,
    /// The rows, as wide as `columns`.
    pub rows: Vec<Vec<Cell>>,
    /// Whether json and yaml leave empty cells out.
    pub sparse: bool,
}

impl Sheet {
    /// The whole sheet as text without a last line break; `delimiter` parts the cells of tsv.
    #[must_use]
    pub fn write(&self, format: Format, delimiter: &str) -> String {
        match format {
            Format::Pretty => self.table(true),
            Format::Tsv => self.separated(delimiter),
            Format::Json => self.json(),
            Format::Yaml => {
                let rows = self.rows.iter().map(|row| self.entries(row).collect::<serde_json::Map<_, _>>());
                yaml::block(&Value::Array(rows.map(Value::Object).collect()))
            }
        }
    }

    /// The sheet as a table; `block` writes trees over several lines.
    #[must_use]
    pub fn table(&self, block: bool) -> String {
        let columns: Vec<(String, Align)> =
            self.columns.iter().map(|name| (name.clone(), alignment(name))).collect();
        let rows: Vec<Vec<String>> =
            self.rows.iter().map(|row| row.iter().map(|cell| cell.plain(block)).collect()).collect();
        table::draw(&self.title, &columns, &rows)
    }

    fn separated(&self, delimiter: &str) -> String {
        let head = (!self.columns.is_empty()).then(|| self.columns.join(delimiter));
        let rows = self
            .rows
            .iter()
            .map(|row| row.iter().map(|cell| cell.plain(false)).collect::<Vec<_>>().join(delimiter));
        head.into_iter().chain(rows).collect::<Vec<_>>().join("\n")
    }

    fn entries<'a>(&'a self, row: &'a [Cell]) -> impl Iterator<Item = (String, Value)> + 'a {
        self.columns
            .iter()
            .zip(row)
            .filter(|(_, cell)| !self.sparse || **cell != Cell::Empty)
            .map(|(name, cell)| (name.clone(), cell.value()))
    }

    fn json(&self) -> String {
        let rows = self.rows.iter().map(|row| {
            let fields = self.entries(row).map(|(name, value)| {
                format!("{}: {}", spaced_json(&Value::String(name)), spaced_json(&value))
            });
            format!("{{{}}}", fields.collect::<Vec<_>>().join(", "))
        });
        format!("[{}]", rows.collect::<Vec<_>>().join(", "))
    }
}

fn alignment(column: &str) -> Align {
    match column {
        "TL" | "LSN" | "Receive LSN" | "Replay LSN" | "Lag" | "Group" => Align::Right,
        _ => Align::Left,
    }
}

/// JSON with a space behind commas and colons and nothing but ASCII, as Python writes it.
#[must_use]
pub fn spaced_json(value: &Value) -> String {
    match value {
        Value::Array(list) => {
            format!("[{}]", list.iter().map(spaced_json).collect::<Vec<_>>().join(", "))
        }
        Value::Object(map) => {
            let fields = map
                .iter()
                .map(|(key, v)| format!("{}: {}", spaced_json(&Value::String(key.clone())), spaced_json(v)));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(", "))
        }
        other => other
            .to_string()
            .chars()
            .map(|c| {
                if c.is_ascii() {
                    return c.to_string();
                }
                c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect()
            })
            .collect(),
    }
}
