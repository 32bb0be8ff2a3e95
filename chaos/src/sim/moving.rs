//! A simulated move between stores, as far as decisions see it: the leader key of the one, then of the other.

use coordinator::Arrival;
use dcs::{Passage, Stand};

use super::World;
use super::verbs::{Done, known};

impl World {
    /// The leader closes the store, and its way to the new one is lost.
    pub(super) fn leave_store(&mut self, name: &str) -> Done {
        let leader = known(self, name)?;
        let passage = Passage {
            generation: 2,
            seal: "s".to_owned(),
            from: "raft".to_owned(),
            to: "etcd3".to_owned(),
            leader: leader.clone(),
            ttl: u64::try_from(self.store.settings.ttl.as_millis()).unwrap_or_default(),
        };
        self.store.leader = None;
        self.store.passage = Some(Stand::Left(passage));
        self.store.commit();
        // Nothing is renewed in a closed store.
        if let Some(daemon) = &mut self.node(&leader).daemon {
            daemon.session = None;
        }
        Ok(())
    }

    /// Every node has seen the old store closed, and reaches the new one.
    pub(super) fn reach_new_store(&mut self) {
        let Some(Stand::Left(passage)) = self.store.passage.clone() else { return };
        self.store.passage = Some(Stand::Arriving(passage.clone()));
        self.store.commit();
        let now = self.now;
        for name in self.names().iter() {
            let from = if *name == passage.leader { now } else { now + passage.patience() };
            if let Some(daemon) = &mut self.node(name).daemon {
                daemon.arrival = Some(Arrival { passage: passage.clone(), from });
            }
        }
    }
}
