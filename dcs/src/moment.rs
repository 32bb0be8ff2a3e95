//! The one clock of decisions: time since boot, counting suspend.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A point in time on `CLOCK_BOOTTIME` of this host, in nanoseconds.
/// It never steps, and it goes on while the host sleeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Moment(pub u64);

impl Moment {
    /// Reads the clock.
    #[must_use]
    pub fn now() -> Self {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let nanos = i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec);
        Self(u64::try_from(nanos).unwrap_or_default())
    }

    /// Reads a clock that nobody slews: `CLOCK_MONOTONIC_RAW`, plus the time asleep, which is what
    /// `CLOCK_BOOTTIME` counts and `CLOCK_MONOTONIC` does not. Right within a millisecond.
    /// Not to be compared with [`Moment::now`].
    #[must_use]
    pub(crate) fn unslewed() -> Self {
        use rustix::time::ClockId::{Boottime, Monotonic, MonotonicRaw};
        let read = |clock| {
            let time = rustix::time::clock_gettime(clock);
            i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
        };
        let mut now = 0;
        // A pause between the readings would spoil their difference: then they are taken again.
        for _ in 0..16 {
            let (before, boot, raw, after) =
                (read(Monotonic), read(Boottime), read(MonotonicRaw), read(Monotonic));
            now = raw + boot - after;
            if after - before < 1_000_000 {
                break;
            }
        }
        Self(u64::try_from(now).unwrap_or_default())
    }

    /// The time from `earlier` to `self`; zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Moment) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The time from `self` until `later`; zero if it has passed.
    #[must_use]
    pub fn until(self, later: Moment) -> Duration {
        later.since(self)
    }
}

impl std::ops::Add<Duration> for Moment {
    type Output = Moment;

    fn add(self, span: Duration) -> Moment {
        Moment(self.0.saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl std::ops::Sub<Duration> for Moment {
    type Output = Moment;

    fn sub(self, span: Duration) -> Moment {
        Moment(self.0.saturating_sub(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }
}
