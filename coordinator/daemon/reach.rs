//! The first word with the store, however long that takes. A primary that an earlier life of
//! this daemon left running must not outlive its lease meanwhile.

use std::time::Duration;

use anyhow::bail;
use config::NodeConfig;
use dcs::{ClusterView, Dcs, Keys, StoreError};
use tokio::sync::mpsc;

use crate::lease::chain;
use crate::node::Signal;
use crate::postgres::controldata::{self, State};
use crate::postgres::process::{self, Found};
use crate::postgres::run::{self, Stop};
use crate::postgres::{Paths, off_loop};
use crate::way::Way;

/// The pause between two tries.
const PAUSE: Duration = Duration::from_secs(1);
/// How long one try may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Waits for the store; nothing if the daemon is stopped meanwhile. A primary found running is stopped
/// after `grace`, if there is one: its lease may still hold, but nobody here knows for how long.
///
/// # Errors
/// If the store refuses us for good.
pub async fn store(
    node: &NodeConfig,
    way: &Way,
    paths: &Paths,
    grace: Option<Duration>,
    signals: &mut mpsc::Receiver<Signal>,
) -> anyhow::Result<Option<(Dcs, ClusterView)>> {
    let mut trying = std::pin::pin!(keep_trying(node, way));
    let mut demoting = std::pin::pin!(async {
        match grace {
            Some(grace) => {
                tokio::time::sleep(grace).await;
                stop_primary(paths, "the store cannot be reached, and nobody knows who leads").await;
            }
            None => std::future::pending().await,
        }
    });
    let mut demoted = false;
    loop {
        tokio::select! {
            reached = &mut trying => {
                if reached.is_err() && grace.is_some() {
                    stop_primary(paths, "the daemon ends and cannot lead").await;
                }
                return reached.map(Some);
            }
            () = &mut demoting, if !demoted => demoted = true,
            told = signals.recv() => if told != Some(Signal::Reload) {
                if grace.is_some() {
                    stop_primary(paths, "the daemon ends and cannot hand over").await;
                }
                return Ok(None);
            },
        }
    }
}

async fn keep_trying(node: &NodeConfig, way: &Way) -> anyhow::Result<(Dcs, ClusterView)> {
    if let Way::Nowhere(lines) = way {
        tracing::error!("{lines}");
        return std::future::pending().await;
    }
    let keys = Keys::new(&node.namespace, &node.scope);
    let (store, section) = way.names();
    let mut said = None;
    loop {
        let asked = async {
            let dcs = way.connect(keys.clone(), PATIENCE).await?;
            let view = dcs.load().await?;
            Ok::<_, StoreError>((dcs, view))
        };
        let reached = tokio::select! {
            reached = asked => reached,
            why = way.ended() => bail!("{store} has ended: {why}"),
        };
        match reached {
            Ok(reached) => return Ok(reached),
            Err(StoreError::Auth(why)) => {
                bail!("{store} refused user and password ({why}): correct them in the section {section}")
            }
            Err(error) => {
                let error = chain(&error);
                if said.as_ref() != Some(&error) {
                    tracing::warn!("waiting on {store}: {error}");
                    said = Some(error);
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Stops the server if it may take writes, and does not give up before it has.
pub async fn stop_primary(paths: &Paths, why: &str) {
    let mut said = false;
    loop {
        let of = paths.clone();
        let found = off_loop(move || {
            let head = controldata::head(&of.data_dir);
            let primary = head.is_none_or(|head| head.state == State::InProduction);
            let found = process::find(&of).map_err(std::io::Error::other)?;
            Ok(match found {
                Found::Running(postmaster) if primary && !of.standby_signal().exists() => Some(postmaster),
                _ => None,
            })
        });
        let done = match found.await {
            Ok(None) => return,
            Ok(Some(postmaster)) => {
                if !said {
                    tracing::error!("Postgres is stopped: {why}");
                }
                run::stop(paths, &postmaster, Stop::Fast, PATIENCE)
                    .await
                    .map(drop)
                    .map_err(|error| chain(&error))
            }
            Err(error) => Err(chain(&error)),
        };
        match done {
            Ok(()) => return,
            Err(error) if !said => tracing::error!("a primary without a lease could not be stopped: {error}"),
            Err(_) => {}
        }
        said = true;
        tokio::time::sleep(PAUSE).await;
    }
}
