//! Safety promises that an operator asked for and that this version cannot
//! keep. While there is one, the node only follows: it publishes nofailover
//! and nosync, and never takes the leader key.

use crate::effective;
use crate::{ClusterConfig, NodeConfig};

/// Why this node must only follow; empty if it may lead.
#[must_use]
pub fn withheld(node: &NodeConfig, cluster: &ClusterConfig) -> Vec<String> {
    let mut reasons = Vec::new();
    let mut asked = |key: &str, promise: &str| {
        reasons.push(format!("{key} is set, and this version cannot promise that {promise}"));
    };
    if cluster.standby_cluster.is_some() {
        asked("standby_cluster", "the leader follows the other cluster and stays read-only");
    }
    if effective::pre_promote(node, cluster).is_some() {
        asked("postgresql.pre_promote", "it succeeds before a promotion");
    }
    for key in &cluster.unreadable {
        reasons.push(format!("{key} cannot be read, so it is not known what it promises; correct it"));
    }
    reasons
}
