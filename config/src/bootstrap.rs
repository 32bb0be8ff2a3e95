//! How a new cluster begins: the section `bootstrap`. It matters only once,
//! when the store knows no cluster of this name.

use serde_json::Value;

use crate::options::{Arguments, Tool};
use crate::problem::Problem;
use crate::read;
use crate::tree::Node;

/// How the first member gets its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Method {
    /// A new, empty Postgres.
    Initdb,
    /// A command of the operator; its name. Nothing else may be made in its stead.
    Custom(String),
}

/// How a new cluster begins.
#[derive(Debug, Clone, PartialEq)]
pub struct Bootstrap {
    /// The dynamic configuration as it is written, if it is.
    pub dcs: Option<Value>,
    /// How the first member gets its data.
    pub method: Method,
    /// Arguments for initdb.
    pub initdb: Arguments,
    /// Lines appended to pg_hba.conf.
    pub pg_hba: Vec<String>,
    /// A command run once afterwards (`post_bootstrap`, `post_init`).
    pub post_bootstrap: Option<String>,
}

impl Bootstrap {
    pub(crate) fn from_tree(tree: &Node, problems: &mut Vec<Problem>) -> Self {
        let initdb = tree.at("bootstrap.initdb").map(|node| {
            let (arguments, refused) = Arguments::read(node, "bootstrap.initdb", Tool::Initdb);
            problems.extend(refused);
            arguments
        });
        let method = match read::text(tree, "bootstrap.method") {
            Some(name) if name != "initdb" => {
                problems.push(Problem::warning(
                    &tree.place_of("bootstrap.method"),
                    "bootstrap.method",
                    format!("is {name:?}, and matriarch can only begin a cluster with initdb yet"),
                    "this node joins an existing cluster, but never begins one",
                ));
                Method::Custom(name)
            }
            _ => Method::Initdb,
        };
        Self {
            dcs: tree.at("bootstrap.dcs").map(Node::to_json).filter(Value::is_object),
            method,
            initdb: initdb.unwrap_or_default(),
            pg_hba: read::lines(tree, "bootstrap.pg_hba").unwrap_or_default(),
            post_bootstrap: read::text(tree, "bootstrap.post_bootstrap")
                .or_else(|| read::text(tree, "bootstrap.post_init")),
        }
    }
}
