//! Options for Postgres's programs, written as a list or a map, turned into
//! arguments; those that would defeat the coordinator are refused.

use crate::problem::{Place, Problem};
use crate::tree::{Node, Shape};

/// A program of Postgres's that operators may give options to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// initdb.
    Initdb,
    /// pg_basebackup.
    Basebackup,
    /// pg_rewind.
    Rewind,
}

impl Tool {
    fn name(self) -> &'static str {
        match self {
            Self::Initdb => "initdb",
            Self::Basebackup => "pg_basebackup",
            Self::Rewind => "pg_rewind",
        }
    }

    /// The options that matriarch itself decides (patroni-compat 3.2, 3.3).
    fn decided(self) -> &'static [&'static str] {
        match self {
            Self::Initdb => &["pgdata", "nosync", "pwfile", "sync-only", "version"],
            Self::Basebackup => &[
                "pgdata",
                "format",
                "wal-method",
                "xlog-method",
                "gzip",
                "version",
                "dbname",
                "host",
                "port",
                "username",
                "password",
            ],
            Self::Rewind => &[
                "target-pgdata",
                "source-pgdata",
                "source-server",
                "write-recovery-conf",
                "dry-run",
                "restore-target-wal",
                "config-file",
                "no-ensure-shutdown",
                "version",
                "help",
            ],
        }
    }
}

/// An operator's arguments for one of Postgres's programs, `--name` or `--name=value`. None of them is
/// matriarch's to decide: they are made only here, where those are left out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Arguments(Vec<String>);

impl Arguments {
    /// The arguments that a list or a map of options means, and what had to be left out.
    #[must_use]
    pub fn of(tool: Tool, options: &serde_json::Value) -> (Self, Vec<Problem>) {
        Self::read(&Node::from_json(options, &Place::Document), tool.name(), tool)
    }

    /// The same, of a section at `path` of a document.
    pub(crate) fn read(node: &Node, path: &str, tool: Tool) -> (Self, Vec<Problem>) {
        let mut arguments = Vec::new();
        let mut problems = Vec::new();
        for (place, name, value) in pairs(node) {
            let bare = name.split('=').next().unwrap_or_default();
            if name.starts_with('-') {
                let advice = format!("write {:?}", name.trim_start_matches('-'));
                problems.push(Problem::error(place, path, format!("holds {name:?} with its dashes"), advice));
            } else if tool.decided().contains(&bare) {
                problems.push(Problem::error(
                    place,
                    path,
                    format!("gives {} the option {bare}, which matriarch decides itself", tool.name()),
                    "remove it",
                ));
            } else if let Some(value) = value {
                arguments.push(format!("--{name}={}", unquoted(value)));
            } else {
                arguments.push(format!("--{name}"));
            }
        }
        (Self(arguments), problems)
    }

    /// The arguments, in the order in which they were written.
    #[must_use]
    pub fn as_slice(&self) -> &[String] {
        &self.0
    }

    /// Whether one of them is this option.
    #[must_use]
    pub fn give(&self, option: &str) -> bool {
        let names = self.0.iter().filter_map(|argument| argument.strip_prefix("--")?.split('=').next());
        names.into_iter().any(|name| name == option)
    }

    /// Leaves out those that do not pass; returns them.
    pub(crate) fn keep_only(&mut self, passes: impl Fn(&str) -> bool) -> Vec<String> {
        let (kept, refused) = std::mem::take(&mut self.0).into_iter().partition(|one| passes(one));
        self.0 = kept;
        refused
    }
}

fn pairs(node: &Node) -> Vec<(&Place, &str, Option<&str>)> {
    match &node.shape {
        Shape::List(list) => list
            .iter()
            .flat_map(|item| match &item.shape {
                Shape::Text { text, .. } => vec![(&item.place, text.as_str(), None)],
                _ => pairs(item),
            })
            .collect(),
        Shape::Map(entries) => entries
            .iter()
            .flat_map(|entry| match entry.node.as_list() {
                // The same option several times, such as tablespace-mapping.
                Some(list) => list
                    .iter()
                    .filter_map(|item| Some((&item.place, entry.key.as_str(), Some(item.as_text()?))))
                    .collect(),
                None => vec![(&entry.place, entry.key.as_str(), entry.node.as_text())],
            })
            .collect(),
        _ => Vec::new(),
    }
}

/// Quotes around a value are meant for a shell that is not there.
fn unquoted(value: &str) -> &str {
    let inside = |quote| value.strip_prefix(quote).and_then(|v: &str| v.strip_suffix(quote));
    inside('"').or_else(|| inside('\'')).unwrap_or(value)
}
