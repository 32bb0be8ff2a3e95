//! The members of the embedded store change while the cluster runs and is written to: one is added, one is removed,
//! one loses its disk. Postgres's leader does not notice.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a panic is a failed test, in its helpers too"
)]

use std::time::Duration;

use chaos::embedded::{leading_member, store_members};
use chaos::promise::{Commits, nothing_is_lost, under_writes};
use chaos::spec::store_address;
use chaos::user::RunAs;
use chaos::{Cluster, Node, Program, Shared, Spec, until};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);
const TIMELINE: &str = "select timeline_id from pg_control_checkpoint()";

static CLUSTER: Shared = Shared::new(|| Spec::embedded(3));

/// What must not change while members do: the postmaster of the leader, and its timeline.
async fn reign(cluster: &Cluster) -> (String, Option<i32>, String) {
    let (leader, _) = cluster.roles().await.unwrap();
    (leader.name.clone(), leader.postmaster(), leader.cell(TIMELINE).await.unwrap())
}

/// Waits until these addresses, and no others, vote.
async fn wait_voters(cluster: &Cluster, wanted: &[String]) -> Vec<Value> {
    let found = until(PATIENCE, "exactly the wanted voters", async || {
        let members = store_members(cluster).await?;
        let mut votes: Vec<&str> = members
            .iter()
            .filter(|member| member["Role"] != "learner" && member["State"] == "reachable")
            .filter_map(|member| member["Member"].as_str())
            .collect();
        votes.sort_unstable();
        let mut wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
        wanted.sort_unstable();
        Ok((votes == wanted && members.len() == wanted.len()).then(|| members.clone()))
    });
    cluster.explain(found.await).unwrap()
}

async fn wait_said(cluster: &Cluster, node: &Node, before: usize, words: &str) {
    let what = format!("{} to say {words:?}", node.name);
    let said = until(PATIENCE, &what, async || {
        Ok(node.log().get(before..).unwrap_or_default().contains(words).then_some(()))
    });
    cluster.explain(said.await).unwrap();
}

/// The identities of the members at an address: two for a moment, while one takes the place of the other.
fn identities(members: &[Value], address: &str) -> Vec<String> {
    let there = members.iter().filter(|member| member["Member"] == address);
    there.filter_map(|member| member["Identity"].as_str().map(str::to_owned)).collect()
}

#[allow(clippy::disallowed_methods, reason = "a disk that was replaced: the test plays the operator")]
fn put_away(node: &Node, name: &str) {
    std::fs::rename(node.dir.join("raft"), node.dir.join(name)).unwrap();
}

#[allow(clippy::disallowed_methods, reason = "a disk that comes back: the test plays the operator")]
fn put_back(node: &Node, name: &str) {
    std::fs::rename(node.dir.join(name), node.dir.join("raft")).unwrap();
}

async fn ctl(cluster: &Cluster, args: &[&str]) -> String {
    let ended = cluster.matriarchctl(args).await.unwrap();
    assert_eq!(ended.code, Some(0), "{args:?}: {ended:?}");
    ended.out
}

/// A fourth node waits until it is let in, learns, votes, and follows; then another is removed, is refused with its old
/// directory, and comes back with an empty one.
#[tokio::test]
async fn a_member_is_added_and_another_removed_under_writes() {
    let mut cluster = Cluster::healthy(Spec::embedded(3)).await.unwrap();
    let workload = under_writes(&cluster, Commits::Wait).await.unwrap();
    let before = reign(&cluster).await;
    let mut addresses: Vec<String> = (0..4).map(|index| store_address(index, cluster.net())).collect();

    let dir = cluster.dir().join("n4");
    let tree = cluster.spec.node(3, cluster.net(), &dir, &cluster.tools.postgres);
    let exe = cluster.exe(Program::Matriarch).await.unwrap();
    let fourth = Node::prepare(&tree, Program::Matriarch, exe, dir, &RunAs::choose().unwrap()).unwrap();
    fourth.start().unwrap();
    wait_said(&cluster, &fourth, 0, &format!("let it in with matriarchctl store add {}", addresses[3])).await;
    assert_eq!(store_members(&cluster).await.unwrap().len(), 3, "it let itself in");
    let told = ctl(&cluster, &["store", "add", &addresses[3]]).await;
    assert!(told.contains("may join"), "{told}");
    wait_voters(&cluster, &addresses).await;
    cluster.nodes.push(fourth);
    cluster.wait_healthy(PATIENCE).await.unwrap();

    let (_, replicas) = cluster.roles().await.unwrap();
    let leaving = replicas.iter().find(|replica| replica.name != "n4" && replica.name != "n1").unwrap();
    let index = cluster.nodes.iter().position(|node| node.name == leaving.name).unwrap();
    let gone = addresses.remove(index);
    leaving.stop(PATIENCE).await.unwrap();
    let told = ctl(&cluster, &["store", "remove", &gone, "--force"]).await;
    assert!(told.contains("is no member any more"), "{told}");
    wait_voters(&cluster, &addresses).await;
    let from = leaving.log().len();
    leaving.start().unwrap();
    wait_said(&cluster, leaving, from, "this member was removed from the embedded store").await;
    leaving.stop(PATIENCE).await.unwrap();
    assert_eq!(store_members(&cluster).await.unwrap().len(), 3);

    put_away(leaving, "removed");
    ctl(&cluster, &["store", "add", &gone]).await;
    leaving.start().unwrap();
    addresses.push(gone);
    wait_voters(&cluster, &addresses).await;
    cluster.wait_healthy(PATIENCE).await.unwrap();
    assert_eq!(reign(&cluster).await, before);
    nothing_is_lost(&cluster, workload).await.unwrap();
}

/// The member that leads the store is removed while it runs: another leads the store, and whoever leads Postgres stays.
#[tokio::test]
async fn the_leader_of_the_store_is_removed_while_it_runs() {
    let cluster = CLUSTER.lend().await.unwrap();
    let (leader, _) = cluster.roles().await.unwrap();
    let leading = leading_member(&cluster).await.unwrap();
    if cluster.nodes[leading].name == leader.name {
        let (_, replicas) = cluster.roles().await.unwrap();
        let body = serde_json::json!({"leader": leader.name, "candidate": replicas[0].name});
        assert_eq!(leader.send("POST", "/switchover", &body).await.unwrap().status, 200);
        cluster.wait_healthy(PATIENCE).await.unwrap();
    }
    let workload = under_writes(&cluster, Commits::Wait).await.unwrap();
    let before = reign(&cluster).await;
    let mut addresses: Vec<String> = (0..3).map(|index| store_address(index, cluster.net())).collect();
    let node = &cluster.nodes[leading];
    let gone = addresses.remove(leading);
    let from = node.log().len();
    ctl(&cluster, &["store", "remove", &gone, "--force"]).await;
    wait_said(&cluster, node, from, "this member was removed from the embedded store").await;
    let others = until(PATIENCE, "the two others alone", async || {
        Ok((store_members(&cluster).await?.len() == 2).then_some(()))
    });
    cluster.explain(others.await).unwrap();
    assert_eq!(reign(&cluster).await, before);

    node.stop(PATIENCE).await.unwrap();
    put_away(node, "removed");
    ctl(&cluster, &["store", "add", &gone]).await;
    node.start().unwrap();
    addresses.push(gone);
    wait_voters(&cluster, &addresses).await;
    assert_eq!(reign(&cluster).await, before);
    nothing_is_lost(&cluster, workload).await.unwrap();
}

/// F91: a member whose disk is replaced is another one at the same address; with the old disk it is refused.
#[tokio::test]
async fn a_member_that_lost_its_disk_is_a_new_one() {
    let cluster = CLUSTER.lend().await.unwrap();
    let workload = under_writes(&cluster, Commits::Wait).await.unwrap();
    let before = reign(&cluster).await;
    let addresses: Vec<String> = (0..3).map(|index| store_address(index, cluster.net())).collect();
    let (_, replicas) = cluster.roles().await.unwrap();
    let node = replicas[0];
    let index = cluster.nodes.iter().position(|other| other.name == node.name).unwrap();
    let old = identities(&store_members(&cluster).await.unwrap(), &addresses[index]);

    node.stop(PATIENCE).await.unwrap();
    put_away(node, "old-disk");
    node.start().unwrap();
    let new = until(PATIENCE, "the new member instead of the old one", async || {
        let new = identities(&store_members(&cluster).await?, &addresses[index]);
        Ok((new.len() == 1 && new != old).then_some(new))
    });
    let new = cluster.explain(new.await).unwrap();
    wait_voters(&cluster, &addresses).await;
    cluster.wait_healthy(PATIENCE).await.unwrap();

    node.stop(PATIENCE).await.unwrap();
    put_away(node, "new-disk");
    put_back(node, "old-disk");
    let from = node.log().len();
    node.start().unwrap();
    wait_said(&cluster, node, from, "this member was removed from the embedded store").await;
    node.stop(PATIENCE).await.unwrap();
    put_away(node, "old-disk");
    put_back(node, "new-disk");
    node.start().unwrap();
    let members = wait_voters(&cluster, &addresses).await;
    assert_eq!(identities(&members, &addresses[index]), new);
    assert_eq!(reign(&cluster).await, before);
    nothing_is_lost(&cluster, workload).await.unwrap();
}

/// F94: a removal that would leave fewer than a quorum of the rest is refused, and says what is missing.
#[tokio::test]
async fn a_removal_below_quorum_is_refused() {
    let cluster = CLUSTER.lend().await.unwrap();
    let before = reign(&cluster).await;
    let (_, replicas) = cluster.roles().await.unwrap();
    let index = cluster.nodes.iter().position(|node| node.name == replicas[1].name).unwrap();
    replicas[0].stop(PATIENCE).await.unwrap();
    let address = store_address(u8::try_from(index).unwrap(), cluster.net());
    let ended = cluster.matriarchctl(&["store", "remove", &address, "--force"]).await.unwrap();
    assert_ne!(ended.code, Some(0), "{ended:?}");
    assert!(ended.err.contains("2 voters, of which 2 are needed and only 1 can be reached"), "{ended:?}");
    assert_eq!(store_members(&cluster).await.unwrap().len(), 3);
    replicas[0].start().unwrap();
    cluster.wait_healthy(PATIENCE).await.unwrap();
    assert_eq!(reign(&cluster).await, before);
}
