//! The benchmark's table: what was measured, beside what is to be reached.
//!
//! Computes medians and writes text; measures nothing.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use crate::spec::{Program, Store};

/// Everything that is measured, in the order of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Measure {
    /// Write outage of a direct client, in seconds.
    Switchover,
    /// Write outage, in seconds.
    PostmasterKilled,
    /// Acknowledged rows missing afterwards.
    PostmasterKilledLost,
    /// Write outage, in seconds.
    NodeKilledTtl2,
    /// Write outage, in seconds, of a node that does not lead the embedded store.
    NodeKilledTtl3,
    /// Write outage, in seconds, of a node that leads the embedded store too.
    LeadingNodeKilled,
    /// Write outage, in seconds.
    NodeKilledTtl5,
    /// Write outage, in seconds.
    NodeKilledTtl20,
    /// Write outage, in seconds.
    DaemonTerminated,
    /// Start of three empty nodes until all are healthy, in seconds.
    EmptyToHealthy,
    /// Start of the old primary's node until it streams, in seconds.
    Rejoin,
    /// Resident memory of an idle daemon, in MiB.
    Memory,
    /// CPU time of an idle daemon in a minute, in seconds.
    Cpu,
    /// Store revisions in an idle minute.
    StoreWrites,
    /// Time until the embedded store takes a write again after the node that led it was killed, in seconds.
    StoreLeaderKilled,
    /// Entries of the embedded store's log per renewal of a lease, in an idle minute.
    EntriesPerRenewal,
    /// System calls that wait for the disk, per write to the embedded store, on each node.
    FsyncsPerWrite,
    /// Resident memory of an idle witness, in MiB.
    WitnessMemory,
    /// Answers per second.
    Requests,
    /// 99th percentile, in milliseconds.
    RequestP99,
    /// CPU time of the daemon per answer, in milliseconds.
    RequestCpu,
}

const ALL: [Measure; 21] = [
    Measure::Switchover,
    Measure::PostmasterKilled,
    Measure::PostmasterKilledLost,
    Measure::NodeKilledTtl2,
    Measure::NodeKilledTtl3,
    Measure::LeadingNodeKilled,
    Measure::NodeKilledTtl5,
    Measure::NodeKilledTtl20,
    Measure::DaemonTerminated,
    Measure::EmptyToHealthy,
    Measure::Rejoin,
    Measure::Memory,
    Measure::Cpu,
    Measure::StoreWrites,
    Measure::StoreLeaderKilled,
    Measure::EntriesPerRenewal,
    Measure::FsyncsPerWrite,
    Measure::WitnessMemory,
    Measure::Requests,
    Measure::RequestP99,
    Measure::RequestCpu,
];

impl Measure {
    /// What it is, in words; digits after the point; what is to be reached.
    fn described(self) -> (&'static str, usize, &'static str) {
        match self {
            Self::Switchover => ("switchover: writes of a direct client out, s", 2, "≤ 0.30"),
            Self::PostmasterKilled => ("postmaster killed: writes out, s", 2, "≤ 0.40"),
            Self::PostmasterKilledLost => {
                ("postmaster killed: acknowledged rows lost (most in a run)", 0, "0")
            }
            Self::NodeKilledTtl2 => ("node killed, ttl 2: writes out, s", 2, "≤ 3.0"),
            Self::NodeKilledTtl3 => ("node killed, ttl 3: writes out, s", 2, "≤ 3.5"),
            Self::LeadingNodeKilled => ("the same, when it led the store too: writes out, s", 2, "≤ 3.5"),
            Self::NodeKilledTtl5 => ("node killed, ttl 5: writes out, s", 2, "≤ 6.0"),
            Self::NodeKilledTtl20 => ("node killed, ttl 20: writes out, s", 2, ""),
            Self::DaemonTerminated => ("SIGTERM of the leader's daemon: writes out, s", 2, "≤ 0.35"),
            Self::EmptyToHealthy => ("empty to three healthy members, s", 1, "≤ 3"),
            Self::Rejoin => ("old primary's node started until it streams, s", 1, "≤ 1.5"),
            Self::Memory => ("memory of an idle daemon (resident), MiB", 1, "≤ 15"),
            Self::Cpu => {
                ("CPU of an idle daemon, s per minute", 2, "≤ 0.05 (a member of the embedded store: < 0.6)")
            }
            Self::StoreWrites => ("store writes of an idle cluster in 60 s", 0, "0"),
            Self::StoreLeaderKilled => ("the store's leader killed: store not writable, s", 2, "≤ 1.0"),
            Self::EntriesPerRenewal => ("entries of the store's log per renewal", 2, "1"),
            Self::FsyncsPerWrite => ("fsyncs per write to the store, on each node", 2, "≤ 2"),
            Self::WitnessMemory => ("memory of an idle witness (resident), MiB", 1, "< 15"),
            Self::Requests => ("`GET /primary`, 16 connections: answers/s", 0, "≥ 25000"),
            Self::RequestP99 => ("`GET /primary`: p99, ms", 1, "≤ 5"),
            Self::RequestCpu => ("`GET /primary`: CPU of the daemon per answer, ms", 3, "≤ 0.04"),
        }
    }
}

/// What was measured with one program.
#[derive(Debug, Default)]
pub struct Samples {
    values: BTreeMap<Measure, Vec<f64>>,
}

impl Samples {
    /// Adds a value, and says it.
    pub fn add(&mut self, measure: Measure, value: f64) {
        let (words, digits, _) = measure.described();
        eprintln!("  {words}: {value:.digits$}");
        self.values.entry(measure).or_default().push(value);
    }

    /// The median; the maximum where a single bad run counts.
    #[must_use]
    pub fn value(&self, measure: Measure) -> Option<f64> {
        let mut values = self.values.get(&measure)?.clone();
        values.sort_by(f64::total_cmp);
        if measure == Measure::PostmasterKilledLost { values.last() } else { values.get(values.len() / 2) }
            .copied()
    }
}

/// The table in Markdown.
#[must_use]
pub fn table(measured: &[(Program, Samples)]) -> String {
    let mut text = String::from("| |");
    for (program, _) in measured {
        let _infallible = write!(text, " {program} |");
    }
    text.push_str(" to reach |\n|---|");
    text.push_str(&"---|".repeat(measured.len() + 1));
    text.push('\n');
    for measure in ALL {
        let (words, digits, goal) = measure.described();
        if measured.iter().all(|(_, samples)| samples.value(measure).is_none()) {
            continue;
        }
        let _infallible = write!(text, "| {words} |");
        for (_, samples) in measured {
            let cell =
                samples.value(measure).map_or(String::from("–"), |value| format!("{value:.digits$}"));
            let _infallible = write!(text, " {cell} |");
        }
        let _infallible = writeln!(text, " {goal} |");
    }
    text
}

/// The page of the book: the table with machine, command and number of runs.
#[must_use]
pub fn page(store: Store, table: &str, command: &str, runs: usize, postgres: &Path) -> String {
    let (title, what) = match store {
        Store::Etcd => (
            "Benchmarks",
            format!(
                "Three nodes and one etcd on one machine, one client that inserts continuously and records each acknowledged id.\n\
                 Medians of {runs} runs, each on fresh clusters, both programs under the same harness, Patroni 4.1.5 at its fastest\n\
                 settings (ttl 20, loop_wait 1, retry_timeout 3)."
            ),
        ),
        Store::Embedded => (
            "Benchmarks of the embedded store",
            format!(
                "Three nodes on one machine that keep their store themselves, one client that inserts continuously and records\n\
                 each acknowledged id. Medians of {runs} runs, each on fresh clusters, with ttl 3 (2 where it says so), loop_wait 1,\n\
                 retry_timeout 1. All three members write to one disk here, which three hosts would not."
            ),
        ),
    };
    format!(
        "# {title}\n\n\
         {what}\n\n\
         Reproduce it with `{command}`.\n\n\
         Machine: {}; Postgres from `{}`.\n\n{table}",
        machine(),
        postgres.display()
    )
}

fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("unknown CPU", |(_, model)| model);
    let cores = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
    let memory = read("/proc/meminfo");
    let kib = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"));
    let gib = kib.and_then(|kib| kib.trim().parse::<u64>().ok()).unwrap_or_default() / 1_048_576;
    let kernel = read("/proc/sys/kernel/osrelease");
    format!("{cores} cores of {model}, {gib} GiB, Linux {}", kernel.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_medians_and_the_worst_loss() {
        let mut samples = Samples::default();
        for value in [3.0, 1.0, 2.0] {
            samples.add(Measure::Switchover, value);
            samples.add(Measure::PostmasterKilledLost, value);
        }
        assert_eq!(samples.value(Measure::Switchover), Some(2.0));
        assert_eq!(samples.value(Measure::PostmasterKilledLost), Some(3.0));
        let table = table(&[(Program::Matriarch, samples), (Program::Patroni, Samples::default())]);
        assert!(table.contains("writes of a direct client out, s | 2.00 | – | ≤ 0.30 |"), "{table}");
    }
}
