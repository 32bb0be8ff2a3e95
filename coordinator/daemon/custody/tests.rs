//! The matrix of missing proofs on real directories; refusals change nothing. A real server is
//! used where only one can be in the way.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use config::NodeName;
use coordinator::Grounds;
use coordinator::custody::{LeaderAnswer, Leadership, Permission, Refusal};
use dcs::{Epoch, Moment, SystemId};

use super::incoming::is_empty;
use super::*;
use crate::postgres::{Found, Paths, Stopped, process};

fn stopped(paths: &Paths) -> Stopped {
    match process::find(paths).unwrap() {
        Found::Nothing(proof) => proof,
        other => panic!("{other:?}"),
    }
}

/// Something that looks like a data directory of cluster 7.
fn directory() -> (tempfile::TempDir, Paths) {
    let dir = tempfile::Builder::new().prefix("custody").tempdir().unwrap();
    let paths = Paths::new(dir.path().join("pg"));
    make(&paths.data_dir);
    (dir, paths)
}

fn make(data_dir: &Path) {
    fs::create_dir_all(data_dir.join("global")).unwrap();
    fs::create_dir_all(data_dir.join("pg_tblspc")).unwrap();
    fs::write(data_dir.join("PG_VERSION"), "15\n").unwrap();
    let mut control = vec![0_u8; 8192];
    control[..8].copy_from_slice(&7_u64.to_ne_bytes());
    control[8..12].copy_from_slice(&1300_u32.to_ne_bytes());
    control[16..20].copy_from_slice(&1_u32.to_ne_bytes());
    fs::write(data_dir.join("global/pg_control"), control).unwrap();
}

fn name(text: &str) -> NodeName {
    NodeName::new(text).unwrap()
}

pub(crate) fn request(paths: &Paths) -> Request {
    let now = Moment::now();
    Request {
        vault: paths.beside(".vault"),
        identity_when_decided: identity(&paths.data_dir).ok(),
        leadership: Some(Leadership {
            me: name("n1"),
            leader: name("n2"),
            at: now,
            first: Epoch(1),
            second: Some(Epoch(1)),
            cluster: Some(SystemId(7)),
            answer: Some(LeaderAnswer { at: now, system_id: SystemId(7), takes_writes: true }),
        }),
        permission: Permission {
            grounds: Grounds::Reinitialize,
            after_failed_rewind: false,
            when_diverged: false,
            named: Some(name("n1")),
            our_marker: false,
            paused: false,
            protected: false,
        },
        why: "a test".into(),
    }
}

/// What a person, or a crash between two moves, would have done.
fn move_by_hand(from: impl AsRef<Path>, to: impl AsRef<Path>) -> std::io::Result<()> {
    rustix::fs::rename(from.as_ref(), to.as_ref()).map_err(Into::into)
}

/// Every file below, with its content.
fn everything(below: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut left = vec![below.to_owned()];
    while let Some(path) = left.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        if meta.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            found.insert(path.display().to_string(), fs::read(&path).unwrap_or_default());
        }
    }
    found
}

fn refused(paths: &Paths, request: Request) -> Refusal {
    let before = everything(paths.data_dir.parent().unwrap());
    let outcome = warrant(paths, stopped(paths), request);
    assert_eq!(everything(paths.data_dir.parent().unwrap()), before, "a refusal changed something");
    match outcome.unwrap_err() {
        CustodyError::Refused(refusal) => refusal,
        other => panic!("{other}"),
    }
}

#[test]
fn with_every_proof_it_moves_aside_whole() {
    let (_dir, paths) = directory();
    let content = everything(&paths.data_dir).into_values().collect::<Vec<_>>();
    let emptied = retire(warrant(&paths, stopped(&paths), request(&paths)).unwrap()).unwrap();
    assert!(!paths.data_dir.exists() && is_empty(&paths).unwrap());
    assert_eq!(everything(&emptied.entry().join("data")).into_values().collect::<Vec<_>>(), content);
    let ticket = fs::read_to_string(emptied.entry().join("ticket.json")).unwrap();
    assert!(ticket.contains("\"done\": true") && ticket.contains("a test"), "{ticket}");
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(fs::metadata(paths.beside(".vault")).unwrap().permissions().mode() & 0o777, 0o700);
}

/// Proof by proof on real directories; the judgement's own matrix is in the library.
#[test]
fn a_missing_proof_refuses_and_changes_nothing() {
    let (dir, paths) = directory();
    // 1: a link, a file, no Postgres, unknown files, another directory than at start.
    let mut link = paths.clone();
    link.data_dir = dir.path().join("link");
    symlink(&paths.data_dir, &link.data_dir).unwrap();
    assert_eq!(refused(&link, request(&paths)), Refusal::Link);
    let mut relative = paths.clone();
    relative.data_dir = "pg/../pg".into();
    let outcome = warrant(&relative, stopped(&relative), request(&paths)).unwrap_err();
    assert!(matches!(outcome, CustodyError::Refused(Refusal::RelativePath)), "{outcome}");
    assert_eq!(
        refused(&paths, Request { identity_when_decided: Some((1, 1)), ..request(&paths) }),
        Refusal::Exchanged
    );
    fs::write(paths.data_dir.join("photos"), "dear").unwrap();
    assert_eq!(refused(&paths, request(&paths)), Refusal::UnknownFiles("photos".into()));
    fs::remove_file(paths.data_dir.join("photos")).unwrap();
    let control = fs::read(paths.data_dir.join("global/pg_control")).unwrap();
    fs::write(paths.data_dir.join("global/pg_control"), "short").unwrap();
    assert_eq!(refused(&paths, request(&paths)), Refusal::UnreadableControl);
    fs::write(paths.data_dir.join("global/pg_control"), control).unwrap();
    fs::remove_file(paths.data_dir.join("PG_VERSION")).unwrap();
    assert_eq!(refused(&paths, request(&paths)), Refusal::NotPostgres);
    fs::write(paths.data_dir.join("PG_VERSION"), "15\n").unwrap();
    assert_eq!(
        refused(&paths, Request { vault: "/proc/vault".into(), ..request(&paths) }),
        Refusal::VaultElsewhere
    );
    // 2: another daemon holds the lock; the proof is of another directory.
    let held = fs::File::open(&paths.data_dir).unwrap();
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).unwrap();
    assert_eq!(refused(&paths, request(&paths)), Refusal::LockedByOthers);
    drop(held);
    let elsewhere = Paths::new(dir.path().join("elsewhere"));
    let outcome = warrant(&paths, stopped(&elsewhere), request(&paths)).unwrap_err();
    assert!(matches!(outcome, CustodyError::Refused(Refusal::InUse)), "{outcome}");
    // 3: nobody is known to lead.
    assert_eq!(refused(&paths, Request { leadership: None, ..request(&paths) }), Refusal::NotNamed);
    // 7: automatic grounds without their setting.
    let mut automatic = request(&paths);
    automatic.permission.grounds = Grounds::Diverged;
    assert_eq!(refused(&paths, automatic), Refusal::Setting("remove_data_directory_on_diverged_timelines"));
    // And with everything back in order it goes.
    retire(warrant(&paths, stopped(&paths), request(&paths)).unwrap()).unwrap();
}

/// What changes between the warrant and the act stops the act.
#[test]
fn a_warrant_is_checked_again_at_the_moment_of_use() {
    let (dir, paths) = directory();
    let granted = warrant(&paths, stopped(&paths), request(&paths)).unwrap();
    move_by_hand(&paths.data_dir, dir.path().join("mine")).unwrap();
    make(&paths.data_dir);
    let before = everything(dir.path());
    let error = retire(granted).unwrap_err();
    assert!(matches!(error, CustodyError::Refused(Refusal::Exchanged)), "{error}");
    assert_eq!(everything(dir.path()), before);

    let mut late = warrant(&paths, stopped(&paths), request(&paths)).unwrap();
    late.until = Moment::now() - std::time::Duration::from_secs(1);
    assert!(matches!(retire(late).unwrap_err(), CustodyError::Expired { .. }));
    assert_eq!(everything(dir.path()), before);
}

/// F157, F168: a tablespace goes aside beside itself, and links are never followed into.
#[test]
fn tablespaces_are_moved_aside_too() {
    let (dir, paths) = directory();
    let space = dir.path().join("space");
    fs::create_dir(&space).unwrap();
    fs::write(space.join("row"), "data").unwrap();
    symlink(&space, paths.data_dir.join("pg_tblspc/16384")).unwrap();
    let emptied = retire(warrant(&paths, stopped(&paths), request(&paths)).unwrap()).unwrap();
    assert!(!space.exists());
    let label = emptied.entry().file_name().unwrap().to_str().unwrap();
    let aside = dir.path().join(format!("space.retired-{label}"));
    assert_eq!(fs::read_to_string(aside.join("row")).unwrap(), "data");
}

/// F22: a crash after the first move is completed from the ticket; one before it leaves everything.
#[test]
fn an_interrupted_retirement_is_completed_or_was_never_begun() {
    let (dir, paths) = directory();
    let space = dir.path().join("space");
    fs::create_dir(&space).unwrap();
    symlink(&space, paths.data_dir.join("pg_tblspc/16384")).unwrap();
    let emptied = retire(warrant(&paths, stopped(&paths), request(&paths)).unwrap()).unwrap();
    let (vault, entry) = (paths.beside(".vault"), emptied.entry().to_owned());
    // As if the crash had come between the two moves.
    let label = entry.file_name().unwrap().to_str().unwrap().to_owned();
    let aside = dir.path().join(format!("space.retired-{label}"));
    move_by_hand(&aside, &space).unwrap();
    let ticket = fs::read_to_string(entry.join("ticket.json")).unwrap();
    let undone = ticket.replace("\"done\": true", "\"done\": false");
    fs::write(entry.join("ticket.json"), &undone).unwrap();
    assert_eq!(complete_interrupted(&vault, &paths).unwrap(), std::slice::from_ref(&entry));
    assert!(aside.exists() && !space.exists());
    assert_eq!(fs::read_to_string(entry.join("ticket.json")).unwrap(), ticket);
    assert!(complete_interrupted(&vault, &paths).unwrap().is_empty());
    // As if it had come before the first.
    move_by_hand(entry.join("data"), &paths.data_dir).unwrap();
    fs::write(entry.join("ticket.json"), &undone).unwrap();
    assert!(complete_interrupted(&vault, &paths).unwrap().is_empty());
    assert!(paths.data_dir.join("PG_VERSION").exists());
}

/// F20: what was half made is removed only if we made it; nothing is put where something is.
#[test]
fn only_our_own_unfinished_work_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let paths = Paths::new(dir.path().join("pg"));
    let incoming = make_room(&paths).unwrap();
    fs::write(incoming.path().join("half"), "x").unwrap();
    let again = make_room(&paths).unwrap();
    assert_eq!(fs::read_dir(again.path()).unwrap().count(), 0);
    discard_leftovers(&paths).unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);

    fs::create_dir(paths.beside(".incoming")).unwrap();
    fs::write(paths.beside(".incoming").join("photos"), "dear").unwrap();
    assert!(matches!(make_room(&paths).unwrap_err(), CustodyError::NotOurs { .. }));
    assert!(paths.beside(".incoming").join("photos").exists());

    make(&paths.data_dir);
    assert!(matches!(make_room(&paths).unwrap_err(), CustodyError::Occupied { .. }));
}
