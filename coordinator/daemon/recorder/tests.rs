//! The ring on real files, and a recorder whose disk is full, torn or silent.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use api::recording::{FORMAT, NEW, OLD, Recording};
use coordinator::{Bootstrap, Data, Myself, Postgres, Process, Repair, Store, SyncWrites};
use dcs::{ClusterView, Moment, Revision, Versioned};
use serde_json::json;

use super::*;

fn header(version: &str) -> Header {
    let version = version.to_owned();
    Header { matriarch_turns: FORMAT, version, scope: "demo".to_owned(), name: "n1".to_owned() }
}

fn line(number: usize) -> Vec<u8> {
    let because = format!("reason {number}");
    let entry = Entry { at: String::new(), quiet: 0, lost: 0, because, steps: vec!["x".repeat(80)] };
    serde_json::to_vec(&entry).unwrap()
}

fn reasons(dir: &Path) -> Vec<String> {
    let turns = recording::read(dir).unwrap().into_iter().flat_map(|file| file.turns);
    turns.map(|(_, entry, _)| entry.because).collect()
}

fn bytes(dir: &Path) -> u64 {
    std::fs::read_dir(dir).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum()
}

/// A node without data that sees a store with this view.
fn seen(view: ClusterView) -> Observation {
    let document = json!({"postgresql": {"parameters": {"primary_conninfo": "password=hunter2"}}});
    let (settings, _) = config::ClusterConfig::from_document(&document);
    Observation {
        now: Moment(7),
        me: Myself {
            name: config::NodeName::new("n1").unwrap(),
            tags: config::Tags::default(),
            withheld: Vec::new(),
            bootstrap: Bootstrap::Never,
            repair: Repair::default(),
        },
        settings: Arc::new(settings),
        store: Store { view: Some(Arc::new(view)), reachable: true, silent: false, seen: Moment(7) },
        failsafe: Default::default(),
        sync: SyncWrites::default(),
        lease: None,
        released: None,
        arrival: None,
        postgres: Postgres {
            process: Process::Gone,
            running: None,
            upstream: None,
            silent_since: None,
            frozen: false,
            crashed: None,
            down: None,
        },
        data: Data::Empty,
        job: None,
        ended: None,
        leader_history: None,
        switches: Vec::new(),
        peers: BTreeMap::new(),
        floor: None,
        failover_due: None,
        requests: Vec::new(),
        restored: None,
        ending: None,
    }
}

fn turn(recorder: &mut Recorder, seen: &Observation) {
    let past = Past::default();
    let decided = coordinator::decide(seen, &past);
    recorder.take(seen.clone(), past, &decided);
}

fn with_document() -> ClusterView {
    let value = json!({"standby_cluster": {"password": "hunter2"}});
    ClusterView { config: Some(Versioned { value, revision: Revision(3) }), ..ClusterView::default() }
}

#[test]
fn two_files_never_hold_more_than_their_size_and_the_newest_turns_are_there() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("deep/data.turns");
    let mut ring = Ring::new(place.clone(), 2000, header("1"));
    for number in 0..100 {
        ring.append(line(number)).unwrap();
        assert!(bytes(&place) <= 2000);
    }
    let kept = reasons(&place);
    assert!(kept.len() > 6, "{kept:?}");
    let newest: Vec<String> = (100 - kept.len()..100).map(|number| format!("reason {number}")).collect();
    assert_eq!(kept, newest);
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!([mode(&place), mode(&place.join(NEW)), mode(&place.join(OLD))], [0o700, 0o600, 0o600]);
    assert!(ring.append(vec![b'x'; 1001]).is_err());
    ring.append(line(100)).unwrap();
}

#[test]
fn the_next_daemon_goes_on_behind_a_torn_line() {
    let dir = tempfile::tempdir().unwrap();
    let mut ring = Ring::new(dir.path().into(), 1 << 20, header("1"));
    ring.append(line(1)).unwrap();
    ring.append(line(2)).unwrap();
    drop(ring);
    let path = dir.path().join(NEW);
    let whole = path.metadata().unwrap().len();
    let cut = |len| std::fs::File::options().write(true).open(&path).unwrap().set_len(len).unwrap();
    for torn in 1..=line(2).len() as u64 {
        cut(whole - torn);
        let mut ring = Ring::new(dir.path().into(), 1 << 20, header("1"));
        ring.append(line(3)).unwrap();
        // Only the line break was missing: the line is whole.
        let expected: &[&str] =
            if torn == 1 { &["reason 1", "reason 2", "reason 3"] } else { &["reason 1", "reason 3"] };
        assert_eq!(reasons(dir.path()), expected, "{torn}");
        cut(whole - line(2).len() as u64 - 1);
        Ring::new(dir.path().into(), 1 << 20, header("1")).append(line(2)).unwrap();
    }
    // Even the first line may be torn.
    cut(9);
    Ring::new(dir.path().into(), 1 << 20, header("1")).append(line(4)).unwrap();
    assert_eq!(reasons(dir.path()), ["reason 4"]);
}

#[test]
fn another_version_begins_a_file_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    Ring::new(dir.path().into(), 1 << 20, header("1")).append(line(1)).unwrap();
    Ring::new(dir.path().into(), 1 << 20, header("2")).append(line(2)).unwrap();
    let files: Vec<Recording> = recording::read(dir.path()).unwrap();
    let versions: Vec<&str> = files.iter().map(|file| file.header.version.as_str()).collect();
    assert_eq!(versions, ["1", "2"]);
}

#[test]
fn a_turn_is_recorded_once_and_quiet_ones_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let memory = Recollection::default();
    let mut recorder = Recorder::start(dir.path().into(), 1 << 20, header("1"), memory.clone()).unwrap();
    let (empty, configured) = (seen(ClusterView::default()), seen(with_document()));
    for _ in 0..1000 {
        turn(&mut recorder, &empty);
    }
    let mut away = configured.clone();
    away.store.reachable = false;
    turn(&mut recorder, &away);
    drop(recorder);
    let files = recording::read(dir.path()).unwrap();
    let entries: Vec<Entry> = files[0].turns.iter().map(|turn| turn.1.clone()).collect();
    assert_eq!(entries.iter().map(|entry| entry.quiet).collect::<Vec<_>>(), [0, 999]);
    assert_eq!(memory.tell(None, None), entries);
    let text = std::fs::read_to_string(dir.path().join(NEW)).unwrap();
    assert!(!text.contains("hunter2"), "{text}");

    // The next life of the node remembers.
    let memory = Recollection::default();
    drop(Recorder::start(dir.path().into(), 1 << 20, header("1"), memory.clone()).unwrap());
    assert_eq!(memory.tell(None, None), entries);
}

#[test]
fn what_is_recorded_decides_the_same_when_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let memory = Recollection::default();
    let mut recorder = Recorder::start(dir.path().into(), 1 << 20, header("1"), memory).unwrap();
    turn(&mut recorder, &seen(with_document()));
    drop(recorder);
    let line = recording::read(dir.path()).unwrap().remove(0).turns.remove(0).2;
    let turn: serde_json::Value = serde_json::from_str(&line).unwrap();
    let turn: Turn = serde_json::from_value(turn["turn"].clone()).unwrap();
    assert_eq!(turn.again(), turn.decided);
    let view = turn.seen.store.view.unwrap();
    assert_eq!(view.config.as_ref().unwrap().revision, Revision(3));
}

/// A full disk and a lost one cost turns and one warning; what was lost is told by the first that is kept.
#[test]
fn a_disk_that_takes_nothing_is_no_failure() {
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/dev/full", dir.path().join(NEW)).unwrap();
    let mut ring = Ring::new(dir.path().into(), 1 << 20, header("1"));
    assert_eq!(ring.append(line(1)).unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    let mut desk = Desk { ring, lost: Arc::new(AtomicU64::new(2)), complained: false };
    let seen = seen(ClusterView::default());
    let past = Past::default();
    let decided = coordinator::decide(&seen, &past);
    let turn = Turn { seen, past, decided };
    let entry = Entry { at: "t".into(), quiet: 0, lost: 0, because: "b".into(), steps: vec![] };
    desk.keep(entry.clone(), &turn);
    desk.keep(entry.clone(), &turn);
    assert!(desk.complained);
    std::fs::remove_file(dir.path().join(NEW)).unwrap();
    desk.keep(entry.clone(), &turn);
    assert!(!desk.complained);
    desk.keep(entry, &turn);
    let files = recording::read(dir.path()).unwrap();
    assert_eq!(files[0].turns.iter().map(|turn| turn.1.lost).collect::<Vec<_>>(), [4, 0]);
}

/// Nobody takes anything off the queue, as when the disk hangs: turns are dropped and counted, and nothing waits for
/// it but the end of the daemon, a little.
#[test]
fn a_disk_that_hangs_holds_nobody_up() {
    let (queue, hung) = sync_channel(QUEUE);
    let (_end, ended) = sync_channel(1);
    let lost = Arc::new(AtomicU64::new(0));
    let way = Way { queue: Some(queue), ended: Mutex::new(ended), lost: Arc::clone(&lost) };
    let mut recorder = Recorder { way: Some(way), ..Recorder::default() };
    let begun = Moment::now();
    let away = |reachable| {
        let mut seen = seen(with_document());
        seen.store.reachable = reachable;
        seen
    };
    for number in 0..QUEUE * 2 {
        turn(&mut recorder, &away(number % 2 == 0));
    }
    assert_eq!(lost.load(Ordering::Relaxed), QUEUE as u64);
    drop(recorder);
    assert!(Moment::now().since(begun) < FAREWELL * 20);
    drop(hung);
}
