//! The fork capsule: what a server wrote after its history left the leader's, copied before a rewind or
//! crash recovery may throw it away.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use dcs::Lsn;

use super::{CustodyError, files};
use crate::postgres::controldata::ControlFile;
use crate::postgres::files::{sync_file_systems, sync_parent, write};
use crate::postgres::{Paths, Stopped};

/// Proof that the WAL from a position on, the control file and the histories have been copied, and that the copy has no gap.
#[derive(Debug)]
pub struct Capsule {
    directory: PathBuf,
}

impl Capsule {
    /// Where the copy is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

/// Copies every WAL segment in use from the one that holds `from`, `pg_control` and all histories into
/// the vault. Blocking: it reads and writes up to the whole of `pg_wal`.
///
/// `from` is the redo point of the last checkpoint before the fork; `None` if that WAL is gone
/// already: then everything that is left is copied.
pub fn capsule(
    paths: &Paths,
    stopped: &Stopped,
    vault: &Path,
    control: &ControlFile,
    from: Option<Lsn>,
) -> Result<Capsule, CustodyError> {
    if stopped.data_dir() != paths.data_dir {
        return Err(CustodyError::NotOurs { path: stopped.data_dir().to_owned() });
    }
    let label = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%S%.3fZ-fork").to_string().to_lowercase();
    let directory = vault.join(label);
    let target = directory.join("fork-wal");
    let wal = paths.data_dir.join("pg_wal");
    let copy_all = || {
        make_private(&target)?;
        let size = control.wal_segment_size.max(1);
        let first = from.map_or(0, |from| from.0 / size);
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&wal)? {
            let name = entry?.file_name();
            let Some(name) = name.to_str() else { continue };
            let path = wal.join(name);
            match segment_number(name, size) {
                Some(number) if number >= first && is_in_use(&path, number * size)? => {
                    copy(&path, &target.join(name))?;
                    numbers.push(number);
                }
                None if name.ends_with(".history") => copy(&path, &target.join(name))?,
                _ => {}
            }
        }
        copy(&paths.data_dir.join("global/pg_control"), &target.join("pg_control"))?;
        let text = format!("timeline {}\nfrom {}\n", control.timeline, from.unwrap_or_default());
        write(&directory.join("summary"), text.as_bytes(), 0o600)?;
        sync_file_systems(std::slice::from_ref(&target))?;
        without_gap(numbers, from.map(|_| first))
    };
    copy_all().map_err(files("copying the WAL that a repair may discard into", &directory))?;
    Ok(Capsule { directory })
}

/// Every segment from the first to the last must be there, on whichever timeline.
fn without_gap(mut numbers: Vec<u64>, first: Option<u64>) -> io::Result<()> {
    numbers.sort_unstable();
    numbers.dedup();
    let begins = first.is_none() || numbers.first().copied() == first;
    let has_gap = numbers.windows(2).any(|pair| matches!(pair, [a, b] if a + 1 != *b));
    if begins && !has_gap && !numbers.is_empty() {
        return Ok(());
    }
    Err(io::Error::other("a segment is missing from pg_wal"))
}

/// The number of the segment by its file name; `None` for other files.
fn segment_number(name: &str, size: u64) -> Option<u64> {
    let hex = |range| u64::from_str_radix(name.get(range)?, 16).ok();
    if name.len() != 24 {
        return None;
    }
    hex(0..8)?;
    Some(hex(8..16)? * (0x1_0000_0000 / size).max(1) + hex(16..24)?)
}

/// Whether a segment holds what its name says: one that was recycled for later use still has the
/// address of its former place in its first page (`XLogPageHeaderData.xlp_pageaddr`).
fn is_in_use(path: &Path, start: u64) -> io::Result<bool> {
    use std::io::Read;
    let mut header = [0_u8; 16];
    fs::File::open(path)?.read_exact(&mut header)?;
    let address = header.last_chunk::<8>().map(|bytes| u64::from_ne_bytes(*bytes));
    Ok(address == Some(start))
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::copy(from, to).map(drop)
}

fn make_private(directory: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    sync_parent(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_found() {
        assert!(without_gap(vec![3, 5, 4], Some(3)).is_ok());
        assert!(without_gap(vec![3, 4, 4], None).is_ok());
        assert!(without_gap(vec![3, 5], Some(3)).is_err());
        assert!(without_gap(vec![4, 5], Some(3)).is_err());
        assert!(without_gap(vec![], None).is_err());
    }

    #[test]
    fn segments_are_numbered_as_by_postgres() {
        assert_eq!(segment_number("0000000A00006AA100000068", 16 << 20), Some(0x6AA1 * 256 + 0x68));
        assert_eq!(segment_number("00000002.history", 16 << 20), None);
        assert_eq!(segment_number("00000001000000000000000X", 16 << 20), None);
    }
}
