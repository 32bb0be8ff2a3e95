//! Gathering the evidence for a warrant, and making it: the one place where a `Warrant` comes from.

use std::fs::{self, File};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use coordinator::custody::{self as judgement, Directory, Evidence, Kind, Leadership, Permission, Usage};
use dcs::Moment;
use rustix::fs::FlockOperation;

use super::CustodyError;
use super::moves::{device_of, identity};
use crate::postgres::controldata;
use crate::postgres::process::{self, PidFile};
use crate::postgres::{Found, Paths, Stopped};

/// How long a warrant may be used.
const LIFETIME: Duration = Duration::from_secs(30);

/// Names that Postgres, or a manager of it, uses at the top of a data directory.
const KNOWN: [&str; 48] = [
    "PG_VERSION",
    "base",
    "global",
    "pg_commit_ts",
    "pg_dynshmem",
    "pg_logical",
    "pg_multixact",
    "pg_notify",
    "pg_replslot",
    "pg_serial",
    "pg_snapshots",
    "pg_stat",
    "pg_stat_tmp",
    "pg_subtrans",
    "pg_tblspc",
    "pg_twophase",
    "pg_wal",
    "pg_xact",
    "pg_clog",
    "pg_xlog",
    "postgresql.conf",
    "postgresql.auto.conf",
    "postgresql.base.conf",
    "pg_hba.conf",
    "pg_ident.conf",
    "postmaster.opts",
    "postmaster.pid",
    "backup_label",
    "backup_label.old",
    "backup_manifest",
    "tablespace_map",
    "tablespace_map.old",
    "standby.signal",
    "recovery.signal",
    "recovery.conf",
    "recovery.done",
    "current_logfiles",
    "log",
    "pg_log",
    "promote",
    "logrotate",
    "lost+found",
    "patroni.dynamic.json",
    "server.crt",
    "server.key",
    "root.crt",
    "root.crl",
    "pgsql_tmp",
];

/// What a warrant is asked for, with the evidence that only the asker can have.
#[derive(Debug, Clone)]
pub struct Request {
    /// The vault; normally beside the data directory, under its name with `.vault` appended.
    pub vault: PathBuf,
    /// Device and inode of the data directory when it was decided that it shall go.
    pub identity_when_decided: Option<(u64, u64)>,
    /// Two linearizable reads of who leads around one answer of the leader itself.
    pub leadership: Option<Leadership>,
    /// The grounds, and what the configuration says about them.
    pub permission: Permission,
    /// Who asked and why, in words, for the ticket.
    pub why: String,
}

/// The proof that one directory may be moved aside now. Made only by `warrant`, spent by `retire`,
/// useless after 30 seconds.
#[derive(Debug)]
pub struct Warrant {
    pub(super) paths: Paths,
    pub(super) request: Request,
    pub(super) evidence: Evidence,
    pub(super) until: Moment,
    /// Held until the directory is gone.
    _lock: Option<File>,
}

/// Gathers fresh evidence and judges it. `stopped` is spent: whoever wants to start Postgres after
/// a refusal looks again.
pub fn warrant(paths: &Paths, stopped: Stopped, request: Request) -> Result<Warrant, CustodyError> {
    let lock = lock(&paths.data_dir);
    let seen = (stopped.data_dir() == paths.data_dir).then(|| stopped.seen());
    drop(stopped);
    let evidence = gather(paths, &request, seen, lock.is_some());
    judgement::judge(&evidence).map_err(CustodyError::Refused)?;
    Ok(Warrant { paths: paths.clone(), until: evidence.now + LIFETIME, request, evidence, _lock: lock })
}

/// Judges without stopping anything: everything but the proof that nobody uses the directory.
pub fn would_agree(paths: &Paths, request: &Request) -> Result<(), CustodyError> {
    let mut evidence = gather(paths, request, None, true);
    evidence.usage = Usage { nobody_seen: Some(evidence.now), pid_file_alive: false, locked_by_us: true };
    judgement::judge(&evidence).map_err(CustodyError::Refused)
}

impl Warrant {
    /// Looks again at everything that can be looked at here, immediately before the act.
    pub(super) fn still_holds(&self) -> Result<(), CustodyError> {
        if Moment::now() > self.until {
            return Err(CustodyError::Expired { path: self.paths.data_dir.clone() });
        }
        let seen = match process::find(&self.paths)? {
            Found::Nothing(stopped) => Some(stopped.seen()),
            _ => None,
        };
        let mut now = gather(&self.paths, &self.request, seen, self._lock.is_some());
        // It must still be the very directory that the warrant was made for.
        now.directory.identity_when_decided = self.evidence.directory.identity;
        judgement::judge(&now).map_err(CustodyError::Refused)
    }
}

fn gather(paths: &Paths, request: &Request, nobody_seen: Option<Moment>, locked: bool) -> Evidence {
    let at = Moment::now();
    let directory = Directory {
        at,
        path: paths.data_dir.display().to_string(),
        kind: kind(&paths.data_dir),
        precious: is_precious(&paths.data_dir),
        identity_when_decided: request.identity_when_decided,
        identity: identity(&paths.data_dir).ok(),
        has_version: fs::read_to_string(paths.data_dir.join("PG_VERSION"))
            .is_ok_and(|text| text.trim().parse::<f32>().is_ok()),
        system_id: controldata::head(&paths.data_dir).map(|head| head.system_id),
        unknown_names: unknown_names(paths, &request.vault),
        vault_is_near: matches!(
            (device_of(&request.vault), device_of(&paths.data_dir)),
            (Ok(vault), Ok(data)) if vault == data
        ) && !super::moves::is_mount_point(&request.vault),
    };
    let pid_file_alive =
        PidFile::read(&paths.pid_file()).is_some() && !matches!(process::find(paths), Ok(Found::Nothing(_)));
    Evidence {
        now: Moment::now(),
        directory,
        usage: Usage { nobody_seen, pid_file_alive, locked_by_us: locked },
        leadership: request.leadership.clone(),
        permission: request.permission.clone(),
    }
}

fn kind(path: &Path) -> Kind {
    let is_plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if !path.is_absolute() || !is_plain {
        return Kind::Relative;
    }
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_symlink() => Kind::Link,
        Ok(meta) if meta.is_dir() => Kind::Directory,
        _ => Kind::Other,
    }
}

/// The root, a top-level directory, a home, or the top of a package's tree.
fn is_precious(path: &Path) -> bool {
    let depth = path.components().count();
    let home = std::env::var_os("HOME").is_some_and(|home| Path::new(&home) == path);
    let under_home = path.parent() == Some(Path::new("/home"));
    // "/" is one component, "/pgdata" two: a volume may be mounted there.
    let system = [
        "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib64", "/media", "/mnt", "/opt", "/proc",
        "/root", "/run", "/sbin", "/srv", "/sys", "/tmp", "/usr", "/var", "/var/lib",
    ];
    depth < 2 || home || under_home || system.iter().any(|known| Path::new(known) == path)
}

fn unknown_names(paths: &Paths, vault: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(&paths.data_dir) else { return vec!["(unreadable)".to_owned()] };
    let ours = [paths.conf(), paths.base_conf()].map(|path| path.file_name().map(ToOwned::to_owned));
    let is_known = |name: &std::ffi::OsStr| {
        let text = name.to_string_lossy();
        let plain = text.trim_end_matches(".matriarch-new").trim_end_matches(".backup");
        KNOWN.contains(&plain)
            || plain.ends_with(".conf")
            || ours.iter().any(|ours| ours.as_deref() == Some(name))
            || paths.data_dir.join(name) == vault
            || text == super::incoming::INSIDE
    };
    let names = entries.map(|entry| entry.map_or_else(|_| "(unreadable)".into(), |entry| entry.file_name()));
    names.filter(|name| !is_known(name)).take(5).map(|name| name.to_string_lossy().into_owned()).collect()
}

/// The lock on a data directory, by which two daemons cannot both work on it.
fn lock(data_dir: &Path) -> Option<File> {
    let file = File::open(data_dir).ok()?;
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).ok()?;
    Some(file)
}
