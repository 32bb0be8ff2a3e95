//! What a cluster is to look like, and the configuration file of each of its nodes.
//!
//! The same file serves matriarch and Patroni: that is the promise under test.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};

use crate::embedded::bind_address;
use crate::net::{ETCD, Net, POSTGRES, RAFT, REST};

/// Password of the superuser `postgres` in every test cluster.
pub const SUPERUSER_PASSWORD: &str = "super-secret";
/// Password of the user `replicator` in every test cluster.
pub const REPLICATION_PASSWORD: &str = "stream-secret";
/// Password of the user `rewinder` in every test cluster.
pub const REWIND_PASSWORD: &str = "rewind-secret";

/// What members of the embedded store share in every test cluster.
pub const STORE_PASSWORD: &str = "store-secret";

/// Where a cluster keeps its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Store {
    /// The nodes keep them themselves.
    Embedded,
    /// One etcd beside them.
    Etcd,
}

impl Store {
    /// The store that the tests of this run are about: etcd, unless `MATRIARCH_TEST_STORE=embedded` wants to know
    /// whether the cluster does without.
    #[must_use]
    pub fn tested() -> Self {
        Self::named().unwrap_or(Self::Etcd)
    }

    /// The store that `MATRIARCH_TEST_STORE` names; etcd if it is not set.
    ///
    /// # Errors
    /// When it names none.
    pub fn named() -> anyhow::Result<Self> {
        match std::env::var("MATRIARCH_TEST_STORE").as_deref() {
            Err(_) | Ok("etcd") => Ok(Self::Etcd),
            Ok("embedded") => Ok(Self::Embedded),
            Ok(other) => anyhow::bail!("MATRIARCH_TEST_STORE is {other:?}: set it to etcd or embedded"),
        }
    }
}

impl std::fmt::Display for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Embedded => "the embedded store",
            Self::Etcd => "etcd",
        })
    }
}

/// The coordinator a node runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Program {
    /// This workspace's daemon.
    Matriarch,
    /// Patroni 4.1.5.
    Patroni,
}

impl Program {
    /// The coordinator that the tests of this run are about: matriarch, unless `MATRIARCH_TEST_PROGRAM=patroni` wants
    /// to know whether a test describes Patroni too.
    #[must_use]
    pub fn tested() -> Self {
        match std::env::var("MATRIARCH_TEST_PROGRAM").as_deref() {
            Ok("patroni") => Self::Patroni,
            _ => Self::Matriarch,
        }
    }

    /// The fastest settings that this program accepts for a failover: Patroni lifts a ttl below 20.
    #[must_use]
    pub fn fastest(self) -> Value {
        match self {
            Self::Matriarch => json!({"ttl": 5, "loop_wait": 1, "retry_timeout": 2}),
            Self::Patroni => json!({"ttl": 20, "loop_wait": 1, "retry_timeout": 3}),
        }
    }
}

impl std::fmt::Display for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Matriarch => "matriarch",
            Self::Patroni => "Patroni",
        })
    }
}

/// What to build: one entry per node, and changes to the usual configuration.
#[derive(Debug, Clone)]
pub struct Spec {
    /// The program of each node; the names are n1, n2, …
    pub nodes: Vec<Program>,
    /// Members of the etcd cluster: 1 or 3; 0 for the embedded store.
    pub etcd: u8,
    /// Whether a relay stands between the members of an embedded store, so that their network can be frozen.
    pub relay: bool,
    /// Whether HAProxy stands in front.
    pub haproxy: bool,
    /// The cluster's name in the store.
    pub scope: String,
    /// Merged into `bootstrap.dcs`; null removes.
    pub dcs: Value,
    /// Merged into each node's file one after the other; null removes.
    pub local: Vec<Value>,
}

impl Spec {
    /// `count` nodes of one program on one etcd, with its fastest settings.
    #[must_use]
    pub fn new(program: Program, count: usize) -> Self {
        Self {
            nodes: vec![program; count],
            etcd: 1,
            relay: false,
            haproxy: false,
            scope: "demo".to_owned(),
            dcs: program.fastest(),
            local: Vec::new(),
        }
    }

    /// `count` nodes of matriarch that keep their store themselves, with its fastest settings but one: ttl 3.
    #[must_use]
    pub fn embedded(count: usize) -> Self {
        let ttl = json!({"ttl": 3, "loop_wait": 1, "retry_timeout": 1});
        Self { etcd: 0, ..Self::new(Program::Matriarch, count) }.dcs(&ttl)
    }

    /// `count` nodes of the program and on the store that the tests of this run are about. What Patroni is part of, or
    /// needs a store apart from the nodes, asks for [`Spec::new`].
    #[must_use]
    pub fn tested(count: usize) -> Self {
        match Program::tested() {
            Program::Matriarch => Self::matriarch(count),
            Program::Patroni => Self::new(Program::Patroni, count),
        }
    }

    /// `count` nodes of matriarch, whatever program the run is about, on the store that it is about, made so that the
    /// store can be frozen.
    #[must_use]
    pub fn matriarch(count: usize) -> Self {
        Self { relay: true, ..Self::on(Store::tested(), Program::Matriarch, count) }
    }

    /// `count` nodes of one program on one of the stores.
    #[must_use]
    pub fn on(store: Store, program: Program, count: usize) -> Self {
        match store {
            Store::Embedded => Self { nodes: vec![program; count], ..Self::embedded(count) },
            Store::Etcd => Self::new(program, count),
        }
    }

    /// Merges further settings into `bootstrap.dcs`.
    #[must_use]
    pub fn dcs(mut self, patch: &Value) -> Self {
        merge(&mut self.dcs, patch);
        self
    }

    /// Merges further settings into the nodes' files.
    #[must_use]
    pub fn local(mut self, patch: &Value) -> Self {
        self.local.push(patch.clone());
        self
    }

    /// Puts HAProxy in front.
    #[must_use]
    pub fn with_haproxy(mut self) -> Self {
        self.haproxy = true;
        self
    }

    /// The configuration of node `index` (0 is n1) as a tree.
    #[must_use]
    pub fn node(&self, index: u8, net: &Net, dir: &Path, bin_dir: &Path) -> Value {
        let name = format!("n{}", index + 1);
        let host = net.address(11 + index);
        let [postgres, rest] = [POSTGRES, REST].map(|port| SocketAddr::from((host, port)).to_string());
        let mut dcs = json!({
            "maximum_lag_on_failover": 1_048_576,
            "postgresql": {
                "use_pg_rewind": true,
                "use_slots": true,
                "parameters": {"max_connections": "50", "wal_keep_size": "64MB"},
            },
        });
        merge(&mut dcs, &self.dcs);
        let mut tree = json!({
            "scope": self.scope,
            "name": name,
            "restapi": {"listen": rest, "connect_address": rest},
            "bootstrap": {
                "dcs": dcs,
                "initdb": [{"encoding": "UTF8"}, {"locale": "C"}, "data-checksums"],
            },
            "postgresql": {
                "listen": postgres,
                "connect_address": postgres,
                "data_dir": dir.join("data"),
                "bin_dir": bin_dir,
                "pgpass": dir.join("pgpass"),
                "authentication": {
                    "superuser": {"username": "postgres", "password": SUPERUSER_PASSWORD},
                    "replication": {"username": "replicator", "password": REPLICATION_PASSWORD},
                    "rewind": {"username": "rewinder", "password": REWIND_PASSWORD},
                },
                "pg_hba": [
                    "local all all trust",
                    "host replication replicator 127.0.0.0/8 scram-sha-256",
                    "host all all 127.0.0.0/8 scram-sha-256",
                ],
                "parameters": {"unix_socket_directories": dir, "shared_buffers": "32MB"},
            },
        });
        merge(&mut tree, &self.store(index, net, dir));
        self.local.iter().for_each(|patch| merge(&mut tree, patch));
        tree
    }

    /// The section that names the store.
    fn store(&self, index: u8, net: &Net, dir: &Path) -> Value {
        if self.etcd > 0 {
            let hosts: Vec<String> = (1..=self.etcd).map(|n| format!("{}:{ETCD}", net.address(n))).collect();
            return json!({"etcd3": {"hosts": hosts}});
        }
        let count = u8::try_from(self.nodes.len()).unwrap_or(u8::MAX);
        let others = (0..count).filter(|other| *other != index).map(|other| store_address(other, net));
        let bind = if self.relay { json!(bind_address(index, net)) } else { Value::Null };
        json!({"raft": {
            "data_dir": dir.join("raft"),
            "self_addr": store_address(index, net),
            "bind_addr": bind,
            "partner_addrs": others.collect::<Vec<_>>(),
            "password": STORE_PASSWORD,
        }})
    }
}

/// Where the member of the embedded store on a node listens.
#[must_use]
pub fn store_address(index: u8, net: &Net) -> String {
    format!("{}:{RAFT}", net.address(11 + index))
}

/// Merges as REST's PATCH does: objects recursively, null removes, anything else replaces.
pub fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        target.clone_from(patch);
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let Some(object) = target.as_object_mut() else { return };
    for (key, change) in changes {
        if change.is_null() {
            object.remove(key);
        } else {
            merge(object.entry(key.clone()).or_insert(Value::Null), change);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merging_adds_replaces_and_removes() {
        let mut tree = json!({"a": {"b": 1, "c": 2}, "d": 3});
        merge(&mut tree, &json!({"a": {"b": null, "e": {"f": 4}}, "d": [5]}));
        assert_eq!(tree, json!({"a": {"c": 2, "e": {"f": 4}}, "d": [5]}));
    }

    #[test]
    fn a_written_file_reads_back_as_the_same_tree() {
        let net = Net::take().unwrap();
        let tree = Spec::new(Program::Patroni, 3).node(0, &net, Path::new("/x"), Path::new("/y"));
        let text = serde_saphyr::to_string(&tree).unwrap();
        let back: Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(back, tree, "{text}");
    }
}
