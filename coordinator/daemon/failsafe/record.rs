//! The record `failsafe`: the leader keeps it at all members that it knows, and knows whom it has tried to add. It is
//! written only in the leader's own reign and only over what was read; with the mode off it names nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use config::NodeName;
use dcs::{ClusterView, Epoch, Moment, Revision, StoreError};
use tokio::task::JoinSet;

use crate::complaints::Complaints;
use crate::lease::{Tenure, chain};
use crate::node::Node;

/// How soon a write that failed is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// What was written, and what may still be.
#[derive(Debug, Default)]
pub struct Record {
    /// Everybody whom a write under way, or one whose end is unknown, may have added.
    pub added: BTreeSet<NodeName>,
    /// The reign of the last write, and what it was to be written over; gone once it is known not to have been.
    last: Option<(Epoch, Revision)>,
    writing: JoinSet<Result<bool, StoreError>>,
    again: Moment,
    said: Complaints,
}

impl Record {
    /// Returns when a write has ended; pends while none is under way.
    pub async fn written(&mut self) {
        let failure = match self.writing.join_next().await {
            Some(Ok(Ok(true))) => return,
            Some(Ok(Ok(false))) => {
                self.last = None;
                "it was written meanwhile, or this node does not lead any more".to_owned()
            }
            Some(Ok(Err(error))) => chain(&error),
            Some(Err(error)) => error.to_string(),
            None => return std::future::pending().await,
        };
        let now = Moment::now();
        self.again = now + RETRY;
        if self.said.news("failsafe", &failure, now) {
            tracing::warn!("the record of members for failsafe mode was not written: {failure}");
        }
    }
}

/// Whom the record should name.
fn wanted(on: bool, me: &NodeName, url: &str, view: &ClusterView) -> BTreeMap<NodeName, String> {
    let members = view.members.iter().filter(|_| on);
    let mut wanted: BTreeMap<NodeName, String> =
        members.filter_map(|(name, member)| Some((name.clone(), member.api_url.clone()?))).collect();
    if on {
        wanted.entry(me.clone()).or_insert_with(|| url.to_owned());
    }
    wanted
}

impl Node {
    /// Keeps the record, on a leader that may take writes: one that holds the key without the right to lead gives it back,
    /// and whom its record left out could not lead after it.
    pub(crate) fn write_record(&mut self, tenure: &Tenure) {
        let Some(held) = tenure.leading().filter(|_| self.keeper.flags.armed()) else { return };
        let seen = self.seen.borrow().clone();
        let now = Moment::now();
        // Only what stands in the store in this reign is written over.
        let Some(view) = seen.view.filter(|view| view.revision >= held.revision) else { return };
        let ours = view.leader.as_ref().is_some_and(|leader| leader.epoch == held.epoch);
        let record = &mut self.failsafe.record;
        if !seen.reachable || !ours || tenure.silent || !record.writing.is_empty() {
            return;
        }
        let node = &self.settings.node;
        let on = self.settings.cluster.failsafe_mode;
        let wanted = wanted(on, &node.name, &node.restapi.api_url(), &view);
        // A write under way, or one of which nothing was heard, may land until its reign has ended or the record has changed.
        if record.last.is_none_or(|(reign, over)| reign != held.epoch || view.failsafe_at > over) {
            record.added.clear();
        }
        let done = view.failsafe.as_ref() == Some(&wanted) || (!on && view.failsafe_at.0 == 0);
        if done || now < record.again {
            return;
        }
        record.added.extend(wanted.keys().cloned());
        let dcs = self.dcs.clone();
        let (epoch, guard) = (held.epoch, view.failsafe_at);
        record.last = Some((epoch, guard));
        record.writing.spawn(async move { dcs.write_failsafe(&wanted, epoch, guard).await });
    }
}
