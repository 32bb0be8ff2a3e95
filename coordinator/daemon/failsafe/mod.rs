//! Failsafe mode as the daemon lives it: what this node has promised, what it asks of others, and the record of whom
//! it asks. What follows from them is `coordinator::failsafe`'s to say.

mod leave;
mod promise;
mod record;

use std::collections::BTreeSet;
use std::sync::Arc;

use api::client::Client;
use coordinator::failsafe::Failsafe as Facts;
use dcs::{Epoch, Moment, authority};
use serde_json::{Map, Value, json};

use crate::node::Node;
use leave::Leaves;
pub use promise::{Promises, Refusal, Wish};
use record::Record;

/// How wrong a member's clock may run, as that of etcd: NTP slews both.
const MEMBER_CLOCK: u64 = dcs::ETCD_CLOCK;

/// Everything of failsafe mode on this node.
pub struct Failsafe {
    promises: Arc<Promises>,
    leaves: Leaves,
    record: Record,
    /// In which reign this leader has gone on by everybody's leave since the store fell silent, and until when that counts.
    active: Option<(Epoch, Moment)>,
}

impl Failsafe {
    /// Nobody was asked yet; what was promised may be from before this daemon.
    pub fn new(promises: Arc<Promises>, client: Client) -> Self {
        Self { promises, leaves: Leaves::new(client), record: Record::default(), active: None }
    }

    /// What is known. To be read after what is known of the lease: who gives a promise looks at the lease first and
    /// writes the promise down after that, both at once, so of a lease and a promise one is always seen.
    pub fn facts(&self) -> Facts {
        Facts {
            added: self.record.added.clone(),
            leaves: self.leaves.known.clone(),
            promise: self.promises.binding(),
        }
    }

    /// Until when failsafe mode is in force here, for who asks (`failsafe_mode_is_active`).
    pub fn until(&self, reign: Option<Epoch>) -> Option<Moment> {
        match reign {
            Some(reign) => self.active.filter(|(of, _)| *of == reign).map(|(_, until)| until),
            None => self.promises.binding().map(|promise| promise.until),
        }
    }

    /// The next answer, or the end of a write of the record; pends while there is nothing to come.
    pub async fn next(&mut self) {
        tokio::select! {
            () = self.leaves.next() => {}
            () = self.record.written() => {}
        }
    }
}

impl Node {
    /// Asks these members for their leave to go on in the present reign.
    pub(crate) fn seek_leave(&mut self, names: &BTreeSet<config::NodeName>) {
        let Some(held) = self.keeper.tenure.borrow().leading() else { return };
        let view = self.seen.borrow().view.clone().unwrap_or_default();
        let ttl = self.settings.cluster.ttl;
        let about = self.introduction();
        for name in names {
            let published = view.members.get(name).and_then(|member| member.api_url.as_ref());
            let listed = view.failsafe.as_ref().and_then(|record| record.get(name));
            let url = published.or(listed).map(|url| failsafe_url(url));
            self.failsafe.leaves.ask(name, url, held.epoch, ttl, &about);
        }
    }

    /// What a leader tells of itself, as Patroni's does.
    fn introduction(&self) -> Map<String, Value> {
        let node = &self.settings.node;
        let slots: Map<String, Value> = self.instance.look().map_or_else(Map::new, |(_, look)| {
            let own = coordinator::slots::slot_name(node.name.as_str());
            let slots = look.slots.iter();
            slots
                .filter_map(|slot| Some((slot.name.clone(), slot.confirmed.or(slot.restart)?.into())))
                .chain([(own, look.write.0.into())])
                .collect()
        });
        let (address, database) = (&node.postgresql.connect_address, &node.postgresql.database);
        let mut about = Map::new();
        about.insert("name".into(), node.name.as_str().into());
        about.insert("conn_url".into(), format!("postgres://{address}/{database}").into());
        about.insert("api_url".into(), node.restapi.api_url().into());
        about.insert("slots".into(), slots.into());
        about
    }

    /// Every member has promised: the deadlines follow.
    pub(crate) fn go_on(&mut self, epoch: Epoch, sent: Moment, span: std::time::Duration, until: Moment) {
        let mut granted = authority(span, sent, MEMBER_CLOCK);
        granted.soft = granted.soft.min(until);
        if self.keeper.go_on(epoch, sent, granted) {
            if self.failsafe.active.is_none_or(|(of, _)| of != epoch) {
                tracing::warn!(
                    "the store does not answer: going on as leader by the leave of every member (failsafe_mode)"
                );
            }
            self.failsafe.active = Some((epoch, sent + span));
        }
    }

    /// The store answers again, or this node does not lead any more: it goes on by nobody's leave.
    pub(crate) fn end_failsafe(&mut self, answers: bool) {
        if answers && self.failsafe.active.take().is_some() {
            tracing::info!("the store answers again: failsafe mode has ended");
        }
    }

    /// Gives the promises back to who made them: this node has let the lease of that reign go, and nothing of its
    /// instance is left. Who does not hear of it is free when its promise ends.
    pub(crate) fn give_promises_back(&mut self, epoch: Epoch) {
        let view = self.seen.borrow().view.clone().unwrap_or_default();
        let about = self.introduction();
        for (name, url) in self.failsafe.leaves.promised(epoch) {
            let published = view.members.get(&name).and_then(|member| member.api_url.as_deref());
            let url = published.map_or(url, failsafe_url);
            self.failsafe.leaves.let_go(&name, url, epoch, &about);
        }
    }
}

/// Where a member is asked, by its `api_url`.
fn failsafe_url(api_url: &str) -> String {
    format!("{}/failsafe", api_url.trim_end_matches('/').trim_end_matches("/patroni"))
}

/// The part of the question that only matriarch understands; a span of zero gives the promise back.
fn terms(epoch: Epoch, nonce: u64, span: std::time::Duration) -> Value {
    json!({"epoch": epoch.0, "nonce": nonce, "millis": u64::try_from(span.as_millis()).unwrap_or(u64::MAX)})
}
