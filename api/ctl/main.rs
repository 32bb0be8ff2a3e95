//! matriarchctl: looks at a cluster and steers it, as patronictl does.
//!
//! It reads the store, asks members over REST and never touches Postgres's
//! processes or files. It exits with 0 only if what was asked for happened,
//! with 1 if not, with 2 if the command line makes no sense.

mod args;
mod ask;
mod backup;
mod edit;
mod handover;
mod maintain;
mod members;
mod output;
mod pause;
mod progress;
mod query;
mod reach;
#[cfg(test)]
mod reference;
mod relocation;
mod remove;
mod rest;
mod restart;
mod roster;
mod scalar;
mod select;
mod settings;
mod show;
mod store;
mod table;
mod when;
mod why;
mod yaml;

use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Parser;

use args::{Arguments, Command, List};
use output::Format;
use reach::Reach;
use settings::Settings;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            ask::note(format!("Error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Whoever reads our output may stop when it has enough.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .or_else(|| error.root_cause().downcast_ref())
        .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if let Command::Why(wanted @ args::Why { file: Some(file), .. }) = &arguments.command {
        return why::of_file(file, wanted);
    }
    let settings = Settings::read(arguments)?;
    let done = run_with(&settings, &arguments.command);
    if done.as_ref().is_err_and(|error| !is_broken_pipe(error)) {
        settings.warnings.iter().for_each(ask::note);
    }
    done
}

fn run_with(settings: &Settings, command: &Command) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the system gives no resources to run")?;
    runtime.block_on(obey(settings, command))
}

async fn obey(settings: &Settings, command: &Command) -> anyhow::Result<()> {
    let open = |cluster: &Option<String>| {
        let cluster = cluster.clone();
        async move { Reach::open(settings, cluster.as_deref()).await }
    };
    match command {
        Command::List(wanted) => show::list(settings, wanted, false).await,
        Command::Topology(wanted) => {
            let clusters = wanted.clusters.clone();
            let wanted = List {
                clusters,
                extended: false,
                timestamp: false,
                format: Format::Pretty,
                watch: wanted.watch,
            };
            show::list(settings, &wanted, true).await
        }
        Command::History { cluster, format } => show::history(&open(&cluster.cluster).await?, *format).await,
        Command::Version { cluster, members } => show::version(settings, cluster.as_deref(), members).await,
        Command::Dsn { cluster, whom } => show::dsn(&open(&cluster.cluster).await?, whom).await,
        Command::Query(wanted) => query::query(&open(&wanted.cluster.cluster).await?, wanted).await,
        Command::ShowConfig { cluster } => edit::show(&open(&cluster.cluster).await?).await,
        Command::EditConfig(wanted) => edit::edit(&open(&wanted.cluster.cluster).await?, wanted).await,
        Command::Why(wanted) if wanted.last.is_some() || wanted.since.is_some() => {
            why::history(&open(&wanted.cluster.cluster).await?, wanted).await
        }
        Command::Why(wanted) => {
            why::why(&open(&wanted.cluster.cluster).await?, wanted.member.as_deref(), wanted.format).await
        }
        Command::Switchover(wanted) => {
            handover::switchover(&open(&wanted.cluster.cluster).await?, wanted).await
        }
        Command::Failover { cluster, candidate, force } => {
            handover::failover(&open(&cluster.cluster).await?, candidate.clone(), force).await
        }
        Command::Restart(wanted) => restart::restart(&open(&wanted.members.cluster).await?, wanted).await,
        Command::Reload { members, role, force } => {
            maintain::reload(&open(&members.cluster).await?, members, *role, force).await
        }
        Command::Reinit { members, from_leader, wait, force } => {
            maintain::reinit(&open(&members.cluster).await?, members, *from_leader, *wait, force).await
        }
        Command::Pause(wanted) => pause::set(&open(&wanted.cluster.cluster).await?, true, wanted).await,
        Command::Resume(wanted) => pause::set(&open(&wanted.cluster.cluster).await?, false, wanted).await,
        Command::Flush { words, role, force } => flush(settings, words, *role, force).await,
        Command::Handover { members, force } => {
            maintain::handover(&open(&members.cluster).await?, members, force).await
        }
        Command::Store { verb } => store::store(settings, verb).await,
        Command::Remove { cluster, format } => {
            remove::remove(&open(&Some(cluster.clone())).await?, *format).await
        }
    }
}

/// `flush [CLUSTER [MEMBER]...] restart|switchover`.
async fn flush(
    settings: &Settings,
    words: &[String],
    role: args::Role,
    force: &args::Force,
) -> anyhow::Result<()> {
    let Some((target, rest)) = words.split_last() else { bail!("say what to flush: restart or switchover") };
    let (cluster, members) = rest.split_first().map_or((None, [].as_slice()), |(c, m)| (Some(c.as_str()), m));
    let reach = Reach::open(settings, cluster).await?;
    match target.as_str() {
        "restart" => maintain::flush_restart(&reach, members, role, force).await,
        "switchover" => maintain::flush_switchover(&reach).await,
        other => bail!("{other:?} cannot be flushed: the last word is restart or switchover"),
    }
}
