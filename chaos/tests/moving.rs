//! Clusters that move between the embedded store and etcd while they serve, what a move that is cut off leaves, and
//! backups of the store's records. Every cluster here is changed for good, so each test has its own.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]

use std::collections::BTreeSet;
use std::time::Duration;

use chaos::etcd::Etcd;
use chaos::spec::{STORE_PASSWORD, store_address};
use chaos::store::Keeper;
use chaos::user::RunAs;
use chaos::workload::Outcome;
use chaos::{Cluster, Node, Program, Spec, Workload, setup, until};
use config::{Address, RaftConfig, Secret, StoreConfig};
use dcs::{Abode, Dcs, Keys, Moment, Stand};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::sync::watch;

const PATIENCE: Duration = Duration::from_secs(60);
const PACE: Duration = Duration::from_millis(5);

/// An etcd beside a cluster that keeps its store itself.
async fn etcd_beside(cluster: &Cluster) -> Etcd {
    let (program, user) = (setup::etcd().await.unwrap(), RunAs::choose().unwrap());
    let etcd = Etcd::start(program, 1, cluster.net(), cluster.dir(), &user).unwrap();
    etcd.wait_ready(Duration::from_secs(20)).await.unwrap();
    etcd
}

/// The etcd that a cluster began on.
fn etcd_of(cluster: &Cluster) -> &Etcd {
    match &cluster.store {
        Keeper::Etcd(etcd) => etcd,
        Keeper::Embedded(_) => panic!("this cluster began on the embedded store"),
    }
}

fn etcd_section(cluster: &Cluster) -> Value {
    json!({"etcd3": {"hosts": [format!("{}:{}", cluster.net().address(1), chaos::net::ETCD)]}})
}

fn raft_section(cluster: &Cluster, node: &Node) -> Value {
    let addresses: Vec<String> = (0..3).map(|index| store_address(index, cluster.net())).collect();
    let index: usize = node.name.trim_start_matches('n').parse().unwrap();
    json!({"raft": {
        "data_dir": node.dir.join("raft"),
        "self_addr": addresses[index - 1],
        "partner_addrs": addresses,
        "password": STORE_PASSWORD,
    }})
}

/// A client of the embedded store of a cluster.
async fn embedded(cluster: &Cluster) -> Dcs {
    let partner_addrs =
        (0..3).map(|index| Address::parse(&store_address(index, cluster.net())).unwrap()).collect();
    let raft = RaftConfig {
        self_addr: None,
        bind_addr: None,
        partner_addrs,
        data_dir: "/nowhere".into(),
        password: Some(Secret::new(STORE_PASSWORD.to_owned())),
        tls: None,
        min_timeout: Duration::from_millis(300),
        max_timeout: Duration::from_millis(600),
    };
    let keys = Keys::new("service", &cluster.spec.scope);
    Dcs::connect(&StoreConfig::Raft(raft), keys, Duration::from_secs(2)).await.unwrap()
}

/// The leader key of etcd, if it holds a name.
async fn leads_in_etcd(etcd: &Etcd, key: &str) -> anyhow::Result<Option<String>> {
    let found = etcd.keys(key).await?.into_iter().find(|found| found.key == key).map(|found| found.value);
    Ok(found.filter(|value| !value.contains('/')))
}

/// Looks into both stores again and again: what is found there together. The first is read before and after.
async fn both_are_led(cluster: &Cluster, etcd: &Etcd, mut stop: watch::Receiver<bool>) -> (u64, Vec<String>) {
    let (raft, key) = (embedded(cluster).await, cluster.key("leader"));
    let (mut looks, mut twice) = (0, Vec::new());
    while !*stop.borrow_and_update() {
        let in_raft = async || Some(raft.load().await.ok()?.leader?.name.to_string());
        let (before, there, after) = (in_raft().await, leads_in_etcd(etcd, &key).await, in_raft().await);
        if let (Some(before), Ok(Some(there)), Some(after)) = (&before, &there, &after)
            && before == after
        {
            twice.push(format!("{before} in the embedded store, {there} in etcd"));
        }
        looks += u64::from(there.is_ok());
    }
    (looks, twice)
}

fn postmasters(cluster: &Cluster) -> Vec<Option<i32>> {
    cluster.nodes.iter().map(Node::postmaster).collect()
}

async fn ctl(cluster: &Cluster, args: &[&str]) -> chaos::process::Ended {
    cluster.matriarchctl(args).await.unwrap()
}

/// Moves, and expects it to succeed.
async fn moved(cluster: &Cluster, to: &str) {
    let done = ctl(cluster, &["store", "move", to, "--force"]).await;
    assert_eq!(done.code, Some(0), "{}\n{}\n{}", done.out, done.err, cluster.report());
    assert!(done.out.contains(&format!("lives in the store of the section {to} now")), "{}", done.out);
}

/// Every member is listed in the store that the cluster lives in, and streams.
async fn settled(cluster: &Cluster) {
    cluster.wait_healthy(PATIENCE).await.unwrap();
}

/// There and back under writes: no Postgres is restarted, no acknowledged row lost, never two leaders.
#[tokio::test]
async fn a_serving_cluster_moves_to_etcd_and_back() {
    let cluster = Cluster::healthy(Spec::embedded(3)).await.unwrap();
    let etcd = etcd_beside(&cluster).await;
    for node in &cluster.nodes {
        node.edit(&etcd_section(&cluster)).unwrap();
    }
    let (leader, _) = cluster.roles().await.unwrap();
    let before = postmasters(&cluster);
    let workload = Workload::start(&cluster.servers(), PACE).await.unwrap();
    workload.wait_ack_after(Moment::now(), PATIENCE).await.unwrap();
    let (end, stop) = watch::channel(false);
    let looking = both_are_led(&cluster, &etcd, stop);
    let moving = async {
        moved(&cluster, "etcd3").await;
        settled(&cluster).await;
        assert_eq!(postmasters(&cluster), before);
        let led = leads_in_etcd(&etcd, &cluster.key("leader")).await.unwrap();
        assert_eq!(led.as_deref(), Some(leader.name.as_str()));
        let old = embedded(&cluster).await.load().await.unwrap();
        assert!(matches!(old.abode(), Abode::Moving(Stand::Left(passage)) if passage.generation == 2));

        // A daemon that starts anew finds the cluster where it lives now, with both sections in its file.
        let replica = cluster.others(leader)[0];
        replica.kill_coordinator();
        replica.start().unwrap();
        // Its record of before still stands; a move asks the daemon itself.
        let answers = until(PATIENCE, "a daemon that answers", async || {
            Ok((replica.code("/readiness").await == 200).then_some(()))
        });
        cluster.explain(answers.await).unwrap();
        settled(&cluster).await;
        // It is led there as ever: by whoever is asked to.
        let listed = ctl(&cluster, &["list"]).await;
        assert!(listed.out.contains("n1") && listed.out.contains("n3"), "{}", listed.out);

        moved(&cluster, "raft").await;
        settled(&cluster).await;
        end.send_replace(true);
    };
    let ((looks, twice), ()) = tokio::join!(looking, moving);
    assert!(looks > 50 && twice.is_empty(), "{looks} looks: {twice:?}");
    assert_eq!(postmasters(&cluster), before);
    let view = embedded(&cluster).await.load().await.unwrap();
    assert_eq!((view.abode(), view.leader.unwrap().name.as_str()), (Abode::Here(3), leader.name.as_str()));

    workload.wait_ack_after(Moment::now(), PATIENCE).await.unwrap();
    let outage = workload.outage_since(Moment::default());
    let records = workload.stop().await;
    let acks = records.iter().filter(|record| record.outcome == Outcome::Ok);
    let servers: BTreeSet<_> = acks.clone().map(|record| record.server).collect();
    assert_eq!(servers, BTreeSet::from([leader.postgres]), "one node took all writes");
    let rows = leader.sql("select id from writes").await.unwrap();
    let present: BTreeSet<i64> = rows.iter().flatten().map(|id| id.parse().unwrap()).collect();
    let verdict = chaos::workload::judge(&records, &present);
    assert!(verdict.acked > 100 && verdict.lost.is_empty() && verdict.phantom.is_empty(), "{verdict:?}");
    assert!(outage < Duration::from_secs(1), "writes stood still for {outage:?}");
}

/// What is not ready is said, and nothing is changed: no section, a store that is away, another store, a namesake.
#[tokio::test]
async fn a_move_that_cannot_be_made_changes_nothing() {
    let cluster = Cluster::healthy(Spec::embedded(3)).await.unwrap();
    let etcd = etcd_beside(&cluster).await;
    let leader = cluster.leader().await.unwrap().name.clone();
    let refused = async |hint: &str| {
        let done = ctl(&cluster, &["store", "move", "etcd3", "--force"]).await;
        assert_eq!(done.code, Some(1), "{}", done.out);
        assert!(done.err.contains(hint) && done.err.contains("nothing was changed"), "{}", done.err);
        let view = embedded(&cluster).await.load().await.unwrap();
        assert_eq!((view.abode(), view.leader.unwrap().name.as_str()), (Abode::Here(1), leader.as_str()));
        // Whatever was announced is taken back.
        if let Ok(keys) = etcd.keys(&cluster.key("")).await {
            let left = keys.iter().filter(|key| !key.key.ends_with("/initialize"));
            assert_eq!(left.count(), 0, "{keys:?}");
        }
    };
    for node in &cluster.nodes[..2] {
        node.edit(&etcd_section(&cluster)).unwrap();
    }
    refused("n3 (412): the configuration of this node has no section etcd3").await;

    cluster.nodes[2].edit(&json!({"etcd3": {"hosts": ["127.0.0.1:1"]}})).unwrap();
    refused("the store of the section etcd3 cannot be read").await;

    cluster.nodes[2].edit(&etcd_section(&cluster)).unwrap();
    etcd.put(&cluster.key("initialize"), "7710145069470500063").await.unwrap();
    refused("7710145069470500063").await;
    etcd.delete(&cluster.key("initialize")).await.unwrap();

    // Another store under the same section: the leader's announcement is not there.
    let user = RunAs::choose().unwrap();
    let dir = cluster.dir().join("another");
    std::fs::create_dir(&dir).unwrap();
    user.own(&dir).unwrap();
    let apart = chaos::net::Net::take().unwrap();
    let another = Etcd::start(setup::etcd().await.unwrap(), 1, &apart, &dir, &user).unwrap();
    another.wait_ready(PATIENCE).await.unwrap();
    let hosts = json!({"etcd3": {"hosts": [format!("{}:{}", apart.address(1), chaos::net::ETCD)]}});
    let odd = cluster.nodes.iter().find(|node| node.name != leader).unwrap();
    odd.edit(&hosts).unwrap();
    let why = "the store of the section etcd3, as this node's configuration describes it, is not the one";
    refused(&format!("{} (412): {why}", odd.name)).await;
    odd.edit(&etcd_section(&cluster)).unwrap();

    etcd.signal(Signal::STOP);
    refused("n1 (412)").await;
    etcd.signal(Signal::CONT);
    etcd.wait_ready(PATIENCE).await.unwrap();
    assert!(etcd.keys("/service/").await.unwrap().is_empty());
    moved(&cluster, "etcd3").await;
    settled(&cluster).await;
}

/// A cluster on etcd whose members also keep an embedded store, announced there as the cluster's next one.
async fn announced() -> (Cluster, Value) {
    let cluster = Cluster::healthy(Spec::new(Program::Matriarch, 3)).await.unwrap();
    for node in &cluster.nodes {
        node.edit(&raft_section(&cluster, node)).unwrap();
    }
    let leader = cluster.leader().await.unwrap();
    for step in ["prepare", "check"] {
        let asked = cluster.nodes.iter().map(|node| async move {
            node.send("POST", "/matriarch/store", &json!({"to": "raft", "step": step})).await.unwrap()
        });
        for answer in futures::future::join_all(asked).await {
            assert_eq!(answer.status, 200, "{}", answer.body);
        }
    }
    let body = json!({"to": "raft", "step": "announce"});
    let told = leader.send("POST", "/matriarch/store", &body).await.unwrap();
    assert_eq!(told.status, 200, "{}", told.body);
    let passage = match embedded(&cluster).await.load().await.unwrap().passage {
        Some(Stand::Arriving(passage)) => serde_json::to_value(passage).unwrap(),
        other => panic!("{other:?}"),
    };
    (cluster, passage)
}

/// Closes etcd for this cluster, as its leader does.
async fn close(cluster: &Cluster, passage: &Value) {
    let passage: dcs::Passage = serde_json::from_value(passage.clone()).unwrap();
    let text = format!("matriarch/left {}", serde_json::to_string(&passage).unwrap());
    etcd_of(cluster).put(&cluster.key("leader"), &text).await.unwrap();
}

/// The leader dies with the last word that closes the old store, and then the old store dies too: the others have
/// seen it closed, wait for as long as the leader could have gone on, and one of them opens the new store.
#[tokio::test]
async fn a_leader_that_dies_between_two_stores_is_succeeded_in_the_new_one() {
    let (cluster, passage) = announced().await;
    let (leader, others) = cluster.roles().await.unwrap();
    // The lease is renewed until the last moment; its end cannot be sooner than a ttl after this.
    leader.kill();
    let closed = Moment::now();
    close(&cluster, &passage).await;
    for other in &others {
        let follows = until(PATIENCE, "a member that follows", async || {
            Ok(other.log().contains("the cluster has moved to the store of the section raft").then_some(()))
        });
        cluster.explain(follows.await).unwrap();
    }
    etcd_of(&cluster).signal(Signal::KILL);
    let raft = embedded(&cluster).await;
    let view = until(PATIENCE, "a leader in the new store", async || {
        let view = raft.load().await?;
        Ok(view.leader.is_some().then_some(view))
    });
    let view = cluster.explain(view.await).unwrap();
    let waited = Moment::now().since(closed);
    assert!(waited >= Duration::from_secs(5), "opened after {waited:?}, sooner than the ttl");
    assert_eq!(view.abode(), Abode::Here(2));
    let next = cluster.wait_leader(&[&leader.name], PATIENCE).await.unwrap();
    assert!(others.iter().any(|other| other.name == next.name));
    leader.start().unwrap();
    cluster.wait_streaming(leader, next, PATIENCE).await.unwrap();
    settled(&cluster).await;
}

/// The leader's daemon alone dies there and is started at once: it goes on as the leader, its Postgres never stops.
#[tokio::test]
async fn a_daemon_that_dies_between_two_stores_goes_on_in_the_new_one() {
    let (cluster, passage) = announced().await;
    let leader = cluster.leader().await.unwrap();
    let before = postmasters(&cluster);
    leader.kill_coordinator();
    close(&cluster, &passage).await;
    leader.start().unwrap();
    let raft = embedded(&cluster).await;
    let led = until(PATIENCE, "the leader in the new store", async || Ok(raft.load().await?.leader));
    let led = cluster.explain(led.await).unwrap();
    assert_eq!(led.name.as_str(), leader.name);
    settled(&cluster).await;
    assert_eq!(postmasters(&cluster), before);

    // A member that knows only the old store says where the cluster went.
    let replica = cluster.others(leader)[0];
    replica.kill_coordinator();
    replica.edit(&json!({"raft": null})).unwrap();
    replica.start().unwrap();
    assert_eq!(replica.wait_end(PATIENCE).await.unwrap(), Some(1));
    assert!(
        replica.log().contains("this cluster has moved to the store of the section raft"),
        "{}",
        replica.log()
    );
    replica.edit(&raft_section(&cluster, replica)).unwrap();
    replica.start().unwrap();
    settled(&cluster).await;
}

/// An announcement that nobody followed up binds nobody: the cluster goes on where it is, and the next move works.
#[tokio::test]
async fn an_announcement_alone_changes_nothing() {
    let (cluster, _) = announced().await;
    let leader = cluster.leader().await.unwrap();
    leader.kill();
    let next = cluster.wait_leader(&[&leader.name], PATIENCE).await.unwrap();
    leader.start().unwrap();
    cluster.wait_streaming(leader, next, PATIENCE).await.unwrap();
    settled(&cluster).await;
    assert!(leads_in_etcd(etcd_of(&cluster), &cluster.key("leader")).await.unwrap().is_some());
    moved(&cluster, "raft").await;
    settled(&cluster).await;
    assert_eq!(embedded(&cluster).await.load().await.unwrap().abode(), Abode::Here(3));
}

/// A backup of etcd's records, and of the embedded store's, is restored where nobody leads and refused elsewhere.
#[tokio::test]
async fn records_are_backed_up_and_restored() {
    for spec in [Spec::new(Program::Matriarch, 1), Spec::embedded(1)] {
        let embedded = spec.etcd == 0;
        let cluster = Cluster::healthy(spec).await.unwrap();
        let node = &cluster.nodes[0];
        cluster.patch_config(&json!({"loop_wait": 2})).await.unwrap();
        let file = cluster.dir().join("dump.json").display().to_string();
        let done = ctl(&cluster, &["store", "dump", &file]).await;
        assert_eq!(done.code, Some(0), "{}", done.err);
        cluster.patch_config(&json!({"loop_wait": 3})).await.unwrap();
        let done = ctl(&cluster, &["store", "load", &file, "--force"]).await;
        assert_eq!(done.code, Some(1));
        assert!(done.err.contains("n1 holds the leader lease"), "{}", done.err);

        assert_eq!(node.stop(PATIENCE).await.unwrap(), Some(0));
        if embedded {
            // The store without the cluster.
            node.start_with(&["witness".to_owned(), node.file().display().to_string()], &[]).unwrap();
        }
        let done = ctl(&cluster, &["store", "load", &file, "--force"]).await;
        assert_eq!(done.code, Some(0), "{}", done.err);
        if embedded {
            assert_eq!(node.stop(PATIENCE).await.unwrap(), Some(0));
        }
        node.start().unwrap();
        cluster.wait_leader(&[], PATIENCE).await.unwrap();
        let config = node.get("/config").await.unwrap().json();
        assert_eq!(config["loop_wait"], 2, "{config}");

        // Somebody has led since: the file is old now.
        assert_eq!(node.stop(PATIENCE).await.unwrap(), Some(0));
        if embedded {
            node.start_with(&["witness".to_owned(), node.file().display().to_string()], &[]).unwrap();
        }
        let done = ctl(&cluster, &["store", "load", &file, "--force"]).await;
        assert_eq!(done.code, Some(1));
        assert!(done.err.contains("the file is older than the store"), "{}", done.err);
    }
}
