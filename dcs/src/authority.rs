//! How long a renewal gives the right to take writes (reliability.md §6.1).
//!
//! The arithmetic is here and nowhere else; nobody may add to its result.

use std::time::Duration;

use crate::Moment;

/// How wrong this host's clock may run: BOOTTIME checked against MONOTONIC_RAW, in parts per million.
const OUR_CLOCK: u64 = 200;

/// How wrong etcd's clock may run: Linux lets NTP slew a clock by 10 % (reliability.md §6.3), in parts per million.
pub const ETCD_CLOCK: u64 = 100_000;

/// Until when a holder may take writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Authority {
    /// From here on the holder stops in good order.
    pub soft: Moment,
    /// From here on no byte may be acknowledged any more: whatever still runs is killed.
    pub hard: Moment,
}

/// The authority that a renewal gives which was *sent* at `sent` for a lease of `ttl`.
///
/// The store removes the key no earlier than `ttl / (1 + ρd)` of real time after it saw the
/// renewal, which was after `sent`; our clock measures that interval with an error of `ρh`:
///
/// ```text
/// A_max  = ttl · (1 − ρh) / (1 + ρd)          ρh = 200 ppm, ρd = store_clock
/// guard  = clamp(ttl / 17, 0.2 s, 0.5 s)      wake-up of the fencer, the kill, the network queue
/// A_hard = A_max − guard
/// A_soft = A_hard − clamp(0.15 · ttl, 0.2 s, 1.5 s)
///
/// etcd, ρd = 10 %:    ttl   A_max   guard   A_hard   A_soft
///                    10 s   9.089   0.500    8.589    7.089
///                     5 s   4.545   0.294    4.250    3.500
///                     2 s   1.818   0.200    1.618    1.318
/// ```
#[must_use]
pub fn authority(ttl: Duration, sent: Moment, store_clock: u64) -> Authority {
    let nanos = ttl.as_nanos();
    let most = nanos * u128::from(1_000_000 - OUR_CLOCK) / u128::from(1_000_000 + store_clock);
    let most = Duration::from_nanos(u64::try_from(most).unwrap_or(u64::MAX));
    let guard = (ttl / 17).clamp(Duration::from_millis(200), Duration::from_millis(500));
    let hard = most.saturating_sub(guard);
    let stop = (ttl * 3 / 20).clamp(Duration::from_millis(200), Duration::from_millis(1500));
    Authority { soft: sent + hard.saturating_sub(stop), hard: sent + hard }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn millis(ttl: u64) -> (u128, u128) {
        let got = authority(Duration::from_secs(ttl), Moment(0), ETCD_CLOCK);
        (got.hard.since(Moment(0)).as_millis(), got.soft.since(Moment(0)).as_millis())
    }

    #[test]
    fn the_numbers_of_the_table() {
        assert_eq!(millis(10), (8589, 7089));
        assert_eq!(millis(5), (4250, 3500));
        assert_eq!(millis(2), (1617, 1317));
        assert_eq!(millis(30), (26767, 25267));
        assert_eq!(millis(0), (0, 0));
    }

    proptest! {
        /// A store whose clock is 10 % fast and a host whose clock is 200 ppm slow: the holder still stops first.
        #[test]
        fn the_holder_stops_before_the_store_gives_away(ttl in 0u64..100_000, sent in 0u64..u64::MAX / 4) {
            let got = authority(Duration::from_millis(ttl), Moment(sent), ETCD_CLOCK);
            let real_end_of_holder = got.hard.since(Moment(sent)).as_nanos() * 1_000_000 / 999_800;
            let real_end_of_key = u128::from(ttl) * 1_000_000 * 10 / 11;
            prop_assert!(got.soft <= got.hard);
            prop_assert!(real_end_of_holder <= real_end_of_key + 1);
        }
    }
}
