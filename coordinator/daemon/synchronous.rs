//! Doing what decisions say of synchronous replication: the record in the store, the list in the server, strangers.
//!
//! It chooses nothing. How a write ended is remembered, since an outcome that is not known may still arrive.

use std::time::Duration;

use anyhow::{Context as _, bail};
use coordinator::SyncWrites;
use dcs::{Moment, Revision, StoreError, SyncState};

use crate::node::Node;
use crate::postgres::conf::{self, STANDBY_NAMES};
use crate::postgres::run;

/// How long a list that was set may take to be read by the server.
const IN_FORCE: Duration = Duration::from_millis(500);
/// How often it is looked for meanwhile.
const GLANCE: Duration = Duration::from_millis(5);

impl Node {
    /// Writes, or removes, the record of who may lead.
    pub(crate) async fn write_sync(
        &mut self,
        sync: Option<&SyncState>,
        guard: Option<Revision>,
    ) -> anyhow::Result<()> {
        let before = self.sync;
        // Dropped half-way, it has an end that is not known.
        self.sync.doubtful = true;
        let done = match (sync, guard) {
            (Some(sync), guard) => self.dcs.write_sync(sync, guard).await,
            (None, Some(guard)) => match self.dcs.delete_sync(guard).await {
                // A view of before still shows the record.
                Ok(true) => Ok(Some(Revision(guard.0 + 1))),
                other => other.map(|_| None),
            },
            (None, None) => Ok(None),
        };
        match done {
            Ok(Some(revision)) => {
                self.sync = SyncWrites { written: Some(revision), ..SyncWrites::default() };
                if let Some(sync) = sync {
                    let names: Vec<&str> = sync.standbys.iter().map(String::as_str).collect();
                    let names = if names.is_empty() { "nobody".to_owned() } else { names.join(", ") };
                    tracing::info!("synchronous standbys that may lead: {names} (quorum {})", sync.quorum);
                }
                Ok(())
            }
            // Whatever was under way had this or an older guard: it is void with it, or it is what has changed the record.
            Ok(None) => {
                (self.sync.doubtful, self.sync.refused) = (false, Some(guard.unwrap_or_default()));
                bail!("somebody else has changed the record meanwhile")
            }
            Err(error @ StoreError::Unknown(_)) => Err(error.into()),
            Err(error) => {
                self.sync = before;
                Err(error.into())
            }
        }
    }

    /// Sets the list of those for whom commits wait, and returns once the server has read it.
    pub(crate) async fn set_names(&mut self, names: &str) -> anyhow::Result<()> {
        let postmaster = self.instance.postmaster().context("no postmaster runs")?;
        let session = self.instance.session().context("Postgres does not answer")?;
        let mut conf = self.settings.primary_conf();
        conf.kept.remove(STANDBY_NAMES);
        conf.parameters.insert(STANDBY_NAMES.to_owned(), names.to_owned());
        conf::put(&self.settings.paths, &conf).await?;
        run::reload(&postmaster)?;
        tracing::info!("synchronous_standby_names is now '{names}'");
        self.wake = Moment::now();
        let read = async {
            let mut glance = tokio::time::interval(GLANCE);
            loop {
                glance.tick().await;
                let rows = session.simple("SHOW synchronous_standby_names").await?;
                if rows
                    .first()
                    .and_then(|row| row.first())
                    .is_some_and(|shown| shown.as_deref() == Some(names))
                {
                    return Ok(());
                }
            }
        };
        match tokio::time::timeout(IN_FORCE, read).await {
            Ok(done) => done,
            Err(_) => bail!(
                "the server does not take it over; ALTER SYSTEM RESET synchronous_standby_names if that was used to set it"
            ),
        }
    }

    /// Ends processes that serve a stranger under a member's name.
    pub(crate) async fn evict(&mut self, pids: &[i32]) -> anyhow::Result<()> {
        let session = self.instance.session().context("Postgres does not answer")?;
        for pid in pids {
            let strange = self
                .instance
                .look()
                .and_then(|(_, look)| look.senders.iter().find(|sender| sender.pid == *pid).cloned());
            if let Some(sender) = strange {
                let now = api::wall::now().as_millisecond();
                let lived = sender.since.map_or(0, |since| now.saturating_sub(since));
                let lived = Duration::from_millis(u64::try_from(lived).unwrap_or_default());
                self.strangers.last = lived;
                self.strangers.longest = self.strangers.longest.max(lived);
                self.strangers.ended += 1;
                tracing::warn!(
                    "ending the replication connection of process {pid}: it calls itself {} but does not use that member's slot \
                     (from {}, as {}, for {lived:?}); what it acknowledged meanwhile was no acknowledgement of the member's",
                    sender.application_name,
                    sender.client_addr.as_deref().unwrap_or("a local socket"),
                    sender.usename.as_deref().unwrap_or("nobody"),
                );
            }
            session.simple(&format!("SELECT pg_terminate_backend({pid})")).await?;
        }
        Ok(())
    }
}
