//! The daemon beside one Postgres server: it looks and it acts. What to do is
//! decided by the library of this package, which can do nothing.

mod act;
mod alarm;
mod alone;
mod command;
mod complaints;
mod consent;
mod crash;
mod custody;
mod disk;
mod failsafe;
mod fence;
#[path = "../fencing/mod.rs"]
#[allow(dead_code, reason = "the fencer uses the rest")]
mod fencing;
mod instance;
mod job;
mod lease;
mod lineage;
mod logs;
mod mover;
mod node;
mod observe;
mod peers;
mod postgres;
mod publish;
mod reach;
mod recorder;
mod remembered;
mod requests;
mod say;
mod serve;
mod settings;
mod source;
mod start;
mod synchronous;
mod task;
mod version;
mod way;
mod ways;
mod witness;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Keeps a PostgreSQL cluster available: the daemon beside one Postgres server.
#[derive(Parser)]
#[command(name = "matriarch", disable_version_flag = true, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Verb>,
    /// The configuration: a YAML file, or a directory of them
    configfile: Option<PathBuf>,
    /// Print the version
    #[arg(long)]
    version: bool,
    /// Report every problem of the configuration, and end
    #[arg(long)]
    validate_config: bool,
}

#[derive(Subcommand)]
enum Verb {
    /// Run the daemon
    Run {
        /// The configuration: a YAML file, or a directory of them
        configfile: Option<PathBuf>,
    },
    /// Be a voter of the embedded store, without Postgres
    Witness {
        /// A configuration with the section raft: a YAML file, or a directory of them
        configfile: Option<PathBuf>,
    },
    /// Report every problem of a configuration, and end
    Check {
        /// The configuration: a YAML file, or a directory of them
        configfile: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if cli.version {
        println!("{}", start::version_text());
        return ExitCode::SUCCESS;
    }
    let ended = match cli.command {
        Some(Verb::Check { configfile }) => return exit(start::check(configfile.as_deref())),
        Some(Verb::Witness { configfile }) => run(witness::run(configfile.as_deref())),
        Some(Verb::Run { configfile }) => run(start::run(configfile.as_deref())),
        None if cli.validate_config => return exit(start::check(cli.configfile.as_deref())),
        None => run(start::run(cli.configfile.as_deref())),
    };
    match ended {
        Ok(code) => exit(code),
        Err(error) => {
            eprintln!("matriarch: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(program: impl Future<Output = anyhow::Result<i32>>) -> anyhow::Result<i32> {
    start::crypto()?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(8).build()?;
    let code = runtime.block_on(program);
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    code
}

fn exit(code: i32) -> ExitCode {
    u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from)
}
