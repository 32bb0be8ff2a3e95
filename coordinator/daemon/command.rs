//! Starts every program that the daemon runs.
//!
//! Owns how: an argv, never a shell string; a deadline; a process group of its own that is
//! killed whole at the deadline, on cancellation, at the end, and with the daemon; an environment without the
//! daemon's own variables; bounded output. Secrets go through environment or files, never
//! through arguments. It must never decide what to run.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, ChildStderr, ChildStdout};

pub mod pidfd;
mod setsid;

use pidfd::Pidfd;

/// How much of a program's standard output is kept (its beginning), in bytes.
const KEEP_OUTPUT: usize = 4 << 20;
/// How much of a program's standard error is kept (its end), in bytes.
const KEEP_ERRORS: usize = 64 << 10;

/// A program that did not do what it was started for.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It could not be started at all.
    #[error(
        "{program} could not be started: {source}. Check that it exists and that this user may execute it"
    )]
    Start {
        /// The program's path.
        program: String,
        /// Why.
        source: std::io::Error,
    },
    /// It was still running at its deadline and has been killed with everything it started.
    #[error("{program} had not finished after {after:?} and was killed. Its last words: {tail}")]
    TimedOut {
        /// The program's path.
        program: String,
        /// The deadline.
        after: Duration,
        /// The end of its standard error.
        tail: String,
    },
    /// It ended with a status other than 0.
    #[error("{program} failed ({status}): {tail}")]
    Failed {
        /// The program's path.
        program: String,
        /// Its exit status or signal, in words.
        status: String,
        /// The end of its standard error.
        tail: String,
    },
}

/// What a program left behind when it ended.
#[derive(Debug)]
pub struct Output {
    /// The exit code; absent when a signal ended it.
    pub code: Option<i32>,
    /// Standard output, at most its first 4 MiB.
    pub stdout: Vec<u8>,
    /// Standard error, at most its last 64 KiB.
    pub stderr: Vec<u8>,
    status: String,
}

impl Output {
    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error as text.
    pub fn errors(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Itself if the status is 0, else the error that says so of `program`.
    pub fn into_success(self, program: &str) -> Result<Self, CommandError> {
        if self.code == Some(0) {
            return Ok(self);
        }
        let tail = self.tail();
        Err(CommandError::Failed { program: program.to_owned(), status: self.status, tail })
    }

    /// The end of what it said, standard error first choice.
    pub fn tail(&self) -> String {
        tail(if self.stderr.is_empty() { &self.stdout } else { &self.stderr })
    }
}

/// A program, its arguments and its surroundings, not yet started.
#[derive(Debug, Clone)]
pub struct Program {
    path: PathBuf,
    args: Vec<OsString>,
    env: BTreeMap<OsString, OsString>,
    dir: Option<PathBuf>,
    keep_environment: bool,
}

impl Program {
    /// A program by path, or by name to be found in `PATH`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), args: Vec::new(), env: BTreeMap::new(), dir: None, keep_environment: false }
    }

    /// Adds one argument.
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments.
    pub fn args<S: Into<OsString>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets one environment variable.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// Makes its messages parseable: the locale is C.
    pub fn in_c_locale(self) -> Self {
        self.env("LC_ALL", "C").env("LANG", "C")
    }

    /// The working directory; without it, the daemon's.
    pub fn in_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// Hands on the daemon's environment unchanged, as Patroni does for callbacks and hooks.
    pub fn keeping_environment(mut self) -> Self {
        self.keep_environment = true;
        self
    }

    /// Runs it to its end, whatever the exit status is. Dropping the future kills it with its group.
    pub async fn run(self, deadline: Duration) -> Result<Output, CommandError> {
        self.watch(deadline, |_| ()).await
    }

    /// Runs it to its end; a status other than 0 is an error that carries its last words.
    pub async fn succeed(self, deadline: Duration) -> Result<Output, CommandError> {
        let program = self.name();
        self.run(deadline).await?.into_success(&program)
    }

    /// Runs it to its end and hands each piece of standard error to `heard` as it arrives.
    pub async fn watch(self, deadline: Duration, heard: impl FnMut(&[u8])) -> Result<Output, CommandError> {
        let program = self.name();
        let start = |source| CommandError::Start { program: program.clone(), source };
        let mut command = self.command();
        command.process_group(0);
        setsid::end_with_parent(&mut command);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = tokio::process::Command::from(command).spawn().map_err(start)?;
        let pid = child.id().unwrap_or_default();
        // Dropped before `child`: while the child is unreaped its number, and so the group's,
        // belongs to nobody else.
        let group = Group(i32::try_from(pid).ok().and_then(Pid::from_raw));
        let end = Pidfd::open(pid).map_err(start)?;
        let (mut out, mut err) = (Kept::first(KEEP_OUTPUT), Kept::last(KEEP_ERRORS));
        let pipes = (child.stdout.take(), child.stderr.take());
        let done = {
            let talk = converse(pipes, &mut out, &mut err, heard);
            let work = async {
                tokio::pin!(talk);
                tokio::select! {
                    () = &mut talk => end.exited().await,
                    () = end.exited() => {
                        // Whatever it left running holds the pipes open.
                        group.kill();
                        _ = tokio::time::timeout(Duration::from_secs(1), &mut talk).await;
                    }
                }
            };
            tokio::time::timeout(deadline, work).await
        };
        group.kill();
        drop(group);
        if done.is_err() {
            _ = tokio::time::timeout(Duration::from_secs(1), child.wait()).await;
            let tail = tail(&err.into_bytes());
            return Err(CommandError::TimedOut { program, after: deadline, tail });
        }
        finish(&mut child, out, err).await.map_err(start)
    }

    /// Starts it in a session of its own, so that it survives the daemon, with its output
    /// appended to `log`. Returns its process number.
    pub fn start_detached(self, log: File) -> Result<u32, CommandError> {
        let start = |source| CommandError::Start { program: self.name(), source };
        let mut command = self.command();
        setsid::own_session(&mut command);
        command.stdin(Stdio::null());
        command.stdout(log.try_clone().map_err(start)?).stderr(log);
        let child = tokio::process::Command::from(command).spawn().map_err(start)?;
        // The runtime reaps a dropped child when it ends; its end is seen through a pidfd.
        child.id().ok_or_else(|| start(std::io::ErrorKind::NotFound.into()))
    }

    /// Starts it in a session of its own, so that it survives the daemon, with a socket to the daemon as its
    /// standard input. Returns its process number.
    pub fn start_companion(self, socket: std::os::fd::OwnedFd) -> Result<u32, CommandError> {
        let start = |source| CommandError::Start { program: self.name(), source };
        let mut command = self.command();
        setsid::own_session(&mut command);
        command.stdin(socket).stdout(Stdio::null()).stderr(Stdio::null());
        let child = tokio::process::Command::from(command).spawn().map_err(start)?;
        child.id().ok_or_else(|| start(std::io::ErrorKind::NotFound.into()))
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn command(&self) -> std::process::Command {
        let mut command = std::process::Command::new(&self.path);
        command.args(&self.args);
        if !self.keep_environment {
            command.env_clear().envs(clean_environment(std::env::vars_os()));
        }
        command.envs(&self.env);
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        command
    }
}

async fn finish(child: &mut Child, out: Kept, err: Kept) -> std::io::Result<Output> {
    let status = child.wait().await?;
    Ok(Output {
        code: status.code(),
        stdout: out.into_bytes(),
        stderr: err.into_bytes(),
        status: status.to_string(),
    })
}

async fn converse(
    (stdout, stderr): (Option<ChildStdout>, Option<ChildStderr>),
    out: &mut Kept,
    err: &mut Kept,
    heard: impl FnMut(&[u8]),
) {
    tokio::join!(drain(stdout, out, |_| ()), drain(stderr, err, heard));
}

async fn drain(pipe: Option<impl AsyncRead + Unpin>, kept: &mut Kept, mut heard: impl FnMut(&[u8])) {
    let Some(mut pipe) = pipe else { return };
    let mut piece = vec![0; 8 << 10];
    while let Ok(count @ 1..) = pipe.read(&mut piece).await {
        let read = piece.get(..count).unwrap_or_default();
        kept.add(read);
        heard(read);
    }
}

/// Output that cannot grow beyond its limit.
struct Kept {
    bytes: VecDeque<u8>,
    limit: usize,
    from_end: bool,
}

impl Kept {
    fn first(limit: usize) -> Self {
        Self { bytes: VecDeque::new(), limit, from_end: false }
    }

    fn last(limit: usize) -> Self {
        Self { bytes: VecDeque::new(), limit, from_end: true }
    }

    fn add(&mut self, piece: &[u8]) {
        if self.from_end {
            self.bytes.extend(piece);
            let excess = self.bytes.len().saturating_sub(self.limit);
            self.bytes.drain(..excess);
        } else {
            let room = self.limit.saturating_sub(self.bytes.len());
            self.bytes.extend(piece.iter().take(room));
        }
    }

    fn into_bytes(self) -> Vec<u8> {
        self.bytes.into()
    }
}

/// Kills a process group when dropped.
struct Group(Option<Pid>);

impl Group {
    fn kill(&self) {
        if let Some(pid) = self.0 {
            // An empty group is the wanted outcome, so "no such process" is no error.
            _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The environment for programs: without what is meant for the daemon alone, and with
/// `PG_MALLOC_ARENA_MAX` as `MALLOC_ARENA_MAX` (P165, P166).
pub fn clean_environment(
    ours: impl IntoIterator<Item = (OsString, OsString)>,
) -> BTreeMap<OsString, OsString> {
    let private = |name: &OsStr| {
        let name = name.to_string_lossy();
        name == "NOTIFY_SOCKET"
            || ["PATRONI_", "MATRIARCH_", "KUBERNETES_"].iter().any(|p| name.starts_with(p))
    };
    let mut theirs: BTreeMap<_, _> = ours.into_iter().filter(|(name, _)| !private(name)).collect();
    if let Some(value) = theirs.remove(OsStr::new("PG_MALLOC_ARENA_MAX")) {
        theirs.insert("MALLOC_ARENA_MAX".into(), value);
    }
    theirs
}

/// The last lines of a program's output, short enough for one log entry.
pub fn tail(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let from = lines.len().saturating_sub(12);
    let kept = lines.get(from..).unwrap_or_default().join("\n");
    if kept.is_empty() { "(it said nothing)".to_owned() } else { kept }
}

#[cfg(test)]
mod tests;
