//! What the connections of one member share: who it is, who the others are, and the way to its raft thread.
//! It decides nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::SyncSender;
use std::sync::{Mutex, MutexGuard, PoisonError};

use raft::eraftpb::Message;
use tokio::sync::{mpsc, oneshot, watch};

use super::command::{Command, Id};
use super::frame::{Frame, Word};
use super::link::{Hello, LinkError, Security};
use super::request::{Introduction, Reply, Request};
use super::ring::Ring;
use crate::Moment;
use crate::store::StoreError;

/// How many frames may wait for one member.
const QUEUE: usize = 256;

/// What the raft thread is told.
pub(super) enum Input {
    Message(Box<Message>),
    /// A request of a client of this member, to be answered before a deadline.
    Request {
        request: Request,
        end: Moment,
        reply: oneshot::Sender<Result<Reply, StoreError>>,
    },
    /// Another member asks the leader to propose something.
    Forwarded {
        from: u64,
        command: Command,
    },
    /// The leader did not propose what this member asked it to.
    Turned {
        id: Id,
        refused: Option<String>,
    },
    /// A member without a store asks to be let in.
    Join {
        member: u64,
        address: String,
    },
    /// Another voter should lead the store: this process is about to end.
    Abdicate,
    /// Nothing reaches a member.
    Unreachable(u64),
    /// A snapshot reached a member, or not.
    Sent {
        to: u64,
        whole: bool,
    },
    /// Which store this member belongs to, now that it is known.
    Formed {
        cluster: u64,
        founders: BTreeMap<u64, String>,
    },
    Stop,
}

/// Another member, as the connections know it.
#[derive(Debug)]
pub(super) struct Other {
    pub address: String,
    pub queue: mpsc::Sender<Frame>,
}

/// What connections share.
pub(super) struct Wire {
    pub member: u64,
    pub address: String,
    pub security: Security,
    pub inputs: SyncSender<Input>,
    pub ring: Ring,
    /// What this member says of itself.
    pub introduction: watch::Sender<Introduction>,
    /// The other members' addresses, for whoever keeps a connection to each.
    pub others: watch::Sender<BTreeMap<u64, String>>,
    queues: Mutex<BTreeMap<u64, Other>>,
    /// Why there is no connection to a member; none: there is one.
    faults: Mutex<BTreeMap<u64, Option<String>>>,
    removed: Mutex<BTreeSet<u64>>,
    /// Addresses that this member does not hear and does not speak to: a partition, in tests.
    cut: Mutex<BTreeSet<String>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Wire {
    pub fn new(
        member: u64,
        address: String,
        security: Security,
        inputs: SyncSender<Input>,
        introduction: Introduction,
    ) -> Self {
        Self {
            member,
            address,
            security,
            inputs,
            ring: Ring::new(),
            introduction: watch::Sender::new(introduction),
            others: watch::Sender::default(),
            queues: Mutex::default(),
            faults: Mutex::default(),
            removed: Mutex::default(),
            cut: Mutex::default(),
        }
    }

    /// What to say on a new connection.
    pub fn hello(&self) -> Result<Hello, LinkError> {
        Hello::new(self.introduction.borrow().cluster, self.member, self.address.clone())
    }

    /// Who the other members are, and who may never come back.
    pub fn set_members(&self, members: &BTreeMap<u64, String>, removed: &BTreeSet<u64>) {
        *lock(&self.removed) = removed.clone();
        let mut others = members.clone();
        others.remove(&self.member);
        self.introduction.send_modify(|us| us.known = members.values().cloned().collect());
        self.others.send_if_modified(|old| std::mem::replace(old, others.clone()) != others);
    }

    /// A member said hello that is not known yet: the leader that lets this one in, say.
    pub fn meet(&self, them: &Hello) {
        let unknown = self.others.borrow().is_empty();
        if unknown && them.member != self.member {
            self.others.send_modify(|others| {
                others.insert(them.member, them.address.clone());
            });
        }
    }

    pub fn is_removed(&self, member: u64) -> bool {
        lock(&self.removed).contains(&member)
    }

    /// The way to a member; frames come out at the other end.
    pub fn open(&self, member: u64, address: &str) -> mpsc::Receiver<Frame> {
        let (queue, frames) = mpsc::channel(QUEUE);
        lock(&self.queues).insert(member, Other { address: address.to_owned(), queue });
        frames
    }

    pub fn close(&self, member: u64) {
        lock(&self.queues).remove(&member);
        lock(&self.faults).remove(&member);
    }

    /// Puts a frame on its way; `false` if that is not possible now.
    pub fn send(&self, to: u64, frame: Frame) -> bool {
        let queues = lock(&self.queues);
        let Some(other) = queues.get(&to) else { return false };
        if self.is_cut(&other.address) {
            return true;
        }
        other.queue.try_send(frame).is_ok()
    }

    pub fn say(&self, to: u64, word: Word) -> bool {
        self.send(to, Frame::Word(word))
    }

    /// Notes why there is no connection to a member, or that there is one.
    pub fn set_fault(&self, member: u64, fault: Option<String>) {
        lock(&self.faults).insert(member, fault);
    }

    /// The members that are not connected, and why.
    pub fn faults(&self) -> BTreeMap<u64, String> {
        let others = self.others.borrow().clone();
        let faults = lock(&self.faults);
        let mut found = BTreeMap::new();
        for member in others.into_keys() {
            match faults.get(&member) {
                Some(None) => {}
                Some(Some(why)) => drop(found.insert(member, why.clone())),
                None => drop(found.insert(member, "not tried yet".to_owned())),
            }
        }
        found
    }

    /// Neither hears nor speaks to these addresses from now on.
    pub fn set_cut(&self, addresses: BTreeSet<String>) {
        *lock(&self.cut) = addresses;
    }

    pub fn is_cut(&self, address: &str) -> bool {
        lock(&self.cut).contains(address)
    }
}
