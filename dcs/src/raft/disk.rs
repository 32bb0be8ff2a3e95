//! The files in a member's directory: how they are made, opened and committed to. What is in them is the
//! business of `log`; nothing here removes a log.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use redb::{Database, TableDefinition, WriteTransaction};

use super::log::{Identity, LogError};
use super::record;

pub(super) const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");
pub(super) const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
pub(super) const FILE: &str = "store.redb";
/// The name of the file until it is whole for the first time.
pub(super) const NEW: &str = "store.new";
/// How many commits were confirmed. Written after each and never waited for: it can only be behind, so a log
/// that is behind it has forgotten something.
pub(super) const COUNT: &str = "store.count";

/// One transaction, in two phases: a commit that was confirmed is the one that is read after a crash, or none is.
pub(super) fn commit(
    dir: &Path,
    db: &Database,
    change: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error>,
) -> Result<(), LogError> {
    let run = || {
        let mut transaction = db.begin_write()?;
        transaction.set_two_phase_commit(true);
        change(&transaction)?;
        transaction.commit()?;
        Ok(())
    };
    run().map_err(|error: redb::Error| LogError::Write { dir: dir.to_owned(), why: error.to_string() })
}

/// A new log. It gets its name when it is whole, so that a crash on the way leaves nothing to be taken for a damaged one.
pub(super) fn create(dir: &Path, member: u64) -> Result<(), LogError> {
    let directory = |error| LogError::Directory { dir: dir.to_owned(), error };
    for leftover in [NEW, COUNT] {
        match std::fs::remove_file(dir.join(leftover)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(directory(error)),
            _ => {}
        }
    }
    let write = |error: redb::DatabaseError| LogError::Write { dir: dir.to_owned(), why: error.to_string() };
    let db = builder().create(dir.join(NEW)).map_err(write)?;
    let identity = Identity { member, cluster: 0, founders: BTreeMap::new() };
    let text = serde_json::to_vec(&identity).unwrap_or_default();
    commit(dir, &db, |transaction| {
        transaction.open_table(LOG)?;
        put(transaction, "identity", &text)
    })?;
    drop(db);
    #[allow(clippy::disallowed_methods, reason = "one file, which this module owns")]
    std::fs::rename(dir.join(NEW), dir.join(FILE)).map_err(directory)?;
    sync_dir(dir).map_err(directory)
}

/// How many commits were confirmed, if the note of it is whole.
pub(super) fn counted(count: &File) -> Option<u64> {
    let mut sealed = [0; 16];
    count.read_exact_at(&mut sealed, 0).ok()?;
    number(record::open(COUNT, &sealed).ok()?)
}

/// A number as it is written in a record.
pub(super) fn number(content: &[u8]) -> Option<u64> {
    content.try_into().ok().map(u64::from_be_bytes)
}

pub(super) fn put(transaction: &WriteTransaction, key: &str, content: &[u8]) -> Result<(), redb::Error> {
    transaction.open_table(META)?.insert(key, record::seal(key, content).as_slice())?;
    Ok(())
}

pub(super) fn place(index: u64) -> String {
    format!("entry {index}")
}

/// The note of how many commits were confirmed.
pub(super) fn open_count(dir: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).open(dir.join(COUNT))
}

pub(super) fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(2 << 20);
    builder
}

/// The directory, made if it is missing, for nobody but us.
pub(super) fn private(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700))
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()?;
    dir.parent().map_or(Ok(()), |parent| File::open(parent).and_then(|parent| parent.sync_all()))
}
