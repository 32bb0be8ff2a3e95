//! Tags: what an operator says about one node (patroni-compat 5.17).
//! Known tags are typed; any other is kept as it was written and published.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::NodeName;
use crate::quantity;
use crate::read;
use crate::tree::Node;

/// The tags of one node, as they steer decisions.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tags {
    /// Never becomes leader (`nofailover`, or `failover_priority` of 0 and below).
    pub nofailover: bool,
    /// Breaks ties between candidates with equal positions; higher wins, default 1.
    pub failover_priority: Option<i64>,
    /// Not counted as a read replica by load balancers.
    pub noloadbalance: bool,
    /// Preferred source for clones.
    pub clonefrom: bool,
    /// Never a synchronous standby.
    pub nosync: bool,
    /// Preference as a synchronous standby; higher wins, default 1.
    pub sync_priority: Option<i64>,
    /// Streams from this member rather than from the leader.
    pub replicatefrom: Option<NodeName>,
    /// Does not stream at all.
    pub nostream: bool,
    /// Every tag as it was written, in published form (5.17's filter applied).
    pub published: BTreeMap<String, serde_json::Value>,
}

/// Left out of the published tags where they are off.
const QUIET: &[&str] = &["clonefrom", "nofailover", "noloadbalance", "nosync", "nostream"];

impl Tags {
    /// Reads the section `tags` of a checked tree.
    pub(crate) fn from_tree(tree: &Node) -> Self {
        let on = |name: &str| read::boolean(tree, &format!("tags.{name}"), false);
        let priority = |name: &str| read::integer(tree, &format!("tags.{name}"));
        let given = |name: &str| tree.at("tags").is_some_and(|t| t.get(name).is_some());
        // A written boolean wins over the priority, as in Patroni.
        let never = |flag: &str, rank: &str| {
            if given(flag) { on(flag) } else { priority(rank).is_some_and(|p| p <= 0) }
        };
        let published = tree.at("tags").map(Node::entries).unwrap_or_default().iter().filter(|entry| {
            let off =
                entry.node.as_text().is_none_or(|t| quantity::boolean(t) == Some(false) || t.is_empty());
            let contradicted = (entry.key == "nofailover" && given("failover_priority"))
                || (entry.key == "nosync" && given("sync_priority"));
            !QUIET.contains(&entry.key.as_str()) || !off || contradicted
        });
        Self {
            nofailover: never("nofailover", "failover_priority"),
            failover_priority: priority("failover_priority"),
            noloadbalance: on("noloadbalance"),
            clonefrom: on("clonefrom"),
            nosync: never("nosync", "sync_priority"),
            sync_priority: priority("sync_priority"),
            replicatefrom: read::text(tree, "tags.replicatefrom").and_then(|t| NodeName::new(&t).ok()),
            nostream: on("nostream"),
            published: published.map(|e| (e.key.clone(), publishable(&e.key, &e.node))).collect(),
        }
    }

    /// The tie-breaker between candidates: at least 0, and 0 if this node must never lead.
    #[must_use]
    pub fn priority(&self) -> i64 {
        if self.nofailover { 0 } else { self.failover_priority.unwrap_or(1).max(0) }
    }

    /// Whether this node may become leader at all.
    #[must_use]
    pub fn may_lead(&self) -> bool {
        !self.nofailover
    }
}

fn publishable(name: &str, node: &Node) -> serde_json::Value {
    let flag = QUIET.contains(&name).then(|| node.as_text().and_then(quantity::boolean)).flatten();
    flag.map_or_else(|| node.to_json(), serde_json::Value::Bool)
}
