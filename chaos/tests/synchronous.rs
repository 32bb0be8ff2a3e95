//! Synchronous replication on a real cluster: nothing that was acknowledged is missing after any failover, only those who
//! acknowledge commits are promoted, and commits wait exactly where they shall.
//!
//! One cluster serves the tests in turn; each sets the mode it is about. Its store is apart from the nodes, since most of
//! them die.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::process::{Command, Stdio};
use std::time::Duration;

use chaos::promise::nothing_is_lost;
use chaos::spec::REPLICATION_PASSWORD;
use chaos::{Cluster, Node, Program, Shared, Spec, Workload, until};
use dcs::Moment;
use serde_json::{Value, json};
use tokio::sync::MutexGuard;

/// Longer than any recovery takes.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pause between two inserts.
const PACE: Duration = Duration::from_millis(5);

static CLUSTER: Shared = Shared::new(|| Spec::new(Program::Matriarch, 3));

/// The healthy cluster in this mode, once the record in the store names so many standbys.
async fn lend(mode: &Value, standbys: usize) -> MutexGuard<'static, Cluster> {
    let cluster = CLUSTER.lend().await.unwrap();
    let mut patch = json!({
        "synchronous_mode": null, "synchronous_mode_strict": null, "synchronous_node_count": null,
        "postgresql": {"parameters": {"synchronous_standby_names": null}},
    });
    for (key, value) in mode.as_object().unwrap() {
        patch[key] = value.clone();
    }
    cluster.patch_config(&patch).await.unwrap();
    wait_standbys(&cluster, standbys).await;
    cluster
}

/// The record in the store: leader, quorum, standbys.
async fn record(cluster: &Cluster) -> anyhow::Result<Option<(String, u64, Vec<String>)>> {
    let Some(found) = cluster.store.get(&cluster.key("sync")).await? else { return Ok(None) };
    let record: Value = serde_json::from_str(&found.value)?;
    let names = record["sync_standby"].as_str().unwrap_or_default();
    let names = names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
    let leader = record["leader"].as_str().unwrap_or_default().to_owned();
    Ok(Some((leader, record["quorum"].as_u64().unwrap_or_default(), names)))
}

/// Waits until the record is the leader's and names so many; returns their names.
async fn wait_standbys(cluster: &Cluster, count: usize) -> Vec<String> {
    let what = format!("{count} synchronous standbys");
    let named = until(PATIENCE, &what, async || {
        let Some(leader) = cluster.leader().await else { return Ok(None) };
        let found = record(cluster).await?.filter(|(name, ..)| *name == leader.name);
        Ok(found.map(|(.., names)| names).filter(|names| names.len() == count))
    });
    cluster.explain(named.await).unwrap()
}

/// A client in an empty table that has written enough to lose.
async fn under_writes(cluster: &Cluster) -> Workload {
    let (leader, _) = cluster.roles().await.unwrap();
    leader.sql("drop table if exists writes").await.unwrap();
    let workload = Workload::start(&cluster.servers(), PACE).await.unwrap();
    let written = until(PATIENCE, "rows", async || Ok((workload.acked() > 20).then_some(())));
    cluster.explain(written.await).unwrap();
    workload
}

fn named<'a>(cluster: &'a Cluster, name: &str) -> &'a Node {
    cluster.nodes.iter().find(|node| node.name == name).unwrap()
}

/// Whether nobody leads for longer than a lease lives.
async fn nobody_leads(cluster: &Cluster) -> bool {
    let ttl = cluster.ttl();
    let led = until(ttl + Duration::from_secs(4), "no", async || Ok(cluster.leader().await.map(|_| ())));
    led.await.is_err()
}

/// P247, P254, P032 each of several leaders dies under writes: its synchronous standby leads, the other one never, and no
/// acknowledged row is missing.
#[tokio::test]
async fn the_synchronous_standby_leads_after_every_leader_without_loss() {
    let cluster = lend(&json!({"synchronous_mode": true}), 1).await;
    let workload = under_writes(&cluster).await;
    for _ in 0..3 {
        let standbys = wait_standbys(&cluster, 1).await;
        let (leader, _) = cluster.roles().await.unwrap();
        let shown = leader.cell("show synchronous_standby_names").await.unwrap();
        assert_eq!(shown, standbys[0]);
        leader.kill();
        let next = cluster.wait_leader(&[&leader.name], PATIENCE).await.unwrap();
        assert_eq!(next.name, standbys[0], "{}", cluster.report());
        cluster.explain(workload.wait_ack_after(Moment::now(), PATIENCE).await).unwrap();
        leader.start().unwrap();
        cluster.wait_healthy(PATIENCE).await.unwrap();
    }
    nothing_is_lost(&cluster, workload).await.unwrap();
}

/// P247, F135: with the synchronous standby lost the other one acknowledges; with that one lost too commits return
/// alone, and then nobody but the leader may lead, however long it is away.
#[tokio::test]
async fn a_lost_standby_is_replaced_and_the_last_one_leaves_the_leader_alone() {
    let cluster = lend(&json!({"synchronous_mode": true}), 1).await;
    let workload = under_writes(&cluster).await;
    let (leader, _) = cluster.roles().await.unwrap();
    let first = wait_standbys(&cluster, 1).await;
    named(&cluster, &first[0]).kill();
    cluster.explain(workload.wait_ack_after(Moment::now(), PATIENCE).await).unwrap();
    let second = until(PATIENCE, "the other standby in its place", async || {
        let found = record(&cluster).await?.map(|(.., names)| names).unwrap_or_default();
        Ok((found.len() == 1 && found != first).then_some(found))
    });
    let second = cluster.explain(second.await).unwrap();
    named(&cluster, &second[0]).kill();
    wait_standbys(&cluster, 0).await;
    cluster.explain(workload.wait_ack_after(Moment::now(), PATIENCE).await).unwrap();
    leader.kill();
    for name in [&first[0], &second[0]] {
        named(&cluster, name).start().unwrap();
    }
    assert!(nobody_leads(&cluster).await, "one that lacks commits was promoted\n{}", cluster.report());
    leader.start().unwrap();
    assert_eq!(cluster.wait_healthy(PATIENCE).await.unwrap().name, leader.name);
    nothing_is_lost(&cluster, workload).await.unwrap();
}

/// P248 with `synchronous_mode_strict` commits wait while nobody can acknowledge them, and go on when somebody can.
#[tokio::test]
async fn strict_commits_wait_for_a_standby() {
    let cluster = lend(&json!({"synchronous_mode": true, "synchronous_mode_strict": true}), 1).await;
    let workload = under_writes(&cluster).await;
    let (leader, replicas) = cluster.roles().await.unwrap();
    for replica in &replicas {
        replica.kill();
    }
    let said = until(PATIENCE, "the reason why commits wait", async || {
        let why = leader.get("/why").await?.json();
        Ok(why.to_string().contains("no standby can acknowledge them").then_some(()))
    });
    cluster.explain(said.await).unwrap();
    let (since, before) = (Moment::now(), workload.acked());
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(workload.acked_since(since), 0, "{before} before\n{}", cluster.report());
    for replica in &replicas {
        replica.start().unwrap();
    }
    cluster.explain(workload.wait_ack_after(Moment::now(), PATIENCE).await).unwrap();
    wait_standbys(&cluster, 1).await;
    nothing_is_lost(&cluster, workload).await.unwrap();
}

/// What `psql` says to a client that is no superuser and counts the rows: the count, or why it is not let in.
async fn rows_for_a_client(cluster: &Cluster, of: &Node) -> anyhow::Result<Result<String, String>> {
    let mut psql = Command::new(cluster.tools.postgres.join("psql"));
    psql.args(["-h", &of.postgres.ip().to_string(), "-p", &of.postgres.port().to_string()])
        .args(["-U", "reader", "-d", "postgres", "-XAtc", "select count(*) from unseen"])
        .env("PGPASSWORD", "reader")
        .env("PGCONNECT_TIMEOUT", "5");
    let ended = chaos::process::end_of(psql, PATIENCE).await?;
    Ok(if ended.code == Some(0) { Ok(ended.out.trim().to_owned()) } else { Err(ended.err) })
}

/// A commit that waits on a leader without standbys, whose postmaster then dies; returns the leader once its server
/// answers again, and the timeline of before.
async fn crashed_while_a_commit_waits(cluster: &Cluster) -> (&Node, String) {
    let (leader, mut replicas) = cluster.roles().await.unwrap();
    // The synchronous standby goes last: while it is gone and the other is not, only the leader may lead, and it need hide nothing.
    let standbys = wait_standbys(cluster, 1).await;
    replicas.sort_by_key(|replica| standbys.contains(&replica.name));
    for sql in [
        "drop table if exists unseen",
        "create table unseen (id int)",
        "drop role if exists reader",
        "create role reader login password 'reader'",
        "grant select on unseen to reader",
    ] {
        leader.sql(sql).await.unwrap();
    }
    assert_eq!(rows_for_a_client(cluster, leader).await.unwrap(), Ok("0".to_owned()));
    let timeline = leader.cell("select timeline_id from pg_control_checkpoint()").await.unwrap();
    for replica in &replicas {
        replica.kill();
    }
    let session = chaos::sql::Session::open(leader.postgres, PATIENCE).await.unwrap();
    let waits = until(PATIENCE, "a commit that waits", async || {
        let sql = "select count(*) from pg_stat_activity where wait_event = 'SyncRep'";
        Ok((leader.cell(sql).await? == "1").then_some(()))
    });
    let (inserted, waits) = tokio::join!(session.rows("insert into unseen values (1)", PATIENCE), async {
        let waits = waits.await;
        let before = leader.postmaster();
        leader.kill_postmaster();
        waits.map(|()| before)
    });
    let before = cluster.explain(waits).unwrap();
    assert!(inserted.is_err(), "the commit was acknowledged by nobody");
    let again = until(PATIENCE, "the server started again in place", async || {
        let other = leader.postmaster().is_some_and(|pid| Some(pid) != before);
        Ok((other && leader.cell("select not pg_is_in_recovery()").await? == "t").then_some(()))
    });
    cluster.explain(again.await).unwrap();
    (leader, timeline)
}

/// F122: the leader's server crashes in strict mode while a commit waits. It is started where it was, and nobody sees
/// that commit before a standby has it too; or before an operator says that the promise is off.
#[tokio::test]
async fn after_a_crash_nobody_reads_what_no_standby_has() {
    let strict = json!({"synchronous_mode": true, "synchronous_mode_strict": true});
    let cluster = lend(&strict, 1).await;
    let (leader, timeline) = crashed_while_a_commit_waits(&cluster).await;
    let refused = rows_for_a_client(&cluster, leader).await.unwrap();
    assert!(
        refused.as_ref().is_err_and(|why| why.contains("pg_hba.conf")),
        "{refused:?}\n{}",
        cluster.report()
    );
    let said = until(PATIENCE, "why clients are not let in", async || {
        let why = leader.get("/why").await?.json().to_string();
        Ok(why.contains("clients are not let in").then_some(()))
    });
    cluster.explain(said.await).unwrap();
    assert_eq!(leader.code("/primary").await, 503);
    for replica in cluster.others(leader) {
        replica.start().unwrap();
    }
    let seen =
        until(PATIENCE, "the client let in", async || Ok(rows_for_a_client(&cluster, leader).await?.ok()));
    assert_eq!(cluster.explain(seen.await).unwrap(), "1");
    assert_eq!(cluster.wait_healthy(PATIENCE).await.unwrap().name, leader.name, "{}", cluster.report());
    assert_eq!(leader.cell("select timeline_id from pg_control_checkpoint()").await.unwrap(), timeline);
    wait_standbys(&cluster, 1).await;

    let (leader, _) = crashed_while_a_commit_waits(&cluster).await;
    assert!(rows_for_a_client(&cluster, leader).await.unwrap().is_err(), "{}", cluster.report());
    let off = json!({"synchronous_mode_strict": false});
    leader.send("PATCH", "/config", &off).await.unwrap();
    let seen =
        until(PATIENCE, "the client let in", async || Ok(rows_for_a_client(&cluster, leader).await?.ok()));
    assert_eq!(cluster.explain(seen.await).unwrap(), "1");
}

/// P249, P250 any one of two acknowledges: after the leader's end either may lead, if both can be compared; one of them
/// alone may not.
#[tokio::test]
async fn a_quorum_elects_and_less_than_one_does_not() {
    let cluster = lend(&json!({"synchronous_mode": "quorum"}), 2).await;
    let workload = under_writes(&cluster).await;
    for _ in 0..2 {
        let standbys = wait_standbys(&cluster, 2).await;
        let (leader, _) = cluster.roles().await.unwrap();
        let shown = leader.cell("show synchronous_standby_names").await.unwrap();
        assert_eq!(shown, format!("ANY 1 ({})", standbys.join(",")));
        assert_eq!(record(&cluster).await.unwrap().unwrap().1, 1);
        leader.kill();
        let next = cluster.wait_leader(&[&leader.name], PATIENCE).await.unwrap();
        cluster.explain(workload.wait_ack_after(Moment::now(), PATIENCE).await).unwrap();
        leader.start().unwrap();
        cluster.wait_streaming(leader, next, PATIENCE).await.unwrap();
    }
    let standbys = wait_standbys(&cluster, 2).await;
    let (leader, _) = cluster.roles().await.unwrap();
    leader.kill();
    named(&cluster, &standbys[0]).kill_postmaster();
    named(&cluster, &standbys[0]).kill();
    assert!(nobody_leads(&cluster).await, "one without a quorum was promoted\n{}", cluster.report());
    named(&cluster, &standbys[0]).start().unwrap();
    cluster.wait_leader(&[&leader.name], PATIENCE).await.unwrap();
    leader.start().unwrap();
    nothing_is_lost(&cluster, workload).await.unwrap();
}

/// P058, P059, P060, P061 who is what by REST, P252 nosync; a switchover goes to the synchronous standby alone, P088's
/// texts; patronictl and matriarchctl show the role.
#[tokio::test]
async fn a_switchover_goes_to_the_synchronous_standby_and_everybody_shows_it() {
    let cluster = lend(&json!({"synchronous_mode": true}), 1).await;
    let workload = under_writes(&cluster).await;
    let standbys = wait_standbys(&cluster, 1).await;
    let (leader, replicas) = cluster.roles().await.unwrap();
    let other = replicas.iter().find(|node| node.name != standbys[0]).unwrap();
    let standby = named(&cluster, &standbys[0]);
    let codes = until(PATIENCE, "the answers of a synchronous and of an asynchronous standby", async || {
        let mut codes = Vec::new();
        for (path, wanted) in [
            ("/sync", [503, 200, 503]),
            ("/synchronous", [503, 200, 503]),
            ("/async", [503, 503, 200]),
            ("/asynchronous", [503, 503, 200]),
            ("/quorum", [503, 503, 503]),
            ("/read-only-sync", [200, 200, 503]),
        ] {
            for (node, wanted) in [leader, standby, other].into_iter().zip(wanted) {
                codes.push(node.code(path).await == wanted);
            }
        }
        Ok(codes.iter().all(|right| *right).then_some(()))
    });
    cluster.explain(codes.await).unwrap();
    let status = standby.get("/patroni").await.unwrap().json();
    assert_eq!(status["sync_standby"], true, "{status}");
    let listed = cluster.matriarchctl(&["list"]).await.unwrap();
    assert!(listed.out.contains("Sync Standby"), "{listed:?}");
    let listed = cluster.patronictl(&["list"]).await.unwrap();
    assert!(listed.out.contains("Sync Standby"), "{listed:?}");

    let body = json!({"leader": leader.name, "candidate": other.name});
    let refused = leader.send("POST", "/switchover", &body).await.unwrap();
    let text = "candidate name does not match with sync_standby";
    assert_eq!((refused.status, refused.body.as_str()), (412, text));
    let answer = leader.send("POST", "/switchover", &json!({"leader": leader.name})).await.unwrap();
    assert_eq!(answer.body, format!("Successfully switched over to \"{}\"", standby.name));
    cluster.wait_healthy(PATIENCE).await.unwrap();
    nothing_is_lost(&cluster, workload).await.unwrap();
}

/// P033, P256 switched off while it runs the record goes and the operator's own list is back; P092, P255 a failover by
/// hand to an asynchronous member is carried out.
#[tokio::test]
async fn switched_off_the_operators_own_list_is_back() {
    let cluster = lend(&json!({"synchronous_mode": true}), 1).await;
    let (leader, replicas) = cluster.roles().await.unwrap();
    let standbys = wait_standbys(&cluster, 1).await;
    let other = replicas.iter().find(|node| node.name != standbys[0]).unwrap();
    let answer = leader.send("POST", "/failover", &json!({"candidate": other.name})).await.unwrap();
    assert_eq!(answer.body, format!("Successfully failed over to \"{}\"", other.name));
    cluster.wait_healthy(PATIENCE).await.unwrap();
    wait_standbys(&cluster, 1).await;

    let own = json!({"postgresql": {"parameters": {"synchronous_standby_names": "ANY 1 (*)"}}});
    cluster.patch_config(&own).await.unwrap();
    let (leader, _) = cluster.roles().await.unwrap();
    let said =
        cluster.matriarchctl(&["edit-config", "--force", "-s", "synchronous_mode=false"]).await.unwrap();
    assert_eq!(said.code, Some(0), "{said:?}");
    let restored = until(PATIENCE, "the operator's own list", async || {
        let shown = leader.cell("show synchronous_standby_names").await?;
        Ok((shown == "ANY 1 (*)" && record(&cluster).await?.is_none()).then_some(()))
    });
    cluster.explain(restored.await).unwrap();
    let said =
        cluster.matriarchctl(&["edit-config", "--force", "-s", "synchronous_mode=quorum"]).await.unwrap();
    assert_eq!(said.code, Some(0), "{said:?}");
    wait_standbys(&cluster, 2).await;
}

/// Somebody streams under a member's name and not through its slot (F133): it is ended.
#[tokio::test]
async fn a_stranger_under_a_members_name_is_ended() {
    let cluster = lend(&json!({"synchronous_mode": true}), 1).await;
    let standbys = wait_standbys(&cluster, 1).await;
    let (leader, _) = cluster.roles().await.unwrap();
    let aside = cluster.dir().join("stranger");
    std::fs::create_dir_all(&aside).unwrap();
    let mut stranger = Command::new(cluster.tools.postgres.join("pg_receivewal"))
        .args(["-h", &leader.postgres.ip().to_string(), "-p", &leader.postgres.port().to_string()])
        .args(["-U", "replicator", "--no-loop", "-D"])
        .arg(&aside)
        .env("PGPASSWORD", REPLICATION_PASSWORD)
        .env("PGAPPNAME", &standbys[0])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let ended = until(PATIENCE, "the end of the stranger", async || Ok(stranger.try_wait()?));
    let ended = ended.await;
    // It has ended already, or the test fails.
    let _ = stranger.kill();
    cluster.explain(ended).unwrap();
    assert!(leader.log().contains("does not use that member's slot"), "{}", cluster.report());
    let told = until(PATIENCE, "how long it was there", async || {
        let page = leader.get("/metrics").await?.body;
        let metric = |name: &str| {
            let line = page.lines().find(|line| line.starts_with(name))?;
            line.rsplit(' ').next()?.parse::<f64>().ok().filter(|value| *value > 0.0)
        };
        Ok(metric("matriarch_strangers_ended_total{").and(metric("matriarch_stranger_longest_seconds{")))
    });
    cluster.explain(told.await).unwrap();
    wait_standbys(&cluster, 1).await;
}
