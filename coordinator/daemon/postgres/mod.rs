//! The hands of the daemon: everything that touches the local Postgres.
//!
//! It looks and it acts, with all parameters given. It never decides, knows no store, and
//! never removes or moves a data directory: that is custody's.

pub mod archive;
pub mod clone;
pub mod closed;
pub mod conf;
pub mod conninfo;
pub mod controldata;
pub mod door;
pub mod files;
pub mod following;
pub mod initdb;
pub mod look;
pub mod parameters;
pub mod paths;
pub mod process;
pub mod query;
pub mod replication;
pub mod rewind;
pub mod roles;
pub mod run;
pub mod slots;
pub mod timelines;
mod tls;

pub use conninfo::{Conninfo, Login, Target};
pub use paths::Paths;

pub use process::{Found, Postmaster, Stopped};
pub use query::Session;

#[cfg(test)]
mod tests;

/// A finished, verified data directory that is not in place. Made only by initdb and clone; custody
/// puts it there.
#[derive(Debug)]
pub struct Complete {
    directory: std::path::PathBuf,
}

impl Complete {
    /// Where it is.
    pub fn directory(&self) -> &std::path::Path {
        &self.directory
    }
}

/// Runs file work where it cannot hold up the daemon: a data directory on a hung disk must not
/// stop the loop that would release the lease (F108).
pub async fn off_loop<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(std::io::Error::other)?
}
