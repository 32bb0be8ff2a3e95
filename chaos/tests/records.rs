//! What a cluster says in the store, read there directly: names, values, types, leases, repairs and wake-ups.
//!
//! One cluster serves most tests in turn; each leaves it healthy.

use std::collections::BTreeMap;
use std::time::Duration;

use chaos::{Cluster, Node, Program, Shared, Spec, until};
use dcs::Moment;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(30);

static CLUSTER: Shared = Shared::new(|| {
    let patch = json!({"tags": {"datacenter": "dc1"}, "postgresql": {"proxy_address": "127.0.0.1:6432"}});
    Spec::tested(3).dcs(&json!({"max_timelines_history": 2})).local(&patch)
});

async fn text(cluster: &Cluster, name: &str) -> anyhow::Result<String> {
    let key = cluster.store.get(&cluster.key(name)).await?;
    Ok(key.map(|key| key.value).unwrap_or_default())
}

async fn value(cluster: &Cluster, name: &str) -> anyhow::Result<Value> {
    Ok(serde_json::from_str(&text(cluster, name).await?)?)
}

/// Waits until a key's JSON is as wanted, and returns it.
async fn wait_value(
    cluster: &Cluster,
    name: &str,
    what: &str,
    is: impl Fn(&Value) -> bool,
) -> anyhow::Result<Value> {
    let found = until(PATIENCE, what, async || Ok(Some(value(cluster, name).await?).filter(&is)));
    cluster.explain(found.await)
}

fn kinds(value: &Value) -> BTreeMap<&str, &str> {
    let kind = |value: &Value| match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_u64() => "int",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    value.as_object().into_iter().flatten().map(|(name, value)| (name.as_str(), kind(value))).collect()
}

async fn switch_to(cluster: &Cluster, candidate: &str) -> anyhow::Result<()> {
    let (leader, _) = cluster.roles().await?;
    let body = json!({"leader": leader.name, "candidate": candidate});
    let answer = leader.send("POST", "/switchover", &body).await?;
    anyhow::ensure!(answer.status == 200, "{} {}\n{}", answer.status, answer.body, cluster.report());
    cluster.wait_healthy(PATIENCE).await.map(drop)
}

/// P010 the fields of a member and their types, exactly; P012 `proxy_url`, P128 tags, P017 the positions of a standby;
/// all JSON is compact, as Patroni writes it.
#[tokio::test]
async fn member_records_have_exactly_the_fields_of_patroni() {
    let cluster = CLUSTER.lend().await.unwrap();
    let (leader, _) = cluster.roles().await.unwrap();
    let mut common = BTreeMap::from([
        ("conn_url", "string"),
        ("api_url", "string"),
        ("proxy_url", "string"),
        ("state", "string"),
        ("role", "string"),
        ("version", "string"),
        ("tags", "object"),
        ("xlog_location", "int"),
        ("timeline", "int"),
    ]);
    if leader.program == Program::Matriarch {
        common.insert("matriarch", "string");
    }
    for node in &cluster.nodes {
        let is_leader = node.name == leader.name;
        let name = format!("members/{}", node.name);
        let settled = |it: &Value| it.get("checkpoint_after_promote").is_none();
        let found = wait_value(&cluster, &name, "a settled member record", settled).await.unwrap();
        let mut wanted = common.clone();
        if !is_leader {
            wanted.extend([("receive_lsn", "int"), ("replay_lsn", "int"), ("replication_state", "string")]);
        }
        assert_eq!(kinds(&found), wanted, "{found}");
        assert_eq!(found["conn_url"], format!("postgres://{}/postgres", node.postgres));
        assert_eq!(found["api_url"], format!("http://{}/patroni", node.rest));
        assert_eq!(found["proxy_url"], "postgres://127.0.0.1:6432/postgres");
        assert_eq!(found["tags"], json!({"datacenter": "dc1"}));
        assert_eq!(found["role"], if is_leader { "primary" } else { "replica" });
        let raw = text(&cluster, &format!("members/{}", node.name)).await.unwrap();
        assert!(!raw.contains(": ") && !raw.contains(", ") && !raw.ends_with('\n'), "{raw}");
    }
}

/// P003 and P009: leader and member keys hang on leases of `ttl`, everything else on none.
#[tokio::test]
async fn only_leader_and_members_hang_on_a_lease_of_ttl() {
    let cluster = CLUSTER.lend().await.unwrap();
    let (leader, _) = cluster.roles().await.unwrap();
    let ttl = value(&cluster, "config").await.unwrap()["ttl"].as_u64().unwrap();
    let prefix = cluster.key("");
    let mut leased = Vec::new();
    for key in cluster.store.keys(&prefix).await.unwrap() {
        let name = key.key.strip_prefix(&prefix).unwrap().to_owned();
        if name == "leader" || name.starts_with("members/") {
            let granted = cluster.store.granted(key.lease).await.unwrap();
            assert_eq!(granted, Some(Duration::from_secs(ttl)), "{name}");
            leased.push(name);
        } else {
            assert_eq!(key.lease, 0, "{name}");
        }
    }
    assert_eq!(leased, ["leader", "members/n1", "members/n2", "members/n3"]);
    assert_eq!(text(&cluster, "leader").await.unwrap(), leader.name);
}

/// P016 every member says `pause` while it is paused, and no longer.
#[tokio::test]
async fn every_member_publishes_the_pause() {
    let cluster = CLUSTER.lend().await.unwrap();
    cluster.patch_config(&json!({"pause": true})).await.unwrap();
    for node in &cluster.nodes {
        let name = format!("members/{}", node.name);
        wait_value(&cluster, &name, "pause in a member record", |it| it["pause"] == true).await.unwrap();
    }
    cluster.patch_config(&json!({"pause": null})).await.unwrap();
    for node in &cluster.nodes {
        let name = format!("members/{}", node.name);
        wait_value(&cluster, &name, "no pause in a member record", |it| it.get("pause").is_none())
            .await
            .unwrap();
    }
}

/// P015 a scheduled restart stands in the member's record with the time the postmaster started, until it is taken back.
#[tokio::test]
async fn a_scheduled_restart_is_published() {
    let cluster = CLUSTER.lend().await.unwrap();
    let (_, replicas) = cluster.roles().await.unwrap();
    let replica = replicas[0];
    let body = json!({"schedule": "2099-11-20T09:04:00+00:00", "postgres_version": "99.1"});
    let answer = replica.send("POST", "/restart", &body).await.unwrap();
    assert_eq!(answer.status, 202, "{}", answer.body);
    let name = format!("members/{}", replica.name);
    let found =
        wait_value(&cluster, &name, "the scheduled restart", |it| it.get("scheduled_restart").is_some());
    let scheduled = found.await.unwrap()["scheduled_restart"].clone();
    let started = replica.get("/patroni").await.unwrap().json()["postmaster_start_time"].clone();
    let wanted = json!({
        "postgres_version": "99.1",
        "schedule": "2099-11-20T09:04:00+00:00",
        "postmaster_start_time": started,
    });
    assert_eq!(scheduled, wanted);
    assert_eq!(replica.send("DELETE", "/restart", &json!({})).await.unwrap().status, 200);
    wait_value(&cluster, &name, "no scheduled restart", |it| it.get("scheduled_restart").is_none())
        .await
        .unwrap();
}

/// P021 a damaged `initialize` is written again, P023 a removed `config` too, P024 a broken `config` changes no setting
/// and is replaced.
#[tokio::test]
async fn the_leader_repairs_damaged_records() {
    let cluster = CLUSTER.lend().await.unwrap();
    let (leader, _) = cluster.roles().await.unwrap();
    let id = text(&cluster, "initialize").await.unwrap();
    assert!(id.len() >= 10 && id.bytes().all(|byte| byte.is_ascii_digit()), "{id:?}");
    cluster.store.put(&cluster.key("initialize"), "x").await.unwrap();
    let repaired = until(PATIENCE, "the identifier in initialize", async || {
        Ok((text(&cluster, "initialize").await? == id).then_some(()))
    });
    cluster.explain(repaired.await).unwrap();

    let config = value(&cluster, "config").await.unwrap();
    cluster.store.delete(&cluster.key("config")).await.unwrap();
    wait_value(&cluster, "config", "the restored config", |it| *it == config).await.unwrap();
    for broken in ["[]", "{", "\"text\"", ""] {
        cluster.store.put(&cluster.key("config"), broken).await.unwrap();
        wait_value(&cluster, "config", "the replaced config", |it| *it == config).await.unwrap();
        assert_eq!(leader.cell("show max_connections").await.unwrap(), "50");
    }
    assert_eq!(cluster.wait_healthy(PATIENCE).await.unwrap().name, leader.name);
}

/// P025 `status` grows with the log, lists each member's slot with its position, and those to retain; P037 a replica
/// judges its lag by it at once.
#[tokio::test]
async fn the_status_follows_the_log_and_replicas_follow_the_status() {
    let cluster = CLUSTER.lend().await.unwrap();
    let (leader, replicas) = cluster.roles().await.unwrap();
    leader.sql("create table if not exists filler (t text)").await.unwrap();
    leader.sql("insert into filler select repeat('x', 100) from generate_series(1, 20000)").await.unwrap();
    let written: u64 =
        leader.cell("select (pg_current_wal_lsn() - '0/0')::bigint").await.unwrap().parse().unwrap();
    let found = wait_value(&cluster, "status", "a status past what was written", |it| {
        let reached = |at: &Value| at.as_u64().is_some_and(|at| at >= written);
        reached(&it["optime"]) && it["slots"].as_object().is_some_and(|slots| slots.values().all(reached))
    });
    let status = found.await.unwrap();
    let names = json!(["n1", "n2", "n3"]);
    assert_eq!(json!(status["slots"].as_object().unwrap().keys().collect::<Vec<_>>()), names, "{status}");
    assert_eq!(status["retain_slots"], names);
    assert_eq!(kinds(&status).keys().collect::<Vec<_>>(), [&"optime", &"retain_slots", &"slots"]);

    // P037, P026: a bare number is what old leaders write.
    let ahead = status["optime"].as_u64().unwrap() + (1 << 30);
    cluster.store.put(&cluster.key("status"), &ahead.to_string()).await.unwrap();
    let put = Moment::now();
    let noticed = until(Duration::from_secs(1), "a replica that knows it lags", async || {
        Ok((replicas[0].code("/replica?lag=1MB").await == 503).then_some(()))
    });
    cluster.explain(noticed.await).unwrap();
    assert!(Moment::now().since(put) < Duration::from_secs(1));
    leader.sql("drop table filler").await.unwrap();
    let caught_up = until(PATIENCE, "a replica that lags no more", async || {
        Ok((replicas[0].code("/replica?lag=1MB").await == 200).then_some(()))
    });
    cluster.explain(caught_up.await).unwrap();
}

/// P027 a row of five elements for each switchover, P028 no more of them than `max_timelines_history`, P030 `failover` is
/// `{}` afterwards, P013 the new leader says that its checkpoint is due and then that it is done; P011 nothing writes
/// `optime/leader`.
#[tokio::test]
async fn switchovers_leave_their_history_and_a_checkpoint() {
    let cluster = CLUSTER.lend().await.unwrap();
    for _ in 0..2 {
        let (_, replicas) = cluster.roles().await.unwrap();
        switch_to(&cluster, &replicas[0].name).await.unwrap();
    }
    let (leader, replicas) = cluster.roles().await.unwrap();
    let (old, next) = (leader.name.clone(), replicas[1].name.clone());
    let before = cluster.store.revision().await.unwrap();
    switch_to(&cluster, &next).await.unwrap();

    let (leader, _) = cluster.roles().await.unwrap();
    let timeline: u64 =
        leader.cell("select timeline_id from pg_control_checkpoint()").await.unwrap().parse().unwrap();
    let rows = wait_value(&cluster, "history", "the row of the last switchover", |rows| {
        rows.as_array().and_then(|rows| rows.last()).is_some_and(|row| row[0] == timeline - 1)
    });
    let rows = rows.await.unwrap();
    let rows = rows.as_array().unwrap();
    assert_eq!(rows.len(), 2, "{rows:?}");
    for row in rows {
        let row = row.as_array().unwrap();
        let [ended, lsn, reason, time, name] = &row[..] else { panic!("{row:?}") };
        assert!(ended.is_u64() && lsn.is_u64() && name.is_string(), "{row:?}");
        assert_eq!(reason, "no recovery target specified");
        let (day, rest) = time.as_str().unwrap().split_once('T').unwrap();
        assert!(
            day.len() == 10
                && rest.get(8..9) == Some(".")
                && rest.get(15..).is_some_and(|zone| zone.len() == 6),
            "{row:?}"
        );
    }
    assert_eq!((&rows[0][4], &rows[1][4]), (&json!(old), &json!(next)));
    assert_eq!(text(&cluster, "failover").await.unwrap(), "{}");

    let settled = |it: &Value| it["role"] == "primary" && it.get("checkpoint_after_promote").is_none();
    wait_value(&cluster, &format!("members/{next}"), "the checkpoint's end", settled).await.unwrap();
    let values = cluster.store.values_since(&cluster.key(&format!("members/{next}")), before).await.unwrap();
    let told: Vec<Value> =
        values.iter().flatten().map(|key| serde_json::from_str(&key.value).unwrap()).collect();
    let due: Vec<bool> =
        told.iter().map(|it| it.get("checkpoint_after_promote") == Some(&json!(false))).collect();
    let first_primary = told.iter().position(|it| it["role"] == "primary").unwrap();
    assert!(due[first_primary], "a primary whose checkpoint was not waited for: {told:#?}");
    assert!(!due[due.len() - 1]);
    assert!(cluster.store.keys(&cluster.key("optime")).await.unwrap().is_empty());
}

/// P035 a key that nobody knows disturbs nobody, P036 a removed leader key is back within a second under the same name
/// and without a promotion, P210.
#[tokio::test]
async fn a_removed_leader_key_is_taken_again_at_once() {
    let cluster = CLUSTER.lend().await.unwrap();
    let (leader, _) = cluster.roles().await.unwrap();
    let timeline = leader.cell("select timeline_id from pg_control_checkpoint()").await.unwrap();
    cluster.store.put(&cluster.key("foo"), "\u{1}not for you").await.unwrap();
    cluster.store.put(&cluster.key("members/"), "{").await.unwrap();
    let removed = Moment::now();
    cluster.store.delete(&cluster.key("leader")).await.unwrap();
    let back = until(PATIENCE, "the leader key", async || {
        Ok(Some(text(&cluster, "leader").await?).filter(|name| !name.is_empty()))
    });
    let name = cluster.explain(back.await).unwrap();
    let took = Moment::now().since(removed);
    assert_eq!(name, leader.name);
    assert!(took < Duration::from_secs(1), "{took:?}");
    cluster.wait_healthy(PATIENCE).await.unwrap();
    assert_eq!(leader.cell("select timeline_id from pg_control_checkpoint()").await.unwrap(), timeline);
    cluster.store.delete(&cluster.key("foo")).await.unwrap();
    cluster.store.delete(&cluster.key("members/")).await.unwrap();
}

/// P038 a change of the configuration is in force everywhere within two seconds, whichever node took it.
#[tokio::test]
async fn a_change_of_the_configuration_is_in_force_at_once() {
    let cluster = CLUSTER.lend().await.unwrap();
    let (_, replicas) = cluster.roles().await.unwrap();
    for wanted in ["7MB", "8MB"] {
        let patch = json!({"postgresql": {"parameters": {"work_mem": wanted}}});
        assert_eq!(replicas[0].send("PATCH", "/config", &patch).await.unwrap().status, 200);
        let everywhere = until(Duration::from_secs(2), "the new setting on every node", async || {
            for node in &cluster.nodes {
                if node.cell("show work_mem").await? != wanted {
                    return Ok(None);
                }
            }
            Ok(Some(()))
        });
        cluster.explain(everywhere.await).unwrap();
    }
}

/// P045 leases follow a change of `ttl`, without a new reign.
#[tokio::test]
async fn a_new_ttl_is_that_of_new_leases() {
    let cluster = CLUSTER.lend().await.unwrap();
    let created = cluster.store.get(&cluster.key("leader")).await.unwrap().unwrap().created;
    let usual = cluster.spec.dcs["ttl"].as_u64().unwrap();
    for ttl in [9, usual] {
        cluster.patch_config(&json!({"ttl": ttl})).await.unwrap();
        let granted = until(PATIENCE, "leases of the new ttl", async || {
            for name in ["leader", "members/n1", "members/n2", "members/n3"] {
                let Some(key) = cluster.store.get(&cluster.key(name)).await? else { return Ok(None) };
                if cluster.store.granted(key.lease).await? != Some(Duration::from_secs(ttl)) {
                    return Ok(None);
                }
            }
            Ok(Some(()))
        });
        cluster.explain(granted.await).unwrap();
    }
    let leader = cluster.store.get(&cluster.key("leader")).await.unwrap().unwrap();
    assert_eq!(leader.created, created, "the leader key was taken anew");
}

/// P007 a leader key that names somebody else is not removed by a node that stops, and nobody leads against it (P218).
#[tokio::test]
async fn a_foreign_leader_key_is_left_alone() {
    let cluster = CLUSTER.lend().await.unwrap();
    let (leader, replicas) = cluster.roles().await.unwrap();
    cluster.store.put(&cluster.key("leader"), "somebody").await.unwrap();
    let demoted = until(Duration::from_secs(10), "the end of writes on the old leader", async || {
        let writes = leader.sql("select 1 where not pg_is_in_recovery()").await;
        Ok(writes.map_or(true, |rows| rows.is_empty()).then_some(()))
    });
    cluster.explain(demoted.await).unwrap();
    leader.stop(PATIENCE).await.unwrap();
    assert_eq!(text(&cluster, "leader").await.unwrap(), "somebody");
    for replica in replicas {
        assert_eq!(replica.cell("select pg_is_in_recovery()").await.unwrap(), "t");
    }
    cluster.store.delete(&cluster.key("leader")).await.unwrap();
    leader.start().unwrap();
    cluster.wait_healthy(PATIENCE).await.unwrap();
}

/// P001 slashes of the namespace collapse, P019 `initialize` is empty while the first node bootstraps, P020 then the
/// identifier, P029 a first timeline has no history.
#[tokio::test]
async fn the_first_node_of_a_cluster_in_a_namespace_of_its_own() {
    let mut spec = Spec::tested(1).local(&json!({"namespace": "//x/y//"}));
    spec.scope = "first".to_owned();
    let cluster = Cluster::healthy(spec).await.unwrap();
    let (node, key) = (&cluster.nodes[0], |name: &str| format!("/x/y/first/{name}"));
    let values = cluster.store.values_since(&key("initialize"), 1).await.unwrap();
    let values: Vec<String> = values.into_iter().flatten().map(|key| key.value).collect();
    let id = node.cell("select system_identifier from pg_control_system()").await.unwrap();
    assert_eq!(values, [String::new(), id]);
    assert!(cluster.store.keys("/service/").await.unwrap().is_empty());

    cluster.store.put(&key("history"), r#"[[1,100,"no","2026-01-01T00:00:00+00:00","n9"]]"#).await.unwrap();
    let reset = until(PATIENCE, "an empty history", async || {
        let history = cluster.store.get(&key("history")).await?;
        Ok(history.filter(|history| history.value == "[]"))
    });
    cluster.explain(reset.await).unwrap();
}

/// P044 a node that starts before its store waits for it.
#[tokio::test]
async fn a_node_that_starts_before_its_store_waits_for_it() {
    let cluster = Cluster::in_slot(Spec::tested(2)).await.unwrap();
    cluster.store.freeze().unwrap();
    cluster.nodes.iter().try_for_each(Node::start).unwrap();
    for node in &cluster.nodes {
        let waits = until(PATIENCE, "a word about the store", async || {
            Ok((node.log().contains("etcd") || node.log().contains("store: ")).then_some(()))
        });
        cluster.explain(waits.await).unwrap();
        assert!(node.pid().is_some() && !node.data().exists(), "{}", node.log());
    }
    cluster.store.thaw();
    cluster.wait_healthy(PATIENCE).await.unwrap();
}
