//! What people do for a cluster that only they can help: they read what every node says, and name who is to lead.

use config::NodeName;
use coordinator::{Consent, Obstacle, Reason, Wish};

use super::World;
use super::node::Node;

impl World {
    /// Somebody leads by old records, and others say that they keep from following it: they are cloned anew.
    fn rejoin_held(&mut self) {
        let held = |node: &&Node| {
            matches!(node.daemon.as_ref().and_then(|daemon| daemon.last.as_ref()), Some(Reason::OldKey(_)))
        };
        let held: Vec<NodeName> = self.nodes.values().filter(held).map(|node| node.name.clone()).collect();
        for name in held {
            self.say(">", &format!("people have {name} cloned anew"));
            self.law.losing = true;
            let (force, from_leader, consent) = (false, false, Consent::Unasked);
            self.request(&name, Wish::Reinitialize { force, from_leader, consent });
        }
    }

    /// Nobody leads, and somebody says that the store has old records again: the one with most is named, as its
    /// obstacle asks.
    pub(super) fn rescue(&mut self) {
        let asks = |reason: Option<&Reason>| {
            matches!(
                reason,
                Some(
                    Reason::NotEligible(Obstacle::OldRecords)
                        | Reason::LeaseWithoutRight(Obstacle::OldRecords)
                )
            )
        };
        if self.store.leader.is_some() {
            return self.rejoin_held();
        }
        let mut daemons = self.nodes.values().filter_map(|node| node.daemon.as_ref());
        if !daemons.any(|daemon| asks(daemon.last.as_ref())) {
            return;
        }
        let standbys = self.nodes.values().filter(|node| node.server.answers() && node.withheld.is_empty());
        let most = standbys.filter(|node| node.tags.may_lead()).filter_map(|node| {
            let dir = node.server.dir.as_ref().filter(|dir| dir.floor.is_none())?;
            Some(((dir.wal.timeline(), dir.wal.end), node.name.clone()))
        });
        let Some((_, name)) = most.max() else { return };
        self.say(">", &format!("people name {name}"));
        // Where it may not be named yet, they come back to it.
        let _ = self.handover(false, &[name.as_str()]);
    }
}
