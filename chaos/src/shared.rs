//! One cluster for all tests of a file, lent to one test at a time and healed between them.
//!
//! It is never dropped: its reaper ends it with the process.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use tokio::sync::{Mutex, MutexGuard, OnceCell};

use crate::cluster::Cluster;
use crate::spec::Spec;

/// How long a cluster may take to heal from the test before.
const HEAL: Duration = Duration::from_secs(60);

/// A cluster that is started by the first test that needs it.
#[derive(Debug)]
pub struct Shared {
    cluster: OnceCell<Mutex<Cluster>>,
    spec: fn() -> Spec,
}

impl Shared {
    /// Says what to build; builds nothing.
    #[must_use]
    pub const fn new(spec: fn() -> Spec) -> Self {
        Self { cluster: OnceCell::const_new(), spec }
    }

    /// Waits for one's turn, brings dead nodes back, ends a pause, and waits until the cluster is healthy.
    ///
    /// # Errors
    /// When it cannot be started or does not become healthy.
    pub async fn lend(&'static self) -> anyhow::Result<MutexGuard<'static, Cluster>> {
        let start = async || Cluster::healthy((self.spec)()).await.map(Mutex::new);
        let cluster = self.cluster.get_or_try_init(start).await?.lock().await;
        cluster.store.thaw();
        for node in &cluster.nodes {
            match node.pid() {
                None => node.start()?,
                Some(_) => node.signal(Signal::CONT),
            }
        }
        if let Some(node) = cluster.nodes.first()
            && node
                .get("/config")
                .await
                .is_ok_and(|answer| answer.json().get("pause").is_some_and(|paused| paused == true))
        {
            node.send("PATCH", "/config", &json!({"pause": null})).await?;
        }
        cluster.wait_healthy(HEAL).await?;
        Ok(cluster)
    }
}
