//! Daemons that are no member of this embedded store although they would be: one clear sentence in the log, the
//! cluster does not notice, and put right they are members again. And members that trust certificates.
//!
//! One cluster serves most tests in turn: a replica is started with something wrong and put right again.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a panic is a failed test, in its helpers too"
)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use chaos::embedded::store_members;
use chaos::promise::{Commits, nothing_is_lost, under_writes};
use chaos::spec::{STORE_PASSWORD, store_address};
use chaos::user::RunAs;
use chaos::{Cluster, Node, Shared, Spec, until};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);

static CLUSTER: Shared = Shared::new(|| Spec::embedded(3));

/// What the node logs from here on.
fn said_since(node: &Node, before: &str) -> String {
    node.log().strip_prefix(before).unwrap_or_default().to_owned()
}

/// A replica whose file matriarchctl does not read.
async fn victim(cluster: &Cluster) -> &Node {
    let (_, replicas) = cluster.roles().await.unwrap();
    replicas.into_iter().find(|replica| replica.name != "n1").unwrap()
}

/// Waits until `outside` of the three members are not reachable: one that was heard a moment ago still is.
async fn wait_outside(cluster: &Cluster, outside: usize) {
    let what = format!("{outside} of 3 members of the store outside");
    let seen = until(PATIENCE, &what, async || {
        let seen = store_members(cluster).await?;
        let silent = seen.iter().filter(|member| member["State"] != "reachable").count();
        Ok(((seen.len(), silent) == (3, outside)).then_some(()))
    });
    cluster.explain(seen.await).unwrap();
}

/// Stops a replica, lets `spoil` do something to it, and starts it: it must say all of `words`, on one line, while the
/// leader stays the same server and writes go on; once `mend` has put it right it is a member and a replica again.
async fn stays_outside(
    words: &[&str],
    spoil: impl AsyncFnOnce(&Cluster, &Node),
    mend: impl AsyncFnOnce(&Node),
) {
    let cluster = CLUSTER.lend().await.unwrap();
    let workload = under_writes(&cluster, Commits::Wait).await.unwrap();
    let (leader, _) = cluster.roles().await.unwrap();
    let (node, postmaster) = (victim(&cluster).await, leader.postmaster());
    node.stop(PATIENCE).await.unwrap();
    let before = node.log();
    spoil(&cluster, node).await;
    node.start().unwrap();
    let what = format!("{} to say {words:?}", node.name);
    let said = until(PATIENCE, &what, async || {
        let said = said_since(node, &before);
        Ok(said.lines().any(|line| words.iter().all(|word| line.contains(word))).then_some(said))
    });
    let said = cluster.explain(said.await).unwrap();
    assert!(
        !said.contains("panicked") && !said.contains(STORE_PASSWORD) && !said.contains("guess"),
        "{said}"
    );
    wait_outside(&cluster, 1).await;
    assert_ne!(node.code("/primary").await, 200);
    node.stop(PATIENCE).await.unwrap();
    mend(node).await;
    node.start().unwrap();
    nothing_is_lost(&cluster, workload).await.unwrap();
    assert_eq!(leader.postmaster(), postmaster, "the leader was disturbed");
    wait_outside(&cluster, 0).await;
}

#[allow(clippy::disallowed_methods, reason = "directories of the wrong disk: the test plays the operator")]
fn rename(from: &Path, to: &Path) {
    std::fs::rename(from, to).unwrap();
}

/// A copy of a directory that belongs to the nodes' user.
fn copy(from: &Path, to: &Path) {
    let copied = std::process::Command::new("cp").arg("-a").args([from, to]).status();
    assert!(copied.unwrap().success());
}

/// Another password: the daemon says which setting is wrong.
#[tokio::test]
async fn a_wrong_password_is_told() {
    let spoil = async |_: &Cluster, node: &Node| node.edit(&json!({"raft": {"password": "guess"}})).unwrap();
    let mend = async |node: &Node| node.edit(&json!({"raft": {"password": STORE_PASSWORD}})).unwrap();
    stays_outside(&["does not know the password of the embedded store (raft.password)"], spoil, mend).await;
}

/// No password at all, where the others have one.
#[tokio::test]
async fn a_missing_password_is_told() {
    let spoil = async |_: &Cluster, node: &Node| node.edit(&json!({"raft": {"password": null}})).unwrap();
    let mend = async |node: &Node| node.edit(&json!({"raft": {"password": STORE_PASSWORD}})).unwrap();
    stays_outside(
        &["it has a password of the embedded store (raft.password) and this program has none"],
        spoil,
        mend,
    )
    .await;
}

/// A copy of another member's directory.
#[tokio::test]
async fn anothers_identity_is_refused() {
    let cluster = CLUSTER.lend().await.unwrap();
    let (_, replicas) = cluster.roles().await.unwrap();
    let name = victim(&cluster).await.name.clone();
    let other = replicas.into_iter().find(|replica| replica.name != name).unwrap();
    // What is copied while it is written is torn: that is another fault.
    other.stop(PATIENCE).await.unwrap();
    let copied = cluster.dir().join("copied");
    copy(&other.dir.join("raft"), &copied);
    other.start().unwrap();
    drop(cluster);
    let spoil = async |_: &Cluster, node: &Node| {
        rename(&node.dir.join("raft"), &node.dir.join("own"));
        rename(&copied, &node.dir.join("raft"));
    };
    let mend = async |node: &Node| {
        rename(&node.dir.join("raft"), &node.dir.join("copied"));
        rename(&node.dir.join("own"), &node.dir.join("raft"));
    };
    stays_outside(&["its data_dir is a copy", "empty"], spoil, mend).await;
}

/// F93: the directory of a member of another store.
#[tokio::test]
async fn a_member_of_another_store_is_refused() {
    let stranger = Cluster::healthy(Spec::embedded(1)).await.unwrap();
    stranger.nodes[0].stop(PATIENCE).await.unwrap();
    let foreign = stranger.nodes[0].dir.join("raft");
    let spoil = async |_: &Cluster, node: &Node| {
        rename(&node.dir.join("raft"), &node.dir.join("own"));
        copy(&foreign, &node.dir.join("raft"));
    };
    let mend = async |node: &Node| {
        rename(&node.dir.join("raft"), &node.dir.join("foreign"));
        rename(&node.dir.join("own"), &node.dir.join("raft"));
    };
    stays_outside(&["belongs to another embedded store", "never joined"], spoil, mend).await;
}

/// With neither password nor certificates nobody listens beyond this machine.
#[tokio::test]
async fn an_open_store_listens_on_loopback_only() {
    let cluster = Cluster::in_slot(Spec::embedded(1)).await.unwrap();
    let node = &cluster.nodes[0];
    let port = store_address(0, cluster.net()).rsplit_once(':').unwrap().1.to_owned();
    node.edit(&json!({"raft": {"password": null, "bind_addr": format!("0.0.0.0:{port}")}})).unwrap();
    node.start().unwrap();
    let status = node.wait_end(PATIENCE).await.unwrap();
    let log = node.log();
    assert_eq!(status, Some(1), "{log}");
    assert!(log.contains("for anybody: write raft.password, or raft.cacert, cert and key"), "{log}");
    assert!(!node.data().exists() && !log.contains("panicked"), "{log}");
    node.edit(&json!({"raft": {"bind_addr": null}})).unwrap();
    node.start().unwrap();
    cluster.wait_healthy(PATIENCE).await.unwrap();
}

/// Two daemons with one directory, or one address, of the store: the second one ends and says which.
#[tokio::test]
async fn a_second_daemon_of_a_member_is_refused() {
    let cluster = CLUSTER.lend().await.unwrap();
    let (leader, _) = cluster.roles().await.unwrap();
    let postmaster = leader.postmaster();
    let text = std::fs::read_to_string(leader.file()).unwrap();
    let mut tree: Value = serde_saphyr::from_str(&text).unwrap();
    let at = |port: u16| format!("{}:{port}", cluster.net().address(99));
    let elsewhere = json!({
        "name": "second",
        "restapi": {"listen": at(8008), "connect_address": at(8008)},
        "postgresql": {
            "listen": at(5432),
            "connect_address": at(5432),
            "data_dir": cluster.dir().join("second/data"),
        },
    });
    chaos::spec::merge(&mut tree, &elsewhere);
    let exe = cluster.binary("matriarch");
    let dir = cluster.dir().join("second");
    let second = Node::prepare(&tree, leader.program, exe, dir, &RunAs::choose().unwrap()).unwrap();
    second.start().unwrap();
    assert_eq!(second.wait_end(PATIENCE).await.unwrap(), Some(1), "{}", second.log());
    assert!(second.log().contains("cannot listen at"), "{}", second.log());

    second.edit(&json!({"raft": {"self_addr": at(2222)}})).unwrap();
    second.start().unwrap();
    assert_eq!(second.wait_end(PATIENCE).await.unwrap(), Some(1), "{}", second.log());
    let log = second.log();
    assert!(
        log.contains(&leader.dir.join("raft").display().to_string()) && !log.contains("panicked"),
        "{log}"
    );
    assert_eq!(leader.postmaster(), postmaster);
    cluster.wait_healthy(PATIENCE).await.unwrap();
}

/// An authority's certificate and key.
struct Authority {
    cert: rcgen::Certificate,
    key: rcgen::KeyPair,
}

impl Authority {
    fn params() -> rcgen::CertificateParams {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params
    }

    fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        Self { cert: Self::params().self_signed(&key).unwrap(), key }
    }

    /// A certificate for a member at `host`, in files that the nodes' user reads: cert and key.
    fn issue(&self, node: &Node, host: &str) -> [PathBuf; 2] {
        use rcgen::ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec![host.to_owned()]).unwrap();
        params.extended_key_usages = vec![ServerAuth, ClientAuth];
        let cert = params.signed_by(&key, &rcgen::Issuer::new(Self::params(), &self.key)).unwrap();
        let name = dcs::Moment::now().0;
        [("crt", cert.pem()), ("key", key.serialize_pem())]
            .map(|(kind, text)| place(node, &format!("{name}.{kind}"), &text))
    }
}

fn place(node: &Node, name: &str, text: &str) -> PathBuf {
    let file = node.dir.join(name);
    std::fs::write(&file, text).unwrap();
    RunAs::choose().unwrap().own(&file).unwrap();
    file
}

/// Members with certificates instead of a password fail over and answer matriarchctl; one with a certificate of another
/// authority stays outside and says why.
#[tokio::test]
async fn members_verify_each_others_certificates() {
    let cluster = Cluster::in_slot(Spec::embedded(3)).await.unwrap();
    let authority = Authority::new();
    for (index, node) in (0u8..).zip(&cluster.nodes) {
        let address = store_address(index, cluster.net());
        let [cert, key] = authority.issue(node, address.rsplit_once(':').unwrap().0);
        let cacert = place(node, "ca.crt", &authority.cert.pem());
        node.edit(&json!({"raft": {"password": null, "cacert": cacert, "cert": cert, "key": key}})).unwrap();
        node.start().unwrap();
    }
    cluster.wait_healthy(PATIENCE).await.unwrap();
    assert_eq!(store_members(&cluster).await.unwrap().len(), 3);
    let workload = under_writes(&cluster, Commits::Wait).await.unwrap();
    let (leader, _) = cluster.roles().await.unwrap();
    leader.kill();
    let next = cluster.wait_leader(&[&leader.name], PATIENCE).await.unwrap();

    // It comes back with what somebody else signed.
    let index = (0u8..).zip(&cluster.nodes).find(|(_, node)| node.name == leader.name).unwrap().0;
    let host = cluster.net().address(11 + index).to_string();
    let before = leader.log();
    let own: Value = serde_saphyr::from_str(&std::fs::read_to_string(leader.file()).unwrap()).unwrap();
    let [cert, key] = Authority::new().issue(leader, &host);
    leader.edit(&json!({"raft": {"cert": cert, "key": key}})).unwrap();
    leader.start().unwrap();
    let told = until(PATIENCE, "a word about the certificate", async || {
        let said = said_since(leader, &before);
        Ok(said.contains("the certificates do not fit").then_some(said))
    });
    let said = cluster.explain(told.await).unwrap();
    assert!(!said.contains("panicked"), "{said}");
    assert_eq!(next.code("/primary").await, 200);
    leader.stop(PATIENCE).await.unwrap();
    leader.edit(&json!({"raft": {"cert": own["raft"]["cert"], "key": own["raft"]["key"]}})).unwrap();
    leader.start().unwrap();
    cluster.wait_streaming(leader, next, PATIENCE).await.unwrap();
    nothing_is_lost(&cluster, workload).await.unwrap();
}
