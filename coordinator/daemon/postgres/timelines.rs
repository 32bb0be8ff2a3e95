//! Keeps a promotion from making a timeline number that somebody else has made already.
//!
//! Postgres takes the first number for which it finds no history file. Two servers that
//! promote without knowing of each other make the same number with different contents, and
//! then nothing tells them apart, `pg_rewind` least of all (reliability F05, F102, F103). So
//! the numbers known to be used are marked for the moment of the promotion by history files
//! that hold only a comment: Postgres sees that they exist, and refuses to follow them, since
//! they do not name its timeline as an ancestor. They must be gone before any start.

use std::fs;
use std::io;
use std::path::PathBuf;

use dcs::Timeline;

use super::{Paths, files};

/// What a mark holds.
const MARK: &str = "# reserved for a promotion by matriarch\n";
/// More numbers than this are not marked: a history that long is somebody's mistake.
const MOST: u32 = 1000;

/// Marks every number above `own` up to and including `above` that has no history file.
pub fn reserve(paths: &Paths, own: Timeline, above: Timeline) -> io::Result<()> {
    let mode = files::mode_for(&paths.data_dir);
    for number in own.0.saturating_add(1)..=above.0.min(own.0.saturating_add(MOST)) {
        let file = wal(paths).join(format!("{number:08X}.history"));
        if !file.exists() {
            files::write(&file, MARK.as_bytes(), mode)?;
        }
    }
    Ok(())
}

/// Takes all marks away. Real history files are never touched.
pub fn release(paths: &Paths) -> io::Result<()> {
    let entries = match fs::read_dir(wal(paths)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let file = entry?.path();
        let history = file.extension().is_some_and(|extension| extension == "history");
        if history && fs::read(&file)? == MARK.as_bytes() {
            files::remove(&file)?;
        }
    }
    Ok(())
}

fn wal(paths: &Paths) -> PathBuf {
    paths.data_dir.join("pg_wal")
}
