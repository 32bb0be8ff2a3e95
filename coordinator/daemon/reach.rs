//! The first word with the store, however long that takes. A primary that an earlier life of
//! this daemon left running must not outlive its lease meanwhile.

use std::time::Duration;

use anyhow::bail;
use config::NodeConfig;
use dcs::{Abode, ClusterView, Dcs, Keys, Stand, StoreError};
use tokio::sync::mpsc;

use crate::lease::chain;
use crate::node::Signal;
use crate::postgres::controldata::{self, State};
use crate::postgres::process::{self, Found};
use crate::postgres::run::{self, Stop};
use crate::postgres::{Paths, off_loop};
use crate::way::Way;
use crate::ways::{self, Choice, Ways};

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
    ways: &Ways,
    paths: &Paths,
    grace: Option<Duration>,
    signals: &mut mpsc::Receiver<Signal>,
) -> anyhow::Result<Option<(Dcs, ClusterView)>> {
    let mut trying = std::pin::pin!(keep_trying(node, ways));
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

async fn keep_trying(node: &NodeConfig, ways: &Ways) -> anyhow::Result<(Dcs, ClusterView)> {
    if let Way::Nowhere(lines) = ways.present() {
        tracing::error!("{lines}");
        return std::future::pending().await;
    }
    let keys = Keys::new(&node.namespace, &node.scope);
    let mut said = None;
    loop {
        let asked = async {
            match ways.other() {
                None => of_one(&ways.present(), &keys).await,
                Some(other) => of_two(ways, &other, &keys).await,
            }
        };
        let reached = tokio::select! {
            reached = asked => reached,
            why = ways.ended() => bail!("{} has ended: {why}", ways.present().names().0),
        };
        match reached {
            Ok(reached) => return Ok(reached),
            Err(Obstacle::Final(why)) => bail!(why),
            Err(Obstacle::Passing(why)) => {
                if said.as_ref() != Some(&why) {
                    tracing::warn!("waiting on {why}");
                    said = Some(why);
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Why there is no store to work with.
enum Obstacle {
    /// Not yet.
    Passing(String),
    /// Not with this configuration.
    Final(String),
}

async fn look(way: &Way, keys: &Keys) -> Result<(Dcs, ClusterView), Obstacle> {
    let (store, section) = way.names();
    let asked = async {
        let dcs = way.connect(keys.clone(), PATIENCE).await?;
        let view = dcs.load().await?;
        Ok::<_, StoreError>((dcs, view))
    };
    asked.await.map_err(|error| match error {
        StoreError::Auth(why) => Obstacle::Final(format!(
            "{store} refused user and password ({why}): correct them in the section {section}"
        )),
        error => Obstacle::Passing(format!("{store}: {}", chain(&error))),
    })
}

/// The only store that the configuration names. If the cluster has left it, nobody here may act by it.
async fn of_one(way: &Way, keys: &Keys) -> Result<(Dcs, ClusterView), Obstacle> {
    let (dcs, view) = look(way, keys).await?;
    match view.abode() {
        Abode::Here(_) | Abode::Nowhere => Ok((dcs, view)),
        Abode::Moving(Stand::Left(passage)) => Err(Obstacle::Final(format!(
            "this cluster has moved to the store of the section {}: write that section into this node's configuration \
             instead of {}",
            passage.to,
            way.section()
        ))),
        Abode::Moving(Stand::Arriving(passage)) => Err(Obstacle::Passing(format!(
            "{}: the cluster is about to move there from the store of the section {}; without that section in this \
             node's configuration it waits until somebody leads",
            way.names().0,
            passage.from
        ))),
    }
}

/// Two stores: their records say in which of them the cluster lives.
async fn of_two(ways: &Ways, other: &Way, keys: &Keys) -> Result<(Dcs, ClusterView), Obstacle> {
    let present = ways.present();
    let (first, second) = tokio::join!(Box::pin(look(&present, keys)), Box::pin(look(other, keys)));
    let abode =
        |looked: &Result<(Dcs, ClusterView), Obstacle>| looked.as_ref().ok().map(|(_, view)| view.abode());
    let sections = [present.section(), other.section()];
    let memory = ways.memory();
    match ways::choose(abode(&first).as_ref(), abode(&second).as_ref(), sections, memory.as_ref()) {
        Choice::First => first,
        Choice::Second => {
            tracing::info!("the cluster lives in {} (section {})", other.names().0, other.section());
            ways.exchange();
            second
        }
        Choice::Refuse(why) => Err(Obstacle::Final(why)),
        Choice::Wait(why) => {
            let told = [&first, &second].into_iter().filter_map(|looked| match looked {
                Err(Obstacle::Passing(why) | Obstacle::Final(why)) => Some(why.as_str()),
                Ok(_) => None,
            });
            let told: Vec<&str> = std::iter::once(why.as_str()).chain(told).collect();
            Err(Obstacle::Passing(told.join("; ")))
        }
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
