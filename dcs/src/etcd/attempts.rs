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
    /// Why the last attempt failed that was told so.
    said: Option<String>,
    /// Which attempt since was not answered at all.
    silence: Option<String>,
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
            said: None,
            silence: None,
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

    /// An attempt failed for this reason; once every one of `servers` has, the next one waits a little.
    pub fn failed(&mut self, servers: usize, why: String) {
        self.said = Some(why);
        self.silence = None;
        self.count(servers);
    }

    /// An attempt was not answered. It hides no reason that was said before: the last attempt
    /// often has little time left, and whoever reads of it alone looks in the wrong place.
    pub fn unanswered(&mut self, servers: usize, silence: String) {
        self.silence = Some(silence);
        self.count(servers);
    }

    fn count(&mut self, servers: usize) {
        self.failures += 1;
        if self.failures >= servers {
            self.failures = 0;
            self.pause = Some(self.pauses.next());
        }
    }

    /// Nobody did it in time.
    pub fn given_up(self) -> StoreError {
        let why = match (self.said, self.silence) {
            (Some(said), Some(silence)) => format!("{said}; after that, {silence}"),
            (Some(why), None) | (None, Some(why)) => why,
            (None, None) => "there was no time to ask".to_owned(),
        };
        self.last.unwrap_or(StoreError::Unreachable(why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_hides_no_reason() {
        let attempts = || Attempts::new(Patience::once(Duration::from_secs(1)));
        let why = |attempts: Attempts| attempts.given_up().to_string();
        let silence = "s1 did not answer within 20ms";
        assert!(why(attempts()).ends_with("there was no time to ask"));
        let mut silent = attempts();
        silent.unanswered(1, silence.to_owned());
        assert!(why(silent).ends_with(silence));
        let mut refused = attempts();
        refused.unanswered(1, "s1 did not answer within 500ms".to_owned());
        refused.failed(1, "the certificate is not valid for s1".to_owned());
        refused.unanswered(1, silence.to_owned());
        assert!(
            why(refused)
                .ends_with("the certificate is not valid for s1; after that, s1 did not answer within 20ms")
        );
    }
}
