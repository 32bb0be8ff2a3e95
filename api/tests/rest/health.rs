//! P049–P066, P070, P071: the captured matrix and the rules behind it.

use std::time::Duration;

use api::health::{check, liveness, readiness};
use api::status::{NodeStatus, PostgresState, Role};
use dcs::Moment;
use serde_json::json;

use crate::fixture::{behind, primary, replica, standby_leader};

const NOW: Moment = Moment(1_000_000_000_000);

fn ask(question: &str, status: &NodeStatus) -> u16 {
    let (path, query) = question.split_once('?').unwrap_or((question, ""));
    match path {
        "/liveness" => liveness(status, NOW),
        "/readiness" => readiness(query, status, NOW),
        path => check(path, query, status, NOW),
    }
}

/// P049, P050, P051, P052, P053, P056, P057, P058, P059, P060, P061, P062, P063, P064, P065, P066.
#[test]
fn the_captured_matrix_holds() {
    let (one, two) = (primary(NOW), replica(NOW));
    let matrix = "/ 200|503  /primary 200|503  /master 200|503  /leader 200|503  /read-write 200|503
        /replica 503|200  /async 503|200  /asynchronous 503|200  /sync 503|503  /synchronous 503|503
        /quorum 503|503  /read-only 200|200  /read-only-sync 200|503  /read-only-quorum 200|503
        /standby-leader 503|503  /standby_leader 503|503  /health 200|200  /liveness 200|200
        /readiness 200|200  /replica?lag=1MB 503|200  /replica?tag_datacenter=dc1 503|200
        /replica?tag_datacenter=x 503|503  /primary/x 200|503  /nosuch 503|503  /Primary 503|503
        /replica?tag_none=x 503|503  /primary?tag_none=x 200|503  /leader?tag_none=x 200|503
        /read-only?tag_datacenter=dc1 503|200  /health?tag_datacenter=dc1 503|200 /restart 503|503
        /read-only-synchronous 200|503 /sync/x 503|503 /a-replica-b 503|200";
    let mut words = matrix.split_whitespace();
    while let (Some(question), Some(codes)) = (words.next(), words.next()) {
        let (first, second) = codes.split_once('|').unwrap();
        assert_eq!(ask(question, &one).to_string(), first, "{question} on the primary");
        assert_eq!(ask(question, &two).to_string(), second, "{question} on the replica");
    }
}

fn all(status: &NodeStatus, expected: &[(&str, u16)]) {
    for (question, code) in expected {
        assert_eq!(ask(question, status), *code, "{question}");
    }
}

/// P052, P051: a standby cluster's leader is a leader and no primary, and no replica either.
#[test]
fn a_standby_leader_leads_without_being_primary() {
    all(
        &standby_leader(NOW),
        &[
            ("/", 503),
            ("/primary", 503),
            ("/leader", 200),
            ("/standby-leader", 200),
            ("/standby_leader", 200),
            ("/replica", 503),
            ("/read-only", 200),
            ("/read-write", 503),
            ("/async", 503),
        ],
    );
}

/// P058, P059, P060, P061.
#[test]
fn synchronous_and_quorum_standbys_are_told_apart() {
    let sync = NodeStatus { sync_standby: true, ..replica(NOW) };
    all(
        &sync,
        &[
            ("/sync", 200),
            ("/synchronous", 200),
            ("/async", 503),
            ("/read-only-sync", 200),
            ("/read-only-synchronous", 200),
            ("/quorum", 503),
            ("/read-only-quorum", 503),
            ("/replica", 200),
        ],
    );
    let quorum = NodeStatus { quorum_standby: true, ..replica(NOW) };
    all(
        &quorum,
        &[
            ("/quorum", 200),
            ("/read-only-quorum", 200),
            ("/sync", 503),
            ("/async", 503),
            ("/read-only-sync", 503),
        ],
    );
}

/// P054.
#[test]
fn lag_has_units_and_nonsense_means_no_limit() {
    all(
        &behind(NOW, 2 * 1024 * 1024),
        &[
            ("/replica?lag=1MB", 503),
            ("/replica?lag=2MB", 200),
            ("/replica?lag=2048kB", 200),
            ("/replica?lag=2097151", 503),
            ("/replica?lag=0", 503),
            ("/replica?lag=1TB", 200),
            ("/replica?lag=nonsense", 200),
            ("/replica?lag=", 200),
            ("/replica", 200),
            ("/async?lag=1MB", 503),
            ("/read-only?lag=1MB", 503),
            ("/replica?lag=1%4dB", 503),
            ("/replica?lag=3MB&lag=1MB", 200),
        ],
    );
}

/// P055.
#[test]
fn replication_state_can_be_asked_for() {
    all(
        &replica(NOW),
        &[("/replica?replication_state=streaming", 200), ("/replica?replication_state=bogus", 503)],
    );
    let mut archive = replica(NOW);
    archive.server.as_mut().unwrap().replication_state = Some("in archive recovery".to_owned());
    all(&archive, &[("/replica?replication_state=in+archive%20recovery", 200), ("/readiness", 503)]);
}

/// P056: tags that are no text compare as lower-cased text.
#[test]
fn tags_of_any_type_can_be_asked_for() {
    let mut status = replica(NOW);
    status.tags.published.insert("fast".to_owned(), json!(true));
    status.tags.published.insert("weight".to_owned(), json!(1.4));
    status.tags.published.insert("nothing".to_owned(), json!(null));
    all(
        &status,
        &[
            ("/replica?tag_fast=true", 200),
            ("/replica?tag_fast=True", 503),
            ("/replica?tag_weight=1.4", 200),
            ("/replica?tag_nothing=null", 503),
            ("/replica?tag_fast=true&tag_weight=2", 503),
            ("/replica?tag_fast=true&tag_fast=false", 200),
        ],
    );
}

/// P070.
#[test]
fn noloadbalance_hides_a_replica_but_not_its_health() {
    let mut status = replica(NOW);
    status.tags.noloadbalance = true;
    all(
        &status,
        &[("/replica", 503), ("/async", 503), ("/read-only", 503), ("/health", 200), ("/readiness", 200)],
    );
}

/// P071: paused, and the store silent for longer than ttl: the role decides.
#[test]
fn in_pause_without_the_store_the_role_decides() {
    let long_ago = NOW - Duration::from_secs(60);
    let lost = |status: NodeStatus| NodeStatus {
        pause: true,
        lease: None,
        store_seen: Some((long_ago, 1_795_158_050)),
        ..status
    };
    all(&lost(primary(NOW)), &[("/primary", 200), ("/leader", 200), ("/read-only", 200), ("/sync", 503)]);
    all(&lost(replica(NOW)), &[("/primary", 503), ("/leader", 503), ("/replica", 200), ("/async", 503)]);
    all(&lost(standby_leader(NOW)), &[("/leader", 200), ("/standby-leader", 200), ("/primary", 503)]);
    let unpaused = NodeStatus { pause: false, ..lost(primary(NOW)) };
    all(&unpaused, &[("/primary", 503), ("/leader", 503)]);
    // A lease that ran out while the store is silent counts as the store lost; one taken away does not.
    let mut lapsed = NodeStatus { pause: true, ..primary(NOW) };
    lapsed.lease.as_mut().unwrap().until = NOW;
    all(&lapsed, &[("/primary", 200)]);
    let taken = NodeStatus { pause: true, lease: None, ..primary(NOW) };
    all(&taken, &[("/primary", 503)]);
}

/// P050, stricter than Patroni: no node is announced as primary that cannot take writes.
#[test]
fn a_primary_that_cannot_take_writes_is_not_announced() {
    let crashed = NodeStatus { writable: false, server: None, state: PostgresState::Crashed, ..primary(NOW) };
    all(&crashed, &[("/primary", 503), ("/", 503), ("/read-write", 503), ("/leader", 200), ("/health", 503)]);
    let promoting = NodeStatus { writable: false, role: Role::Promoted, ..primary(NOW) };
    all(&promoting, &[("/primary", 503), ("/leader", 200)]);
    let stale = NodeStatus { looked: NOW - Duration::from_millis(1001), ..primary(NOW) };
    all(&stale, &[("/primary", 503), ("/read-only", 503)]);
    let fresh = NodeStatus { looked: NOW - Duration::from_millis(1000), ..primary(NOW) };
    all(&fresh, &[("/primary", 200)]);
}

/// P050, P051: from the lease's deadline on, nobody is called leader or primary.
#[test]
fn the_leases_deadline_ends_it() {
    let mut status = primary(NOW);
    status.lease.as_mut().unwrap().until = NOW + Duration::from_nanos(1);
    all(&status, &[("/primary", 200), ("/leader", 200)]);
    status.lease.as_mut().unwrap().until = NOW;
    all(&status, &[("/primary", 503), ("/leader", 503), ("/read-only", 503), ("/read-only-sync", 503)]);
}

/// P062: running means that SQL answers, and that somebody looked.
#[test]
fn health_needs_an_answer_from_sql() {
    let silent = NodeStatus { server: None, ..replica(NOW) };
    all(&silent, &[("/health", 503), ("/replica", 503), ("/readiness", 503)]);
    let starting = NodeStatus { state: PostgresState::Starting, ..replica(NOW) };
    all(&starting, &[("/health", 503), ("/replica", 503)]);
    let hung = NodeStatus { looked: NOW - Duration::from_secs(61), ..replica(NOW) };
    all(&hung, &[("/health", 503), ("/replica", 503)]);
}

/// P063.
#[test]
fn liveness_fails_when_turns_stop() {
    let since = |status: NodeStatus, seconds: u64| NodeStatus {
        last_turn: NOW - Duration::from_secs(seconds),
        ..status
    };
    all(&since(primary(NOW), 39), &[("/liveness", 200)]);
    all(&since(primary(NOW), 41), &[("/liveness", 503)]);
    all(&since(replica(NOW), 69), &[("/liveness", 200)]);
    all(&since(replica(NOW), 71), &[("/liveness", 503)]);
    all(&NodeStatus { pause: true, ..since(primary(NOW), 500) }, &[("/liveness", 200)]);
}

/// P064.
#[test]
fn readiness_needs_streaming_and_little_lag() {
    all(
        &behind(NOW, 2_000_000),
        &[
            ("/readiness", 503),
            ("/readiness?lag=2MB", 200),
            ("/readiness?mode=write", 200),
            ("/readiness?mode=apply", 503),
            ("/readiness?mode=write&lag=0", 200),
        ],
    );
    let mut blind = NodeStatus { store_seen: None, optime: None, ..replica(NOW) };
    all(&blind, &[("/readiness", 200)]);
    if let Some(server) = &mut blind.server
        && let api::status::Position::Standby { upstream, .. } = &mut server.position
    {
        *upstream = None;
    }
    all(&blind, &[("/readiness", 503)]);
    blind.failsafe_until = Some(NOW + Duration::from_secs(5));
    all(&blind, &[("/readiness", 200)]);
}
