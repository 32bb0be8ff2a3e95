//! What the daemon wants of the kernel's watchdog, which the fencer keeps, and what it says when there is none.

use std::path::Path;
use std::time::Duration;

use config::WatchdogMode;
use dcs::{Moment, authority};

use super::Fence;
use crate::fencing::words::{Order, Watch, Wish};

/// What a ping needs on its way, from the renewal that was sent to the device, at least.
const WAY: Duration = Duration::from_millis(500);
/// How long a device that failed when it was needed counts as unusable.
const DISTRUST: Duration = Duration::from_secs(30);

/// The watchdog that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// What the fencer is told.
    pub wish: Wish,
    /// Without it nothing may take writes.
    pub required: bool,
    /// The backstop between two turns, from which Patroni counts the slack.
    pub loop_wait: Duration,
    /// How long it may take until it is active: a ping may have to wait for a renewal.
    pub patience: Duration,
}

/// What the configuration asks for, under a lease of `ttl` that is counted by a store whose clock is wrong by
/// `store_clock` parts per million; absent: none.
///
/// The timeout is Patroni's, `ttl - safety_margin`, or half of `ttl` for a margin of -1 or one that leaves less than a
/// third. It is never so long that a ping after a renewal would let it fire after the hard deadline.
pub fn wanted(
    section: &config::Watchdog,
    ttl: Duration,
    loop_wait: Duration,
    store_clock: u64,
) -> Option<Wanted> {
    if section.mode == WatchdogMode::Off {
        return None;
    }
    let seconds = ttl.as_secs();
    let hard = authority(ttl, Moment(0), store_clock).hard.since(Moment(0));
    let limit = hard.saturating_sub(WAY).as_secs().max(1);
    let left = u64::try_from(section.safety_margin).map_or(0, |margin| seconds.saturating_sub(margin));
    let timeout = if left * 3 < seconds { seconds / 2 } else { left };
    let short = |seconds: u64| u16::try_from(seconds).unwrap_or(u16::MAX);
    Some(Wanted {
        wish: Wish {
            device: section.device.clone(),
            testing: section.testing,
            timeout: short(timeout.clamp(1, limit)),
            limit: short(limit),
        },
        required: section.mode == WatchdogMode::Required,
        loop_wait,
        patience: ttl * 2 / 5,
    })
}

impl Fence {
    /// From now on this watchdog is kept while the fencer is armed.
    pub fn watch(&self, wanted: Option<Wanted>) {
        let mut state = self.state();
        if state.watch != wanted {
            state.watch = wanted;
            state.refused = None;
            state.send(&state.wish(), false);
        }
    }

    /// Why this node may not lead for want of its watchdog.
    pub fn unwatched(&self) -> Option<String> {
        let said = self.reports.borrow().map(|report| report.watch).unwrap_or_default();
        let state = self.state();
        let wanted = state.watch.as_ref().filter(|wanted| wanted.required)?;
        let device = &wanted.wish.device;
        let refused = state.refused.filter(|(when, _)| Moment::now().since(*when) < DISTRUST);
        match (said, refused) {
            (Watch::Active(_), _) => None,
            (Watch::Off, None) => missing(device).map(|error| sentence(device, Watch::Failed(error))),
            (Watch::Off, Some((_, watch))) | (watch, _) => Some(sentence(device, watch)),
        }
    }

    /// Says why this node may not lead for want of its watchdog, once for each reason.
    pub fn complain(&self) {
        let why = self.unwatched();
        let mut state = self.state();
        if state.complained != why {
            match &why {
                Some(why) => tracing::error!("this node cannot lead: {why}"),
                None => tracing::info!("the watchdog can be used: this node may lead"),
            }
            state.complained = why;
        }
    }

    /// Tells how it stands with the watchdog now, if that is news.
    pub(super) fn note(&self, before: Watch, now: Watch) {
        if before == now {
            return;
        }
        let mut state = self.state();
        let Some(wanted) = state.watch.clone() else { return };
        let device = wanted.wish.device.display();
        match now {
            Watch::Active(seconds) => {
                let became = if matches!(before, Watch::Active(_)) { "updated" } else { "activated" };
                let slack = i128::from(seconds) - i128::from(wanted.loop_wait.as_secs());
                tracing::info!(
                    "Linux watchdog device at {device} {became} with {seconds} second timeout, timing slack {slack} seconds"
                );
                state.refused = None;
            }
            Watch::Off => tracing::info!("Linux watchdog device at {device} is switched off"),
            Watch::TooLong(_) | Watch::Failed(_) if wanted.required => {
                state.refused = Some((Moment::now(), now));
            }
            Watch::TooLong(seconds) => tracing::warn!(
                "Watchdog timeout {seconds} seconds does not ensure safe termination within {} seconds: it is not used",
                wanted.wish.limit
            ),
            Watch::Failed(error) => tracing::debug!(
                "Could not activate Linux watchdog device at {device}: {}",
                std::io::Error::from_raw_os_error(error)
            ),
        }
    }
}

impl super::State {
    pub(super) fn wish(&self) -> Order {
        Order::Watch(self.watch.as_ref().map(|wanted| wanted.wish.clone()))
    }
}

/// The system's error for whoever would write to the device.
fn missing(device: &Path) -> Option<i32> {
    rustix::fs::access(device, rustix::fs::Access::WRITE_OK).err().map(rustix::io::Errno::raw_os_error)
}

fn sentence(device: &Path, watch: Watch) -> String {
    let why = match watch {
        Watch::TooLong(seconds) => {
            return format!(
                "watchdog.mode is required, and the shortest timeout of {} is {seconds} s, which is longer than the lease \
                 allows: use another device, or a longer ttl",
                device.display()
            );
        }
        Watch::Failed(error) => std::io::Error::from_raw_os_error(error).to_string(),
        Watch::Off | Watch::Active(_) => "it does not answer".to_owned(),
    };
    format!(
        "watchdog.mode is required, and {} cannot be used: {why}; load its driver (modprobe softdog), let the daemon's \
         user write to it, or set watchdog.mode to automatic",
        device.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeouts(ttl: u64, safety_margin: i64) -> (u16, u16) {
        let mode = WatchdogMode::Automatic;
        let section =
            config::Watchdog { mode, device: "/dev/watchdog".into(), safety_margin, testing: false };
        let ttl = Duration::from_secs(ttl);
        let wish = wanted(&section, ttl, ttl, dcs::ETCD_CLOCK).unwrap().wish;
        (wish.timeout, wish.limit)
    }

    /// P214: Patroni's numbers where they are safe.
    #[test]
    fn the_timeout_is_patronis_as_far_as_it_fires_before_the_deadline() {
        assert_eq!(timeouts(20, 5), (15, 17));
        assert_eq!(timeouts(30, 5), (25, 26));
        assert_eq!(timeouts(30, -1), (15, 26));
        assert_eq!(timeouts(30, 0), (26, 26), "without a margin it would fire after the deadline");
        assert_eq!(timeouts(10, 5), (5, 8));
        assert_eq!(timeouts(5, 5), (2, 3), "the default margin leaves nothing of a short lease");
        assert_eq!(timeouts(2, 5), (1, 1));
        assert_eq!(timeouts(1_000_000, 5).0, u16::MAX);
    }
}
