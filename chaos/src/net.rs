//! One /24 of 127.0.0.0/8 per cluster, so that clusters side by side keep the standard ports.
//!
//! A network is held by a lock on a file. The cluster's reaper inherits it, so the network stays taken
//! until the last process of the cluster is gone, even when this process is killed.

use std::fs::{File, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::sync::{OnceCell, Semaphore, SemaphorePermit};

/// Standard port of Postgres.
pub const POSTGRES: u16 = 5432;
/// Standard port of Patroni's REST API.
pub const REST: u16 = 8008;
/// Standard client port of etcd.
pub const ETCD: u16 = 2379;
/// Port of the embedded store.
pub const RAFT: u16 = 2222;
/// Port on which HAProxy sends reads to replicas.
pub const READ: u16 = 5433;

/// Networks to choose from: 127.64.1.0/24 to 127.64.250.0/24.
const NETWORKS: u8 = 250;
/// Test processes with clusters at the same time on one machine.
const TEST_PROCESSES: u8 = 2;

/// A network held until this value and every copy of its lock are gone.
#[derive(Debug)]
pub struct Net {
    third: u8,
    lock: File,
}

impl Net {
    /// Takes the first network that nobody holds and whose Postgres ports are free.
    ///
    /// # Errors
    /// When every network is taken or the lock directory cannot be made.
    pub fn take() -> anyhow::Result<Self> {
        for third in 1..=NETWORKS {
            let lock = open_lock(&format!("net-{third}"))?;
            if lock.try_lock().is_err() {
                continue;
            }
            let net = Self { third, lock };
            if net.is_quiet() {
                return Ok(net);
            }
        }
        bail!("all {NETWORKS} networks 127.64.x.0/24 are taken: are old clusters still running?")
    }

    /// The address with this last number.
    #[must_use]
    pub fn address(&self, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(127, 64, self.third, host)
    }

    /// Another handle to the lock, for a process that must keep the network taken.
    ///
    /// # Errors
    /// When the file descriptor cannot be duplicated.
    pub fn share_lock(&self) -> anyhow::Result<File> {
        self.lock.try_clone().context("duplicate the lock of the network")
    }

    fn is_quiet(&self) -> bool {
        let ports = [(11, POSTGRES), (12, POSTGRES), (11, REST), (1, ETCD), (5, POSTGRES)];
        ports
            .iter()
            .all(|(host, port)| TcpListener::bind(SocketAddr::from((self.address(*host), *port))).is_ok())
    }
}

/// Clusters that one process runs at the same time.
static CLUSTERS: Semaphore = Semaphore::const_new(2);
/// This process's place among the processes that run clusters; held until its end.
static PLACE: OnceCell<File> = OnceCell::const_new();

/// The right to run a cluster in a test: few test processes at a time, few clusters in each.
/// A process keeps its place, so that one with two clusters never waits for another such process.
#[derive(Debug)]
pub struct Slot {
    _permit: SemaphorePermit<'static>,
}

impl Slot {
    /// Waits for a slot; the wait is as long as other tests take.
    ///
    /// # Errors
    /// When the lock directory cannot be made.
    pub async fn wait() -> anyhow::Result<Self> {
        PLACE.get_or_try_init(wait_place).await?;
        Ok(Self { _permit: CLUSTERS.acquire().await.context("clusters are counted to the end")? })
    }
}

async fn wait_place() -> anyhow::Result<File> {
    loop {
        for place in 1..=TEST_PROCESSES {
            let lock = open_lock(&format!("place-{place}"))?;
            if lock.try_lock().is_ok() {
                return Ok(lock);
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A directory under the system's temporary one that every user of this machine may lock files in.
fn lock_dir() -> anyhow::Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let dir = std::env::temp_dir().join("matriarch-chaos-locks");
    if !dir.is_dir() {
        std::fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o1777))?;
    }
    Ok(dir)
}

/// Opens for reading where it can: a lock needs no more, and the file may belong to somebody else.
fn open_lock(name: &str) -> anyhow::Result<File> {
    let path = lock_dir()?.join(name);
    if let Ok(file) = File::open(&path) {
        return Ok(file);
    }
    let file = OpenOptions::new().create(true).append(true).open(&path);
    file.with_context(|| format!("open the lock {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_holders_never_share_a_network() {
        let first = Net::take().unwrap();
        let second = Net::take().unwrap();
        assert_ne!(first.address(1), second.address(1));
    }

    #[test]
    fn a_shared_lock_keeps_the_network_taken() {
        let net = Net::take().unwrap();
        let kept = net.share_lock().unwrap();
        let address = net.address(1);
        drop(net);
        assert_ne!(Net::take().unwrap().address(1), address);
        drop(kept);
    }
}
