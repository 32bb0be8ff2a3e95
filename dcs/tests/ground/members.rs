//! Members of the embedded store for a test: in this process, on addresses of their own, in directories of their own;
//! stopped as by a crash, started again, cut off, and gone with the test.

use std::path::PathBuf;
use std::time::Duration;

use config::{Address, RaftConfig, RaftTls, Secret, StoreConfig};
use dcs::{Dcs, Embedded, Keys};

use super::PATIENCE;

/// Members of one store, started or not.
pub struct Members {
    pub configs: Vec<RaftConfig>,
    running: Vec<Option<Embedded>>,
    dir: tempfile::TempDir,
}

impl Members {
    /// `count` members that know each other, not started yet.
    pub fn new(count: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let addresses: Vec<Address> = (0..count).map(|_| address()).collect();
        let config = |own: usize| RaftConfig {
            self_addr: Some(addresses[own].clone()),
            bind_addr: None,
            partner_addrs: addresses.iter().filter(|other| **other != addresses[own]).cloned().collect(),
            data_dir: dir.path().join(format!("m{own}")),
            password: Some(Secret::new("a secret of the members".to_owned())),
            tls: None,
            min_timeout: Duration::from_millis(300),
            max_timeout: Duration::from_millis(600),
        };
        let configs = (0..count).map(config).collect();
        Self { configs, running: vec![None; count], dir }
    }

    /// `count` members, all started.
    pub fn started(count: usize) -> Self {
        let mut members = Self::new(count);
        (0..count).for_each(|member| members.start(member));
        members
    }

    /// One more member that knows the others, not started yet.
    pub fn add(&mut self) -> usize {
        let own = self.configs.len();
        let partner_addrs = self.configs.iter().map(|config| config.self_addr.clone().unwrap()).collect();
        let more = RaftConfig {
            self_addr: Some(address()),
            partner_addrs,
            data_dir: self.dir.path().join(format!("m{own}")),
            ..self.configs[0].clone()
        };
        self.configs.push(more);
        self.running.push(None);
        own
    }

    pub fn start(&mut self, member: usize) {
        self.running[member] = Some(Embedded::start(&self.configs[member]).unwrap());
    }

    /// Stops a member as a crash would.
    pub async fn crash(&mut self, member: usize) {
        let running = self.running[member].take().unwrap();
        running.stop();
        assert_eq!(running.ended().await, "it was stopped");
    }

    /// Forgets what a stopped member had on disk.
    pub fn forget(&self, member: usize) {
        let dir = &self.configs[member].data_dir;
        let gone = dir.with_extension(format!("gone{}", fastrand()));
        assert!(std::process::Command::new("mv").arg(dir).arg(gone).status().unwrap().success());
    }

    pub fn get(&self, member: usize) -> &Embedded {
        self.running[member].as_ref().unwrap()
    }

    pub fn all(&self) -> Vec<Embedded> {
        self.running.iter().flatten().cloned().collect()
    }

    pub fn address(&self, member: usize) -> Address {
        self.configs[member].self_addr.clone().unwrap()
    }

    pub fn file(&self, member: usize) -> PathBuf {
        self.configs[member].data_dir.join("store.redb")
    }

    pub fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// The way to the store through one member.
    pub fn dcs(&self, member: usize) -> Dcs {
        Dcs::embedded(self.get(member), keys(), PATIENCE)
    }

    /// What a client needs that is no member.
    pub fn client(&self) -> StoreConfig {
        StoreConfig::Raft(RaftConfig {
            partner_addrs: self.configs.iter().map(|config| config.self_addr.clone().unwrap()).collect(),
            self_addr: None,
            data_dir: PathBuf::new(),
            ..self.configs[0].clone()
        })
    }

    /// Which member leads the store, once one does.
    pub async fn leader(&self, through: usize) -> usize {
        let end = dcs::Moment::now() + Duration::from_secs(20);
        loop {
            let rows = self.dcs(through).store_members().await.unwrap_or_default();
            let leader = rows.iter().find(|row| row.leads).map(|row| row.address.clone());
            let is_it = |config: &RaftConfig| config.self_addr.as_ref().map(ToString::to_string) == leader;
            if let Some(found) = self.configs.iter().position(is_it) {
                return found;
            }
            assert!(dcs::Moment::now() < end, "waited 20 s in vain for a leader of the store");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

pub fn keys() -> Keys {
    Keys::new("service", "batman")
}

/// A free address of this test.
pub fn address() -> Address {
    let host = super::servers::address();
    let port = std::net::TcpListener::bind((host.as_str(), 0)).unwrap().local_addr().unwrap().port();
    Address { host, port }
}

fn fastrand() -> u64 {
    dcs::Moment::now().0
}

/// Certificates of one authority for a member at `host`.
pub fn tls(
    dir: &std::path::Path,
    name: &str,
    host: &str,
    authority: &(rcgen::Certificate, rcgen::KeyPair),
) -> RaftTls {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec![host.to_owned()]).unwrap();
    params.extended_key_usages =
        vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth, rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let issuer_params = authority_params();
    let issuer = rcgen::Issuer::new(issuer_params, &authority.1);
    let cert = params.signed_by(&key, &issuer).unwrap();
    let write = |kind: &str, text: String| {
        let path = dir.join(format!("{name}.{kind}"));
        std::fs::write(&path, text).unwrap();
        path
    };
    RaftTls {
        cacert: write("ca", authority.0.pem()),
        cert: write("crt", cert.pem()),
        key: write("key", key.serialize_pem()),
    }
}

fn authority_params() -> rcgen::CertificateParams {
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params
}

/// An authority.
pub fn authority() -> (rcgen::Certificate, rcgen::KeyPair) {
    let key = rcgen::KeyPair::generate().unwrap();
    let cert = authority_params().self_signed(&key).unwrap();
    (cert, key)
}
