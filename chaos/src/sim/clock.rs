//! The clock of one host: it begins anywhere, runs a little too fast or too slow, and may be set. Moments of different
//! hosts must never be compared, and here that shows.

use dcs::Moment;

/// When the world begins, in its true time.
pub const DAWN: Moment = Moment(1_000_000_000_000);

/// A host's clock that counts suspend, as CLOCK_BOOTTIME.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Clock {
    /// What it is ahead at the dawn, in nanoseconds.
    pub ahead: i64,
    /// By how many millionths it runs too fast.
    pub fast: i64,
}

impl Clock {
    /// What it shows at a moment of true time.
    #[must_use]
    pub fn shows(&self, at: Moment) -> Moment {
        let since = i64::try_from(at.0.saturating_sub(DAWN.0)).unwrap_or(i64::MAX);
        let gained = i64::try_from(i128::from(since) * i128::from(self.fast) / 1_000_000).unwrap_or(0);
        Moment(DAWN.0.saturating_add_signed(since + gained + self.ahead))
    }

    /// The first moment of true time at which it shows at least this.
    #[must_use]
    pub fn reaches(&self, shown: Moment) -> Moment {
        if *self == Self::default() {
            return shown;
        }
        let target =
            i64::try_from(shown.0).unwrap_or(i64::MAX) - self.ahead - i64::try_from(DAWN.0).unwrap_or(0);
        let since = target / (1_000_000 + self.fast) * 1_000_000;
        let mut at = Moment(DAWN.0.saturating_add_signed(since.max(0)));
        while self.shows(at) < shown {
            let short = self.shows(at).until(shown);
            at = at + short.max(std::time::Duration::from_nanos(1_000));
        }
        at
    }

    /// The true time of day when it shows this, in whole seconds.
    #[must_use]
    pub fn true_seconds(&self, shown: Moment) -> u64 {
        self.reaches(shown).0 / 1_000_000_000
    }

    /// Runs at another rate from now on, without a jump.
    pub fn slew(&mut self, now: Moment, fast: i64) {
        let before = self.shows(now);
        self.fast = fast;
        let after = self.shows(now);
        self.ahead += i64::try_from(before.0).unwrap_or(0) - i64::try_from(after.0).unwrap_or(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_shows_what_it_reaches() {
        for (ahead, fast) in [(0, 0), (5_000_000_000, 200), (-3_000_000, -83_333), (77, 100_000)] {
            let clock = Clock { ahead, fast };
            for shown in [DAWN.0 + 9_000_000_000, DAWN.0 + 3_600_000_000_123] {
                let at = clock.reaches(Moment(shown));
                assert!(clock.shows(at).0 >= shown, "{clock:?} at {shown}");
                assert!(clock.shows(at).0 < shown + 2_000_000, "{clock:?} at {shown}: {:?}", clock.shows(at));
            }
        }
    }

    #[test]
    fn a_slew_does_not_jump() {
        let mut clock = Clock { ahead: 9, fast: 100 };
        let now = Moment(DAWN.0 + 60_000_000_000);
        let before = clock.shows(now);
        clock.slew(now, -50_000);
        assert_eq!(clock.shows(now), before);
    }
}
