//! The section `log`: how this node logs.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::quantity;
use crate::read;
use crate::tree::{Node, Shape};

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogType {
    /// Text.
    #[default]
    Plain,
    /// One JSON object per line.
    Json,
}

/// The least severe level that is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Level {
    /// Everything.
    Debug,
    /// What happens.
    #[default]
    Info,
    /// What should be known.
    Warning,
    /// What failed (`ERROR`, `FATAL`, `CRITICAL`).
    Error,
}

/// What a log line holds (`log.format`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogFormat {
    /// Python's format string, such as `%(asctime)s %(levelname)s: %(message)s`.
    Template(String),
    /// Fields of a JSON line: the attribute and the name it is given.
    Fields(Vec<(String, String)>),
}

/// How this node logs.
#[derive(Debug, Clone, PartialEq)]
pub struct Log {
    /// The format of log lines.
    pub kind: LogType,
    /// The least severe level that is logged.
    pub level: Level,
    /// What a line holds.
    pub format: LogFormat,
    /// How the time is written (strftime).
    pub dateformat: Option<String>,
    /// Fields added to every JSON line.
    pub static_fields: BTreeMap<String, String>,
    /// The directory of `patroni.log`; without it the log goes to stderr.
    pub dir: Option<PathBuf>,
    /// Permissions of the log file.
    pub mode: Option<u32>,
    /// How many rotated files are kept.
    pub file_num: u32,
    /// At which size in bytes the file is rotated.
    pub file_size: u64,
}

/// Patroni's default format.
const TEMPLATE: &str = "%(asctime)s %(levelname)s: %(message)s";

impl Log {
    pub(crate) fn from_tree(tree: &Node) -> Self {
        let kind = match read::text(tree, "log.type").as_deref() {
            Some("json") => LogType::Json,
            _ => LogType::Plain,
        };
        let level = match read::text(tree, "log.level").as_deref() {
            Some("DEBUG") => Level::Debug,
            Some("WARN" | "WARNING") => Level::Warning,
            Some("ERROR" | "FATAL" | "CRITICAL") => Level::Error,
            _ => Level::Info,
        };
        let file_num = read::integer(tree, "log.file_num").and_then(|n| u32::try_from(n).ok());
        Self {
            kind,
            level,
            format: format(tree.at("log.format")),
            dateformat: read::text(tree, "log.dateformat"),
            static_fields: read::texts(tree, "log.static_fields"),
            dir: read::path(tree, "log.dir"),
            mode: read::text(tree, "log.mode").as_deref().and_then(quantity::permissions),
            file_num: file_num.unwrap_or(4),
            file_size: read::bytes(tree, "log.file_size").unwrap_or(25_000_000),
        }
    }
}

fn format(node: Option<&Node>) -> LogFormat {
    match node.map(|n| &n.shape) {
        Some(Shape::Text { text, .. }) if !text.is_empty() => LogFormat::Template(text.clone()),
        Some(Shape::List(list)) => LogFormat::Fields(list.iter().flat_map(field).collect()),
        _ => LogFormat::Template(TEMPLATE.to_owned()),
    }
}

fn field(node: &Node) -> Vec<(String, String)> {
    match &node.shape {
        Shape::Text { text, .. } => vec![(text.clone(), text.clone())],
        _ => node
            .entries()
            .iter()
            .filter_map(|e| Some((e.key.clone(), e.node.as_text()?.to_owned())))
            .collect(),
    }
}
