//! Moving directories: renames on one file system that never replace anything, made durable.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::postgres::files::sync_parent;

/// Device and inode of what a path names, links not followed.
pub fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|meta| (meta.dev(), meta.ino()))
}

/// Whether a directory is where a file system begins, so that it cannot be renamed itself.
pub fn is_mount_point(path: &Path) -> bool {
    let above = path.parent().map(identity);
    matches!((identity(path), above), (Ok((here, _)), Some(Ok((there, _)))) if here != there)
}

/// The file system on which something at `path` would be made: that of its nearest existing ancestor.
pub fn device_of(path: &Path) -> io::Result<u64> {
    let mut at = path;
    loop {
        match fs::metadata(at) {
            Ok(meta) => return Ok(meta.dev()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => match at.parent() {
                Some(parent) => at = parent,
                None => return Err(error),
            },
            Err(error) => return Err(error),
        }
    }
}

/// Renames; fails if `to` exists. Both directories' names are durable when it returns.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // File systems without this flag: the check and the rename are two steps.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
            if fs::symlink_metadata(to).is_ok() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            rustix::fs::rename(from, to)?;
        }
        done => done?,
    }
    sync_parent(to)?;
    sync_parent(from)
}

/// Moves what a directory contains into another one, except `keep`. `last` goes last, so
/// that without it the target is recognisably incomplete. Done again after a crash, it goes on.
pub fn rename_contents(from: &Path, to: &Path, keep: &[&str], last: &str) -> io::Result<()> {
    let mut names: Vec<_> =
        fs::read_dir(from)?.map(|entry| entry.map(|entry| entry.file_name())).collect::<Result<_, _>>()?;
    names.retain(|name| !keep.iter().any(|kept| name == kept));
    names.sort_by_key(|name| name == last);
    for name in names {
        rename(&from.join(&name), &to.join(&name))?;
    }
    Ok(())
}

/// Where links of a data directory lead outside of it: tablespaces, and `pg_wal`.
pub fn outside_links(data_dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut links = vec![data_dir.join("pg_wal")];
    match fs::read_dir(data_dir.join("pg_tblspc")) {
        Ok(entries) => {
            for entry in entries {
                links.push(entry?.path());
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut targets = Vec::new();
    for link in links {
        if fs::symlink_metadata(&link).is_ok_and(|meta| meta.is_symlink()) {
            let target = fs::read_link(&link)?;
            if target.is_absolute() && !target.starts_with(data_dir) && target.is_dir() {
                targets.push(target);
            }
        }
    }
    Ok(targets)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A mount point's contents move one by one: the last one goes last, and a second run goes on where a crash stopped the first.
    #[test]
    fn contents_move_and_the_move_can_be_resumed() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        for name in ["from/PG_VERSION", "from/zz", "from/base", "from/.vault", "to"] {
            fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        rename(&from.join("base"), &to.join("base")).unwrap();
        // The target has something in the way of the last name: what came before it has moved.
        fs::create_dir(to.join("PG_VERSION")).unwrap();
        assert!(rename_contents(&from, &to, &[".vault"], "PG_VERSION").is_err());
        assert!(to.join("zz").exists() && from.join("PG_VERSION").exists());
        rename(&to.join("PG_VERSION"), &dir.path().join("away")).unwrap();
        rename_contents(&from, &to, &[".vault"], "PG_VERSION").unwrap();
        assert!(to.join("PG_VERSION").exists() && from.join(".vault").exists());
        assert_eq!(fs::read_dir(&from).unwrap().count(), 1);
    }

    #[test]
    fn nothing_is_ever_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir(&from).unwrap();
        fs::create_dir(&to).unwrap();
        assert_eq!(rename(&from, &to).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert!(!is_mount_point(&from) && is_mount_point(Path::new("/proc")));
        assert_eq!(device_of(&from.join("a/b/c")).unwrap(), device_of(&from).unwrap());
    }
}
