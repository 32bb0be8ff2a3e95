//! Clones: progress, verification, refusal of strangers, cancellation.

use dcs::SystemId;
use tokio::sync::watch;

use super::bench::{LONG, working_in};
use super::{Bench, real};
use coordinator::custody::Refusal;

use crate::custody::{self, CustodyError};
use crate::postgres::clone::{self, CloneError, Order, Progress};
use crate::postgres::conf;
use crate::postgres::controldata;
use crate::postgres::run::Start;

/// P196, P201.
#[test]
fn a_clone_is_verified_and_shows_its_progress() {
    real(async |bench: &Bench| {
        let (primary, _postmaster, session) = bench.primary("n1").await;
        let node = bench.node("n2");
        let order = Order {
            source: primary.target(),
            system_id: session.system_id(),
            options: config::Arguments::default(),
            version: session.version(),
        };
        let (told, heard) = watch::channel(Progress::default());
        let room = custody::make_room(&node.paths).unwrap();
        let complete = clone::clone(&node.paths, room.path(), &order, &told).await.unwrap();
        let seen = *heard.borrow();
        assert!(seen.done > 1 << 20 && seen.total >= seen.done, "{seen:?}");
        assert!(!node.paths.data_dir.exists());
        custody::install(&node.paths, room, complete).unwrap();
        assert_eq!(controldata::read(&node.paths).await.unwrap().system_id, session.system_id());
        conf::restore_copies(&node.paths).unwrap();
        node.follow(Some(&primary));
        let (_standby, standby_session) = node.start(Start::Standby).await;
        assert!(standby_session.look().await.unwrap().in_recovery);

        // B57, B54: while it runs it can neither be moved aside nor replaced.
        let stopped = bench.node("n3").stopped();
        let mut request = crate::custody::tests::request(&node.paths);
        request.leadership.as_mut().unwrap().cluster = Some(session.system_id());
        let error = custody::warrant(&node.paths, stopped, request).unwrap_err();
        assert!(matches!(error, CustodyError::Refused(Refusal::InUse)), "{error}");
        assert!(matches!(custody::make_room(&node.paths).unwrap_err(), CustodyError::Occupied { .. }));

        let foreign = Order { system_id: SystemId(42), ..order };
        let error = clone::clone(&node.paths, &bench.path("other"), &foreign, &told).await.unwrap_err();
        assert!(matches!(error, CloneError::Foreign { .. }), "{error}");
    });
}

/// F20, B56: a cancelled clone leaves no process behind.
#[test]
fn a_cancelled_clone_is_killed() {
    real(async |bench: &Bench| {
        let (primary, _postmaster, session) = bench.primary("n1").await;
        session
            .simple("CREATE TABLE public.big AS SELECT repeat('x', 1000) FROM generate_series(1, 20000)")
            .await
            .unwrap();
        let node = bench.node("n2");
        let order = Order {
            source: primary.target(),
            system_id: session.system_id(),
            options: config::Arguments::of(config::Tool::Basebackup, &serde_json::json!({"max-rate": "1M"}))
                .0,
            version: session.version(),
        };
        let (told, mut heard) = watch::channel(Progress::default());
        let incoming = node.paths.beside(".incoming");
        {
            let work = clone::clone(&node.paths, &incoming, &order, &told);
            tokio::pin!(work);
            tokio::select! {
                _ = &mut work => panic!("it ended"),
                seen = tokio::time::timeout(LONG, heard.wait_for(|progress| progress.done > 0)) => { seen.unwrap().unwrap(); }
            }
        }
        super::bench::until("the source has no sender left", async || {
            session.look().await.unwrap().senders.is_empty()
        })
        .await;
        assert!(working_in(&incoming).is_empty() && !node.paths.data_dir.exists());
    });
}
