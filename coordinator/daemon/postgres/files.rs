//! Single files, written so that a crash leaves the old one or the new one, never half of one.
//!
//! Owns the atomic write and the rule that files in the data directory get its permissions.
//! It touches files only; directories are custody's.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Replaces `path` by `content` with these permissions: a temporary file beside it, synced,
/// renamed over it, its directory synced. Durable when it returns; on a busy disk that takes seconds.
pub fn write(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    put_beside(path, content, mode)?.sync_all()?;
    rename(&temporary(path), path)
}

/// Writes `path`, durably, only if its content differs. Returns whether it did.
pub fn write_if_changed(path: &Path, content: &[u8], mode: u32) -> io::Result<bool> {
    let differs = differs(path, content)?;
    if differs {
        write(path, content, mode)?;
    }
    Ok(differs)
}

/// Replaces `path` only if its content differs, and returns whether it did. Readers see the old or the new
/// content, never half of one; after a crash of the host it may be either, or empty. For files that are
/// written again before each use: waiting for the disk would only lengthen a failover.
pub fn replace_if_changed(path: &Path, content: &[u8], mode: u32) -> io::Result<bool> {
    let differs = differs(path, content)?;
    if differs {
        put_beside(path, content, mode)?;
        rustix::fs::rename(temporary(path), path)?;
    }
    Ok(differs)
}

fn differs(path: &Path, content: &[u8]) -> io::Result<bool> {
    match fs::read(path) {
        Ok(present) => Ok(present != content),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

fn put_beside(path: &Path, content: &[u8], mode: u32) -> io::Result<File> {
    let temporary = temporary(path);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
    // The mode of an existing leftover, and the umask, must not win.
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(content)?;
    Ok(file)
}

/// Renames one file, never a directory, and makes the new name durable.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    if fs::symlink_metadata(from)?.is_dir() {
        return Err(io::Error::other(format!(
            "{} is a directory; only files are renamed here",
            from.display()
        )));
    }
    rustix::fs::rename(from, to)?;
    sync_parent(to)
}

/// Removes one file if it is there, and makes that durable. Returns whether it was.
pub fn remove(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => sync_parent(path).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Makes the names in the directory that holds `path` durable.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => Ok(()),
    }
}

/// Makes everything durable that was written on the file systems of these directories, in one call
/// each. Thousands of single syncs take seconds; Postgres offers the same as
/// `--sync-method=syncfs` since 17. Blocking.
pub fn sync_file_systems(directories: &[PathBuf]) -> io::Result<()> {
    directories
        .iter()
        .try_for_each(|directory| rustix::fs::syncfs(File::open(directory)?).map_err(Into::into))
}

/// The permissions for files in a data directory: 0640 where its group may read it, else 0600 (P167).
pub fn mode_for(data_dir: &Path) -> u32 {
    let group_reads = fs::metadata(data_dir).is_ok_and(|meta| meta.permissions().mode() & 0o050 == 0o050);
    if group_reads { 0o640 } else { 0o600 }
}

/// The permissions for `path`: those of the data directory if it is inside, else 0644, which
/// an operator's `config_dir` outside expects.
pub fn mode_of(path: &Path, data_dir: &Path) -> u32 {
    if path.starts_with(data_dir) { mode_for(data_dir) } else { 0o644 }
}

fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".matriarch-new");
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_replaces_the_file_with_its_mode_and_leaves_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        write(&path, b"one", 0o600).unwrap();
        assert!(!write_if_changed(&path, b"one", 0o600).unwrap());
        assert!(replace_if_changed(&path, b"three", 0o600).unwrap());
        assert!(!replace_if_changed(&path, b"three", 0o600).unwrap());
        assert!(write_if_changed(&path, b"two", 0o640).unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    /// P167.
    #[test]
    fn modes_follow_the_data_directory() {
        let dir = tempfile::tempdir().unwrap();
        for (directory, file) in [(0o700, 0o600), (0o750, 0o640)] {
            fs::set_permissions(dir.path(), Permissions::from_mode(directory)).unwrap();
            assert_eq!(mode_of(&dir.path().join("x"), dir.path()), file);
        }
        assert_eq!(mode_of(Path::new("/etc/pg/x"), dir.path()), 0o644);
    }

    #[test]
    fn a_directory_is_never_renamed_here() {
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("data");
        fs::create_dir(&from).unwrap();
        assert!(rename(&from, &dir.path().join("elsewhere")).is_err());
        assert!(from.is_dir());
    }
}
