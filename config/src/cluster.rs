//! The settings a cluster shares: the `config` key of the store (Patroni's
//! dynamic configuration, patroni-compat 3.4), typed, ranged and explained.

use serde::{Deserialize, Serialize};
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::check::{self, Checked, Document};
use crate::problem::{Place, Problem, Severity};
use crate::tree::Node;
use crate::{StoreConfig, load, quantity, read, timing};

/// The settings in force for the whole cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClusterConfig {
    /// How long the leader lease lives without renewal (`ttl`, seconds in the store).
    pub ttl: Duration,
    /// The backstop between two turns (`loop_wait`).
    pub loop_wait: Duration,
    /// Bound on store operations other than renewals (`retry_timeout`).
    pub retry_timeout: Duration,
    /// Most bytes a candidate may lack (`maximum_lag_on_failover`).
    pub maximum_lag_on_failover: u64,
    /// Rows kept in `history`; 0 keeps all (`max_timelines_history`).
    pub max_timelines_history: usize,
    /// How long a leader may take to start before it is given up; zero: at once (`primary_start_timeout`).
    pub primary_start_timeout: Duration,
    /// How long a demoting primary may take to stop; zero: no limit (`primary_stop_timeout`).
    pub primary_stop_timeout: Duration,
    /// How long candidates let a primary be that lost the lease while WAL still flows from it; zero: not at
    /// all (`primary_race_backoff`).
    pub primary_race_backoff: Duration,
    /// Whether a candidate on an older timeline is refused (`check_timeline`).
    pub check_timeline: bool,
    /// Whether operators have taken over (`pause`).
    pub pause: bool,
    /// How long the slot of a vanished member is kept (`member_slots_ttl`).
    pub member_slots_ttl: Duration,
    /// Which commits wait for standbys (`synchronous_mode`).
    pub synchronous_mode: SynchronousMode,
    /// Whether commits wait even when nobody can acknowledge (`synchronous_mode_strict`).
    pub synchronous_mode_strict: bool,
    /// How many standbys acknowledge a commit, at least 1 (`synchronous_node_count`).
    pub synchronous_node_count: usize,
    /// Most bytes a synchronous standby may lack; absent: any number (`maximum_lag_on_syncnode`).
    pub maximum_lag_on_syncnode: Option<u64>,
    /// Whether the leader may outlive the store while all members agree (`failsafe_mode`).
    pub failsafe_mode: bool,
    /// A standby cluster's source, if this cluster follows another (`standby_cluster`).
    #[serde(serialize_with = "whether")]
    pub standby_cluster: Option<Value>,
    /// `postgresql.use_pg_rewind`.
    pub use_pg_rewind: bool,
    /// `postgresql.use_slots`.
    pub use_slots: bool,
    /// Safety settings that could not be read and whose last good value is unknown;
    /// a node must not lead on a guess about them.
    pub unreadable: Vec<String>,
    /// The document as it stands in the store. It may hold passwords, so it is left out wherever this is serialized.
    #[serde(skip)]
    pub document: Value,
    /// The document with wrong values replaced by the last good ones; what is not typed above is read from here.
    /// Left out as well wherever this is serialized.
    #[serde(skip)]
    pub in_force: Value,
}

/// Which commits wait for standbys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum SynchronousMode {
    /// None: replication is asynchronous.
    #[default]
    Off,
    /// Named standbys chosen by priority.
    On,
    /// Any n of the candidates.
    Quorum,
}

/// Only whether there is one: it may hold passwords.
fn whether<S: serde::Serializer>(section: &Option<Value>, to: S) -> Result<S::Ok, S::Error> {
    section.as_ref().map(|_| true).serialize(to)
}

/// Settings about which a node must not guess before it leads.
const SAFETY: [&str; 5] = [
    "synchronous_mode",
    "synchronous_mode_strict",
    "failsafe_mode",
    "standby_cluster.host",
    "postgresql.pre_promote",
];

/// The `ttl` that a new cluster is given, in seconds (reliability.md, section 6.5).
const NEW_TTL: u64 = 10;

impl Default for ClusterConfig {
    /// What holds where the document says nothing (patroni-compat 3.4).
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(30),
            loop_wait: Duration::from_secs(10),
            retry_timeout: Duration::from_secs(10),
            maximum_lag_on_failover: 1_048_576,
            max_timelines_history: 0,
            primary_start_timeout: Duration::from_secs(300),
            primary_stop_timeout: Duration::ZERO,
            primary_race_backoff: Duration::ZERO,
            check_timeline: false,
            pause: false,
            member_slots_ttl: Duration::from_secs(1800),
            synchronous_mode: SynchronousMode::Off,
            synchronous_mode_strict: false,
            synchronous_node_count: 1,
            maximum_lag_on_syncnode: None,
            failsafe_mode: false,
            standby_cluster: None,
            use_pg_rewind: false,
            use_slots: true,
            unreadable: Vec::new(),
            document: Value::Object(Map::new()),
            in_force: Value::Object(Map::new()),
        }
    }
}

impl ClusterConfig {
    /// Reads the document in the store; where a value is wrong, its default is in force.
    #[must_use]
    pub fn from_document(document: &Value) -> (Self, Vec<Problem>) {
        // Nothing is known yet, so a promise that cannot be read may have been made.
        let unknown = Self { unreadable: SAFETY.map(str::to_owned).to_vec(), ..Self::default() };
        Self::from_document_after(document, &unknown)
    }

    /// Reads a changed document; where a value is wrong, the last good one stays in force.
    #[must_use]
    pub fn from_document_after(document: &Value, last_good: &Self) -> (Self, Vec<Problem>) {
        if !document.is_object() {
            let found = "is not a JSON object, so nothing in it can be used";
            let advice = "the last good settings stay in force; repair it with matriarchctl edit-config";
            let problem = Problem::warning(&Place::Document, "", found, advice);
            return (Self { document: document.clone(), ..last_good.clone() }, vec![problem]);
        }
        let mut tree = Node::from_json(document, &Place::Document);
        let Checked { mut problems, wrong } = check::check(&tree, Document::Store, &load::methods(&tree));
        let good = Node::from_json(&last_good.in_force, &Place::Document);
        for path in &wrong {
            tree.settle(path, &good);
        }
        let mut config = Self::read(&tree);
        config.document = document.clone();
        config.in_force = tree.to_json();
        let is_wrong = |key: &&String| {
            let covers = |path: &String| *key == path || key.starts_with(&format!("{path}."));
            wrong.iter().map(|path| path.join(".")).any(|path| covers(&path))
        };
        config.unreadable = last_good.unreadable.iter().filter(is_wrong).cloned().collect();
        timing::adjust(&mut config, &tree, "", &mut problems);
        (config, problems)
    }

    /// What the ttl in force costs on this store, if it is short.
    #[must_use]
    pub fn short_ttl(&self, store: &StoreConfig) -> Option<Problem> {
        timing::short_ttl(self.ttl, store.is_embedded(), &Place::Document, "ttl")
    }

    /// The values of known settings in `document` that no node can act on: what should not be
    /// written into the store, where it would be passed over with a warning.
    #[must_use]
    pub fn wrong_values(document: &Value) -> Vec<Problem> {
        let tree = Node::from_json(document, &Place::Document);
        let Checked { mut problems, .. } = check::check(&tree, Document::Bootstrap, &load::methods(&tree));
        problems.retain(|problem| problem.severity == Severity::Error);
        for problem in &mut problems {
            problem.path = problem.path.trim_start_matches("bootstrap.dcs.").to_owned();
        }
        problems
    }

    /// Reads a tree in which every value is of its kind.
    pub(crate) fn read(tree: &Node) -> Self {
        let default = Self::default();
        let seconds = |names: [&str; 2], default: Duration| {
            names.iter().find_map(|name| read::seconds(tree, name)).unwrap_or(default)
        };
        let flag = |name: &str, default: bool| read::boolean(tree, name, default);
        let standby = tree.get("standby_cluster").filter(|section| {
            ["host", "port", "restore_command"].iter().any(|key| read::text(section, key).is_some())
        });
        let history = read::integer(tree, "max_timelines_history").and_then(|n| usize::try_from(n).ok());
        let synchronous = read::text(tree, "synchronous_mode");
        Self {
            ttl: read::seconds(tree, "ttl").map_or(default.ttl, whole),
            loop_wait: read::seconds(tree, "loop_wait").unwrap_or(default.loop_wait),
            retry_timeout: read::seconds(tree, "retry_timeout").unwrap_or(default.retry_timeout),
            maximum_lag_on_failover: read::bytes(tree, "maximum_lag_on_failover")
                .unwrap_or(default.maximum_lag_on_failover),
            max_timelines_history: history.unwrap_or(default.max_timelines_history),
            primary_start_timeout: seconds(
                ["primary_start_timeout", "master_start_timeout"],
                default.primary_start_timeout,
            ),
            primary_stop_timeout: seconds(
                ["primary_stop_timeout", "master_stop_timeout"],
                default.primary_stop_timeout,
            ),
            primary_race_backoff: read::seconds(tree, "primary_race_backoff")
                .unwrap_or(default.primary_race_backoff),
            check_timeline: flag("check_timeline", default.check_timeline),
            pause: flag("pause", default.pause),
            member_slots_ttl: read::seconds(tree, "member_slots_ttl").unwrap_or(default.member_slots_ttl),
            synchronous_mode: synchronous.as_deref().map(synchronous_mode).unwrap_or_default(),
            synchronous_mode_strict: flag("synchronous_mode_strict", default.synchronous_mode_strict),
            synchronous_node_count: read::integer(tree, "synchronous_node_count")
                .and_then(|n| usize::try_from(n).ok())
                .unwrap_or(default.synchronous_node_count)
                .max(1),
            maximum_lag_on_syncnode: read::bytes(tree, "maximum_lag_on_syncnode").filter(|limit| *limit > 0),
            failsafe_mode: flag("failsafe_mode", default.failsafe_mode),
            standby_cluster: standby.map(Node::to_json),
            use_pg_rewind: flag("postgresql.use_pg_rewind", default.use_pg_rewind),
            use_slots: flag("postgresql.use_slots", default.use_slots),
            ..default
        }
    }

    /// The document that a new cluster starts with: `bootstrap.dcs` as it is written, and a `ttl`
    /// of 10 seconds where it gives none.
    #[must_use]
    pub fn default_document(bootstrap_dcs: Option<&Value>) -> Value {
        let mut document = bootstrap_dcs.cloned().filter(Value::is_object).unwrap_or_else(|| json!({}));
        if let Value::Object(map) = &mut document {
            let given = map.get("ttl").is_some_and(|ttl| !ttl.is_null());
            if !given {
                map.insert("ttl".to_owned(), Value::from(NEW_TTL));
            }
        }
        document
    }
}

fn synchronous_mode(text: &str) -> SynchronousMode {
    match quantity::boolean(text) {
        Some(false) => SynchronousMode::Off,
        Some(true) => SynchronousMode::On,
        None => SynchronousMode::Quorum,
    }
}

/// Leases live for whole seconds.
fn whole(ttl: Duration) -> Duration {
    Duration::from_secs(ttl.as_secs())
}
