//! The watch itself: one loop over the daemon's socket, the timer and the door. What is in force is in [`Vigil`]; the
//! deadline is judged after every word of the daemon that has arrived was heard.

use std::collections::BTreeSet;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dcs::{Epoch, Moment};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, recvmsg, send};
use rustix::process::{Signal, pidfd_send_signal};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use crate::fencing::deadline::{Deadline, Now};
use crate::fencing::kill::{Killed, kill};
use crate::fencing::record::{FILE, Fired};
use crate::fencing::scan::{By, Home, Scan, Stat};
use crate::fencing::words::{LARGEST, Order, Report};
use crate::privileges;
use crate::successor::Door;
use crate::watchdog::Watchdog;

/// How often an armed fencer measures how late it wakes.
const SAMPLE: Duration = Duration::from_secs(2);
/// How much of a span on the clock that nobody slews has certainly not passed before so much has passed on the other, in
/// percent: Linux slews by at most a tenth.
const CERTAIN: u32 = 85;
/// The pause between two looks at a deadline that is near.
const NEAR: Duration = Duration::from_millis(1);
/// The pause between two attempts to kill.
const AGAIN: Duration = Duration::from_millis(100);
/// How long one attempt to kill waits for what it has killed.
const ATTEMPT: Duration = Duration::from_millis(500);

/// What is in force.
struct Vigil {
    armed: Option<(Deadline, Home)>,
    postmaster: Option<OwnedFd>,
    watchdog: Watchdog,
    /// Processes that outlived their postmaster when it was disarmed: with their start.
    leftovers: Vec<(u32, u64)>,
    report: Report,
    sample: Moment,
    buffer: Vec<u8>,
}

/// Keeps watch until there is nothing to guard and nobody who could ask for it.
///
/// # Errors
/// If the kernel gives no timer or the folder cannot be written: the daemon sees the end.
pub fn keep(daemon: OwnedFd) -> io::Result<()> {
    let granted = privileges::take();
    let timer = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
    let mut door = Door::open()?;
    let report = Report {
        pid: std::process::id(),
        locked: granted.locked,
        realtime: granted.realtime,
        spared: granted.spared,
        ..Report::default()
    };
    let (sample, buffer) = (Moment::default(), vec![0; LARGEST]);
    let (watchdog, leftovers) = (Watchdog::default(), Vec::new());
    let mut vigil = Vigil { armed: None, postmaster: None, watchdog, leftovers, report, sample, buffer };
    let mut daemon = Some(daemon);
    let mut guest = None;
    vigil.tell(daemon.as_ref());
    loop {
        let due = vigil.set(&timer)?;
        let ready = wait(&timer, daemon.as_ref(), &door, guest.as_ref())?;
        if ready.timer {
            vigil.note_waking(due);
        }
        if ready.daemon && !vigil.hear(daemon.as_ref()) {
            daemon = None;
        }
        if ready.door {
            guest = door.answer();
        } else if ready.guest
            && let Some(successor) = guest.take().filter(|guest| door.admit(guest))
        {
            daemon = Some(successor);
            vigil.report.number = 0;
            vigil.tell(daemon.as_ref());
        }
        vigil.judge(daemon.as_ref());
        vigil.tend(daemon.as_ref());
        if daemon.is_none() && vigil.armed.is_none() && !vigil.watchdog.is_open() {
            return Ok(());
        }
    }
}

/// Who has something to say.
struct Ready {
    timer: bool,
    daemon: bool,
    door: bool,
    guest: bool,
}

/// Waits for any of them. The door is only looked at while there is no daemon.
fn wait(
    timer: &OwnedFd,
    daemon: Option<&OwnedFd>,
    door: &Door,
    guest: Option<&OwnedFd>,
) -> io::Result<Ready> {
    let mut sources = vec![PollFd::new(timer, PollFlags::IN)];
    let first = daemon.unwrap_or(&door.listener);
    sources.push(PollFd::new(first, PollFlags::IN));
    sources.extend(guest.map(|guest| PollFd::new(guest, PollFlags::IN)));
    match poll(&mut sources, None) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    let ready = |at: usize| sources.get(at).is_some_and(|source| !source.revents().is_empty());
    Ok(Ready {
        timer: ready(0),
        daemon: daemon.is_some() && ready(1),
        door: daemon.is_none() && ready(1),
        guest: ready(2),
    })
}

impl Vigil {
    /// Sets the timer for the next look; returns for when. Setting it forgets that it went off.
    ///
    /// The first clock tells by itself when it ends the deadline. Before the second one can, so much of the first must have
    /// passed; then it is looked again, ever more closely (reliability.md §6.4 looks every 100 ms).
    fn set(&mut self, timer: &OwnedFd) -> io::Result<Moment> {
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let now = Now::read();
        if now.boot >= self.sample {
            self.sample = now.boot + SAMPLE;
        }
        let next = self.armed.as_ref().map(|(deadline, _)| {
            if deadline.passed(now) {
                return now.boot + AGAIN;
            }
            let left = Duration::from_nanos(deadline.raw.saturating_sub(now.raw));
            let look = now.boot + (left * CERTAIN / 100).max(NEAR);
            deadline.boot.min(look).min(self.sample)
        });
        let leaves = (!self.leftovers.is_empty()).then(|| now.boot + AGAIN);
        let tended = self.watchdog.next(self.armed.as_ref().map(|(deadline, _)| *deadline), now);
        let next = [next, leaves, tended].into_iter().flatten().min();
        let value = next.map_or(zero, |next| {
            let nanos = i64::try_from(next.0.max(1)).unwrap_or(i64::MAX);
            Timespec { tv_sec: nanos / 1_000_000_000, tv_nsec: nanos % 1_000_000_000 }
        });
        let once = Itimerspec { it_interval: zero, it_value: value };
        timerfd_settime(timer, TimerfdTimerFlags::ABSTIME, &once)?;
        Ok(next.unwrap_or_default())
    }

    fn note_waking(&mut self, due: Moment) {
        let late = nanos(Moment::now().since(due));
        self.report.woke = late;
        self.report.woke_worst = self.report.woke_worst.max(late);
    }

    /// Hears everything that the daemon has said; `false` when it is gone.
    fn hear(&mut self, daemon: Option<&OwnedFd>) -> bool {
        let Some(daemon) = daemon else { return false };
        let mut buffer = std::mem::take(&mut self.buffer);
        let is_there = self.hear_all(daemon, &mut buffer);
        self.buffer = buffer;
        is_there
    }

    fn hear_all(&mut self, daemon: &OwnedFd, buffer: &mut [u8]) -> bool {
        loop {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
            let said = recvmsg(daemon, &mut [IoSliceMut::new(buffer)], &mut control, flags);
            let said = match said {
                Ok(said) if said.bytes > 0 => said.bytes,
                Err(rustix::io::Errno::AGAIN) => return true,
                Err(rustix::io::Errno::INTR) => continue,
                Ok(_) | Err(_) => return false,
            };
            let descriptor = control.drain().find_map(|message| match message {
                RecvAncillaryMessage::ScmRights(mut rights) => rights.next(),
                _ => None,
            });
            if let Some(order) = buffer.get(..said).and_then(Order::decode) {
                self.obey(order, descriptor, daemon);
            }
        }
    }

    fn obey(&mut self, order: Order, descriptor: Option<OwnedFd>, daemon: &OwnedFd) {
        match order {
            Order::Arm { number, deadline, home } => {
                let deadline = self.armed.take().map_or(deadline, |(before, _)| before.then(deadline));
                self.armed = Some((deadline, home));
                self.postmaster = descriptor.or(self.postmaster.take());
                self.report.number = number;
                self.tell(Some(daemon));
            }
            Order::Extend { number, deadline } => {
                if let Some((before, _)) = &mut self.armed {
                    *before = before.then(deadline);
                }
                self.report.number = number;
                self.tell(Some(daemon));
            }
            Order::Bound { number, deadline } => {
                if let Some((before, _)) = &mut self.armed {
                    *before = before.no_later_than(deadline);
                }
                self.report.number = number;
                self.tell(Some(daemon));
            }
            Order::Disarm { number } => {
                if self.armed.is_some() {
                    self.leftovers = self.left_over();
                }
                self.armed = None;
                self.report.number = number;
                self.tell(Some(daemon));
            }
            Order::Cover => self.postmaster = descriptor,
            Order::Watch(wish) => self.watchdog.wish(wish),
            // Only the first word of a connection through the door.
            Order::Claim(_) => {}
        }
    }

    /// Kills the instance if its deadline has passed.
    fn judge(&mut self, daemon: Option<&OwnedFd>) {
        let Some((deadline, home)) = &self.armed else { return };
        let due = *deadline;
        let now = Now::read();
        // The kernel's watchdog would fire next, although nothing is left to do but to end the instance.
        if !due.passed(now) && !self.watchdog.is_about_to_fire(now.boot) {
            return;
        }
        // Whoever is dead forks no more, and this one needs no look at the process table.
        if let Some(postmaster) = &self.postmaster {
            let _ = pidfd_send_signal(postmaster, Signal::KILL);
        }
        // What cannot be killed yet is tried again, for ever.
        if let Ok(killed) = kill(home, ATTEMPT) {
            self.fired(due, killed, daemon);
        }
    }

    /// What is left of an instance whose postmaster is gone. What a living postmaster serves takes no writes, or is
    /// meant to go on.
    fn left_over(&self) -> Vec<(u32, u64)> {
        let (Some((_, home)), Some(postmaster)) = (&self.armed, &self.postmaster) else { return Vec::new() };
        let at_once = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        let ended =
            poll(&mut [PollFd::new(postmaster, PollFlags::IN)], Some(&at_once)).is_ok_and(|ready| ready > 0);
        if !ended || !self.watchdog.is_open() {
            return Vec::new();
        }
        let found = Scan::of(home, By::Path, &BTreeSet::new());
        let members = found.map(|scan| scan.members).unwrap_or_default();
        members.into_iter().filter_map(|pid| Some((pid, Stat::read(pid)?.started))).collect()
    }

    /// Keeps the kernel's watchdog: pinged while armed, switched off when nobody serves clients any more.
    fn tend(&mut self, daemon: Option<&OwnedFd>) {
        match &self.armed {
            Some((deadline, _)) => self.watchdog.keep(*deadline, Now::read()),
            None => {
                let is_there = |(pid, started): &(u32, u64)| {
                    Stat::read(*pid).is_some_and(|stat| stat.started == *started)
                };
                self.leftovers.retain(is_there);
                if self.leftovers.is_empty() {
                    self.watchdog.close();
                }
            }
        }
        if self.report.watch != self.watchdog.watch() {
            self.report.watch = self.watchdog.watch();
            self.tell(daemon);
        }
    }

    fn fired(&mut self, due: Deadline, killed: Killed, daemon: Option<&OwnedFd>) {
        // Either clock may have ended it; the first one counts what the host slept.
        let from = due.boot.min(killed.signalled);
        self.armed = None;
        self.postmaster = None;
        self.report.kills += 1;
        self.report.signalled = nanos(killed.signalled.since(from));
        self.report.gone = nanos(killed.gone.since(from));
        self.tell(daemon);
        let fired = Fired {
            at: wall_clock(),
            epoch: due.epoch.0,
            processes: killed.processes,
            signalled_us: self.report.signalled / 1000,
            gone_us: self.report.gone / 1000,
            daemon: daemon.is_some(),
        };
        // The disk comes last: everything is done.
        let _ = std::fs::write(FILE, fired.line());
        self.tell(daemon);
    }

    /// A report that the daemon does not take is not waited for.
    fn tell(&mut self, daemon: Option<&OwnedFd>) {
        let Some(daemon) = daemon else { return };
        let in_force = self.armed.as_ref().map(|(deadline, _)| *deadline);
        self.report.armed = in_force.is_some();
        self.report.epoch = in_force.map_or(Epoch(0), |deadline| deadline.epoch);
        self.report.until = in_force.map_or(Moment::default(), |deadline| deadline.boot);
        let _ = send(daemon, &self.report.encode(), SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
    }
}

/// Epoch seconds, for people.
#[allow(clippy::disallowed_methods, reason = "a record of what happened; nothing is decided by it")]
fn wall_clock() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}
