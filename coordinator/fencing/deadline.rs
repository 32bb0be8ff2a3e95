//! A moment on two clocks, after which nothing of the instance may run. It has passed as soon as either clock
//! says so: one counts suspend, the other is never slewed (reliability.md §6.3). Nobody extends one.

use std::time::Duration;

use dcs::{Epoch, Moment};
use rustix::time::{ClockId, clock_gettime};

/// How much slower than in truth `CLOCK_BOOTTIME` can run while it is slewed: Linux allows 10 %, so a span on it
/// is at most 1 / 0.9 of what it shows.
const SLEWED: (u32, u32) = (10, 9);

/// A hard deadline of one reign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline {
    /// The reign; 0 is none: a server that takes writes without a lease.
    pub epoch: Epoch,
    /// On `CLOCK_BOOTTIME`.
    pub boot: Moment,
    /// On `CLOCK_MONOTONIC_RAW`, in nanoseconds.
    pub raw: u64,
}

/// Both clocks, read together.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// `CLOCK_BOOTTIME`.
    pub boot: Moment,
    /// `CLOCK_MONOTONIC_RAW`, in nanoseconds.
    pub raw: u64,
}

impl Now {
    /// Reads both clocks.
    pub fn read() -> Self {
        let raw = clock_gettime(ClockId::MonotonicRaw);
        let raw = i128::from(raw.tv_sec) * 1_000_000_000 + i128::from(raw.tv_nsec);
        Self { raw: u64::try_from(raw).unwrap_or_default(), boot: Moment::now() }
    }
}

impl Deadline {
    /// The deadline `end` of a reign, of which `sent` was read when its renewal was sent. The span since then is
    /// taken for as long as it can have been, so that the second clock is never later than the rule allows.
    pub fn of(epoch: Epoch, sent: Moment, end: Moment, now: Now) -> Self {
        let gone = now.boot.since(sent) * SLEWED.0 / SLEWED.1;
        let left = nanos(end.since(sent)).saturating_sub(nanos(gone));
        Self { epoch, boot: end, raw: now.raw.saturating_add(left) }
    }

    /// Of a server without a lease: in which it must prove one, or stop.
    pub fn grace(span: Duration, now: Now) -> Self {
        Self { epoch: Epoch(0), boot: now.boot + span, raw: now.raw.saturating_add(nanos(span)) }
    }

    /// Whether it has passed, on either clock.
    pub fn passed(&self, now: Now) -> bool {
        now.boot >= self.boot || now.raw >= self.raw
    }

    /// The earlier of both on each clock, of the same reign.
    #[must_use]
    pub fn no_later_than(self, bound: Deadline) -> Self {
        Self { epoch: self.epoch, boot: self.boot.min(bound.boot), raw: self.raw.min(bound.raw) }
    }

    /// The deadline in force after `next` was told: a later one of the same reign, or that of a later
    /// reign. Anything else changes nothing.
    #[must_use]
    pub fn then(self, next: Deadline) -> Self {
        if next.epoch > self.epoch {
            return next;
        }
        if next.epoch == self.epoch && next.epoch != Epoch(0) {
            return Self { epoch: self.epoch, boot: self.boot.max(next.boot), raw: self.raw.max(next.raw) };
        }
        self
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn at(epoch: i64, seconds: u64) -> Deadline {
        Deadline { epoch: Epoch(epoch), boot: Moment(seconds * SECOND), raw: seconds * SECOND }
    }

    #[test]
    fn only_a_later_deadline_or_a_later_reign_counts() {
        assert_eq!(at(5, 10).then(at(5, 11)), at(5, 11));
        assert_eq!(at(5, 10).then(at(5, 9)), at(5, 10), "an older one");
        assert_eq!(at(5, 10).then(at(4, 99)), at(5, 10), "an older reign");
        assert_eq!(at(5, 10).then(at(6, 8)), at(6, 8), "a later reign, with a shorter ttl");
        assert_eq!(at(5, 10).then(at(0, 99)), at(5, 10), "without a lease nothing is extended");
        assert_eq!(at(0, 10).then(at(0, 99)), at(0, 10));
        assert_eq!(at(0, 10).then(at(7, 99)), at(7, 99), "a lease was taken");
    }

    #[test]
    fn a_bound_only_shortens() {
        assert_eq!(at(5, 10).no_later_than(at(0, 8)), at(5, 8));
        assert_eq!(at(5, 10).no_later_than(at(6, 12)), at(5, 10));
    }

    #[test]
    fn either_clock_ends_it() {
        let deadline = at(1, 10);
        let now = |boot, raw| Now { boot: Moment(boot * SECOND), raw: raw * SECOND };
        assert!(!deadline.passed(now(9, 9)));
        assert!(deadline.passed(now(10, 0)), "the host was suspended, which the second clock does not count");
        assert!(deadline.passed(now(9, 10)), "the first clock was slewed");
    }

    /// The second clock may end it sooner than the first, by at most a ninth of the answer's way, never later.
    #[test]
    fn a_late_answer_buys_less() {
        let (sent, end) = (Moment(100 * SECOND), Moment(104 * SECOND));
        let now = Now { boot: Moment(100 * SECOND + 900_000_000), raw: 7 * SECOND };
        let deadline = Deadline::of(Epoch(3), sent, end, now);
        assert_eq!((deadline.boot, deadline.raw), (end, 10 * SECOND));
        let none = Deadline::of(Epoch(3), sent, end, Now { boot: Moment(109 * SECOND), raw: 7 * SECOND });
        assert_eq!(none.raw, 7 * SECOND, "it has passed");
    }
}
