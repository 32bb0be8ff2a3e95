//! A run of the checker: how far it went, what it found, and what that cost.

use std::time::{Duration, Instant};

use stateright::{Checker as _, HasDiscoveries, Model as _};

use super::law::{LAWS, SOMETIMES};
use super::{Action, Model};

/// How far a run goes.
#[derive(Debug, Clone, Copy)]
pub struct Reach {
    /// States that are different, at least, if there are so many.
    pub states: usize,
    /// Steps from the first state.
    pub depth: Option<usize>,
    /// Threads.
    pub threads: usize,
    /// At most this long.
    pub limit: Option<Duration>,
    /// End as soon as this law is broken; absent: any.
    pub until: Option<&'static str>,
}

/// What a run found.
#[derive(Debug)]
pub struct Found {
    /// States seen, those counted that were seen before.
    pub generated: usize,
    /// Different states.
    pub unique: usize,
    /// The longest way from the first state.
    pub depth: usize,
    /// How long it took.
    pub took: Duration,
    /// The most memory that the process had, in MiB; 0 if that is not known.
    pub memory: u64,
    /// Every state within the bounds was seen.
    pub complete: bool,
    /// The laws that were broken, each with a shortest way to it.
    pub broken: Vec<(&'static str, Vec<Action>)>,
    /// What happened that should be possible.
    pub reached: Vec<&'static str>,
}

/// Explores breadth first.
#[must_use]
pub fn check(model: &Model, reach: Reach) -> Found {
    #[allow(
        clippy::disallowed_methods,
        reason = "this measures the checker, nothing in the model waits for it"
    )]
    let began = Instant::now();
    let laws = LAWS.into_iter().filter(|law| reach.until.is_none_or(|until| until == *law)).collect();
    let mut builder =
        model.clone().checker().threads(reach.threads.max(1)).finish_when(HasDiscoveries::AnyOf(laws));
    if let Some(depth) = reach.depth {
        builder = builder.target_max_depth(depth);
    }
    if let Some(limit) = reach.limit {
        builder = builder.timeout(limit);
    }
    let checker = builder.target_state_count(reach.states).spawn_bfs().join();
    let discoveries = checker.discoveries();
    let broken = LAWS.into_iter().filter_map(|law| {
        let path = discoveries.get(law)?.clone();
        Some((law, path.into_actions()))
    });
    let broken: Vec<_> = broken.collect();
    let reached = SOMETIMES.into_iter().filter(|hope| discoveries.contains_key(hope)).collect();
    Found {
        generated: checker.state_count(),
        unique: checker.unique_state_count(),
        depth: checker.max_depth(),
        took: began.elapsed(),
        memory: peak_memory(),
        complete: checker.is_done() && checker.state_count() < reach.states,
        broken,
        reached,
    }
}

/// The high-water mark of this process, in MiB.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}
