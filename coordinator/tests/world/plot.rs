//! Scripts by chance: what may befall a cluster, in words that a scenario can repeat.

use super::World;
use super::script;

/// A node that a cluster does not have is spared.
const NODES: [&str; 4] = ["n1", "n2", "n3", "n4"];
const JOBS: [&str; 10] = [
    "promote",
    "start",
    "restart-in-place",
    "rewind",
    "clone",
    "checkpoint",
    "handover",
    "stop",
    "kill-stop",
    "recover",
];

const MODES: [&str; 8] = [
    "synchronous_mode=on",
    "synchronous_mode=quorum",
    "synchronous_mode=off",
    "synchronous_mode_strict=true",
    "synchronous_mode_strict=false",
    "synchronous_node_count=2",
    "failsafe_mode=true",
    "failsafe_mode=false",
];

/// A repeatable sequence of its own, apart from the world's.
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0xD1B5_4A32_D192_ED03)
    }

    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below.max(1)
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[usize::try_from(self.roll(from.len() as u64)).unwrap_or(0)]
    }
}

/// One thing that befalls the cluster.
fn event(dice: &mut Dice) -> String {
    let node = dice.pick(&NODES);
    match dice.roll(31) {
        0 | 1 => format!("kill {node}"),
        2..=4 => format!("start {node}"),
        5 => format!("kill-postmaster {node}"),
        6 => format!("kill-postmaster {node} leaving backends"),
        7 => format!("kill-daemon {node}"),
        8 => format!("partition {node}"),
        9 => format!("cut {node} {}", dice.pick(&["n1", "n2", "n3", "n4", "store"])),
        10..=12 => "heal".into(),
        13 => "store down".into(),
        14 => "store up".into(),
        15 => "switchover".into(),
        16 => format!("switchover {node}"),
        17 => format!("failover {node}"),
        18 => if dice.roll(3) == 0 { "pause" } else { "resume" }.into(),
        // Deleted from under a leader that cannot hear of it, the key promises nothing any more.
        19 => "heal\nstore up\nwait 4s\ndelete-leader-key".into(),
        20 => format!("restart {node}"),
        21 => format!("reinit {node}"),
        22 => format!("freeze {node}"),
        23 => format!("thaw {node}"),
        24 => format!("fail {node} {}", dice.pick(&JOBS)),
        // An immediate stop that takes long is the hard deadline's business, not a decision's.
        25 => format!("slow {node} {} {}s", dice.pick(&JOBS[..8]), 1 + dice.roll(20)),
        26 => format!("hang {node}"),
        27 => format!("stop {node}"),
        29 => format!("set {}", dice.pick(&MODES)),
        28 => format!("redo {node} {:x}", dice.roll(0x2000)),
        _ => format!("switchover {node} in {}s", dice.roll(30)),
    }
}

/// A script of about this many minutes.
pub fn script(seed: u64, minutes: u64) -> String {
    let mut dice = Dice::new(seed);
    let mut lines = vec![match dice.roll(8) {
        0 => "cluster n1=empty n2=empty n3=empty".to_owned(),
        1 => "cluster n1=primary@3/500 n2=replica@3/500".to_owned(),
        2 => "cluster n1=replica@2/500 n2=primary@2/500 n3=replica@2/480 n4=replica@2/500".to_owned(),
        _ => "cluster n1=primary@1/500 n2=replica@1/500 n3=replica@1/500".to_owned(),
    }];
    lines.push(format!("set ttl={}", [5, 10, 30][usize::try_from(dice.roll(3)).unwrap_or(0)]));
    if dice.roll(3) == 0 {
        lines.push("set primary_start_timeout=5".to_owned());
    }
    if dice.roll(2) == 0 {
        lines.push(format!("set {}", dice.pick(&MODES[..2])));
    }
    if dice.roll(3) == 0 {
        lines.push("set failsafe_mode=true".to_owned());
    }
    if dice.roll(2) == 0 {
        lines.push(format!("repair {} rewind after-failed-rewind when-diverged", dice.pick(&NODES)));
    }
    let mut left = minutes * 60_000;
    while left > 0 {
        for _ in 0..dice.roll(3) {
            lines.push(format!("write {} {:x}", dice.pick(&NODES), 1 + dice.roll(0x80)));
        }
        lines.push(event(&mut dice));
        let span = match dice.roll(3) {
            0 => dice.roll(300),
            1 => dice.roll(5_000),
            _ => dice.roll(60_000),
        };
        lines.push(format!("wait {span}ms"));
        left = left.saturating_sub(span.max(100));
    }
    lines.join("\n")
}

/// Plays a script in which a line may be impossible as things stand, such as a write to a replica.
pub fn play(text: &str, world: &mut World) {
    for line in text.lines() {
        // Refused lines change nothing.
        let _ = script::run(line, world);
        if !world.violations.is_empty() {
            return;
        }
    }
}
