//! Scripts by chance: what may befall a cluster, in words that a scenario can repeat. Each life has only some of the
//! kinds of faults, as chance has it, so that some lives are full of one kind (swarm testing).

use super::World;
use super::chance::Dice;
use super::script;

/// A node that a cluster does not have is spared.
const NODES: [&str; 4] = ["n1", "n2", "n3", "n4"];
const JOBS: [&str; 12] = [
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
    "initdb",
    "first-start",
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

/// Faults of one family come together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Crashes,
    Stops,
    Sleeps,
    Clocks,
    Links,
    Lines,
    Store,
    Keys,
    Postgres,
    Jobs,
    Operators,
    Modes,
    Disks,
}

const FAMILIES: [Family; 13] = [
    Family::Crashes,
    Family::Stops,
    Family::Sleeps,
    Family::Clocks,
    Family::Links,
    Family::Lines,
    Family::Store,
    Family::Keys,
    Family::Postgres,
    Family::Jobs,
    Family::Operators,
    Family::Modes,
    Family::Disks,
];

/// Before a key is deleted under a leader, it must be able to hear of it: otherwise nothing is promised any more.
const HEARS: &str = "heal\nstore up\nwait 4s\n";

/// One thing of this kind that befalls the cluster, in one line or a few.
fn event(kind: Family, dice: &mut Dice) -> String {
    let (node, other) = (dice.pick(&NODES), dice.pick(&["n1", "n2", "n3", "n4", "store"]));
    let roll = dice.roll(12);
    match kind {
        Family::Crashes => match roll {
            0..=2 => format!("kill {node}"),
            3..=6 => format!("start {node}"),
            7 => format!("kill-postmaster {node}"),
            8 => format!("kill-postmaster {node} leaving backends"),
            9 => format!("kill-daemon {node}"),
            10 => format!("kill-daemon {node}\nwait 2s\nstart {node}"),
            _ => format!("kill-fencer {node}"),
        },
        Family::Stops => match roll {
            0..=2 => format!("stop-daemon {node}"),
            3 => format!("stop-lease {node}"),
            4 => format!("stop-turns {node}"),
            5 => format!("stop-fencer {node}"),
            6 => format!("stop-daemon {node}\nwait {}ms\ncontinue {node}", dice.roll(3000)),
            _ => format!("continue {node}"),
        },
        Family::Sleeps => match roll {
            0..=3 => format!("sleep {node} {}ms", dice.roll(2500)),
            4..=9 => format!("sleep {node} {}s", 1 + dice.roll(90)),
            _ => format!("halt {node} {}s", 1 + dice.roll(60)),
        },
        Family::Clocks => match roll {
            0..=3 => {
                format!("slew {node} {}{}", if dice.roll(2) == 0 { "-" } else { "" }, dice.roll(100_001))
            }
            4..=6 => format!("wall {node} {}{}", if dice.roll(2) == 0 { "-" } else { "" }, dice.roll(3600)),
            _ => format!("slew {node} {}", dice.roll(200)),
        },
        Family::Links => links(roll, node, other, dice),
        Family::Lines => match roll {
            0..=2 => format!("loses {node} {}", dice.roll(40)),
            3 => format!("loses {node} 0"),
            4 => format!("far {node} {}s", dice.roll(20)),
            5 => format!("far {node} 0s"),
            6 => format!("store late {}", dice.roll(600)),
            7 | 8 => "store late 0".to_owned(),
            9 => format!("store watches-lag {}s", dice.roll(30)),
            _ => "store watches-lag 0s".to_owned(),
        },
        Family::Store => match roll {
            0..=2 => "store leader-dies".to_owned(),
            3 => "store down".to_owned(),
            4..=6 => "store up".to_owned(),
            7 => "store full".to_owned(),
            8 => "store has-space".to_owned(),
            9 => format!("store down\nwait {}s\nstore up", 60 + dice.roll(60)),
            _ => format!("{HEARS}store jumps {}s", 1 + dice.roll(10)),
        },
        Family::Keys => match roll {
            0..=2 => format!("{HEARS}delete-leader-key"),
            3..=5 => format!("{HEARS}revoke {node}"),
            6 => format!("{HEARS}store leader-dies\nrevoke {node}"),
            7 => format!("{HEARS}wipe-store"),
            8 => format!("{HEARS}overwrite-leader-key {node}\nwait {}s\ndelete-leader-key", dice.roll(20)),
            9 => "store saved".to_owned(),
            10 => backup(dice),
            _ => format!("forget-member {node}"),
        },
        Family::Postgres => postgres(roll, node, other, dice),
        Family::Jobs => match roll {
            // An immediate stop that takes long is the hard deadline's business, not a decision's.
            0..=4 => format!("slow {node} {} {}s", dice.pick(&JOBS[..8]), 1 + dice.roll(20)),
            5 => format!("crash-on-start {node} {}", 1 + dice.roll(4)),
            _ => format!("fail {node} {}", dice.pick(&JOBS)),
        },
        Family::Operators => operators(roll, node, dice),
        Family::Modes => match roll {
            0 => format!(
                "withhold {node} a setting that does not work here\nwait {}s\nwithhold {node}",
                dice.roll(30)
            ),
            _ => format!("set {}", dice.pick(&MODES)),
        },
        Family::Disks => disks(roll, node, dice),
    }
}

/// A backup of the store is put back, in half of the cases after another has been promoted.
fn backup(dice: &mut Dice) -> String {
    if dice.roll(2) == 0 {
        return format!("{HEARS}store restored");
    }
    let (later, away) = (dice.roll(60), dice.roll(20));
    format!("store saved\nkill @leader\nwait {later}s\n{HEARS}store restored\nwait {away}s\n{ALL_START}")
}

/// What lies on disks: repairs that are interrupted, copies, what cannot be read, what did not arrive whole.
fn disks(roll: u64, node: &str, dice: &mut Dice) -> String {
    match roll {
        0..=2 => rewind_and("kill @rewind", dice),
        3 => rewind_and("kill-daemon @rewind", dice),
        4 | 5 => rewind_and("kill @leader", dice),
        6 => format!("unreadable {node}\nwait {}s\nreadable {node}", dice.roll(30)),
        7 => format!("kill {node}\nrestore {node} from @leader\nwait {}s\nstart {node}", dice.roll(5)),
        // In a synchronous mode only people can help if the daemon dies, too, before it has put the record back.
        8 => format!(
            "set synchronous_mode=off\nwait 3s\ntorn n2\nkill @leader\nwait {}s\n{ALL_START}",
            dice.roll(90)
        ),
        9 => format!("suspend {node}\nwait {}s\nrespond {node}", dice.roll(30)),
        10 => "unrewindable @leader\npartition @leader\nwait 40s\nheal".to_owned(),
        _ => "kill @leader\nwait 1s\nwipe-store\nwait 20s\n".to_owned() + ALL_START,
    }
}

const ALL_START: &str = "start n1\nstart n2\nstart n3\nstart n4";

/// A former leader comes back and is rewound, slowly; in the midst of it this happens.
fn rewind_and(what: &str, dice: &mut Dice) -> String {
    let slow: String = NODES.iter().map(|node| format!("slow {node} rewind 6s\n")).collect();
    let (later, away) = (dice.roll(5000), dice.roll(20));
    format!(
        "{slow}partition @leader\nwait 40s\nheal\nawait rewind 20s\nwait {later}ms\n{what}\nwait {away}s\n{ALL_START}"
    )
}

fn links(roll: u64, node: &str, other: &str, dice: &mut Dice) -> String {
    match roll {
        0 => format!("partition {node}"),
        1 => format!("cut {node} store"),
        2 => format!("cut {node} {other}"),
        3 if other != "store" => format!("cut-wal {node} {other}"),
        4 if other != "store" => format!("cut-rest {node} {other}"),
        5 => format!("deafen store {node}"),
        6 => format!("deafen {node} {other}"),
        7 => {
            format!("flap {} {}s 4", dice.pick(&["@leader", node]), 1 + dice.roll(15))
        }
        _ => "heal".to_owned(),
    }
}

fn postgres(roll: u64, node: &str, other: &str, dice: &mut Dice) -> String {
    match roll {
        0 => format!("freeze {node}"),
        1 => format!("thaw {node}"),
        2 => format!("hang {node}"),
        3 => format!("respond {node}"),
        4 => format!("redo @leader {:x}\nkill-postmaster @leader", dice.roll(0x2000)),
        5 => format!("slack {node} {:x}", dice.roll(0x100)),
        6 => format!("pause-replay {node}"),
        7 => format!("resume-replay {node}"),
        8 => format!("behind {node} {:x}", 1 + dice.roll(0x40)),
        9 => format!("set-names {node}"),
        10 if other != "store" => format!("stranger {node} {other}"),
        _ => format!("slack {node} 0"),
    }
}

fn operators(roll: u64, node: &str, dice: &mut Dice) -> String {
    match roll {
        0 => "switchover".to_owned(),
        1 => format!("switchover {node}"),
        2 => {
            let slow = "slow @leader handover 5s\nswitchover\nawait handover 10s\nkill-daemon @handover";
            format!("{slow}\nwait {}s\n{ALL_START}", dice.roll(20))
        }
        3 => format!("failover {node}"),
        4 => format!("switchover {node} in {}s", dice.roll(30)),
        5 => format!("restart {node}"),
        6 => format!("reinit {node}"),
        7 => format!("stop {node}\nwait {}s\nstart {node}", dice.roll(20)),
        8 => format!("leave {node}\nwait {}s\nstart {node}", dice.roll(20)),
        9 => "pause".to_owned(),
        10 => format!(
            "pause\nwait 3s\npartition @leader\nwait 40s\nfailover {node}\nwait {}s\nresume",
            dice.roll(9)
        ),
        _ => "resume\nwait 2s".to_owned(),
    }
}

/// How the cluster is when its life begins.
fn beginning(dice: &mut Dice) -> Vec<String> {
    let cluster = match dice.roll(16) {
        0 => "cluster n1=empty n2=empty n3=empty",
        1 => "cluster n1=empty n2=empty n3=empty\nno-bootstrap n2\nno-bootstrap n3\nfail n1 initdb",
        2 | 3 => "cluster n1=primary@3/500 n2=replica@3/500",
        4 | 5 => "cluster n1=replica@2/500 n2=primary@2/500 n3=replica@2/480 n4=replica@2/500",
        6 => "cluster n1=primary@1/500 n2=replica@1/500 n3=replica@1/500 n4=foreign@1/300",
        7 => {
            "cluster n1=absent@1/500 n2=standby@1/500 n3=standby@1/500\nwait 20s\nstart n1\nwait 10s\nstart n2\nstart n3"
        }
        _ => "cluster n1=primary@1/500 n2=replica@1/500 n3=replica@1/500",
    };
    let mut lines: Vec<String> = cluster.lines().map(str::to_owned).collect();
    lines.push(format!("set ttl={}", [5, 10, 30][usize::try_from(dice.roll(3)).unwrap_or(0)]));
    if dice.roll(3) == 0 {
        lines.push(format!(
            "set primary_start_timeout={}",
            [0, 5][usize::try_from(dice.roll(2)).unwrap_or(0)]
        ));
    }
    if dice.roll(8) == 0 {
        lines.push("set primary_race_backoff=20".to_owned());
    }
    if dice.roll(3) == 0 {
        lines.push("set maximum_lag_on_failover=200".to_owned());
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
    if dice.roll(2) == 0 {
        lines.push(format!("store-clock {}{}", if dice.roll(2) == 0 { "-" } else { "" }, dice.roll(91)));
    }
    lines
}

/// A script of about this many minutes. One in thirty is calm: nothing befalls the cluster.
#[must_use]
pub fn script(seed: u64, minutes: u64) -> String {
    let mut dice = Dice::new(seed, 0);
    let mut lines = beginning(&mut dice);
    if dice.roll(30) == 0 {
        lines.extend((0..minutes).map(|_| "wait 60s".to_owned()));
        return lines.join("\n");
    }
    let mut kinds: Vec<Family> = FAMILIES.into_iter().filter(|_| dice.roll(2) == 0).collect();
    kinds.push(FAMILIES[usize::try_from(dice.roll(FAMILIES.len() as u64)).unwrap_or(0)]);
    let mut left = minutes * 60_000;
    while left > 0 {
        let kind = kinds[usize::try_from(dice.roll(kinds.len() as u64)).unwrap_or(0)];
        lines.extend(event(kind, &mut dice).lines().map(str::to_owned));
        let span = match dice.roll(3) {
            0 => dice.roll(300),
            1 => dice.roll(5_000),
            _ => dice.roll(60_000),
        };
        lines.push(format!("wait {span}ms"));
        left = left.saturating_sub(span.max(100));
    }
    if dice.roll(40) == 0 {
        lines.extend(END.lines().map(str::to_owned));
    }
    lines.join("\n")
}

/// All data directories are gone (F145): nothing is created, and only people can help.
const END: &str = "heal
store up
store has-space
kill n1
kill n2
kill n3
kill n4
wipe n1
wipe n2
wipe n3
wipe n4
start n1
start n2
start n3
start n4
wait 60s
stays the data directories are gone";

/// Whether nothing befalls a cluster in this script.
#[must_use]
pub fn is_calm(script: &str) -> bool {
    script.lines().all(|line| {
        ["cluster", "set", "repair", "store-clock", "wait"].iter().any(|verb| line.starts_with(verb))
            && !line.contains("=empty")
    })
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
