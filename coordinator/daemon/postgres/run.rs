//! Starting, stopping, promoting and reloading the local server.
//!
//! It does what it is told, when it is told, and reports how that ended. Each wait is woken by the
//! postmaster's end (pidfd) or looks every few milliseconds at something that costs microseconds.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;

use super::controldata::{self, State};
use super::process::{self, PidFile, ProcessError};
use super::{Paths, Postmaster, Session, Stopped, files, off_loop, timelines};
use crate::command::{CommandError, Program};

/// How often a starting or stopping server's files are looked at.
const GLANCE: Duration = Duration::from_millis(4);
/// How often a promoting server is asked whether it is writable.
const ASK: Duration = Duration::from_millis(2);
/// How long killing what a server left behind may take.
const KILL_DEADLINE: Duration = Duration::from_secs(10);

/// The server did not do what it was told.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A file could not be prepared.
    #[error("{what} could not be prepared: {source}")]
    Prepare {
        /// Which file.
        what: String,
        /// Why.
        source: io::Error,
    },
    /// The program could not be started.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// Processes of the instance stand in the way.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// It ended instead of accepting connections.
    #[error("Postgres ended while starting. Its log says:\n{log}")]
    Ended {
        /// The end of the server's log.
        log: String,
    },
    /// It has not accepted connections in time; it goes on starting.
    #[error("Postgres does not accept connections after {after:?}; it is still starting")]
    NotReady {
        /// The deadline.
        after: Duration,
    },
    /// A signal could not be sent.
    #[error("the postmaster could not be signalled: {0}")]
    Signal(#[source] io::Error),
    /// What authorised it has run out.
    #[error("the leader lease ran out before Postgres could be made writable")]
    TooLate,
    /// It was told to promote and is still in recovery.
    #[error("Postgres is still in recovery {after:?} after it was told to promote")]
    NotPromoted {
        /// The deadline.
        after: Duration,
    },
}

/// As what a server is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With `standby.signal`: it stays read-only until it is promoted.
    Standby,
    /// Without: it becomes writable by itself. Only for a leader that restarts in place.
    Primary,
}

/// Starts the server, detached from the daemon, and returns as soon as its process exists.
///
/// `command_line` are the parameters that nobody may override (patroni-compat 3.5), to which
/// `restart_after_crash=off` is added: every return to writable passes the daemon's checks.
///
/// `may` is asked immediately before the process is made: whatever authorised the start can have
/// run out while the files were prepared on a slow disk (F50).
pub async fn start(
    paths: &Paths,
    stopped: Stopped,
    start: Start,
    command_line: &BTreeMap<String, String>,
    may: impl FnOnce() -> bool,
) -> Result<Postmaster, RunError> {
    let wanted = paths.clone();
    let log = off_loop(move || prepare(&wanted, start))
        .await
        .map_err(|source| prepare_error(&paths.data_dir, source))?;
    let mut program = Program::new(paths.program("postgres"))
        .arg("-D")
        .arg(&paths.data_dir)
        .arg(format!("--config-file={}", paths.conf().display()))
        .args(command_line.iter().map(|(name, value)| format!("--{name}={value}")))
        .arg("--restart_after_crash=off")
        // It changes to there anyway; from the first moment on it is recognised by it.
        .in_dir(&paths.data_dir);
    let quick = paths.clone();
    if off_loop(move || Ok(syncs_at_once(&quick))).await.unwrap_or_default() {
        program = program.arg(format!("--{SYNC_AT_ONCE}"));
    }
    let program = past_stale_pid_file(paths, program);
    if !may() {
        return Err(RunError::TooLate);
    }
    drop(stopped);
    let pid = program.start_detached(log)?;
    Postmaster::open(pid).map_err(|_| RunError::Ended { log: log_tail(&paths.log) })
}

/// Makes the server ignore a pid file that names a process which is not of this instance. Unlinking the file
/// would race with a real server.
pub(super) fn past_stale_pid_file(paths: &Paths, program: Program) -> Program {
    match process::stranger_in_pid_file(paths) {
        Some(stranger) => program.env("PG_GRANDPARENT_PID", stranger.to_string()),
        None => program,
    }
}

/// Before crash recovery Postgres syncs its directory file by file, which takes seconds on a busy disk and
/// is most of a restart. With this setting it syncs the whole file system in one call.
pub(super) const SYNC_AT_ONCE: &str = "recovery_init_sync_method=syncfs";

/// Whether `SYNC_AT_ONCE` may be set: Postgres knows it since 14, Linux reports errors of that call since 5.8, and
/// an operator's own setting wins.
pub(super) fn syncs_at_once(paths: &Paths) -> bool {
    let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
    let version = read(&paths.data_dir.join("PG_VERSION")).trim().parse::<u32>().unwrap_or_default();
    let kernel = read(Path::new("/proc/sys/kernel/osrelease"));
    let mut numbers = kernel.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse::<u32>().ok());
    let kernel = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    let is_set =
        [paths.conf(), paths.base_conf(), paths.data_dir.join("postgresql.auto.conf")].iter().any(|file| {
            read(file).lines().any(|line| line.trim_start().starts_with("recovery_init_sync_method"))
        });
    version >= 14 && kernel >= (5, 8) && !is_set
}

fn prepare(paths: &Paths, start: Start) -> io::Result<fs::File> {
    let mode = files::mode_for(&paths.data_dir);
    match start {
        Start::Standby => {
            files::write_if_changed(&paths.standby_signal(), b"", mode)?;
        }
        Start::Primary => {
            files::remove(&paths.standby_signal())?;
        }
    }
    files::remove(&paths.data_dir.join("recovery.signal"))?;
    // A promotion that was asked of a former process must not reach this one.
    files::remove(&paths.data_dir.join("promote"))?;
    timelines::release(paths)?;
    OpenOptions::new().create(true).append(true).mode(0o600).open(&paths.log)
}

/// Returns once the server accepts connections; fails at once when it ends instead.
pub async fn wait_ready(paths: &Paths, postmaster: &Postmaster, deadline: Duration) -> Result<(), RunError> {
    let ready = async {
        let mut glance = tokio::time::interval(GLANCE);
        loop {
            glance.tick().await;
            let status = PidFile::read(&paths.pid_file()).filter(|file| file.pid == postmaster.pid());
            if status.is_some_and(|file| file.status == "ready") {
                return;
            }
        }
    };
    tokio::select! {
        done = tokio::time::timeout(deadline, ready) => {
            done.map_err(|_| RunError::NotReady { after: deadline })
        }
        () = postmaster.exited() => Err(RunError::Ended { log: log_tail(&paths.log) }),
    }
}

/// How a server is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Sessions are ended, a checkpoint is written, connected standbys receive everything.
    Fast,
    /// As if it had crashed: no checkpoint.
    Immediate,
}

/// How stopping ended.
#[derive(Debug)]
pub struct Halted {
    /// The proof that nothing of the instance is left.
    pub proof: Stopped,
    /// Why it had to be killed, if it had to, so that it now needs crash recovery.
    pub killed: Option<&'static str>,
}

/// Tells the server to stop and returns at once.
fn begin_stop(postmaster: &Postmaster, stop: Stop) -> Result<(), RunError> {
    let signal = match stop {
        Stop::Fast => Signal::INT,
        Stop::Immediate => Signal::QUIT,
    };
    match postmaster.signal(signal) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(RunError::Signal(error)),
        _ => Ok(()),
    }
}

/// Stops the server; at the deadline, or as soon as its postmaster is seen not to obey, everything of the
/// instance is killed. Returns with the proof that no process is left, in either case.
pub async fn stop(
    paths: &Paths,
    postmaster: &Postmaster,
    stop: Stop,
    deadline: Duration,
) -> Result<Halted, RunError> {
    begin_stop(postmaster, stop)?;
    let killed = tokio::select! {
        done = tokio::time::timeout(deadline, postmaster.exited()) => {
            done.is_err().then_some("it did not stop in time")
        }
        () = frozen(postmaster) => Some("a signal has stopped its postmaster (state T)"),
        () = deaf(paths, postmaster, stop) => Some("its postmaster does not react"),
    };
    let proof = process::kill_all(paths, KILL_DEADLINE).await?;
    Ok(Halted { proof, killed })
}

/// Returns when a signal has stopped the postmaster: it will not obey another one.
async fn frozen(postmaster: &Postmaster) {
    let mut glance = tokio::time::interval(GLANCE);
    while !postmaster.is_frozen() {
        glance.tick().await;
    }
}

/// Returns when the postmaster shows no sign of having been told to stop. The first thing that it
/// does is to note it in its pid file, whatever it then takes to end.
async fn deaf(paths: &Paths, postmaster: &Postmaster, stop: Stop) {
    let patience = match stop {
        // Killing it leaves more to recover, so a busy host is given time.
        Stop::Fast => Duration::from_secs(3),
        Stop::Immediate => Duration::from_millis(500),
    };
    let noted = async {
        let mut glance = tokio::time::interval(GLANCE);
        loop {
            glance.tick().await;
            let file = paths.pid_file();
            // The disk may hang, which must not hold up anybody here.
            let read = off_loop(move || Ok(PidFile::read(&file))).await.ok().flatten();
            if read.is_some_and(|file| file.pid == postmaster.pid() && file.status == "stopping") {
                return;
            }
        }
    };
    if tokio::time::timeout(patience, noted).await.is_ok() {
        std::future::pending::<()>().await;
    }
}

/// Promotes a standby and returns once it is writable. The caller holds the lease.
///
/// The request goes by file and signal rather than by `pg_promote`, so that it needs no
/// session and no free connection slot; the answer comes from the server itself. It is
/// repeated until the answer comes: a standby that has just lost its source can take the first
/// request and then still sleep out `wal_retrieve_retry_interval` (5 s) before it acts (seen in
/// one of ten switchovers); the repeated signal wakes it.
///
/// `may` is asked immediately before each request: a lease can run out between its proof and its use (F50).
pub async fn promote(
    paths: &Paths,
    postmaster: &Postmaster,
    session: &Session,
    deadline: Duration,
    may: impl Fn() -> bool,
) -> Result<(), RunError> {
    let request = paths.data_dir.join("promote");
    let writable = async {
        let mut ask = tokio::time::interval(ASK);
        ask.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for turn in 0_u64.. {
            if turn.is_multiple_of(8) {
                request_promotion(paths, &request, postmaster, &may).await?;
            }
            ask.tick().await;
            // A failed question is asked again: only an answer or the deadline ends this. Where the
            // session itself is gone, the control file tells, which is written in the same breath.
            let writable = match session.is_in_recovery().await {
                Ok(in_recovery) => !in_recovery,
                Err(_) if session.is_usable() => false,
                Err(_) => {
                    controldata::head(&paths.data_dir).is_some_and(|head| head.state == State::InProduction)
                }
            };
            if writable {
                break;
            }
        }
        Ok(())
    };
    let done = tokio::select! {
        done = tokio::time::timeout(deadline, writable) => {
            done.unwrap_or(Err(RunError::NotPromoted { after: deadline }))
        }
        () = postmaster.exited() => Err(RunError::Ended { log: log_tail(&paths.log) }),
    };
    // A repeated request that nobody took must not wait for a later standby.
    let forget = request.clone();
    off_loop(move || files::remove(&forget)).await.map_err(|source| prepare_error(&request, source))?;
    done
}

async fn request_promotion(
    paths: &Paths,
    request: &Path,
    postmaster: &Postmaster,
    may: &impl Fn() -> bool,
) -> Result<(), RunError> {
    let (file, data_dir) = (request.to_owned(), paths.data_dir.clone());
    // No sync: after a crash of the host the request is void anyway, and removed before a start.
    off_loop(move || {
        let mode = files::mode_for(&data_dir);
        OpenOptions::new().create(true).truncate(true).write(true).mode(mode).open(&file).map(drop)
    })
    .await
    .map_err(|source| prepare_error(request, source))?;
    if !may() {
        return Err(RunError::TooLate);
    }
    postmaster.signal(Signal::USR1).map_err(RunError::Signal)
}

fn prepare_error(file: &Path, source: io::Error) -> RunError {
    RunError::Prepare { what: file.display().to_string(), source }
}

/// Makes the server read its configuration files again.
pub fn reload(postmaster: &Postmaster) -> Result<(), RunError> {
    postmaster.signal(Signal::HUP).map_err(RunError::Signal)
}

/// The last lines of the server's log file; with a logging collector they name where the log is.
pub fn log_tail(log: &Path) -> String {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = fs::File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(8 << 10)))?;
        let mut end = Vec::new();
        file.read_to_end(&mut end)?;
        Ok(end)
    };
    match read() {
        Ok(end) => crate::command::tail(&end),
        Err(error) => format!("({} could not be read: {error})", log.display()),
    }
}
