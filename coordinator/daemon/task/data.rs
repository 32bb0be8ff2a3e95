//! Jobs that make, copy, repair or put away a data directory.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use config::NodeName;
use coordinator::Grounds;
use coordinator::custody::{LeaderAnswer, Leadership, Permission};
use dcs::{Initialize, Lsn, Moment, SystemId, Timeline};

use super::{Context, Gain};
use crate::custody::marker::{Mark, Work};
use crate::custody::{self, Capsule, Request};
use crate::postgres::clone::{self, Order};
use crate::postgres::query::{Session, Terms};
use crate::postgres::{
    Stopped, Target, conf, controldata, files, initdb as tool, off_loop, process, replication, rewind,
};
use crate::settings::login;

/// How long killing everything of the instance may take.
const KILL: Duration = Duration::from_secs(10);
/// How long crash recovery in single-user mode may take.
const RECOVERY: Duration = Duration::from_secs(24 * 3600);

/// Creates a new database cluster. Until its first start has ended it is marked as unfinished.
pub async fn initdb(context: &Context) -> anyhow::Result<Gain> {
    let settings = &context.settings;
    let room = {
        let paths = settings.paths.clone();
        off_loop(move || {
            let mark = Mark { what: "bootstrap of a new cluster".into(), floor: None, done: false };
            Work::Bootstrap.mark(&paths, &mark)?;
            custody::make_room(&paths).map_err(std::io::Error::other)
        })
        .await?
    };
    let arguments = &settings.node.bootstrap.initdb;
    let superuser = login(&settings.node.postgresql.superuser);
    let complete = tool::initdb(&settings.paths, room.path(), arguments, &superuser).await?;
    install(context, room, complete).await?;
    if settings.postgres.pg_hba.is_none() && !settings.node.bootstrap.pg_hba.is_empty() {
        conf::append_hba(&settings.paths, &settings.node.bootstrap.pg_hba)?;
    }
    Ok(Gain::OtherData)
}

async fn install(
    context: &Context,
    room: custody::Incoming,
    complete: crate::postgres::Complete,
) -> anyhow::Result<()> {
    let paths = context.settings.paths.clone();
    off_loop(move || custody::install(&paths, room, complete).map_err(std::io::Error::other)).await?;
    Ok(())
}

/// Copies another member's server into the empty data directory.
pub async fn clone(context: &Context, from: &NodeName) -> anyhow::Result<Gain> {
    let settings = &context.settings;
    let Initialize::Done(system_id) = context.view.initialize else {
        anyhow::bail!("the store does not say which cluster this is (initialize)");
    };
    let (host, port) = address(context, from)?;
    let room = {
        let paths = settings.paths.clone();
        off_loop(move || custody::make_room(&paths).map_err(std::io::Error::other)).await?
    };
    let order = Order {
        source: settings.source(&host, port),
        system_id,
        options: settings.postgres.basebackup.clone(),
        version: settings.version,
    };
    let complete = clone::clone(&settings.paths, room.path(), &order, &context.progress).await?;
    install(context, room, complete).await?;
    let paths = settings.paths.clone();
    off_loop(move || conf::restore_copies(&paths).map_err(std::io::Error::other)).await?;
    Ok(Gain::OtherData)
}

fn address(context: &Context, member: &NodeName) -> anyhow::Result<(String, u16)> {
    let record = context.view.members.get(member);
    record
        .and_then(|record| record.conn_url.as_deref())
        .and_then(coordinator::address)
        .with_context(|| format!("{member} has published no address"))
}

/// Moves the data directory aside, if custody agrees.
pub async fn retire(context: &Context, grounds: Grounds, leader: Option<&NodeName>) -> anyhow::Result<Gain> {
    let settings = &context.settings;
    let leadership = match leader {
        Some(leader) => Some(leadership(context, leader).await?),
        None => None,
    };
    let stopped = process::kill_all(&settings.paths, KILL).await?;
    let paths = settings.paths.clone();
    let request = request(context, grounds, leadership)?;
    let entry = off_loop(move || {
        let warrant = custody::warrant(&paths, stopped, request).map_err(std::io::Error::other)?;
        let emptied = custody::retire(warrant).map_err(std::io::Error::other)?;
        Work::Bootstrap.clear(&paths)?;
        Work::Rewind.clear(&paths)?;
        Ok(emptied.entry().to_owned())
    })
    .await?;
    tracing::warn!("the data directory was moved aside, whole, to {}", entry.display());
    Ok(Gain::OtherData)
}

/// Whether custody would agree to a person's wish, if Postgres were stopped.
pub async fn consent(context: &Context, leader: &NodeName) -> anyhow::Result<()> {
    let leadership = leadership(context, leader).await?;
    let request = request(context, Grounds::Reinitialize, Some(leadership))?;
    let paths = context.settings.paths.clone();
    off_loop(move || custody::would_agree(&paths, &request).map_err(std::io::Error::other)).await?;
    Ok(())
}

/// What custody is asked, with all that it cannot find out by itself.
fn request(context: &Context, grounds: Grounds, leadership: Option<Leadership>) -> anyhow::Result<Request> {
    let settings = &context.settings;
    Ok(Request {
        vault: settings.node.matriarch.vault_dir.clone(),
        identity_when_decided: context.directory,
        leadership,
        permission: Permission {
            grounds,
            after_failed_rewind: settings.postgres.remove_data_directory_on_rewind_failure,
            when_diverged: settings.postgres.remove_data_directory_on_diverged_timelines,
            named: (grounds == Grounds::Reinitialize).then(|| settings.node.name.clone()),
            our_marker: Work::Bootstrap.read(&settings.paths)?.is_some(),
            paused: settings.cluster.pause && grounds != Grounds::Reinitialize,
            protected: false,
        },
        why: format!("{grounds:?}"),
    })
}

/// Who leads, read twice around an answer of the leader's own server.
async fn leadership(context: &Context, leader: &NodeName) -> anyhow::Result<Leadership> {
    let at = Moment::now();
    let first = context.dcs.load().await?;
    let holder = first.leader.as_ref().context("nobody leads")?;
    let (host, port) = address(context, leader)?;
    let answer = ask(&context.settings.remote(&host, port)).await;
    let second = context.dcs.load().await.ok().and_then(|view| Some(view.leader?.epoch));
    let cluster: Option<SystemId> = match first.initialize {
        Initialize::Done(id) => Some(id),
        _ => None,
    };
    Ok(Leadership {
        me: context.settings.node.name.clone(),
        leader: holder.name.clone(),
        at,
        first: holder.epoch,
        second,
        cluster,
        answer,
    })
}

async fn ask(target: &Target) -> Option<LeaderAnswer> {
    let at = Moment::now();
    let session = Session::open(target, Terms::default()).await.ok()?;
    let in_recovery = session.is_in_recovery().await.ok()?;
    Some(LeaderAnswer { at, system_id: session.system_id(), takes_writes: !in_recovery })
}

/// Brings a crashed primary's log to a clean end, after what it holds was copied aside.
pub async fn recover_crash(context: &Context) -> anyhow::Result<Gain> {
    let settings = &context.settings;
    let stopped = process::kill_all(&settings.paths, KILL).await?;
    let control = controldata::read(&settings.paths).await?;
    let (stopped, capsule) = capsule(context, stopped, Some(control.redo)).await?;
    // The configuration may be a standby's, or of before a change.
    conf::put(&settings.paths, &settings.primary_conf()).await?;
    let archive = archive_command(context);
    rewind::recover_crash(&settings.paths, &stopped, &capsule, archive.as_deref(), RECOVERY).await?;
    Ok(Gain::OtherData)
}

/// Rewinds the data directory to where it left the leader's history, after what lies beyond was copied aside.
pub async fn rewind(context: &Context, from: &NodeName) -> anyhow::Result<Gain> {
    let settings = &context.settings;
    let (host, port) = address(context, from)?;
    let stopped = process::kill_all(&settings.paths, KILL).await?;
    let control = controldata::read(&settings.paths).await?;
    let end = rewind::end_of_checkpoint(&settings.paths, &control).await.unwrap_or(control.checkpoint);
    let fork = fork(context, &host, port, control.timeline).await?.min(end);
    let start = rewind::checkpoint_before(&settings.paths, &control, fork).await?;
    let (stopped, capsule) = capsule(context, stopped, start).await?;
    // pg_rewind asks the server's own configuration for restore_command: a primary's has none, and a
    // try that was interrupted may have left the source's.
    let (conf, _) = settings.standby_conf(None, &BTreeMap::new());
    conf::put(&settings.paths, &conf).await?;
    let order = rewind::Order {
        source: settings.remote(&host, port),
        options: settings.postgres.rewind.clone(),
        restore_command: settings.postgres.recovery_conf.get("restore_command").cloned(),
        archive_command: archive_command(context),
        version: settings.version,
        // What lay beyond was of no history that goes on: nobody waits for it to come back.
        floor: fork,
    };
    rewind::rewind(&settings.paths, &stopped, &capsule, &order).await?;
    nudge(&order.source).await;
    // What ran last here was a primary; what comes now is a standby, whatever is started first.
    let paths = settings.paths.clone();
    off_loop(move || {
        files::write(&paths.standby_signal(), b"", files::mode_for(&paths.data_dir))?;
        conf::restore_copies(&paths).map_err(std::io::Error::other)
    })
    .await?;
    Ok(Gain::OtherData)
}

/// Makes the leader write one record. Its position, which the rewound server must pass before it takes
/// connections, may lie behind the header of a segment that is still empty: an idle leader would
/// write nothing there for up to half a minute.
async fn nudge(source: &Target) {
    // If it cannot be asked, its next write does the same.
    if let Ok(session) = Session::open(source, Terms::default()).await {
        let _ = session.simple("SELECT txid_current()").await;
    }
}

/// Where the leader's history left this timeline; the end of all, if it never did.
async fn fork(context: &Context, host: &str, port: u16, timeline: Timeline) -> anyhow::Result<Lsn> {
    let session = Session::open(&context.settings.remote(host, port), Terms::default()).await?;
    let lineage = replication::lineage(&session).await?;
    let left = lineage.switches.iter().rfind(|switch| switch.timeline <= timeline);
    Ok(left.map_or(Lsn(u64::MAX), |switch| switch.at))
}

/// Copies aside what a repair could lose: the WAL from `from` on, or all that is left.
async fn capsule(
    context: &Context,
    stopped: Stopped,
    from: Option<Lsn>,
) -> anyhow::Result<(Stopped, Capsule)> {
    let paths = context.settings.paths.clone();
    let vault = context.settings.node.matriarch.vault_dir.clone();
    let control = controldata::read(&paths).await?;
    let (stopped, capsule) = off_loop(move || {
        let copied = custody::capsule(&paths, &stopped, &vault, &control, from);
        copied.map(|capsule| (stopped, capsule)).map_err(std::io::Error::other)
    })
    .await?;
    tracing::info!("the WAL that a repair could lose was copied to {}", capsule.directory().display());
    Ok((stopped, capsule))
}

/// `archive_command`, if archiving is on.
fn archive_command(context: &Context) -> Option<String> {
    let parameters = &context.settings.postgres.parameters;
    let on = parameters.get("archive_mode").is_some_and(|mode| mode != "off");
    parameters.get("archive_command").filter(|command| on && !command.is_empty()).cloned()
}
