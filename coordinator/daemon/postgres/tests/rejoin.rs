//! Divergence and the way back: lineage, crash recovery, capsule, rewind; following without a restart; slots.

use coordinator::{LeaderHistory, Lineage as Verdict};
use dcs::{Epoch, Lsn, Moment, Timeline};
use rustix::process::Signal;

use super::bench::{LONG, Node, until};
use super::{Bench, real};
use crate::custody::marker::Work;
use crate::custody::{self, Capsule};
use crate::postgres::controldata::{self, ControlFile, State};
use crate::postgres::replication::{self, Followed, Lineage};
use crate::postgres::rewind::{self, Order};
use crate::postgres::run::{self, Start, Stop};
use crate::postgres::{Session, conf, process, slots};

async fn caught_up(primary: &Session, standby: &Session) {
    let end = primary.look().await.unwrap().write;
    until("the standby has replayed everything", async || standby.look().await.unwrap().replayed >= end)
        .await;
}

fn verdict(control: &ControlFile, end: Lsn, was_primary: bool, leader: &Lineage) -> Verdict {
    let history = LeaderHistory {
        member: config::NodeName::new("n2").unwrap(),
        epoch: Epoch(1),
        timeline: leader.timeline,
        switches: leader.switches.iter().map(|switch| (switch.timeline, switch.at)).collect(),
        settled: leader.settled,
    };
    coordinator::lineage(control.timeline, end, was_primary, &[], &history)
}

fn order(leader: &Node, floor: Lsn) -> Order {
    Order {
        source: leader.target(),
        options: config::Arguments::default(),
        restore_command: None,
        archive_command: None,
        version: 150_000,
        floor,
    }
}

async fn capsule_before(node: &Node, control: &ControlFile, fork: Lsn) -> Capsule {
    let from = rewind::checkpoint_before(&node.paths, control, fork).await.unwrap();
    custody::capsule(&node.paths, &node.stopped(), &node.paths.beside(".vault"), control, from).unwrap()
}

/// After a clean handover the former primary's shutdown checkpoint ends exactly where the new timeline
/// begins: it follows without a rewind.
#[test]
fn a_former_primary_follows_after_a_clean_handover() {
    real(async |bench: &Bench| {
        let (old, old_postmaster, old_session) = bench.primary("n1").await;
        let (new, new_postmaster, new_session) = bench.standby("n2", &old).await;
        caught_up(&old_session, &new_session).await;
        run::stop(&old.paths, &old_postmaster, Stop::Fast, LONG).await.unwrap();
        run::promote(&new.paths, &new_postmaster, &new_session, LONG, || true).await.unwrap();
        new_session.checkpoint(LONG).await.unwrap();
        let leader = replication::lineage(&new_session).await.unwrap();
        assert!(leader.takes_writes && leader.settled && leader.timeline == Timeline(2));
        let local = replication::local_history(&new.paths.data_dir, Timeline(2)).unwrap().unwrap();
        assert_eq!(local, leader.switches);
        let control = controldata::read(&old.paths).await.unwrap();
        let end = rewind::end_of_checkpoint(&old.paths, &control).await.unwrap();
        assert_eq!(leader.switches.first().unwrap().at, end);
        assert_eq!(verdict(&control, end, true, &leader), Verdict::Agrees);
        let began = Moment::now();
        old.follow(Some(&new));
        let (_postmaster, session) = old.start(Start::Standby).await;
        until("it streams", async || session.look().await.unwrap().receiver.is_some()).await;
        println!("old primary streams again after {:?}", Moment::now().since(began));
        new_session.simple("CREATE TABLE public.t (i int)").await.unwrap();
        caught_up(&new_session, &session).await;
        assert_eq!(session.look().await.unwrap().timeline, Timeline(2));
    });
}

/// P230, P232: the old primary crashes with WAL that nobody else has. Crash recovery, capsule, rewind;
/// it comes back with the new primary's rows and without its own, which are in the capsule.
#[test]
fn a_diverged_primary_is_rewound() {
    real(async |bench: &Bench| {
        let (old, old_postmaster, old_session) = bench.primary("n1").await;
        old_session.simple("CREATE TABLE public.t (i int)").await.unwrap();
        let (new, new_postmaster, new_session) = bench.standby("n2", &old).await;
        caught_up(&old_session, &new_session).await;
        run::promote(&new.paths, &new_postmaster, &new_session, LONG, || true).await.unwrap();
        new_session.simple("INSERT INTO public.t VALUES (-2)").await.unwrap();
        old_session.simple("INSERT INTO public.t VALUES (-1); SELECT pg_switch_wal()").await.unwrap();
        old_session.checkpoint(LONG).await.unwrap();
        old_session.simple("INSERT INTO public.t VALUES (-1)").await.unwrap();
        let floor = old_session.look().await.unwrap().write;
        old_postmaster.signal(Signal::KILL).unwrap();
        let stopped = process::kill_all(&old.paths, LONG).await.unwrap();

        let began = Moment::now();
        let control = controldata::read(&old.paths).await.unwrap();
        assert_eq!(control.state, State::InProduction);
        let leader = replication::lineage(&new_session).await.unwrap();
        let fork = leader.switches.first().unwrap().at;
        let capsule = capsule_before(&old, &control, fork).await;
        assert!(capsule.directory().join("fork-wal/pg_control").exists());
        rewind::recover_crash(&old.paths, &stopped, &capsule, None, LONG).await.unwrap();
        println!("crash recovery done after {:?}", Moment::now().since(began));
        let control = controldata::read(&old.paths).await.unwrap();
        let end = rewind::end_of_checkpoint(&old.paths, &control).await.unwrap();
        let Verdict::Diverged { fork: found } = verdict(&control, end, true, &leader) else {
            panic!("it agrees")
        };
        assert_eq!(found, fork);

        new_session.checkpoint(LONG).await.unwrap();
        assert!(replication::lineage(&new_session).await.unwrap().settled);
        let capsule = capsule_before(&old, &control, fork).await;
        let copied = std::fs::read_dir(capsule.directory().join("fork-wal")).unwrap().count();
        assert!(copied >= 3, "only {copied} files in the capsule");
        let rewinding = Moment::now();
        rewind::rewind(&old.paths, &stopped, &capsule, &order(&new, floor)).await.unwrap();
        println!(
            "rewound in {:?}, {:?} after the crash",
            Moment::now().since(rewinding),
            Moment::now().since(began)
        );
        let mark = Work::Rewind.read(&old.paths).unwrap().unwrap();
        assert!(mark.done && mark.floor == Some(floor.0));
        old.follow(Some(&new));
        let (_postmaster, session) = old.start(Start::Standby).await;
        caught_up(&new_session, &session).await;
        println!("caught up {:?} after the crash", Moment::now().since(began));
        let rows = session.simple("SELECT i FROM public.t").await.unwrap();
        assert_eq!(rows, [[Some("-2".to_owned())]]);
    });
}

/// P233, F100: WAL that the rewind needs was recycled and comes back from the archive.
#[test]
fn missing_wal_is_restored_for_a_rewind() {
    real(async |bench: &Bench| {
        let archive = bench.path("archive");
        std::fs::create_dir(&archive).unwrap();
        let (mut old, postmaster, session) = bench.primary("n1").await;
        drop(session);
        run::stop(&old.paths, &postmaster, Stop::Fast, LONG).await.unwrap();
        let restore = format!("cp {}/%f %p", archive.display());
        for (name, value) in [
            ("archive_mode", "on"),
            ("archive_command", &format!("cp %p {}/%f", archive.display())),
            ("restore_command", &restore),
            ("wal_keep_size", "0"),
        ] {
            old.parameters.insert(name.into(), value.into());
        }
        old.follow(None);
        let (old_postmaster, old_session) = old.start(Start::Primary).await;
        let (new, new_postmaster, new_session) = bench.standby("n2", &old).await;
        caught_up(&old_session, &new_session).await;
        run::promote(&new.paths, &new_postmaster, &new_session, LONG, || true).await.unwrap();
        for _ in 0..3 {
            old_session.simple("CREATE TABLE public.t (i int); SELECT pg_switch_wal()").await.unwrap();
            old_session.simple("DROP TABLE public.t").await.unwrap();
        }
        let fork = replication::lineage(&new_session).await.unwrap().switches.first().unwrap().at;
        let needed = rewind::segment_name(Timeline(1), fork.0 >> 24, 16 << 20);
        until("the needed segment is archived and recycled", async || {
            old_session.checkpoint(LONG).await.unwrap();
            archive.join(&needed).exists() && !old.paths.data_dir.join("pg_wal").join(&needed).exists()
        })
        .await;
        drop(old_session);
        let halted = run::stop(&old.paths, &old_postmaster, Stop::Fast, LONG).await.unwrap();
        new_session.checkpoint(LONG).await.unwrap();
        let control = controldata::read(&old.paths).await.unwrap();
        let capsule = capsule_before(&old, &control, fork).await;
        let mut order = order(&new, control.checkpoint);
        order.restore_command = Some(restore);
        rewind::rewind(&old.paths, &halted.proof, &capsule, &order).await.unwrap();
        old.follow(Some(&new));
        let (_postmaster, session) = old.start(Start::Standby).await;
        caught_up(&new_session, &session).await;
    });
}

/// F15: a rewind that fails leaves its mark, so that nothing starts what it left.
#[test]
fn a_failed_rewind_leaves_its_mark() {
    real(async |bench: &Bench| {
        let (node, postmaster, session) = bench.primary("n1").await;
        drop(session);
        let halted = run::stop(&node.paths, &postmaster, Stop::Fast, LONG).await.unwrap();
        let control = controldata::read(&node.paths).await.unwrap();
        let capsule = capsule_before(&node, &control, control.checkpoint).await;
        let nobody = bench.node("n2");
        let error =
            rewind::rewind(&node.paths, &halted.proof, &capsule, &order(&nobody, Lsn(7))).await.unwrap_err();
        assert!(error.to_string().contains("pg_rewind failed"), "{error}");
        assert!(
            Work::Rewind.read(&node.paths).unwrap().is_some_and(|mark| !mark.done && mark.floor == Some(7))
        );
    });
}

/// The postmaster has ended, and its parent does not collect it: its number is taken, and Postgres would wait
/// for it for ever, on its own and in crash recovery.
#[test]
fn a_pid_file_of_a_dead_postmaster_hurts_nobody() {
    real(async |bench: &Bench| {
        let (node, postmaster, session) = bench.primary("n1").await;
        drop(session);
        postmaster.signal(Signal::KILL).unwrap();
        let stopped = process::kill_all(&node.paths, LONG).await.unwrap();
        let mut dead = std::process::Command::new("true").spawn().unwrap();
        crate::command::pidfd::Pidfd::open(dead.id()).unwrap().exited().await;
        let file = std::fs::read_to_string(node.paths.pid_file()).unwrap();
        let stale = format!("{}\n{}", dead.id(), file.split_once('\n').unwrap().1);
        std::fs::write(node.paths.pid_file(), &stale).unwrap();
        let control = controldata::read(&node.paths).await.unwrap();
        let capsule = capsule_before(&node, &control, control.redo).await;
        rewind::recover_crash(&node.paths, &stopped, &capsule, None, LONG).await.unwrap();
        std::fs::write(node.paths.pid_file(), &stale).unwrap();
        node.start(Start::Primary).await;
        dead.wait().unwrap();
    });
}

/// P231, F128: a restored backup is not recovered alone; nothing is touched.
#[test]
fn a_restored_backup_is_not_recovered_alone() {
    real(async |bench: &Bench| {
        let (node, postmaster, session) = bench.primary("n1").await;
        drop(session);
        let halted = run::stop(&node.paths, &postmaster, Stop::Immediate, LONG).await.unwrap();
        let control = controldata::read(&node.paths).await.unwrap();
        let capsule = capsule_before(&node, &control, control.redo).await;
        std::fs::write(node.paths.data_dir.join("backup_label"), "START WAL LOCATION: 0/1 (file x)\n")
            .unwrap();
        let error =
            rewind::recover_crash(&node.paths, &halted.proof, &capsule, None, LONG).await.unwrap_err();
        assert!(error.to_string().contains("backup_label"), "{error}");
        assert_eq!(controldata::read(&node.paths).await.unwrap(), control);
    });
}

/// The end of a crashed primary's log is found, and quickly even where it ends with its last segment.
#[test]
fn the_end_of_a_crashed_log_is_found() {
    real(async |bench: &Bench| {
        let (node, postmaster, session) = bench.primary("n1").await;
        session.simple("CREATE TABLE public.t (i int)").await.unwrap();
        for _ in 0..3 {
            session.simple("SELECT pg_switch_wal()").await.unwrap();
            session.simple("INSERT INTO public.t SELECT generate_series(1, 1000)").await.unwrap();
        }
        let flushed = session.look().await.unwrap().flush;
        postmaster.signal(Signal::KILL).unwrap();
        process::kill_all(&node.paths, LONG).await.unwrap();
        let control = controldata::read(&node.paths).await.unwrap();
        let end = rewind::end_of_wal(&node.paths, &control, control.redo).await.unwrap().unwrap();
        assert!(end >= flushed && end.ahead_of(flushed) < 1 << 20, "{end} is not just after {flushed}");
        assert_eq!(rewind::end_of_wal(&node.paths, &control, flushed).await.unwrap(), Some(end));
        let beyond = Lsn(end.0 + 1);
        assert_eq!(
            rewind::end_of_wal(&node.paths, &control, beyond).await.unwrap(),
            None,
            "written, and not there"
        );
        let copy = bench.node("n2");
        let (third, _postmaster, session) = bench.primary("n3").await;
        let source = third.target();
        let order = crate::postgres::clone::Order {
            source,
            system_id: session.system_id(),
            options: config::Arguments::default(),
            version: session.version(),
        };
        let (told, _heard) = tokio::sync::watch::channel(crate::postgres::clone::Progress::default());
        let room = custody::make_room(&copy.paths).unwrap();
        let complete = crate::postgres::clone::clone(&copy.paths, room.path(), &order, &told).await.unwrap();
        custody::install(&copy.paths, room, complete).unwrap();
        let control = controldata::read(&copy.paths).await.unwrap();
        let began = Moment::now();
        let end = rewind::end_of_wal(&copy.paths, &control, control.redo).await.unwrap();
        assert!(end.is_some_and(|end| end.0 % (16 << 20) == 0), "{end:?}");
        assert!(Moment::now().since(began) < std::time::Duration::from_secs(4));
    });
}

/// P237: what Postgres had not archived yet is archived before it would be lost.
#[test]
fn ready_segments_are_archived_first() {
    real(async |bench: &Bench| {
        let (node, postmaster, session) = bench.primary("n1").await;
        session.simple("ALTER SYSTEM SET archive_mode = on").await.unwrap();
        session.simple("ALTER SYSTEM SET archive_command = 'false'").await.unwrap();
        drop(session);
        run::stop(&node.paths, &postmaster, Stop::Fast, LONG).await.unwrap();
        let (postmaster, session) = node.start(Start::Primary).await;
        session.simple("SELECT pg_switch_wal()").await.unwrap();
        drop(session);
        run::stop(&node.paths, &postmaster, Stop::Immediate, LONG).await.unwrap();
        let archive = bench.path("archive");
        std::fs::create_dir(&archive).unwrap();
        let command = format!("cp %p {}/%f", archive.display());
        crate::postgres::archive::archive_ready(&node.paths, &command).await.unwrap();
        let status = node.paths.data_dir.join("pg_wal/archive_status/000000010000000000000001");
        assert!(archive.join("000000010000000000000001").exists());
        assert!(status.with_extension("done").exists() && !status.with_extension("ready").exists());
    });
}

/// P238: the source changes by a reload; the postmaster stays the same.
#[test]
fn a_standby_changes_its_source_without_a_restart() {
    real(async |bench: &Bench| {
        let (first, _p1, s1) = bench.primary("n1").await;
        let (second, p2, s2) = bench.standby("n2", &first).await;
        let (third, p3, s3) = bench.standby("n3", &first).await;
        caught_up(&s1, &s2).await;
        caught_up(&s1, &s3).await;
        let Ok(process::Found::Running(first_postmaster)) = process::find(&first.paths) else {
            panic!("gone")
        };
        run::stop(&first.paths, &first_postmaster, Stop::Fast, LONG).await.unwrap();
        run::promote(&second.paths, &p2, &s2, LONG, || true).await.unwrap();
        let began = Moment::now();
        let conf = third.conf(Some(&second));
        let followed = replication::follow(&third.paths, &conf, &p3, 150_000).await.unwrap();
        assert_eq!(followed, Followed::Reloaded);
        until("it streams from the new primary", async || {
            let receiver = s3.look().await.unwrap().receiver;
            receiver.is_some_and(|receiver| {
                receiver.status == "streaming" && receiver.sender_host.as_deref() == Some(second.sockets())
            })
        })
        .await;
        println!("following the new primary after {:?}", Moment::now().since(began));
        assert_eq!(replication::follow(&third.paths, &conf, &p3, 150_000).await.unwrap(), Followed::Already);
        s2.simple("CREATE TABLE public.t (i int)").await.unwrap();
        caught_up(&s2, &s3).await;
        let process::Found::Running(same) = process::find(&third.paths).unwrap() else { panic!("gone") };
        assert_eq!((same.pid(), same.started()), (p3.pid(), p3.started()));
        assert_eq!(
            replication::follow(&third.paths, &third.conf(None), &p3, 120_000).await.unwrap(),
            Followed::NeedsRestart
        );
        conf::save_copies(&third.paths).unwrap();
    });
}

/// P257, P258: slots on the primary and on a standby; they go forward only.
#[test]
fn slots_are_created_advanced_and_dropped() {
    real(async |bench: &Bench| {
        let (primary, _p1, s1) = bench.primary("n1").await;
        let (_standby, _p2, s2) = bench.standby("n2", &primary).await;
        for session in [&s1, &s2] {
            slots::create(session, "n3").await.unwrap();
            slots::create(session, "n3").await.unwrap();
        }
        let of = async |session: &Session| session.look().await.unwrap().slots.first().cloned();
        let before = of(&s2).await.unwrap().restart.unwrap();
        s1.simple("CREATE TABLE public.t (i int); SELECT pg_switch_wal()").await.unwrap();
        caught_up(&s1, &s2).await;
        let replayed = s2.look().await.unwrap().replayed;
        slots::advance(&s2, "n3", replayed).await.unwrap();
        assert!(of(&s2).await.unwrap().restart.unwrap() > before);
        let there = of(&s2).await.unwrap().restart;
        slots::advance(&s2, "n3", Lsn(before)).await.unwrap();
        assert_eq!(of(&s2).await.unwrap().restart, there);
        slots::drop_slot(&s2, "n3").await.unwrap();
        slots::drop_slot(&s2, "n3").await.unwrap();
        assert_eq!(of(&s2).await, None);
    });
}
