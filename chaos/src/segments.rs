//! Shared memory that killed servers leave behind.
//!
//! A Postgres that ends by SIGKILL leaves one System V segment and some POSIX ones. Its next start in the same
//! directory removes them; a throw-away cluster has no next start, and the kernel allows 4096 System V segments.

use std::collections::BTreeSet;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::process;

/// Where Linux keeps POSIX shared memory.
const POSIX: &str = "/dev/shm";
/// How Postgres names its segments there (`dsm_impl.c`).
const PREFIX: &str = "PostgreSQL.";
/// Much longer than from making a segment to mapping it.
const MOMENT: Duration = Duration::from_millis(100);

/// Whose segments are meant: those made by these users at or after that second.
#[derive(Debug)]
pub struct Made {
    users: BTreeSet<u32>,
    since: i64,
}

impl Made {
    /// By the owners of what lies in a cluster's directory. Postgres never runs as root, so root's are not meant.
    #[must_use]
    pub fn in_cluster(dir: &Path, started: SystemTime) -> Self {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        let users = entries.filter_map(|entry| entry.metadata().ok()).map(|found| found.uid());
        let since = started.duration_since(UNIX_EPOCH).map_or(0, |past| past.as_secs());
        Self {
            users: users.filter(|uid| *uid != 0).collect(),
            since: i64::try_from(since).unwrap_or(i64::MAX),
        }
    }

    /// Removes those that no process uses any more, as the next start of their server would.
    #[allow(clippy::disallowed_methods, reason = "memory of dead servers, nothing of a data directory")]
    pub fn remove_unused(&self) {
        for id in self.unused_system_v(&fs::read_to_string("/proc/sysvipc/shm").unwrap_or_default()) {
            let mut command = Command::new("ipcrm");
            command.args(["-m", &id]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let _best_effort = command.status();
        }
        for path in self.unused_posix() {
            let _best_effort = fs::remove_file(path);
        }
    }

    /// Identifiers of segments with no process attached whose maker is gone: one still alive may be about to attach.
    fn unused_system_v(&self, table: &str) -> Vec<String> {
        let mut rows = table.lines().map(|row| row.split_whitespace().collect::<Vec<_>>());
        let Some(names) = rows.next() else { return Vec::new() };
        let column = |name: &str| names.iter().position(|other| *other == name);
        let (Some(id), Some(maker), Some(attached), Some(user), Some(made)) =
            (column("shmid"), column("cpid"), column("nattch"), column("uid"), column("ctime"))
        else {
            return Vec::new();
        };
        let unused = rows.filter(|row| {
            let number = |at: usize| row.get(at).and_then(|text| text.parse::<i64>().ok());
            number(attached) == Some(0)
                && number(user)
                    .and_then(|uid| u32::try_from(uid).ok())
                    .is_some_and(|uid| self.users.contains(&uid))
                && number(made).is_some_and(|at| at >= self.since)
                && number(maker).and_then(|pid| i32::try_from(pid).ok()).is_some_and(process::is_over)
        });
        unused.filter_map(|row| row.get(id).map(|id| (*id).to_owned())).collect()
    }

    /// Files that no process has mapped, now and a moment later: one just made may be about to be.
    fn unused_posix(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(POSIX).into_iter().flatten().flatten();
        let made = entries.filter(|entry| {
            let named = entry.file_name().to_string_lossy().starts_with(PREFIX);
            let ours = |found: Metadata| self.users.contains(&found.uid()) && found.ctime() >= self.since;
            named && entry.metadata().is_ok_and(ours)
        });
        let mut unused: Vec<PathBuf> = made.map(|entry| entry.path()).collect();
        drop_mapped(&mut unused);
        if !unused.is_empty() {
            process::pause(MOMENT);
            drop_mapped(&mut unused);
        }
        unused
    }
}

/// Leaves what is in the memory map of no process.
fn drop_mapped(segments: &mut Vec<PathBuf>) {
    let maps = process::all().into_iter().map(|pid| fs::read_to_string(format!("/proc/{pid}/maps")));
    for text in maps.flatten() {
        let mapped: BTreeSet<&Path> = text
            .lines()
            .filter_map(|line| line.find(POSIX).and_then(|at| line.get(at..)))
            .map(Path::new)
            .collect();
        segments.retain(|path| !mapped.contains(path.as_path()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid      atime      dtime      ctime                   rss                  swap
  10027175          7   600                    56 999999999 999999999      0   104   107   104   107          0          0       1000                  4096                     0
  10027176          8   600                    56 999999999 999999999      6   104   107   104   107          0          0       1000                  4096                     0
  10027177          9   600                    56 999999999 999999999      0   105   107   104   107          0          0       1000                  4096                     0
  10027178         10   600                    56 999999999 999999999      0   104   107   104   107          0          0        999                  4096                     0
  10027179         11   600                    56     1     1      0   104   107   104   107          0          0       1000                  4096                     0
";

    #[test]
    fn only_what_our_dead_servers_left_is_unused() {
        let made = Made { users: BTreeSet::from([104]), since: 1000 };
        assert_eq!(
            made.unused_system_v(TABLE),
            ["7"],
            "not one in use, another user's, an older one, one being made"
        );
    }

    #[test]
    fn a_table_that_cannot_be_read_names_nothing() {
        let made = Made { users: BTreeSet::from([104]), since: 1000 };
        assert!(made.unused_system_v("").is_empty());
        assert!(made.unused_system_v("key shmid\n1 2\n").is_empty());
    }
}
