//! Real servers for tests: made in a temporary directory, run as an ordinary user, killed at the end.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use crate::postgres::conf::{self, Conf};
use crate::postgres::query::Terms;
use crate::postgres::run::{self, Start};
use crate::postgres::{Conninfo, Found, Login, Paths, Postmaster, Session, Stopped, Target, initdb, process};

pub const LONG: Duration = Duration::from_secs(60);

/// The directory of one test and the instances in it.
pub struct Bench {
    dir: PathBuf,
    started: Mutex<Vec<Paths>>,
}

/// One instance.
pub struct Node {
    pub paths: Paths,
    pub name: String,
    pub parameters: BTreeMap<String, String>,
}

/// Runs a test on real Postgres. Postgres refuses root, so a test run by root starts itself again
/// as an ordinary user, in a process of its own.
pub fn real<F: AsyncFnOnce(&Bench)>(body: F) {
    if rustix::process::geteuid().is_root() {
        return again_as_ordinary_user(std::any::type_name_of_val(&body));
    }
    let dir = tempfile::Builder::new().prefix("pg").tempdir_in("/tmp").unwrap();
    let bench = Bench { dir: dir.path().to_owned(), started: Mutex::new(Vec::new()) };
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        runtime()
            .block_on(async { tokio::time::timeout(Duration::from_secs(240), body(&bench)).await.unwrap() });
    }));
    // Whatever happened, nothing stays behind.
    for paths in bench.started.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()) {
        runtime().block_on(process::kill_all(&paths, LONG)).unwrap();
        remove_segment(&paths);
        if outcome.is_err() {
            eprintln!("--- log of {}:\n{}", paths.data_dir.display(), run::log_tail(&paths.log));
        }
    }
    if let Err(panic) = outcome {
        resume_unwind(panic);
    }
}

/// A killed server leaves a System V segment, which its next start would remove; the kernel allows 4096.
fn remove_segment(paths: &Paths) {
    let lock = std::fs::read_to_string(paths.data_dir.join("postmaster.pid")).unwrap_or_default();
    if let Some(id) = lock.lines().nth(6).and_then(|line| line.split_whitespace().nth(1)) {
        let _best_effort = std::process::Command::new("ipcrm").args(["-m", id]).status();
    }
}

fn again_as_ordinary_user(closure: &str) {
    let test = closure.trim_start_matches("matriarch::").split("::{{closure}}").next().unwrap();
    let user =
        ["postgres", "nobody"].iter().find_map(|name| nix::unistd::User::from_name(name).ok().flatten());
    let user = user.expect("no user postgres or nobody to run Postgres as");
    let output = std::process::Command::new("/proc/self/exe")
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .uid(user.uid.as_raw())
        .gid(user.gid.as_raw())
        .current_dir("/tmp")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    print!("{said}");
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("1 passed"), "{test} as {} failed", user.name);
}

/// Where Postgres's programs are: in `PATH`, or the newest of the distribution's directories.
fn bin_dir() -> PathBuf {
    let from_path = std::env::var_os("PATH").unwrap_or_default();
    let mut known: Vec<PathBuf> = std::env::split_paths(&from_path).collect();
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<PathBuf> = versions.map(|entry| entry.path().join("bin")).collect();
    versions.sort();
    known.extend(versions.into_iter().rev());
    let found = known.into_iter().find(|dir| {
        ["postgres", "initdb", "pg_controldata", "pg_rewind"].iter().all(|name| dir.join(name).exists())
    });
    found.expect("PostgreSQL's server programs are missing: apt-get install postgresql")
}

impl Bench {
    /// An instance that does not exist yet.
    pub fn node(&self, name: &str) -> Node {
        let mut paths = Paths::new(self.dir.join(name));
        paths.bin_dir = Some(bin_dir());
        let sockets = self.dir.join(format!("{name}-sockets"));
        std::fs::create_dir(&sockets).unwrap();
        let parameters = [
            ("listen_addresses", ""),
            ("port", "5432"),
            ("unix_socket_directories", sockets.to_str().unwrap()),
            ("wal_log_hints", "on"),
            ("hot_standby", "on"),
            ("max_connections", "30"),
            ("shared_buffers", "16MB"),
            ("wal_keep_size", "128MB"),
            ("fsync", "off"),
        ];
        self.started.lock().unwrap().push(paths.clone());
        Node {
            paths,
            name: name.to_owned(),
            parameters: parameters.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        }
    }

    /// A new database cluster that runs as a primary.
    pub async fn primary(&self, name: &str) -> (Node, Postmaster, Session) {
        let node = self.node(name);
        initdb::initdb(&node.paths, &node.paths.data_dir, &config::Arguments::default(), &node.login())
            .await
            .unwrap();
        conf::write(&node.paths, &node.conf(None)).unwrap();
        let (postmaster, session) = node.start(Start::Primary).await;
        (node, postmaster, session)
    }

    /// A copy of a running instance, streaming from it.
    pub async fn standby(&self, name: &str, of: &Node) -> (Node, Postmaster, Session) {
        let node = self.node(name);
        let output = crate::command::Program::new(of.paths.program("pg_basebackup"))
            .args(["--checkpoint=fast", "--no-sync", "--wal-method=stream", "-D"])
            .arg(&node.paths.data_dir)
            .arg(format!("--dbname={}", Conninfo::to(&of.target(), None).text(150_000)));
        output.succeed(LONG).await.unwrap();
        node.follow(Some(of));
        let (postmaster, session) = node.start(Start::Standby).await;
        (node, postmaster, session)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

impl Node {
    pub fn login(&self) -> Login {
        Login { user: "admin".into(), ..Login::default() }
    }

    pub fn sockets(&self) -> &str {
        self.parameters.get("unix_socket_directories").unwrap()
    }

    pub fn target(&self) -> Target {
        Target { host: self.sockets().into(), port: 5432, database: "postgres".into(), login: self.login() }
    }

    pub fn conf(&self, upstream: Option<&Node>) -> Conf {
        let info = upstream.map(|node| Conninfo::primary(&node.target(), &self.name, None, None));
        Conf {
            parameters: self.parameters.clone(),
            recovery: Some(conf::recovery(info.as_ref().map(|info| (info, None)), &BTreeMap::new(), 150_000)),
            ..Conf::default()
        }
    }

    /// Writes the files of a standby of `upstream`.
    pub fn follow(&self, upstream: Option<&Node>) {
        conf::write(&self.paths, &self.conf(upstream)).unwrap();
    }

    /// Nothing runs on it; the proof of that.
    pub fn stopped(&self) -> Stopped {
        match process::find(&self.paths).unwrap() {
            Found::Nothing(proof) => proof,
            other => panic!("{other:?}"),
        }
    }

    pub async fn start(&self, start: Start) -> (Postmaster, Session) {
        let line = conf::command_line(&self.parameters);
        let postmaster = run::start(&self.paths, self.stopped(), start, &line, || true).await.unwrap();
        run::wait_ready(&self.paths, &postmaster, LONG).await.unwrap();
        (postmaster, self.session().await)
    }

    pub async fn session(&self) -> Session {
        Session::open(&self.target(), Terms::default()).await.unwrap()
    }
}

/// Waits until `holds`, asking every few milliseconds.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let mut tick = tokio::time::interval(Duration::from_millis(5));
    let asked = async {
        while !holds().await {
            tick.tick().await;
        }
    };
    tokio::time::timeout(LONG, asked).await.unwrap_or_else(|_| panic!("never happened: {what}"));
}

/// The processes that work in a directory, by number.
pub fn working_in(dir: &Path) -> Vec<u32> {
    let numbers = std::fs::read_dir("/proc").unwrap().flatten();
    let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    numbers.filter(|pid| std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == dir)).collect()
}
