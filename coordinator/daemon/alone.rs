//! Before anything is touched: this daemon is the only one on its data directory, and what an
//! earlier one was killed in the middle of is finished or thrown away.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context as _, bail};
use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::custody;
use crate::lease::chain;
use crate::postgres::{Paths, files, initdb, off_loop};

/// The lock by which no second daemon works on the data directory; held until it is dropped,
/// and by the kernel given up with the process.
///
/// # Errors
/// If another daemon holds it, or the place beside the data directory cannot be written.
pub fn lock(paths: &Paths) -> anyhow::Result<File> {
    let path = paths.beside(".lock");
    let open = || {
        if let Some(parent) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
        }
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path)
    };
    let mut file = open().with_context(|| {
        format!(
            "{} cannot be opened: this user must be able to write beside its data directory",
            path.display()
        )
    })?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            let mut holder = String::new();
            // Only for the message.
            let _ = file.read_to_string(&mut holder);
            bail!(
                "another matriarch (process {}) works on the data directory {}: stop it, or give this node a \
                 data directory of its own",
                holder.trim(),
                paths.data_dir.display()
            );
        }
        Err(error) => return Err(error).with_context(|| format!("locking {}", path.display())),
    }
    file.set_len(0)
        .and_then(|()| write!(file, "{}", std::process::id()))
        .with_context(|| format!("writing {}", path.display()))?;
    Ok(file)
}

/// Finishes a retirement that was interrupted, and throws away what an interrupted initdb or clone left.
///
/// # Errors
/// If a directory is half moved and the rest cannot be: nothing must be started on it.
pub async fn tidy(paths: &Paths, vault: &Path) -> anyhow::Result<()> {
    let (of, vault) = (paths.clone(), vault.to_owned());
    let moved =
        off_loop(move || custody::complete_interrupted(&vault, &of).map_err(std::io::Error::other)).await;
    for entry in moved.context("finishing the interrupted move of a data directory into the vault")? {
        tracing::warn!("an interrupted move of a data directory was finished: it is in {}", entry.display());
    }
    let of = paths.clone();
    let left = off_loop(move || {
        // It holds a password.
        files::remove(&initdb::password_file(&of))?;
        custody::discard_leftovers(&of).map_err(std::io::Error::other)
    });
    if let Err(error) = left.await {
        // Whoever needs the place tries again, and says so.
        tracing::warn!("what an interrupted initdb or clone left stays for now: {}", chain(&error));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_daemon_is_told_who_the_first_is() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path().join("not/yet/pg"));
        let first = lock(&paths).unwrap();
        let refusal = format!("{:#}", lock(&paths).unwrap_err());
        assert!(refusal.contains(&format!("process {}", std::process::id())), "{refusal}");
        assert!(refusal.contains("not/yet/pg"), "{refusal}");
        drop(first);
        lock(&paths).unwrap();
    }

    #[tokio::test]
    async fn what_a_killed_initdb_left_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path().join("pg"));
        std::fs::write(initdb::password_file(&paths), "secret").unwrap();
        let room = custody::make_room(&paths).unwrap();
        std::fs::write(room.path().join("PG_VERSION"), "15").unwrap();
        tidy(&paths, &dir.path().join("pg.vault")).await.unwrap();
        assert!(!initdb::password_file(&paths).exists() && !room.path().exists());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
