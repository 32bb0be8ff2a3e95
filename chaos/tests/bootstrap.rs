//! From nothing to a cluster: one node initialises, the others clone it, and the store says what was agreed.
//!
//! The tests only look, so they share one cluster as it was bootstrapped.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use chaos::spec::{REPLICATION_PASSWORD, merge};
use chaos::{Shared, Spec, until};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);

static CLUSTER: Shared = Shared::new(|| {
    Spec::tested(3).local(&json!({
        "bootstrap": {
            "initdb": [{"encoding": "UTF8"}, {"locale": "C"}, "data-checksums", {"auth-local": "trust"}],
            "pg_hba": ["host all all 127.0.0.0/8 scram-sha-256", "host replication all 127.0.0.0/8 scram-sha-256",
                       "local all bootstrapped trust"],
        },
        "postgresql": {"pg_hba": null},
    }))
});

/// P195 two of three empty nodes lose the race: there is one system identifier, P020 the store knows it, P196 and P200 the
/// others cloned it.
#[tokio::test]
async fn one_node_initialises_and_the_others_clone_it() {
    let cluster = CLUSTER.lend().await.unwrap();
    let mut ids = BTreeSet::new();
    for node in &cluster.nodes {
        ids.insert(node.cell("select system_identifier from pg_control_system()").await.unwrap());
    }
    let key = cluster.store.get(&cluster.key("initialize")).await.unwrap().unwrap();
    assert_eq!(ids, BTreeSet::from([key.value]));
    assert_eq!(key.lease, 0);
}

/// A start on which all is well says nothing of a store that was never read, and says only once what it has to say about
/// the store's version, on however many connections.
#[tokio::test]
async fn a_start_says_nothing_twice() {
    let cluster = CLUSTER.lend().await.unwrap();
    for node in &cluster.nodes {
        let log = node.log();
        assert!(log.contains("no action. I am"), "{log}");
        assert!(!log.contains("nothing was ever read from it"), "{log}");
        assert!(log.matches("can end leases too early").count() <= 1, "{log}");
    }
}

/// P188 initdb's options are effective: checksums, encoding, locale.
#[tokio::test]
async fn the_options_of_initdb_are_effective() {
    let cluster = CLUSTER.lend().await.unwrap();
    let (leader, _) = cluster.roles().await.unwrap();
    assert_eq!(leader.cell("show data_checksums").await.unwrap(), "on");
    assert_eq!(leader.cell("show server_encoding").await.unwrap(), "UTF8");
    let sql = "select datcollate from pg_database where datname = 'postgres'";
    assert_eq!(leader.cell(sql).await.unwrap(), "C");
}

/// P193 the users of the `authentication` section exist with their rights.
#[tokio::test]
async fn the_users_of_the_configuration_exist_with_their_rights() {
    let cluster = CLUSTER.lend().await.unwrap();
    let (leader, _) = cluster.roles().await.unwrap();
    let sql = "select rolname, rolsuper, rolreplication, rolcanlogin from pg_roles \
               where rolname in ('postgres', 'replicator', 'rewinder') order by 1";
    let rows = leader.sql(sql).await.unwrap();
    assert_eq!(
        rows,
        [["postgres", "t", "t", "t"], ["replicator", "f", "t", "t"], ["rewinder", "f", "f", "t"]]
    );
    let sql = "select count(*) from pg_proc where proname in ('pg_ls_dir', 'pg_stat_file', 'pg_read_binary_file') \
               and has_function_privilege('rewinder', oid, 'execute')";
    assert!(leader.cell(sql).await.unwrap().parse::<u8>().unwrap() >= 4);
}

/// P202 the lines of `bootstrap.pg_hba` are in pg_hba.conf of every node.
#[tokio::test]
async fn the_bootstrap_access_rules_are_there() {
    let cluster = CLUSTER.lend().await.unwrap();
    for node in &cluster.nodes {
        let text = std::fs::read_to_string(node.data().join("pg_hba.conf")).unwrap();
        assert!(text.lines().any(|line| line == "local all bootstrapped trust"), "{}: {text}", node.name);
    }
}

/// P022 `config` is what `bootstrap.dcs` says, P078 and GET /config gives it.
#[tokio::test]
async fn the_shared_configuration_is_that_of_the_file() {
    let cluster = CLUSTER.lend().await.unwrap();
    let (leader, _) = cluster.roles().await.unwrap();
    let key = cluster.store.get(&cluster.key("config")).await.unwrap().unwrap();
    let stored: Value = serde_json::from_str(&key.value).unwrap();
    assert_eq!(leader.get("/config").await.unwrap().json(), stored);
    // Every setting of the file is there with its value; defaults may stand beside them.
    let mut merged = stored.clone();
    merge(&mut merged, &cluster.spec.dcs);
    assert_eq!(merged, stored);
    assert_eq!(stored["postgresql"]["parameters"]["max_connections"], "50");
}

/// P010 each member tells what others need to know, P017 with the positions of a standby, P018 and P005 none of it is
/// written again while nothing happens.
#[tokio::test]
async fn members_tell_what_others_need_and_write_nothing_when_idle() {
    let cluster = CLUSTER.lend().await.unwrap();
    let (leader, _) = cluster.roles().await.unwrap();
    for node in &cluster.nodes {
        let key = cluster.store.get(&cluster.key(&format!("members/{}", node.name))).await.unwrap().unwrap();
        let member: Value = serde_json::from_str(&key.value).unwrap();
        assert_eq!(member["conn_url"], format!("postgres://{}/postgres", node.postgres));
        assert_eq!(member["api_url"], format!("http://{}/patroni", node.rest));
        assert_eq!((&member["state"], &member["version"]), (&json!("running"), &json!("4.1.5")));
        assert_eq!(member["role"], if node.name == leader.name { "primary" } else { "replica" });
        assert!(member["xlog_location"].is_u64() && member["timeline"] == 1, "{member}");
        if node.name != leader.name {
            assert_eq!(member["replication_state"], "streaming", "{member}");
            assert!(member["receive_lsn"].is_u64() && member["replay_lsn"].is_u64(), "{member}");
        }
    }
    let before = cluster.store.get(&cluster.key("leader")).await.unwrap().unwrap();
    let revision = quiet(&cluster).await.unwrap();
    let after = cluster.store.get(&cluster.key("leader")).await.unwrap().unwrap();
    assert_eq!(
        (before.modified, before.created),
        (after.modified, after.created),
        "the store is at {revision}"
    );
}

/// Waits for five seconds in which the store was not written to.
async fn quiet(cluster: &chaos::Cluster) -> anyhow::Result<u64> {
    let mut last = (cluster.store.revision().await?, dcs::Moment::now());
    until(PATIENCE, "five seconds without a write to the store", async || {
        let revision = cluster.store.revision().await?;
        if revision != last.0 {
            last = (revision, dcs::Moment::now());
        }
        Ok((dcs::Moment::now().since(last.1) > Duration::from_secs(5)).then_some(revision))
    })
    .await
}

/// P257 the leader has a slot for each other member and no other, each in use.
#[tokio::test]
async fn the_leader_has_a_slot_for_each_member() {
    let cluster = CLUSTER.lend().await.unwrap();
    let (leader, replicas) = cluster.roles().await.unwrap();
    let slots = until(PATIENCE, "slots in use", async || {
        let rows = leader.sql("select slot_name from pg_replication_slots where active order by 1").await?;
        Ok((rows.len() == replicas.len()).then_some(rows.concat()))
    });
    let names: Vec<String> = replicas.iter().map(|node| node.name.clone()).collect();
    assert_eq!(cluster.explain(slots.await).unwrap(), names);
}

/// P133 the password file of a standby is private and knows the replication user.
#[tokio::test]
async fn password_files_are_private() {
    let cluster = CLUSTER.lend().await.unwrap();
    let (_, replicas) = cluster.roles().await.unwrap();
    for replica in replicas {
        let file = replica.dir.join("pgpass");
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.contains("replicator") && text.contains(REPLICATION_PASSWORD), "{text}");
    }
}
