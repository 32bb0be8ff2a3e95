//! The settings that a node's Postgres runs with: the cluster's dynamic
//! configuration with the node's own on top (patroni-compat 3.1), except for
//! what must be the same on every member.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::options::{Arguments, Tool};
use crate::parameters;
use crate::problem::{Place, Problem, Severity};
use crate::quantity;
use crate::read;
use crate::tree::{Node, Shape};
use crate::{ClusterConfig, Matriarch, NodeConfig};

/// The settings that a node's Postgres runs with.
#[derive(Debug, Clone, PartialEq)]
pub struct Effective {
    /// Everything for postgresql.conf, names in lower case, values as text.
    pub parameters: BTreeMap<String, String>,
    /// The whole of pg_hba.conf, if it is ours to write.
    pub pg_hba: Option<Vec<String>>,
    /// The whole of pg_ident.conf, if it is ours to write.
    pub pg_ident: Option<Vec<String>>,
    /// Recovery parameters of a standby, without those that say whom to follow.
    pub recovery_conf: BTreeMap<String, String>,
    /// Whether a former leader may be rewound.
    pub use_pg_rewind: bool,
    /// Whether members stream through slots.
    pub use_slots: bool,
    /// Further arguments of pg_rewind.
    pub rewind: Arguments,
    /// Further arguments of pg_basebackup.
    pub basebackup: Arguments,
    /// How a replica is made, in order of preference; never empty.
    pub create_replica_methods: Vec<String>,
    /// Commands run on an event (`on_start`, `on_role_change`, …).
    pub callbacks: BTreeMap<String, String>,
    /// A command that must succeed before a promotion.
    pub pre_promote: Option<String>,
    /// A command run before a stop.
    pub before_stop: Option<String>,
    /// How long starting and stopping may take.
    pub pg_ctl_timeout: Duration,
    /// After a failed rewind, the data directory may be moved aside and cloned anew.
    pub remove_data_directory_on_rewind_failure: bool,
    /// A diverged data directory may be moved aside and cloned anew.
    pub remove_data_directory_on_diverged_timelines: bool,
    /// What Patroni does not have; the node's file wins over the cluster's settings.
    pub matriarch: Matriarch,
    /// What was passed over on the way.
    pub warnings: Vec<Problem>,
}

/// Keys of `postgresql` that only a node's own file may say.
const LOCAL_ONLY: &[&str] =
    &["connect_address", "proxy_address", "listen", "config_dir", "data_dir", "pgpass", "authentication"];

impl Effective {
    /// Lays the node's settings over the cluster's, for a server of the given major version (15, say).
    #[must_use]
    pub fn of(node: &NodeConfig, cluster: &ClusterConfig, server_major: u32) -> Self {
        let mut warnings = Vec::new();
        let document = Node::from_json(&cluster.in_force, &Place::Document);
        let mut given = dynamic_parameters(&document, &mut warnings);
        overlay_local(&mut given, &node.postgresql.section);
        let mut recovery_conf = take_recovery(&mut given, &mut warnings);
        let parameters = complete(given, node, server_major, &mut warnings);
        let merged = merged(&document, node);
        for (name, value) in read::texts(&merged, "postgresql.recovery_conf") {
            if !parameters::FOLLOWING.contains(&name.to_ascii_lowercase().as_str()) {
                recovery_conf.insert(name.to_ascii_lowercase(), value);
            }
        }
        let methods = read::names(&merged, "postgresql.create_replica_methods");
        let methods = if methods.is_empty() {
            read::names(&merged, "postgresql.create_replica_method")
        } else {
            methods
        };
        let mut arguments = |key: &str, tool: Tool| {
            let path = format!("postgresql.{key}");
            let Some(section) = merged.at(&path) else { return Arguments::default() };
            let (arguments, refused) = Arguments::read(section, &path, tool);
            warnings.extend(refused.into_iter().map(|p| Problem { severity: Severity::Warning, ..p }));
            arguments
        };
        let mut basebackup = arguments("basebackup", Tool::Basebackup);
        let rewind = arguments("rewind", Tool::Rewind);
        compressible(&mut basebackup, server_major, &mut warnings);
        let flag = |key: &str| read::boolean(&merged, &format!("postgresql.{key}"), false);
        Self {
            pg_hba: unless(&parameters, "hba_file", read::lines(&merged, "postgresql.pg_hba")),
            pg_ident: unless(&parameters, "ident_file", read::lines(&merged, "postgresql.pg_ident")),
            parameters,
            recovery_conf,
            use_pg_rewind: flag("use_pg_rewind"),
            use_slots: cluster.use_slots,
            rewind,
            basebackup,
            create_replica_methods: if methods.is_empty() { vec!["basebackup".to_owned()] } else { methods },
            callbacks: read::texts(&merged, "postgresql.callbacks"),
            pre_promote: read::text(&merged, "postgresql.pre_promote"),
            before_stop: read::text(&merged, "postgresql.before_stop"),
            pg_ctl_timeout: read::seconds(&merged, "postgresql.pg_ctl_timeout")
                .unwrap_or(Duration::from_secs(60)),
            remove_data_directory_on_rewind_failure: flag("remove_data_directory_on_rewind_failure"),
            remove_data_directory_on_diverged_timelines: flag("remove_data_directory_on_diverged_timelines"),
            matriarch: node.matriarch.over(&document),
            warnings,
        }
    }

    /// The arguments with which postgres is started, `--name=value`, sorted.
    #[must_use]
    pub fn command_line(&self) -> Vec<String> {
        self.parameters
            .iter()
            .filter(|(name, _)| parameters::on_command_line(name))
            .map(|(name, value)| format!("--{name}={value}"))
            .collect()
    }

    /// The first absolute path of `unix_socket_directories`: where the own Postgres can be reached.
    #[must_use]
    pub fn socket_dir(&self) -> Option<PathBuf> {
        let list = self.parameters.get("unix_socket_directories")?;
        list.split(',').map(str::trim).find(|dir| dir.starts_with('/')).map(PathBuf::from)
    }
}

/// The command that must succeed before a promotion, if one is asked for.
pub(crate) fn pre_promote(node: &NodeConfig, cluster: &ClusterConfig) -> Option<String> {
    let document = Node::from_json(&cluster.in_force, &Place::Document);
    read::text(&merged(&document, node), "postgresql.pre_promote")
}

/// The section `postgresql` of both documents: outside the parameters a local key replaces the
/// dynamic one as a whole.
fn merged(document: &Node, node: &NodeConfig) -> Node {
    let mut section = document.at("postgresql").cloned().unwrap_or_else(Node::empty);
    for key in LOCAL_ONLY {
        section.take(key);
    }
    for entry in node.postgresql.section.entries() {
        section.set(&entry.key, entry.node.clone());
    }
    let mut merged = Node::empty();
    merged.put("postgresql", section);
    merged
}

/// A file that the operator names is the operator's to write.
fn unless(
    parameters: &BTreeMap<String, String>,
    file: &str,
    lines: Option<Vec<String>>,
) -> Option<Vec<String>> {
    lines.filter(|_| !parameters.contains_key(file))
}

/// A parameter as Postgres reads it.
fn value_of(node: &Node) -> Option<String> {
    match (&node.place, &node.shape) {
        // JSON knows booleans, Postgres writes them on and off.
        (Place::Document, Shape::Text { text, plain: true }) if text == "true" => Some("on".to_owned()),
        (Place::Document, Shape::Text { text, plain: true }) if text == "false" => Some("off".to_owned()),
        _ => node.as_text().map(str::to_owned),
    }
}

fn dynamic_parameters(document: &Node, warnings: &mut Vec<Problem>) -> BTreeMap<String, String> {
    let mut given = BTreeMap::new();
    for entry in document.at("postgresql.parameters").map(Node::entries).unwrap_or_default() {
        let name = entry.key.to_ascii_lowercase();
        let Some(value) = value_of(&entry.node) else { continue };
        match parameters::find(&name) {
            Some(owned) if !owned.accepts.accepts(&value) => {
                let path = format!("postgresql.parameters.{name}");
                warnings.push(owned.refusal(&entry.node.place, &path, &value));
            }
            Some(owned) => {
                given.insert(name, owned.accepts.plainly(value));
            }
            None => {
                given.insert(name, value);
            }
        }
    }
    given
}

/// Parameters of ours in a node's file were reported when it was loaded.
fn overlay_local(given: &mut BTreeMap<String, String>, local: &Node) {
    for entry in local.at("parameters").map(Node::entries).unwrap_or_default() {
        let name = entry.key.to_ascii_lowercase();
        if parameters::is_ours(&name) {
            continue;
        }
        match value_of(&entry.node) {
            Some(value) => given.insert(name, value),
            None => given.remove(&name),
        };
    }
}

/// Moves recovery parameters out of the parameters; those that say whom to follow are ours alone.
fn take_recovery(
    given: &mut BTreeMap<String, String>,
    warnings: &mut Vec<Problem>,
) -> BTreeMap<String, String> {
    for name in parameters::FOLLOWING {
        if given.remove(*name).is_some() {
            warnings.push(Problem::warning(
                &Place::Missing,
                &format!("postgresql.parameters.{name}"),
                "is ignored, because matriarch decides whom to follow",
                "remove it",
            ));
        }
    }
    parameters::RECOVERY.iter().filter_map(|name| Some(((*name).to_owned(), given.remove(*name)?))).collect()
}

/// Adds what is ours: defaults, addresses, names that changed between versions.
fn complete(
    mut given: BTreeMap<String, String>,
    node: &NodeConfig,
    server_major: u32,
    warnings: &mut Vec<Problem>,
) -> BTreeMap<String, String> {
    wal_keep(&mut given, server_major);
    for owned in parameters::OWNED.iter().filter(|o| !o.default.is_empty()) {
        let other_version = matches!(owned.name, "wal_keep_segments" | "wal_keep_size");
        if !other_version {
            given.entry(owned.name.to_owned()).or_insert_with(|| owned.default.to_owned());
        }
    }
    if given.get("wal_level").is_some_and(|level| level == "hot_standby") {
        given.insert("wal_level".to_owned(), "replica".to_owned());
    }
    given.insert("listen_addresses".to_owned(), node.postgresql.listen.listen_addresses());
    given.insert("port".to_owned(), node.postgresql.listen.port.to_string());
    given.insert("cluster_name".to_owned(), node.scope.clone());
    // Every return to writable must pass lease and fencer, so Postgres may not restart itself after a crash.
    let restarts = given.insert("restart_after_crash".to_owned(), "off".to_owned());
    if restarts.is_some_and(|text| quantity::boolean(&text) == Some(true)) {
        warnings.push(Problem::warning(
            &Place::Missing,
            "postgresql.parameters.restart_after_crash",
            "is kept off",
            "matriarch restarts Postgres itself after a crash, once it is sure that this node still leads",
        ));
    }
    for file in ["hba_file", "ident_file"] {
        if let Some(path) = given.get_mut(file) {
            *path = node.postgresql.config_dir.join(&*path).display().to_string();
        }
    }
    given
}

/// Segments became a size in 13; a segment is taken for 16 MB, as in Patroni.
fn wal_keep(given: &mut BTreeMap<String, String>, server_major: u32) {
    let segments = given.remove("wal_keep_segments");
    let size = given.remove("wal_keep_size");
    if server_major >= 13 {
        let from_segments = segments.as_deref().and_then(quantity::integer).unwrap_or(8).saturating_mul(16);
        given.insert("wal_keep_size".to_owned(), size.unwrap_or_else(|| format!("{from_segments}MB")));
    } else {
        let from_size = (size.as_deref().and_then(quantity::mebibytes).unwrap_or(128) + 8) / 16;
        given.insert("wal_keep_segments".to_owned(), segments.unwrap_or_else(|| from_size.to_string()));
    }
}

/// Compression at the client would unpack into the data directory: only the server's is possible, since 15.
fn compressible(arguments: &mut Arguments, server_major: u32, warnings: &mut Vec<Problem>) {
    let refused = arguments.keep_only(|argument| {
        let compresses = argument == "--compress" || argument.starts_with("--compress=");
        !compresses || (server_major >= 15 && argument.starts_with("--compress=server"))
    });
    for argument in refused {
        warnings.push(Problem::warning(
            &Place::Missing,
            "postgresql.basebackup",
            format!("asks for {argument}, which is left out"),
            "write compress: server-gzip (Postgres 15 and later), or remove it",
        ));
    }
}
