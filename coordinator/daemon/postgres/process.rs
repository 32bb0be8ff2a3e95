//! Which processes belong to the local instance, and the proof that none is left.
//!
//! Owns finding, adopting and killing them. The end of the postmaster is not the end of the
//! instance: a backend that outlives it can still acknowledge a commit. It never signals a
//! process that it has not identified, and never by number alone (F30).

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dcs::Moment;
use rustix::process::Signal;

use super::Paths;
use crate::command::pidfd::Pidfd;
pub use crate::fencing::kill::ProcessError;
use crate::fencing::scan::{By, Home, Scan, Stat};

/// Proof that at one moment no process of the instance existed. Made only here, from a look at
/// the process table; not cloneable, spent by whoever starts a server or moves its directory.
#[derive(Debug)]
pub struct Stopped {
    data_dir: PathBuf,
    seen: Moment,
}

impl Stopped {
    /// Whose processes are gone.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// When that was seen.
    pub fn seen(&self) -> Moment {
        self.seen
    }
}

/// A running postmaster of this instance.
#[derive(Debug)]
pub struct Postmaster {
    pid: u32,
    started: u64,
    end: Pidfd,
}

impl Postmaster {
    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    #[cfg(test)]
    /// When it started, in clock ticks since boot: with the number, its identity on this host.
    pub fn started(&self) -> u64 {
        self.started
    }

    /// Returns once it has ended, within a millisecond of that.
    pub async fn exited(&self) {
        self.end.exited().await;
    }

    /// Whether a signal has stopped it: it lets nobody in, and obeys nothing but SIGKILL and SIGCONT.
    pub fn is_frozen(&self) -> bool {
        Stat::read(self.pid).is_some_and(|stat| stat.started == self.started && stat.frozen)
    }

    /// A handle on it for somebody else.
    pub fn handle(&self) -> io::Result<OwnedFd> {
        self.end.handle()
    }

    /// Sends it a signal. `NotFound` when it has ended.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        self.end.signal(signal)
    }

    /// Takes a process that was just started, or found, as the postmaster.
    pub(super) fn open(pid: u32) -> io::Result<Self> {
        let end = Pidfd::open(pid)?;
        // Read after the handle exists: if this is the process that was meant, it still is.
        let stat = Stat::read(pid).ok_or(io::ErrorKind::NotFound)?;
        Ok(Self { pid, started: stat.started, end })
    }
}

/// What runs on the data directory.
#[derive(Debug)]
pub enum Found {
    /// A postmaster, adopted (P162).
    Running(Postmaster),
    /// No postmaster, but processes that one left behind.
    Leftovers,
    /// Nothing.
    Nothing(Stopped),
}

fn look(paths: &Paths, led_before: &BTreeSet<u32>) -> Result<Scan, ProcessError> {
    Scan::of(&Home::of(&paths.data_dir, paths.server_name()), By::Identity, led_before)
}

/// The postmaster is the server that the pid file names. One that is not named is no postmaster
/// any more: it writes the file before it listens, and ends when the file is gone.
fn postmaster(scan: &Scan, paths: &Paths) -> Option<u32> {
    let named = PidFile::read(&paths.pid_file()).filter(|file| !file.single_user)?.pid;
    scan.is_root(named).then_some(named)
}

/// What runs on this data directory now.
///
/// A process is the postmaster when the pid file names it, it is a server (by its executable)
/// working in the data directory, belongs to our user, and is not the child of another one that
/// is. The pid file alone is not believed: it may be stale, and its number a stranger's (F30). A
/// process that passes these tests works on this directory, whatever the file says about
/// its start time, so that a stepped clock cannot disown a running server.
pub fn find(paths: &Paths) -> Result<Found, ProcessError> {
    let scan = look(paths, &BTreeSet::new())?;
    if let Some(pid) = postmaster(&scan, paths) {
        match Postmaster::open(pid) {
            Ok(postmaster) if scan.is_same(pid, postmaster.started) => return Ok(Found::Running(postmaster)),
            // It ended between the two looks; what it left is found by the next one.
            _ => return Ok(Found::Leftovers),
        }
    }
    if scan.members.is_empty() {
        return Ok(Found::Nothing(Stopped { data_dir: paths.data_dir.clone(), seen: scan.seen }));
    }
    Ok(Found::Leftovers)
}

/// Kills every process of the instance and returns once all have been seen gone.
///
/// Processes may fork between the look and the signal, so it looks again until a look finds
/// nothing. `deadline` bounds the whole.
pub async fn kill_all(paths: &Paths, deadline: Duration) -> Result<Stopped, ProcessError> {
    let mut sessions = BTreeSet::new();
    let last = tokio::time::timeout(deadline, async {
        loop {
            let scan = look(paths, &sessions)?;
            sessions.extend(scan.members.iter().copied());
            if scan.members.is_empty() {
                return Ok(Stopped { data_dir: paths.data_dir.clone(), seen: scan.seen });
            }
            let mut ends = Vec::new();
            for pid in scan.members.iter().copied() {
                ends.extend(kill(&scan, pid)?);
            }
            for end in ends {
                end.exited().await;
            }
        }
    });
    match last.await {
        Ok(result) => result,
        Err(_) => {
            Err(ProcessError::Alive { pids: look(paths, &BTreeSet::new())?.members.into_iter().collect() })
        }
    }
}

/// Kills one process that a scan found, if it is still the same. Returns its end to wait for.
fn kill(scan: &Scan, pid: u32) -> Result<Option<Pidfd>, ProcessError> {
    let gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    let end = match Pidfd::open(pid) {
        Ok(end) => end,
        Err(error) if gone(&error) => return Ok(None),
        Err(source) => return Err(ProcessError::Kill { pid, source }),
    };
    if !Stat::read(pid).is_some_and(|stat| scan.is_same(pid, stat.started)) {
        return Ok(None);
    }
    match end.signal(Signal::KILL) {
        Ok(()) => Ok(Some(end)),
        Err(error) if gone(&error) => Ok(None),
        Err(source) => Err(ProcessError::Kill { pid, source }),
    }
}

/// The process that the pid file names, if there is one and it is not of this instance: Postgres would
/// take it for a running server and refuse to start. A postmaster that ended counts as long as
/// its parent has not collected it, which in a container without an init is for ever.
pub fn stranger_in_pid_file(paths: &Paths) -> Option<u32> {
    let pid = PidFile::read(&paths.pid_file())?.pid;
    let exists = Path::new("/proc").join(pid.to_string()).exists();
    let ours = look(paths, &BTreeSet::new()).is_ok_and(|scan| scan.members.contains(&pid));
    (exists && !ours).then_some(pid)
}

/// `postmaster.pid`, as far as it is needed (`miscadmin.h` names its lines).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PidFile {
    /// The server's number.
    pub pid: u32,
    /// Whether it is a single-user server rather than a postmaster.
    pub single_user: bool,
    /// The port that it was told.
    pub port: Option<u16>,
    /// The first socket directory; absent without sockets.
    pub socket_dir: Option<String>,
    /// The last line: `starting`, `ready`, `standby` or `stopping`.
    pub status: String,
}

impl PidFile {
    /// Reads it; `None` if it is missing or not (yet) complete enough to have a number.
    pub fn read(path: &Path) -> Option<Self> {
        let text = fs::read_to_string(path).ok()?;
        let line = |number: usize| text.lines().nth(number).map(str::trim).filter(|line| !line.is_empty());
        Some(Self {
            pid: line(0)?.trim_start_matches('-').parse().ok()?,
            // A single-user server writes its number negated.
            single_user: line(0)?.starts_with('-'),
            port: line(3).and_then(|port| port.parse().ok()),
            socket_dir: line(4).map(str::to_owned),
            status: line(7).unwrap_or_default().to_owned(),
        })
    }
}
