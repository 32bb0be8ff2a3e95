//! Where the log of a leader's server ended when it crashed, read beside the loop: the start where it
//! was does not wait for it, and whoever has everything up to there may lead instead. It reads; it changes nothing.

use coordinator::Process;
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
    reading: JoinSet<(Moment, Option<Lsn>)>,
}

impl Crash {
    /// Where the log of the server that ended at `down` ends, once it is known. The reading begins when nobody is
    /// left who writes: a backend that outlives its postmaster still acknowledges. `written` is how far the
    /// server was seen to have written.
    pub fn end(&mut self, down: Moment, process: Process, paths: &Paths, written: Lsn) -> Option<Lsn> {
        if self.at != Some(down) {
            self.end = None;
            if process != Process::Gone {
                return None;
            }
            self.at = Some(down);
            self.reading.abort_all();
            let paths = paths.clone();
            self.reading.spawn(async move { (down, read(&paths, written).await) });
        }
        self.end
    }

    /// Returns when a reading has ended; pends while there is none.
    pub async fn read(&mut self) {
        loop {
            match self.reading.join_next().await {
                Some(Ok((down, end))) if self.at == Some(down) => {
                    self.end = end;
                    return;
                }
                // Of an earlier crash.
                Some(_) => {}
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nothing_is_read_before_nobody_writes_and_again_after_every_end() {
        let paths = Paths::new("/nonexistent");
        let (first, second) = (Moment(1), Moment(2));
        let mut crash = Crash::default();
        for left in [Process::Remnants, Process::Postmaster] {
            assert_eq!(crash.end(first, left, &paths, Lsn(0)), None);
            assert!(crash.reading.is_empty());
        }
        assert_eq!(crash.end(first, Process::Gone, &paths, Lsn(0)), None);
        assert_eq!(crash.reading.len(), 1);
        crash.read().await;
        crash.end = Some(Lsn(7));
        // It is being started where it was.
        assert_eq!(crash.end(first, Process::Postmaster, &paths, Lsn(0)), Some(Lsn(7)));
        // That one ended too, and may have taken writes before.
        assert_eq!(crash.end(second, Process::Remnants, &paths, Lsn(0)), None);
        assert_eq!(crash.end(second, Process::Gone, &paths, Lsn(0)), None);
        assert_eq!(crash.reading.len(), 1);
    }
}
