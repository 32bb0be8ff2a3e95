//! Which steps decisions ask for, of which local server: noted over a whole exploration, and printed as the book's page.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use coordinator::{Step, StopMode, Task};

use super::refusal::refusal;
use super::state::{Control, Dir, Node, Process};

/// What a node's server and directory are, as far as that decides what can be done with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// No data directory.
    Empty,
    /// An interrupted rewind.
    Unfinished,
    /// A primary, stopped cleanly.
    StoppedPrimary,
    /// A primary that crashed.
    CrashedPrimary,
    /// A stopped standby.
    StoppedStandby,
    /// No postmaster, but other processes.
    Remnants,
    /// A running standby.
    Standby,
    /// A running primary.
    Primary,
}

/// Every place.
pub const PLACES: [Place; 8] = [
    Place::Empty,
    Place::Unfinished,
    Place::StoppedPrimary,
    Place::CrashedPrimary,
    Place::StoppedStandby,
    Place::Remnants,
    Place::Standby,
    Place::Primary,
];

impl Place {
    /// Where this node is.
    #[must_use]
    pub fn of(node: &Node) -> Self {
        let server = &node.server;
        match (server.process, server.dir) {
            (Process::Remnants, _) => Self::Remnants,
            (Process::Up, _) if server.primary => Self::Primary,
            (Process::Up, _) => Self::Standby,
            (Process::Gone, Dir::Empty) => Self::Empty,
            (Process::Gone, Dir::Toxic) => Self::Unfinished,
            (Process::Gone, Dir::Whole) => match server.control {
                _ if server.signal => Self::StoppedStandby,
                Control::ShutDown => Self::StoppedPrimary,
                Control::InProduction => Self::CrashedPrimary,
                Control::ShutDownInRecovery | Control::InRecovery => Self::StoppedStandby,
            },
        }
    }

    /// As people say it.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Empty => "no directory",
            Self::Unfinished => "interrupted rewind",
            Self::StoppedPrimary => "stopped primary",
            Self::CrashedPrimary => "crashed primary",
            Self::StoppedStandby => "stopped standby",
            Self::Remnants => "remnants",
            Self::Standby => "running standby",
            Self::Primary => "running primary",
        }
    }
}

/// The kinds of steps, a task for each way to begin one. Their order is that of [`ask`].
pub const ASKED: [&str; 39] = [
    "claim initialize",
    "write initialize",
    "give up initialize",
    "restore config",
    "acquire",
    "adopt",
    "release",
    "clear failover",
    "ask",
    "read lineage",
    "follow",
    "slots",
    "write history",
    "write sync",
    "delete sync",
    "set names",
    "evict",
    "cancel",
    "seek consent",
    "answer",
    "exit",
    "initdb",
    "first start",
    "start standby",
    "restart in place",
    "promote",
    "stop (handover)",
    "stop (fast)",
    "stop (immediate)",
    "kill remnants",
    "checkpoint",
    "clone",
    "recover crash",
    "rewind",
    "retire",
    "restart",
    "seek leave",
    "go on",
    "claim timeline",
];

/// The number of a step's kind.
#[must_use]
pub fn ask(step: &Step) -> usize {
    match step {
        Step::ClaimInitialize => 0,
        Step::WriteInitialize(_) => 1,
        Step::GiveUpInitialize => 2,
        Step::RestoreConfig => 3,
        Step::Acquire(_) => 4,
        Step::Adopt { .. } => 5,
        Step::Release { .. } => 6,
        Step::ClearFailover { .. } => 7,
        Step::Ask(_) => 8,
        Step::ReadLineage(_) => 9,
        Step::Follow(_) => 10,
        Step::Slots(_) => 11,
        Step::WriteHistory => 12,
        Step::WriteSync { .. } => 13,
        Step::DeleteSync { .. } => 14,
        Step::SetNames(_) => 15,
        Step::Evict(_) => 16,
        Step::Cancel => 17,
        Step::SeekConsent(_) => 18,
        Step::Answer(..) => 19,
        Step::Exit { .. } => 20,
        Step::SeekLeave(_) => 36,
        Step::GoOn { .. } => 37,
        Step::ClaimTimeline(_) => 38,
        Step::Begin(task) => match task {
            Task::Initdb => 21,
            Task::FirstStart { .. } => 22,
            Task::StartStandby { .. } => 23,
            Task::RestartInPlace { .. } => 24,
            Task::Promote { .. } => 25,
            Task::Stop(StopMode::Handover) => 26,
            Task::Stop(StopMode::Fast) => 27,
            Task::Stop(StopMode::Immediate) => 28,
            Task::KillRemnants => 29,
            Task::Checkpoint => 30,
            Task::Clone { .. } => 31,
            Task::RecoverCrash => 32,
            Task::Rewind { .. } => 33,
            Task::Retire { .. } => 34,
            Task::Restart { .. } => 35,
        },
    }
}

/// What was asked where.
#[derive(Debug, Default)]
pub struct Table {
    asked: [AtomicU64; PLACES.len()],
}

impl Table {
    /// Notes the steps of a decision.
    pub fn note(&self, node: &Node, steps: &[Step]) {
        let bits = steps.iter().fold(0, |bits, step| bits | 1_u64 << ask(step));
        let row = self.asked.get(Place::of(node) as usize);
        // A store for every turn would have the threads wait for each other.
        if let Some(row) = row.filter(|row| row.load(Ordering::Relaxed) & bits != bits) {
            row.fetch_or(bits, Ordering::Relaxed);
        }
    }

    /// Whether this was ever asked here.
    #[must_use]
    pub fn was_asked(&self, place: Place, step: usize) -> bool {
        self.asked.get(place as usize).is_some_and(|row| row.load(Ordering::Relaxed) & (1 << step) != 0)
    }

    /// What was asked of a server of which the executor refuses it.
    #[must_use]
    pub fn refused(&self) -> Vec<String> {
        let mut found = Vec::new();
        for place in PLACES {
            for (step, words) in ASKED.iter().enumerate().filter(|(step, _)| self.was_asked(place, *step)) {
                found.extend(
                    refusal(place, step).map(|why| format!("{words}, asked of: {}: {why}", place.words())),
                );
            }
        }
        found
    }

    /// The page of the book: `×` asked, `–` never asked and refused, empty: neither.
    #[must_use]
    pub fn page(&self) -> String {
        let mut page = String::from("| step |");
        PLACES.iter().for_each(|place| page.extend([" ", place.words(), " |"]));
        page.push_str("\n|---|");
        PLACES.iter().for_each(|_| page.push_str("---|"));
        for (step, words) in ASKED.iter().enumerate() {
            // Writing into a string cannot fail.
            let _ = write!(page, "\n| {words} |");
            for place in PLACES {
                let sign = match (self.was_asked(place, step), refusal(place, step)) {
                    (true, _) => " × |",
                    (false, Some(_)) => " – |",
                    (false, None) => " |",
                };
                page.push_str(sign);
            }
        }
        page.push('\n');
        page
    }
}
