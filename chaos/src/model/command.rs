//! `matriarch-chaos model`: runs the checker and prints what it found.

use anyhow::bail;

use super::check::{Found, Reach, check};
use super::planted::PLANTED;
use super::reach::liveness;
use super::state::Left;
use super::{BOUNDS, Mode, Model};

/// What to check.
#[derive(Debug, Clone, clap::Args)]
pub struct Order {
    /// Which commits wait for whom; all of them, one after the other, if it is left out.
    #[arg(long, value_enum)]
    sync: Option<Mode>,
    /// Stop once so many states, repetitions counted, have been seen in each mode.
    #[arg(long, default_value_t = 2_000_000)]
    states: usize,
    /// Go no further than so many steps from the first state.
    #[arg(long)]
    depth: Option<usize>,
    /// How many threads.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Look for the planted faults instead, and fail unless each is found.
    #[arg(long)]
    planted: bool,
    /// Look backwards instead, over so many states: can a primary be admitted again from everywhere?
    #[arg(long)]
    liveness: Option<usize>,
    /// What may happen: crashes, pauses, hosts cut off, writes, switchovers, lost answers, late views, reigns after the first.
    #[arg(long, value_delimiter = ',', num_args = 1)]
    bounds: Option<Vec<u8>>,
    /// Print the table of steps asked of each kind of local server.
    #[arg(long)]
    table: bool,
}

const MODES: [Mode; 4] = [Mode::Off, Mode::On, Mode::Strict, Mode::Quorum];

/// Runs it.
///
/// # Errors
/// If a law is broken, a planted fault is not found, or something that should happen never does.
pub fn run(order: &Order) -> anyhow::Result<()> {
    if order.planted {
        return planted(order.threads);
    }
    let modes = order.sync.map_or(MODES.to_vec(), |mode| vec![mode]);
    let mut sound = true;
    for mode in modes {
        let model = Model::new(mode, bounds(order), None);
        if let Some(states) = order.liveness {
            sound &= backwards(&model, mode, states);
            continue;
        }
        let reach = Reach {
            states: order.states,
            depth: order.depth,
            threads: order.threads,
            limit: None,
            until: None,
        };
        let found = check(&model, reach);
        sound &= tell(&model, mode, &found);
        if order.table {
            println!("{}", model.table.page());
        }
    }
    if !sound {
        bail!("a law is broken, or somebody is stuck: see above");
    }
    Ok(())
}

fn bounds(order: &Order) -> Left {
    match order.bounds.as_deref() {
        Some(&[crashes, pauses, cuts, writes, switchovers, lost, lags, reigns]) => {
            Left { crashes, pauses, cuts, writes, switchovers, lost, lags, reigns }
        }
        _ => BOUNDS,
    }
}

fn tell(model: &Model, mode: Mode, found: &Found) -> bool {
    println!(
        "{mode:?}: {} different states ({} seen), {} steps deep{}, {:.1} s, {} MiB; reached: {}",
        found.unique,
        found.generated,
        found.depth,
        if found.complete { ", complete" } else { "" },
        found.took.as_secs_f64(),
        found.memory,
        if found.reached.is_empty() { "nothing".to_owned() } else { found.reached.join(", ") },
    );
    for (law, actions) in &found.broken {
        println!("BROKEN: {law}\n{}", model.tell(actions));
    }
    let refused = model.table.refused();
    for pair in &refused {
        println!("ASKED AND REFUSED: {pair}");
    }
    found.broken.is_empty() && refused.is_empty()
}

fn backwards(model: &Model, mode: Mode, states: usize) -> bool {
    let reached = liveness(model, states);
    println!(
        "{mode:?}: {} states, {} ways between them, {} at the edge; from {} of them nobody is admitted any more",
        reached.states, reached.edges, reached.open, reached.dead
    );
    if let Some(actions) = &reached.stuck {
        println!("STUCK:\n{}", model.tell(actions));
    }
    reached.stuck.is_none()
}

/// Looks for each planted fault.
fn planted(threads: usize) -> anyhow::Result<()> {
    let mut caught = 0;
    for (fault, mode, left, law) in PLANTED {
        let model = Model::new(mode, left, Some(fault));
        let reach = Reach { states: 6_000_000, depth: None, threads, limit: None, until: Some(law) };
        let found = check(&model, reach);
        let by: Vec<&str> = found.broken.iter().map(|(law, _)| *law).collect();
        let steps = found.broken.iter().map(|(_, actions)| actions.len()).min().unwrap_or(0);
        println!(
            "{fault:?}: {} in {} states, {steps} steps, {:.1} s",
            if by.is_empty() { "NOT FOUND".to_owned() } else { by.join(", ") },
            found.unique,
            found.took.as_secs_f64()
        );
        caught += usize::from(by.contains(&law));
    }
    println!("caught/planted: {caught}/{}", PLANTED.len());
    if caught < PLANTED.len() {
        bail!("the checker misses a planted fault");
    }
    Ok(())
}
