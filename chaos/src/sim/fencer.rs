//! The simulated fencer: told each new deadline by the lease thread, it kills whatever of the instance still runs when
//! that has come, on the host's clock or on one that nothing slows down, whichever says so first.

use std::time::Duration;

use config::NodeName;
use coordinator::{Process, Task};
use dcs::Moment;

use super::World;
use super::planted::Fault;

/// How long the daemon may be without one.
const UNGUARDED: Duration = Duration::from_secs(1);
/// How late it may wake.
const LATENCY: u64 = 40;

/// What a fencer knows.
#[derive(Debug, Clone, Default)]
pub struct Fencer {
    /// When it fires, in true time: the deadline that it was last told.
    pub fires: Option<Moment>,
    /// A signal has stopped it, since then.
    pub stopped: Option<Moment>,
}

impl World {
    /// The lease thread tells of a deadline: `span` after `sent`, on the clock of the host.
    pub(super) fn tell_fencer(&mut self, name: &NodeName, sent: Moment, hard: Moment) {
        let now = self.now;
        let late = self.jitter(LATENCY);
        let node = self.node(name);
        let by_clock = node.clock.reaches(hard);
        // The clock that nothing slows down: from now on, the rest of the span.
        let past = node.clock.shows(now).since(sent);
        let unslowed = now + hard.since(sent).saturating_sub(past);
        if let Some(fencer) = &mut node.fencer {
            fencer.fires = Some(by_clock.min(unslowed) + late);
        }
    }

    /// It is told that its deadline is no later than `hard`, counted from `sent`.
    pub(super) fn bound_fencer(&mut self, name: &NodeName, sent: Moment, hard: Moment) {
        let before = self.nodes[name].fencer.as_ref().and_then(|fencer| fencer.fires);
        self.tell_fencer(name, sent, hard);
        if let Some(fencer) = &mut self.node(name).fencer {
            fencer.fires = fencer.fires.min(before);
        }
    }

    /// Fires, if it is time.
    pub(super) fn fence(&mut self, name: &NodeName) {
        let now = self.now;
        let Some(fencer) = self.nodes[name].fencer.as_ref().filter(|fencer| fencer.stopped.is_none()) else {
            return;
        };
        if fencer.fires.is_none_or(|fires| fires > now) {
            return;
        }
        let node = self.node(name);
        if let Some(fencer) = &mut node.fencer {
            fencer.fires = None;
        }
        // In pause it is disarmed.
        let paused = node.daemon.as_ref().is_some_and(|daemon| daemon.settings.pause);
        if !paused && self.planted != Some(Fault::LeaseForEver) && self.planted != Some(Fault::NoFencer) {
            self.shoot(name, "the fencer");
        }
    }

    /// Nothing of the instance goes on.
    pub(super) fn shoot(&mut self, name: &NodeName, who: &str) {
        let node = self.node(name);
        // Also one whose daemon is gone.
        let promoting = node.server.promotes.is_some()
            || node.daemon.as_ref().and_then(|daemon| daemon.job.as_ref()).is_some_and(|(job, _)| {
                matches!(
                    job.task,
                    Task::Promote { .. } | Task::RestartInPlace { .. } | Task::FirstStart { .. }
                )
            });
        let local = self.nodes[name].clock.shows(self.now);
        let server = &mut self.node(name).server;
        if promoting {
            server.doomed = Some("it was killed at the hard deadline".to_owned());
        }
        if (server.writable() || promoting) && server.process != Process::Gone {
            server.crash(Process::Gone);
            server.crashed = Some(local);
            self.say(name.as_str(), &format!("({who} kills the instance at the hard deadline)"));
        }
    }

    /// A fencer is there again.
    pub(super) fn new_fencer(&mut self, name: &NodeName) {
        let held = self.nodes[name].daemon.as_ref().and_then(|daemon| daemon.held);
        self.node(name).fencer = Some(Fencer::default());
        if let Some(held) = held {
            let local = self.clock(name);
            self.tell_fencer(name, local, held.hard);
        }
    }

    /// The host's clock.
    pub(super) fn clock(&self, name: &NodeName) -> Moment {
        self.nodes[name].clock.shows(self.now)
    }

    /// The lease thread keeps a fencer beside itself: one that has ended, or has not answered for a second, is replaced.
    pub(super) fn keep_fencer(&mut self, name: &NodeName) {
        let now = self.now;
        let node = &self.nodes[name];
        let gone = match &node.fencer {
            None => true,
            Some(fencer) => fencer.stopped.is_some_and(|since| now.since(since) >= UNGUARDED),
        };
        if gone && !node.unfenceable {
            self.new_fencer(name);
        }
    }

    /// Why the node may not lead for want of a fencer.
    pub(super) fn withheld_for_want_of_a_fencer(&mut self, name: &NodeName) -> Option<String> {
        let span = self.unguarded(name).filter(|_| self.planted != Some(Fault::NoFencer))?;
        (span >= UNGUARDED).then(|| "there is no fencer".to_owned())
    }

    /// How long the daemon has been without a fencer that answers.
    pub(super) fn unguarded(&mut self, name: &NodeName) -> Option<Duration> {
        let now = self.now;
        let alive = self.nodes[name].fencer.as_ref().is_some_and(|fencer| fencer.stopped.is_none());
        let daemon = self.daemon(name);
        if alive {
            daemon.unguarded = None;
            return None;
        }
        Some(now.since(*daemon.unguarded.get_or_insert(now)))
    }
}
