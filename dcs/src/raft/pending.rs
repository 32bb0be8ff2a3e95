//! The requests of this member's clients that are not answered yet: commands until they are applied here,
//! reads until the leader has confirmed that nothing newer is committed.

use std::collections::BTreeMap;
use std::time::Duration;

use raft::RawNode;
use tokio::sync::oneshot;

use super::command::{Command, Id, Outcome};
use super::log::Log;
use super::request::{Reply, Request};
use crate::Moment;
use crate::store::StoreError;

/// How long to wait for a proposal to be applied before it is made again; it is applied once.
const AGAIN: Duration = Duration::from_secs(1);
/// How long to wait for the leader's confirmation before it is asked anew.
const ANEW: Duration = Duration::from_millis(120);

pub(super) type Answer = oneshot::Sender<Result<Reply, StoreError>>;

/// A command that waits to be applied.
pub(super) struct Waiting {
    pub command: Command,
    pub reply: Answer,
    pub end: Moment,
    /// When it was last proposed; `None`: not since the leader changed.
    pub asked: Option<Moment>,
    /// How often it was proposed; if ever, it may still happen.
    pub proposals: u32,
}

/// A read that waits for the leader.
pub(super) struct Reading {
    pub request: Request,
    pub reply: Answer,
    pub end: Moment,
}

/// Everything that waits.
#[derive(Default)]
pub(super) struct Pending {
    pub commands: BTreeMap<Id, Waiting>,
    reads: Vec<Reading>,
    /// The question that is with the leader. It is never asked again with the same context: an
    /// answer to an earlier question says nothing about later reads.
    asked: Option<(Vec<u8>, Moment, Vec<Reading>)>,
    confirmed: Vec<(u64, Vec<Reading>)>,
    questions: u64,
}

impl Pending {
    pub fn len(&self) -> usize {
        self.commands.len() + self.reads.len()
    }

    pub fn read(&mut self, reading: Reading) {
        self.reads.push(reading);
    }

    /// The leader is another one, or serves now: ask again at once.
    pub fn turn(&mut self) {
        self.commands.values_mut().for_each(|waiting| waiting.asked = None);
        if let Some((.., reads)) = self.asked.take() {
            self.reads.extend(reads);
        }
    }

    /// The leader could not propose a command now. It is proposed again with the next tick rather than at once, lest
    /// two members send it to and fro.
    pub fn put_off(&mut self, id: Id, now: Moment, tick: Duration) {
        if let Some(waiting) = self.commands.get_mut(&id) {
            waiting.asked = Some(now - AGAIN + tick);
        }
    }

    /// Commands to propose now.
    pub fn due(&self, now: Moment) -> Vec<Id> {
        let is_due = |waiting: &&Waiting| waiting.asked.is_none_or(|asked| now.since(asked) >= AGAIN);
        self.commands.values().filter(is_due).map(|waiting| waiting.command.id).collect()
    }

    /// Asks the leader how far the log is committed, for every read that waits.
    pub fn confirm(&mut self, raw: &mut RawNode<Log>, member: u64, start: u64, now: Moment) {
        if let Some((_, when, _)) = &self.asked
            && now.since(*when) >= ANEW
            && let Some((.., reads)) = self.asked.take()
        {
            self.reads.extend(reads);
        }
        if self.asked.is_some() || self.reads.is_empty() {
            return;
        }
        self.questions += 1;
        let context =
            [member, start, self.questions].iter().flat_map(|part| part.to_be_bytes()).collect::<Vec<u8>>();
        raw.read_index(context.clone());
        self.asked = Some((context, now, std::mem::take(&mut self.reads)));
    }

    /// The leader's answer: everything up to an index was committed when it was asked.
    pub fn confirmed(&mut self, index: u64, context: &[u8]) {
        if self.asked.as_ref().is_some_and(|(ours, ..)| ours == context)
            && let Some((.., reads)) = self.asked.take()
        {
            self.confirmed.push((index, reads));
        }
    }

    /// Reads that may be answered from the state at an index.
    pub fn ready(&mut self, applied: u64) -> Vec<Reading> {
        let all = std::mem::take(&mut self.confirmed);
        let (ready, later): (Vec<_>, Vec<_>) = all.into_iter().partition(|(index, _)| *index <= applied);
        self.confirmed = later;
        ready.into_iter().flat_map(|(_, reads)| reads).collect()
    }

    /// Whether a command that came too late was proposed once only: then it did not happen before either.
    pub fn never_happened(&self, id: Id) -> bool {
        self.commands.get(&id).is_some_and(|waiting| waiting.proposals == 1)
    }

    /// The same request under another name, proposed anew.
    pub fn rename(&mut self, id: Id, command: &Command) {
        if let Some(waiting) = self.commands.remove(&id) {
            let anew = Waiting { command: command.clone(), asked: None, proposals: 0, ..waiting };
            self.commands.insert(command.id, anew);
        }
    }

    /// Answers a command.
    pub fn finish(&mut self, id: Id, outcome: Outcome) {
        if let Some(waiting) = self.commands.remove(&id) {
            let _ = waiting.reply.send(match outcome {
                Outcome::Committed(done) => Ok(Reply::Committed(done)),
                Outcome::Done => Ok(Reply::Done),
                Outcome::Gone => Err(StoreError::LeaseGone),
                Outcome::Full => Err(StoreError::NoSpace),
                Outcome::Late => {
                    Err(StoreError::Unknown("the request was overtaken by too many others".to_owned()))
                }
            });
        }
    }

    /// The leader refused to propose a command.
    pub fn refuse(&mut self, id: Id, why: String) {
        if let Some(waiting) = self.commands.remove(&id) {
            let _ = waiting.reply.send(Err(StoreError::Refused(why)));
        }
    }

    /// Answers what has waited too long. What was never proposed did not happen; anything else may have.
    pub fn expire(&mut self, now: Moment, why: &str) {
        let late: Vec<Id> = self
            .commands
            .values()
            .filter(|waiting| waiting.end <= now)
            .map(|waiting| waiting.command.id)
            .collect();
        for waiting in late.iter().filter_map(|id| self.commands.remove(id)) {
            let _ = waiting.reply.send(Err(if waiting.proposals > 0 {
                StoreError::Unknown(why.to_owned())
            } else {
                StoreError::Unreachable(why.to_owned())
            }));
        }
        let asked = self.asked.iter_mut().map(|(.., reads)| reads);
        let confirmed = self.confirmed.iter_mut().map(|(_, reads)| reads);
        for reads in asked.chain(confirmed).chain([&mut self.reads]) {
            for late in reads.extract_if(.., |reading| reading.end <= now) {
                let _ = late.reply.send(Err(StoreError::Unreachable(why.to_owned())));
            }
        }
    }
}
