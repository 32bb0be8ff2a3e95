//! Jobs that start, stop and promote the local server.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use coordinator::{StopMode, Upstream};
use dcs::{Epoch, Timeline};

use super::{Context, Gain};
use crate::command;
use crate::custody::marker::Work;
use crate::postgres::query::{Session, Terms};
use crate::postgres::run::{self, RunError, Start, Stop};
use crate::postgres::{Stopped, closed, conf, conninfo, controldata, off_loop, process, roles, timelines};

/// How long killing everything of the instance may take.
const KILL: Duration = Duration::from_secs(10);
/// How long a checkpoint before a stop may take; the stop then writes its own.
const CHECKPOINT: Duration = Duration::from_secs(60);
/// How long an immediate shutdown may take before everything is killed.
const IMMEDIATE: Duration = Duration::from_secs(5);
/// How long the start of a standby is waited for: one that needs more of the log than it has is consistent only
/// when it streams, and until the job has ended nobody tells it from whom.
const CONSISTENT: Duration = Duration::from_secs(5);
/// How long a promotion may take: what was received must be replayed first.
const PROMOTION: Duration = Duration::from_secs(600);
/// How long the operator's command after the bootstrap may take.
const POST_BOOTSTRAP: Duration = Duration::from_secs(3600);

/// Starts as a standby that follows `upstream`, or nobody.
pub async fn start_standby(context: &Context, upstream: Option<&Upstream>) -> anyhow::Result<Gain> {
    let stopped = process::kill_all(&context.settings.paths, KILL).await?;
    start_standby_from(context, stopped, upstream, None).await
}

async fn start_standby_from(
    context: &Context,
    stopped: Stopped,
    upstream: Option<&Upstream>,
    timeout: Option<Duration>,
) -> anyhow::Result<Gain> {
    let settings = &context.settings;
    // A standby takes no writes: nothing to enforce until a promotion arms it again.
    context.keeper.flags.disarm();
    let limits = controldata::read(&settings.paths).await?.limits;
    write_standby_conf(context, upstream, &limits).await?;
    let (conf, _) = settings.standby_conf(upstream, &limits);
    let wait = timeout.unwrap_or(settings.postgres.pg_ctl_timeout.min(CONSISTENT));
    start(context, stopped, (Start::Standby, upstream), &conf, None, wait, false).await
}

/// Writes the files that make the server follow `upstream`, and its password.
pub async fn write_standby_conf(
    context: &Context,
    upstream: Option<&Upstream>,
    limits: &std::collections::BTreeMap<&'static str, i64>,
) -> anyhow::Result<bool> {
    let settings = &context.settings;
    if let Some(upstream) = upstream {
        let source = settings.source(&upstream.host, upstream.port);
        let rewind = settings.remote(&upstream.host, upstream.port);
        let file = settings.paths.pgpass.clone();
        off_loop(move || conninfo::write_pgpass(&file, &[&source, &rewind]))
            .await
            .with_context(|| format!("writing {}", settings.paths.pgpass.display()))?;
    }
    let (conf, _) = settings.standby_conf(upstream, limits);
    Ok(conf::put(&settings.paths, &conf).await?.any())
}

/// Starts and waits until it accepts connections. A server that is still recovering
/// when the time is up goes on; the node's loop watches it. Nothing is started once the lease
/// of `reign` has run out. One that is `closed` lets no clients in.
async fn start(
    context: &Context,
    stopped: Stopped,
    (how, upstream): (Start, Option<&Upstream>),
    conf: &conf::Conf,
    reign: Option<Epoch>,
    wait: Duration,
    closed: bool,
) -> anyhow::Result<Gain> {
    let settings = &context.settings;
    let mut line = conf::command_line(&conf.parameters);
    if closed {
        let file = closed::put(&settings.paths, conf, &settings.kept()).await?;
        line.insert("hba_file".to_owned(), file.display().to_string());
    }
    let may = || reign.is_none_or(|epoch| context.keeper.leads_in(epoch));
    let postmaster = Arc::new(run::start(&settings.paths, stopped, how, &line, may).await?);
    context.keeper.flags.cover(&postmaster);
    if !may() {
        // It was made in the very moment in which the lease ran out, perhaps just after the kill.
        process::kill_all(&settings.paths, KILL).await?;
        return Err(RunError::TooLate.into());
    }
    match run::wait_ready(&settings.paths, &postmaster, wait).await {
        Ok(()) => {
            let paths = settings.paths.clone();
            off_loop(move || conf::save_copies(&paths).map_err(std::io::Error::other)).await?;
            Ok(Gain::Started(postmaster, upstream.cloned()))
        }
        Err(RunError::NotReady { .. }) => Ok(Gain::Starting(postmaster, upstream.cloned())),
        Err(error) => Err(error.into()),
    }
}

/// Starts as primary where it was, under the lease that this node still holds.
pub async fn start_primary(context: &Context, epoch: Epoch, closed: bool) -> anyhow::Result<Gain> {
    let stopped = process::kill_all(&context.settings.paths, KILL).await?;
    start_primary_from(context, stopped, epoch, None, closed).await
}

async fn start_primary_from(
    context: &Context,
    stopped: Stopped,
    epoch: Epoch,
    timeout: Option<Duration>,
    closed: bool,
) -> anyhow::Result<Gain> {
    let settings = &context.settings;
    authorise(context, epoch).await?;
    let conf = settings.primary_conf();
    conf::put(&settings.paths, &conf).await?;
    let wait = timeout.unwrap_or(settings.postgres.pg_ctl_timeout);
    start(context, stopped, (Start::Primary, None), &conf, Some(epoch), wait, closed).await
}

/// A fresh proof of ownership, and the fencer armed with its deadline: nothing becomes writable without both.
async fn authorise(context: &Context, epoch: Epoch) -> anyhow::Result<()> {
    let proven = context.keeper.prove().await?;
    ensure!(proven == epoch, "the lease is from another reign than the one this was decided in");
    if let Some(postmaster) = &context.postmaster {
        context.keeper.flags.cover(postmaster);
    }
    context.keeper.flags.arm_surely(&context.settings.paths).await?;
    ensure!(context.keeper.leads_in(epoch), "the lease was lost before the fencer was armed");
    Ok(())
}

/// The first start of a new cluster: as primary, with its roles, and the operator's command run.
pub async fn first_start(context: &Context, epoch: Epoch) -> anyhow::Result<Gain> {
    let settings = &context.settings;
    let gain = start_primary(context, epoch, false).await?;
    let terms = Terms { statement_timeout: Duration::from_secs(30), ..Terms::default() };
    let session = Session::open(&settings.local(), terms).await?;
    let postgresql = &settings.node.postgresql;
    let superuser = &postgresql.superuser;
    if superuser.password.is_some() {
        roles::ensure(&session, &superuser.username, superuser.password.as_ref(), &["SUPERUSER"]).await?;
    }
    let replication = &postgresql.replication;
    if replication.username != superuser.username {
        roles::ensure(&session, &replication.username, replication.password.as_ref(), &["REPLICATION"])
            .await?;
    }
    if let Some(rewind) = postgresql.rewind.as_ref().filter(|rewind| rewind.username != superuser.username) {
        if rewind.username != replication.username {
            roles::ensure(&session, &rewind.username, rewind.password.as_ref(), &[]).await?;
        }
        roles::grant_rewind(&session, &rewind.username).await?;
    }
    if let Some(command) = &settings.node.bootstrap.post_bootstrap {
        post_bootstrap(context, command).await?;
    }
    let paths = settings.paths.clone();
    off_loop(move || Work::Bootstrap.clear(&paths)).await?;
    Ok(gain)
}

/// The operator's command gets the connection string as its only argument (patroni-compat 5.2).
async fn post_bootstrap(context: &Context, command: &str) -> anyhow::Result<()> {
    let settings = &context.settings;
    let target = settings.local();
    let written = conninfo::write_pgpass(&settings.paths.pgpass, &[&target])?;
    let passfile = written.then_some(settings.paths.pgpass.as_path());
    let dsn = conninfo::Conninfo::to(&target, passfile).text(settings.version);
    let words = shlex::split(command)
        .with_context(|| format!("bootstrap.post_bootstrap {command:?} has an open quote"))?;
    let Some((program, arguments)) = words.split_first() else { bail!("bootstrap.post_bootstrap is empty") };
    let mut program = command::Program::new(program.as_str()).args(arguments.iter().map(String::as_str));
    if let Some(passfile) = passfile {
        program = program.env("PGPASSFILE", passfile);
    }
    program
        .arg(dsn)
        .env("PGOPTIONS", "-c synchronous_commit=local -c statement_timeout=0")
        .keeping_environment()
        .succeed(POST_BOOTSTRAP)
        .await?;
    Ok(())
}

/// Ends recovery under the lease; the files are those of a primary afterwards.
pub async fn promote(context: &Context, epoch: Epoch, above: Timeline) -> anyhow::Result<Gain> {
    let settings = &context.settings;
    let (Some(postmaster), Some(session)) = (&context.postmaster, &context.session) else {
        bail!("Postgres does not answer");
    };
    authorise(context, epoch).await?;
    let own = session.look().await?.timeline;
    let paths = settings.paths.clone();
    off_loop(move || timelines::reserve(&paths, own, above).map(drop))
        .await
        .context("marking the timelines that are used already")?;
    let may = || context.keeper.leads_in(epoch);
    let promoted = run::promote(&settings.paths, postmaster, session, PROMOTION, may).await;
    timelines::release(&settings.paths).context("removing the marks of used timelines")?;
    promoted?;
    if conf::put(&settings.paths, &settings.primary_conf()).await?.any() {
        run::reload(postmaster)?;
    }
    Ok(Gain::Promoted)
}

/// Stops the server; at the deadline everything of the instance is killed.
pub async fn stop(context: &Context, mode: StopMode) -> anyhow::Result<Gain> {
    halt(context, mode).await?;
    Ok(Gain::Stopped)
}

async fn halt(context: &Context, mode: StopMode) -> anyhow::Result<Stopped> {
    let settings = &context.settings;
    let stopped = match &context.postmaster {
        None => process::kill_all(&settings.paths, KILL).await?,
        Some(postmaster) => {
            if let (StopMode::Handover, Some(session)) = (mode, &context.session) {
                // It only shortens the stop; the shutdown checkpoints anyway.
                if let Err(error) = session.checkpoint(CHECKPOINT).await {
                    tracing::info!(%error, "no checkpoint before the stop");
                }
            }
            let (how, deadline) = match mode {
                StopMode::Handover | StopMode::Fast => (Stop::Fast, fast_deadline(context)),
                StopMode::Immediate => (Stop::Immediate, IMMEDIATE),
            };
            let halted = run::stop(&settings.paths, postmaster, how, deadline).await?;
            if let Some(why) = halted.killed {
                tracing::warn!("Postgres was killed, and will need crash recovery: {why}");
            }
            halted.proof
        }
    };
    context.keeper.flags.disarm();
    Ok(stopped)
}

fn fast_deadline(context: &Context) -> Duration {
    let limit = context.settings.cluster.primary_stop_timeout;
    if limit.is_zero() { context.settings.postgres.pg_ctl_timeout } else { limit }
}

/// Kills what is left of the instance and sees it gone.
pub async fn kill(context: &Context) -> anyhow::Result<Gain> {
    process::kill_all(&context.settings.paths, KILL).await?;
    context.keeper.flags.disarm();
    Ok(Gain::Stopped)
}

/// Checkpoints while serving.
pub async fn checkpoint(context: &Context) -> anyhow::Result<Gain> {
    let session = Session::open(&context.settings.local(), Terms::default()).await?;
    session.checkpoint(Duration::from_secs(3600)).await?;
    Ok(Gain::Same)
}

/// Stops and starts again in the same role; a leader keeps its lease meanwhile. The start alone
/// counts against `timeout`, as with Patroni.
pub async fn restart(
    context: &Context,
    standby: Option<&Option<Upstream>>,
    timeout: Option<Duration>,
    closed: bool,
) -> anyhow::Result<Gain> {
    let stopped = halt(context, StopMode::Handover).await?;
    match standby {
        Some(upstream) => start_standby_from(context, stopped, upstream.as_ref(), timeout).await,
        None if context.settings.cluster.pause => {
            let conf = context.settings.primary_conf();
            conf::put(&context.settings.paths, &conf).await?;
            let wait = timeout.unwrap_or(context.settings.postgres.pg_ctl_timeout);
            start(context, stopped, (Start::Primary, None), &conf, None, wait, closed).await
        }
        None => {
            let held = context.keeper.tenure.borrow().leading();
            let epoch = held.context("the lease was lost during the restart")?.epoch;
            start_primary_from(context, stopped, epoch, timeout, closed).await
        }
    }
}
