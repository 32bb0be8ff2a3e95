//! One node: a coordinator (matriarch or Patroni), its configuration file, its log and its Postgres.
//!
//! Does to a node what the world does to it: stop, kill, freeze, bring back. Judges nothing.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::Signal;
use serde_json::Value;

use crate::cluster::until;
use crate::http::{self, Answer};
use crate::process::{self, Start};
use crate::spec::{self, Program};
use crate::sql::Session;
use crate::user::RunAs;

/// How long one statement may take in [`Node::sql`].
const STATEMENT: Duration = Duration::from_secs(5);

/// Length of the time at the beginning of a log line.
const STAMP: usize = "2026-11-20 07:00:39,805".len();

/// A member of a cluster.
#[derive(Debug)]
pub struct Node {
    /// Its name in the cluster: n1, n2, …
    pub name: String,
    /// The program it runs.
    pub program: Program,
    /// Where its Postgres listens.
    pub postgres: SocketAddr,
    /// Where its REST API listens.
    pub rest: SocketAddr,
    /// Its directory: configuration `node.yml`, `log`, `data`.
    pub dir: PathBuf,
    exe: PathBuf,
    user: RunAs,
    child: Mutex<Option<Child>>,
}

impl Node {
    /// Makes the node's directory and writes its file; starts nothing.
    ///
    /// # Errors
    /// When the directory or the file cannot be written.
    pub fn prepare(
        tree: &Value,
        program: Program,
        exe: PathBuf,
        dir: PathBuf,
        user: &RunAs,
    ) -> anyhow::Result<Self> {
        fs::create_dir(&dir).with_context(|| format!("make {}", dir.display()))?;
        user.own(&dir)?;
        let text = |pointer: &str| tree.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let address = |pointer: &str| text(pointer).parse().with_context(|| format!("{pointer} of a node"));
        let node = Self {
            name: text("/name").to_owned(),
            program,
            postgres: address("/postgresql/listen")?,
            rest: address("/restapi/listen")?,
            dir,
            exe,
            user: user.clone(),
            child: Mutex::new(None),
        };
        node.write(tree)?;
        Ok(node)
    }

    /// The node's configuration file.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.dir.join("node.yml")
    }

    /// The node's data directory.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// The coordinator's log: everything it wrote to stdout and stderr.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// Merges changes into the configuration file; the node learns of it by SIGHUP or its next start.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub fn edit(&self, patch: &Value) -> anyhow::Result<()> {
        let text = fs::read_to_string(self.file())?;
        let mut tree: Value = serde_saphyr::from_str(&text).context("read the node's file back")?;
        spec::merge(&mut tree, patch);
        self.write(&tree)
    }

    fn write(&self, tree: &Value) -> anyhow::Result<()> {
        let text = serde_saphyr::to_string(tree).context("write the configuration as YAML")?;
        fs::write(self.file(), text).with_context(|| format!("write {}", self.file().display()))?;
        self.user.own(&self.file())
    }

    /// Replaces the node's coordinator by another program on the same files; it must not be running.
    pub fn become_program(&mut self, program: Program, exe: PathBuf) {
        self.program = program;
        self.exe = exe;
    }

    /// Starts the coordinator.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn start(&self) -> anyhow::Result<()> {
        let args = [self.file().display().to_string()];
        self.start_with(&args, &[])
    }

    /// Starts the coordinator with other arguments and additional environment.
    ///
    /// # Errors
    /// When it runs already or cannot be started.
    pub fn start_with(&self, args: &[String], env: &[(String, String)]) -> anyhow::Result<()> {
        let mut child = self.child();
        if let Some(running) = child.as_mut()
            && running.try_wait()?.is_none()
        {
            bail!("{} is running already", self.name);
        }
        let log = self.dir.join("log");
        let start = Start { program: &self.exe, args, env, dir: &self.dir, log: &log, user: &self.user };
        *child = Some(process::spawn(&start)?);
        Ok(())
    }

    /// The coordinator's process, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<i32> {
        let mut child = self.child();
        let running = child.as_mut()?;
        if running.try_wait().ok()?.is_some() {
            return None;
        }
        i32::try_from(running.id()).ok()
    }

    /// The postmaster's process, if its pid file names one that lives.
    #[must_use]
    pub fn postmaster(&self) -> Option<i32> {
        let text = fs::read_to_string(self.data().join("postmaster.pid")).ok()?;
        let pid = text.lines().next()?.trim().parse().ok()?;
        process::within(&self.data()).contains(&pid).then_some(pid)
    }

    /// The process of matriarch's fencer, while there is one.
    #[must_use]
    pub fn fencer(&self) -> Option<i32> {
        let runs_it = |pid: &i32| {
            let exe = fs::read_link(format!("/proc/{pid}/exe"));
            exe.is_ok_and(|exe| exe.file_name().is_some_and(|name| name == "matriarch-fencer"))
        };
        process::within(&self.dir).into_iter().find(runs_it)
    }

    /// A thread of the coordinator by its name.
    #[must_use]
    pub fn thread(&self, name: &str) -> Option<i32> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid()?)).ok()?.flatten();
        let named =
            |path: &PathBuf| fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim() == name);
        let task = tasks.map(|task| task.path()).find(named)?;
        task.file_name()?.to_str()?.parse().ok()
    }

    /// Sends a signal to the coordinator: TERM, HUP, STOP, CONT, KILL.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid() {
            process::signal(pid, signal);
        }
    }

    /// Waits until the coordinator has ended, and returns its exit status (none if a signal ended it).
    ///
    /// # Errors
    /// When it still runs after `limit`.
    pub async fn wait_end(&self, limit: Duration) -> anyhow::Result<Option<i32>> {
        until(limit, &format!("the end of {} on {}", self.program, self.name), async || {
            let mut child = self.child();
            let Some(running) = child.as_mut() else { return Ok(Some(None)) };
            Ok(running.try_wait()?.map(|status| status.code()))
        })
        .await
    }

    /// SIGTERM, and the end of the coordinator.
    ///
    /// # Errors
    /// When it still runs after `limit`.
    pub async fn stop(&self, limit: Duration) -> anyhow::Result<Option<i32>> {
        self.signal(Signal::TERM);
        self.wait_end(limit).await
    }

    /// SIGKILL to the coordinator alone; Postgres goes on.
    pub fn kill_coordinator(&self) {
        self.signal(Signal::KILL);
        if let Some(child) = self.child().as_mut() {
            let _ended = child.wait();
        }
    }

    /// SIGKILL to the postmaster alone.
    pub fn kill_postmaster(&self) {
        if let Some(pid) = self.postmaster() {
            process::signal(pid, Signal::KILL);
        }
    }

    /// What a power failure does: every process of the node is gone at once.
    pub fn kill(&self) {
        if let Some(postmaster) = self.postmaster() {
            self.signal(Signal::KILL);
            process::signal(postmaster, Signal::KILL);
        }
        process::kill_within(&self.dir);
        if let Some(child) = self.child().as_mut() {
            let _ended = child.wait();
        }
    }

    /// GET on the node's REST API.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        http::get(self.rest, path).await
    }

    /// The status code of a GET; 0 when there is no answer.
    pub async fn code(&self, path: &str) -> u16 {
        self.get(path).await.map_or(0, |answer| answer.status)
    }

    /// A request with a JSON body; switchovers answer late, so the limit is long.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn send(&self, method: &str, path: &str, body: &Value) -> anyhow::Result<Answer> {
        http::request(self.rest, method, path, Some(&body.to_string()), Duration::from_secs(90)).await
    }

    /// Runs statements in a fresh session and returns the rows as text.
    ///
    /// # Errors
    /// When Postgres does not take the connection or a statement fails.
    pub async fn sql(&self, sql: &str) -> anyhow::Result<Vec<Vec<String>>> {
        Session::open(self.postgres, STATEMENT).await?.rows(sql, STATEMENT).await
    }

    /// The first cell of the first row of a query.
    ///
    /// # Errors
    /// As for [`Node::sql`], and when there is no row.
    pub async fn cell(&self, sql: &str) -> anyhow::Result<String> {
        let rows = self.sql(sql).await?;
        rows.into_iter().flatten().next().with_context(|| format!("{sql:?} gave no row"))
    }

    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        process::kill_within(&self.dir);
        if let Some(child) = self.child().as_mut() {
            let _ended = child.wait();
        }
    }
}

/// The last lines of a file, without those that only repeat the one before at a later time.
#[must_use]
pub fn tail(file: &Path, count: usize) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.dedup_by_key(|line| line.get(STAMP..).unwrap_or(line));
    lines.get(lines.len().saturating_sub(count)..).unwrap_or_default().join("\n")
}
