//! Log lines in Patroni's default format, to stderr or to `log.dir`.
//!
//! Lines are handed to a thread of their own: whoever logs never waits for a full pipe or a hung
//! disk, least of all the lease (F36). Lines that do not fit any more are counted, not waited for.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use api::wall;
use config::{Level, Log, LogType};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::{FmtContext, MakeWriter};
use tracing_subscriber::prelude::*;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, fmt as layer};

/// The target of what keeps the daemon from starting, which Patroni logs as CRITICAL.
pub const CRITICAL: &str = "critical";

/// Starts logging as the configuration says.
///
/// # Errors
/// If the log file cannot be opened.
pub fn start(log: &Log) -> anyhow::Result<Finish> {
    let level = match log.level {
        Level::Debug => "debug",
        Level::Info => "info",
        Level::Warning => "warn",
        Level::Error => "error",
    };
    // These log every connection at debug.
    let filter =
        EnvFilter::new(format!("{level},h2=warn,hyper=warn,rustls=warn,tower=warn,tokio_postgres=warn"));
    let (lines, finished) = match &log.dir {
        Some(dir) => writer(Rotated::open(dir.join("patroni.log"), log)?)?,
        None => writer(io::stderr())?,
    };
    let sink = Sink(lines);
    let registry = tracing_subscriber::registry().with(filter);
    match log.kind {
        LogType::Plain => registry.with(layer::layer().event_format(Line).with_writer(sink)).init(),
        LogType::Json => registry.with(layer::layer().json().flatten_event(true).with_writer(sink)).init(),
    }
    Ok(finished)
}

/// `2026-11-20 09:04:00,123 INFO: message`.
struct Line;

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut to: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let level = match *event.metadata().level() {
            tracing::Level::ERROR if event.metadata().target() == CRITICAL => "CRITICAL",
            tracing::Level::ERROR => "ERROR",
            tracing::Level::WARN => "WARNING",
            tracing::Level::INFO => "INFO",
            _ => "DEBUG",
        };
        write!(to, "{} {level}: ", wall::comma(wall::now()))?;
        context.field_format().format_fields(to.by_ref(), event)?;
        writeln!(to)
    }
}

/// How many lines may wait to be written.
const WAITING: usize = 1024;
/// How long the end of the daemon waits for its last lines.
const FAREWELL: Duration = Duration::from_secs(1);

/// Where lines go: to the thread that writes them.
#[derive(Clone)]
struct Sink(Arc<Lines>);

struct Lines {
    queue: SyncSender<Vec<u8>>,
    /// How many did not fit.
    lost: AtomicU64,
}

/// Written lines are told of when the last sender is gone; until then nobody can wait.
pub struct Finish {
    lines: Arc<Lines>,
    written: Receiver<()>,
}

impl Finish {
    /// Waits until everything said so far has been written, but not for long.
    pub fn flush(self) {
        // An empty line is the mark; if there is no room for it, there is nothing to wait for.
        if self.lines.queue.try_send(Vec::new()).is_ok() {
            let _ = self.written.recv_timeout(FAREWELL);
        }
    }
}

fn writer(mut to: impl Write + Send + 'static) -> anyhow::Result<(Arc<Lines>, Finish)> {
    let (queue, waiting) = sync_channel::<Vec<u8>>(WAITING);
    let (tell, written) = sync_channel(1);
    let lines = Arc::new(Lines { queue, lost: AtomicU64::new(0) });
    let counted = Arc::downgrade(&lines);
    std::thread::Builder::new().name("log".into()).stack_size(128 << 10).spawn(move || {
        for line in waiting {
            let lost = counted.upgrade().map_or(0, |lines| lines.lost.swap(0, Ordering::Relaxed));
            // Nobody is left to tell that nobody can be told.
            if lost > 0 {
                let _ = writeln!(to, "... {lost} lines could not be written in time and are lost");
            }
            if line.is_empty() {
                let _ = tell.try_send(());
            } else {
                let _ = to.write_all(&line);
            }
        }
    })?;
    Ok((Arc::clone(&lines), Finish { lines, written }))
}

impl<'a> MakeWriter<'a> for Sink {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.queue.try_send(bytes.to_vec()).is_err() {
            self.0.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A file that is put aside when it has grown: `patroni.log`, `patroni.log.1` and so on.
struct Rotated {
    path: PathBuf,
    file: File,
    size: u64,
    limit: u64,
    keep: u32,
    mode: u32,
}

impl Rotated {
    fn open(path: PathBuf, log: &Log) -> anyhow::Result<Self> {
        let mode = log.mode.unwrap_or(0o666);
        let file = append(&path, mode)
            .map_err(|error| anyhow::anyhow!("log.dir: {} cannot be opened: {error}", path.display()))?;
        let size = file.metadata().map(|meta| meta.len()).unwrap_or_default();
        Ok(Self { path, file, size, limit: log.file_size, keep: log.file_num, mode })
    }

    fn name(&self, number: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        if number > 0 {
            name.push(format!(".{number}"));
        }
        name.into()
    }

    fn rotate(&mut self) -> io::Result<()> {
        for number in (0..self.keep).rev() {
            // A number that was never reached is no error.
            let _ = crate::postgres::files::rename(&self.name(number), &self.name(number + 1));
        }
        self.file = append(&self.path, self.mode)?;
        self.size = 0;
        Ok(())
    }
}

impl Write for Rotated {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.limit > 0 && self.size + bytes.len() as u64 > self.limit && self.size > 0 {
            self.rotate()?;
        }
        let written = self.file.write(bytes)?;
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn append(path: &std::path::Path, mode: u32) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(mode).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// F36: a pipe that nobody reads is full soon; who logs goes on all the same.
    #[test]
    fn a_log_that_nobody_takes_holds_nobody_up() {
        let (reader, pipe) = io::pipe().unwrap();
        let (lines, finish) = writer(pipe).unwrap();
        let mut sink = Sink(Arc::clone(&lines));
        for _ in 0..2 * WAITING {
            sink.write_all(&[b'x'; 1000]).unwrap();
        }
        assert!(lines.lost.load(Ordering::Relaxed) > 0);
        finish.flush();
        drop(reader);
    }

    #[test]
    fn everything_said_is_written_before_the_end() {
        let (mut reader, pipe) = io::pipe().unwrap();
        let (lines, finish) = writer(pipe).unwrap();
        Sink(Arc::clone(&lines)).write_all(b"last words\n").unwrap();
        finish.flush();
        let mut read = [0; 11];
        io::Read::read_exact(&mut reader, &mut read).unwrap();
        assert_eq!(&read, b"last words\n");
    }
}
