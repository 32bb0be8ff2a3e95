//! Options for Postgres's programs, written as a list or a map, turned into
//! arguments; those that would defeat the coordinator are refused.

use crate::problem::{Place, Problem};
use crate::tree::{Node, Shape};

/// Options of initdb that matriarch itself decides (patroni-compat 3.2).
pub(crate) const INITDB: &[&str] = &["pgdata", "nosync", "pwfile", "sync-only", "version"];
/// Options of pg_basebackup that matriarch itself decides (patroni-compat 3.3).
pub(crate) const BASEBACKUP: &[&str] = &[
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
];
/// Options of pg_rewind that matriarch itself decides (patroni-compat 3.3).
pub(crate) const REWIND: &[&str] = &[
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
];

/// The arguments that `node` asks for, and what had to be left out.
pub(crate) fn arguments(
    node: &Node,
    path: &str,
    program: &str,
    forbidden: &[&str],
) -> (Vec<String>, Vec<Problem>) {
    let mut arguments = Vec::new();
    let mut problems = Vec::new();
    for (place, name, value) in pairs(node) {
        let bare = name.split('=').next().unwrap_or_default();
        if name.starts_with('-') {
            let advice = format!("write {:?}", name.trim_start_matches('-'));
            problems.push(Problem::error(place, path, format!("holds {name:?} with its dashes"), advice));
        } else if forbidden.contains(&bare) {
            problems.push(Problem::error(
                place,
                path,
                format!("gives {program} the option {bare}, which matriarch decides itself"),
                "remove it",
            ));
        } else if let Some(value) = value {
            arguments.push(format!("--{name}={}", unquoted(value)));
        } else {
            arguments.push(format!("--{name}"));
        }
    }
    (arguments, problems)
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
