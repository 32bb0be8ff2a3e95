//! How long to wait between attempts: the only file that knows the crate `backoff`.

use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff;

/// Growing, jittered pauses without an end; whoever waits has a deadline of their own.
pub(crate) struct Pauses(ExponentialBackoff);

impl Pauses {
    /// Pauses that start near `first` and double up to `longest`, each ±50 %.
    pub fn new(first: Duration, longest: Duration) -> Self {
        let mut pauses = ExponentialBackoff {
            initial_interval: first,
            max_interval: longest,
            multiplier: 2.0,
            randomization_factor: 0.5,
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        };
        pauses.reset();
        Self(pauses)
    }

    /// The next pause.
    pub fn next(&mut self) -> Duration {
        self.0.next_backoff().unwrap_or(self.0.max_interval)
    }

    /// Starts again with the first.
    pub fn reset(&mut self) {
        self.0.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_limit_and_start_again() {
        let mut pauses = Pauses::new(Duration::from_millis(10), Duration::from_millis(80));
        assert!(pauses.next() <= Duration::from_millis(16));
        for _ in 0..10 {
            pauses.next();
        }
        let late = pauses.next();
        assert!(late >= Duration::from_millis(39) && late <= Duration::from_millis(121), "{late:?}");
        pauses.reset();
        assert!(pauses.next() <= Duration::from_millis(16));
    }
}
