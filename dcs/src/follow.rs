//! What the store says, kept current: one linearizable listing, then a fold of
//! watched events checked by their revisions. Whenever in doubt, it lists again.
//! It never writes, and it never shows a record older than one already shown.

use std::collections::BTreeMap;
use std::mem::Discriminant;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::cluster::Dcs;
use crate::home::Home;
use crate::retry::Pauses;
use crate::store::{Batch, Event, Patience, Record, Snapshot, StoreError};
use crate::view::ClusterView;
use crate::{Moment, Revision, text};

/// How long one attempt to open the watch, or to list, may take before the store counts as lost.
const OPENING: Duration = Duration::from_secs(2);

/// A watch that stood this long is opened again at once when it breaks.
const STOOD: Duration = Duration::from_secs(1);

/// What was last seen of the store.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// The newest view; `None` until the store was read for the first time.
    pub view: Option<Arc<ClusterView>>,
    /// The store answered a request that was sent at this moment or later.
    pub reached: Moment,
    /// Whether the watch stands. If not, `view` may be old.
    pub reachable: bool,
}

/// The records of a cluster, folded from a listing and the events after it.
struct Fold {
    /// The revision of the listing: no event up to it is news.
    listed: i64,
    /// The highest revision folded in.
    revision: i64,
    records: BTreeMap<String, Record>,
    /// When keys that are gone since the listing were removed.
    gone: BTreeMap<String, i64>,
}

/// What an event did to a fold.
#[derive(Debug, PartialEq, Eq)]
enum Folded {
    /// It changed a record.
    Changed,
    /// It was known, or older than what is known.
    Old,
    /// It was news, but later events were folded before: something is out of order.
    Doubtful,
}

impl Fold {
    fn new(snapshot: Snapshot) -> Self {
        let records = snapshot.records.into_iter().map(|record| (record.key.clone(), record)).collect();
        let at = snapshot.revision.0;
        Self { listed: at, revision: at, records, gone: BTreeMap::new() }
    }

    /// Folds one event in. `before` is the revision folded before the event's batch:
    /// the events of one transaction share a revision and come in one batch.
    fn apply(&mut self, event: Event, before: i64) -> Folded {
        let (key, modified) = match &event {
            Event::Put(record) => (&record.key, record.modified),
            Event::Delete { key, modified } => (key, *modified),
        };
        let known = self.records.get(key).map(|record| record.modified).or(self.gone.get(key).copied());
        if modified <= self.listed.max(known.unwrap_or(0)) {
            return Folded::Old;
        }
        match event {
            Event::Put(record) => {
                self.gone.remove(&record.key);
                self.records.insert(record.key.clone(), record);
            }
            Event::Delete { key, .. } => {
                self.records.remove(&key);
                self.gone.insert(key, modified);
            }
        }
        self.revision = self.revision.max(modified);
        if modified <= before { Folded::Doubtful } else { Folded::Changed }
    }

    /// Folds a batch in; `Err` if the order of events leaves a doubt.
    fn fold(&mut self, batch: Batch) -> Result<bool, StoreError> {
        let before = self.revision;
        let mut changed = false;
        for event in batch.events {
            match self.apply(event, before) {
                Folded::Changed => changed = true,
                Folded::Old => {}
                Folded::Doubtful => return Err(StoreError::Gap("events came out of order".to_owned())),
            }
        }
        Ok(changed)
    }
}

impl Dcs {
    /// A future that keeps a view of the cluster current for as long as it is run, and the
    /// receiver that it feeds: notified on every change below the prefix, and when the store
    /// is lost or comes back. `reached` also moves without a notification. One such future is
    /// enough for all clones of a `Dcs`; they share what it sees.
    #[must_use = "nothing is followed unless the future is run"]
    pub fn follow(&self) -> (impl Future<Output = ()> + Send + 'static, watch::Receiver<Seen>) {
        let receiver = self.seen().subscribe();
        let dcs = self.clone();
        (async move { dcs.follow_on().await }, receiver)
    }

    async fn follow_on(&self) {
        let mut moves = self.moves();
        loop {
            moves.borrow_and_update();
            tokio::select! {
                () = Box::pin(self.follow_at(self.home())) => {}
                // The sender lives as long as we do.
                _ = moves.changed() => tracing::info!("the cluster is followed in another store from here"),
            }
        }
    }

    /// Follows in one store.
    async fn follow_at(&self, home: Arc<Home>) {
        let mut pauses = Pauses::new(Duration::from_millis(50), Duration::from_secs(1));
        let mut fold: Option<Fold> = None;
        let mut said = None;
        loop {
            let sent = Moment::now();
            let failed = match fold.take() {
                None => match home.load(&self.keys().prefix(), Patience::within(OPENING)).await {
                    Ok(snapshot) => {
                        let listed = Fold::new(snapshot);
                        self.publish(&listed, sent);
                        fold = Some(listed);
                        continue;
                    }
                    Err(error) => error,
                },
                Some(mut current) => match self.watch_on(&home, &mut current, &mut pauses).await {
                    gap @ StoreError::Gap(_) => {
                        tracing::debug!("reading the store again: {gap}");
                        continue;
                    }
                    error => {
                        fold = Some(current);
                        error
                    }
                },
            };
            self.lost(&failed, &mut said);
            tokio::time::sleep(pauses.next()).await;
        }
    }

    /// Opens the watch and folds until it breaks; returns why.
    /// A watch that stood is opened again once before the store counts as lost.
    async fn watch_on(&self, home: &Arc<Home>, fold: &mut Fold, pauses: &mut Pauses) -> StoreError {
        loop {
            let sent = Moment::now();
            let from = Revision(fold.revision + 1);
            let opened = home.watch(&self.keys().prefix(), from, Patience::within(OPENING)).await;
            let mut watch = match opened {
                Ok(watch) => watch,
                Err(error) => return error,
            };
            self.publish(fold, sent);
            let error = loop {
                match watch.next().await {
                    Ok(batch) if batch.events.is_empty() => self.touch(Moment::now()),
                    Ok(batch) => {
                        let folded = fold.fold(batch);
                        self.publish(fold, Moment::now());
                        match folded {
                            Ok(_) => pauses.reset(),
                            Err(doubt) => return doubt,
                        }
                    }
                    Err(error) => break error,
                }
            };
            if matches!(error, StoreError::Gap(_)) {
                return error;
            }
            tracing::debug!("opening the watch again: {error}");
            if Moment::now().since(sent) > STOOD {
                pauses.reset();
            } else {
                tokio::time::sleep(pauses.next()).await;
            }
        }
    }

    fn publish(&self, fold: &Fold, reached: Moment) {
        let view = text::view(self.keys(), fold.records.values(), Revision(fold.revision));
        self.seen().send_if_modified(|seen| {
            let same = |old: &Arc<ClusterView>| {
                ClusterView { revision: view.revision, ..ClusterView::clone(old) } == view
            };
            if !seen.reachable && seen.view.is_some() {
                tracing::info!("the store is back");
            }
            let news = !seen.reachable || !seen.view.as_ref().is_some_and(same);
            seen.reached = seen.reached.max(reached);
            seen.reachable = true;
            seen.view = Some(Arc::new(view));
            news
        });
    }

    /// Nobody is returned the failure, so it is logged: when the store is lost, and when the reason changes.
    fn lost(&self, why: &StoreError, said: &mut Option<Discriminant<StoreError>>) {
        let was_there = self.seen().send_if_modified(|seen| std::mem::replace(&mut seen.reachable, false));
        let kind = std::mem::discriminant(why);
        if was_there || *said != Some(kind) {
            tracing::warn!("the store is lost, trying on: {why}");
            *said = Some(kind);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(key: &str, modified: i64) -> Record {
        Record { key: key.to_owned(), value: modified.to_string(), created: 1, modified, lease: 0 }
    }

    fn fold() -> Fold {
        Fold::new(Snapshot { records: vec![record("a", 5)], revision: Revision(10) })
    }

    fn put(key: &str, modified: i64) -> Event {
        Event::Put(record(key, modified))
    }

    fn gone(key: &str, modified: i64) -> Event {
        Event::Delete { key: key.to_owned(), modified }
    }

    #[test]
    fn old_and_repeated_events_change_nothing() {
        // F76
        let mut fold = fold();
        assert_eq!(fold.fold(Batch { events: vec![put("a", 5), put("b", 9), gone("a", 10)] }), Ok(false));
        assert_eq!(fold.fold(Batch { events: vec![put("a", 11), put("b", 11)] }), Ok(true));
        assert_eq!(fold.fold(Batch { events: vec![put("a", 11)] }), Ok(false));
        assert_eq!(fold.fold(Batch { events: vec![gone("a", 12)] }), Ok(true));
        assert_eq!(fold.fold(Batch { events: vec![put("a", 11)] }), Ok(false));
        assert_eq!(fold.records.keys().collect::<Vec<_>>(), ["b"]);
    }

    #[test]
    fn events_out_of_order_raise_a_doubt() {
        // F76
        let mut fold = fold();
        assert_eq!(fold.fold(Batch { events: vec![put("a", 13)] }), Ok(true));
        assert!(matches!(fold.fold(Batch { events: vec![put("b", 12)] }), Err(StoreError::Gap(_))));
    }

    proptest! {
        /// However events are repeated and delayed, each key ends at its newest event.
        #[test]
        fn the_newest_event_of_a_key_wins(order in proptest::collection::vec((0usize..3, 11i64..40, any::<bool>()), 1..40)) {
            let mut fold = fold();
            let mut newest = BTreeMap::new();
            for (which, modified, put_it) in order {
                // One key has one event at one revision.
                let modified = modified * 3 + i64::try_from(which).unwrap();
                let key = ["a", "b", "c"][which];
                let put_it = *newest.entry((key, modified)).or_insert(put_it);
                let event = if put_it { put(key, modified) } else { gone(key, modified) };
                let before = fold.revision;
                fold.apply(event, before);
            }
            for key in ["a", "b", "c"] {
                let last = newest.iter().filter(|((of, _), _)| *of == key).max_by_key(|((_, at), _)| *at);
                match last {
                    Some(((_, at), true)) => prop_assert_eq!(fold.records.get(key).map(|r| r.modified), Some(*at)),
                    Some((_, false)) => prop_assert!(!fold.records.contains_key(key)),
                    None => {}
                }
            }
        }
    }
}
