//! The only code that moves or removes a data directory.
//!
//! A directory goes aside (`retire`) only with a `Warrant`, made here from fresh evidence. A new one
//! comes in (`install`) only where nothing is. Nothing that could be the last copy of an
//! acknowledged write is ever freed. What may be done is judged by the library; nobody else in the daemon may act.

mod capsule;
mod evidence;
mod incoming;
pub mod marker;
mod moves;
mod vault;

pub use capsule::{Capsule, capsule};
pub use evidence::{Request, warrant, would_agree};
pub use incoming::{Incoming, discard_leftovers, install, make_room};
pub use moves::{identity, outside_links};
pub use vault::{complete_interrupted, retire};

use std::io;
use std::path::PathBuf;

use coordinator::custody::Refusal;

use crate::postgres::process::ProcessError;

/// A directory was not moved.
#[derive(Debug, thiserror::Error)]
pub enum CustodyError {
    /// A proof is missing.
    #[error("{0}")]
    Refused(Refusal),
    /// The warrant was not used in time.
    #[error("the warrant for moving {} aside has expired; it is tried again with fresh evidence", path.display())]
    Expired {
        /// Of which directory.
        path: PathBuf,
    },
    /// There is something where nothing should be.
    #[error("{} is not empty: nothing is put in its place. Look at what is there", path.display())]
    Occupied {
        /// Where.
        path: PathBuf,
    },
    /// Something of the kind that we make is there, and is not ours.
    #[error("{} was not made by this program: it stays. Move it away by hand", path.display())]
    NotOurs {
        /// Where.
        path: PathBuf,
    },
    /// Processes stand in the way.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The file system refused.
    #[error("{what} {}: {source}", path.display())]
    Files {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

pub(crate) fn files(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> CustodyError {
    let path = path.into();
    move |source| CustodyError::Files { what, path, source }
}

#[cfg(test)]
pub(crate) mod tests;
