//! `matriarch-chaos sim`: what it is asked on the command line, and how it answers.

use std::path::PathBuf;

use clap::Args;

use super::{many, plot, trial};

/// What to play.
#[derive(Debug, Args)]
pub struct SimArgs {
    /// How many lives to play, each by a seed of its own.
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Simulated minutes of faults and load in each life; then all faults end.
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// Threads to play on [default: one for each core]
    #[arg(long)]
    threads: Option<usize>,
    /// Play this one seed, and print its transcript.
    #[arg(long, conflicts_with_all = ["seeds", "from", "schedule"])]
    seed: Option<u64>,
    /// Play the schedule in this file (with --seed, by that seed's chances), and print its transcript.
    #[arg(long)]
    schedule: Option<PathBuf>,
}

/// Plays, and prints what came of it.
///
/// # Errors
/// When a law was broken: the seed that shows it.
pub fn run(asked: &SimArgs) -> anyhow::Result<()> {
    if let Some(seed) = asked.seed {
        return one(seed, &plot::script(seed, asked.minutes));
    }
    let threads = asked.threads.map_or_else(std::thread::available_parallelism, |count| {
        count.try_into().map_err(std::io::Error::other)
    });
    let tally = many::play(asked.from, asked.seeds, asked.minutes, threads?.get());
    println!(
        "{} lives, each played twice with the same result: {:.1} cluster-hours under faults and load, {:.0} in each minute of one core",
        tally.lives,
        tally.lived.as_secs_f64() / 3600.0,
        tally.rate(),
    );
    println!(
        "{} events, {} commits, {} of them late; {} rows: {:?}",
        tally.events,
        tally.commits,
        tally.late,
        tally.marks.len(),
        tally.marks
    );
    println!("{} reasons", tally.shown.len());
    for (seed, why) in tally.failed.iter().take(40) {
        println!("seed {seed}: {}", why.join("; "));
    }
    anyhow::ensure!(tally.failed.is_empty(), "{} of {} lives broke a law", tally.failed.len(), tally.lives);
    Ok(())
}

fn one(seed: u64, schedule: &str) -> anyhow::Result<()> {
    let (world, _) = trial::live(seed, schedule, true);
    println!("{schedule}\n----\n{}", world.log.join("\n"));
    anyhow::ensure!(world.violations.is_empty(), "seed {seed}: {}", world.violations.join("; "));
    Ok(())
}
