//! Each piece of evidence that custody needs, and what happens without it.

use alloc::string::ToString;
use alloc::vec;

use super::*;

fn name(text: &str) -> NodeName {
    NodeName::new(text).expect("a good name")
}

fn seconds(count: u64) -> Moment {
    Moment(count * 1_000_000_000)
}

/// Everything is in order: the operator asked for this node, the leader is alive.
fn in_order() -> Evidence {
    Evidence {
        now: seconds(100),
        directory: Directory {
            at: seconds(100),
            path: "/srv/pg".into(),
            kind: Kind::Directory,
            precious: false,
            identity_when_decided: Some((1, 2)),
            identity: Some((1, 2)),
            has_version: true,
            system_id: Some(SystemId(7)),
            unknown_names: vec![],
            vault_is_near: true,
        },
        usage: Usage { nobody_seen: Some(seconds(99)), pid_file_alive: false, locked_by_us: true },
        leadership: Some(Leadership {
            me: name("n1"),
            leader: name("n2"),
            at: seconds(98),
            first: Epoch(5),
            second: Some(Epoch(5)),
            cluster: Some(SystemId(7)),
            answer: Some(LeaderAnswer { at: seconds(99), system_id: SystemId(7), takes_writes: true }),
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
    }
}

fn with(change: impl FnOnce(&mut Evidence)) -> Evidence {
    let mut evidence = in_order();
    change(&mut evidence);
    evidence
}

fn lead(change: impl FnOnce(&mut Leadership)) -> Evidence {
    with(|evidence| change(evidence.leadership.as_mut().expect("there")))
}

fn answer(change: impl FnOnce(&mut LeaderAnswer)) -> Evidence {
    lead(|found| change(found.answer.as_mut().expect("there")))
}

#[test]
fn with_every_proof_it_may_go() {
    assert_eq!(judge(&in_order()), Ok(()));
}

/// The matrix: everything in order but this one proof, and it stays.
#[test]
fn without_any_one_proof_it_stays() {
    let automatic = |grounds| with(move |e| e.permission.grounds = grounds);
    let cases = [
        (with(|e| e.directory.kind = Kind::Relative), Refusal::RelativePath),
        (with(|e| e.directory.kind = Kind::Link), Refusal::Link),
        (with(|e| e.directory.kind = Kind::Other), Refusal::NoDirectory),
        (with(|e| e.directory.precious = true), Refusal::Precious),
        (with(|e| e.directory.identity = Some((1, 3))), Refusal::Exchanged),
        (with(|e| e.directory.identity = None), Refusal::Exchanged),
        (with(|e| e.directory.identity_when_decided = None), Refusal::Exchanged),
        (with(|e| e.directory.has_version = false), Refusal::NotPostgres),
        (with(|e| e.directory.system_id = None), Refusal::UnreadableControl),
        (with(|e| e.directory.unknown_names = vec!["photos".into()]), Refusal::UnknownFiles("photos".into())),
        (with(|e| e.directory.vault_is_near = false), Refusal::VaultElsewhere),
        (with(|e| e.directory.at = seconds(60)), Refusal::Stale("the look at the directory")),
        (with(|e| e.usage.nobody_seen = None), Refusal::InUse),
        (
            with(|e| e.usage.nobody_seen = Some(seconds(60))),
            Refusal::Stale("the proof that Postgres has stopped"),
        ),
        (with(|e| e.usage.pid_file_alive = true), Refusal::PidFileAlive),
        (with(|e| e.usage.locked_by_us = false), Refusal::LockedByOthers),
        (with(|e| e.permission.protected = true), Refusal::Protected),
        (with(|e| e.permission.named = Some(name("n3"))), Refusal::NotNamed),
        (with(|e| e.permission.named = None), Refusal::NotNamed),
        (automatic(Grounds::FailedRewind), Refusal::Setting("remove_data_directory_on_rewind_failure")),
        (automatic(Grounds::Diverged), Refusal::Setting("remove_data_directory_on_diverged_timelines")),
        (automatic(Grounds::UnfinishedBootstrap), Refusal::NoMarker),
        (lead(|l| l.leader = name("n1")), Refusal::IamLeader),
        (lead(|l| l.at = seconds(60)), Refusal::Stale("the look at who leads")),
        (lead(|l| l.answer = None), Refusal::LeaderSilent(name("n2"))),
        (lead(|l| l.second = Some(Epoch(6))), Refusal::LeaderChanged),
        (lead(|l| l.second = None), Refusal::LeaderChanged),
        (lead(|l| l.cluster = Some(SystemId(8))), Refusal::OtherCluster(name("n2"))),
        (lead(|l| l.cluster = None), Refusal::OtherCluster(name("n2"))),
        (answer(|a| a.takes_writes = false), Refusal::LeaderReadOnly(name("n2"))),
        (answer(|a| a.system_id = SystemId(8)), Refusal::OtherCluster(name("n2"))),
        (answer(|a| a.at = seconds(60)), Refusal::Stale("the leader's answer")),
        (with(|e| e.directory.system_id = Some(SystemId(8))), Refusal::OtherCluster(name("n2"))),
        // Evidence from the future is a clock gone wrong, not fresh evidence.
        (answer(|a| a.at = seconds(200)), Refusal::Stale("the leader's answer")),
    ];
    for (evidence, refusal) in cases {
        assert_eq!(judge(&evidence), Err(refusal.clone()), "{refusal}");
        assert!(refusal.to_string().starts_with("the data directory stays where it is: "));
        assert!(!refusal.remedy().is_empty());
    }
}

/// Without a leader nothing but the marked remains of our own bootstrap may go.
#[test]
fn without_a_leader_only_a_bootstrap_of_our_own_goes() {
    let mut evidence = in_order();
    evidence.leadership = None;
    assert_eq!(judge(&evidence), Err(Refusal::NotNamed));
    evidence.permission.grounds = Grounds::Diverged;
    evidence.permission.when_diverged = true;
    assert_eq!(judge(&evidence), Err(Refusal::LeaderUnknown));
    evidence.permission.grounds = Grounds::UnfinishedBootstrap;
    assert_eq!(judge(&evidence), Err(Refusal::NoMarker));
    evidence.permission.our_marker = true;
    evidence.directory.has_version = false;
    evidence.directory.system_id = None;
    assert_eq!(judge(&evidence), Ok(()));
    evidence.directory.unknown_names = vec!["photos".into()];
    assert_eq!(judge(&evidence), Err(Refusal::UnknownFiles("photos".into())));
}

/// Pause stops automation; a person who names the node is still obeyed.
#[test]
fn pause_stops_automatic_grounds_only() {
    let mut evidence = in_order();
    evidence.permission.paused = true;
    assert_eq!(judge(&evidence), Ok(()));
    evidence.permission.grounds = Grounds::FailedRewind;
    evidence.permission.after_failed_rewind = true;
    assert_eq!(judge(&evidence), Err(Refusal::Paused));
    evidence.permission.paused = false;
    assert_eq!(judge(&evidence), Ok(()));
}
