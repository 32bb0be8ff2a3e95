//! Many lives at once: seeds shared out among threads, their figures added up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::{plot, trial};

/// What many lives came to.
#[derive(Debug, Default)]
pub struct Tally {
    /// How many were played.
    pub lives: u64,
    /// Simulated time under faults and load, each life counted once although it is played twice.
    pub lived: Duration,
    /// Simulated events.
    pub events: u64,
    /// Time that the threads took, added up.
    pub worked: Duration,
    /// Seeds whose laws were broken, and how.
    pub failed: BTreeMap<u64, Vec<String>>,
    /// The reasons that decisions gave.
    pub shown: BTreeSet<String>,
    /// For each row of the catalogue of failures, how many lives went through it.
    pub marks: BTreeMap<&'static str, u64>,
    /// Commits that clients were told of.
    pub commits: u64,
    /// Those that an older reign told of while an assumption was broken on purpose.
    pub late: u64,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.lives += other.lives;
        self.lived += other.lived;
        self.events += other.events;
        self.worked += other.worked;
        self.failed.extend(other.failed);
        self.shown.extend(other.shown);
        self.commits += other.commits;
        self.late += other.late;
        for (row, times) in other.marks {
            *self.marks.entry(row).or_default() += times;
        }
    }

    /// Simulated cluster-hours for each minute of one core.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.lived.as_secs_f64() / 60.0 / self.worked.as_secs_f64().max(0.001)
    }
}

/// Plays `seeds` from `first` on, each of this many simulated minutes, on this many threads.
#[must_use]
pub fn play(first: u64, seeds: u64, minutes: u64, threads: usize) -> Tally {
    let next = AtomicU64::new(first);
    let work = || {
        let mut tally = Tally::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + seeds {
                break;
            }
            let verdict = trial::judge(seed, &plot::script(seed, minutes));
            tally.lives += 1;
            tally.lived += verdict.lived;
            tally.events += verdict.events;
            tally.shown.extend(verdict.shown);
            tally.commits += verdict.commits.0;
            tally.late += verdict.commits.1;
            for row in verdict.marks {
                *tally.marks.entry(row).or_default() += 1;
            }
            if !verdict.violations.is_empty() {
                tally.failed.insert(seed, verdict.violations);
            }
        }
        let worked = clock_gettime(ClockId::ThreadCPUTime);
        tally.worked =
            Duration::new(worked.tv_sec.unsigned_abs(), u32::try_from(worked.tv_nsec).unwrap_or(0));
        tally
    };
    let mut all = Tally::default();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            match thread.join() {
                Ok(tally) => all.add(tally),
                Err(cause) => std::panic::resume_unwind(cause),
            }
        }
    });
    all
}
