//! The embedded store as a node's file describes it (`raft:`): Patroni's keys, and ours for TLS.
//! Nothing is resolved or opened here.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::problem::Problem;
use crate::read;
use crate::tree::Node;
use crate::{Address, Secret};

/// The shortest election timeout by default (`raft.min_timeout`).
const MIN_TIMEOUT: Duration = Duration::from_millis(300);
/// The longest election timeout by default (`raft.max_timeout`).
const MAX_TIMEOUT: Duration = Duration::from_millis(600);

/// How to be a member of the embedded store, or only its client.
#[derive(Debug, Clone, PartialEq)]
pub struct RaftConfig {
    /// Where the other members reach this one; without it this node is only a client.
    pub self_addr: Option<Address>,
    /// Where to listen, if not at `self_addr`.
    pub bind_addr: Option<Address>,
    /// The other members at the first start; later the store itself knows its members.
    pub partner_addrs: Vec<Address>,
    /// Where this member keeps its log.
    pub data_dir: PathBuf,
    /// What all members and clients share to recognise each other.
    pub password: Option<Secret>,
    /// TLS with mutual verification.
    pub tls: Option<RaftTls>,
    /// A follower that hears no leader for this long, at least, stands for election.
    pub min_timeout: Duration,
    /// A follower that hears no leader for this long, at most, stands for election.
    pub max_timeout: Duration,
}

/// The certificates of a member of the embedded store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RaftTls {
    /// The authority that signed every member's certificate (PEM).
    pub cacert: PathBuf,
    /// This member's certificate (PEM), for both directions.
    pub cert: PathBuf,
    /// The certificate's key (PEM).
    pub key: PathBuf,
}

/// Where the embedded store of a single member listens: for this machine only.
const SINGLE: (&str, u16) = ("127.0.0.1", 2222);

impl RaftConfig {
    /// The store of a cluster that has one member on purpose: beside its data directory, for this machine only.
    pub(crate) fn single(tree: &Node) -> Option<Self> {
        let (host, port) = SINGLE;
        let data_dir = std::path::absolute(read::path(tree, "postgresql.data_dir")?).ok()?;
        Some(Self {
            self_addr: Some(Address { host: host.to_owned(), port }),
            bind_addr: None,
            partner_addrs: Vec::new(),
            data_dir: Self::beside(&data_dir),
            password: None,
            tls: None,
            min_timeout: MIN_TIMEOUT,
            max_timeout: MAX_TIMEOUT,
        })
    }

    /// Where a member keeps its log by custom: beside the data directory.
    fn beside(data_dir: &Path) -> PathBuf {
        let mut name = data_dir.components().collect::<PathBuf>().into_os_string();
        name.push(".raft");
        name.into()
    }

    /// The section that a node without a store should have: its own address filled in, the others' to be.
    #[must_use]
    pub fn proposal(host: &str, data_dir: &Path) -> String {
        let (dir, port) = (Self::beside(data_dir), SINGLE.1);
        format!(
            "raft:\n  data_dir: {}\n  self_addr: {host}:{port}\n  partner_addrs: [HOST2:{port}, HOST3:{port}]\n  password: \
             SECRET",
            dir.display()
        )
    }

    pub(crate) fn from_tree(tree: &Node, problems: &mut Vec<Problem>) -> Self {
        let address = |key: &str| read::text(tree, key).and_then(|text| Address::parse(&text));
        let mut wrong = |key: &str, found: String, advice: &str| {
            problems.push(Problem::error(&tree.place_of("raft"), key, found, advice));
        };
        let self_addr = address("raft.self_addr");
        let mut partner_addrs = Vec::new();
        for text in read::names(tree, "raft.partner_addrs") {
            match Address::parse(&text) {
                Some(partner) if Some(&partner) != self_addr.as_ref() => partner_addrs.push(partner),
                Some(_) => {}
                None => wrong(
                    "raft.partner_addrs",
                    format!("names {text:?}, which is no host and port"),
                    "write partner_addrs: [10.0.0.2:2222, 10.0.0.3:2222]",
                ),
            }
        }
        if self_addr.as_ref().is_some_and(Address::is_any) {
            let found = "is an address that no other member can connect to".to_owned();
            wrong("raft.self_addr", found, "write this host's own address, and the other one as bind_addr");
        }
        if self_addr.is_none() && partner_addrs.is_empty() {
            let advice = "write self_addr: 10.0.0.1:2222 and partner_addrs: [10.0.0.2:2222, 10.0.0.3:2222]";
            wrong("raft", "names no member of the store".to_owned(), advice);
        }
        let data_dir = read::path(tree, "raft.data_dir");
        if self_addr.is_some() && data_dir.is_none() {
            let found = "is missing: a member must keep its log somewhere".to_owned();
            wrong("raft.data_dir", found, "write data_dir: /var/lib/matriarch/raft, a directory of its own");
        }
        let files = ["raft.cacert", "raft.cert", "raft.key"].map(|key| read::path(tree, key));
        let tls = match files {
            [Some(cacert), Some(cert), Some(key)] => Some(RaftTls { cacert, cert, key }),
            [None, None, None] => None,
            _ => {
                let found = "has some of cacert, cert and key, but not all".to_owned();
                wrong("raft", found, "write all three, or none");
                None
            }
        };
        let min_timeout = read::seconds(tree, "raft.min_timeout").unwrap_or(MIN_TIMEOUT);
        let max_timeout = read::seconds(tree, "raft.max_timeout").unwrap_or(MAX_TIMEOUT.max(min_timeout * 2));
        if min_timeout < Duration::from_millis(100) || max_timeout < min_timeout + Duration::from_millis(50) {
            let found = format!("lets an election begin after {min_timeout:?} to {max_timeout:?}");
            let advice = "write at least 0.1, and a max_timeout that is longer, best twice as long";
            wrong("raft.min_timeout", found, advice);
        }
        Self {
            bind_addr: address("raft.bind_addr"),
            password: read::secret(tree, "raft.password"),
            data_dir: data_dir.unwrap_or_default(),
            self_addr,
            partner_addrs,
            tls,
            min_timeout,
            max_timeout,
        }
    }
}
