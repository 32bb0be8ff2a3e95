//! What the data directory shows, read where it cannot hold up the node's loop: a disk that
//! hangs must not keep a leader from stepping down (F108). It reads; it changes nothing.

use std::io;
use std::path::Path;
use std::time::Duration;

use dcs::Moment;
use tokio::task::JoinSet;

use crate::custody::{
    self,
    marker::{Mark, Work},
};
use crate::postgres::Paths;
use crate::postgres::controldata::{self, Head};

/// How long a look may take before the last one is used on.
const PATIENCE: Duration = Duration::from_secs(1);
/// How old a look may be while the server itself answers.
const LATELY: Duration = Duration::from_secs(3);

/// One look at the data directory.
#[derive(Debug, Clone)]
pub struct Found {
    /// What it holds.
    pub contents: Contents,
    /// Device and inode; absent if there is none.
    pub identity: Option<(u64, u64)>,
    /// The head of its control file.
    pub head: Option<Head>,
    /// `standby.signal` is there.
    pub standby_signal: bool,
    /// `backup_label` is there.
    pub backup_label: bool,
    /// The mark of a rewind.
    pub rewind: Option<Mark>,
    /// The mark of a bootstrap.
    pub bootstrap: Option<Mark>,
}

/// What a data directory holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Contents {
    /// Nothing, or it does not exist.
    Nothing,
    /// Something.
    Something,
    /// It cannot be read.
    Unreadable(String),
}

/// The last look, and the one under way.
#[derive(Debug, Default)]
pub struct Disk {
    found: Option<(Moment, Found)>,
    looking: JoinSet<Found>,
    since: Moment,
    /// The look under way began before something changed.
    stale: bool,
}

impl Disk {
    /// Looks again if the last look is old; always, if `now` is asked for.
    pub async fn look(&mut self, paths: &Paths, now: bool) {
        let at = Moment::now();
        if !now && self.found.as_ref().is_some_and(|(seen, _)| at.since(*seen) < LATELY) {
            return;
        }
        loop {
            // One at a time: a hung one would fill every thread that there is.
            if self.looking.is_empty() {
                let paths = paths.clone();
                self.looking.spawn_blocking(move || read(&paths));
                (self.since, self.stale) = (Moment::now(), false);
            }
            // While one hangs, each turn looks for its end, and does not wait for it again.
            let patience = if at.since(self.since) > PATIENCE { Duration::ZERO } else { PATIENCE };
            match tokio::time::timeout(patience, self.looking.join_next()).await {
                Ok(Some(Ok(_))) if self.stale => {}
                Ok(Some(Ok(found))) => {
                    self.found = Some((self.since, found));
                    return;
                }
                _ => return,
            }
        }
    }

    /// What was read is no longer true.
    pub fn forget(&mut self) {
        self.found = None;
        self.stale = true;
    }

    /// What was last seen.
    pub fn found(&self) -> Option<&Found> {
        self.found.as_ref().map(|(_, found)| found)
    }

    /// For how long the look under way has not ended.
    pub fn hangs(&self) -> Duration {
        if self.looking.is_empty() { Duration::ZERO } else { Moment::now().since(self.since) }
    }
}

fn read(paths: &Paths) -> Found {
    let mark = |work: Work| {
        // A mark that cannot be read is still a mark.
        let unreadable = Mark { what: "unreadable".into(), floor: None, done: false };
        work.read(paths).unwrap_or(Some(unreadable))
    };
    Found {
        contents: contents(&paths.data_dir),
        identity: custody::identity(&paths.data_dir).ok(),
        head: controldata::head(&paths.data_dir),
        standby_signal: paths.standby_signal().exists(),
        backup_label: paths.data_dir.join("backup_label").exists(),
        rewind: mark(Work::Rewind),
        bootstrap: mark(Work::Bootstrap),
    }
}

fn contents(dir: &Path) -> Contents {
    match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Contents::Nothing,
        Err(error) => Contents::Unreadable(error.to_string()),
        Ok(entries) => {
            let something = entries
                .flatten()
                .any(|entry| !matches!(entry.file_name().to_str(), Some("lost+found" | ".gitkeep")));
            if something { Contents::Something } else { Contents::Nothing }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// F108.
    #[tokio::test]
    async fn a_disk_that_hangs_holds_nobody_up() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path().join("pg"));
        let mut disk = Disk::default();
        disk.look(&paths, true).await;
        assert_eq!(disk.found().unwrap().contents, Contents::Nothing);
        assert_eq!(disk.hangs(), Duration::ZERO);
        // Reading a pipe that nobody writes to takes for ever.
        let pipe = paths.beside(".rewind");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
        let began = Moment::now();
        disk.look(&paths, true).await;
        disk.look(&paths, true).await;
        assert!(Moment::now().since(began) < 2 * PATIENCE);
        assert!(disk.hangs() > Duration::ZERO && disk.found().is_some());
        drop(std::fs::OpenOptions::new().write(true).open(&pipe).unwrap());
        tokio::time::timeout(Duration::from_secs(10), async {
            while disk.hangs() > Duration::ZERO {
                disk.look(&paths, true).await;
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
        assert!(disk.found().unwrap().rewind.is_some());
    }
}
