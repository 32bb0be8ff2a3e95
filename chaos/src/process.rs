//! Starting, signalling and finding the processes of one cluster.
//!
//! A process belongs to a cluster if its working directory lies in the cluster's directory or its environment
//! names it. Nothing else is ever signalled, and nothing is chosen by its name.

use std::fs::{File, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::Context;
use rustix::process::{Pid, Signal};

use crate::segments::Made;
use crate::user::RunAs;

/// The variable that marks every process of a cluster with its directory.
const MARK: &str = "MATRIARCH_CHAOS_DIR";

/// The kernel reports CPU time in these, on every Linux (`USER_HZ`).
const TICKS_PER_SECOND: u64 = 100;

/// What to start: always an argument list, never a shell line.
#[derive(Debug)]
pub struct Start<'a> {
    /// The program's file.
    pub program: &'a Path,
    /// Its arguments.
    pub args: &'a [String],
    /// Additional environment.
    pub env: &'a [(String, String)],
    /// Working directory, inside the cluster's.
    pub dir: &'a Path,
    /// Where stdout and stderr are appended.
    pub log: &'a Path,
    /// Whom it runs as.
    pub user: &'a RunAs,
}

/// Starts a program in a process group of its own.
///
/// # Errors
/// When the log cannot be opened or the program cannot be started.
pub fn spawn(start: &Start<'_>) -> anyhow::Result<Child> {
    let log = OpenOptions::new().create(true).append(true).open(start.log);
    let log = log.with_context(|| format!("open {}", start.log.display()))?;
    let mut command = Command::new(start.program);
    command.args(start.args).current_dir(start.dir).process_group(0).stdin(Stdio::null());
    command.stdout(log.try_clone()?).stderr(log).env(MARK, start.dir).env_remove("NOTIFY_SOCKET");
    command.envs(start.env.iter().map(|(key, value)| (key, value)));
    start.user.apply(&mut command);
    command.spawn().with_context(|| format!("start {}", start.program.display()))
}

/// Sends a signal; a process that is gone already is fine.
pub fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _gone_is_fine = rustix::process::kill_process(pid, signal);
    }
}

/// Every process that belongs to a directory, this one excepted.
#[must_use]
pub fn within(dir: &Path) -> Vec<i32> {
    let own = i32::try_from(std::process::id()).unwrap_or_default();
    all().into_iter().filter(|pid| *pid != own && !is_over(*pid) && belongs(*pid, dir)).collect()
}

/// Every process that this one can see.
#[must_use]
pub fn all() -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok()).collect()
}

fn belongs(pid: i32, dir: &Path) -> bool {
    let proc = PathBuf::from(format!("/proc/{pid}"));
    if std::fs::read_link(proc.join("cwd")).is_ok_and(|cwd| cwd.starts_with(dir)) {
        return true;
    }
    let environ = std::fs::read(proc.join("environ")).unwrap_or_default();
    environ.split(|byte| *byte == 0).any(|entry| {
        let entry = String::from_utf8_lossy(entry);
        entry
            .strip_prefix(MARK)
            .and_then(|rest| rest.strip_prefix('='))
            .is_some_and(|value| Path::new(value).starts_with(dir))
    })
}

/// Whether a process has ended, collected by its parent or not.
#[must_use]
pub fn is_over(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z') || rest.starts_with('X'))
}

/// Kills every process of a directory until none is left, for at most five seconds.
pub fn kill_within(dir: &Path) {
    for _ in 0..500 {
        let found = within(dir);
        if found.is_empty() {
            return;
        }
        for pid in found {
            signal(pid, Signal::KILL);
        }
        pause(Duration::from_millis(10));
    }
}

/// Blocks this thread: for clean-up, which may run where no runtime is left.
pub fn pause(span: Duration) {
    std::thread::park_timeout(span);
}

/// CPU time a process has used, and the memory it holds in bytes (resident).
#[must_use]
pub fn usage(pid: i32) -> Option<(Duration, u64)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = resident.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some((Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND), kib * 1024))
}

/// A directory whose processes and files go away with this process, however it ends.
///
/// A second process holds the other end of a pipe. When the pipe closes (drop, panic, Ctrl-C, SIGKILL)
/// it kills what belongs to the directory and removes it.
#[derive(Debug)]
pub struct Reaped {
    dir: PathBuf,
    reaper: Child,
}

impl Reaped {
    /// Makes the directory and starts its reaper, which also keeps `lock` until it has finished.
    ///
    /// # Errors
    /// When the directory cannot be made or the reaper cannot be started.
    pub fn new(reaper: &Path, lock: File) -> anyhow::Result<Self> {
        use std::os::unix::fs::PermissionsExt;
        let made = tempfile::Builder::new().prefix("matriarch-").tempdir().context("make a directory")?;
        let dir = made.path().to_path_buf();
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755))?;
        let mut command = Command::new(reaper);
        command.arg("reap").arg(&dir).process_group(0).current_dir("/");
        command.stdin(Stdio::piped()).stdout(lock).stderr(Stdio::null());
        let reaper = command.spawn().with_context(|| format!("start {} reap", reaper.display()))?;
        Ok(Self { dir: made.keep(), reaper })
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.dir
    }
}

impl Drop for Reaped {
    fn drop(&mut self) {
        drop(self.reaper.stdin.take());
        let _nobody_to_tell = self.reaper.wait();
    }
}

/// The reaper's life: waits for the end of stdin, then cleans up.
pub fn reap(dir: &Path) {
    // It was made a moment ago.
    let started = std::fs::metadata(dir).and_then(|made| made.modified()).unwrap_or(UNIX_EPOCH);
    let _until_closed = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
    let made = Made::in_cluster(dir, started);
    kill_within(dir);
    made.remove_unused();
    if std::env::var_os("MATRIARCH_CHAOS_KEEP").is_none() {
        remove(dir);
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "a throw-away cluster made by Reaped::new, all its processes killed"
)]
fn remove(dir: &Path) {
    let ours = dir.file_name().is_some_and(|name| name.to_string_lossy().starts_with("matriarch-"));
    if ours && dir.parent() == Some(&std::env::temp_dir()) {
        let _best_effort = std::fs::remove_dir_all(dir);
    }
}

/// What a program that ran to its end printed, and how it ended.
#[derive(Debug, Clone)]
pub struct Ended {
    /// Exit status; none if a signal ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

/// Starts a program and waits for its end, whatever that is.
///
/// # Errors
/// When it cannot be started or exceeds `limit`; it is killed then.
pub async fn end_of(command: Command, limit: Duration) -> anyhow::Result<Ended> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut command = tokio::process::Command::from(command);
    let output = command.kill_on_drop(true).stdin(Stdio::null()).output();
    let output = tokio::time::timeout(limit, output).await;
    let output = output.with_context(|| format!("{name} took longer than {limit:?}"))?;
    let output = output.with_context(|| format!("start {name}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Ended { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) })
}

/// As [`end_of`], for a program that is to succeed; returns what it printed.
///
/// # Errors
/// When it cannot be started, exits non-zero (its words are in the message), or exceeds `limit`.
pub async fn run(command: Command, limit: Duration) -> anyhow::Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let Ended { code, out, err } = end_of(command, limit).await?;
    if code != Some(0) {
        anyhow::bail!("{name} ended with {code:?}: {}{}", out.trim(), err.trim());
    }
    Ok(out)
}
