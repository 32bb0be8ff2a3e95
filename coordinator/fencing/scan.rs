//! One look at the process table: which processes are the local instance's.
//!
//! It only looks; others act on what it saw. A process is recognised by its program and its working
//! directory, its family by descent and session, never by a number alone (F30).

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use dcs::Moment;

use super::kill::ProcessError;

/// More than the fields of `/proc/<pid>/stat` that are read can be long, in bytes: the kernel gives them in one piece.
const STAT: usize = 1024;

/// The fields of `/proc/<pid>/stat` that identify a process and its family.
#[derive(Debug, Clone, Copy)]
pub struct Stat {
    /// The number of its parent.
    pub parent: u32,
    /// The number of its session's leader.
    pub session: u32,
    /// When it started, in clock ticks since boot: with the number, its identity on this host.
    pub started: u64,
    /// A signal has stopped it (state T); a debugger's stops are no such.
    pub frozen: bool,
}

impl Stat {
    /// `None` if there is no such process, or only its zombie.
    pub fn read(pid: u32) -> Option<Self> {
        let mut line = [0; STAT];
        let length = fs::File::open(format!("/proc/{pid}/stat")).ok()?.read(&mut line).ok()?;
        let text = line.get(..length)?;
        // The name, in parentheses, may itself contain anything.
        let after_name = text.iter().rposition(|byte| *byte == b')')? + 2;
        let text = String::from_utf8_lossy(text.get(after_name..)?).into_owned();
        let fields: Vec<&str> = text.split(' ').collect();
        if matches!(*fields.first()?, "Z" | "X") {
            return None;
        }
        Some(Self {
            parent: fields.get(1)?.parse().ok()?,
            session: fields.get(3)?.parse().ok()?,
            started: fields.get(19)?.parse().ok()?,
            frozen: *fields.first()? == "T",
        })
    }
}

/// One look at the process table.
pub struct Scan {
    /// When the look began.
    pub seen: Moment,
    /// Every process, if any is the instance's.
    pub all: BTreeMap<u32, Stat>,
    /// Servers working in the data directory.
    pub servers: BTreeSet<u32>,
    /// These, everything that descends from them, and everything in a session that one of them leads.
    pub members: BTreeSet<u32>,
}

impl Scan {
    /// Looks. `led_before` are processes that were killed: what lives in their sessions is the instance's.
    ///
    /// # Errors
    /// If the process table cannot be read.
    pub fn of(home: &Home, by: By, led_before: &BTreeSet<u32>) -> Result<Self, ProcessError> {
        // Taken before the look, so the proof is never claimed for later than what was seen.
        let seen = Moment::now();
        let mut pids = Vec::new();
        let mut servers = BTreeSet::new();
        for entry in fs::read_dir("/proc").map_err(ProcessError::Scan)? {
            let name = entry.map_err(ProcessError::Scan)?.file_name();
            // Whatever happens, neither this process nor init is ever part of the instance.
            let pid = name.to_str().and_then(|name| name.parse::<u32>().ok());
            let Some(pid) = pid.filter(|pid| *pid != 1 && *pid != std::process::id()) else { continue };
            if home.is_server(pid, by) {
                servers.insert(pid);
            }
            pids.push(pid);
        }
        let mut all = BTreeMap::new();
        // Without a server there is no family to find, unless sessions of killed ones are looked for.
        if !servers.is_empty() || !led_before.is_empty() {
            all.extend(pids.into_iter().filter_map(|pid| Some((pid, Stat::read(pid)?))));
        }
        servers.retain(|pid| all.contains_key(pid));
        let mut scan = Self { seen, all, members: servers.clone(), servers };
        scan.add_families(led_before);
        Ok(scan)
    }

    /// Adds descendants, and what lives in sessions led by members or by processes killed before:
    /// an archive command whose parent is gone has no other tie to the instance.
    fn add_families(&mut self, led_before: &BTreeSet<u32>) {
        loop {
            let before = self.members.len();
            for (pid, stat) in &self.all {
                let by_session = *pid != stat.session
                    && (led_before.contains(&stat.session) || self.members.contains(&stat.session));
                if by_session || self.members.contains(&stat.parent) {
                    self.members.insert(*pid);
                }
            }
            if self.members.len() == before {
                return;
            }
        }
    }

    /// Whether this is a server whose parent is none: a postmaster, or what outlived one.
    pub fn is_root(&self, pid: u32) -> bool {
        self.servers.contains(&pid)
            && self.all.get(&pid).is_none_or(|stat| !self.servers.contains(&stat.parent))
    }

    /// Whether the process of this number that started then is the one that was seen.
    pub fn is_same(&self, pid: u32, started: u64) -> bool {
        self.all.get(&pid).is_some_and(|stat| stat.started == started)
    }
}

/// By what a server's working directory is recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// Its path, as the kernel knows it: touches no disk.
    Path,
    /// Its path, or else device and inode: finds it also under another name.
    Identity,
}

/// The data directory as the process table shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    /// The file name of the server's program.
    pub server: Vec<u8>,
    /// The data directory, resolved.
    pub path: PathBuf,
    /// Its device and inode, if they could be read.
    pub identity: Option<(u64, u64)>,
    /// Its owner.
    pub uid: u32,
}

impl Home {
    /// Looks at the data directory, which may take as long as its disk does.
    pub fn of(data_dir: &Path, server: &str) -> Self {
        let path = fs::canonicalize(data_dir).unwrap_or_else(|_| data_dir.to_owned());
        let identity = fs::metadata(&path).ok().map(|meta| (meta.dev(), meta.ino()));
        Self::known(server.as_bytes().to_vec(), path, identity)
    }

    /// As it was looked at before, by a process of the same user.
    pub fn known(server: Vec<u8>, path: PathBuf, identity: Option<(u64, u64)>) -> Self {
        Self { server, path, identity, uid: rustix::process::geteuid().as_raw() }
    }

    /// Whether this is a server process working in the directory, under its present name, a
    /// former one, or none at all: a server outlives the removal of its directory (F31).
    ///
    /// A process that ends gives up its memory, and with it the name of its program, then its files, then its
    /// working directory (Linux, `do_exit`). One without a program but with our directory is still ending.
    pub fn is_server(&self, pid: u32, by: By) -> bool {
        let link = |name: &str| fs::read_link(format!("/proc/{pid}/{name}"));
        let runs_server =
            |exe: PathBuf| undeleted(&exe).file_name().map(OsStr::as_bytes) == Some(self.server.as_slice());
        if link("exe").is_ok_and(|exe| !runs_server(exe)) {
            return false;
        }
        if !fs::metadata(format!("/proc/{pid}")).is_ok_and(|meta| meta.uid() == self.uid) {
            return false;
        }
        let here = |cwd: PathBuf| undeleted(&cwd) == self.path;
        link("cwd").is_ok_and(here)
            || by == By::Identity && {
                let now = fs::metadata(format!("/proc/{pid}/cwd")).ok().map(|meta| (meta.dev(), meta.ino()));
                now.is_some() && now == self.identity
            }
    }
}

/// The path of a link in `/proc` without the mark of a removed file.
fn undeleted(path: &Path) -> &Path {
    let bytes = path.as_os_str().as_bytes();
    Path::new(OsStr::from_bytes(bytes.strip_suffix(b" (deleted)").unwrap_or(bytes)))
}
