//! What one node is told: its file and its environment, typed and checked.
//! Made only by [`load`](crate::load); whoever holds one need not check again.

use std::path::{Path, PathBuf};

use crate::address::{Address, Listen};
use crate::bootstrap::Bootstrap;
use crate::log::Log;
use crate::postgres::{LocalPostgres, Places};
use crate::problem::{Place, Problem, Severity};
use crate::quantity;
use crate::read;
use crate::rest::{Ctl, RestApi};
use crate::rules;
use crate::tree::Node;
use crate::{NodeName, StoreConfig, Tags};

/// The configuration of one node.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeConfig {
    /// This node, unique in its cluster.
    pub name: NodeName,
    /// The cluster.
    pub scope: String,
    /// The path above the cluster's keys in the store, as written (default `service`).
    pub namespace: String,
    /// The store.
    pub store: Option<StoreConfig>,
    /// A second store, to or from which the cluster moves.
    pub second_store: Option<StoreConfig>,
    /// The REST interface.
    pub restapi: RestApi,
    /// How REST interfaces are called from here.
    pub ctl: Ctl,
    /// How a new cluster begins.
    pub bootstrap: Bootstrap,
    /// Postgres on this machine.
    pub postgresql: LocalPostgres,
    /// The watchdog.
    pub watchdog: Watchdog,
    /// Tags.
    pub tags: Tags,
    /// Logging.
    pub log: Log,
    /// What Patroni does not have.
    pub matriarch: Matriarch,
}

/// Whether leading needs a watchdog device (`watchdog.mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WatchdogMode {
    /// None is used.
    Off,
    /// One is used if it is there.
    #[default]
    Automatic,
    /// No leading without one.
    Required,
}

/// The watchdog (`watchdog`).
#[derive(Debug, Clone, PartialEq)]
pub struct Watchdog {
    /// Whether leading needs one.
    pub mode: WatchdogMode,
    /// The device.
    pub device: PathBuf,
    /// Seconds before the lease's end at which it fires; -1: half of ttl.
    pub safety_margin: i64,
    /// It is no device but a pipe that is told its timeout in writing (`driver: testing`).
    pub testing: bool,
}

/// How much of a node's decisions is kept unless `matriarch.recorder.size` says otherwise, in bytes.
const RECORDER_SIZE: u64 = 16 << 20;

/// Whether a former leader may be rewound (`matriarch.rewind`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rewind {
    /// Yes, after the WAL that it would lose was copied aside.
    #[default]
    Capsule,
    /// No.
    Never,
}

/// What is kept of the node's decisions (`matriarch.recorder`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorder {
    /// The directory of the files, never within the data directory.
    pub dir: PathBuf,
    /// Bytes of all files together; 0: nothing is kept.
    pub size: u64,
}

/// What Patroni does not have (`matriarch`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matriarch {
    /// Whether a former leader may be rewound.
    pub rewind: Rewind,
    /// This cluster has one member on purpose.
    pub single: bool,
    /// Where data directories are moved that are out of use.
    pub vault_dir: PathBuf,
    /// What is kept of the node's decisions.
    pub recorder: Recorder,
    /// Whether `rewind` and `single` are written in the node's file.
    local: [bool; 2],
}

/// What the machine tells about itself.
pub(crate) struct Machine {
    /// Its name, for addresses that others must reach.
    pub(crate) host: String,
    /// The home directory of the user, if known.
    pub(crate) home: Option<PathBuf>,
}

impl NodeConfig {
    /// Reads a tree; `None` only if an error was added to `problems`.
    pub(crate) fn from_tree(tree: &Node, machine: &Machine, problems: &mut Vec<Problem>) -> Option<Self> {
        let name = name(tree, problems);
        let scope = required(tree, "scope", "the name of the cluster, such as scope: orders", problems);
        let namespace = read::text(tree, "namespace").unwrap_or_else(|| "service".to_owned());
        for (key, text) in [("scope", scope.as_deref()), ("namespace", Some(namespace.as_str()))] {
            if text.is_some_and(|t| t.trim_matches('/').is_empty() || t.chars().any(char::is_control)) {
                let found = "cannot be part of a key in the store";
                problems.push(Problem::error(&tree.place_of(key), key, found, "write a plain word"));
            }
        }
        let store = StoreConfig::from_tree(tree, problems);
        let second_store = StoreConfig::second(tree, problems);
        if store.is_none() && !StoreConfig::is_another(tree) {
            problems.push(Problem::warning(
                &Place::Missing,
                "raft",
                "is missing, and so is etcd3: a node without a store does nothing but wait for one",
                "write raft: with data_dir, self_addr and partner_addrs, or etcd3: with hosts; or matriarch: {single: true} \
                 for a cluster of one member",
            ));
        }
        let bootstrap = Bootstrap::from_tree(tree, problems);
        let rest = rest_addresses(tree, machine, problems);
        let places = places(tree, machine, problems);
        rules::check(tree, problems);
        if problems.iter().any(|p| p.severity == Severity::Error) {
            return None;
        }
        let ((listen, connect_address), places) = (rest?, places?);
        let matriarch = Matriarch::from_tree(tree, &places.data_dir);
        Some(Self {
            name: name?,
            scope: scope?,
            namespace,
            store,
            second_store,
            restapi: RestApi::from_tree(tree, listen, connect_address),
            ctl: Ctl::from_tree(tree),
            bootstrap,
            postgresql: LocalPostgres::from_tree(tree, places),
            watchdog: Watchdog::from_tree(tree),
            tags: Tags::from_tree(tree),
            log: Log::from_tree(tree),
            matriarch,
        })
    }
}

impl Watchdog {
    fn from_tree(tree: &Node) -> Self {
        let mode = read::text(tree, "watchdog.mode").map(|mode| mode.to_ascii_lowercase());
        let mode = match mode.as_deref() {
            Some("required" | "require") => WatchdogMode::Required,
            Some("disable" | "disabled") => WatchdogMode::Off,
            Some(word) if quantity::boolean(word) == Some(false) => WatchdogMode::Off,
            _ => WatchdogMode::Automatic,
        };
        let device = read::path(tree, "watchdog.device").unwrap_or_else(|| "/dev/watchdog".into());
        let safety_margin = read::integer(tree, "watchdog.safety_margin").unwrap_or(5);
        let testing = read::text(tree, "watchdog.driver").as_deref() == Some("testing");
        Self { mode, device, safety_margin, testing }
    }
}

impl Matriarch {
    fn from_tree(tree: &Node, data_dir: &Path) -> Self {
        let beside = |suffix: &str| {
            let mut beside = data_dir.as_os_str().to_owned();
            beside.push(suffix);
            PathBuf::from(beside)
        };
        let vault_dir = read::path(tree, "matriarch.vault_dir").unwrap_or_else(|| beside(".vault"));
        let recorder = Recorder {
            dir: read::path(tree, "matriarch.recorder.dir").unwrap_or_else(|| beside(".turns")),
            size: read::bytes(tree, "matriarch.recorder.size").unwrap_or(RECORDER_SIZE),
        };
        let given = |key: &str| tree.at(&format!("matriarch.{key}")).is_some();
        let local = [given("rewind"), given("single")];
        Self { rewind: Rewind::Capsule, single: false, vault_dir, recorder, local }.with(tree, [false, false])
    }

    /// These settings where they are written in the node's file, else those of the cluster's document.
    pub(crate) fn over(&self, document: &Node) -> Self {
        self.clone().with(document, self.local)
    }

    fn with(mut self, tree: &Node, [keep_rewind, keep_single]: [bool; 2]) -> Self {
        match read::text(tree, "matriarch.rewind").as_deref() {
            _ if keep_rewind => {}
            Some("never") => self.rewind = Rewind::Never,
            _ => self.rewind = Rewind::Capsule,
        }
        if !keep_single {
            self.single = read::boolean(tree, "matriarch.single", false);
        }
        self
    }
}

fn name(tree: &Node, problems: &mut Vec<Problem>) -> Option<NodeName> {
    let text = required(tree, "name", "the name of this node, such as name: db1", problems)?;
    let place = tree.place_of("name");
    if text == "__patroni_strict_sync_replica_placeholder__" {
        let found = "is a name that Patroni reserves";
        problems.push(Problem::error(&place, "name", found, "choose another"));
        return None;
    }
    match NodeName::new(&text) {
        Ok(name) => Some(name),
        Err(bad) => {
            problems.push(Problem::error(&place, "name", bad.to_string(), "write a plain word, such as db1"));
            None
        }
    }
}

fn required(tree: &Node, path: &str, what: &str, problems: &mut Vec<Problem>) -> Option<String> {
    let found = read::text(tree, path);
    // Of the wrong kind: already reported.
    if found.is_none() && tree.at(path).is_none_or(|node| node.as_text().is_some()) {
        let place = tree.place_of(path);
        problems.push(Problem::error(&place, path, "is missing", format!("write {what}")));
    }
    found
}

fn rest_addresses(tree: &Node, machine: &Machine, problems: &mut Vec<Problem>) -> Option<(Address, Address)> {
    let listen = required(tree, "restapi.listen", "for example listen: 0.0.0.0:8008", problems);
    let listen = listen.and_then(|text| Address::parse(&text))?;
    let connect_address = reachable(tree, "restapi", &listen, machine, problems);
    Some((listen, connect_address))
}

/// The address that others use: what is written, else the one listened on, made reachable.
fn reachable(
    tree: &Node,
    section: &str,
    listen: &Address,
    machine: &Machine,
    problems: &mut Vec<Problem>,
) -> Address {
    let path = format!("{section}.connect_address");
    let written = read::text(tree, &path).and_then(|t| Address::parse(&t));
    let (wanted, found) = match written {
        Some(address) if !address.is_any() => return address,
        Some(address) => (address, "means every address, so nobody else can connect to it"),
        None => (listen.clone(), "is missing"),
    };
    let port = wanted.port;
    let host = if wanted.is_any() { machine.host.clone() } else { wanted.host };
    let address = Address { host, port };
    problems.push(Problem::warning(
        &tree.place_of(&path),
        &path,
        format!("{found}; {address} is used"),
        "write the address that the other members reach this node by",
    ));
    address
}

fn places(tree: &Node, machine: &Machine, problems: &mut Vec<Problem>) -> Option<Places> {
    let listen = required(tree, "postgresql.listen", "for example listen: 0.0.0.0:5432", problems);
    let listen = listen.and_then(|text| Listen::parse(&text));
    let what = "where Postgres keeps its data, such as data_dir: /var/lib/postgresql/data";
    let written = required(tree, "postgresql.data_dir", what, problems).map(PathBuf::from);
    let connect_address = listen.as_ref().map(|listen| {
        let from = Address { host: listen.published_host().to_owned(), port: listen.port };
        reachable(tree, "postgresql", &from, machine, problems)
    });
    let data_dir = written.map(|written| {
        let absolute = std::path::absolute(&written).unwrap_or_else(|_| written.clone());
        // Without a slash at its end, so that names beside it can be made from it.
        let absolute: PathBuf = absolute.components().collect();
        if !written.is_absolute() {
            problems.push(Problem::warning(
                &tree.place_of("postgresql.data_dir"),
                "postgresql.data_dir",
                format!("is relative; {} is used", absolute.display()),
                "write the absolute path, so that it does not depend on where the daemon is started",
            ));
        }
        absolute
    });
    Some(Places {
        listen: listen?,
        connect_address: connect_address?,
        data_dir: data_dir?,
        home: machine.home.clone(),
    })
}
