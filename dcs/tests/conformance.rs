//! What every store promises, run against a store in memory and real etcd.
//! A new store adds one test at the end of this file and nothing else.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

mod ground;

use std::collections::BTreeMap;
use std::time::Duration;

use dcs::{
    Acquire, Adopt, Claim, Epoch, Failover, Fault, Flaw, HistoryRow, Initialize, Lsn, Member, Memory, Moment,
    On, Place, RenewError, Revision, Status, StoreError, SyncState, SystemId, Timeline, WatchFault,
};
use ground::{Follower, Ground, Kind, name, until, view, won};
use serde_json::json;
use tokio::task::JoinSet;

const TTL: Duration = Duration::from_secs(10);

fn member(state: &str) -> Member {
    Member {
        conn_url: Some("postgres://127.0.0.1:5432/postgres".to_owned()),
        api_url: Some("http://127.0.0.1:8008/patroni".to_owned()),
        state: state.to_owned(),
        role: "replica".to_owned(),
        version: Some("4.1.5".to_owned()),
        ..Member::default()
    }
}

/// P004: of many who reach for the lead at once, exactly one gets it, and all agree who.
async fn one_of_many_wins(ground: Ground) {
    let mut racers = JoinSet::new();
    for racer in 0..8 {
        let dcs = ground.node().await;
        racers.spawn(async move {
            let me = name(&format!("n{racer}"));
            let session = dcs.open_session(TTL).await.unwrap();
            let claim = Claim { after: dcs.load().await.unwrap().claimed, ..Claim::default() };
            match dcs.acquire(&me, &session, claim).await.unwrap() {
                Acquire::Won(..) => (true, me),
                Acquire::HeldBy(holder) => (false, holder),
                Acquire::Late => panic!("nobody has led before"),
            }
        });
    }
    let results = racers.join_all().await;
    let winners: Vec<_> = results.iter().filter(|(won, _)| *won).collect();
    assert_eq!(winners.len(), 1, "{results:?}");
    let winner = winners[0].1.clone();
    assert!(results.iter().all(|(_, holder)| *holder == winner), "{results:?}");
    assert_eq!(ground.node().await.load().await.unwrap().leader.unwrap().name, winner);
}

/// F05: who has not seen the last claim could make a timeline of the same number, and must look again.
async fn a_late_view_takes_no_lead(ground: Ground) {
    let (dcs, me) = (ground.node().await, name("n1"));
    let session = dcs.open_session(TTL).await.unwrap();
    let seen = dcs.load().await.unwrap().claimed;
    let claim = |after, timeline| Claim { after, timeline: Timeline(timeline) };
    let Acquire::Won(first, _) = dcs.acquire(&me, &session, claim(seen, 2)).await.unwrap() else {
        panic!("nobody has led before")
    };
    assert!(dcs.release(first).await.unwrap());
    let (other, you) = (ground.node().await, name("n2"));
    let others = other.open_session(TTL).await.unwrap();
    assert!(matches!(other.acquire(&you, &others, claim(seen, 2)).await.unwrap(), Acquire::Late));
    let view = other.load().await.unwrap();
    assert_eq!((view.leader, view.claim), (None, Timeline(2)));
    let again = other.acquire(&you, &others, claim(view.claimed, 3)).await.unwrap();
    let Acquire::Won(second, _) = again else { panic!("nobody has led since") };
    assert_eq!(other.load().await.unwrap().claim, Timeline(3));
    // Another one in the same reign, which stays the same reign.
    let (epoch, after) = (second.epoch(), other.load().await.unwrap().claimed);
    assert!(!other.claim(&second, claim(view.claimed, 4)).await.unwrap());
    assert!(other.claim(&second, claim(after, 4)).await.unwrap());
    let view = other.load().await.unwrap();
    assert_eq!((view.claim, view.reign, view.epoch()), (Timeline(4), Some(epoch), epoch));
    // Not for who does not lead any more.
    ground.delete(&Place::Leader).await;
    assert!(!other.claim(&second, claim(view.claimed, 5)).await.unwrap());
    assert_eq!(other.load().await.unwrap().claim, Timeline(4));
}

/// P003, P005: the key is the bare name under our lease; renewing it writes nothing.
async fn renewing_writes_nothing(ground: Ground) {
    let (dcs, me) = (ground.node().await, name("n1"));
    let session = dcs.open_session(TTL).await.unwrap();
    let leadership = won(&dcs, &me, &session).await;
    let before = dcs.load().await.unwrap();
    let leader = before.leader.clone().unwrap();
    assert_eq!(
        (leader.lease, leader.epoch, leader.revision),
        (session.lease(), leadership.epoch(), leadership.revision())
    );
    for _ in 0..3 {
        let asked = Moment::now();
        let sent = dcs.renew(&session, &leadership).await.unwrap();
        assert!(asked <= sent && sent <= Moment::now());
        assert_eq!(session.renewed(), sent);
    }
    assert_eq!(dcs.load().await.unwrap().leader, before.leader);
}

/// F77, P009: a revoked lease takes leader and member with it; the holder learns it at the next renewal.
async fn a_revoked_lease_ends_the_reign(ground: Ground) {
    let (dcs, me) = (ground.node().await, name("n1"));
    let session = dcs.open_session(TTL).await.unwrap();
    dcs.write_member(&me, &member("running"), &session).await.unwrap();
    let leadership = won(&dcs, &me, &session).await;
    ground.revoke(&session).await;
    assert!(matches!(dcs.renew(&session, &leadership).await, Err(RenewError::LeaseGone)));
    assert!(matches!(dcs.prove(&leadership).await, Err(RenewError::Lost { holder: None })));
    let view = dcs.load().await.unwrap();
    assert!(view.leader.is_none() && view.members.is_empty());
    let refused = dcs.write_member(&me, &member("running"), &session).await;
    assert_eq!(refused, Err(StoreError::LeaseGone));
    let claim = Claim { after: view.claimed, ..Claim::default() };
    assert_eq!(dcs.acquire(&me, &session, claim).await.unwrap_err(), StoreError::LeaseGone);
}

/// F78: the key is deleted while the lease lives. The keepalive succeeds; the proof must not.
async fn a_deleted_key_ends_the_reign(ground: Ground) {
    let (dcs, me) = (ground.node().await, name("n1"));
    let session = dcs.open_session(TTL).await.unwrap();
    let leadership = won(&dcs, &me, &session).await;
    dcs.prove(&leadership).await.unwrap();
    ground.delete(&Place::Leader).await;
    dcs.renew_session(&session).await.unwrap();
    assert!(matches!(dcs.prove(&leadership).await, Err(RenewError::Lost { holder: None })));
    assert!(matches!(dcs.renew(&session, &leadership).await, Err(RenewError::Lost { .. })));
    // Written anew, even by ourselves under the same lease, it is another reign.
    let again = won(&dcs, &me, &session).await;
    assert!(again.epoch() > leadership.epoch());
    let lost = dcs.prove(&leadership).await;
    assert!(matches!(lost, Err(RenewError::Lost { holder: Some(holder) }) if holder == me));
    dcs.prove(&again).await.unwrap();
}

/// F79: the key is overwritten. Nobody but its lease can be trusted, not even our own name in it.
async fn an_overwritten_key_ends_the_reign(ground: Ground) {
    let (dcs, me) = (ground.node().await, name("n1"));
    let session = dcs.open_session(TTL).await.unwrap();
    let leadership = won(&dcs, &me, &session).await;
    for garbage in ["n2", "n1", "", "a/b\u{7}"] {
        ground.put(&Place::Leader, garbage).await;
        let lost = dcs.prove(&leadership).await;
        assert!(matches!(lost, Err(RenewError::Lost { holder: Some(_) })), "{garbage:?}: {lost:?}");
        assert!(
            matches!(dcs.acquire(&me, &session, Claim::default()).await.unwrap(), Acquire::HeldBy(_)),
            "{garbage:?}"
        );
        let leader = dcs.load().await.unwrap().leader.unwrap();
        assert_eq!((leader.epoch, leader.lease), (leadership.epoch(), 0));
    }
}

/// P007: the lead is released only while it is ours.
async fn release_is_guarded(ground: Ground) {
    let (dcs, me) = (ground.node().await, name("n1"));
    let session = dcs.open_session(TTL).await.unwrap();
    let leadership = won(&dcs, &me, &session).await;
    ground.put(&Place::Leader, "n2").await;
    assert!(!dcs.release(leadership).await.unwrap());
    assert_eq!(dcs.load().await.unwrap().leader.unwrap().name, name("n2"));

    ground.delete(&Place::Leader).await;
    let leadership = won(&dcs, &me, &session).await;
    ground.put(&Place::Leader, "n2").await;
    let status = Status { optime: Some(Lsn(77)), ..Status::default() };
    assert!(!dcs.write_status_and_release(&status, leadership).await.unwrap());
    let seen = dcs.load().await.unwrap();
    assert_eq!((seen.leader.unwrap().name, seen.status.optime), (name("n2"), None));

    // A later reign of our own is not given up for an earlier one.
    ground.delete(&Place::Leader).await;
    let first = won(&dcs, &me, &session).await;
    ground.delete(&Place::Leader).await;
    let second = won(&dcs, &me, &session).await;
    assert!(!dcs.release(first).await.unwrap());
    dcs.prove(&second).await.unwrap();
    assert!(dcs.write_status_and_release(&status, second).await.unwrap());
    let seen = dcs.load().await.unwrap();
    assert_eq!((seen.leader, seen.status.optime), (None, Some(Lsn(77))));
}

/// P009: without renewal, leader and member vanish together, no earlier than the ttl.
async fn expiry_removes_leader_and_member_together(ground: Ground) {
    let (dcs, me) = (ground.node().await, name("n1"));
    let mut follower = Follower::new(&dcs);
    let session = dcs.open_session(Duration::from_secs(2)).await.unwrap();
    dcs.write_member(&me, &member("running"), &session).await.unwrap();
    let leadership = won(&dcs, &me, &session).await;
    follower.sees("the leader", |seen| view(seen, |view| view.leader_member().is_some())).await;
    let sent = dcs.renew(&session, &leadership).await.unwrap();
    let gone = follower.sees("the end", |seen| view(seen, |view| view.leader.is_none())).await;
    let after = Moment::now().since(sent);
    assert!(after >= Duration::from_secs(2), "the lease ended after {after:?}");
    assert!(after < Duration::from_secs(6), "the lease ended after {after:?} only");
    assert!(gone.view.unwrap().members.is_empty());
}

/// P006, P045: a new session of the same node takes its key over with epoch and value unchanged.
async fn the_key_moves_to_a_new_session(ground: Ground) {
    let (dcs, me) = (ground.node().await, name("n1"));
    let old = dcs.open_session(TTL).await.unwrap();
    let first = won(&dcs, &me, &old).await;
    // The daemon starts again: another connection, another lease, with another ttl.
    let dcs = ground.node().await;
    let new = dcs.open_session(Duration::from_secs(14)).await.unwrap();
    assert_eq!(new.ttl(), Duration::from_secs(14));
    assert!(!first.is_under(&new));
    assert!(
        matches!(dcs.acquire(&me, &new, Claim::default()).await.unwrap(), Acquire::HeldBy(holder) if holder == me)
    );
    let Adopt::Won(second, _) = dcs.adopt(&me, &new).await.unwrap() else { panic!("not adopted") };
    assert_eq!(second.epoch(), first.epoch());
    assert!(second.is_under(&new));
    assert!(matches!(dcs.prove(&first).await, Err(RenewError::Lost { .. })));
    dcs.close_session(old).await.unwrap();
    dcs.prove(&second).await.unwrap();
    // Adopting what is ours already changes nothing.
    let Adopt::Won(third, _) = dcs.adopt(&me, &new).await.unwrap() else { panic!("not adopted") };
    assert_eq!(third.revision(), second.revision());

    let other = dcs.adopt(&name("n2"), &new).await.unwrap();
    assert!(matches!(other, Adopt::HeldBy(holder) if holder == me));
    dcs.release(third).await.unwrap();
    assert!(matches!(dcs.adopt(&me, &new).await.unwrap(), Adopt::Vacant));
}

/// F02: the answer to the winning transaction is lost. The winner must find out that it won.
async fn a_lost_answer_is_resolved(ground: Ground) {
    let ((dcs, faults), me) = (ground.faulty().await, name("n1"));
    let session = dcs.open_session(TTL).await.unwrap();
    faults.plant(On::Write, Fault::LoseReply);
    let leadership = won(&dcs, &me, &session).await;
    assert_eq!(faults.waiting(), 0);
    dcs.prove(&leadership).await.unwrap();

    // Lost on the way there: it is sent again.
    faults.plant(On::Write, Fault::LoseReply);
    assert!(dcs.release(leadership).await.unwrap());
    faults.plant(On::Write, Fault::LoseRequest);
    let leadership = won(&dcs, &me, &session).await;

    // The same for somebody who did not win: it must not take the other's key for its own.
    let (other, other_faults) = ground.faulty().await;
    let other_session = other.open_session(TTL).await.unwrap();
    other_faults.plant(On::Write, Fault::LoseReply);
    let held = other.acquire(&name("n2"), &other_session, Claim::default()).await.unwrap();
    assert!(matches!(held, Acquire::HeldBy(holder) if holder == me));
    assert_eq!(other_faults.waiting(), 0);
    dcs.prove(&leadership).await.unwrap();

    // F24: the right to bootstrap does not get lost with the answer, and is nobody else's.
    faults.plant(On::Write, Fault::LoseReply);
    assert!(dcs.claim_initialize(&me).await.unwrap());
    assert!(!other.claim_initialize(&name("n2")).await.unwrap());
    assert_eq!(faults.waiting(), 0);
}

/// A renewal that fails is told apart: the store is silent, or the lead is lost.
async fn failures_of_a_renewal_are_told_apart(ground: Ground) {
    let ((dcs, faults), me) = (ground.faulty().await, name("n1"));
    let session = dcs.open_session(TTL).await.unwrap();
    let leadership = won(&dcs, &me, &session).await;
    let renewed = session.renewed();
    for (on, fault) in
        [(On::Keep, Fault::Unreachable), (On::Prove, Fault::LoseReply), (On::Prove, Fault::Full)]
    {
        faults.plant(on, fault);
        let failed = dcs.renew(&session, &leadership).await;
        assert!(matches!(failed, Err(RenewError::Store(_))), "{on:?} {fault:?}: {failed:?}");
        if on == On::Keep {
            assert_eq!(session.renewed(), renewed, "a keepalive that failed renews nothing");
        }
    }
    // F85: the store is full, but the lease still renews.
    faults.plant(On::Write, Fault::Full);
    assert_eq!(dcs.write_status(&Status::default()).await, Err(StoreError::NoSpace));
    dcs.renew(&session, &leadership).await.unwrap();
    assert_eq!(faults.waiting(), 0);
}

/// P019–P021: one claims the bootstrap, the identifier is never replaced, damage is repaired.
async fn a_cluster_is_initialised_once(ground: Ground) {
    let dcs = ground.node().await;
    let (a, b) = (name("a"), name("b"));
    let (first, second) = (SystemId(7_710_145_069_470_500_063), SystemId(7_710_145_069_470_500_064));
    assert_eq!(dcs.load().await.unwrap().initialize, Initialize::Absent);
    assert!(dcs.claim_initialize(&a).await.unwrap());
    assert!(!dcs.claim_initialize(&b).await.unwrap());
    assert!(dcs.claim_initialize(&a).await.unwrap(), "the claimant goes on after a restart");
    assert_eq!(dcs.load().await.unwrap().initialize, Initialize::Running);
    assert!(!dcs.delete_initialize(&b).await.unwrap());
    assert!(dcs.delete_initialize(&a).await.unwrap());
    assert!(dcs.claim_initialize(&b).await.unwrap());
    assert!(dcs.write_initialize(first).await.unwrap());
    assert!(dcs.write_initialize(first).await.unwrap());
    assert!(!dcs.write_initialize(second).await.unwrap());
    assert!(!dcs.delete_initialize(&b).await.unwrap());
    assert!(!dcs.claim_initialize(&b).await.unwrap());
    assert_eq!(dcs.load().await.unwrap().initialize, Initialize::Done(first));
    ground.put(&Place::Initialize, "x").await;
    assert_eq!(dcs.load().await.unwrap().initialize, Initialize::Invalid);
    assert!(dcs.write_initialize(first).await.unwrap());
    assert_eq!(dcs.load().await.unwrap().initialize, Initialize::Done(first));
    // An empty key that Patroni wrote is nobody's of ours.
    ground.put(&Place::Initialize, "").await;
    assert!(!dcs.claim_initialize(&a).await.unwrap());
    assert!(!dcs.delete_initialize(&a).await.unwrap());
}

/// P022, P024, P032, P033: guarded writes happen only if nobody was faster.
async fn guards_hold(ground: Ground) {
    let dcs = ground.node().await;
    assert!(dcs.write_config(&json!({"ttl": 30}), None).await.unwrap());
    assert!(!dcs.write_config(&json!({"ttl": 31}), None).await.unwrap());
    let read = dcs.load().await.unwrap().config.unwrap();
    assert_eq!(read.value, json!({"ttl": 30}));
    dcs.put_config(&json!({"ttl": 40})).await.unwrap();
    assert!(!dcs.write_config(&json!({"ttl": 50}), Some(read.revision)).await.unwrap());
    let read = dcs.load().await.unwrap().config.unwrap();
    assert!(dcs.write_config(&json!({"ttl": 50}), Some(read.revision)).await.unwrap());
    ground.put(&Place::Config, "[]").await;
    let broken = dcs.load().await.unwrap().config.unwrap();
    assert!(!broken.value.is_object());
    assert!(dcs.write_config(&json!({"ttl": 50}), Some(broken.revision)).await.unwrap());

    let sync = SyncState { leader: Some("n1".into()), quorum: 0, standbys: ["n2".into()].into() };
    let first = dcs.write_sync(&sync, None).await.unwrap().unwrap();
    assert_eq!(dcs.write_sync(&sync, None).await.unwrap(), None);
    let second = dcs
        .write_sync(&SyncState { leader: Some("n2".into()), ..sync.clone() }, Some(first))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(dcs.write_sync(&sync, Some(first)).await.unwrap(), None);
    assert!(!dcs.delete_sync(first).await.unwrap());
    assert_eq!(dcs.load().await.unwrap().sync.unwrap().revision, second);
    assert!(dcs.delete_sync(second).await.unwrap());
    assert_eq!(dcs.load().await.unwrap().sync, None);

    let asked = Failover { leader: Some("n1".into()), candidate: Some("n2".into()), scheduled_at: None };
    assert!(dcs.write_failover(&asked, None).await.unwrap());
    let read = dcs.load().await.unwrap().failover.unwrap();
    assert_eq!(read.value, asked);
    assert!(dcs.write_failover(&asked, None).await.unwrap());
    assert!(!dcs.clear_failover(Some(read.revision)).await.unwrap());
    let read = dcs.load().await.unwrap().failover.unwrap();
    assert!(dcs.clear_failover(Some(read.revision)).await.unwrap());
    assert_eq!(dcs.load().await.unwrap().failover, None);
}

/// P025–P027, P034, P035, P048: what is written is read; what is not ours is left alone.
async fn records_round_trip(ground: Ground) {
    let (dcs, me) = (ground.node().await, name("n1"));
    let session = dcs.open_session(TTL).await.unwrap();
    ground.put_path(&format!("{}foo", ground.keys.prefix()), "bar").await;
    ground.put_path(&format!("{}2/leader", ground.keys.base()), "stranger").await;
    dcs.write_optime_leader(Lsn(5)).await.unwrap();
    assert_eq!(dcs.load().await.unwrap().status.optime, Some(Lsn(5)));
    ground.put(&Place::Status, "123").await;
    assert_eq!(dcs.load().await.unwrap().status.optime, Some(Lsn(123)));
    ground.put(&Place::Failover, "node1:node2").await;
    assert_eq!(dcs.load().await.unwrap().failover.unwrap().value.candidate.as_deref(), Some("node2"));

    let published =
        Member { xlog_location: Some(Lsn(9)), timeline: Some(Timeline(3)), pause: true, ..member("running") };
    dcs.write_member(&me, &published, &session).await.unwrap();
    let slots: BTreeMap<_, _> = [("n1".to_owned(), Lsn(9))].into();
    let status = Status { optime: Some(Lsn(9)), slots, retain_slots: ["n1".to_owned()].into() };
    dcs.write_status(&status).await.unwrap();
    let row = HistoryRow {
        timeline: Timeline(1),
        lsn: Lsn(8),
        reason: "no recovery target specified".to_owned(),
        timestamp: Some("2026-11-20T07:04:18.485455+00:00".to_owned()),
        leader: Some("n1".to_owned()),
    };
    dcs.write_history(std::slice::from_ref(&row)).await.unwrap();
    let failsafe: BTreeMap<_, _> = [(me.clone(), "http://a".to_owned())].into();
    assert!(!dcs.write_failsafe(&failsafe, Epoch(1), Revision(0)).await.unwrap(), "nobody leads");
    let leadership = won(&dcs, &me, &session).await;
    let reign = leadership.epoch();
    assert!(!dcs.write_failsafe(&failsafe, Epoch(reign.0 - 1), Revision(0)).await.unwrap(), "another reign");
    assert!(dcs.write_failsafe(&failsafe, reign, Revision(0)).await.unwrap());
    let at = dcs.load().await.unwrap().failsafe_at;
    assert!(!dcs.write_failsafe(&BTreeMap::new(), reign, Revision(0)).await.unwrap(), "written meanwhile");
    assert!(dcs.write_failsafe(&failsafe, reign, at).await.unwrap());
    assert!(dcs.release(leadership).await.unwrap());
    let seen = dcs.load().await.unwrap();
    assert_eq!(seen.members.get(&me), Some(&Member { lease: session.lease(), ..published }));
    assert_eq!((seen.status, seen.history, seen.failsafe), (status, Some(vec![row]), Some(failsafe)));
    assert_eq!(seen.leader, None);

    dcs.remove_cluster().await.unwrap();
    let seen = dcs.load().await.unwrap();
    assert!(seen.members.is_empty() && seen.history.is_none() && seen.failsafe.is_none());
}

/// P036–P038: every change below the prefix arrives, in order, and nothing else wakes anybody.
async fn changes_arrive(ground: Ground) {
    let (dcs, me) = (ground.node().await, name("n1"));
    let mut follower = Follower::new(&dcs);
    follower.sees("an empty cluster", |seen| seen.reachable && seen.view.is_some()).await;
    let session = dcs.open_session(TTL).await.unwrap();
    let leadership = won(&dcs, &me, &session).await;
    let seen = follower.sees("the leader", |seen| view(seen, |view| view.leader.is_some())).await;
    let leader = seen.view.unwrap().leader.clone().unwrap();
    assert_eq!((leader.name, leader.epoch), (me.clone(), leadership.epoch()));
    dcs.put_config(&json!({"ttl": 20})).await.unwrap();
    dcs.write_status(&Status { optime: Some(Lsn(1)), ..Status::default() }).await.unwrap();
    follower
        .sees("config and status", |seen| {
            view(seen, |view| view.config.is_some() && view.status.optime.is_some())
        })
        .await;

    follower.seen.mark_unchanged();
    let before = follower.seen.borrow().reached;
    let asked = Moment::now();
    dcs.renew(&session, &leadership).await.unwrap();
    assert!(!follower.seen.has_changed().unwrap(), "a renewal woke the followers");
    let reached = follower.seen.borrow().reached;
    assert!(reached > before && reached >= asked, "a renewal shows that the store is there");
    dcs.release(leadership).await.unwrap();
    follower.sees("the vacancy", |seen| view(seen, |view| view.leader.is_none())).await;
}

/// F75, F76: cut, gapped and repeated watches lose nothing.
async fn disturbed_watches_lose_nothing(ground: Ground) {
    let (dcs, faults) = ground.faulty().await;
    let mut follower = Follower::new(&dcs);
    follower.sees("an empty cluster", |seen| seen.view.is_some()).await;
    for (round, fault) in
        [WatchFault::Cut, WatchFault::Gap, WatchFault::Repeat].into_iter().cycle().take(9).enumerate()
    {
        faults.plant_watch(fault);
        let lsn = Lsn(u64::try_from(round).unwrap() + 1);
        dcs.write_status(&Status { optime: Some(lsn), ..Status::default() }).await.unwrap();
        follower
            .sees(&format!("status {lsn} in spite of {fault:?}"), |seen| {
                view(seen, |view| view.status.optime == Some(lsn))
            })
            .await;
        until("the fault is used", || faults.waiting() == 0).await;
    }
    assert!(follower.seen.borrow().reachable);
}

/// The store is lost and comes back: followers are told both.
async fn loss_and_return_are_told(ground: Ground) {
    let (dcs, faults) = ground.faulty().await;
    faults.plant(On::Load, Fault::Unreachable);
    faults.plant(On::Load, Fault::Unreachable);
    let mut follower = Follower::new(&dcs);
    let seen = follower.sees("the cluster at last", |seen| seen.view.is_some()).await;
    assert!(seen.reachable && faults.waiting() == 0);
}

/// A view never goes back, whatever is written meanwhile.
async fn views_go_forward(ground: Ground) {
    let dcs = ground.node().await;
    let mut follower = Follower::new(&dcs);
    let mut writers = JoinSet::new();
    let writer = dcs.clone();
    writers.spawn(async move {
        for round in 1..=60 {
            writer.write_status(&Status { optime: Some(Lsn(round)), ..Status::default() }).await.unwrap();
        }
    });
    let (mut revision, mut optime) = (Revision(0), Lsn(0));
    while optime < Lsn(60) {
        let seen = follower
            .sees("more", |seen| view(seen, |view| view.status.optime.unwrap_or_default() > optime))
            .await;
        let seen = seen.view.unwrap();
        assert!(seen.revision > revision, "{:?} after {revision:?}", seen.revision);
        (revision, optime) = (seen.revision, seen.status.optime.unwrap());
    }
    writers.join_all().await;
    assert_eq!(dcs.load().await.unwrap().status.optime, Some(Lsn(60)));
}

/// Epochs only grow, whoever leads.
async fn epochs_grow(ground: Ground) {
    let dcs = ground.node().await;
    let session = dcs.open_session(TTL).await.unwrap();
    let mut last = Epoch(0);
    for me in ["n1", "n2", "n1"] {
        let leadership = won(&dcs, &name(me), &session).await;
        assert!(leadership.epoch() > last);
        last = leadership.epoch();
        assert!(dcs.release(leadership).await.unwrap());
    }
}

/// What every verb returns can be spawned, from any thread.
#[test]
fn verbs_can_be_spawned() {
    // Small, too: they are moved about, and some threads have small stacks.
    fn is_send<F: Send>(future: &F) {
        let size = std::mem::size_of_val(future);
        assert!(size < 4 * 1024, "{} takes {size} bytes", std::any::type_name::<F>());
    }
    let dcs = dcs::Dcs::in_memory(Memory::new(), dcs::Keys::new("service", "batman"), TTL);
    let (me, asked) = (name("n1"), Failover { leader: None, candidate: None, scheduled_at: None });
    is_send(&dcs.load());
    is_send(&dcs.follow());
    is_send(&dcs.open_session(TTL));
    is_send(&dcs.claim_initialize(&me));
    is_send(&dcs.write_initialize(SystemId(1)));
    is_send(&dcs.delete_initialize(&me));
    is_send(&dcs.write_failover(&asked, None));
    is_send(&dcs.remove_cluster());
    is_send(&async {
        let session = dcs.open_session(TTL).await.unwrap();
        let leadership = won(&dcs, &me, &session).await;
        dcs.adopt(&me, &session).await.unwrap();
        dcs.renew(&session, &leadership).await.unwrap();
        dcs.release(leadership).await.unwrap();
    });
}

/// Runs every promise at once, each in a scope of its own.
async fn keeps_its_promises(store: Kind) {
    let ground = || Ground::new(store.clone());
    let mut promises = JoinSet::new();
    promises.spawn(one_of_many_wins(ground()));
    promises.spawn(a_late_view_takes_no_lead(ground()));
    promises.spawn(renewing_writes_nothing(ground()));
    promises.spawn(a_revoked_lease_ends_the_reign(ground()));
    promises.spawn(a_deleted_key_ends_the_reign(ground()));
    promises.spawn(an_overwritten_key_ends_the_reign(ground()));
    promises.spawn(release_is_guarded(ground()));
    promises.spawn(expiry_removes_leader_and_member_together(ground()));
    promises.spawn(the_key_moves_to_a_new_session(ground()));
    promises.spawn(a_lost_answer_is_resolved(ground()));
    promises.spawn(failures_of_a_renewal_are_told_apart(ground()));
    promises.spawn(a_cluster_is_initialised_once(ground()));
    promises.spawn(guards_hold(ground()));
    promises.spawn(records_round_trip(ground()));
    promises.spawn(changes_arrive(ground()));
    promises.spawn(disturbed_watches_lose_nothing(ground()));
    promises.spawn(loss_and_return_are_told(ground()));
    promises.spawn(views_go_forward(ground()));
    promises.spawn(epochs_grow(ground()));
    // A promise that panics fails the test with its own message.
    promises.join_all().await;
}

#[tokio::test]
async fn memory_keeps_its_promises() {
    keeps_its_promises(Kind::Memory(Memory::new())).await;
}

#[tokio::test]
async fn etcd_keeps_its_promises() {
    let (_server, config) = ground::servers::one();
    keeps_its_promises(Kind::Etcd(config)).await;
}

#[tokio::test]
async fn three_members_keep_the_promises() {
    let members = ground::members::Members::started(3);
    keeps_its_promises(Kind::Raft(members.all())).await;
}

#[tokio::test]
async fn one_member_keeps_the_promises_for_clients_too() {
    let members = ground::members::Members::started(1);
    keeps_its_promises(Kind::Raft(members.all())).await;
    keeps_its_promises(Kind::RaftClient(members.client(), members.get(0).clone())).await;
}

/// Every promise can be seen broken: each flaw makes its promise fail.
#[tokio::test]
async fn broken_promises_are_noticed() {
    let ground = |flaw| Ground::new(Kind::Memory(Memory::with_flaw(flaw)));
    let mut broken = JoinSet::new();
    broken.spawn(one_of_many_wins(ground(Flaw::IgnoresAbsence)));
    broken.spawn(a_cluster_is_initialised_once(ground(Flaw::IgnoresAbsence)));
    broken.spawn(a_deleted_key_ends_the_reign(ground(Flaw::IgnoresRevisions)));
    broken.spawn(guards_hold(ground(Flaw::IgnoresRevisions)));
    broken.spawn(release_is_guarded(ground(Flaw::IgnoresValues)));
    broken.spawn(release_is_guarded(ground(Flaw::IgnoresRevisions)));
    broken.spawn(a_revoked_lease_ends_the_reign(ground(Flaw::RenewsAnything)));
    broken.spawn(expiry_removes_leader_and_member_together(ground(Flaw::KeepsExpired)));
    broken.spawn(changes_arrive(ground(Flaw::LosesEvents)));
    broken.spawn(views_go_forward(ground(Flaw::LosesEvents)));
    let (wanted, mut noticed) = (broken.len(), 0);
    while let Some(ended) = broken.join_next().await {
        noticed += usize::from(ended.is_err());
    }
    assert_eq!(noticed, wanted, "a promise was kept by a store that cannot keep it");
}
