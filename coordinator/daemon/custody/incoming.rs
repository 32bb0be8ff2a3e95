//! New data directories: made beside the place they are for, put there only when it is empty.
//!
//! What is half made is recognisable by where it is, is never started, and is the one thing that may be
//! removed: it never served, so it holds nothing that anybody was promised.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::moves::{identity, is_mount_point, rename, rename_contents};
use super::{CustodyError, files};
use crate::postgres::process::{self, ProcessError};
use crate::postgres::{Complete, Found, Paths};

/// The name inside of a data directory that is a mount point, where nothing can be made beside it.
pub(super) const INSIDE: &str = ".matriarch-incoming";

/// An empty directory for a new cluster or a clone, on the file system of the data directory.
#[derive(Debug)]
pub struct Incoming {
    path: PathBuf,
}

impl Incoming {
    /// Where to make it.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Whether there is nothing at the data directory's place: no directory, or nothing in it.
pub fn is_empty(paths: &Paths) -> io::Result<bool> {
    match fs::read_dir(&paths.data_dir) {
        Ok(entries) => {
            for entry in entries {
                let name = entry?.file_name();
                if name != "lost+found" && name != INSIDE {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

fn place(paths: &Paths) -> PathBuf {
    if is_mount_point(&paths.data_dir) { paths.data_dir.join(INSIDE) } else { paths.beside(".incoming") }
}

/// Where our own note says which directory we made: beside it.
fn note(place: &Path) -> PathBuf {
    let mut name = place.as_os_str().to_owned();
    name.push(".made-by-matriarch");
    PathBuf::from(name)
}

/// Makes an empty directory to work in. The data directory must be empty or missing; what an earlier,
/// interrupted work of our own left there is removed first.
pub fn make_room(paths: &Paths) -> Result<Incoming, CustodyError> {
    if !is_empty(paths).map_err(files("reading", &paths.data_dir))? {
        return Err(CustodyError::Occupied { path: paths.data_dir.clone() });
    }
    discard_leftovers(paths)?;
    let path = place(paths);
    let make = || {
        use std::os::unix::fs::DirBuilderExt;
        if let Some(parent) = path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
        }
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        let (device, inode) = identity(&path)?;
        crate::postgres::files::write(&note(&path), format!("{device} {inode}\n").as_bytes(), 0o600)
    };
    make().map_err(files("making", &path))?;
    Ok(Incoming { path })
}

/// Removes what an interrupted initdb or clone of our own left. Anything else at that place stays, and is an error.
pub fn discard_leftovers(paths: &Paths) -> Result<(), CustodyError> {
    let path = place(paths);
    let found = match identity(&path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(files("examining", &path)(error)),
    };
    let noted = fs::read_to_string(note(&path)).unwrap_or_default();
    if noted.trim() != format!("{} {}", found.0, found.1) {
        return Err(CustodyError::NotOurs { path });
    }
    let mut there = paths.clone();
    there.data_dir.clone_from(&path);
    if !matches!(process::find(&there)?, Found::Nothing(_)) {
        return Err(ProcessError::Alive { pids: Vec::new() }.into());
    }
    remove_unfinished(&path).map_err(files("removing the unfinished", &path))
}

#[allow(
    clippy::disallowed_methods,
    reason = "custody itself: an unfinished directory of our own, by inode, that never served"
)]
fn remove_unfinished(path: &Path) -> io::Result<()> {
    fs::remove_dir_all(path)?;
    crate::postgres::files::remove(&note(path)).map(drop)
}

/// Puts a complete directory in place. Fails, changing nothing, if anything is there.
pub fn install(paths: &Paths, incoming: Incoming, complete: Complete) -> Result<(), CustodyError> {
    let Incoming { path } = incoming;
    if complete.directory() != path {
        return Err(CustodyError::NotOurs { path: complete.directory().to_owned() });
    }
    drop(complete);
    if !is_empty(paths).map_err(files("reading", &paths.data_dir))? {
        return Err(CustodyError::Occupied { path: paths.data_dir.clone() });
    }
    let exchange = || {
        if path.starts_with(&paths.data_dir) {
            // PG_VERSION last: until it is there the directory is nobody's data directory.
            rename_contents(&path, &paths.data_dir, &[], "PG_VERSION")?;
            remove_unfinished(&path)
        } else {
            remove_empty(&paths.data_dir)?;
            rename(&path, &paths.data_dir)?;
            crate::postgres::files::remove(&note(&path)).map(drop)
        }
    };
    exchange().map_err(files("putting the new directory in place of", &paths.data_dir))
}

#[allow(clippy::disallowed_methods, reason = "custody itself: fails unless the directory is empty")]
fn remove_empty(path: &Path) -> io::Result<()> {
    match fs::remove_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
