//! Marks beside the data directory that say it is not to be started: what was begun and has not
//! ended. Outside of it, so that neither a rewind nor a restore can roll them back (B61).

use std::fs;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::postgres::{Paths, files};

/// What was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Making a new database cluster, until it serves and is known to the store.
    Bootstrap,
    /// A rewind, until Postgres has passed its old position.
    Rewind,
}

/// What a mark says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// What was going on, for people.
    pub what: String,
    /// For a rewind: the position that the server had reached before it, in bytes. It neither votes
    /// nor leads until it has passed it (F19).
    #[serde(default)]
    pub floor: Option<u64>,
    /// For a rewind: the program has finished, what is left is to replay.
    #[serde(default)]
    pub done: bool,
}

impl Work {
    fn path(self, paths: &Paths) -> PathBuf {
        paths.beside(match self {
            Self::Bootstrap => ".bootstrap",
            Self::Rewind => ".rewind",
        })
    }

    /// Sets the mark; durable when this returns.
    pub fn mark(self, paths: &Paths, mark: &Mark) -> io::Result<()> {
        files::write(&self.path(paths), &serde_json::to_vec(mark)?, 0o600)
    }

    /// Clears the mark. Returns whether there was one.
    pub fn clear(self, paths: &Paths) -> io::Result<bool> {
        files::remove(&self.path(paths))
    }

    /// Reads the mark. One that cannot be understood is still a mark.
    pub fn read(self, paths: &Paths) -> io::Result<Option<Mark>> {
        match fs::read(self.path(paths)) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes).unwrap_or_else(|_| Mark {
                what: "something that can no longer be read".to_owned(),
                floor: None,
                done: false,
            }))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_there_until_cleared_even_if_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path().join("pg"));
        let mark = Mark { what: "rewind from n2".into(), floor: Some(7), done: false };
        assert_eq!(Work::Rewind.read(&paths).unwrap(), None);
        Work::Rewind.mark(&paths, &mark).unwrap();
        assert_eq!(Work::Rewind.read(&paths).unwrap(), Some(mark));
        assert_eq!(Work::Bootstrap.read(&paths).unwrap(), None);
        fs::write(dir.path().join("pg.rewind"), "{").unwrap();
        assert!(Work::Rewind.read(&paths).unwrap().is_some_and(|mark| !mark.done));
        assert!(Work::Rewind.clear(&paths).unwrap() && !Work::Rewind.clear(&paths).unwrap());
        assert_eq!(Work::Rewind.read(&paths).unwrap(), None);
    }
}
