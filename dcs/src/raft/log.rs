//! What this member must never forget: its identity, its vote, its log and one snapshot, in one file
//! that is committed in two phases, so that what was once confirmed is there after a crash or the member refuses
//! to start. Nothing here repairs, skips or guesses; nothing here knows what the entries mean.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};

use prost::Message as _;
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, StorageError as Missing};
use redb::{Database, WriteTransaction};
use serde::{Deserialize, Serialize};

use super::disk::{COUNT, FILE, LOG, builder, commit, counted, create, open_count, place, private, put};
use super::record;
use super::stored::Stored;

/// Why the log cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub(super) enum LogError {
    #[error("the embedded store's directory {} cannot be used: {error}", .dir.display())]
    Directory { dir: PathBuf, error: io::Error },
    #[error(
        "{} is in use by another process: stop it first, or give this member a data_dir of its own", .0.display()
    )]
    Busy(PathBuf),
    #[error(
        "the log of this member in {} is damaged ({why}). It is not used, because it may have lost what the member promised to the \
         others. If they are there, stop this member, move the directory away and start it again: it joins them under a \
         new identity and copies everything from them", .dir.display()
    )]
    Damaged { dir: PathBuf, why: String },
    #[error("the log of this member in {} cannot be written: {why}; check the disk, then start it again", .dir.display())]
    Write { dir: PathBuf, why: String },
}

/// Who this member is, for as long as its directory lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    pub member: u64,
    /// Which store it belongs to; 0: none yet.
    pub cluster: u64,
    /// Who founded that store, with their addresses.
    pub founders: BTreeMap<u64, String>,
}

/// The log of one member, on disk and mirrored in memory.
pub(super) struct Log {
    dir: PathBuf,
    db: Database,
    pub identity: Identity,
    hard: HardState,
    /// What of `hard` is on disk for sure.
    saved: HardState,
    snapshot: Snapshot,
    /// From the one after the snapshot on, without gaps.
    entries: VecDeque<Entry>,
    /// Bytes of the entries.
    size: usize,
    commits: u64,
    count: File,
    /// Held for as long as the directory is ours.
    _lock: File,
}

impl Log {
    /// Opens the log in a directory; an empty directory gets a new one, with the identity that is offered.
    pub fn open(dir: &Path, fresh: u64) -> Result<Self, LogError> {
        let directory = |error| LogError::Directory { dir: dir.to_owned(), error };
        private(dir).map_err(directory)?;
        let lock = File::open(dir).map_err(directory)?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| LogError::Busy(dir.to_owned()))?;
        let file = dir.join(FILE);
        if !file.try_exists().map_err(directory)? {
            create(dir, fresh)?;
        }
        // The library panics on some damage that its checksums do not cover.
        let reading = std::panic::catch_unwind(AssertUnwindSafe(|| Self::read(dir, &file, lock)));
        let why = "its pages contradict each other".to_owned();
        reading.unwrap_or_else(|_| Err(LogError::Damaged { dir: dir.to_owned(), why }))
    }

    fn read(dir: &Path, file: &Path, lock: File) -> Result<Self, LogError> {
        let damaged = |why: String| LogError::Damaged { dir: dir.to_owned(), why };
        let mut db = builder().open(file).map_err(|error| match error {
            redb::DatabaseError::DatabaseAlreadyOpen => LogError::Busy(dir.to_owned()),
            other => damaged(other.to_string()),
        })?;
        // A file that was closed in order is otherwise not looked at before it is read.
        match db.check_integrity() {
            Ok(true) => {}
            Ok(false) => return Err(damaged("its pages do not match their checksums".to_owned())),
            Err(error) => return Err(damaged(error.to_string())),
        }
        let count = open_count(dir);
        let count = count.map_err(|error| LogError::Directory { dir: dir.to_owned(), error })?;
        let found = Stored::read(&db).map_err(&damaged)?;
        let identity = found.identity.ok_or_else(|| damaged("it has no identity".to_owned()))?;
        if let Some(confirmed) = counted(&count).filter(|confirmed| *confirmed > found.commits) {
            let lost = confirmed - found.commits;
            return Err(damaged(format!("the last {lost} of {confirmed} commits are missing")));
        }
        let hard = found.hard.clone().unwrap_or_default();
        let mut log = Self {
            dir: dir.to_owned(),
            db,
            identity,
            saved: hard.clone(),
            hard,
            snapshot: found.snapshot.unwrap_or_default(),
            entries: VecDeque::new(),
            size: 0,
            commits: found.commits,
            count,
            _lock: lock,
        };
        let (after, mut last) = (log.snapshot.get_metadata().index, log.snapshot.get_metadata().index);
        for (index, entry) in found.entries {
            if index != entry.index || index != last + 1 {
                return Err(damaged(format!("entry {index} does not follow entry {last}")));
            }
            last = index;
            log.size += entry.data.len();
            log.entries.push_back(entry);
        }
        let commit = log.hard.commit;
        if commit < after || commit > last {
            return Err(damaged(format!("entry {commit} is committed, but it has {after} to {last}")));
        }
        if found.hard.is_none() && last > 0 {
            return Err(damaged("it has no vote".to_owned()));
        }
        Ok(log)
    }

    /// Writes who this member is.
    pub fn set_identity(&mut self, identity: Identity) -> Result<(), LogError> {
        let text = serde_json::to_vec(&identity).unwrap_or_default();
        self.write(|transaction| put(transaction, "identity", &text))?;
        self.identity = identity;
        Ok(())
    }

    /// Founds a store: identity, first snapshot and vote at once.
    pub fn found(&mut self, identity: Identity, snapshot: Snapshot) -> Result<(), LogError> {
        let text = serde_json::to_vec(&identity).unwrap_or_default();
        let first = snapshot.get_metadata().index;
        let hard = HardState { term: snapshot.get_metadata().term, vote: 0, commit: first };
        self.write(|transaction| {
            put(transaction, "identity", &text)?;
            put(transaction, "hard", &hard.encode_to_vec())?;
            put(transaction, "snapshot", &snapshot.encode_to_vec())
        })?;
        (self.identity, self.snapshot, self.hard, self.saved) = (identity, snapshot, hard.clone(), hard);
        Ok(())
    }

    /// Keeps what raft asks to keep, with one durable commit, or none if only the commit index
    /// moved: that is learnt again from the others.
    pub fn save(
        &mut self,
        snapshot: Option<&Snapshot>,
        entries: &[Entry],
        hard: Option<&HardState>,
    ) -> Result<(), LogError> {
        if let Some(hard) = hard {
            self.hard = hard.clone();
        }
        let vote = |hard: &HardState| (hard.term, hard.vote);
        if snapshot.is_none() && entries.is_empty() && vote(&self.hard) == vote(&self.saved) {
            return Ok(());
        }
        let after = snapshot.map_or(self.snapshot.get_metadata().index, |new| new.get_metadata().index);
        let gap = entries.first().is_some_and(|first| {
            let last = if snapshot.is_some() { after } else { self.last() };
            first.index <= after || first.index > last + 1
        });
        if gap {
            let why = format!("raft gave entries that do not follow {}", self.last());
            return Err(LogError::Write { dir: self.dir.clone(), why });
        }
        let mut hard = self.hard.clone();
        hard.commit = hard.commit.max(after);
        self.write(|transaction| {
            put(transaction, "hard", &hard.encode_to_vec())?;
            let mut log = transaction.open_table(LOG)?;
            if let Some(snapshot) = snapshot {
                put(transaction, "snapshot", &snapshot.encode_to_vec())?;
                log.retain(|_, _| false)?;
            } else if let Some(first) = entries.first() {
                log.retain_in(first.index.., |_, _| false)?;
            }
            for entry in entries {
                log.insert(
                    entry.index,
                    record::seal(&place(entry.index), &entry.encode_to_vec()).as_slice(),
                )?;
            }
            Ok(())
        })?;
        (self.saved, self.hard) = (hard.clone(), hard);
        if let Some(snapshot) = snapshot {
            self.snapshot = snapshot.clone();
            self.entries.clear();
            self.size = 0;
        }
        if let Some(first) = entries.first() {
            while self.entries.back().is_some_and(|last| last.index >= first.index) {
                self.size -= self.entries.pop_back().map_or(0, |gone| gone.data.len());
            }
        }
        for entry in entries {
            self.size += entry.data.len();
            self.entries.push_back(entry.clone());
        }
        Ok(())
    }

    /// Replaces the entries up to a snapshot by it. The vote goes along, so that the
    /// commit index on disk is never below the snapshot.
    pub fn compact(&mut self, snapshot: Snapshot) -> Result<(), LogError> {
        let index = snapshot.get_metadata().index;
        let mut hard = self.hard.clone();
        hard.commit = hard.commit.max(index);
        self.write(|transaction| {
            put(transaction, "hard", &hard.encode_to_vec())?;
            put(transaction, "snapshot", &snapshot.encode_to_vec())?;
            transaction.open_table(LOG)?.retain_in(..=index, |_, _| false)?;
            Ok(())
        })?;
        (self.saved, self.hard, self.snapshot) = (hard.clone(), hard, snapshot);
        while self.entries.front().is_some_and(|first| first.index <= index) {
            self.size -= self.entries.pop_front().map_or(0, |gone| gone.data.len());
        }
        Ok(())
    }

    /// Notes how far the log is committed; nothing is written.
    pub fn set_commit(&mut self, commit: u64) {
        self.hard.commit = commit;
    }

    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Entries since the snapshot, and their bytes.
    pub fn length(&self) -> (usize, usize) {
        (self.entries.len(), self.size)
    }

    fn last(&self) -> u64 {
        self.entries.back().map_or(self.snapshot.get_metadata().index, |entry| entry.index)
    }

    fn write(
        &mut self,
        change: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<(), LogError> {
        let commits = self.commits + 1;
        commit(&self.dir, &self.db, |transaction| {
            put(transaction, "commits", &commits.to_be_bytes())?;
            change(transaction)
        })?;
        self.commits = commits;
        let sealed = record::seal(COUNT, &commits.to_be_bytes());
        // Only a help to notice what the file itself cannot show: without it nothing is lost.
        let _ = self.count.write_all_at(&sealed, 0);
        Ok(())
    }
}

impl raft::Storage for Log {
    fn initial_state(&self) -> raft::Result<RaftState> {
        let conf: ConfState = self.snapshot.get_metadata().get_conf_state().clone();
        Ok(RaftState::new(self.hard.clone(), conf))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        most: impl Into<Option<u64>>,
        _: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        let first = self.first_index()?;
        if low < first {
            return Err(Missing::Compacted.into());
        }
        if high > self.last() + 1 {
            return Err(Missing::Unavailable.into());
        }
        let skip = usize::try_from(low - first).unwrap_or(usize::MAX);
        let count = usize::try_from(high.saturating_sub(low)).unwrap_or(0);
        let mut entries: Vec<Entry> = self.entries.iter().skip(skip).take(count).cloned().collect();
        raft::util::limit_size(&mut entries, most.into());
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        let meta = self.snapshot.get_metadata();
        if index == meta.index {
            return Ok(meta.term);
        }
        let at = index.checked_sub(meta.index + 1).ok_or(Missing::Compacted)?;
        let entry = usize::try_from(at).ok().and_then(|at| self.entries.get(at));
        entry.map(|entry| entry.term).ok_or_else(|| Missing::Unavailable.into())
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.snapshot.get_metadata().index + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, request: u64, _: u64) -> raft::Result<Snapshot> {
        let index = self.snapshot.get_metadata().index;
        if index == 0 || index < request {
            return Err(Missing::SnapshotTemporarilyUnavailable.into());
        }
        Ok(self.snapshot.clone())
    }
}
