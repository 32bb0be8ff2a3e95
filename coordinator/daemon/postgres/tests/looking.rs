//! Sessions, looks, roles.

use std::collections::BTreeMap;
use std::time::Duration;

use config::Secret;
use dcs::Moment;

use super::bench::{LONG, until};
use super::{Bench, real};
use crate::postgres::parameters::{Catalog, pending_restart};
use crate::postgres::query::{QueryError, Terms};
use crate::postgres::{Session, files, process, roles, run};

#[test]
fn a_look_tells_everything_of_a_primary() {
    real(async |bench: &Bench| {
        let (node, _postmaster, session) = bench.primary("n1").await;
        session.simple("SELECT pg_create_physical_replication_slot('n2', true)").await.unwrap();
        let (_standby, _standby_postmaster, standby_session) = bench.standby("n2", &node).await;
        until("it streams", async || {
            session
                .look()
                .await
                .unwrap()
                .senders
                .iter()
                .any(|sender| sender.application_name == "n2" && sender.flush.is_some())
        })
        .await;
        let look = session.look().await.unwrap();
        assert!(!look.in_recovery && look.write >= look.flush && look.flush.0 > 0);
        assert_eq!((look.timeline.0, look.received.0, look.receiver.clone()), (1, 0, None));
        let sender = look.senders.iter().find(|sender| sender.application_name == "n2").unwrap();
        assert_eq!(
            (sender.state.as_deref(), sender.sync_state.as_deref()),
            (Some("streaming"), Some("async"))
        );
        let slot = look.slots.first().unwrap();
        assert_eq!((slot.name.as_str(), slot.kind.as_str(), slot.active), ("n2", "physical", false));
        assert!(slot.restart.is_some() && slot.wal_status.as_deref() == Some("reserved"));
        let there = standby_session.look().await.unwrap();
        assert!(there.in_recovery && there.write.0 == 0 && there.received.0 > 0 && !there.replay_paused);
        assert_eq!((there.system_id, there.timeline), (look.system_id, look.timeline));
        assert_eq!(there.receiver.unwrap().sender_host.as_deref(), Some(node.sockets()));
        let began = Moment::now();
        for _ in 0..200 {
            session.look().await.unwrap();
        }
        println!("one look: {:?}", Moment::now().since(began) / 200);
        let began = Moment::now();
        node.session().await;
        println!("one connect: {:?}", Moment::now().since(began));
    });
}

/// F112: no wait is unbounded, and a session in which a question hangs says that it is useless.
#[test]
fn a_hung_server_is_given_up_in_time() {
    real(async |bench: &Bench| {
        let (node, postmaster, session) = bench.primary("n1").await;
        let began = Moment::now();
        postmaster.signal(rustix::process::Signal::STOP).unwrap();
        let terms = Terms { deadline: Duration::from_millis(200), ..Terms::default() };
        let error = Session::open(&node.target(), terms).await.unwrap_err();
        assert!(matches!(error, QueryError::Connect { .. }), "{error}");
        let error =
            session.simple_within("SELECT pg_sleep(1)", Duration::from_millis(100)).await.unwrap_err();
        assert!(matches!(error, QueryError::TimedOut(_)) && !session.is_usable());
        assert!(Moment::now().since(began) < Duration::from_secs(5));
        process::kill_all(&node.paths, LONG).await.unwrap();
    });
}

/// The end of the server ends the session.
#[test]
fn a_session_notices_the_servers_end() {
    real(async |bench: &Bench| {
        let (node, postmaster, session) = bench.primary("n1").await;
        run::stop(&node.paths, &postmaster, run::Stop::Immediate, LONG).await.unwrap();
        until("the session knows", async || !session.is_usable()).await;
        let error = Session::open(&node.target(), Terms::default()).await.unwrap_err();
        assert!(error.to_string().contains("no connection to Postgres at"), "{error}");
    });
}

/// P193, and no password in the server's log.
#[test]
fn roles_are_made_and_changed_and_their_passwords_stay_secret() {
    real(async |bench: &Bench| {
        let (node, _postmaster, session) = bench.primary("n1").await;
        session.simple("ALTER SYSTEM SET log_statement = 'all'").await.unwrap();
        session.simple("SELECT pg_reload_conf()").await.unwrap();
        let log = || std::fs::read_to_string(&node.paths.log).unwrap();
        until("statements are logged", async || {
            session.simple("SELECT 'seen-in-log'").await.unwrap();
            log().contains("seen-in-log")
        })
        .await;
        let (first, second) = (Secret::new("hush'1\\".into()), Secret::new("hush2".into()));
        roles::ensure(&session, "replicator", Some(&first), &["REPLICATION"]).await.unwrap();
        roles::ensure(&session, "replicator", Some(&second), &["REPLICATION"]).await.unwrap();
        roles::ensure(&session, "Rewind \"er\"", Some(&second), &[]).await.unwrap();
        roles::grant_rewind(&session, "Rewind \"er\"").await.unwrap();
        let failed = roles::ensure(&session, "x", Some(&second), &["NONSENSE"]).await.unwrap_err();
        assert!(!failed.to_string().contains("hush"), "{failed}");
        let rows = session
            .simple("SELECT rolname, rolreplication, rolsuper, rolcanlogin FROM pg_roles WHERE rolname ~* 'rep|rew' ORDER BY 1")
            .await
            .unwrap();
        let rows: Vec<String> =
            rows.iter().map(|row| row.iter().flatten().cloned().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(rows, ["Rewind \"er\" f f t", "replicator t f t"]);
        session.simple("SELECT 'end-of-log'").await.unwrap();
        until("the log is written", async || log().contains("end-of-log")).await;
        assert!(!log().contains("hush"), "{}", log());
    });
}

/// P134: a server that takes only encrypted logins, with its certificate checked or not.
#[test]
fn sessions_are_encrypted_as_asked() {
    real(async |bench: &Bench| {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate =
            rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap().self_signed(&key).unwrap();
        let (node, postmaster, session) = bench.primary("n1").await;
        let (cert_file, key_file) = (bench.path("server.crt"), bench.path("server.key"));
        files::write(&cert_file, certificate.pem().as_bytes(), 0o600).unwrap();
        files::write(&key_file, key.serialize_pem().as_bytes(), 0o600).unwrap();
        for (name, value) in [
            ("ssl", "on"),
            ("ssl_cert_file", cert_file.to_str().unwrap()),
            ("ssl_key_file", key_file.to_str().unwrap()),
        ] {
            session.simple(&format!("ALTER SYSTEM SET {name} = '{value}'")).await.unwrap();
        }
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        session.simple("ALTER SYSTEM SET listen_addresses = '127.0.0.1'").await.unwrap();
        drop(session);
        files::write(&node.paths.hba(), b"local all all trust\nhostssl all all 127.0.0.1/32 trust\n", 0o600)
            .unwrap();
        let halted = run::stop(&node.paths, &postmaster, run::Stop::Fast, LONG).await.unwrap();
        let mut line = crate::postgres::conf::command_line(&node.parameters);
        line.insert("port".into(), free.to_string());
        line.remove("listen_addresses");
        // The node's own file says '' for the addresses; the command line wins.
        line.insert("listen_addresses".into(), "127.0.0.1".into());
        let postmaster =
            run::start(&node.paths, halted.proof, run::Start::Primary, &line, || true).await.unwrap();
        run::wait_ready(&node.paths, &postmaster, LONG).await.unwrap();
        let ask = async |host: &str, options: &[(&str, &str)]| {
            let mut target = node.target();
            (target.host, target.port) = (host.into(), free);
            target.login.options = options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            let session = Session::open(&target, Terms::default()).await?;
            let rows = session.simple("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").await?;
            Ok::<_, QueryError>(rows.concat().into_iter().flatten().collect::<String>())
        };
        let root = cert_file.to_str().unwrap();
        // Unset: the plain attempt is refused by pg_hba, the encrypted one is not.
        assert_eq!(ask("127.0.0.1", &[]).await.unwrap(), "t");
        assert_eq!(ask("127.0.0.1", &[("sslmode", "require")]).await.unwrap(), "t");
        assert_eq!(
            ask("localhost", &[("sslmode", "verify-full"), ("sslrootcert", root)]).await.unwrap(),
            "t"
        );
        assert_eq!(ask("127.0.0.1", &[("sslmode", "verify-ca"), ("sslrootcert", root)]).await.unwrap(), "t");
        let wrong_name =
            ask("127.0.0.1", &[("sslmode", "verify-full"), ("sslrootcert", root)]).await.unwrap_err();
        assert!(wrong_name.to_string().contains("certificate"), "{wrong_name}");
        let other = rcgen::KeyPair::generate().unwrap();
        let other =
            rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap().self_signed(&other).unwrap();
        let stranger = bench.path("other.crt");
        files::write(&stranger, other.pem().as_bytes(), 0o600).unwrap();
        let options = [("sslmode", "require"), ("sslrootcert", stranger.to_str().unwrap())];
        assert!(ask("localhost", &options).await.is_err());
        let plain = ask("127.0.0.1", &[("sslmode", "disable")]).await.unwrap_err();
        assert_eq!(plain.code(), Some("28000"), "{plain}");
    });
}

/// P142, P143: the installed server says what it knows and takes.
#[test]
fn parameters_are_fitted_to_the_server() {
    real(async |bench: &Bench| {
        let (node, _postmaster, _session) = bench.primary("n1").await;
        let catalog = Catalog::read(&node.paths).await.unwrap();
        let mut parameters = BTreeMap::from(
            [
                ("autovacuum_naptime", "0"),
                ("no_such_parameter", "1"),
                // Not in the catalog, and yet known.
                ("zero_damaged_pages", "off"),
                ("my.extension", "x"),
                ("work_mem", "8MB"),
            ]
            .map(|(k, v)| (k.to_owned(), v.to_owned())),
        );
        let changes = catalog.fit(&node.paths, &mut parameters).await.unwrap();
        assert_eq!(changes.len(), 2, "{changes:?}");
        assert_eq!(parameters.get("autovacuum_naptime").map(String::as_str), Some("1"));
        let left: Vec<_> = parameters.keys().map(String::as_str).collect();
        assert_eq!(left, ["autovacuum_naptime", "my.extension", "work_mem", "zero_damaged_pages"]);
    });
}

/// P150: what waits for a restart, with both values, also for what is on the command line.
#[test]
fn parameters_that_wait_for_a_restart_are_found() {
    real(async |bench: &Bench| {
        let (node, _postmaster, session) = bench.primary("n1").await;
        assert_eq!(pending_restart(&session, &node.parameters).await.unwrap(), BTreeMap::new());
        let mut wanted = node.parameters.clone();
        wanted.insert("shared_buffers".into(), "24MB".into());
        wanted.insert("max_connections".into(), "50".into());
        wanted.insert("work_mem".into(), "64MB".into());
        let waiting = pending_restart(&session, &wanted).await.unwrap();
        let waiting: Vec<String> =
            waiting.iter().map(|(name, w)| format!("{name}: {}->{}", w.old, w.new)).collect();
        assert_eq!(waiting, ["max_connections: 30->50", "shared_buffers: 16MB->24MB"]);
    });
}
