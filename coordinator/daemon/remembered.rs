//! What a node remembers of the store over restarts of its daemon, in a file beside the data directory: by it a store
//! that was restored from an old backup is known for one. It judges nothing.

use std::io;
use std::path::PathBuf;

use coordinator::restored::Known;
use tokio::task::JoinSet;

use crate::postgres::{Paths, files};

/// The file, and what is certainly in it.
#[derive(Debug)]
pub struct Remembered {
    file: PathBuf,
    kept: Option<Known>,
    /// At most one write: a slow disk must not hold up the loop.
    writing: JoinSet<(Known, io::Result<()>)>,
    complained: bool,
}

impl Remembered {
    /// Reads what an earlier daemon has kept; nothing, and an error in the log, if that cannot be read.
    pub fn load(paths: &Paths) -> Self {
        let file = paths.beside(".known");
        let kept = match std::fs::read(&file) {
            Ok(text) => serde_json::from_slice(&text).map_err(io::Error::other),
            Err(error) => Err(error),
        };
        if let Err(error) = &kept
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::error!(
                "{} cannot be read ({error}): if the store was restored from a backup, this node does not notice it",
                file.display()
            );
        }
        Self { file, kept: kept.ok(), writing: JoinSet::new(), complained: false }
    }

    /// What was kept.
    pub fn known(&self) -> Known {
        self.kept.unwrap_or_default()
    }

    /// Sees to it that this is kept; a write that failed is tried again with a later turn.
    pub fn keep(&mut self, known: Known) {
        if let Some(Ok((written, result))) = self.writing.try_join_next() {
            match result {
                Ok(()) => (self.kept, self.complained) = (Some(written), false),
                Err(error) if !self.complained => {
                    tracing::warn!("{} was not written, trying on: {error}", self.file.display());
                    self.complained = true;
                }
                Err(_) => {}
            }
        }
        if self.kept == Some(known) || !self.writing.is_empty() {
            return;
        }
        let file = self.file.clone();
        self.writing.spawn_blocking(move || {
            let text = serde_json::to_vec(&known).map_err(io::Error::other);
            (known, text.and_then(|text| files::write(&file, &text, 0o600)))
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_later_daemon_knows_what_an_earlier_one_kept() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path().join("data"));
        let mut first = Remembered::load(&paths);
        assert_eq!(first.known(), Known::default());
        let known = Known { led: Some(dcs::Epoch(7)), reign: Some(dcs::Epoch(7)), ..Known::default() };
        first.keep(known);
        while first.kept != Some(known) {
            tokio::task::yield_now().await;
            first.keep(known);
        }
        assert_eq!(Remembered::load(&paths).known(), known);
        std::fs::write(paths.beside(".known"), "{").unwrap();
        assert_eq!(Remembered::load(&paths).known(), Known::default());
    }
}
