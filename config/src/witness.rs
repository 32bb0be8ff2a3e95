//! What a voter of the embedded store without Postgres needs of a configuration: its section `raft:`, and where
//! to log. A node's own file serves too.

use std::path::Path;

use crate::check::{self, Document};
use crate::log::Log;
use crate::problem::{Place, Problem, Problems};
use crate::tree::Node;
use crate::{RaftConfig, environment, load};

/// How to be a witness.
#[derive(Debug, Clone, PartialEq)]
pub struct WitnessConfig {
    /// The member of the embedded store that it is.
    pub raft: RaftConfig,
    /// Where to log.
    pub log: Log,
    /// What the operator should know.
    pub warnings: Vec<Problem>,
}

/// Reads a file or directory as [`crate::load`] does, but asks only for `raft:`.
///
/// # Errors
/// Every problem of the sections `raft` and `log`, if one of them is an error.
pub fn load_witness(
    path: Option<&Path>,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<WitnessConfig, Problems> {
    let mut problems = Vec::new();
    let tree = load::gather(path, environment::read(environment), &mut problems)?;
    problems.extend(check::check(&tree, Document::Local, &load::methods(&tree)).problems);
    problems.retain(|problem| ["raft", "log"].contains(&problem.path.split('.').next().unwrap_or_default()));
    let config = WitnessConfig {
        raft: RaftConfig::from_tree(&tree, &mut problems),
        log: Log::from_tree(&tree),
        warnings: Vec::new(),
    };
    if tree.get("raft").is_some() && config.raft.self_addr.is_none() {
        problems.push(no_member(&tree, "raft.self_addr"));
    } else if tree.get("raft").is_none() {
        problems = vec![no_member(&tree, "raft")];
    }
    let problems = Problems(problems);
    match problems.any_error() {
        true => Err(problems),
        false => Ok(WitnessConfig { warnings: problems.0, ..config }),
    }
}

fn no_member(tree: &Node, path: &str) -> Problem {
    let place = if tree.get("raft").is_some() { tree.place_of(path) } else { Place::Missing };
    let advice = "write raft: with data_dir, self_addr and, as partner_addrs, the two database hosts";
    Problem::error(&place, path, "is missing, and a witness is only a member of the embedded store", advice)
}
