//! A copy of a running server by `pg_basebackup`, made beside the data directory.
//!
//! An unfinished copy is in a directory that no server is ever started in, and says so by its
//! name; putting a finished one in place is custody's. Cancelled, it kills what it started.

use std::path::Path;
use std::time::Duration;

use config::Arguments;
use dcs::SystemId;
use tokio::sync::watch;

use super::conninfo::write_pgpass;
use super::controldata::{self, ControlError};
use super::{Complete, Conninfo, Paths, Target, files, off_loop};
use crate::command::{CommandError, Program};
use crate::custody::outside_links;

/// How long a clone may take. It is owned by a job that can be cancelled; this only ends what hangs for ever.
const DEADLINE: Duration = Duration::from_secs(7 * 24 * 3600);
/// The pause before the second try (P196).
const PAUSE: Duration = Duration::from_secs(5);

/// There is no usable copy.
#[derive(Debug, thiserror::Error)]
pub enum CloneError {
    /// The password file could not be written.
    #[error("the password file could not be written: {0}")]
    Pgpass(#[source] std::io::Error),
    /// The copy could not be made durable.
    #[error("the copy could not be synced to disk: {0}")]
    Sync(#[source] std::io::Error),
    /// `pg_basebackup` or `pg_verifybackup` failed, twice.
    #[error(transparent)]
    Run(#[from] CommandError),
    /// The copy's control file is unusable.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The copy is of another cluster.
    #[error(
        "the copy has system identifier {found}, the cluster has {wanted}: the source belongs to another cluster"
    )]
    Foreign {
        /// What was copied.
        found: SystemId,
        /// What should have been.
        wanted: SystemId,
    },
}

/// How far a clone is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Bytes received, in steps of 1 KiB.
    pub done: u64,
    /// Bytes to receive, as estimated at the start; 0 while unknown.
    pub total: u64,
}

/// What to copy, and how.
#[derive(Debug, Clone)]
pub struct Order {
    /// From whom, with the replication login.
    pub source: Target,
    /// The identity that the copy must have.
    pub system_id: SystemId,
    /// `postgresql.basebackup` (P201).
    pub options: Arguments,
    /// The version of the local programs (`server_version_num`).
    pub version: u32,
}

/// Copies the source into `directory`, which must be missing or empty, and verifies the copy. Two tries (P196);
/// `pg_basebackup` itself empties the directory again when it fails.
pub async fn clone(
    paths: &Paths,
    directory: &Path,
    order: &Order,
    progress: &watch::Sender<Progress>,
) -> Result<Complete, CloneError> {
    let pgpass = paths.pgpass.clone();
    let source = order.source.clone();
    let written = off_loop(move || write_pgpass(&pgpass, &[&source])).await.map_err(CloneError::Pgpass)?;
    let info = Conninfo::to(&order.source, written.then_some(paths.pgpass.as_path()))
        .with("application_name", "matriarch clone");
    let mut program = Program::new(paths.program("pg_basebackup"))
        .arg("--pgdata")
        .arg(directory)
        // Everything is made durable at once, below.
        .args(["--wal-method=stream", "--progress", "--no-password", "--no-sync"])
        .arg(format!("--dbname={}", info.text(order.version)))
        .in_c_locale();
    if !order.options.give("checkpoint") {
        // Waiting for a spread checkpoint would add up to checkpoint_timeout to every clone.
        program = program.arg("--checkpoint=fast");
    }
    program = program.args(order.options.as_slice());
    if copy_once(program.clone(), progress).await.is_err() {
        tokio::time::sleep(PAUSE).await;
        copy_once(program, progress).await?;
    }
    verify(paths, directory, order).await?;
    let copied = directory.to_owned();
    off_loop(move || {
        // From the first moment the copy is a standby's, whatever its control file says.
        files::replace_if_changed(&copied.join("standby.signal"), b"", files::mode_for(&copied))?;
        let mut places = outside_links(&copied)?;
        places.push(copied);
        files::sync_file_systems(&places)
    })
    .await
    .map_err(CloneError::Sync)?;
    Ok(Complete { directory: directory.to_owned() })
}

async fn copy_once(program: Program, progress: &watch::Sender<Progress>) -> Result<(), CommandError> {
    progress.send_replace(Progress::default());
    let mut line = Vec::new();
    let output = program
        .watch(DEADLINE, |piece| {
            for byte in piece {
                if matches!(byte, b'\r' | b'\n') {
                    if let Some(seen) = read_progress(&String::from_utf8_lossy(&line)) {
                        progress.send_replace(seen);
                    }
                    line.clear();
                } else {
                    line.push(*byte);
                }
            }
        })
        .await?;
    output.into_success("pg_basebackup").map(drop)
}

/// Reads `  1234/5678 kB (21%), 0/1 tablespace`.
fn read_progress(line: &str) -> Option<Progress> {
    let (numbers, _) = line.split_once(" kB (")?;
    let (done, total) = numbers.trim().split_once('/')?;
    Some(Progress { done: done.parse::<u64>().ok()? * 1024, total: total.parse::<u64>().ok()? * 1024 })
}

async fn verify(paths: &Paths, directory: &Path, order: &Order) -> Result<(), CloneError> {
    let has_manifest = {
        let manifest = directory.join("backup_manifest");
        off_loop(move || Ok(manifest.exists())).await.unwrap_or_default()
    };
    if has_manifest {
        // The WAL was written by this very run; parsing it again needs pg_waldump and finds nothing new.
        Program::new(paths.program("pg_verifybackup"))
            .args(["--no-parse-wal", "--exit-on-error", "--quiet"])
            .arg(directory)
            .in_c_locale()
            .succeed(DEADLINE)
            .await?;
    }
    let found = controldata::read_from(paths, directory).await?.system_id;
    if found != order.system_id {
        return Err(CloneError::Foreign { found, wanted: order.system_id });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_read_from_what_pg_basebackup_prints() {
        assert_eq!(
            read_progress(" 1234/5678 kB (21%), 0/1 tablespace (/x/y)"),
            Some(Progress { done: 1234 * 1024, total: 5678 * 1024 })
        );
        assert_eq!(read_progress("waiting for checkpoint"), None);
    }
}
