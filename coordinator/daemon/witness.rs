//! A voter of the embedded store without Postgres: a third opinion for two database hosts. It holds no lease and
//! leads no cluster; all it does is keep the store's log.

use std::path::Path;

use anyhow::bail;
use config::WitnessConfig;
use dcs::Embedded;

use crate::logs;
use crate::node::Signal;
use crate::start;
use crate::way::Way;

/// Runs the witness until it is stopped; returns its exit status.
///
/// # Errors
/// What keeps it from being a member, in one sentence with what to do.
pub async fn run(path: Option<&Path>) -> anyhow::Result<i32> {
    let config =
        config::load_witness(path, std::env::vars()).map_err(|problems| anyhow::anyhow!("{problems}"))?;
    let elsewhere = config.log.dir.is_some();
    let log = logs::start(&config.log)?;
    let ended = watch(&config).await.or_else(|error| {
        tracing::error!(target: logs::CRITICAL, "{error:#}");
        if elsewhere { Err(error) } else { Ok(1) }
    });
    log.flush();
    ended
}

async fn watch(config: &WitnessConfig) -> anyhow::Result<i32> {
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let mut signals = start::signals()?;
    let address = config.raft.self_addr.as_ref().map(ToString::to_string).unwrap_or_default();
    tracing::info!("matriarch {} is a witness at {address}", api::MATRIARCH_VERSION);
    let way = Way::Member(Embedded::start(&config.raft)?);
    loop {
        tokio::select! {
            why = way.ended() => bail!("the embedded store has ended: {why}"),
            told = signals.recv() => if told != Some(Signal::Reload) { break },
        }
    }
    way.close().await;
    Ok(0)
}
