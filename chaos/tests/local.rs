//! What a single node does on its own host: the operator's command after the bootstrap, the socket, the node's files.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use chaos::{Cluster, Spec, until};
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(60);

/// P192 post_bootstrap is run once, with the connection string as its only argument and the password in PGPASSFILE; P136
/// use_unix_socket connects through the socket.
#[tokio::test]
async fn the_operators_command_runs_once_and_the_socket_is_used() {
    let spec = Spec::tested(1);
    let cluster = Cluster::in_slot(spec).await.unwrap();
    let node = &cluster.nodes[0];
    let (script, out) = (node.dir.join("after.sh"), node.dir.join("after.txt"));
    let text = format!("#!/bin/sh\n{{ echo \"$# $*\"; cat \"$PGPASSFILE\"; }} >> {}\n", out.display());
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    node.edit(&json!({
        "bootstrap": {"post_bootstrap": format!("{} one", script.display())},
        "postgresql": {"use_unix_socket": true},
    }))
    .unwrap();
    node.start().unwrap();
    cluster.wait_healthy(PATIENCE).await.unwrap();

    let told = std::fs::read_to_string(&out).unwrap();
    let (arguments, passwords) = told.split_once('\n').unwrap();
    assert!(arguments.starts_with("2 one "), "{told}");
    assert!(arguments.contains("user=postgres") && arguments.contains("dbname=postgres"), "{told}");
    assert!(!arguments.contains(chaos::spec::SUPERUSER_PASSWORD), "the password is an argument: {told}");
    assert!(passwords.contains(&format!(":postgres:{}", chaos::spec::SUPERUSER_PASSWORD)), "{told}");

    let by_socket = until(PATIENCE, "a session through the socket", async || {
        let sql = "select count(*) from pg_stat_activity where client_addr is null and backend_type = 'client backend' \
                   and application_name <> ''";
        Ok((node.cell(sql).await? != "0").then_some(()))
    });
    cluster.explain(by_socket.await).unwrap();

    node.stop(PATIENCE).await.unwrap();
    node.start().unwrap();
    cluster.wait_healthy(PATIENCE).await.unwrap();
    assert_eq!(std::fs::read_to_string(&out).unwrap(), told, "it ran a second time");
}

/// P098 a restart can be scheduled once (202, 409), stands in the member's record (P015), is taken back once (200, 404), and
/// happens in its time.
#[tokio::test]
async fn a_scheduled_restart_waits_for_its_time() {
    let cluster = Cluster::healthy(Spec::tested(1)).await.unwrap();
    let node = &cluster.nodes[0];
    let started = async || node.cell("select pg_postmaster_start_time()").await;
    let at = async |seconds: u32| {
        let sql = format!(
            "select to_char(now() at time zone 'utc' + interval '{seconds} s', 'YYYY-MM-DD\"T\"HH24:MI:SS\"+00:00\"')"
        );
        node.cell(&sql).await.map(|at| json!({"schedule": at}))
    };
    let ask = async |method, body| {
        let answer = node.send(method, "/restart", &body).await.unwrap();
        (answer.status, answer.body)
    };
    let published = async || {
        let member =
            cluster.store.get(&cluster.key("members/n1")).await?.map(|key| key.value).unwrap_or_default();
        anyhow::Ok(member.contains("scheduled_restart"))
    };
    let before = started().await.unwrap();
    let late = at(3600).await.unwrap();
    assert_eq!(ask("POST", late.clone()).await, (202, "Restart scheduled".to_owned()));
    assert_eq!(ask("POST", late).await, (409, "Another restart is already scheduled".to_owned()));
    let shown = until(PATIENCE, "the schedule in the record", async || Ok(published().await?.then_some(())));
    cluster.explain(shown.await).unwrap();
    assert_eq!(ask("DELETE", json!({})).await, (200, "scheduled restart deleted".to_owned()));
    assert_eq!(ask("DELETE", json!({})).await, (404, "no restarts are scheduled".to_owned()));
    let gone = until(PATIENCE, "the end of the schedule", async || Ok((!published().await?).then_some(())));
    cluster.explain(gone.await).unwrap();
    assert_eq!(started().await.unwrap(), before);

    let soon = at(4).await.unwrap();
    assert_eq!(ask("POST", soon).await.0, 202);
    let restarted = until(PATIENCE, "the restart", async || Ok((started().await? != before).then_some(())));
    cluster.explain(restarted.await).unwrap();
    cluster.wait_healthy(PATIENCE).await.unwrap();
    assert_eq!(ask("DELETE", json!({})).await.0, 404);
}

/// P097 whoever has no patience is told that Postgres is still starting; the restart goes on. With patience it is told how it
/// ended.
#[tokio::test]
async fn a_restart_that_takes_too_long_is_told_and_goes_on() {
    let cluster = Cluster::healthy(Spec::tested(1)).await.unwrap();
    let node = &cluster.nodes[0];
    let before = node.cell("select pg_postmaster_start_time()").await.unwrap();
    let answer = node.send("POST", "/restart", &json!({"timeout": 0.001})).await.unwrap();
    assert_eq!((answer.status, answer.body.as_str()), (503, "postgres is still starting"));
    let restarted = until(PATIENCE, "the restart", async || {
        Ok((node.cell("select pg_postmaster_start_time()").await? != before).then_some(()))
    });
    cluster.explain(restarted.await).unwrap();
    cluster.wait_healthy(PATIENCE).await.unwrap();
    let answer = node.send("POST", "/restart", &json!({"timeout": 60})).await.unwrap();
    assert_eq!((answer.status, answer.body.as_str()), (200, "restarted successfully"));
}
