//! What stands in the file of a member's log, read once at its start, with every seal checked. Whatever is not
//! exactly what was written makes the whole unreadable.

use std::collections::BTreeMap;

use prost::Message as _;
use raft::eraftpb::{Entry, HardState, Snapshot};
use redb::{Database, ReadableDatabase, ReadableTable};

use super::disk::{LOG, META, number, place};
use super::log::Identity;
use super::record::{self, Damaged};

/// What stands in the file, every seal checked.
#[derive(Default)]
pub(super) struct Stored {
    pub identity: Option<Identity>,
    pub hard: Option<HardState>,
    pub snapshot: Option<Snapshot>,
    pub entries: Vec<(u64, Entry)>,
    /// How often this file was committed to.
    pub commits: u64,
}

impl Stored {
    pub fn read(db: &Database) -> Result<Self, String> {
        let read = || {
            let transaction = db.begin_read()?;
            let mut raw = (BTreeMap::new(), Vec::new());
            for row in transaction.open_table(META)?.iter()? {
                let (key, value) = row?;
                raw.0.insert(key.value().to_owned(), value.value().to_vec());
            }
            for row in transaction.open_table(LOG)?.iter()? {
                let (index, value) = row?;
                raw.1.push((index.value(), value.value().to_vec()));
            }
            Ok(raw)
        };
        let (meta, log) = read().map_err(|error: redb::Error| error.to_string())?;
        let mut found = Self::default();
        for (key, value) in &meta {
            let content = record::open(key, value).map_err(|damaged: Damaged| damaged.to_string())?;
            let unreadable = |_| format!("the record {key} cannot be read");
            match key.as_str() {
                "identity" => {
                    let identity = serde_json::from_slice(content);
                    found.identity = Some(identity.map_err(|_| "the identity cannot be read".to_owned())?);
                }
                "commits" => {
                    let commits = number(content);
                    found.commits =
                        commits.ok_or_else(|| "the count of commits cannot be read".to_owned())?;
                }
                "hard" => found.hard = Some(HardState::decode(content).map_err(unreadable)?),
                "snapshot" => found.snapshot = Some(Snapshot::decode(content).map_err(unreadable)?),
                other => return Err(format!("there is a record {other} that nobody wrote")),
            }
        }
        for (index, value) in &log {
            let content = record::open(&place(*index), value).map_err(|damaged| damaged.to_string())?;
            let entry = Entry::decode(content).map_err(|_| format!("entry {index} cannot be read"))?;
            found.entries.push((*index, entry));
        }
        Ok(found)
    }
}
