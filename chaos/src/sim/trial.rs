//! One simulated life of a cluster: what chance wrote for a seed, played, healed and judged; and the same again, which
//! must come out equal.

use std::collections::BTreeSet;
use std::time::Duration;

use super::World;
use super::plot;

/// How long a healed cluster may take to come together.
const BOUND: Duration = Duration::from_secs(240);

/// How a life ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Broken laws, one sentence each; empty if all held.
    pub violations: Vec<String>,
    /// A digest of everything that happened: equal for equal lives.
    pub digest: u64,
    /// Simulated time under faults and load, without the healing.
    pub lived: Duration,
    /// Events in it.
    pub events: u64,
    /// The reasons that decisions gave.
    pub shown: BTreeSet<String>,
    /// The rows of the catalogue that it went through.
    pub marks: BTreeSet<&'static str>,
    /// Commits that clients were told of, and those that were excused.
    pub commits: (u64, u64),
}

/// Plays a schedule with the chances of this seed, to its end and through the healing.
#[must_use]
pub fn live(seed: u64, schedule: &str, told: bool) -> (World, Duration) {
    let mut world = World::new(Some(seed));
    world.mute = !told;
    let began = world.now;
    plot::play(schedule, &mut world);
    if plot::is_calm(schedule) {
        world.keeps_its_leader();
    }
    let lived = world.now.since(began);
    if world.violations.is_empty() && world.stays.is_none() {
        world.say(">", "all faults end");
        world.converge(BOUND);
    }
    (world, lived)
}

/// Plays a schedule twice; a difference is a violation too: a world that cannot be repeated proves nothing.
#[must_use]
pub fn judge(seed: u64, schedule: &str) -> Verdict {
    let (world, lived) = live(seed, schedule, false);
    let (again, _) = live(seed, schedule, false);
    let mut violations = world.violations;
    if world.digest != again.digest {
        violations.push(format!("the same life went two ways: {:x}, {:x}", world.digest, again.digest));
    }
    Verdict {
        violations,
        digest: world.digest,
        lived,
        events: world.events,
        commits: (world.law.commits, world.law.late),
        shown: world.shown,
        marks: world.marks,
    }
}
