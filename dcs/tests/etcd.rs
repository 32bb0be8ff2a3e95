//! What is true of etcd only: servers that start late, stop, freeze, forget or are
//! replaced; users, certificates and addresses. Everything runs on real servers.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

mod ground;

use std::path::Path;
use std::time::Duration;

use config::{Endpoints, EtcdConfig, Secret, StoreConfig};
use dcs::{Dcs, Keys, Lsn, Moment, Place, RenewError, Status, StoreError};
use etcd_client::Permission;
use ground::servers::{Server, one};
use ground::{Follower, Ground, Kind, PATIENCE, name, raw, view, won};

const TTL: Duration = Duration::from_secs(10);

fn at(lsn: u64) -> Status {
    Status { optime: Some(Lsn(lsn)), ..Status::default() }
}

async fn write(dcs: &Dcs, lsn: u64) {
    dcs.write_status(&at(lsn)).await.unwrap();
}

async fn sees(follower: &mut Follower, lsn: u64) {
    let what = format!("status {lsn}");
    follower.sees(&what, |seen| seen.reachable && view(seen, |view| view.status == at(lsn))).await;
}

fn settings(urls: &[&str], fixed: bool) -> EtcdConfig {
    let urls = urls.iter().map(|url| (*url).to_owned()).collect();
    EtcdConfig {
        endpoints: Endpoints::Listed { urls, fixed },
        user: None,
        cacert: None,
        cert: None,
        key: None,
    }
}

async fn connect(config: EtcdConfig, patience: Duration) -> Dcs {
    Dcs::connect(&StoreConfig::Etcd(config), Keys::new("service", "batman"), patience).await.unwrap()
}

/// P044: nothing listens yet. Verbs say so in time; whoever follows goes on once it is there.
#[tokio::test]
async fn a_server_that_starts_late_is_waited_for() {
    let mut server = Server::new("http", &[]);
    let dcs = connect(settings(&[&server.url], false), Duration::from_millis(600)).await;
    let mut follower = Follower::new(&dcs);
    let asked = Moment::now();
    assert!(matches!(dcs.load().await, Err(StoreError::Unreachable(_))));
    assert!(matches!(dcs.write_status(&at(1)).await, Err(StoreError::Unreachable(_))), "nothing was sent");
    assert!(Moment::now().since(asked) < Duration::from_secs(3));
    assert!(!follower.seen.borrow().reachable);
    server.start();
    follower.sees("an empty cluster", |seen| seen.reachable && seen.view.is_some()).await;
    dcs.set_patience(PATIENCE);
    write(&dcs, 2).await;
    sees(&mut follower, 2).await;
}

/// F75: history is compacted while the server is away from us; nothing is missed.
#[tokio::test]
async fn a_watch_survives_compaction_and_restart() {
    let (mut server, config) = one();
    let ground = Ground::new(Kind::Etcd(config));
    let dcs = ground.node().await;
    let mut follower = Follower::new(&dcs);
    write(&dcs, 1).await;
    sees(&mut follower, 1).await;

    server.kill();
    follower.sees("the loss", |seen| !seen.reachable).await;
    dcs.set_patience(Duration::from_millis(300));
    assert!(matches!(dcs.load().await, Err(StoreError::Unreachable(_))));
    dcs.set_patience(PATIENCE);
    server.start();
    // Written and compacted before the follower may have come back.
    for lsn in 2..=5 {
        ground.put(&Place::Status, &lsn.to_string()).await;
    }
    ground.compact().await;
    sees(&mut follower, 5).await;
    write(&dcs, 6).await;
    ground.compact().await;
    write(&dcs, 7).await;
    sees(&mut follower, 7).await;
}

/// F76: a frozen server keeps its connections open and says nothing. That must be noticed and survived.
#[tokio::test]
async fn a_silent_server_is_noticed() {
    let (server, config) = one();
    let dcs = Ground::new(Kind::Etcd(config)).node().await;
    let me = name("n1");
    let session = dcs.open_session(TTL).await.unwrap();
    let leadership = won(&dcs, &me, &session).await;
    let mut follower = Follower::new(&dcs);
    follower.sees("the leader", |seen| view(seen, |view| view.leader.is_some())).await;
    server.freeze(true);
    let asked = Moment::now();
    let frozen = asked;
    let failed = dcs.renew(&session, &leadership).await;
    assert!(matches!(failed, Err(RenewError::Store(StoreError::Unreachable(_)))), "{failed:?}");
    assert!(Moment::now().since(asked) < session.pace() * 2, "one attempt takes at most ttl/10");
    dcs.set_patience(Duration::from_secs(1));
    let unknown = dcs.write_status(&at(1)).await;
    assert!(matches!(unknown, Err(StoreError::Unknown(_) | StoreError::Unreachable(_))), "{unknown:?}");
    // A leader goes on trying, and each failure raises a doubt: that must not put the verdict off.
    tokio::select! {
        _ = follower.sees("the loss", |seen| !seen.reachable) => {}
        () = async { while dcs.renew(&session, &leadership).await.is_err() {} } => panic!("a frozen server answered"),
    }
    let noticed = Moment::now().since(frozen);
    assert!(noticed < Duration::from_secs(7), "noticed after {noticed:?}");
    server.freeze(false);
    dcs.set_patience(PATIENCE);
    follower.sees("the return", |seen| seen.reachable).await;
    write(&dcs, 2).await;
    sees(&mut follower, 2).await;
    dcs.renew(&session, &leadership).await.unwrap();
}

/// P042: any one of three servers stops or freezes; the lease is renewed in time and nothing is missed.
#[tokio::test]
async fn one_of_three_servers_may_fail() {
    let mut servers = Server::cluster(3);
    servers.iter_mut().for_each(Server::start);
    // One address is told; the others are learnt from the cluster.
    let config = ground::etcd(std::slice::from_ref(&servers[0].url));
    drop(raw(&config).await);
    let ground = Ground::new(Kind::Etcd(config));
    let dcs = ground.node().await;
    let me = name("n1");
    let mut follower = Follower::new(&dcs);
    // Whoever renews has connections of its own and follows nothing.
    let keeper = ground.node().await;
    let session = keeper.open_session(TTL).await.unwrap();
    let leadership = won(&keeper, &me, &session).await;
    follower.sees("the leader", |seen| view(seen, |view| view.leader.is_some())).await;
    let mut lsn = 0;
    for (index, kill) in [(0, true), (1, true), (2, true), (0, false), (1, false), (2, false)] {
        if kill {
            servers[index].kill();
        } else {
            servers[index].freeze(true);
        }
        let broken = Moment::now();
        while let Err(error) = keeper.renew(&session, &leadership).await {
            assert!(matches!(error, RenewError::Store(_)), "{error}");
            let lost = Moment::now().since(session.renewed());
            assert!(
                lost < Duration::from_millis(8500),
                "no renewal for {lost:?} after server {index}: {error}"
            );
        }
        lsn += 1;
        while let Err(error) = dcs.write_status(&at(lsn)).await {
            assert!(Moment::now().since(broken) < Duration::from_secs(15), "{error}");
        }
        sees(&mut follower, lsn).await;
        if kill {
            servers[index].start();
        } else {
            servers[index].freeze(false);
        }
        // Back in the cluster before the next one fails.
        drop(raw(&ground::etcd(std::slice::from_ref(&servers[index].url))).await);
    }
    assert_eq!(dcs.load().await.unwrap().leader.unwrap().epoch, leadership.epoch());
}

/// F73: the server comes back empty. It is another store, and nothing in it is believed.
#[tokio::test]
async fn a_replaced_store_is_not_believed() {
    let (mut server, _) = one();
    let dcs = connect(settings(&[&server.url], false), PATIENCE).await;
    let mut follower = Follower::new(&dcs);
    write(&dcs, 7).await;
    sees(&mut follower, 7).await;
    server.destroy();
    // Without this, etcd derives the same cluster id from the same addresses.
    server.add_args(&["--initial-cluster-token", "another"]);
    server.start();
    drop(raw(&ground::etcd(std::slice::from_ref(&server.url))).await);
    dcs.set_patience(Duration::from_secs(2));
    let refused = dcs.load().await.unwrap_err();
    assert!(refused.to_string().contains("another store"), "{refused}");
    assert!(dcs.write_status(&at(8)).await.is_err());
    assert!(!follower.seen.borrow_and_update().reachable);
    assert_eq!(follower.seen.borrow().view.as_ref().unwrap().status, at(7));
    // A node that starts afresh uses what is there.
    let fresh = connect(settings(&[&server.url], false), PATIENCE).await;
    assert_eq!(fresh.load().await.unwrap().status, Status::default());
}

/// F74, F80: the same cluster id, but an older revision: a restored backup, or a stale answer.
#[tokio::test]
async fn a_store_from_the_past_is_not_believed() {
    let (mut server, _) = one();
    let dcs = connect(settings(&[&server.url], false), PATIENCE).await;
    for lsn in 1..=20 {
        write(&dcs, lsn).await;
    }
    server.destroy();
    server.start();
    drop(raw(&ground::etcd(std::slice::from_ref(&server.url))).await);
    dcs.set_patience(Duration::from_secs(2));
    let refused = dcs.load().await.unwrap_err();
    assert!(matches!(refused, StoreError::Regressed { .. }), "{refused}");
}

/// P040: users, tokens that expire, a server that starts again and has forgotten all tokens.
#[tokio::test]
async fn users_are_logged_in_again() {
    let mut server = Server::new("http", &["--auth-token-ttl", "1"]);
    server.start();
    let mut admin = raw(&ground::etcd(std::slice::from_ref(&server.url))).await;
    admin.user_add("root", "rootpw", None).await.unwrap();
    admin.role_add("root").await.unwrap();
    admin.user_grant_role("root", "root").await.unwrap();
    admin.user_add("batman", "robin", None).await.unwrap();
    admin.role_add("service").await.unwrap();
    let permission = Permission::read_write("/service/").with_prefix();
    admin.role_grant_permission("service", permission).await.unwrap();
    admin.user_grant_role("batman", "service").await.unwrap();

    let url = server.url.clone();
    let login = |password: &str| {
        let user = Some(("batman".to_owned(), Secret::new(password.to_owned())));
        EtcdConfig { user, ..settings(&[&url], false) }
    };
    // A user is configured before etcd asks for one.
    let early = connect(login("robin"), PATIENCE).await;
    write(&early, 1).await;
    admin.auth_enable().await.unwrap();
    write(&early, 2).await;

    let dcs = connect(login("robin"), PATIENCE).await;
    let mut follower = Follower::new(&dcs);
    sees(&mut follower, 2).await;
    let session = dcs.open_session(TTL).await.unwrap();
    let leadership = won(&dcs, &name("n1"), &session).await;
    // The simple token's ttl is 1 s, prolonged by use: an idle 2 s ends it.
    tokio::time::sleep(Duration::from_secs(2)).await;
    dcs.renew(&session, &leadership).await.unwrap();
    write(&dcs, 3).await;
    server.kill();
    server.start();
    let since = session.renewed();
    while let Err(error) = dcs.renew(&session, &leadership).await {
        assert!(Moment::now().since(since) < Duration::from_secs(8), "{error}");
    }
    write(&dcs, 4).await;
    sees(&mut follower, 4).await;

    for stranger in [login("wrong"), settings(&[&server.url], false)] {
        let refused = connect(stranger, PATIENCE).await.load().await;
        assert!(matches!(refused, Err(StoreError::Auth(_))), "{refused:?}");
    }
    let elsewhere =
        Dcs::connect(&StoreConfig::Etcd(login("robin")), Keys::new("other", "batman"), PATIENCE).await;
    let refused = elsewhere.unwrap().load().await;
    assert!(matches!(refused, Err(StoreError::Auth(_))), "{refused:?}");
}

/// A certificate authority and what it signs, as PEM files in a server's directory.
struct Authority(rcgen::CertifiedIssuer<'static, rcgen::KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        Self(rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().unwrap()).unwrap())
    }

    fn save(&self, to: &Path) {
        std::fs::write(to, self.0.pem()).unwrap();
    }

    /// A certificate for `host`, good for servers and clients, and its key.
    fn sign(&self, host: &str, cert: &Path, key: &Path) {
        let mut params = rcgen::CertificateParams::new(vec![host.to_owned()]).unwrap();
        params.extended_key_usages =
            vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth, rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        let pair = rcgen::KeyPair::generate().unwrap();
        std::fs::write(cert, params.signed_by(&pair, &self.0).unwrap().pem()).unwrap();
        std::fs::write(key, pair.serialize_pem()).unwrap();
    }
}

/// P041, F84: TLS both ways; a wrong certificate is refused, and replaced on disk it is used at once.
#[tokio::test]
async fn certificates_are_checked_both_ways() {
    let mut server = Server::new("https", &[]);
    let (ours, theirs) = (Authority::new(), Authority::new());
    let file = |name: &str| server.path(name);
    ours.save(&file("ca.pem"));
    theirs.save(&file("other-ca.pem"));
    ours.sign(server.host(), &file("server.pem"), &file("server.key"));
    ours.sign("client", &file("good.pem"), &file("good.key"));
    theirs.sign("client", &file("client.pem"), &file("client.key"));
    let args = [
        ("--cert-file", file("server.pem")),
        ("--key-file", file("server.key")),
        ("--trusted-ca-file", file("ca.pem")),
    ];
    let path = |name: &str| Some(file(name));
    let with = |ca: &str, cert: Option<&str>| EtcdConfig {
        cacert: path(ca),
        cert: cert.and_then(|name| path(&format!("{name}.pem"))),
        key: cert.and_then(|name| path(&format!("{name}.key"))),
        ..settings(&[&server.url], false)
    };
    let (good, wrong_ca, without) =
        (with("ca.pem", Some("client")), with("other-ca.pem", Some("good")), with("ca.pem", None));
    let (client, good_files) = (["client.pem", "client.key"].map(file), ["good.pem", "good.key"].map(file));
    for (option, value) in args {
        server.add_args(&[option, value.to_str().unwrap()]);
    }
    server.add_args(&["--client-cert-auth"]);
    server.start();

    let dcs = connect(good, Duration::from_secs(2)).await;
    // Signed by somebody else: refused until the file is replaced.
    let refused = dcs.write_status(&at(1)).await;
    assert!(refused.is_err());
    for (from, to) in good_files.iter().zip(&client) {
        std::fs::copy(from, to).unwrap();
    }
    dcs.set_patience(PATIENCE);
    write(&dcs, 2).await;
    let mut follower = Follower::new(&dcs);
    sees(&mut follower, 2).await;
    for stranger in [wrong_ca, without] {
        let refused = connect(stranger, Duration::from_secs(1)).await.load().await;
        assert!(refused.is_err(), "{refused:?}");
    }
    let missing = EtcdConfig { cacert: Some("/nowhere/ca.pem".into()), ..settings(&[&server.url], false) };
    let refused = connect(missing, Duration::from_secs(1)).await.load().await.unwrap_err();
    assert!(refused.to_string().contains("/nowhere/ca.pem"), "{refused}");
}

/// P041: one self-signed certificate that is authority and server at once, as `openssl req -x509` makes it, is believed
/// where the configuration names it, under its own name only.
#[tokio::test]
async fn a_self_signed_certificate_is_believed_where_it_is_named() {
    for is_ours in [true, false] {
        let mut server = Server::new("https", &[]);
        let file = |name: &str| server.path(name);
        let name = if is_ours { server.host().to_owned() } else { "elsewhere.example".to_owned() };
        let mut params = rcgen::CertificateParams::new(vec![name]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let pair = rcgen::KeyPair::generate().unwrap();
        std::fs::write(file("self.pem"), params.self_signed(&pair).unwrap().pem()).unwrap();
        std::fs::write(file("self.key"), pair.serialize_pem()).unwrap();
        let config = EtcdConfig { cacert: Some(file("self.pem")), ..settings(&[&server.url], false) };
        let (cert, key) = (file("self.pem"), file("self.key"));
        server.add_args(&["--cert-file", cert.to_str().unwrap(), "--key-file", key.to_str().unwrap()]);
        server.start();
        if is_ours {
            write(&connect(config, PATIENCE).await, 1).await;
        } else {
            // A server that still starts refuses every connection, whatever its certificate.
            let dcs = connect(config, Duration::from_secs(1)).await;
            let asked = Moment::now();
            loop {
                let refused = dcs.load().await.unwrap_err().to_string();
                if refused.contains("not valid for") {
                    break;
                }
                assert!(Moment::now().since(asked) < PATIENCE, "{refused}");
            }
        }
    }
}

/// P043: every way in which a file may say where etcd is (`srv` is tested beside its code).
#[tokio::test]
async fn every_form_of_address_connects() {
    let (server, config) = one();
    drop(raw(&config).await);
    let (host, port) = (server.host(), server.port);
    for form in [
        format!("host: {host}:{port}"),
        format!("host: {host}\n  port: {port}"),
        format!("hosts: {host}:{port}"),
        format!("hosts: {host}:1,{host}:{port}"),
        format!("hosts:\n  - {host}:1\n  - {host}:{port}"),
        format!("url: http://{host}:{port}"),
        format!("proxy: http://{host}:{port}"),
        format!("hosts: {host}:{port}\n  use_proxies: true"),
        format!("protocol: http\n  host: {host}:{port}"),
    ] {
        for section in ["etcd", "etcd3"] {
            let yaml = format!(
                "scope: batman\nname: n1\n{section}:\n  {form}\nrestapi:\n  listen: 127.0.0.1:8008\n  connect_address: 127.0.0.1:8008\npostgresql:\n  listen: 127.0.0.1:5432\n  connect_address: 127.0.0.1:5432\n  data_dir: /nowhere/data\n  authentication:\n    superuser: {{username: postgres, password: x}}\n    replication: {{username: replicator, password: x}}\n"
            );
            let file = server.path("node.yml");
            std::fs::write(&file, &yaml).unwrap();
            let loaded = config::load(Some(&file), std::iter::empty()).unwrap();
            let dcs = Dcs::connect(&loaded.node.store.unwrap(), Keys::new("service", "batman"), PATIENCE)
                .await
                .unwrap();
            dcs.load().await.unwrap_or_else(|error| panic!("{yaml}: {error}"));
        }
    }
}

/// F85: the database is full. The leader goes on; nobody could take over, and everybody says so.
#[tokio::test]
async fn a_full_store_does_not_end_a_reign() {
    let mut server = Server::new("http", &["--quota-backend-bytes", "400000"]);
    server.start();
    let config = ground::etcd(std::slice::from_ref(&server.url));
    let dcs = Ground::new(Kind::Etcd(config.clone())).node().await;
    let session = dcs.open_session(TTL).await.unwrap();
    let leadership = won(&dcs, &name("n1"), &session).await;
    let mut operator = raw(&config).await;
    while operator.put("/filler", "x".repeat(100_000), None).await.is_ok() {}
    assert_eq!(dcs.write_status(&at(1)).await, Err(StoreError::NoSpace));
    dcs.renew(&session, &leadership).await.unwrap();
    assert!(matches!(dcs.open_session(TTL).await, Err(StoreError::NoSpace)));
    dcs.load().await.unwrap();
    // Deleting is allowed: a leader can still step down.
    assert!(dcs.release(leadership).await.unwrap());
}

/// An idle leader and its follower write nothing (P005, P018) and use next to no time.
#[tokio::test]
async fn idling_costs_nothing() {
    let (_server, config) = one();
    let dcs = Ground::new(Kind::Etcd(config)).node().await;
    let session = dcs.open_session(TTL).await.unwrap();
    let leadership = won(&dcs, &name("n1"), &session).await;
    let mut follower = Follower::new(&dcs);
    follower.sees("the leader", |seen| view(seen, |view| view.leader.is_some())).await;
    dcs.renew(&session, &leadership).await.unwrap();
    let before = dcs.load().await.unwrap().revision;
    for _ in 0..20 {
        dcs.renew(&session, &leadership).await.unwrap();
    }
    assert_eq!(dcs.load().await.unwrap().revision, before);
}
