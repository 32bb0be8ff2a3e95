//! `matriarch-chaos`: clusters on one machine, to show, to measure and to break.
//!
//! Parses the command line and nothing else.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use chaos::sim::command::SimArgs;
use chaos::{Program, Store, bench, demo, live, load, model, process, relay, replay, report, setup, sim};
use clap::{Parser, Subcommand};

/// Clusters on one machine, to show, to measure and to break.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Three nodes with HAProxy in front, under writes, in a live table.
    Demo {
        /// Play one failover instead, and judge it by the exit status.
        #[arg(long)]
        once: bool,
        /// The coordinator to show.
        #[arg(long, value_enum, default_value = "matriarch")]
        program: Program,
        /// Where the cluster keeps its records [default: embedded; etcd for Patroni]
        #[arg(long, value_enum)]
        store: Option<Store>,
    },
    /// Measures every speed that a coordinator is judged by, and prints a table.
    Bench {
        /// The coordinators to measure.
        #[arg(long, value_enum, default_value = "both")]
        program: Measured,
        /// Where the clusters keep their records; Patroni has etcd always.
        #[arg(long, value_enum, default_value = "etcd")]
        store: Store,
        /// How often each measure is taken.
        #[arg(long, default_value_t = 5)]
        runs: usize,
        /// Write the page of the book (docs/src/benchmarks.md or benchmarks-embedded.md) too.
        #[arg(long)]
        write: bool,
    },
    /// Runs the recorded decisions of nodes through today's judgement, and shows where it decides otherwise.
    ///
    /// Ends with 0 if it never does, with 1 if it does, with 2 if something cannot be read.
    Replay {
        /// A node's matriarch.recorder.dir, or a file in it.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// How many differences are shown.
        #[arg(long, default_value_t = 5)]
        show: usize,
    },
    /// Checks the laws of the cluster in every order of events, up to a bound.
    Model(model::command::Order),
    /// Lives of simulated clusters under faults by chance, each judged by the promises.
    Sim(SimArgs),
    /// Asks one HTTP path as fast as it can, and prints how fast that was.
    #[command(hide = true)]
    Load {
        /// The server.
        server: SocketAddr,
        /// The path to ask for.
        #[arg(long, default_value = "/primary")]
        path: String,
        /// Connections at the same time.
        #[arg(long, default_value_t = 16)]
        connections: usize,
        /// For how long.
        #[arg(long, default_value_t = 5)]
        seconds: u64,
    },
    /// Stands for the network between the members of an embedded store.
    #[command(hide = true)]
    Relay {
        /// LISTEN=MEMBER, two addresses each.
        pairs: Vec<String>,
    },
    /// Waits for the end of stdin, then ends every process of a cluster and removes its directory.
    #[command(hide = true)]
    Reap {
        /// The cluster's directory.
        dir: PathBuf,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Measured {
    Matriarch,
    Patroni,
    Both,
}

async fn bench(measured: Measured, store: Store, runs: usize, write: bool) -> anyhow::Result<()> {
    if store == Store::Embedded && measured != Measured::Matriarch {
        anyhow::bail!("only matriarch has an embedded store: write --program matriarch too");
    }
    let (programs, only) = match measured {
        Measured::Matriarch => (vec![Program::Matriarch], " --program matriarch"),
        Measured::Patroni => (vec![Program::Patroni], " --program patroni"),
        Measured::Both => (vec![Program::Matriarch, Program::Patroni], ""),
    };
    let mut all = Vec::new();
    for program in programs {
        all.push((program, bench::measure(program, store, runs).await?));
    }
    let (on, file) = match store {
        Store::Etcd => ("", "benchmarks.md"),
        Store::Embedded => (" --store embedded", "benchmarks-embedded.md"),
    };
    let command = format!("cargo bench-ha{on}{only} --runs {runs}");
    let page = report::page(store, &report::table(&all), &command, runs, &setup::tools().await?.postgres);
    println!("{page}");
    if write {
        let book = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/src"));
        std::fs::write(book.join(file), page)?;
    }
    Ok(())
}

fn replay(files: &[PathBuf], show: usize) -> ExitCode {
    match replay::run(files, show) {
        Ok(replayed) => {
            print!("{}", replayed.shown);
            println!("{}", replayed.summary());
            if replayed.different == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) }
        }
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::from(2)
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    run(Cli::parse().command).await
}

async fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Demo { once, program, store } => {
            let store = store.unwrap_or(match program {
                Program::Matriarch => Store::Embedded,
                Program::Patroni => Store::Etcd,
            });
            if (program, store) == (Program::Patroni, Store::Embedded) {
                anyhow::bail!("Patroni keeps its records in etcd: leave --store out, or write --store etcd");
            }
            if once { demo::once(program, store).await } else { live::watch(program, store).await }?;
        }
        Command::Bench { program, store, runs, write } => tokio::select! {
            done = bench(program, store, runs, write) => done,
            _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted; everything is being stopped"),
        }?,
        Command::Model(order) => model::command::run(&order)?,
        Command::Sim(asked) => sim::command::run(&asked)?,
        Command::Load { server, path, connections, seconds } => {
            let load = load::run(server, &path, connections, Duration::from_secs(seconds)).await;
            println!("{}", serde_json::to_string(&load)?);
        }
        Command::Replay { files, show } => return Ok(replay(&files, show)),
        Command::Relay { pairs } => relay::run(&pairs).await?,
        Command::Reap { dir } => process::reap(&dir),
    }
    Ok(ExitCode::SUCCESS)
}
