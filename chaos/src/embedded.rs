//! The embedded store of a cluster, seen from outside: its keys over the members' own protocol, and the relay that
//! stands for the network between them.
//!
//! Never writes a key by itself; tests may, through `put` and `delete`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::Context;
use config::StoreConfig;
use dcs::{BareKey, BareStore};
use rustix::process::Signal;
use serde_json::Value;

use crate::cluster::{Cluster, until};
use crate::net::{Net, RAFT};
use crate::process::{self, Start};
use crate::spec::store_address;
use crate::store::Key;
use crate::user::RunAs;

/// The embedded store of one cluster.
pub struct Embedded {
    /// The file of a node, which says where the members are.
    file: PathBuf,
    /// Stretching the password costs time: once.
    store: OnceLock<BareStore>,
    /// None: the members talk to each other directly.
    relay: Option<Child>,
}

impl std::fmt::Debug for Embedded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Embedded")
            .field("file", &self.file)
            .field("relay", &self.relay)
            .finish_non_exhaustive()
    }
}

/// Where a member listens behind the relay.
#[must_use]
pub fn bind_address(index: u8, net: &Net) -> String {
    format!("{}:{}", net.address(11 + index), RAFT + 1)
}

impl Embedded {
    /// The store whose members a node's file names, without a relay.
    #[must_use]
    pub fn of(file: PathBuf) -> Self {
        Self { file, store: OnceLock::new(), relay: None }
    }

    /// The same store, with a relay before each of its first `count` members: `program` runs it.
    ///
    /// # Errors
    /// When the relay cannot be started.
    pub fn behind_relay(mut self, program: &Path, count: u8, net: &Net, dir: &Path) -> anyhow::Result<Self> {
        let pairs = (0..count).map(|n| format!("{}={}", store_address(n, net), bind_address(n, net)));
        let args: Vec<String> = ["relay".to_owned()].into_iter().chain(pairs).collect();
        let log = dir.join("relay.log");
        let start = Start { program, args: &args, env: &[], dir, log: &log, user: &RunAs::Myself };
        self.relay = Some(process::spawn(&start)?);
        Ok(self)
    }

    /// Nothing passes any more, between members and from outside.
    ///
    /// # Errors
    /// When there is no relay.
    pub fn freeze(&self) -> anyhow::Result<()> {
        let relay = self.relay.as_ref();
        let relay =
            relay.context("the members of this store talk to each other directly: use Spec::tested")?;
        process::signal(i32::try_from(relay.id())?, Signal::STOP);
        Ok(())
    }

    /// Ends [`Embedded::freeze`]; what was sent meanwhile arrives now.
    pub fn thaw(&self) {
        if let Some(relay) = &self.relay {
            process::signal(i32::try_from(relay.id()).unwrap_or_default(), Signal::CONT);
        }
    }

    fn store(&self) -> anyhow::Result<&BareStore> {
        if let Some(store) = self.store.get() {
            return Ok(store);
        }
        let config = config::load_ctl(Some(&self.file), std::iter::empty())
            .map_err(|problems| anyhow::anyhow!("{problems}"))?;
        let StoreConfig::Raft(raft) = &config.store else { anyhow::bail!("the nodes have another store") };
        let store = BareStore::new(raft)?;
        Ok(self.store.get_or_init(|| store))
    }

    /// The store's revision.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn revision(&self) -> anyhow::Result<u64> {
        let (_, revision) = self.store()?.keys("/").await?;
        Ok(u64::try_from(revision)?)
    }

    /// Every key that starts with `prefix`, in order.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn keys(&self, prefix: &str) -> anyhow::Result<Vec<Key>> {
        let (keys, _) = self.store()?.keys(prefix).await?;
        keys.into_iter().map(key).collect()
    }

    /// What a key became after revision `from`.
    ///
    /// # Errors
    /// When the store does not answer or has forgotten that far back.
    pub async fn values_since(&self, name: &str, from: u64) -> anyhow::Result<Vec<Option<Key>>> {
        let values = self.store()?.became(name, i64::try_from(from)?).await?;
        values.into_iter().map(|value| value.map(key).transpose()).collect()
    }

    /// The time to live that a lease was granted with; none if it has ended.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn granted(&self, lease: i64) -> anyhow::Result<Option<Duration>> {
        Ok(self.store()?.granted(lease).await?)
    }

    /// How many entries the log has had, and how often the leases that stand were renewed.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn log(&self) -> anyhow::Result<(u64, u64)> {
        let store = self.store()?;
        let (keys, _) = store.keys("/").await?;
        let leases: BTreeSet<i64> = keys.iter().map(|key| key.lease).filter(|lease| *lease != 0).collect();
        let mut renewals = 0;
        for lease in leases {
            renewals += store.renewals(lease).await?.unwrap_or_default();
        }
        Ok((store.length().await?, renewals))
    }

    /// Writes a key by hand.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn put(&self, name: &str, value: &str) -> anyhow::Result<()> {
        Ok(self.store()?.put(name, value).await?)
    }

    /// Deletes a key by hand.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn delete(&self, name: &str) -> anyhow::Result<()> {
        Ok(self.store()?.delete(name).await?)
    }

    /// Revokes a lease by hand.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn revoke(&self, lease: i64) -> anyhow::Result<()> {
        Ok(self.store()?.revoke(lease).await?)
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        if let Some(relay) = &mut self.relay {
            let _gone_is_fine = relay.kill();
            let _ended = relay.wait();
        }
    }
}

/// The members of a cluster's embedded store, as matriarchctl shows them in JSON.
///
/// # Errors
/// When matriarchctl does not end well.
pub async fn store_members(cluster: &Cluster) -> anyhow::Result<Vec<Value>> {
    let ended = cluster.matriarchctl(&["store", "members", "-f", "json"]).await?;
    anyhow::ensure!(ended.code == Some(0), "{ended:?}");
    Ok(serde_json::from_str(&ended.out)?)
}

/// The index of the node whose member leads the store.
///
/// # Errors
/// When no member leads within a minute.
pub async fn leading_member(cluster: &Cluster) -> anyhow::Result<usize> {
    let found = until(Duration::from_secs(60), "a leader of the store", async || {
        let members = store_members(cluster).await?;
        let is_leader = |member: &&Value| member.get("Role").is_some_and(|role| role == "leader");
        let leader = members.iter().find(is_leader).and_then(|leader| leader.get("Member")?.as_str());
        Ok((0u8..).zip(&cluster.nodes).position(|(index, _)| {
            leader.is_some_and(|leader| leader == store_address(index, cluster.net()))
        }))
    });
    cluster.explain(found.await)
}

fn key(found: BareKey) -> anyhow::Result<Key> {
    let BareKey { key, value, created, modified, lease } = found;
    Ok(Key { key, value, modified: u64::try_from(modified)?, created: u64::try_from(created)?, lease })
}
