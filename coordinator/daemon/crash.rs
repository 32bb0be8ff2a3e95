//! Where the log of a leader's server ended when it crashed, read beside the loop: the start where it
//! was does not wait for it, and whoever has everything up to there may lead instead. It reads; it changes nothing.

use dcs::{Lsn, Moment};
use tokio::task::JoinSet;

use crate::lease::chain;
use crate::postgres::controldata::{self, State};
use crate::postgres::{Paths, rewind};

/// The last crash.
#[derive(Debug, Default)]
pub struct Crash {
    /// When the server ended.
    at: Option<Moment>,
    end: Option<Lsn>,
    reading: JoinSet<Option<Lsn>>,
}

impl Crash {
    /// Where the log of the server that ended at `down` ends, once it is known. The first question begins the
    /// reading; `written` is how far the server was seen to have written.
    pub fn end(&mut self, down: Moment, paths: &Paths, written: Lsn) -> Option<Lsn> {
        if self.at != Some(down) {
            (self.at, self.end) = (Some(down), None);
            self.reading.abort_all();
            let paths = paths.clone();
            self.reading.spawn(async move { read(&paths, written).await });
        }
        self.end
    }

    /// Returns when a reading has ended; pends while there is none.
    pub async fn read(&mut self) {
        loop {
            match self.reading.join_next().await {
                Some(Ok(end)) => {
                    self.end = end;
                    return;
                }
                // Another crash came first.
                Some(Err(_)) => {}
                None => std::future::pending().await,
            }
        }
    }
}

async fn read(paths: &Paths, written: Lsn) -> Option<Lsn> {
    let control = controldata::read(paths).await.ok()?;
    // Where it is being started already, nothing is written before its recovery ends.
    if !matches!(control.state, State::InProduction | State::InCrashRecovery) {
        return None;
    }
    let end = match rewind::end_of_wal(paths, &control, written).await {
        Ok(end) => end?,
        Err(error) => {
            tracing::info!(error = %chain(&error), "where the log of the crashed server ends is not known");
            return None;
        }
    };
    // The end of a recovery that has ended meanwhile says nothing about the crash.
    let now = controldata::head(&paths.data_dir)?;
    (now.checkpoint == control.checkpoint).then_some(end)
}
