//! What was said lately, so that a failure that repeats itself with every turn is not
//! logged with every turn. It forgets nothing that was not said.

use std::collections::BTreeMap;
use std::time::Duration;

use dcs::Moment;

/// How soon the same is worth saying again.
const AGAIN: Duration = Duration::from_secs(10);

/// The last complaint of each topic.
#[derive(Debug, Default)]
pub struct Complaints(BTreeMap<&'static str, (String, Moment)>);

impl Complaints {
    /// Whether this is news, or was said long enough ago; if so, it counts as said.
    pub fn news(&mut self, topic: &'static str, text: &str, now: Moment) -> bool {
        let known = self.0.get(topic);
        if known.is_some_and(|(said, at)| said == text && now.since(*at) < AGAIN) {
            return false;
        }
        self.0.insert(topic, (text.to_owned(), now));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_said_once_in_a_while() {
        let mut said = Complaints::default();
        let at = |seconds| Moment::default() + Duration::from_secs(seconds);
        assert!(said.news("step", "a", at(100)));
        assert!(!said.news("step", "a", at(101)));
        assert!(said.news("status", "a", at(101)), "another topic");
        assert!(said.news("step", "b", at(102)), "another text");
        assert!(said.news("step", "b", at(112)), "the same, later");
    }
}
