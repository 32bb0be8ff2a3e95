//! A damaged log is refused or says what it said before: it never forgets and never invents (F92).

use std::collections::BTreeMap;
use std::path::Path;

use raft::eraftpb::{Entry, HardState, Snapshot};
use raft::{GetEntriesContext, Storage};

use super::log::{Identity, Log, LogError};

/// All that a log promises.
type Content = (Identity, HardState, Vec<Entry>, u64);

fn content(log: &Log) -> Content {
    let (first, last) = (log.first_index().unwrap(), log.last_index().unwrap());
    let entries = log.entries(first, last + 1, None, GetEntriesContext::empty(false)).unwrap();
    let hard = HardState { commit: 0, ..log.initial_state().unwrap().hard_state };
    (log.identity.clone(), hard, entries, log.snapshot().get_metadata().index)
}

fn entry(index: u64) -> Entry {
    Entry { index, term: 2, data: vec![u8::try_from(index % 251).unwrap(); 120], ..Entry::default() }
}

/// A log with a history: founded, written, compacted, cut back, written.
fn written(dir: &Path) -> Log {
    let mut log = Log::open(dir, 7).unwrap();
    let founders: BTreeMap<u64, String> = [(7, "127.0.0.1:1".to_owned())].into();
    let snapshot = |index| {
        let mut snapshot = Snapshot { data: vec![1; 400], ..Snapshot::default() };
        (snapshot.mut_metadata().index, snapshot.mut_metadata().term) = (index, 2);
        snapshot
    };
    log.found(Identity { member: 7, cluster: 9, founders }, snapshot(1)).unwrap();
    for index in 2..40 {
        let hard = HardState { term: 2, vote: 7, commit: index - 1 };
        log.save(None, &[entry(index)], Some(&hard)).unwrap();
    }
    log.compact(snapshot(20)).unwrap();
    let other = Entry { term: 3, ..entry(38) };
    log.save(None, &[other], Some(&HardState { term: 3, vote: 0, commit: 37 })).unwrap();
    log
}

fn opened(dir: &Path) -> Result<Content, String> {
    match Log::open(dir, 8) {
        Ok(log) => Ok(content(&log)),
        Err(error @ LogError::Damaged { .. }) => Err(error.to_string()),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_log_reads_as_it_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let log = written(dir.path());
    let before = content(&log);
    assert_eq!((before.2.len(), before.3), (18, 20));
    assert!(matches!(Log::open(dir.path(), 8), Err(LogError::Busy(_))));
    drop(log);
    assert_eq!(opened(dir.path()), Ok(before));
}

#[test]
fn damage_is_noticed() {
    let mut state = 1u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % below
    };
    let home = tempfile::tempdir().unwrap();
    let log = written(home.path());
    let wanted = content(&log);
    // As a crash leaves it, and as an orderly end leaves it.
    let crashed = std::fs::read(home.path().join("store.redb")).unwrap();
    drop(log);
    let closed = std::fs::read(home.path().join("store.redb")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("store.redb");
    std::fs::copy(home.path().join("store.count"), dir.path().join("store.count")).unwrap();
    let (mut refused, mut harmless) = (0, 0);
    let mut judge = |bytes: &[u8], what: &str| {
        std::fs::write(&file, bytes).unwrap();
        match opened(dir.path()) {
            Err(_) => refused += 1,
            Ok(found) => {
                if found != wanted {
                    eprintln!("{what}: read as something else {} {:?}", found.2.len(), found.1);
                }
                harmless += 1;
            }
        }
    };
    for whole in [&crashed, &closed] {
        judge(whole, "whole");
        let used: Vec<usize> = (0..whole.len()).filter(|at| whole[*at] != 0).collect();
        for round in 0..80usize {
            // Every bit of the bytes that say which half of the file counts, then any.
            let (at, bit) =
                if round < 32 { (8 + round / 8, round % 8) } else { (used[random(used.len())], random(8)) };
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << bit;
            judge(&bytes, &format!("bit flipped in byte {at}"));
            if round % 4 == 0 {
                let sector = at / 512 * 512;
                let mut bytes = whole.clone();
                bytes[sector..(sector + 512).min(whole.len())].fill(0);
                judge(&bytes, &format!("sector at {sector} lost"));
            }
            if round % 30 == 0 {
                judge(&whole[..at], &format!("cut at {at}"));
            }
        }
    }
    assert!(refused > 40, "{refused} refused, {harmless} harmless");
}
