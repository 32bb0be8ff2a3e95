//! Starvation: what is named runs only for a share of the time, as on a host that others keep busy.
//!
//! Processes are stopped and continued in turn, which needs no privilege and no control group; a thread shares one
//! processor with threads that never rest. Nothing is left stopped, however the test ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Pid, Signal, setpriority_process};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::process::signal;

/// How long the processes run in each round, and how long they stand still.
#[derive(Debug, Clone, Copy)]
pub struct Share {
    /// Running.
    pub runs: Duration,
    /// Standing still.
    pub stands: Duration,
}

/// Processes that starve until this is dropped.
#[derive(Debug)]
pub struct Starved {
    enough: Option<Sender<()>>,
    turn: Option<JoinHandle<()>>,
    stops: Arc<AtomicU32>,
}

impl Starved {
    /// Whatever `victims` names at the beginning of each round.
    pub fn processes(victims: impl Fn() -> Vec<i32> + Send + 'static, share: Share) -> Self {
        let (enough, ended) = channel();
        let stops = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&stops);
        let over = move |span| ended.recv_timeout(span) != Err(RecvTimeoutError::Timeout);
        let turn = std::thread::spawn(move || {
            loop {
                let stopped = victims();
                stopped.iter().for_each(|pid| signal(*pid, Signal::STOP));
                let last = over(share.stands);
                if stopped.iter().any(|pid| stands_still(*pid)) {
                    counted.fetch_add(1, Ordering::Relaxed);
                }
                stopped.iter().for_each(|pid| signal(*pid, Signal::CONT));
                if last || over(share.runs) {
                    return;
                }
            }
        });
        Self { enough: Some(enough), turn: Some(turn), stops }
    }

    /// In how many rounds somebody stood still until now.
    #[must_use]
    pub fn stops(&self) -> u32 {
        self.stops.load(Ordering::Relaxed)
    }
}

impl Drop for Starved {
    fn drop(&mut self) {
        drop(self.enough.take());
        if let Some(turn) = self.turn.take() {
            let _ = turn.join();
        }
    }
}

fn stands_still(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
}

/// One thread of another process that shares a processor with `rivals` threads which never rest, until this is dropped.
#[derive(Debug)]
pub struct Crowded {
    tid: Pid,
    home: CpuSet,
    enough: Arc<AtomicBool>,
    rivals: Vec<JoinHandle<()>>,
}

impl Crowded {
    /// The thread gets the lowest priority of ordinary threads (nice 19), its rivals keep theirs.
    ///
    /// # Errors
    /// If the thread is gone, or may not be moved.
    pub fn thread(tid: i32, rivals: u8) -> anyhow::Result<Self> {
        let tid = Pid::from_raw(tid).context("no thread has this number")?;
        let home = sched_getaffinity(Some(tid)).context("read where the thread may run")?;
        let narrow = one_of(&home).context("the thread may run nowhere")?;
        sched_setaffinity(Some(tid), &narrow).context("move the thread")?;
        setpriority_process(Some(tid), 19).context("lower the thread's priority")?;
        let enough = Arc::new(AtomicBool::new(false));
        let rivals = (0..rivals).map(|_| {
            let enough = Arc::clone(&enough);
            std::thread::spawn(move || {
                // Without it the rival would not be one: nothing else is asked of it.
                let _ = sched_setaffinity(None, &narrow);
                while !enough.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            })
        });
        let rivals = rivals.collect();
        Ok(Self { tid, home, enough, rivals })
    }
}

impl Drop for Crowded {
    fn drop(&mut self) {
        self.enough.store(true, Ordering::Relaxed);
        for rival in self.rivals.drain(..) {
            let _ = rival.join();
        }
        // Its priority can be raised again by root alone; a daemon that has the processor for itself does not need it.
        let _ = sched_setaffinity(Some(self.tid), &self.home);
        let _ = setpriority_process(Some(self.tid), 0);
    }
}

/// The first processor of a set.
fn one_of(set: &CpuSet) -> Option<CpuSet> {
    let first = (0..CpuSet::MAX_CPU).find(|cpu| set.is_set(*cpu))?;
    let mut one = CpuSet::new();
    one.set(first);
    Some(one)
}
