//! Starting, adopting, killing, restarting in place, promoting.

use std::time::Duration;

use dcs::{Moment, Timeline};
use rustix::process::Signal;

use super::bench::{LONG, until, working_in};
use super::{Bench, real};
use crate::command::Program;
use crate::postgres::conf::Conf;
use crate::postgres::controldata::{self, State};
use crate::postgres::run::{self, RunError, Start, Stop};
use crate::postgres::{Found, conf, process, timelines};

/// P162: what runs is found again, and is the same process.
#[test]
fn a_running_server_is_adopted_and_stopped_cleanly() {
    real(async |bench: &Bench| {
        let (node, postmaster, session) = bench.primary("n1").await;
        let Found::Running(adopted) = process::find(&node.paths).unwrap() else { panic!("not found") };
        assert_eq!((adopted.pid(), adopted.started()), (postmaster.pid(), postmaster.started()));
        assert_eq!(controldata::head(&node.paths.data_dir).unwrap().state, State::InProduction);
        drop(session);
        let began = Moment::now();
        let halted = run::stop(&node.paths, &adopted, Stop::Fast, LONG).await.unwrap();
        println!("fast stop: {:?}", Moment::now().since(began));
        assert_eq!(halted.killed, None);
        let data = controldata::read(&node.paths).await.unwrap();
        let head = controldata::head(&node.paths.data_dir).unwrap();
        assert_eq!((data.state, head.state), (State::ShutDown, State::ShutDown));
        assert_eq!(
            (data.system_id, data.checkpoint, data.redo),
            (head.system_id, head.checkpoint, head.redo)
        );
        assert!(data.allows_rewind() && data.limits.len() == 5);
    });
}

/// P229, F26, F31: the postmaster is killed while its backends live on; all are killed, and the server
/// comes back in place on the same timeline with every committed row.
#[test]
fn a_killed_postmaster_leaves_nothing_and_restarts_in_place() {
    real(async |bench: &Bench| {
        let (mut node, postmaster, session) = bench.primary("n1").await;
        drop(session);
        run::stop(&node.paths, &postmaster, Stop::Fast, LONG).await.unwrap();
        // As in earnest: the time that a restart takes is mostly waiting for the disk.
        node.parameters.insert("fsync".into(), "on".into());
        node.follow(None);
        let (postmaster, session) = node.start(Start::Primary).await;
        session
            .simple("CREATE TABLE public.t (i int); INSERT INTO public.t SELECT generate_series(1, 1000)")
            .await
            .unwrap();
        let sleeper = node.session().await;
        let asleep = sleeper.simple_within("SET statement_timeout = 0; SELECT pg_sleep(600)", LONG);
        tokio::pin!(asleep);
        tokio::select! {
            _ = &mut asleep => panic!("it ended"),
            () = until("the sleeper sleeps", async || {
                let rows = session.simple("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'").await.unwrap();
                !rows.is_empty()
            }) => {}
        }
        let began = Moment::now();
        postmaster.signal(Signal::KILL).unwrap();
        postmaster.exited().await;
        println!("postmaster seen dead after {:?}", Moment::now().since(began));
        let proof = process::kill_all(&node.paths, LONG).await.unwrap();
        println!("everything gone after {:?}", Moment::now().since(began));
        assert_eq!(working_in(&node.paths.data_dir), Vec::<u32>::new());
        assert_eq!(proof.data_dir(), node.paths.data_dir);
        let line = conf::command_line(&node.parameters);
        let again = run::start(&node.paths, proof, Start::Primary, &line, || true).await.unwrap();
        run::wait_ready(&node.paths, &again, LONG).await.unwrap();
        let session = node.session().await;
        session.simple("INSERT INTO public.t VALUES (0)").await.unwrap();
        println!("writable again after {:?}", Moment::now().since(began));
        let look = session.look().await.unwrap();
        assert_eq!((look.in_recovery, look.timeline.0), (false, 1));
        assert_eq!(
            session.simple("SELECT count(*) FROM public.t").await.unwrap(),
            [[Some("1001".to_owned())]]
        );
    });
}

/// What an archive command started is found by its session even when its parent is gone.
#[test]
fn programs_that_the_server_started_are_killed_too() {
    real(async |bench: &Bench| {
        let (node, postmaster, session) = bench.primary("n1").await;
        session.simple("ALTER SYSTEM SET archive_command = 'sleep 601'").await.unwrap();
        session.simple("ALTER SYSTEM SET archive_mode = on").await.unwrap();
        drop(session);
        run::stop(&node.paths, &postmaster, Stop::Fast, LONG).await.unwrap();
        let (postmaster, session) = node.start(Start::Primary).await;
        session.simple("SELECT pg_switch_wal()").await.unwrap();
        let sleeping = || {
            let here = working_in(&node.paths.data_dir);
            here.into_iter()
                .filter(|pid| {
                    std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm == "sleep\n")
                })
                .count()
        };
        until("the archive command runs", async || sleeping() == 1).await;
        postmaster.signal(Signal::KILL).unwrap();
        process::kill_all(&node.paths, LONG).await.unwrap();
        assert_eq!(sleeping(), 0);
    });
}

/// A server that dies has lost its program before its working directory. It is waited for all the same: no look
/// finds the directory free while a process works in it. Giving up this server's memory takes long enough to be seen.
#[test]
fn a_dying_server_is_waited_for() {
    real(async |bench: &Bench| {
        let node = bench.node("n1");
        std::fs::create_dir(&node.paths.data_dir).unwrap();
        let large = bench.path("postgres");
        std::fs::copy("/bin/dd", &large).unwrap();
        let log = std::fs::File::create(bench.path("log")).unwrap();
        let server = Program::new(large)
            .args(["if=/dev/zero", "of=/dev/null", "bs=512M"])
            .in_dir(&node.paths.data_dir)
            .start_detached(log)
            .unwrap();
        let end = crate::command::pidfd::Pidfd::open(server).unwrap();
        let memory = || {
            let status = std::fs::read_to_string(format!("/proc/{server}/statm")).unwrap();
            status.split(' ').nth(1).unwrap().parse::<u64>().unwrap()
        };
        until("it has its memory", async || memory() * 4096 > 500 << 20).await;
        end.signal(Signal::KILL).unwrap();
        // Not by the pidfd: this is about one who looks at the table while it dies.
        while !matches!(process::find(&node.paths).unwrap(), Found::Nothing(_)) {}
        assert_eq!(working_in(&node.paths.data_dir), Vec::<u32>::new());
    });
}

/// F30: a stale pid file names a stranger. It is neither adopted nor signalled, and does not stop
/// the server from starting.
#[test]
fn a_stale_pid_file_hurts_nobody() {
    real(async |bench: &Bench| {
        let (node, postmaster, session) = bench.primary("n1").await;
        drop(session);
        postmaster.signal(Signal::KILL).unwrap();
        process::kill_all(&node.paths, LONG).await.unwrap();
        let log = std::fs::File::create(bench.path("log")).unwrap();
        let stranger = Program::new("sleep").arg("602").start_detached(log).unwrap();
        let stranger = crate::command::pidfd::Pidfd::open(stranger).map(|fd| (fd, stranger)).unwrap();
        let file = std::fs::read_to_string(node.paths.pid_file()).unwrap();
        let rest = file.split_once('\n').unwrap().1;
        std::fs::write(node.paths.pid_file(), format!("{}\n{rest}", stranger.1)).unwrap();
        assert!(matches!(process::find(&node.paths).unwrap(), Found::Nothing(_)));
        process::kill_all(&node.paths, LONG).await.unwrap();
        assert_eq!(process::stranger_in_pid_file(&node.paths), Some(stranger.1));
        node.start(Start::Primary).await;
        let alive = tokio::time::timeout(Duration::ZERO, stranger.0.exited()).await.is_err();
        stranger.0.signal(Signal::KILL).unwrap();
        assert!(alive, "the stranger was killed");
    });
}

/// P165 at the postmaster itself; P167 for what is written; a server in a session of its own.
#[test]
fn a_started_server_is_detached_and_knows_no_secrets_of_ours() {
    real(async |bench: &Bench| {
        let (node, postmaster, _session) = bench.primary("n1").await;
        let environment = std::fs::read(format!("/proc/{}/environ", postmaster.pid())).unwrap();
        let environment = String::from_utf8_lossy(&environment).into_owned();
        assert!(!environment.contains("PATRONI_") && !environment.contains("NOTIFY_SOCKET"));
        let pid = rustix::process::Pid::from_raw(postmaster.pid() as i32);
        assert_eq!(rustix::process::getsid(pid).unwrap(), pid.unwrap());
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(node.paths.conf()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    });
}

/// A failed start says why, in the server's own words, at once.
#[test]
fn a_start_that_fails_tells_the_servers_reason() {
    real(async |bench: &Bench| {
        let (node, postmaster, session) = bench.primary("n1").await;
        drop(session);
        let halted = run::stop(&node.paths, &postmaster, Stop::Immediate, LONG).await.unwrap();
        let mut line = conf::command_line(&node.parameters);
        line.insert("shared_preload_libraries".into(), "no_such_library".into());
        // It may have ended before it was looked at even once.
        let error = match run::start(&node.paths, halted.proof, Start::Primary, &line, || true).await {
            Ok(failed) => run::wait_ready(&node.paths, &failed, LONG).await.unwrap_err(),
            Err(error) => error,
        };
        assert!(matches!(error, RunError::Ended { .. }));
        assert!(error.to_string().contains("no_such_library"), "{error}");
    });
}

/// F05, F102: others have made timelines 2 to 4 already. The promotion makes 5, the marks are gone,
/// and a standby follows from 1 to 5.
#[test]
fn a_promotion_makes_a_timeline_that_nobody_has_made() {
    real(async |bench: &Bench| {
        let (primary, postmaster, session) = bench.primary("n1").await;
        let (standby, standby_postmaster, standby_session) = bench.standby("n2", &primary).await;
        session.simple("CREATE TABLE public.t (i int)").await.unwrap();
        let sent = session.look().await.unwrap();
        until("the table has arrived", async || standby_session.look().await.unwrap().replayed >= sent.flush)
            .await;
        run::stop(&primary.paths, &postmaster, Stop::Fast, LONG).await.unwrap();
        timelines::reserve(&standby.paths, Timeline(1), Timeline(4)).unwrap();
        run::promote(&standby.paths, &standby_postmaster, &standby_session, LONG, || true).await.unwrap();
        timelines::release(&standby.paths).unwrap();
        let look = standby_session.look().await.unwrap();
        assert_eq!((look.in_recovery, look.timeline), (false, Timeline(5)));
        let history = |number: u32| standby.paths.data_dir.join(format!("pg_wal/{number:08X}.history"));
        assert!(!history(2).exists() && !history(4).exists() && history(5).exists());
        standby_session.simple("INSERT INTO public.t VALUES (1)").await.unwrap();
        let (_, _, follower) = bench.standby("n3", &standby).await;
        assert_eq!(follower.simple("SELECT count(*) FROM public.t").await.unwrap(), [[Some("1".to_owned())]]);
    });
}

/// The way of a switchover: fast stop of the primary, the shutdown checkpoint seen early, promotion.
#[test]
fn a_standby_follows_and_is_promoted() {
    real(async |bench: &Bench| {
        let (primary, postmaster, session) = bench.primary("n1").await;
        session.simple("CREATE TABLE public.t (i int)").await.unwrap();
        let (standby, standby_postmaster, standby_session) = bench.standby("n2", &primary).await;
        session.simple("INSERT INTO public.t VALUES (1)").await.unwrap();
        let sent = session.look().await.unwrap();
        until("the row has arrived", async || standby_session.look().await.unwrap().replayed >= sent.flush)
            .await;
        let look = standby_session.look().await.unwrap();
        assert!(look.in_recovery && look.receiver.is_some_and(|receiver| receiver.status == "streaming"));
        drop(session);
        let began = Moment::now();
        run::stop(&primary.paths, &postmaster, Stop::Fast, LONG).await.unwrap();
        println!("primary stopped after {:?}", Moment::now().since(began));
        let head = controldata::head(&primary.paths.data_dir).unwrap();
        let promoting = Moment::now();
        run::promote(&standby.paths, &standby_postmaster, &standby_session, LONG, || true).await.unwrap();
        println!("promoted in {:?}, in all {:?}", Moment::now().since(promoting), Moment::now().since(began));
        standby_session.simple("INSERT INTO public.t VALUES (2)").await.unwrap();
        println!("written after {:?}", Moment::now().since(began));
        let look = standby_session.look().await.unwrap();
        assert_eq!((look.in_recovery, look.timeline.0), (false, 2));
        // The files of a primary are a change that it takes without complaint.
        let conf = Conf { recovery: None, ..standby.conf(None) };
        assert!(conf::write(&standby.paths, &conf).unwrap().any());
        run::reload(&standby_postmaster).unwrap();
        let log = || std::fs::read_to_string(&standby.paths.log).unwrap();
        until("it has reloaded", async || log().contains("received SIGHUP")).await;
        standby_session.simple("SELECT 1").await.unwrap();
        assert!(!log().contains("contains errors"), "{}", log());
        // Everything of the old primary, its shutdown checkpoint included, was received.
        assert!(look.write > head.checkpoint);
        assert_eq!(
            standby_session.simple("SELECT count(*) FROM public.t").await.unwrap(),
            [[Some("2".to_owned())]]
        );
        assert!(!standby.paths.standby_signal().exists());
    });
}

/// P227: a server that does not stop is killed at the deadline, and the proof is still a proof.
#[test]
fn a_server_that_does_not_stop_is_killed() {
    real(async |bench: &Bench| {
        let (node, postmaster, _session) = bench.primary("n1").await;
        for pid in working_in(&node.paths.data_dir) {
            let comm = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
            if comm.contains("checkpointer") {
                crate::command::pidfd::Pidfd::open(pid).unwrap().signal(Signal::STOP).unwrap();
            }
        }
        let halted =
            run::stop(&node.paths, &postmaster, Stop::Fast, Duration::from_millis(300)).await.unwrap();
        assert_eq!(halted.killed, Some("it did not stop in time"));
        assert_eq!(working_in(&node.paths.data_dir), Vec::<u32>::new());
    });
}

/// F38: a postmaster that a signal has stopped obeys none, and is killed at once, however long the deadline.
#[test]
fn a_frozen_server_is_killed_at_once() {
    real(async |bench: &Bench| {
        for how in [Stop::Fast, Stop::Immediate] {
            let name = format!("{how:?}").to_lowercase();
            let (node, postmaster, _session) = bench.primary(&name).await;
            assert!(!postmaster.is_frozen());
            postmaster.signal(Signal::STOP).unwrap();
            until("it is seen as stopped", async || postmaster.is_frozen()).await;
            let began = Moment::now();
            let halted = run::stop(&node.paths, &postmaster, how, LONG).await.unwrap();
            assert_eq!(halted.killed, Some("a signal has stopped its postmaster (state T)"));
            assert!(Moment::now().since(began) < Duration::from_secs(2));
            assert_eq!(working_in(&node.paths.data_dir), Vec::<u32>::new());
        }
    });
}

/// F28, F36: a server that may take writes is killed at its lease's hard deadline, and one without any lease
/// after a while, by the lease thread alone: no turn of the node is needed.
#[test]
fn a_writable_server_does_not_outlive_its_lease() {
    use std::sync::Arc;

    use crate::lease::{Flags, Tenure, deadline};
    real(async |bench: &Bench| {
        let (node, postmaster, session) = bench.primary("n1").await;
        drop(session);
        let (tenure, mut told) = tokio::sync::watch::channel(Tenure::default());
        let tenure = Arc::new(tenure);
        let flags = Arc::new(Flags::default());
        let (_grace, given) = tokio::sync::watch::channel(Duration::from_millis(300));
        let mut enforcing = tokio::task::JoinSet::new();
        let paths = node.paths.clone();
        enforcing.spawn(deadline::enforce(Arc::clone(&tenure), Arc::clone(&flags), paths, given));
        let held = |left: Duration| coordinator::Held {
            epoch: dcs::Epoch(1),
            revision: dcs::Revision(1),
            soft: Moment::now(),
            hard: Moment::now() + left,
        };
        // Not armed: nothing is killed, whatever the deadline.
        tenure.send_modify(|tenure| tenure.held = Some(held(Duration::ZERO)));
        assert!(tokio::time::timeout(Duration::from_millis(400), postmaster.exited()).await.is_err());
        tenure.send_modify(|tenure| tenure.held = Some(held(Duration::from_millis(500))));
        flags.arm(&node.paths);
        let armed = Moment::now();
        postmaster.exited().await;
        assert!(Moment::now().since(armed) >= Duration::from_millis(400));
        told.wait_for(|tenure| tenure.fenced == 1 && tenure.held.is_none()).await.unwrap();
        assert!(!flags.armed() && working_in(&node.paths.data_dir).is_empty());
        // Without any lease.
        let line = conf::command_line(&node.parameters);
        let proof = process::kill_all(&node.paths, LONG).await.unwrap();
        let again = run::start(&node.paths, proof, Start::Primary, &line, || true).await.unwrap();
        flags.arm(&node.paths);
        again.exited().await;
        told.wait_for(|tenure| tenure.fenced == 2).await.unwrap();
    });
}

/// F50: what authorised a start or a promotion is asked for once more immediately before it.
#[test]
fn nothing_becomes_writable_too_late() {
    real(async |bench: &Bench| {
        let (node, postmaster, session) = bench.primary("n1").await;
        let (standby, standby_postmaster, standby_session) = bench.standby("n2", &node).await;
        let promoted =
            run::promote(&standby.paths, &standby_postmaster, &standby_session, LONG, || false).await;
        assert!(matches!(promoted, Err(RunError::TooLate)), "{promoted:?}");
        assert!(standby_session.look().await.unwrap().in_recovery);
        assert!(!standby.paths.data_dir.join("promote").exists());
        drop(session);
        let halted = run::stop(&node.paths, &postmaster, Stop::Fast, LONG).await.unwrap();
        let line = conf::command_line(&node.parameters);
        let started = run::start(&node.paths, halted.proof, Start::Primary, &line, || false).await;
        assert!(matches!(started, Err(RunError::TooLate)), "{started:?}");
        assert_eq!(working_in(&node.paths.data_dir), Vec::<u32>::new());
    });
}

/// F38: a stopped postmaster lets nobody in, although an open session answers.
#[test]
fn a_shut_door_is_noticed() {
    use crate::postgres::door;
    real(async |bench: &Bench| {
        let (node, postmaster, session) = bench.primary("n1").await;
        door::knock(&node.target(), LONG).await.unwrap();
        postmaster.signal(Signal::STOP).unwrap();
        assert!(!session.look().await.unwrap().in_recovery);
        let shut = door::knock(&node.target(), Duration::from_millis(300)).await.unwrap_err();
        assert_eq!(shut.kind(), std::io::ErrorKind::TimedOut);
        postmaster.signal(Signal::CONT).unwrap();
        door::knock(&node.target(), LONG).await.unwrap();
    });
}
