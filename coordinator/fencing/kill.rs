//! Killing the instance at its hard deadline, without a runtime and without touching its disk.
//!
//! It never signals a process that it has not identified, and never by number alone (F30). One process that resists
//! does not save the others.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use dcs::Moment;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::scan::{By, Home, Scan, Stat};

/// The processes of the instance could not be found or ended.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The process table could not be read.
    #[error("the process table could not be read: {0}")]
    Scan(#[source] io::Error),
    /// A process of the instance could not be killed.
    #[error("process {pid} of the instance could not be killed: {source}")]
    Kill {
        /// Its number.
        pid: u32,
        /// Why.
        source: io::Error,
    },
    /// Some are still there.
    #[error(
        "processes {pids:?} of the instance are still alive; look at them with ps, a process in state D waits for its disk"
    )]
    Alive {
        /// Their numbers.
        pids: Vec<u32>,
    },
}

/// What it took to end the instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Killed {
    /// How many processes were killed.
    pub processes: u64,
    /// When the last of those found first was sent its signal: it acknowledges nothing any more.
    pub signalled: Moment,
    /// When none was left.
    pub gone: Moment,
}

/// Kills every process of the instance and returns once all have been seen gone.
///
/// Postmasters go first: who is dead forks no more. Others may fork between the look and the signal, so it looks again
/// until a look finds nothing: at first by what needs no disk, then also for a directory under another name.
///
/// # Errors
/// If some are left after `limit`, or cannot be found or killed; then it is for the caller to try again.
pub fn kill(home: &Home, limit: Duration) -> Result<Killed, ProcessError> {
    let end = Moment::now() + limit;
    let mut killed = Killed::default();
    let mut sessions = BTreeSet::new();
    for by in [By::Path, By::Identity] {
        loop {
            let scan = Scan::of(home, by, &sessions)?;
            sessions.extend(scan.members.iter().copied());
            let (roots, others): (Vec<u32>, Vec<u32>) =
                scan.members.iter().partition(|pid| scan.is_root(**pid));
            let done: Vec<_> =
                roots.into_iter().chain(others).map(|pid| (pid, kill_one(&scan, pid))).collect();
            if killed.signalled == Moment::default() {
                killed.signalled = Moment::now();
            }
            if done.is_empty() {
                break;
            }
            for (pid, done) in done {
                if let Some(pidfd) = done? {
                    killed.processes += 1;
                    if !ends(&pidfd, end)? {
                        return Err(ProcessError::Alive { pids: vec![pid] });
                    }
                }
            }
        }
    }
    killed.gone = Moment::now();
    Ok(killed)
}

/// Kills one process that a scan found, if it is still the same. Returns a handle to wait for its end with.
fn kill_one(scan: &Scan, pid: u32) -> Result<Option<OwnedFd>, ProcessError> {
    let Some(number) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(None) };
    let failed = |error: rustix::io::Errno| match error {
        rustix::io::Errno::SRCH => Ok(None),
        other => Err(ProcessError::Kill { pid, source: other.into() }),
    };
    let pidfd = match pidfd_open(number, PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        Err(error) => return failed(error),
    };
    if !Stat::read(pid).is_some_and(|stat| scan.is_same(pid, stat.started)) {
        return Ok(None);
    }
    match pidfd_send_signal(&pidfd, Signal::KILL) {
        Ok(()) => Ok(Some(pidfd)),
        Err(error) => failed(error),
    }
}

/// Waits for the end of a process (a zombie has ended) until `end`; `false` if it still lives.
fn ends(pidfd: &OwnedFd, end: Moment) -> Result<bool, ProcessError> {
    loop {
        let left = Moment::now().until(end);
        let left = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        match poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&left)) {
            Ok(ready) => return Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(ProcessError::Scan(error.into())),
        }
    }
}
