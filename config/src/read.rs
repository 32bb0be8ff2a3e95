//! Values of a tree that was checked: a value of the wrong kind, already
//! reported, reads as absent.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::Secret;
use crate::quantity;
use crate::tree::{Node, Shape};

pub(crate) fn text(tree: &Node, path: &str) -> Option<String> {
    tree.at(path).and_then(Node::as_text).filter(|t| !t.is_empty()).map(str::to_owned)
}

pub(crate) fn secret(tree: &Node, path: &str) -> Option<Secret> {
    text(tree, path).map(Secret::new)
}

pub(crate) fn path(tree: &Node, path: &str) -> Option<PathBuf> {
    text(tree, path).map(PathBuf::from)
}

pub(crate) fn boolean(tree: &Node, path: &str, default: bool) -> bool {
    tree.at(path).and_then(Node::as_text).and_then(quantity::boolean).unwrap_or(default)
}

pub(crate) fn integer(tree: &Node, path: &str) -> Option<i64> {
    tree.at(path).and_then(Node::as_text).and_then(quantity::integer)
}

pub(crate) fn seconds(tree: &Node, path: &str) -> Option<Duration> {
    tree.at(path).and_then(Node::as_text).and_then(quantity::seconds)
}

pub(crate) fn bytes(tree: &Node, path: &str) -> Option<u64> {
    tree.at(path).and_then(Node::as_text).and_then(quantity::bytes)
}

/// A list, or one text with commas.
pub(crate) fn names(tree: &Node, path: &str) -> Vec<String> {
    let Some(node) = tree.at(path) else { return Vec::new() };
    match &node.shape {
        Shape::List(list) => list.iter().filter_map(Node::as_text).map(str::to_owned).collect(),
        Shape::Text { text, .. } => {
            text.split(',').map(|t| t.trim().to_owned()).filter(|t| !t.is_empty()).collect()
        }
        _ => Vec::new(),
    }
}

/// A list of lines; `None` if it is not there.
pub(crate) fn lines(tree: &Node, path: &str) -> Option<Vec<String>> {
    let list = tree.at(path)?.as_list()?;
    Some(list.iter().filter_map(Node::as_text).map(str::to_owned).collect())
}

/// A map from names to text; nulls are left out.
pub(crate) fn texts(tree: &Node, path: &str) -> BTreeMap<String, String> {
    tree.at(path)
        .map(|node| {
            node.entries()
                .iter()
                .filter_map(|e| Some((e.key.clone(), e.node.as_text()?.to_owned())))
                .collect()
        })
        .unwrap_or_default()
}
