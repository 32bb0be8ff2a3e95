//! Which store a node uses and how to reach it (`etcd:` and `etcd3:` both mean the v3 API).

use std::path::PathBuf;

use crate::RaftConfig;
use crate::Secret;
use crate::problem::{Place, Problem};
use crate::read;
use crate::tree::Node;

/// The store that a node's file names.
#[derive(Debug, Clone, PartialEq)]
pub enum StoreConfig {
    /// etcd, v3 API.
    Etcd(EtcdConfig),
    /// The embedded store: members of the cluster keep it themselves (`raft:`).
    Raft(RaftConfig),
}

/// How to reach etcd.
#[derive(Debug, Clone, PartialEq)]
pub struct EtcdConfig {
    /// Where the members are.
    pub endpoints: Endpoints,
    /// User and password, if etcd asks for them.
    pub user: Option<(String, Secret)>,
    /// The authority that signed the servers' certificates; TLS is used if the scheme is https.
    pub cacert: Option<PathBuf>,
    /// The client's certificate.
    pub cert: Option<PathBuf>,
    /// The client's key.
    pub key: Option<PathBuf>,
}

/// Where etcd's members are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoints {
    /// URLs such as `http://10.0.0.1:2379` (`host`, `hosts`, `url`, `protocol`, `port`).
    /// With `fixed`, other members that the cluster advertises are not used (`use_proxies`, `proxy`).
    Listed {
        /// The URLs.
        urls: Vec<String>,
        /// Only these, never the advertised ones.
        fixed: bool,
    },
    /// A DNS SRV record to resolve (`srv`, `srv_suffix`).
    Srv {
        /// The domain.
        domain: String,
        /// The optional suffix of the service name.
        suffix: Option<String>,
    },
}

/// The stores that Patroni knows and matriarch does not.
const OTHERS: &[(&str, &str)] = &[
    ("consul", "Consul"),
    ("zookeeper", "ZooKeeper"),
    ("exhibitor", "Exhibitor"),
    ("kubernetes", "Kubernetes"),
];

/// Where etcd is looked for if nothing else is said.
const DEFAULT_URL: &str = "http://127.0.0.1:2379";

impl StoreConfig {
    /// Reads the section that names the store. Where there is none, a cluster that has one member on purpose
    /// (`matriarch.single`) keeps an embedded store of its own; any other has no store: several copies of one
    /// file must never become several clusters.
    pub(crate) fn from_tree(tree: &Node, problems: &mut Vec<Problem>) -> Option<Self> {
        let others: Vec<_> = OTHERS.iter().filter(|(key, _)| tree.get(key).is_some()).collect();
        let section = ["etcd3", "etcd", "raft"].into_iter().find(|key| tree.get(key).is_some());
        for (key, name) in others {
            let place = tree.place_of(key);
            problems.push(if section.is_some() {
                let found = "is ignored, because this file also names a store that matriarch supports";
                Problem::warning(&place, key, found, "remove the one that is not meant")
            } else {
                Problem::error(
                    &place,
                    key,
                    format!("asks for {name} as the store, which matriarch does not support"),
                    "write raft: with self_addr and partner_addrs, or run an etcd cluster and write etcd3: with hosts: [host1:2379, host2:2379, host3:2379]",
                )
            });
        }
        if section.is_some_and(|section| section != "raft") && tree.get("raft").is_some() {
            problems.push(Problem::warning(
                &tree.place_of("raft"),
                "raft",
                "names a second store beside etcd, which is for moving between them: the cluster's records say which is in use",
                "remove the one that the cluster does not live in, unless it is about to move (matriarchctl store move)",
            ));
        }
        match section {
            Some("raft") => Some(Self::Raft(RaftConfig::from_tree(tree, problems))),
            Some(section) => Some(Self::Etcd(EtcdConfig::from_section(tree, section, problems))),
            None if read::boolean(tree, "matriarch.single", false) => {
                RaftConfig::single(tree).map(Self::Raft)
            }
            None => None,
        }
    }

    /// The store that the file names beside the first: the embedded one beside etcd. Between the two a cluster moves.
    pub(crate) fn second(tree: &Node, problems: &mut Vec<Problem>) -> Option<Self> {
        if ["etcd3", "etcd"].into_iter().all(|key| tree.get(key).is_none()) {
            return None;
        }
        match tree.get("raft") {
            Some(_) => Some(Self::Raft(RaftConfig::from_tree(tree, problems))),
            None if read::boolean(tree, "matriarch.single", false) => {
                RaftConfig::single(tree).map(Self::Raft)
            }
            None => None,
        }
    }

    /// The section that describes it: what a store is called where clusters move between stores.
    #[must_use]
    pub fn section(&self) -> &'static str {
        match self {
            Self::Etcd(_) => "etcd3",
            Self::Raft(_) => "raft",
        }
    }

    /// Whether the file asks for a store that matriarch does not support.
    pub(crate) fn is_another(tree: &Node) -> bool {
        OTHERS.iter().any(|(key, _)| tree.get(key).is_some())
    }

    /// etcd on this machine, where the command line program looks if nothing is said.
    pub(crate) fn on_this_machine(problems: &mut Vec<Problem>) -> Self {
        problems.push(Problem::warning(
            &Place::Missing,
            "etcd3",
            format!("is missing, and so is raft: the store is looked for at {DEFAULT_URL}"),
            "write raft: with partner_addrs, or etcd3: with hosts: [host1:2379, host2:2379, host3:2379]",
        ));
        Self::Etcd(EtcdConfig::at(vec![DEFAULT_URL.to_owned()]))
    }

    /// Whether the members of the cluster keep the store themselves.
    #[must_use]
    pub fn is_embedded(&self) -> bool {
        matches!(self, Self::Raft(_))
    }

    /// etcd at another URL: credentials and certificates stay.
    pub(crate) fn at(&self, url: String) -> Self {
        let etcd = match self {
            Self::Etcd(etcd) => etcd.clone(),
            Self::Raft(_) => EtcdConfig::at(Vec::new()),
        };
        Self::Etcd(EtcdConfig { endpoints: Endpoints::Listed { urls: vec![url], fixed: false }, ..etcd })
    }
}

impl EtcdConfig {
    fn at(urls: Vec<String>) -> Self {
        Self {
            endpoints: Endpoints::Listed { urls, fixed: false },
            user: None,
            cacert: None,
            cert: None,
            key: None,
        }
    }

    fn from_section(tree: &Node, section: &str, problems: &mut Vec<Problem>) -> Self {
        let at = |key: &str| format!("{section}.{key}");
        let cacert = read::path(tree, &at("cacert"));
        let user = match (read::text(tree, &at("username")), read::secret(tree, &at("password"))) {
            (Some(user), Some(password)) => Some((user, password)),
            (Some(_), None) => {
                let found = "has a username and no password";
                problems.push(Problem::error(
                    &tree.place_of(section),
                    section,
                    found,
                    "write the password too",
                ));
                None
            }
            _ => None,
        };
        Self {
            endpoints: endpoints(tree, section, cacert.is_some(), problems),
            user,
            cacert,
            cert: read::path(tree, &at("cert")),
            key: read::path(tree, &at("key")),
        }
    }
}

/// The forms of Patroni, in its order of preference: proxy, srv, hosts, host, url.
fn endpoints(tree: &Node, section: &str, tls: bool, problems: &mut Vec<Problem>) -> Endpoints {
    let at = |key: &str| format!("{section}.{key}");
    let given = |key: &str| read::text(tree, &at(key));
    let scheme = given("protocol").unwrap_or_else(|| if tls { "https" } else { "http" }.to_owned());
    let port = read::integer(tree, &at("port")).unwrap_or(2379);
    let url = |host: &str| with_scheme(host, &scheme, port);
    let fixed = read::boolean(tree, &at("use_proxies"), false);
    if let Some(proxy) = given("proxy") {
        return Endpoints::Listed { urls: vec![url(&proxy)], fixed: true };
    }
    if let Some(domain) = given("srv").or_else(|| given("discovery_srv")).or_else(|| given("srv_domain")) {
        return Endpoints::Srv { domain, suffix: given("srv_suffix") };
    }
    let hosts = read::names(tree, &at("hosts"));
    if !hosts.is_empty() {
        return Endpoints::Listed { urls: hosts.iter().map(|h| url(h)).collect(), fixed };
    }
    if let Some(one) = given("host").or_else(|| given("url")) {
        return Endpoints::Listed { urls: vec![url(&one)], fixed };
    }
    problems.push(Problem::error(
        &tree.place_of(section),
        section,
        "does not say where etcd is",
        "write hosts: [host1:2379, host2:2379, host3:2379] (or host, url, proxy or srv)",
    ));
    Endpoints::Listed { urls: vec![DEFAULT_URL.to_owned()], fixed }
}

fn with_scheme(host: &str, scheme: &str, port: i64) -> String {
    let host = host.trim();
    if let Some((scheme, rest)) = host.split_once("://") {
        // Credentials in a URL are given by username and password instead.
        let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
        return with_port(scheme, rest.trim_end_matches('/'), port);
    }
    with_port(scheme, host, port)
}

fn with_port(scheme: &str, host: &str, port: i64) -> String {
    let after_bracket = host.rsplit(']').next().unwrap_or(host);
    let bare_ipv6 = host.matches(':').count() > 1 && !host.starts_with('[');
    match (bare_ipv6, after_bracket.contains(':')) {
        (true, _) => format!("{scheme}://[{host}]:{port}"),
        (false, true) => format!("{scheme}://{host}"),
        (false, false) => format!("{scheme}://{host}:{port}"),
    }
}
