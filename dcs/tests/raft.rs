//! The embedded store under the faults that it must survive: crashes, lost and damaged disks, partitions,
//! strangers, and changes of its members. Real members over loopback TCP, real files.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

mod ground;

use std::time::Duration;

use config::StoreConfig;
use dcs::{BareStore, Dcs, Lsn, Moment, RenewError, Status, StoreError};
use ground::members::{Members, keys};
use ground::{Follower, name, view, won};
use tokio::task::JoinSet;

async fn write(dcs: &Dcs, lsn: u64) {
    dcs.write_status(&Status { optime: Some(Lsn(lsn)), ..Status::default() }).await.unwrap();
}

async fn read(dcs: &Dcs) -> Option<Lsn> {
    dcs.load().await.unwrap().status.optime
}

/// Any one of three may be killed, the leader too, and what was confirmed is there.
#[tokio::test]
async fn one_of_three_members_may_crash() {
    let mut members = Members::started(3);
    write(&members.dcs(0), 1).await;
    for round in 0..4u64 {
        let leader = members.leader(0).await;
        let victim = if round % 2 == 0 { leader } else { (leader + 1) % 3 };
        let other = (victim + 1) % 3;
        members.crash(victim).await;
        let killed = Moment::now();
        write(&members.dcs(other), round + 2).await;
        let took = Moment::now().since(killed);
        assert!(took < Duration::from_secs(5), "writable again only after {took:?}");
        assert_eq!(read(&members.dcs((victim + 2) % 3)).await, Some(Lsn(round + 2)));
        members.start(victim);
        assert_eq!(read(&members.dcs(victim)).await, Some(Lsn(round + 2)));
    }
}

/// One that is about to end leaves the store's lead to another first: nobody waits for an election.
#[tokio::test]
async fn a_member_that_ends_leaves_the_lead_before() {
    let members = Members::started(3);
    write(&members.dcs(0), 1).await;
    let leader = members.leader(0).await;
    members.get(leader).abdicate();
    let still = || StoreError::Refused("it leads still".to_owned());
    until_ok(async || (members.leader(0).await != leader).then_some(()).ok_or_else(still)).await;
    // One that does not lead has nothing to leave.
    members.get(leader).abdicate();
    write(&members.dcs(leader), 2).await;
    assert_eq!(read(&members.dcs(0)).await, Some(Lsn(2)));
}

/// All three are killed at once and started again: same store, same records, same leases, nobody needed.
#[tokio::test]
async fn all_members_may_crash_at_once() {
    let mut members = Members::started(3);
    let dcs = members.dcs(0);
    let me = name("n1");
    let session = dcs.open_session(Duration::from_secs(30)).await.unwrap();
    let leadership = won(&dcs, &me, &session).await;
    for lsn in 1..=50 {
        write(&dcs, lsn).await;
    }
    let before = dcs.load().await.unwrap();
    for member in 0..3 {
        members.crash(member).await;
    }
    for member in 0..3 {
        members.start(member);
    }
    for member in 0..3 {
        assert_eq!(members.dcs(member).load().await.unwrap(), before);
    }
    // The session goes on through another member.
    let dcs = members.dcs(2);
    dcs.renew_session(&session).await.unwrap();
    dcs.prove(&leadership).await.unwrap();
}

/// Whatever is confirmed while members crash in turn is there at the end, in order; an unknown outcome may be.
#[tokio::test]
async fn nothing_confirmed_is_lost_while_members_crash() {
    let mut members = Members::started(3);
    write(&members.dcs(0), 1).await;
    let mut writers = JoinSet::new();
    let clients = members.client();
    writers.spawn(async move {
        let dcs = Dcs::connect(&clients, keys(), Duration::from_secs(4)).await.unwrap();
        let mut confirmed = 1;
        for lsn in 2..=150 {
            let done = dcs.write_status(&Status { optime: Some(Lsn(lsn)), ..Status::default() }).await;
            match done {
                Ok(()) => confirmed = lsn,
                Err(StoreError::Unknown(_) | StoreError::Unreachable(_)) => {}
                Err(error) => panic!("{error}"),
            }
            let seen = dcs.load().await.ok().and_then(|view| view.status.optime);
            assert!(
                seen.is_none_or(|seen| seen.0 >= confirmed && seen.0 <= lsn),
                "{seen:?} after {confirmed}"
            );
        }
        confirmed
    });
    let mut victim = 0;
    while writers.try_join_next().is_none() && victim < 12 {
        let crashed = victim % 3;
        members.crash(crashed).await;
        let _ = tokio::time::timeout(Duration::from_millis(150), std::future::pending::<()>()).await;
        members.start(crashed);
        // The next one may crash once this one is of use again.
        let dcs = members.dcs(crashed);
        until_ok(async || dcs.load().await).await;
        victim += 1;
    }
    if let Some(confirmed) = writers.join_next().await {
        let confirmed = confirmed.unwrap();
        assert!(read(&members.dcs(0)).await.unwrap().0 >= confirmed);
    }
    assert!(victim >= 3, "only {victim} crashes");
}

async fn until_ok<T>(mut ask: impl AsyncFnMut() -> Result<T, StoreError>) -> T {
    let end = Moment::now() + Duration::from_secs(20);
    loop {
        match ask().await {
            Ok(done) => return done,
            Err(error) => assert!(Moment::now() < end, "waited 20 s in vain: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A cut-off leader confirms nothing, reads nothing old, and what it took is gone when it is back.
#[tokio::test]
async fn a_cut_off_leader_is_replaced() {
    let members = Members::started(3);
    write(&members.dcs(0), 1).await;
    let old = members.leader(0).await;
    let others: Vec<usize> = (0..3).filter(|member| *member != old).collect();
    let addresses: Vec<_> = others.iter().map(|member| members.address(*member)).collect();
    members.get(old).cut(&addresses);
    let alone = Dcs::embedded(members.get(old), keys(), Duration::from_millis(1500));
    let lost = alone.write_status(&Status { optime: Some(Lsn(99)), ..Status::default() }).await;
    assert!(matches!(lost, Err(StoreError::Unknown(_) | StoreError::Unreachable(_))), "{lost:?}");
    write(&members.dcs(others[0]), 2).await;
    let stale = alone.load().await;
    assert!(matches!(stale, Err(StoreError::Unreachable(_))), "{stale:?}");
    assert_eq!(read(&members.dcs(others[1])).await, Some(Lsn(2)));
    members.get(old).cut(&[]);
    let seen = until_ok(async || members.dcs(old).load().await).await;
    assert_eq!(seen.status.optime, Some(Lsn(2)));
}

/// A follower's watchers hear that the store is lost, and everything that happened once it is back.
#[tokio::test]
async fn a_cut_off_follower_tells_its_watchers() {
    let members = Members::started(3);
    write(&members.dcs(0), 1).await;
    let cut = (members.leader(0).await + 1) % 3;
    let others: Vec<_> =
        (0..3).filter(|member| *member != cut).map(|member| members.address(member)).collect();
    let dcs = members.dcs(cut);
    let mut follower = Follower::new(&dcs);
    follower.sees("the first status", |seen| view(seen, |view| view.status.optime == Some(Lsn(1)))).await;
    members.get(cut).cut(&others);
    follower.sees("that the store is lost", |seen| !seen.reachable).await;
    write(&members.dcs((cut + 1) % 3), 2).await;
    members.get(cut).cut(&[]);
    follower
        .sees("the second status", |seen| {
            seen.reachable && view(seen, |view| view.status.optime == Some(Lsn(2)))
        })
        .await;
}

/// F91: who comes back with an empty disk is somebody else: a learner first, and never a voter beside its former self.
#[tokio::test]
async fn a_member_without_memory_is_a_new_one() {
    let mut members = Members::started(3);
    write(&members.dcs(0), 1).await;
    let before = members.dcs(0).store_members().await.unwrap();
    let victim = (members.leader(0).await + 1) % 3;
    let (address, other) = (members.address(victim).to_string(), (victim + 1) % 3);
    let former = before.iter().find(|row| row.address == address).unwrap().id;
    members.crash(victim).await;
    members.forget(victim);
    members.start(victim);
    let dcs = members.dcs(other);
    let end = Moment::now() + Duration::from_secs(20);
    loop {
        let rows = dcs.store_members().await.unwrap();
        let here: Vec<_> = rows.iter().filter(|row| row.address == address).collect();
        // Never two voters at one address.
        assert!(here.iter().filter(|row| row.votes).count() <= 1, "{rows:?}");
        if here.len() == 1 && here[0].votes && here[0].id != former {
            break;
        }
        assert!(Moment::now() < end, "waited 20 s in vain: {rows:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(dcs.store_members().await.unwrap().len(), 3);
    assert_eq!(read(&members.dcs(victim)).await, Some(Lsn(1)));
    // It counts: with it and one other the store is writable.
    members.crash((victim + 2) % 3).await;
    write(&members.dcs(victim), 2).await;
}

/// A member that was away for long gets a snapshot; watchers there read everything again.
#[tokio::test]
async fn a_member_far_behind_catches_up() {
    let mut members = Members::started(3);
    write(&members.dcs(0), 1).await;
    let late = (members.leader(0).await + 1) % 3;
    members.crash(late).await;
    let mut writers = JoinSet::new();
    for part in 0..30u64 {
        let dcs = members.dcs((late + 1) % 3);
        writers.spawn(async move {
            for step in 0..100 {
                write(&dcs, part * 100 + step).await;
            }
        });
    }
    writers.join_all().await;
    write(&members.dcs((late + 2) % 3), 7777).await;
    members.start(late);
    // At once through the one that does not know yet how far the others are.
    write(&members.dcs(late), 7778).await;
    assert_eq!(read(&members.dcs((late + 1) % 3)).await, Some(Lsn(7778)));
    // The log does not grow without bound.
    for member in 0..3 {
        let size = std::fs::metadata(members.file(member)).unwrap().len();
        assert!(size < 32 << 20, "the log of member {member} has {size} bytes");
    }
}

/// Members come and go while the store runs; nobody unknown comes, nobody needed goes (F94).
#[tokio::test]
async fn members_are_added_and_removed() {
    let mut members = Members::started(3);
    write(&members.dcs(0), 1).await;
    let more = members.add();
    members.start(more);
    // Nobody let it in.
    let alone = Dcs::embedded(members.get(more), keys(), Duration::from_millis(800));
    assert!(matches!(alone.load().await, Err(StoreError::Unreachable(_))));
    assert_eq!(members.dcs(0).store_members().await.unwrap().len(), 3);
    members.dcs(1).admit_store_member(&members.address(more)).await.unwrap();
    let voters = async || {
        let rows = members.dcs(0).store_members().await.unwrap();
        rows.iter().filter(|row| row.votes).count()
    };
    let end = Moment::now() + Duration::from_secs(20);
    while voters().await < 4 {
        assert!(Moment::now() < end, "the new member does not vote after 20 s");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(read(&members.dcs(more)).await, Some(Lsn(1)));

    // The leader, by its address; the others go on.
    let leader = members.leader(0).await;
    let (gone, stays) = (members.address(leader).to_string(), (leader + 1) % 3);
    members.dcs(stays).remove_store_member(&gone, false).await.unwrap();
    let rows = members.dcs(stays).store_members().await.unwrap();
    assert!(rows.len() == 3 && rows.iter().all(|row| row.address != gone), "{rows:?}");
    write(&members.dcs(stays), 2).await;
    // The one that was removed runs on. It knows, says so to whoever asks, and shows nobody a list of its own.
    let asked = Dcs::embedded(members.get(leader), keys(), Duration::from_millis(500));
    let end = Moment::now() + Duration::from_secs(10);
    loop {
        match asked.store_members().await {
            Err(StoreError::Unreachable(why)) if why.contains("was removed") => break,
            other => assert!(Moment::now() < end, "{other:?}"),
        }
    }
    let unknown = members.dcs(stays).remove_store_member("127.0.0.9:1", false).await;
    assert!(matches!(&unknown, Err(StoreError::Refused(why)) if why.contains("no member")), "{unknown:?}");

    // With one of three down, removing one of the other two would leave no quorum.
    let others: Vec<usize> = (0..4).filter(|member| ![leader, stays].contains(member)).collect();
    members.crash(others[0]).await;
    until_ok(async || members.dcs(stays).load().await).await;
    let needed = members.address(others[1]).to_string();
    let end = Moment::now() + Duration::from_secs(10);
    loop {
        // For a moment the leader may still believe that the crashed one is there.
        match members.dcs(stays).remove_store_member(&needed, false).await {
            Err(StoreError::Refused(why)) if why.contains("can be reached") => break,
            other => assert!(Moment::now() < end, "{other:?}"),
        }
    }
    let down = members.address(others[0]).to_string();
    members.dcs(stays).remove_store_member(&down, false).await.unwrap();
    write(&members.dcs(stays), 3).await;
}

/// A lease never ends before its holder's own deadline, whoever leads the store meanwhile, and it does end.
#[tokio::test]
async fn a_lease_outlives_its_holders_deadline() {
    let mut members = Members::started(3);
    let dcs = members.dcs(0);
    let me = name("n1");
    for round in 0..3 {
        let leader = members.leader(0).await;
        let through = if leader == 0 { 1 } else { 0 };
        let dcs = members.dcs(through);
        let session = dcs.open_session(Duration::from_secs(2)).await.unwrap();
        let leadership = won(&dcs, &me, &session).await;
        let sent = until_ok(async || dcs.renew_session(&session).await).await;
        if round > 0 {
            // An election in between costs no second ttl.
            members.crash(leader).await;
        }
        let end = Moment::now() + Duration::from_secs(20);
        let gone = loop {
            match dcs.prove(&leadership).await {
                Ok(_) | Err(RenewError::Store(_)) => {}
                Err(RenewError::Lost { holder: None }) => break Moment::now(),
                Err(other) => panic!("{other}"),
            }
            assert!(Moment::now() < end, "the lease never ended");
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        let lasted = gone.since(sent);
        assert!(lasted >= Duration::from_secs(2), "it ended after {lasted:?}");
        assert!(lasted < Duration::from_millis(3500), "it ended after {lasted:?} only");
        if round > 0 {
            members.start(leader);
        }
    }
    drop(dcs);
}

/// A renewal is one entry of the log, and a small one.
#[tokio::test]
async fn a_renewal_is_one_small_entry() {
    let members = Members::started(3);
    let dcs = members.dcs(0);
    let me = name("n1");
    let session = dcs.open_session(Duration::from_secs(60)).await.unwrap();
    won(&dcs, &me, &session).await;
    let StoreConfig::Raft(config) = members.client() else { panic!("no raft") };
    let bare = BareStore::new(&config).unwrap();
    let (keys, revision) = bare.keys(&dcs.keys().prefix()).await.unwrap();
    let lease = keys.iter().find(|key| key.lease != 0).unwrap().lease;
    let before = (bare.length().await.unwrap(), bare.renewals(lease).await.unwrap().unwrap());
    for _ in 0..50 {
        dcs.renew_session(&session).await.unwrap();
    }
    let after = (bare.length().await.unwrap(), bare.renewals(lease).await.unwrap().unwrap());
    assert_eq!((after.0 - before.0, after.1 - before.1), (50, 50));
    assert_eq!(bare.keys("/").await.unwrap().1, revision, "a renewal is no revision");
}

/// An idle store writes nothing but renewals.
#[tokio::test]
async fn idling_writes_nothing() {
    let members = Members::started(3);
    write(&members.dcs(0), 1).await;
    members.leader(0).await;
    let states = || (0..3).map(|member| std::fs::read(members.file(member)).unwrap()).collect::<Vec<_>>();
    until_same(&states).await;
    let before = states();
    for _ in 0..20 {
        read(&members.dcs(1)).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(before == states(), "an idle store wrote");
}

async fn until_same(states: &impl Fn() -> Vec<Vec<u8>>) {
    let end = Moment::now() + Duration::from_secs(10);
    loop {
        let before = states();
        tokio::time::sleep(Duration::from_millis(300)).await;
        if before == states() {
            return;
        }
        assert!(Moment::now() < end, "the store never rests");
    }
}

/// Nothing is founded while somebody is missing; requests say so in time.
#[tokio::test]
async fn a_store_is_founded_by_all_or_not_at_all() {
    let mut members = Members::new(3);
    members.start(0);
    members.start(1);
    let early = Dcs::embedded(members.get(0), keys(), Duration::from_millis(700));
    let asked = Moment::now();
    assert!(matches!(early.load().await, Err(StoreError::Unreachable(_))));
    assert!(Moment::now().since(asked) < Duration::from_secs(2));
    members.start(2);
    write(&members.dcs(0), 1).await;
    assert_eq!(members.dcs(2).store_members().await.unwrap().len(), 3);
}
