//! The simulated network: links cut in both directions or in one, for all that passes or for one kind of it, messages
//! that take long, and messages that are lost.

use std::time::Duration;

use config::NodeName;

use super::World;
use super::chance::Stream;

/// What passes a link between two nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Replication.
    Wal,
    /// Questions of members to each other.
    Rest,
}

/// What becomes of a request that changes the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is heard and answered.
    Answered,
    /// It never arrives.
    Lost,
    /// It is heard, and the answer is lost: the sender does not know.
    Unknown,
}

impl World {
    /// Whether what one end says reaches the other; `store` is an end too.
    pub(crate) fn hears(&self, from: &str, to: &str) -> bool {
        self.link(from, to) && !self.deaf.iter().any(|(one, other)| one == from && other == to)
    }

    /// Whether two ends can talk at all.
    pub(crate) fn link(&self, one: &str, other: &str) -> bool {
        let (first, second) = if one < other { (one, other) } else { (other, one) };
        !self.cuts.iter().any(|cut| cut.0 == first && cut.1 == second)
    }

    /// Whether this kind passes between two nodes, both of which are up.
    pub(crate) fn passes(&self, kind: Kind, one: &NodeName, other: &NodeName) -> bool {
        let cut = |kind: Kind| {
            let (first, second) = if one < other { (one, other) } else { (other, one) };
            self.kinds.iter().any(|cut| cut.0 == kind && cut.1 == *first && cut.2 == *second)
        };
        self.linked(one, other) && !cut(kind)
    }

    /// How long a message of this node to the store, or back, takes; absent if it is lost.
    pub(crate) fn trip(&mut self, name: &NodeName) -> Option<Duration> {
        if !self.chances.are_there() {
            return Some(Duration::ZERO);
        }
        let poor = self.nodes[name].poor_line;
        if poor > 0 && self.chances.roll(Stream::Net, 100) < poor {
            self.hit("F60");
            return None;
        }
        let slow = self.store.slow;
        let usual = 1 + self.chances.roll(Stream::Net, 4);
        Some(Duration::from_millis(usual + self.chances.roll(Stream::Net, slow + 1)))
    }

    /// What becomes of a change that this node asks of the store.
    pub(crate) fn fate(&mut self, name: &NodeName) -> Fate {
        if !self.store.up || !self.hears(name.as_str(), "store") {
            return Fate::Lost;
        }
        let there = self.trip(name).is_some();
        let back = self.trip(name).is_some() && self.hears("store", name.as_str());
        match (there, back) {
            (true, true) => Fate::Answered,
            (true, false) => {
                self.hit("F02");
                Fate::Unknown
            }
            (false, _) => Fate::Lost,
        }
    }
}
