//! One turn of judgement as it is recorded and replayed: what was seen, what was remembered, what was decided.
//! Plain data; nothing is judged here.

use serde::{Deserialize, Serialize};

use crate::decide::decide;
use crate::decision::Decision;
use crate::observation::Observation;
use crate::past::Past;

/// A turn. Serialized it holds no password: the cluster's document is left out, which no decision reads.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Turn {
    /// What was seen.
    pub seen: Observation,
    /// What was remembered.
    pub past: Past,
    /// What was decided.
    pub decided: Decision,
}

impl Turn {
    /// What is decided today on what was seen then.
    #[must_use]
    pub fn again(&self) -> Decision {
        decide(&self.seen, &self.past)
    }
}
