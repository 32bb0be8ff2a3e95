//! A new database cluster by `initdb` (P188).
//!
//! It makes the directory where it is told to, beside the data directory; putting it in place is
//! custody's.

use std::io;
use std::path::Path;
use std::time::Duration;

use config::Arguments;

use super::{Complete, Login, Paths, files, off_loop};
use crate::command::{CommandError, Program};

/// How long `initdb` may take.
const DEADLINE: Duration = Duration::from_secs(300);

/// No database cluster was made.
#[derive(Debug, thiserror::Error)]
pub enum InitdbError {
    /// The password file could not be written.
    #[error("the superuser's password could not be handed to initdb: {0}")]
    Password(#[source] io::Error),
    /// The new directory could not be made durable.
    #[error("the new data directory could not be synced to disk: {0}")]
    Sync(#[source] io::Error),
    /// `initdb` failed.
    #[error(transparent)]
    Run(#[from] CommandError),
}

/// Where the superuser's password is while initdb runs.
pub fn password_file(paths: &Paths) -> std::path::PathBuf {
    paths.beside(".pwfile")
}

/// Makes a new database cluster in `directory`, which must be missing or empty.
pub async fn initdb(
    paths: &Paths,
    directory: &Path,
    options: &Arguments,
    superuser: &Login,
) -> Result<Complete, InitdbError> {
    let mut program = Program::new(paths.program("initdb"))
        .arg("-D")
        .arg(directory)
        .args(options.as_slice())
        // Everything is made durable at once, below.
        .arg("--no-sync");
    if !superuser.user.is_empty() {
        program = program.arg(format!("--username={}", superuser.user));
    }
    let password_file = password_file(paths);
    if let Some(password) = &superuser.password {
        let line = format!("{}\n", password.reveal());
        files::write(&password_file, line.as_bytes(), 0o600).map_err(InitdbError::Password)?;
        program = program.arg(format!("--pwfile={}", password_file.display()));
    }
    let _remove = RemoveFile(&password_file);
    program.succeed(DEADLINE).await?;
    let made = directory.to_owned();
    off_loop(move || files::sync_file_systems(&[made])).await.map_err(InitdbError::Sync)?;
    Ok(Complete { directory: directory.to_owned() })
}

/// Removes a file with a secret, also when the work is cancelled.
struct RemoveFile<'a>(&'a Path);

impl Drop for RemoveFile<'_> {
    fn drop(&mut self) {
        // Usually already gone or never written.
        _ = files::remove(self.0);
    }
}
