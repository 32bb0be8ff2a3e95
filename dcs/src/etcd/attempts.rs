//! The attempts of one request: how many may follow, and how long each may take.
//!
//! Counts and waits; it knows no server.

use std::time::Duration;

use crate::Moment;
use crate::retry::Pauses;
use crate::store::{Patience, StoreError};

/// The attempts of one request: how many may follow, and how long each may take.
pub(super) struct Attempts {
    end: Moment,
    each: Option<Duration>,
    pauses: Pauses,
    /// Failures since the last pause.
    failures: usize,
    pause: Option<Duration>,
    pub(super) logins: u32,
    pub(super) why: String,
    /// What to return if nothing better comes, when it is more than "unreachable".
    pub(super) last: Option<StoreError>,
}

impl Attempts {
    pub fn new(patience: Patience) -> Self {
        Self {
            end: Moment::now() + patience.total,
            each: patience.each,
            pauses: Pauses::new(Duration::from_millis(50), Duration::from_millis(800)),
            failures: 0,
            pause: None,
            logins: 0,
            why: "there was no time to ask".to_owned(),
            last: None,
        }
    }

    /// How long the next attempt may take; `None` if the time is over.
    pub async fn next(&mut self) -> Option<Duration> {
        if let Some(pause) = self.pause.take() {
            let left = Moment::now().until(self.end);
            if left <= pause {
                return None;
            }
            tokio::time::sleep(pause).await;
        }
        let left = Moment::now().until(self.end);
        if left.is_zero() {
            return None;
        }
        Some(self.each.unwrap_or((left / 2).min(Patience::ATTEMPT)).max(Duration::from_millis(20)).min(left))
    }

    /// An attempt failed; once every one of `servers` has, the next one waits a little.
    pub fn failed(&mut self, servers: usize, why: String) {
        self.failures += 1;
        self.why = why;
        if self.failures >= servers {
            self.failures = 0;
            self.pause = Some(self.pauses.next());
        }
    }

    /// Nobody did it in time.
    pub fn given_up(self) -> StoreError {
        self.last.unwrap_or(StoreError::Unreachable(self.why))
    }
}
