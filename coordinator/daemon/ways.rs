//! The stores that this node knows: the one that its cluster lives in, and perhaps a second, to or from which the
//! cluster moves. Which is which the stores' own records say; nothing here writes.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, bail};
use config::{NodeConfig, StoreConfig};
use dcs::{Abode, Stand};
use tokio::sync::watch;

use crate::source::Source;
use crate::way::Way;

/// Both ways. Clones share them.
#[derive(Clone)]
pub struct Ways(Arc<Inner>);

struct Inner {
    present: watch::Sender<Way>,
    other: Mutex<Option<Way>>,
    source: Source,
}

impl Ways {
    /// Opens the ways that a configuration names. A second one that cannot be opened is missed only by a move.
    ///
    /// # Errors
    /// If the only one, or the first of two, cannot be opened.
    pub fn open(node: &NodeConfig, source: Source) -> anyhow::Result<Self> {
        let present = watch::Sender::new(Way::open(node)?);
        let ways = Self(Arc::new(Inner { present, other: Mutex::new(None), source }));
        if let Some(second) = &node.second_store {
            match Way::to(second) {
                Ok(way) => ways.set_other(Some(way)),
                Err(error) => tracing::error!(
                    "the second store (section {}) cannot be used, so the cluster cannot move to it: {error}",
                    second.section()
                ),
            }
        }
        Ok(ways)
    }

    /// The way to the store that the cluster lives in, as far as is known.
    pub fn present(&self) -> Way {
        self.0.present.borrow().clone()
    }

    /// The other one.
    pub fn other(&self) -> Option<Way> {
        self.0.other.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The other one if that section of the configuration names it; the configuration is read again if need be,
    /// and a member of the embedded store started.
    ///
    /// # Errors
    /// What to write where, if it is not there or cannot be used.
    pub fn reach(&self, section: &str) -> anyhow::Result<Way> {
        if self.present().section() == section {
            bail!("the cluster lives in the store of the section {section} already");
        }
        let file = self.0.source.load().map_err(|problems| anyhow::anyhow!("{problems}"))?.node;
        let named =
            [&file.store, &file.second_store].into_iter().flatten().find(|store| store.section() == section);
        let Some(named) = named else {
            bail!(
                "the configuration of this node has no section {section}: write it beside the section {}, and leave that \
                 one in until the cluster has moved",
                self.present().section()
            );
        };
        if let Some(open) = self.other().filter(|way| way.section() == section && !is_newer(way, named)) {
            return Ok(open);
        }
        let way =
            Way::to(named).with_context(|| format!("the store of the section {section} cannot be used"))?;
        self.set_other(Some(way.clone()));
        Ok(way)
    }

    /// The cluster lives in the other store from now on.
    pub fn exchange(&self) {
        let mut other = self.0.other.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(next) = other.take() {
            *other = Some(self.0.present.send_replace(next));
        }
    }

    fn set_other(&self, way: Option<Way>) {
        *self.0.other.lock().unwrap_or_else(PoisonError::into_inner) = way;
    }

    /// Waits until the member of the store in use has ended in this process, and returns why.
    pub async fn ended(&self) -> String {
        let mut present = self.0.present.subscribe();
        loop {
            let way = present.borrow_and_update().clone();
            tokio::select! {
                why = way.ended() => return why,
                // The sender lives as long as we do.
                _ = present.changed() => {}
            }
        }
    }

    /// Stops a member in this process, after everything else.
    pub async fn close(&self) {
        self.present().close().await;
        if let Some(other) = self.other() {
            other.close().await;
        }
    }
}

/// Whether the configuration describes the store otherwise than the way was opened. A member of the embedded store
/// that runs stays as it is.
fn is_newer(way: &Way, named: &StoreConfig) -> bool {
    match way {
        Way::Network(open) => **open != *named,
        Way::Member(_) | Way::Nowhere(_) => false,
    }
}

/// Which of two stores to use at the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// The one that the configuration prefers.
    First,
    /// The other one.
    Second,
    /// Neither yet, for this reason.
    Wait(String),
    /// Neither ever: a person must look.
    Refuse(String),
}

/// Where the cluster lives, by what two stores say; nothing from one that does not answer. A store that says *here*
/// is right, whatever the other one would say: it was closed before, or has never been open.
pub fn choose(first: Option<&Abode>, second: Option<&Abode>, sections: [&str; 2]) -> Choice {
    let [one, two] = sections;
    let wait = |why: String| Choice::Wait(why);
    match (first, second) {
        (Some(Abode::Here(a)), Some(Abode::Here(b))) if a == b => Choice::Refuse(format!(
            "both stores of the configuration, {one} and {two}, say that the cluster lives there: take out the section of \
             the one that it does not live in; matriarchctl list, with a file that names only one, shows what each knows"
        )),
        (Some(Abode::Here(a)), Some(Abode::Here(b))) => {
            if a > b {
                Choice::First
            } else {
                Choice::Second
            }
        }
        (Some(Abode::Here(_)), _) => Choice::First,
        (_, Some(Abode::Here(_))) => Choice::Second,
        (Some(Abode::Moving(a)), Some(Abode::Moving(b))) if a.passage() == b.passage() => match (a, b) {
            (Stand::Arriving(_), _) => Choice::First,
            (Stand::Left(_), _) => Choice::Second,
        },
        (Some(Abode::Nowhere), Some(Abode::Nowhere)) => Choice::First,
        (None, None) => wait(format!("neither {one} nor {two} answers")),
        (None, Some(_)) => {
            wait(format!("{one} does not answer, and by {two} alone nobody knows where the cluster lives"))
        }
        (Some(_), None) => {
            wait(format!("{two} does not answer, and by {one} alone nobody knows where the cluster lives"))
        }
        (Some(_), Some(_)) => wait(format!(
            "the cluster is neither in {one} nor in {two}: it has moved to a third store, or one of the sections names \
             another store than it did"
        )),
    }
}

#[cfg(test)]
mod tests {
    use config::NodeName;
    use dcs::Passage;

    use super::*;

    fn passage(seal: &str) -> Passage {
        Passage {
            generation: 2,
            seal: seal.to_owned(),
            from: "raft".to_owned(),
            to: "etcd3".to_owned(),
            leader: NodeName::new("n1").unwrap(),
            ttl: 1,
        }
    }

    #[test]
    fn a_node_starts_where_its_cluster_lives_and_nowhere_else() {
        let choice = |first: Option<Abode>, second: Option<Abode>| {
            choose(first.as_ref(), second.as_ref(), ["etcd3", "raft"])
        };
        let left = |seal| Some(Abode::Moving(Stand::Left(passage(seal))));
        let arriving = |seal| Some(Abode::Moving(Stand::Arriving(passage(seal))));
        let (here, nowhere) = (|generation| Some(Abode::Here(generation)), || Some(Abode::Nowhere));
        assert_eq!(choice(here(1), None), Choice::First);
        assert_eq!(choice(None, here(1)), Choice::Second);
        assert_eq!(choice(arriving("a"), here(1)), Choice::Second, "announced, not yet closed");
        assert_eq!(choice(arriving("a"), left("a")), Choice::First, "closed, not yet open");
        assert_eq!(choice(left("a"), arriving("a")), Choice::Second);
        assert_eq!(choice(here(2), left("a")), Choice::First);
        assert_eq!(choice(left("a"), here(2)), Choice::Second);
        assert_eq!(choice(nowhere(), nowhere()), Choice::First);
        assert_eq!(choice(here(3), here(2)), Choice::First);
        assert!(matches!(choice(here(1), here(1)), Choice::Refuse(_)));
        for (one, two) in [
            (None, None),
            (nowhere(), None),
            (None, nowhere()),
            (arriving("a"), None),
            (None, arriving("a")),
            (left("a"), None),
            (left("a"), arriving("b")),
            (left("a"), nowhere()),
            (arriving("a"), nowhere()),
        ] {
            assert!(matches!(choice(one.clone(), two.clone()), Choice::Wait(_)), "{one:?} {two:?}");
        }
    }
}
