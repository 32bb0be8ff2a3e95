//! A cluster moves from one store to another and back, and its records are backed up and restored: the
//! transactions, on every pair of stores.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

mod ground;

use std::time::Duration;

use dcs::{
    Abode, Acquire, Claim, Dcs, Departure, Dump, DumpError, Epoch, Fault, Memory, On, Passage, Place,
    RenewError, Stand, StoreError, SystemId,
};
use ground::{Follower, Ground, Kind, name, view, won};
use serde_json::json;

const TTL: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(5);
const SYSTEM: SystemId = SystemId(7_710_145_069_470_500_063);

/// Two stores, the same cluster.
fn pair(from: &Kind, to: &Kind) -> (Ground, Ground) {
    let from = Ground::new(from.clone());
    let to = Ground { store: to.clone(), keys: from.keys.clone() };
    (from, to)
}

fn draft(seal: &str) -> Passage {
    Passage {
        generation: 0,
        seal: seal.to_owned(),
        from: "a".to_owned(),
        to: "b".to_owned(),
        leader: name("n1"),
        ttl: 10_000,
    }
}

async fn furnished(dcs: &Dcs) {
    assert!(dcs.write_initialize(SYSTEM).await.unwrap());
    dcs.put_config(&json!({"ttl": 10})).await.unwrap();
}

/// There and back: one store is open at any time, the records go along, the epochs grow.
async fn there_and_back(from: Ground, to: Ground) {
    let (here, there) = (from.node().await, to.node().await);
    furnished(&here).await;
    let session = here.open_session(TTL).await.unwrap();
    let first = won(&here, &name("n1"), &session).await;
    let guard = here.load().await.unwrap().config.unwrap().revision;
    let mut follower = Follower::new(&here);

    let estate = here.estate().await.unwrap();
    let passage = there.announce(&estate, draft("s1")).await.unwrap();
    assert_eq!(passage.generation, 2);
    let waiting = there.load().await.unwrap();
    assert_eq!(waiting.abode(), Abode::Moving(Stand::Arriving(passage.clone())));
    assert_eq!((waiting.initialize.system_id(), waiting.leader), (Some(SYSTEM), None));
    let other = to.node().await;
    let others = other.open_session(TTL).await.unwrap();
    assert!(matches!(
        other.acquire(&name("n2"), &others, Claim::default()).await.unwrap(),
        Acquire::HeldBy(_)
    ));
    // Nothing has happened to the old store.
    here.prove(&first).await.unwrap();

    assert_eq!(here.leave(&first, &estate, &passage, PATIENCE).await.unwrap(), Departure::Left);
    assert!(matches!(here.prove(&first).await, Err(RenewError::Lost { .. })));
    let old = from.node().await;
    assert!(matches!(
        old.acquire(&name("n2"), &session, Claim::default()).await.unwrap(),
        Acquire::HeldBy(_)
    ));
    assert_eq!(old.load().await.unwrap().abode(), Abode::Moving(Stand::Left(passage.clone())));
    // Asking twice is safe.
    assert_eq!(here.leave(&first, &estate, &passage, PATIENCE).await.unwrap(), Departure::Left);
    here.close_session(session).await.unwrap();
    assert!(old.load().await.unwrap().passage.is_some(), "the note stays without the lease");

    let session = there.open_session(TTL).await.unwrap();
    let Acquire::Won(second, _) = there.arrive(&name("n1"), &session, &passage).await.unwrap() else {
        panic!("nobody else could arrive")
    };
    assert!(second.epoch() > first.epoch());
    let late = other.arrive(&name("n2"), &others, &passage).await.unwrap();
    assert!(matches!(late, Acquire::HeldBy(holder) if holder == name("n1")));
    there.prove(&second).await.unwrap();
    here.relocate(&there);
    let leads = |v: &dcs::ClusterView| v.leader.as_ref().is_some_and(|leader| leader.epoch == second.epoch());
    let seen = follower.sees("the leader in the new store", |seen| view(seen, leads)).await;
    let seen = seen.view.unwrap();
    assert_eq!((seen.abode(), seen.epoch() >= second.epoch()), (Abode::Here(2), true));
    assert_eq!(seen.config.as_ref().unwrap().value, json!({"ttl": 10}));
    assert!(
        !here.write_config(&json!({}), Some(guard)).await.unwrap(),
        "a guard of another generation never holds"
    );
    let guard = seen.config.as_ref().map(|config| config.revision);
    assert!(here.write_config(&json!({"ttl": 20}), guard).await.unwrap());

    // Back again.
    let estate = there.estate().await.unwrap();
    let back = old.announce(&estate, draft("s2")).await.unwrap();
    assert_eq!(back.generation, 3);
    assert_eq!(there.leave(&second, &estate, &back, PATIENCE).await.unwrap(), Departure::Left);
    let session = old.open_session(TTL).await.unwrap();
    let Acquire::Won(third, _) = old.arrive(&name("n1"), &session, &back).await.unwrap() else {
        panic!("nobody else could arrive")
    };
    assert!(third.epoch() > second.epoch());
    let view = old.load().await.unwrap();
    assert_eq!((view.abode(), view.config.unwrap().value), (Abode::Here(3), json!({"ttl": 20})));
    assert_eq!(there.load().await.unwrap().abode(), Abode::Moving(Stand::Left(back)));
    // The lead goes from hand to hand there as ever.
    assert!(old.release(third).await.unwrap());
    let Acquire::Won(fourth, _) = other_at(&from, &name("n2")).await else { panic!("the lead is free") };
    assert!(fourth.epoch() > view.leader.unwrap().epoch);
}

async fn other_at(ground: &Ground, me: &config::NodeName) -> Acquire {
    let dcs = ground.node().await;
    let session = dcs.open_session(TTL).await.unwrap();
    let after = dcs.load().await.unwrap().claimed;
    dcs.acquire(me, &session, Claim { after, ..Claim::default() }).await.unwrap()
}

/// What changed since the copy keeps the store open; a lost answer is resolved.
async fn a_copy_must_be_current(from: Ground, to: Ground) {
    let ((here, faults), there) = (from.faulty().await, to.node().await);
    furnished(&here).await;
    let session = here.open_session(TTL).await.unwrap();
    let lead = won(&here, &name("n1"), &session).await;
    let stale = here.estate().await.unwrap();
    let passage = there.announce(&stale, draft("s1")).await.unwrap();
    here.put_config(&json!({"ttl": 11})).await.unwrap();
    assert_eq!(here.leave(&lead, &stale, &passage, PATIENCE).await.unwrap(), Departure::Changed);
    from.put(&Place::Status, r#"{"optime":9}"#).await;
    here.prove(&lead).await.unwrap();

    let estate = here.estate().await.unwrap();
    from.put(&Place::Status, r#"{"optime":10}"#).await;
    assert_eq!(there.announce(&estate, draft("s1")).await.unwrap(), passage, "the same attempt");
    assert_eq!(there.load().await.unwrap().config.unwrap().value, json!({"ttl": 11}));
    faults.plant(On::Write, Fault::LoseRequest);
    faults.plant(On::Write, Fault::LoseReply);
    assert_eq!(here.leave(&lead, &estate, &passage, PATIENCE).await.unwrap(), Departure::Left);
    assert_eq!(faults.waiting(), 0);
}

/// Before the old store is closed nothing has happened: an attempt is overwritten or withdrawn.
async fn an_attempt_leaves_nothing(from: Ground, to: Ground) {
    let (here, there) = (from.node().await, to.node().await);
    furnished(&here).await;
    to.put_path(&format!("{}sync", to.keys.prefix()), "{}").await;
    let session = here.open_session(TTL).await.unwrap();
    let lead = won(&here, &name("n1"), &session).await;
    let estate = here.estate().await.unwrap();
    let first = there.announce(&estate, draft("s1")).await.unwrap();
    assert_eq!(there.load().await.unwrap().sync, None, "what was left there is gone");
    let second = there.announce(&estate, draft("s2")).await.unwrap();
    assert!(second.generation > first.generation);
    assert!(!there.withdraw(&first).await.unwrap());
    assert!(matches!(
        there.arrive(&name("n1"), &there.open_session(TTL).await.unwrap(), &first).await.unwrap(),
        Acquire::HeldBy(_)
    ));
    assert!(there.withdraw(&second).await.unwrap());
    assert_eq!(there.load().await.unwrap().abode(), Abode::Nowhere);
    here.prove(&lead).await.unwrap();

    // Another cluster of this name is not overwritten, not even by its own kind.
    furnished(&there).await;
    let refused = there.announce(&estate, draft("s3")).await;
    assert!(
        matches!(&refused, Err(StoreError::Refused(why)) if why.contains("system identifier 77101450")),
        "{refused:?}"
    );
}

/// Somebody who does not lead closes nothing.
async fn only_the_leader_leaves(from: Ground, to: Ground) {
    let (here, there) = (from.node().await, to.node().await);
    furnished(&here).await;
    let session = here.open_session(TTL).await.unwrap();
    let lead = won(&here, &name("n1"), &session).await;
    let estate = here.estate().await.unwrap();
    let passage = there.announce(&estate, draft("s1")).await.unwrap();
    from.revoke(&session).await;
    assert_eq!(here.leave(&lead, &estate, &passage, PATIENCE).await.unwrap(), Departure::Lost);
    let next = other_at(&from, &name("n2")).await;
    assert!(matches!(next, Acquire::Won(..)));
    assert_eq!(here.leave(&lead, &estate, &passage, PATIENCE).await.unwrap(), Departure::Lost);
}

/// A backup is restored where it fits, and nowhere else.
async fn backups(ground: Ground) {
    let dcs = ground.node().await;
    furnished(&dcs).await;
    let session = dcs.open_session(TTL).await.unwrap();
    let lead = won(&dcs, &name("n1"), &session).await;
    let dump = Dump::read(&dcs.dump("raft").await.unwrap().text()).unwrap();
    assert_eq!((dump.epoch, dump.generation, dump.leader.as_deref()), (lead.epoch().0, 1, Some("n1")));
    assert_eq!((dump.system_id(), dump.records.len()), (Some(SYSTEM), 3));
    assert!(matches!(dcs.restore(&dump).await, Err(DumpError::Led(who)) if who == "n1"));
    assert!(dcs.release(lead).await.unwrap());

    // The same reign: it fits, and what came since goes.
    dcs.put_config(&json!({"ttl": 99})).await.unwrap();
    ground.put(&Place::Sync, "{}").await;
    assert_eq!(dcs.restore(&dump).await.unwrap(), 3);
    let view = dcs.load().await.unwrap();
    assert_eq!((view.config.unwrap().value, view.sync, view.generation), (json!({"ttl": 10}), None, 0));

    // A later reign.
    let Acquire::Won(later, _) = other_at(&ground, &name("n2")).await else { panic!("the lead is free") };
    let epoch = later.epoch();
    assert!(dcs.release(later).await.unwrap());
    let refused = dcs.restore(&dump).await.unwrap_err();
    let said = refused.to_string();
    assert!(
        said.contains(&format!("epoch {}", dump.epoch)) && said.contains(&format!("epoch {}", epoch.0)),
        "{said}"
    );

    // Another cluster, another name, a damaged file.
    ground.put(&Place::Initialize, "7710145069470500064").await;
    assert!(matches!(dcs.restore(&dump).await, Err(DumpError::OtherCluster { .. })));
    let elsewhere = Ground::new(ground.store.clone()).node().await;
    assert!(matches!(elsewhere.restore(&dump).await, Err(DumpError::OtherName { .. })));
    let damaged = dump.text().replace("ttl", "tll");
    assert!(matches!(Dump::read(&damaged), Err(DumpError::Damaged { .. })));
    assert!(matches!(Dump::read("{}"), Err(DumpError::Form(_))));

    // The store lost everything: reigns after the restoration are later than all before.
    dcs.remove_cluster().await.unwrap();
    assert_eq!(dcs.restore(&dump).await.unwrap(), 3);
    let Acquire::Won(reign, _) = other_at(&ground, &name("n3")).await else { panic!("the lead is free") };
    assert!(reign.epoch() > epoch && reign.epoch() > Epoch(dump.epoch));
}

/// A backup of a long life in a store that is new: the epochs still grow.
#[tokio::test]
async fn a_new_store_counts_on_from_the_backup() {
    let old = Ground::new(Kind::Memory(Memory::new()));
    let dcs = old.node().await;
    furnished(&dcs).await;
    for _ in 0..50 {
        dcs.put_config(&json!({})).await.unwrap();
    }
    let Acquire::Won(lead, _) = other_at(&old, &name("n1")).await else { panic!("the lead is free") };
    let dump = dcs.dump("raft").await.unwrap();
    let new = Ground { store: Kind::Memory(Memory::new()), keys: old.keys.clone() };
    assert_eq!(new.node().await.restore(&dump).await.unwrap(), 3);
    let Acquire::Won(reign, _) = other_at(&new, &name("n1")).await else { panic!("the lead is free") };
    assert!(reign.epoch() > lead.epoch());
    assert_eq!(new.node().await.load().await.unwrap().generation, 2);
}

async fn all(from: Kind, to: Kind) {
    let (one, other) = pair(&from, &to);
    there_and_back(one, other).await;
    let (one, other) = pair(&from, &to);
    a_copy_must_be_current(one, other).await;
    let (one, other) = pair(&from, &to);
    an_attempt_leaves_nothing(one, other).await;
    let (one, other) = pair(&from, &to);
    only_the_leader_leaves(one, other).await;
    backups(Ground::new(from)).await;
}

#[tokio::test]
async fn between_stores_in_memory() {
    all(Kind::Memory(Memory::new()), Kind::Memory(Memory::new())).await;
}

#[tokio::test]
async fn between_etcd_and_the_embedded_store() {
    let (_server, config) = ground::servers::one();
    let members = ground::members::Members::started(1);
    all(Kind::Etcd(config.clone()), Kind::Raft(members.all())).await;
    all(Kind::Raft(members.all()), Kind::Etcd(config.clone())).await;
    all(Kind::RaftClient(members.client(), members.get(0).clone()), Kind::Etcd(config)).await;
}
