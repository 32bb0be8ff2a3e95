//! Configuration from environment variables: Patroni's `PATRONI_…` for
//! Patroni's keys, `MATRIARCH_…` for ours (`__` between the parts of a path).
//! Tells which were recognised, so that child processes do not see them.

use std::sync::Arc;

use crate::keys::{self, Reach};
use crate::kind::Kind;
use crate::problem::{Place, Problem};
use crate::tree::{Node, Shape};
use crate::yaml::{self, Source};

/// What the environment says.
pub(crate) struct Environment {
    pub(crate) tree: Node,
    /// `PATRONI_CONFIGURATION`, which stands for the file where there is none.
    pub(crate) whole: Option<String>,
    pub(crate) consumed: Vec<String>,
    pub(crate) problems: Vec<Problem>,
    pub(crate) home: Option<String>,
    pub(crate) host: Option<String>,
}

const PLAIN: &[&str] = &["name", "namespace", "scope", "thread_pool_size", "thread_stack_size"];

const SECTIONS: &[(&str, &[&str])] = &[
    (
        "restapi",
        &[
            "listen",
            "connect_address",
            "certfile",
            "keyfile",
            "keyfile_password",
            "cafile",
            "ciphers",
            "verify_client",
            "http_extra_headers",
            "https_extra_headers",
            "allowlist",
            "allowlist_include_members",
            "request_queue_size",
            "thread_pool_size",
            "server_tokens",
        ],
    ),
    ("ctl", &["insecure", "cacert", "certfile", "keyfile", "keyfile_password"]),
    (
        "postgresql",
        &["listen", "connect_address", "proxy_address", "config_dir", "data_dir", "pgpass", "bin_dir"],
    ),
    (
        "log",
        &[
            "type",
            "level",
            "traceback_level",
            "format",
            "dateformat",
            "static_fields",
            "max_queue_size",
            "dir",
            "mode",
            "file_size",
            "file_num",
            "loggers",
            "deduplicate_heartbeat_logs",
        ],
    ),
    (
        "raft",
        &[
            "data_dir",
            "self_addr",
            "partner_addrs",
            "password",
            "bind_addr",
            "min_timeout",
            "max_timeout",
            "connection_timeout",
            "append_entries_period",
            "connection_retry_time",
            "leader_fallback_timeout",
        ],
    ),
];

const BINARIES: &[&str] =
    &["pg_ctl", "initdb", "pg_controldata", "pg_basebackup", "postgres", "pg_isready", "pg_rewind"];

const CREDENTIALS: &[&str] = &[
    "username",
    "password",
    "sslmode",
    "sslcert",
    "sslkey",
    "sslpassword",
    "sslrootcert",
    "sslcrl",
    "sslcrldir",
    "gssencmode",
    "channel_binding",
    "sslnegotiation",
];

/// Suffixes that make a section of any store (patroni-compat 3.2.1).
const STORE: &[&str] = &[
    "HOST",
    "HOSTS",
    "PORT",
    "USE_PROXIES",
    "PROTOCOL",
    "SRV",
    "SRV_SUFFIX",
    "URL",
    "PROXY",
    "CACERT",
    "CERT",
    "KEY",
    "VERIFY",
    "TOKEN",
    "CHECKS",
    "DC",
    "CONSISTENCY",
    "REGISTER_SERVICE",
    "SERVICE_CHECK_INTERVAL",
    "SERVICE_CHECK_TLS_SERVER_NAME",
    "SERVICE_TAGS",
    "NAMESPACE",
    "CONTEXT",
    "USE_ENDPOINTS",
    "SCOPE_LABEL",
    "ROLE_LABEL",
    "POD_IP",
    "PORTS",
    "LABELS",
    "BYPASS_API_SERVICE",
    "RETRIABLE_HTTP_CODES",
    "KEY_PASSWORD",
    "USE_SSL",
    "SET_ACLS",
    "GROUP",
    "DATABASE",
    "LEADER_LABEL_VALUE",
    "FOLLOWER_LABEL_VALUE",
    "STANDBY_LEADER_LABEL_VALUE",
    "TMP_ROLE_LABEL",
    "AUTH_DATA",
    "BOOTSTRAP_LABELS",
];

/// Reads the environment; variables that mean nothing here are passed over.
pub(crate) fn read(variables: impl Iterator<Item = (String, String)>) -> Environment {
    let mut found = Environment {
        tree: Node::empty(),
        whole: None,
        consumed: Vec::new(),
        problems: Vec::new(),
        home: None,
        host: None,
    };
    let mut variables: Vec<_> = variables.collect();
    variables.sort();
    for (name, value) in variables {
        match name.as_str() {
            "HOME" => found.home = Some(value).filter(|v| !v.is_empty()),
            "HOSTNAME" => found.host = Some(value).filter(|v| !v.is_empty()),
            "PATRONI_CONFIGURATION" | "MATRIARCH_CONFIGURATION" => {
                found.consumed.push(name);
                found.whole = Some(value);
            }
            _ => found.variable(name, &value),
        }
    }
    found
}

impl Environment {
    fn variable(&mut self, name: String, value: &str) {
        let Some(path) = path_of(&name) else { return };
        // An empty variable says nothing, as in Patroni.
        if !value.is_empty() {
            let place = Place::Variable(Arc::from(name.as_str()));
            match self.node(&path, value, &place) {
                Ok(node) => self.tree.put(&path, node),
                Err(problem) => self.problems.push(problem),
            }
        }
        self.consumed.push(name);
    }

    fn node(&self, path: &str, value: &str, place: &Place) -> Result<Node, Problem> {
        let parts: Vec<&str> = path.split('.').collect();
        let normal: Vec<&str> = match parts.split_first() {
            Some((&"etcd", rest)) => [&["etcd3"], rest].concat(),
            _ => parts,
        };
        let kind = keys::find(&normal).map(|key| key.kind);
        match kind {
            Some(Kind::Texts | Kind::Section) => inline(value, '{', '}', path, place),
            // "%(message)s" is a template, anything else a list of fields.
            Some(Kind::Format) if !value.contains("%(") => inline(value, '[', ']', path, place),
            // Quoted or not, with brackets or without; what is no YAML list is text with commas.
            Some(Kind::Names | Kind::Lines) if value.contains(['[', '\n', '\'', '"']) => {
                Ok(inline(value, '[', ']', path, place).unwrap_or_else(|_| Node::text(place, value)))
            }
            _ => Ok(Node::text(place, value)),
        }
    }
}

/// YAML in a variable, with or without its brackets.
fn inline(value: &str, open: char, close: char, path: &str, place: &Place) -> Result<Node, Problem> {
    let trimmed = value.trim();
    let block = open == '[' && trimmed.starts_with('-');
    let text = if block || trimmed.starts_with(open) || (open == '[' && trimmed.contains(open)) {
        trimmed.to_owned()
    } else {
        format!("{open}{trimmed}{close}")
    };
    let Place::Variable(name) = place else { return Ok(Node::text(place, value)) };
    let unreadable = || {
        let found = format!("cannot be read from {name}");
        let advice = if open == '{' { "write {name: value, name: value}" } else { "write [one, two]" };
        Problem::error(place, path, found, advice)
    };
    let (node, _) = yaml::parse(&text, &Source::Variable(name.clone())).map_err(|_| unreadable())?;
    match node.shape {
        Shape::Map(_) | Shape::List(_) => Ok(node),
        _ => Err(unreadable()),
    }
}

/// The variables that stand for one key each, with their keys, for the reference page.
pub(crate) fn variables() -> Vec<(String, String)> {
    let plain = PLAIN.iter().map(|key| (*key).to_owned());
    let sections = SECTIONS.iter().flat_map(|(s, keys)| keys.iter().map(move |key| format!("{s}_{key}")));
    let logins = ["restapi", "ctl", "etcd3"];
    let logins = logins.into_iter().flat_map(|s| [format!("{s}_username"), format!("{s}_password")]);
    let roles = ["superuser", "replication", "rewind"].into_iter();
    let roles = roles.flat_map(|whose| CREDENTIALS.iter().map(move |key| format!("{whose}_{key}")));
    let binaries = BINARIES.iter().map(|name| format!("postgresql_bin_{name}"));
    let store = STORE.iter().map(|suffix| format!("etcd3_{}", suffix.to_ascii_lowercase()));
    let patroni = plain.chain(sections).chain(logins).chain(roles).chain(binaries).chain(store);
    let own = keys::all().filter_map(|key| key.path.strip_prefix("matriarch."));
    patroni
        .map(|name| format!("PATRONI_{}", name.to_ascii_uppercase()))
        .chain(own.map(|name| format!("MATRIARCH_{}", name.to_ascii_uppercase().replace('.', "__"))))
        .filter_map(|name| path_of(&name).map(|path| (name, path)))
        .filter(|(_, path)| keys::find(&path.split('.').collect::<Vec<_>>()).is_some())
        .collect()
}

/// The dotted path that a variable stands for.
fn path_of(name: &str) -> Option<String> {
    if let Some(own) = name.strip_prefix("MATRIARCH_") {
        let path = format!("matriarch.{}", own.to_ascii_lowercase().replace("__", "."));
        let parts: Vec<&str> = path.split('.').collect();
        return keys::find(&parts).filter(|key| key.reach != Reach::Dynamic).map(|_| path);
    }
    let rest = name.strip_prefix("PATRONI_")?;
    match rest {
        "LOGLEVEL" => return Some("log.level".to_owned()),
        "LOGFORMAT" => return Some("log.format".to_owned()),
        "LOG_DATEFMT" => return Some("log.dateformat".to_owned()),
        _ => {}
    }
    let lower = rest.to_ascii_lowercase();
    if PLAIN.contains(&lower.as_str()) {
        return Some(lower);
    }
    section_path(&lower).or_else(|| store_path(rest))
}

fn section_path(lower: &str) -> Option<String> {
    for whose in ["superuser", "replication", "rewind"] {
        let key = lower.strip_prefix(whose).and_then(|r| r.strip_prefix('_'));
        if let Some(key) = key.filter(|key| CREDENTIALS.contains(key)) {
            return Some(format!("postgresql.authentication.{whose}.{key}"));
        }
    }
    for section in ["restapi", "ctl"] {
        let key = lower.strip_prefix(section).and_then(|r| r.strip_prefix('_'));
        if let Some(key) = key.filter(|key| matches!(*key, "username" | "password")) {
            return Some(format!("{section}.authentication.{key}"));
        }
    }
    let binary = lower.strip_prefix("postgresql_bin_");
    if let Some(binary) = binary.map(|b| if b == "is_ready" { "pg_isready" } else { b })
        && BINARIES.contains(&binary)
    {
        return Some(format!("postgresql.bin_name.{binary}"));
    }
    SECTIONS.iter().find_map(|(section, keys)| {
        let key = lower.strip_prefix(section)?.strip_prefix('_')?;
        keys.contains(&key).then(|| format!("{section}.{key}"))
    })
}

fn store_path(rest: &str) -> Option<String> {
    let (store, suffix) = rest.split_once('_')?;
    let login = matches!(store, "ETCD" | "ETCD3") && matches!(suffix, "USERNAME" | "PASSWORD");
    let known =
        matches!(store, "ETCD" | "ETCD3" | "CONSUL" | "ZOOKEEPER" | "EXHIBITOR" | "KUBERNETES" | "CITUS");
    (known && (login || STORE.contains(&suffix)))
        .then(|| format!("{}.{}", store.to_ascii_lowercase(), suffix.to_ascii_lowercase()))
}
