//! Abstract time. A tick is as long as the longest pause in `decide` but the lease itself, which lasts three: of every
//! other deadline it matters only whether a tick has passed since. Within a tick only the order of what one node has
//! noticed counts.
//!
//! A [`Stamp`] is 0 for "never", up to [`AGED`] for so many ticks ago, and above [`FRESH`] for this tick, in order.

use std::time::Duration;

use dcs::Moment;

use super::state::Stamp;

/// How long a tick is.
pub const TICK: Duration = Duration::from_secs(10);
/// How long a lease lives: three ticks, as Patroni's default.
pub const TTL: Duration = Duration::from_secs(30);
/// The stamp of what happens now.
pub const NOW: Stamp = Stamp(250);

/// From here on stamps are of this tick.
const FRESH: u8 = 128;
/// One tick ago; two are one less.
const AGED: u8 = 100;
/// As many ticks ago as can matter: a lease's whole time.
const OLDEST: u8 = AGED - 2;
/// When this tick began.
const BEGAN: u64 = 1_000_000_000_000_000;

impl Stamp {
    /// The moment that stands for it.
    #[must_use]
    pub fn moment(self) -> Moment {
        let tick = u64::try_from(TICK.as_nanos()).unwrap_or(u64::MAX);
        match self.0 {
            0 => Moment::default(),
            fresh if fresh >= FRESH => Moment(BEGAN + u64::from(fresh - FRESH) * 1000),
            aged => Moment(BEGAN - u64::from(AGED.saturating_sub(aged) + 1) * tick),
        }
    }

    /// The stamp of a moment that is not in the future.
    #[must_use]
    pub fn of(moment: Moment) -> Self {
        if moment == Moment::default() {
            return Self(0);
        }
        if moment.0 >= BEGAN {
            let rank = u8::try_from((moment.0 - BEGAN) / 1000).unwrap_or(u8::MAX);
            return Self(FRESH.saturating_add(rank).min(NOW.0));
        }
        let ago = (BEGAN - moment.0).div_ceil(u64::try_from(TICK.as_nanos()).unwrap_or(u64::MAX));
        Self(AGED.saturating_sub(u8::try_from(ago).unwrap_or(u8::MAX) - 1).max(OLDEST))
    }

    /// Of this tick.
    #[must_use]
    pub fn is_fresh(self) -> bool {
        self.0 >= FRESH
    }

    /// A tick later; where `long`, up to three are told apart, else one is as good as many.
    #[must_use]
    pub fn aged(self, long: bool) -> Self {
        match self.0 {
            0 => self,
            fresh if fresh >= FRESH => Self(AGED),
            aged if long => Self((aged - 1).max(OLDEST)),
            _ => Self(AGED),
        }
    }

    /// The stamp of this rank within the tick.
    #[must_use]
    pub fn ranked(rank: usize) -> Self {
        Self(FRESH + u8::try_from(rank).unwrap_or(0))
    }
}

/// How many ticks before now what is that old happened.
#[must_use]
pub fn ago(ticks: u8) -> Moment {
    if ticks == 0 { Stamp::ranked(0).moment() } else { Stamp(AGED + 1 - ticks.min(3)).moment() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_its_moments_and_keeps_their_order() {
        let stamps =
            [Stamp(0), Stamp(OLDEST), Stamp(AGED - 1), Stamp(AGED), Stamp::ranked(0), Stamp::ranked(7), NOW];
        for stamp in stamps {
            assert_eq!(Stamp::of(stamp.moment()), stamp);
        }
        assert!(stamps.windows(2).all(|pair| pair[0].moment() < pair[1].moment()));
        assert_eq!(NOW.moment().since(ago(3)).as_secs(), TTL.as_secs());
        assert!(NOW.moment().since(NOW.aged(false).moment()) >= TICK);
    }
}
