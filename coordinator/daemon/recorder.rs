//! The flight recorder: keeps the node's last decisions with what was seen, in a bounded place on disk and, in short, in
//! memory. It never holds the node up: the disk is a thread's business, and what that cannot take in is counted.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::recording::{self, Entry, Header, Recollection};
use coordinator::slots::SlotChange;
use coordinator::{Decision, Observation, Past, Step, Turn};
use serde::Serialize;

use ring::Ring;

mod ring;

/// How many turns wait for the disk at most.
const QUEUE: usize = 128;
/// How long the end of the daemon waits for the disk.
const FAREWELL: Duration = Duration::from_millis(500);

/// Keeps turns.
#[derive(Debug, Default)]
pub struct Recorder {
    recollection: Recollection,
    way: Option<Way>,
    last: Option<Decision>,
    quiet: u64,
}

/// The way to the disk.
#[derive(Debug)]
struct Way {
    /// There until the end.
    queue: Option<SyncSender<(Entry, Turn)>>,
    ended: Mutex<Receiver<()>>,
    lost: Arc<AtomicU64>,
}

/// A line of the file: the turn in short and whole.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    entry: &'a Entry,
    turn: &'a Turn,
}

impl Recorder {
    /// Starts to keep turns in this directory, at most `size` bytes of them; none on disk if that is 0.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start(
        dir: PathBuf,
        size: u64,
        header: Header,
        recollection: Recollection,
    ) -> std::io::Result<Self> {
        if size == 0 {
            return Ok(Self { recollection, ..Self::default() });
        }
        let (queue, turns) = sync_channel(QUEUE);
        let (end, ended) = sync_channel(1);
        let lost = Arc::new(AtomicU64::new(0));
        let desk = Desk { ring: Ring::new(dir, size, header), lost: Arc::clone(&lost), complained: false };
        let before = recollection.clone();
        std::thread::Builder::new().name("recorder".to_owned()).spawn(move || {
            desk.run(&turns, &before);
            drop(end);
        })?;
        let way = Some(Way { queue: Some(queue), ended: Mutex::new(ended), lost });
        Ok(Self { recollection, way, ..Self::default() })
    }

    /// Takes a turn in: it is kept if it says something that the one before did not.
    pub fn take(&mut self, seen: Observation, past: Past, decided: &Decision) {
        if !is_news(self.last.as_ref(), &seen, decided) {
            self.quiet += 1;
            return;
        }
        let entry = Entry {
            at: api::wall::iso(api::wall::now()),
            quiet: std::mem::take(&mut self.quiet),
            lost: 0,
            because: decided.because.to_string(),
            steps: decided.steps.iter().map(ToString::to_string).collect(),
        };
        self.recollection.add(entry.clone());
        self.last = Some(decided.clone());
        let Some(way) = &self.way else { return };
        let turn = Turn { seen, past, decided: decided.clone() };
        if way.queue.as_ref().is_none_or(|queue| queue.try_send((entry, turn)).is_err()) {
            way.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Way {
    /// What waits is written, unless the disk hangs.
    fn drop(&mut self) {
        drop(self.queue.take());
        let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner);
        if ended.recv_timeout(FAREWELL) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("the last decisions were not recorded: the disk does not answer");
        }
    }
}

/// Whether a turn says something new: another reason, the end of a job, or steps that are more than the daily round.
/// A leader that decides the same with nothing to do is recorded once, however often it looks.
fn is_news(last: Option<&Decision>, seen: &Observation, decided: &Decision) -> bool {
    let routine = |step: &Step| match step {
        Step::Ask(_) => true,
        Step::Slots(changes) => changes.iter().all(|change| matches!(change, SlotChange::Advance(..))),
        _ => false,
    };
    last.is_none_or(|last| last.because != decided.because)
        || seen.ended.is_some()
        || !decided.steps.iter().all(routine)
}

/// The side of the disk.
struct Desk {
    ring: Ring,
    lost: Arc<AtomicU64>,
    complained: bool,
}

impl Desk {
    fn run(mut self, turns: &Receiver<(Entry, Turn)>, recollection: &Recollection) {
        // Whatever is wrong with the files of an earlier life is said when they are written to.
        let earlier = recording::read(self.ring.dir()).unwrap_or_default();
        recollection.precede(earlier.into_iter().flat_map(|file| file.turns).map(|(_, entry, _)| entry));
        for (entry, turn) in turns {
            self.keep(entry, &turn);
        }
    }

    fn keep(&mut self, mut entry: Entry, turn: &Turn) {
        entry.lost = self.lost.swap(0, Ordering::Relaxed);
        let line = serde_json::to_vec(&Line { entry: &entry, turn }).map_err(std::io::Error::from);
        match line.and_then(|line| self.ring.append(line)) {
            Ok(()) if std::mem::take(&mut self.complained) => {
                tracing::info!("decisions are recorded again; {} were not", entry.lost);
            }
            Ok(()) => {}
            Err(error) => {
                self.lost.fetch_add(entry.lost + 1, Ordering::Relaxed);
                if !std::mem::replace(&mut self.complained, true) {
                    tracing::warn!(
                        "the node's decisions cannot be recorded in {}, and nothing else follows from it: {error}; \
                         make room there, or name another directory in matriarch.recorder.dir",
                        self.ring.dir().display()
                    );
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
