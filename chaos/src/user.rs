//! The operating-system user that nodes run as. Postgres refuses to run as root.
//!
//! Never changes who this process is; it only says as whom children are to be started.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};

/// Name of the user that is made when root has nobody to run Postgres as.
const MADE_USER: &str = "matriarch-chaos";

/// Whom the programs of a cluster run as.
#[derive(Debug, Clone)]
pub enum RunAs {
    /// The user of this process, who is not root.
    Myself,
    /// Another user, because this process is root.
    Other {
        /// Numeric user.
        uid: u32,
        /// Numeric primary group.
        gid: u32,
    },
}

impl RunAs {
    /// Chooses: this user, or as root `postgres`, or as root a user made for it.
    ///
    /// # Errors
    /// When this process is root and no ordinary user exists or can be made.
    pub fn choose() -> anyhow::Result<Self> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Self::Myself);
        }
        for name in ["postgres", MADE_USER] {
            if let Some(user) = nix::unistd::User::from_name(name).context("read the list of users")? {
                return Ok(Self::Other { uid: user.uid.as_raw(), gid: user.gid.as_raw() });
            }
        }
        eprintln!(
            "Postgres refuses to run as root: making the user {MADE_USER} (useradd --system {MADE_USER})"
        );
        let made = Command::new("useradd").args(["--system", MADE_USER]).status();
        if !made.context("start useradd")?.success() {
            bail!("no ordinary user to run Postgres as: run this as one, or `useradd --system {MADE_USER}`");
        }
        Self::choose()
    }

    /// Makes `command` run as this user.
    pub fn apply(&self, command: &mut Command) {
        if let Self::Other { uid, gid } = self {
            command.uid(*uid).gid(*gid).env("HOME", "/tmp").env("USER", "postgres");
        }
    }

    /// Gives one file or directory to this user.
    ///
    /// # Errors
    /// When the owner cannot be changed.
    pub fn own(&self, path: &Path) -> anyhow::Result<()> {
        match self {
            Self::Myself => Ok(()),
            Self::Other { uid, gid } => {
                chown(path, Some(*uid), Some(*gid)).with_context(|| format!("give {} away", path.display()))
            }
        }
    }
}
