//! The stores that this node knows: the one that its cluster lives in, and perhaps a second, to or from which the
//! cluster moves. Which is which the stores' own records say; nothing here writes.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, bail};
use config::{NodeConfig, StoreConfig};
use dcs::{Abode, Stand};
use tokio::sync::watch;

use crate::postgres::files;
use crate::source::Source;
use crate::way::Way;

/// Both ways. Clones share them.
#[derive(Clone)]
pub struct Ways(Arc<Inner>);

struct Inner {
    present: watch::Sender<Way>,
    other: Mutex<Option<Way>>,
    source: Source,
    /// Where the node notes, beside its data, in which store it last knew its cluster.
    note: PathBuf,
}

/// In which store a node last knew its cluster: the section that names it, and the cluster's generation.
pub type Memory = (String, u64);

impl Ways {
    /// Opens the ways that a configuration names. A second one that cannot be opened is missed only by a move.
    ///
    /// # Errors
    /// If the only one, or the first of two, cannot be opened.
    pub fn open(node: &NodeConfig, source: Source, note: PathBuf) -> anyhow::Result<Self> {
        let present = watch::Sender::new(Way::open(node)?);
        let ways = Self(Arc::new(Inner { present, other: Mutex::new(None), source, note }));
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

    /// In which store this node last knew its cluster.
    pub fn memory(&self) -> Option<Memory> {
        let text = std::fs::read_to_string(&self.0.note).ok()?;
        let (section, generation) = text.trim().split_once(' ')?;
        Some((section.to_owned(), generation.parse().ok()?))
    }

    /// Notes that the cluster lives in the store in use. Without the note a start needs both stores.
    pub fn remember(&self, generation: u64) {
        let now = (self.present().section().to_owned(), generation.max(1));
        if self.memory().as_ref() == Some(&now) {
            return;
        }
        let (note, text) = (&self.0.note, format!("{} {}\n", now.0, now.1));
        if let Err(error) = files::replace_if_changed(note, text.as_bytes(), 0o600) {
            tracing::warn!(
                "{} cannot be written, so a start while a store is away may have to wait: {error}",
                note.display()
            );
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

/// Where the cluster lives, by what two stores say; nothing from one that does not answer.
///
/// Of the stores that a cluster has moved between one says *here* at most, and it is right. But records can also have
/// been left by hand, so a store alone is believed only if the node knew its cluster there, or nothing as new.
pub fn choose(
    first: Option<&Abode>,
    second: Option<&Abode>,
    sections: [&str; 2],
    memory: Option<&Memory>,
) -> Choice {
    let [one, two] = sections;
    let known = |section: &str, found: u64| {
        memory.is_some_and(|(last, generation)| last == section || found > *generation)
    };
    let alone = |here: &str, away: &str| {
        Choice::Wait(format!(
            "{away} does not answer, and by {here} alone nobody knows where the cluster lives"
        ))
    };
    match (first, second) {
        (Some(Abode::Here(a)), Some(Abode::Here(b))) if a == b => Choice::Refuse(format!(
            "both stores of the configuration, {one} and {two}, say that the cluster lives there: take out the section of \
             the one that it does not live in; matriarchctl list, with a file that names only one, shows what each knows"
        )),
        (Some(Abode::Here(a)), Some(Abode::Here(b))) if a < b => Choice::Second,
        (Some(Abode::Here(_)), Some(_)) => Choice::First,
        (Some(_), Some(Abode::Here(_))) => Choice::Second,
        (Some(Abode::Here(found)), None) if known(one, *found) => Choice::First,
        (None, Some(Abode::Here(found))) if known(two, *found) => Choice::Second,
        (Some(Abode::Moving(a)), Some(Abode::Moving(b))) if a.passage() == b.passage() => match a {
            Stand::Arriving(_) => Choice::First,
            Stand::Left(_) => Choice::Second,
        },
        (Some(Abode::Nowhere), Some(Abode::Nowhere)) => Choice::First,
        (None, None) => Choice::Wait(format!("neither {one} nor {two} answers")),
        (None, Some(_)) => alone(two, one),
        (Some(_), None) => alone(one, two),
        (Some(_), Some(_)) => Choice::Wait(format!(
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
        let knew = |memory: Option<(&str, u64)>, first: Option<Abode>, second: Option<Abode>| {
            let memory = memory.map(|(section, generation)| (section.to_owned(), generation));
            choose(first.as_ref(), second.as_ref(), ["etcd3", "raft"], memory.as_ref())
        };
        let choice = |first: Option<Abode>, second: Option<Abode>| knew(None, first, second);
        let left = |seal| Some(Abode::Moving(Stand::Left(passage(seal))));
        let arriving = |seal| Some(Abode::Moving(Stand::Arriving(passage(seal))));
        let (here, nowhere) = (|generation| Some(Abode::Here(generation)), || Some(Abode::Nowhere));
        assert_eq!(knew(Some(("etcd3", 1)), here(1), None), Choice::First);
        assert_eq!(knew(Some(("raft", 1)), None, here(1)), Choice::Second);
        assert_eq!(knew(Some(("raft", 1)), here(2), None), Choice::First, "it has moved meanwhile");
        assert!(matches!(knew(Some(("raft", 1)), here(1), None), Choice::Wait(_)), "left there by hand");
        assert!(matches!(knew(Some(("raft", 3)), here(2), None), Choice::Wait(_)), "of long ago");
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
            (here(1), None),
            (None, here(1)),
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
