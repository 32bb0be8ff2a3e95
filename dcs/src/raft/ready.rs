//! What raft has decided: it is kept, sent and applied, in the order that makes raft's promises true.
//! Messages that promise something leave only after what they promise is on disk.

use std::collections::BTreeMap;

use prost::Message as _;
use raft::Storage as _;
use raft::eraftpb::{ConfChangeV2, Entry, EntryType, Message, Snapshot};

use super::command::{Command, Id, Outcome};
use super::drive::{Drive, DriveError};
use super::frame::Frame;
use super::lease::Countdown;
use super::machine::Machine;
use crate::Moment;

/// A snapshot is taken after so many entries, or bytes of entries.
const ENTRIES: usize = 2048;
const BYTES: usize = 4 << 20;

impl Drive {
    /// Settles one round of decisions.
    pub fn settle(&mut self) -> Result<(), DriveError> {
        let mut ready = self.raw.ready();
        self.send(ready.take_messages());
        let snapshot = Some(ready.snapshot()).filter(|new| !new.is_empty()).cloned();
        let machine = snapshot.as_ref().map(read_snapshot).transpose()?;
        let (entries, hard) = (ready.take_entries(), ready.hs().cloned());
        self.raw.mut_store().save(snapshot.as_ref(), &entries, hard.as_ref())?;
        if let (Some(snapshot), Some(machine)) = (snapshot, machine) {
            self.replace(&snapshot, machine);
        }
        self.send(ready.take_persisted_messages());
        self.apply(ready.take_committed_entries())?;
        for state in ready.take_read_states() {
            self.pending.confirmed(state.index, &state.request_ctx);
        }
        let mut light = self.raw.advance(ready);
        if let Some(commit) = light.commit_index() {
            self.raw.mut_store().set_commit(commit);
        }
        self.send(light.take_messages());
        self.apply(light.take_committed_entries())?;
        self.raw.advance_apply();
        self.compact()
    }

    fn send(&mut self, messages: Vec<Message>) {
        for message in messages {
            let to = message.to;
            if !self.wire.send(to, Frame::Raft(Box::new(message))) {
                self.raw.report_unreachable(to);
            }
        }
    }

    /// The leader's snapshot takes the place of everything before it.
    fn replace(&mut self, snapshot: &Snapshot, machine: Machine) {
        let meta = snapshot.get_metadata();
        self.conf = meta.get_conf_state().clone();
        self.applied = meta.index;
        self.machine = machine;
        self.countdown = Countdown::start(&self.machine, Moment::unslewed());
        self.wire.ring.restart(self.machine.revision);
        self.tell_members();
        let done: BTreeMap<Id, Outcome> = self
            .pending
            .commands
            .values()
            .filter_map(|waiting| Some((waiting.command.id, self.machine.outcome(&waiting.command)?)))
            .collect();
        for (id, outcome) in done {
            self.pending.finish(id, outcome);
        }
    }

    fn apply(&mut self, entries: Vec<Entry>) -> Result<(), DriveError> {
        for entry in entries {
            let index = entry.index;
            let unreadable = || DriveError::Unreadable(index);
            match EntryType::from_i32(entry.entry_type).ok_or_else(unreadable)? {
                // A new leader's first entry is empty.
                EntryType::EntryNormal if entry.data.is_empty() => {}
                EntryType::EntryNormal => {
                    let command = serde_json::from_slice(&entry.data).map_err(|_| unreadable())?;
                    self.run_command(index, &command);
                }
                EntryType::EntryConfChangeV2 => {
                    let change = ConfChangeV2::decode(entry.data.as_slice()).map_err(|_| unreadable())?;
                    self.change(index, &change, &entry.context)?;
                }
                // Nobody writes changes of this older form.
                EntryType::EntryConfChange => return Err(unreadable()),
            }
            self.applied = index;
        }
        Ok(())
    }

    fn run_command(&mut self, index: u64, command: &Command) {
        let applied = self.machine.apply(index, command);
        if let Some(lease) = applied.touched {
            self.countdown.touch(lease, Moment::unslewed());
        }
        self.wire.ring.push(self.machine.revision, applied.events);
        if applied.outcome == Outcome::Late && self.pending.never_happened(command.id) {
            // This member did not know yet how far the log was committed: now it does.
            let anew = self.command(command.what.clone());
            self.pending.rename(command.id, &Command { after: index, ..anew });
            return;
        }
        self.pending.finish(command.id, applied.outcome);
    }

    fn change(&mut self, index: u64, change: &ConfChangeV2, context: &[u8]) -> Result<(), DriveError> {
        match self.raw.apply_conf_change(change) {
            Ok(conf) => self.conf = conf,
            // Every member refuses it alike.
            Err(error) => {
                tracing::error!("a change of the embedded store's members failed: {error}");
            }
        }
        if !context.is_empty() {
            let command = serde_json::from_slice(context).map_err(|_| DriveError::Unreadable(index))?;
            self.run_command(index, &command);
        }
        self.reformed = true;
        self.tell_members();
        Ok(())
    }

    /// Takes a snapshot when the log is long, and after every change of membership: a snapshot that does not
    /// name its receiver is refused by it, so there must be one that does.
    fn compact(&mut self) -> Result<(), DriveError> {
        let (entries, bytes) = self.raw.store().length();
        if self.applied == self.raw.store().snapshot().get_metadata().index {
            return Ok(());
        }
        if !self.reformed && entries < ENTRIES && bytes < BYTES {
            return Ok(());
        }
        let data = serde_json::to_vec(&self.machine).unwrap_or_default();
        let mut snapshot = Snapshot { data, ..Snapshot::default() };
        let term = self.raw.store().term(self.applied)?;
        let meta = snapshot.mut_metadata();
        meta.index = self.applied;
        meta.term = term;
        meta.set_conf_state(self.conf.clone());
        self.raw.mut_store().compact(snapshot)?;
        self.reformed = false;
        Ok(())
    }
}

fn read_snapshot(snapshot: &Snapshot) -> Result<Machine, DriveError> {
    serde_json::from_slice(&snapshot.data).map_err(|_| DriveError::Unreadable(snapshot.get_metadata().index))
}
