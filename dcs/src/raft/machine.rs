//! What the log's entries make of an empty store, in memory: records, leases, members. Applying is
//! deterministic: no clock, no chance, no I/O, so that every member that applied the same entries holds the same.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::command::{Command, Id, Outcome, What};
use crate::Revision;
use crate::store::{Committed, Condition, Event, Record, Snapshot, Txn, Write};

/// How many entries after it was first proposed a command may still be applied.
pub(super) const WINDOW: u64 = 1024;

/// The most that records and leases may weigh, in bytes: a snapshot of all must fit into one frame.
const QUOTA: u64 = 4 << 20;

/// What a record weighs beside its key and value, at most.
const OVERHEAD: u64 = 128;

/// The state of the store at one index of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Machine {
    pub revision: i64,
    records: BTreeMap<String, Record>,
    leases: BTreeMap<i64, Lease>,
    /// Identity and address of every member, learners too.
    pub members: BTreeMap<u64, String>,
    /// Addresses that may join.
    pub admitted: BTreeSet<String>,
    /// Identities that may never come back.
    pub removed: BTreeSet<u64>,
    /// The commands applied last, by index.
    recent: BTreeMap<u64, (Id, Outcome)>,
    weight: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Lease {
    /// Milliseconds.
    ttl: u64,
    /// How often it was touched.
    generation: u64,
}

/// What applying one command did.
#[derive(Debug)]
pub(super) struct Applied {
    pub outcome: Outcome,
    pub events: Vec<Event>,
    /// The lease whose time starts again.
    pub touched: Option<i64>,
}

impl Machine {
    /// The empty store of a cluster with these members.
    pub fn new(members: BTreeMap<u64, String>) -> Self {
        Self {
            revision: 1,
            records: BTreeMap::new(),
            leases: BTreeMap::new(),
            members,
            admitted: BTreeSet::new(),
            removed: BTreeSet::new(),
            recent: BTreeMap::new(),
            weight: 0,
        }
    }

    /// Applies the command at an index; a command that was applied before only repeats its outcome.
    pub fn apply(&mut self, index: u64, command: &Command) -> Applied {
        let quiet = |outcome| Applied { outcome, events: Vec::new(), touched: None };
        // Raft has made a change of membership already: there is no choice any more.
        if index > command.after.saturating_add(WINDOW) && !command.what.is_change() {
            return quiet(Outcome::Late);
        }
        if let Some(outcome) = self.outcome(command) {
            return quiet(outcome);
        }
        let applied = self.run(&command.what);
        // Whatever may still be repeated has an index within the window: older ones need no memory.
        while self.recent.first_key_value().is_some_and(|(first, _)| first + WINDOW < index) {
            self.recent.pop_first();
        }
        let kept = match &applied.outcome {
            Outcome::Committed(done) => Outcome::Committed(Committed { record: None, ..done.clone() }),
            other => other.clone(),
        };
        self.recent.insert(index, (command.id, kept));
        applied
    }

    /// What came of a command that was applied lately; what it reads, it reads now.
    pub fn outcome(&self, command: &Command) -> Option<Outcome> {
        let (_, (_, outcome)) = self.recent.iter().rev().find(|(_, (id, _))| *id == command.id)?;
        Some(match (outcome, &command.what) {
            (Outcome::Committed(done), What::Commit(txn)) => {
                Outcome::Committed(Committed { record: self.read(txn), ..done.clone() })
            }
            (other, _) => other.clone(),
        })
    }

    fn run(&mut self, what: &What) -> Applied {
        let (mut events, mut touched) = (Vec::new(), None);
        let outcome = match what {
            What::Commit(txn) => self.commit(txn, &mut events),
            What::Grant { lease, ttl } => {
                if self.weight + OVERHEAD > QUOTA {
                    Outcome::Full
                } else if self.leases.contains_key(lease) {
                    Outcome::Gone
                } else {
                    self.leases.insert(*lease, Lease { ttl: *ttl, generation: 0 });
                    self.weight += OVERHEAD;
                    touched = Some(*lease);
                    Outcome::Done
                }
            }
            What::Touch { lease } => match self.leases.get_mut(lease) {
                Some(kept) => {
                    kept.generation += 1;
                    touched = Some(*lease);
                    Outcome::Done
                }
                None => Outcome::Gone,
            },
            What::Revoke { lease, generation } => {
                let found = self.leases.get(lease);
                if found.is_some_and(|kept| generation.is_none_or(|seen| seen == kept.generation)) {
                    self.end_lease(*lease, &mut events);
                }
                Outcome::Done
            }
            What::Admit { address } => {
                self.admitted.insert(address.clone());
                Outcome::Done
            }
            What::Learn { member, address } => {
                self.members.insert(*member, address.clone());
                self.admitted.remove(address);
                Outcome::Done
            }
            What::Promote { .. } => Outcome::Done,
            What::Expel { member, .. } => {
                if let Some(id) = self.member(member) {
                    self.members.remove(&id);
                    self.removed.insert(id);
                }
                Outcome::Done
            }
        };
        Applied { outcome, events, touched }
    }

    /// The member with this identity or address.
    pub fn member(&self, named: &str) -> Option<u64> {
        let is_meant = |(id, address): &(&u64, &String)| *address == named || id.to_string() == named;
        self.members.iter().find(is_meant).map(|(id, _)| *id)
    }

    /// The generation of every lease, and its ttl in milliseconds.
    pub fn leases(&self) -> impl Iterator<Item = (i64, u64, u64)> + '_ {
        self.leases.iter().map(|(lease, kept)| (*lease, kept.generation, kept.ttl))
    }

    /// A lease's time to live in milliseconds, and how often it was renewed.
    pub fn lease(&self, lease: i64) -> Option<(u64, u64)> {
        self.leases.get(&lease).map(|kept| (kept.ttl, kept.generation))
    }

    /// Everything below a prefix.
    pub fn load(&self, prefix: &str) -> Snapshot {
        let below = self.records.range(prefix.to_owned()..).map(|(_, record)| record);
        let records = below.take_while(|record| record.key.starts_with(prefix)).cloned().collect();
        Snapshot { records, revision: Revision(self.revision) }
    }

    /// What a transaction without writes finds.
    pub fn look(&self, txn: &Txn) -> Committed {
        let held = txn.when.iter().all(|condition| self.holds(condition));
        Committed { held, revision: Revision(self.revision), record: self.read(txn) }
    }

    fn read(&self, txn: &Txn) -> Option<Record> {
        txn.read.as_ref().and_then(|key| self.records.get(key).cloned())
    }

    fn holds(&self, condition: &Condition) -> bool {
        let record = |key: &String| self.records.get(key);
        match condition {
            Condition::Absent(key) => record(key).is_none(),
            Condition::Created(key, at) => record(key).map_or(0, |found| found.created) == *at,
            Condition::Modified(key, at) => record(key).map_or(0, |found| found.modified) == *at,
            Condition::Value(key, value) => record(key).is_some_and(|found| found.value == *value),
            Condition::Lease(key, lease) => record(key).is_some_and(|found| found.lease == *lease),
        }
    }

    fn commit(&mut self, txn: &Txn, events: &mut Vec<Event>) -> Outcome {
        let held = txn.when.iter().all(|condition| self.holds(condition));
        if held {
            let lost = |write: &Write| match write {
                Write::Put { lease, .. } => *lease != 0 && !self.leases.contains_key(lease),
                Write::Delete(_) | Write::DeleteAll(_) => false,
            };
            if txn.then.iter().any(lost) {
                return Outcome::Gone;
            }
            let growth: u64 = txn.then.iter().map(|write| self.growth(write)).sum();
            if growth > 0 && self.weight + growth > QUOTA {
                return Outcome::Full;
            }
            self.write(&txn.then, events);
        }
        Outcome::Committed(Committed { held, revision: Revision(self.revision), record: self.read(txn) })
    }

    fn growth(&self, write: &Write) -> u64 {
        let Write::Put { key, value, .. } = write else { return 0 };
        let old = self.records.get(key).map_or(0, |old| weight(key, &old.value));
        weight(key, value).saturating_sub(old)
    }

    /// All writes share one revision; writes that change nothing need none.
    fn write(&mut self, writes: &[Write], events: &mut Vec<Event>) {
        let at = self.revision + 1;
        for write in writes {
            match write {
                Write::Put { key, value, lease } => self.put(at, key, value, *lease, events),
                Write::Delete(key) => self.delete(at, key, events),
                Write::DeleteAll(prefix) => {
                    for record in self.load(prefix).records {
                        self.delete(at, &record.key, events);
                    }
                }
            }
        }
    }

    fn put(&mut self, at: i64, key: &str, value: &str, lease: i64, events: &mut Vec<Event>) {
        let old = self.records.get(key);
        let record = Record {
            key: key.to_owned(),
            value: value.to_owned(),
            created: old.map_or(at, |old| old.created),
            modified: at,
            lease,
        };
        self.weight -= old.map_or(0, |old| weight(key, &old.value)).min(self.weight);
        self.weight += weight(key, value);
        self.records.insert(key.to_owned(), record.clone());
        self.revision = at;
        events.push(Event::Put(record));
    }

    fn delete(&mut self, at: i64, key: &str, events: &mut Vec<Event>) {
        if let Some(old) = self.records.remove(key) {
            self.weight -= weight(key, &old.value).min(self.weight);
            self.revision = at;
            events.push(Event::Delete { key: key.to_owned(), modified: at });
        }
    }

    fn end_lease(&mut self, lease: i64, events: &mut Vec<Event>) {
        self.leases.remove(&lease);
        self.weight -= OVERHEAD.min(self.weight);
        let under = self.records.values().filter(|record| record.lease == lease);
        let writes: Vec<Write> = under.map(|record| Write::Delete(record.key.clone())).collect();
        self.write(&writes, events);
    }
}

/// What a record weighs in a snapshot: text grows there by what JSON escapes.
fn weight(key: &str, value: &str) -> u64 {
    let escaped = |text: &str| {
        let bytes = text.bytes().map(|byte| match byte {
            b'"' | b'\\' => 2,
            0..=31 => 6,
            _ => 1,
        });
        bytes.sum::<u64>()
    };
    // The key stands there twice.
    2 * escaped(key) + escaped(value) + OVERHEAD
}
