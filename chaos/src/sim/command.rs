//! `matriarch-chaos sim`: what it is asked on the command line, and how it answers.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use super::{catalogue, many, plot, reasons, shrink, trial};

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
    #[arg(long, conflicts_with_all = ["seeds", "from"])]
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
    if asked.seed.is_some() || asked.schedule.is_some() {
        let seed = asked.seed.unwrap_or(0);
        let schedule = match &asked.schedule {
            Some(file) => {
                std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?
            }
            None => plot::script(seed, asked.minutes),
        };
        return one(seed, &schedule);
    }
    let threads = asked.threads.map_or_else(std::thread::available_parallelism, |count| {
        count.try_into().map_err(std::io::Error::other)
    });
    let tally = many::play(asked.from, asked.seeds, asked.minutes, threads?.get());
    tell(&tally);
    let Some((seed, why)) = tally.failed.first_key_value() else { return Ok(()) };
    let schedule = shrink::shrink(&plot::script(*seed, asked.minutes), |schedule| {
        !trial::live(*seed, schedule, false).0.violations.is_empty()
    });
    println!(
        "\nseed {seed}: {}\nthe shortest schedule found that shows it (cargo sim --seed {seed} --schedule FILE):\n{schedule}",
        why.join("; ")
    );
    anyhow::bail!("{} of {} lives broke a law", tally.failed.len(), tally.lives)
}

fn tell(tally: &many::Tally) {
    println!(
        "{} lives, each played twice with the same result: {:.1} cluster-hours under faults and load, {:.0} in each minute of one core",
        tally.lives,
        tally.lived.as_secs_f64() / 3600.0,
        tally.rate(),
    );
    println!(
        "{} events; {} commits, {} of them by an older reign while an assumption was broken on purpose",
        tally.events, tally.commits, tally.late
    );
    let (rows, missed) = (catalogue::ROWS.len(), catalogue::missed(&tally.marks));
    println!(
        "{} of the catalogue's {rows} rows, {} not modelled, not met: {}",
        tally.marks.len(),
        catalogue::UNMODELLED.len(),
        list(&missed),
    );
    println!(
        "{} of {} reasons, {} shown by scenarios only, not met: {}",
        tally.shown.len(),
        reasons::declared().len(),
        reasons::ELSEWHERE.len(),
        list(&reasons::missed(&tally.shown)),
    );
    for (seed, why) in tally.failed.iter().take(20) {
        println!("seed {seed}: {}", why.join("; "));
    }
}

fn list<S: AsRef<str>>(missed: &[S]) -> String {
    let names: Vec<&str> = missed.iter().map(AsRef::as_ref).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(" ") }
}

fn one(seed: u64, schedule: &str) -> anyhow::Result<()> {
    let (world, _) = trial::live(seed, schedule, true);
    println!("{schedule}\n----\n{}", world.log.join("\n"));
    anyhow::ensure!(world.violations.is_empty(), "seed {seed}: {}", world.violations.join("; "));
    Ok(())
}
