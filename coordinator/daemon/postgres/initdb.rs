//! A new database cluster by `initdb`, and what operators may say about how (P188, P189).
//!
//! It makes the directory where it is told to, beside the data directory; putting it in place is
//! custody's.

use std::io;
use std::path::Path;
use std::time::Duration;

use super::{Complete, Login, Paths, files, off_loop};
use crate::command::{CommandError, Program};

/// How long `initdb` may take.
const DEADLINE: Duration = Duration::from_secs(300);

/// Options that operators must not give: they are ours, or they make the result unsafe.
const FORBIDDEN: [&str; 5] = ["pgdata", "nosync", "pwfile", "sync-only", "version"];

/// No database cluster was made.
#[derive(Debug, thiserror::Error)]
pub enum InitdbError {
    /// An option is not the operator's to give.
    #[error("{name} is not allowed among the options of {tool}; remove it")]
    Option {
        /// The program.
        tool: &'static str,
        /// The option.
        name: String,
    },
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

/// An operator's option for one of Postgres's programs: `--name` or `--name=value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolOption {
    /// Without the dashes.
    pub name: String,
    /// Its value, if it has one.
    pub value: Option<String>,
}

impl ToolOption {
    /// The argument; quotes around a value are an operator's habit and are taken off, as by Patroni.
    pub fn argument(&self) -> String {
        let bare = |value: &str| {
            let inner = ['"', '\''].iter().find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote));
            inner.unwrap_or(value).to_owned()
        };
        match &self.value {
            Some(value) => format!("--{}={}", self.name, bare(value)),
            None => format!("--{}", self.name),
        }
    }
}

/// The arguments for these options, or which one is forbidden.
pub fn arguments(
    tool: &'static str,
    options: &[ToolOption],
    forbidden: &[&str],
) -> Result<Vec<String>, InitdbError> {
    let named = |option: &ToolOption| option.name.split('=').next().unwrap_or_default().to_owned();
    if let Some(bad) = options.iter().find(|option| forbidden.contains(&named(option).as_str())) {
        return Err(InitdbError::Option { tool, name: named(bad) });
    }
    Ok(options.iter().map(ToolOption::argument).collect())
}

/// Where the superuser's password is while initdb runs.
pub fn password_file(paths: &Paths) -> std::path::PathBuf {
    paths.beside(".pwfile")
}

/// Makes a new database cluster in `directory`, which must be missing or empty.
pub async fn initdb(
    paths: &Paths,
    directory: &Path,
    options: &[ToolOption],
    superuser: &Login,
) -> Result<Complete, InitdbError> {
    let mut program = Program::new(paths.program("initdb"))
        .arg("-D")
        .arg(directory)
        .args(arguments("initdb", options, &FORBIDDEN)?)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn option(name: &str, value: Option<&str>) -> ToolOption {
        ToolOption { name: name.into(), value: value.map(str::to_owned) }
    }

    /// P188, P189.
    #[test]
    fn options_become_arguments_and_forbidden_ones_are_named() {
        let good =
            [option("data-checksums", None), option("encoding", Some("UTF8")), option("locale", Some("'C'"))];
        assert_eq!(
            arguments("initdb", &good, &FORBIDDEN).unwrap(),
            ["--data-checksums", "--encoding=UTF8", "--locale=C"]
        );
        for bad in [option("pgdata", Some("/x")), option("nosync", None), option("pwfile=/x", None)] {
            let error = arguments("initdb", &[bad], &FORBIDDEN).unwrap_err();
            assert!(matches!(error, InitdbError::Option { .. }), "{error}");
        }
    }
}
