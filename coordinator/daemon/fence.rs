//! The daemon's side of the fencer: what it is told, and what it last said.
//!
//! Telling never waits: the lease thread tells each new deadline itself, and a fencer that takes nothing in keeps an older,
//! earlier one. It judges nothing; that nothing becomes writable without an armed fencer is seen to by who asks
//! [`Fence::confirm`].

pub mod keep;
mod open;
pub mod watchdog;

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api::status::{Guard, Kill};
use dcs::{Epoch, Moment};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tokio::sync::{Notify, watch};

use crate::fencing::deadline::{Deadline, Now};
use crate::fencing::record::Fired;
use crate::fencing::scan::Home;
use crate::fencing::words::{Order, Report, Watch};

/// How long an order may take to be confirmed.
const CONFIRM: Duration = Duration::from_secs(1);

/// The fencer as the daemon sees it.
#[derive(Debug)]
pub struct Fence {
    state: Mutex<State>,
    /// The last word of the fencer that is connected; nothing while none is.
    reports: watch::Sender<Option<Report>>,
    /// An order was given: an answer is expected.
    ordered: Notify,
    fired: Mutex<Option<Fired>>,
}

#[derive(Debug, Default)]
struct State {
    link: Option<OwnedFd>,
    /// Of the last order.
    number: u64,
    /// What it is to kill, while armed.
    wanted: Option<Arc<Home>>,
    /// Whether the connected fencer was told what is wanted; a predecessor's may be armed.
    told: bool,
    latest: Option<Deadline>,
    /// The last order that shortened a deadline, which is answered whoever armed the fencer.
    bounded: u64,
    grace: Duration,
    postmaster: Option<(u32, OwnedFd)>,
    watch: Option<watchdog::Wanted>,
    /// When a watchdog that is required was last found unusable, and how.
    refused: Option<(Moment, Watch)>,
    /// What was said of it last.
    complained: Option<String>,
}

/// Nothing would stop the instance at its deadline.
#[derive(Debug, thiserror::Error)]
pub enum Unguarded {
    /// The fencer is not armed.
    #[error("matriarch-fencer has not confirmed within {CONFIRM:?} that it is armed")]
    Unarmed,
    /// It may go on with a deadline that is too late.
    #[error("matriarch-fencer has not confirmed that its deadline is that of the shorter lease")]
    Unbound,
    /// The kernel's watchdog is required and not active.
    #[error("{0}")]
    Unwatched(String),
}

impl Default for Fence {
    fn default() -> Self {
        let (state, reports) = (Mutex::default(), watch::Sender::new(None));
        Self { state, reports, ordered: Notify::new(), fired: Mutex::default() }
    }
}

impl Fence {
    /// Brings the fencer to what `wanted` says at this moment: armed for that instance, or disarmed. Returns the
    /// number of the order; `afresh` orders it again even if nothing has changed.
    pub fn fit(&self, afresh: bool, wanted: impl FnOnce() -> Option<Arc<Home>>) -> u64 {
        let mut state = self.state();
        let wanted = wanted();
        if afresh || !state.told || wanted.is_some() != state.wanted.is_some() {
            state.wanted = wanted;
            state.number += 1;
            state.order();
            self.ordered.notify_one();
        }
        state.number
    }

    /// A renewal has moved the hard deadline of a reign to `end`; its request was sent at `sent`.
    pub fn extend(&self, epoch: Epoch, sent: Moment, end: Moment) {
        let deadline = Deadline::of(epoch, sent, end, Now::read());
        let mut state = self.state();
        let latest = state.latest.map_or(deadline, |before| before.then(deadline));
        state.latest = Some(latest);
        if state.wanted.is_some() {
            state.number += 1;
            state.send(&Order::Extend { number: state.number, deadline: latest }, false);
            // That it answers is its sign of life.
            self.ordered.notify_one();
        }
    }

    /// Before the leader key moves under a shorter lease: returns once no deadline is in force that is later than `end`,
    /// which was counted from `sent`. A fencer that does not answer is killed, and its successor told the new one.
    ///
    /// # Errors
    /// If that cannot be known in time.
    pub async fn bound(&self, sent: Moment, end: Moment) -> Result<(), Unguarded> {
        let bound = Deadline::of(Epoch(0), sent, end, Now::read());
        let mut reports = self.reports.subscribe();
        let number = {
            let mut state = self.state();
            let is_later = |until: Moment| until > end;
            let told = state.latest.is_some_and(|latest| is_later(latest.boot));
            let armed =
                reports.borrow_and_update().is_some_and(|report| report.armed && is_later(report.until));
            if !told && !armed {
                return Ok(());
            }
            state.latest = state.latest.map(|latest| latest.no_later_than(bound));
            state.number += 1;
            state.bounded = state.number;
            state.send(&Order::Bound { number: state.number, deadline: bound }, false);
            self.ordered.notify_one();
            state.number
        };
        let heard = |report: &Option<Report>| report.is_none_or(|report| report.number >= number);
        let settled = tokio::time::timeout(2 * CONFIRM, reports.wait_for(heard)).await;
        settled.map_err(|_| Unguarded::Unbound)?.map_err(|_| Unguarded::Unbound).map(drop)
    }

    /// How long a server may be without a lease.
    pub fn set_grace(&self, grace: Duration) {
        self.state().grace = grace;
    }

    /// This is the instance's postmaster now; `handle` makes a pidfd of it if it is another than before.
    pub fn cover(&self, pid: u32, handle: impl FnOnce() -> std::io::Result<OwnedFd>) {
        let mut state = self.state();
        if state.postmaster.as_ref().is_some_and(|(before, _)| *before == pid) {
            return;
        }
        // Without one it is found by looking.
        state.postmaster = handle().ok().map(|handle| (pid, handle));
        if state.wanted.is_some() {
            state.send(&Order::Cover, true);
        }
    }

    /// Returns when the fencer has said that it is armed since the order `number`.
    ///
    /// # Errors
    /// If it does not say so in time.
    pub async fn confirm(&self, number: u64) -> Result<(), Unguarded> {
        let mut reports = self.reports.subscribe();
        let armed =
            |report: &Option<Report>| report.is_some_and(|report| report.armed && report.number >= number);
        let confirmed = tokio::time::timeout(CONFIRM, reports.wait_for(armed)).await;
        confirmed.map_err(|_| Unguarded::Unarmed)?.map_err(|_| Unguarded::Unarmed)?;
        let required =
            self.state().watch.as_ref().filter(|wanted| wanted.required).map(|wanted| wanted.patience);
        let Some(patience) = required else { return Ok(()) };
        let settled = |report: &Option<Report>| report.is_some_and(|report| report.watch != Watch::Off);
        // That it stays off until then is told as it is.
        let _ = tokio::time::timeout(CONFIRM + patience, reports.wait_for(settled)).await;
        let active = self.reports.borrow().is_some_and(|report| matches!(report.watch, Watch::Active(_)));
        if active {
            return Ok(());
        }
        let why = self.unwatched();
        Err(Unguarded::Unwatched(
            why.unwrap_or_else(|| "watchdog.mode is required, and it is not active".to_owned()),
        ))
    }

    /// What is known of the fencer, for everybody to see.
    pub fn guard(&self) -> Guard {
        let report = *self.reports.borrow();
        let last = (*self.fired()).map(|fired| Kill {
            at: fired.at,
            processes: fired.processes,
            signalled: Duration::from_micros(fired.signalled_us),
            gone: Duration::from_micros(fired.gone_us),
        });
        let said = report.unwrap_or_default();
        Guard {
            running: report.is_some(),
            armed: said.armed,
            woke: Duration::from_nanos(said.woke),
            woke_worst: Duration::from_nanos(said.woke_worst),
            kills: said.kills,
            last,
            watchdog: match said.watch {
                Watch::Active(seconds) => Some(Duration::from_secs(seconds)),
                _ => None,
            },
        }
    }

    /// The last kill at a deadline, as far as it is known.
    fn fired(&self) -> MutexGuard<'_, Option<Fired>> {
        self.fired.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A fencer is connected: it is told what is wanted, if anything is. What a predecessor armed stays armed.
    fn connect(&self, link: OwnedFd, report: Report) {
        let mut state = self.state();
        self.reports.send_replace(Some(report));
        state.link = Some(link);
        state.told = false;
        state.send(&state.wish(), false);
        if let Some(deadline) = state.latest.filter(|latest| report.armed && report.until > latest.boot) {
            state.number += 1;
            state.bounded = state.number;
            state.send(&Order::Bound { number: state.number, deadline }, false);
        }
        if state.wanted.is_some() {
            state.number += 1;
            state.order();
        }
    }

    /// Whether a fencer that last said this owes an answer.
    fn awaits(&self, last: &Report) -> bool {
        let state = self.state();
        last.number < if state.told { state.number } else { state.bounded }
    }

    fn disconnect(&self) {
        let mut state = self.state();
        (state.link, state.told, state.bounded) = (None, false, 0);
        self.reports.send_replace(None);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Tells what is wanted.
    fn order(&mut self) {
        self.told = self.link.is_some();
        let number = self.number;
        let Some(home) = &self.wanted else {
            return self.send(&Order::Disarm { number }, false);
        };
        let now = Now::read();
        let deadline = self.latest.filter(|latest| !latest.passed(now));
        let deadline = deadline.unwrap_or_else(|| Deadline::grace(self.grace, now));
        let order = Order::Arm { number, deadline, home: Home::clone(home) };
        self.send(&order, true);
    }

    /// Sends without waiting. What is not taken in leaves an earlier deadline, or is not confirmed.
    fn send(&self, order: &Order, with_postmaster: bool) {
        let Some(link) = &self.link else { return };
        let message = order.encode();
        let message = [std::io::IoSlice::new(&message)];
        let handles = self.postmaster.iter().filter(|_| with_postmaster).map(|(_, handle)| handle.as_fd());
        let handles: Vec<_> = handles.collect();
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !handles.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(&handles));
        }
        // An end shows in the reader, a full buffer in reports that do not come.
        let _ = sendmsg(link, &message, &mut control, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
    }
}

/// What a fencer is started with.
#[derive(Debug, Clone)]
pub struct Post {
    /// Its program, beside this one.
    pub program: PathBuf,
    /// Its folder: the socket for a successor, and the record of the last kill.
    pub folder: PathBuf,
}

impl Post {
    /// Beside the program that runs now, and beside the data directory.
    ///
    /// # Errors
    /// If the file of this program is not known.
    pub fn new(paths: &crate::postgres::Paths) -> std::io::Result<Self> {
        let program = std::env::current_exe()?.with_file_name("matriarch-fencer");
        Ok(Self { program, folder: paths.beside(".fence") })
    }
}
