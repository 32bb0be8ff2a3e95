//! Planned changes of the leader, through REST and through the store.
//!
//! One cluster serves the tests in turn; each leaves it healthy.

use std::time::Duration;

use chaos::{Shared, Spec, Workload, until};
use dcs::Moment;
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(60);

static CLUSTER: Shared = Shared::new(|| Spec::tested(3));

/// P086 the answer's text, P113 it comes when the switchover is decided, P217 nothing is lost and nothing rewound,
/// P238 the third node changes its source without a restart, P027 and P077 the history, P030 the key is `{}` afterwards.
#[tokio::test]
async fn a_switchover_to_a_candidate_loses_nothing_and_restarts_nobody_else() {
    let cluster = CLUSTER.lend().await.unwrap();
    let (leader, replicas) = cluster.roles().await.unwrap();
    let [candidate, third] = replicas[..] else { panic!("three nodes have two replicas") };
    leader.sql("drop table if exists writes").await.unwrap();
    let workload = Workload::start(&cluster.servers(), Duration::from_millis(2)).await.unwrap();
    workload.wait_ack_after(Moment::now(), PATIENCE).await.unwrap();
    let untouched = third.postmaster().unwrap();

    let body = json!({"leader": leader.name, "candidate": candidate.name});
    let answer = leader.send("POST", "/switchover", &body).await.unwrap();
    assert_eq!(answer.body, format!("Successfully switched over to \"{}\"", candidate.name));
    assert_eq!(answer.status, 200);
    let now = cluster.wait_healthy(PATIENCE).await.unwrap();
    assert_eq!(now.name, candidate.name);
    workload.wait_ack_after(Moment::now(), PATIENCE).await.unwrap();
    let verdict = workload.verdict(now.postgres).await.unwrap();
    assert!(verdict.lost.is_empty() && verdict.phantom.is_empty(), "{verdict:?}");
    assert_eq!(third.postmaster(), Some(untouched), "the third node was restarted");
    assert!(!leader.log().contains("pg_rewind: "), "a switchover needs no rewind");

    let failover = cluster.store.get(&cluster.key("failover")).await.unwrap().unwrap();
    assert_eq!(failover.value, "{}");
    let timeline: i64 =
        now.cell("select timeline_id from pg_control_checkpoint()").await.unwrap().parse().unwrap();
    let row = until(PATIENCE, "the new timeline in /history", async || {
        let rows = now.get("/history").await?.json();
        Ok(rows.as_array().and_then(|rows| rows.last().cloned()).filter(|row| row[0] == timeline - 1))
    });
    let row = cluster.explain(row.await).unwrap();
    assert_eq!(row.as_array().unwrap().len(), 5, "{row}");
    assert_eq!(row[4], candidate.name.as_str(), "{row}");
}

/// P087 each wrong argument has its answer, P091 a failover needs a candidate, P088 unknown candidates and leaders are 412.
#[tokio::test]
async fn wrong_arguments_are_refused_and_change_nothing() {
    let cluster = CLUSTER.lend().await.unwrap();
    let (leader, _) = cluster.roles().await.unwrap();
    let name = leader.name.as_str();
    let cases = [
        ("/failover", json!({"leader": ""}), 400, "Failover could be performed only to a specific candidate"),
        (
            "/switchover",
            json!({"candidate": "n2"}),
            400,
            "Switchover could be performed only from a specific leader",
        ),
        (
            "/failover",
            json!({"candidate": "n2", "scheduled_at": "2030-01-01T00:00Z"}),
            400,
            "Failover can't be scheduled",
        ),
        (
            "/switchover",
            json!({"leader": name, "scheduled_at": "soon"}),
            422,
            "Unable to parse scheduled timestamp. It should be in an unambiguous format, e.g. ISO 8601",
        ),
        (
            "/switchover",
            json!({"leader": name, "scheduled_at": "2030-01-01T00:00"}),
            400,
            "Timezone information is mandatory for the scheduled switchover",
        ),
        (
            "/switchover",
            json!({"leader": name, "scheduled_at": "2020-01-01T00:00+00:00"}),
            422,
            "Cannot schedule switchover in the past",
        ),
        (
            "/switchover",
            json!({"leader": name, "candidate": name}),
            400,
            "Switchover target and source are the same",
        ),
        ("/switchover", json!({"leader": "nobody"}), 412, "leader name does not match"),
        ("/switchover", json!({"leader": name, "candidate": "nobody"}), 412, "candidate does not exists"),
    ];
    for (path, body, status, text) in cases {
        let answer = leader.send("POST", path, &body).await.unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (status, text), "{path} {body}");
    }
    assert_eq!(cluster.wait_healthy(PATIENCE).await.unwrap().name, name);
}

/// P089 a scheduled switchover is accepted and happens, P076 /cluster shows it, P090 DELETE takes it back once.
#[tokio::test]
async fn a_switchover_can_be_scheduled_taken_back_and_happens_in_time() {
    let cluster = CLUSTER.lend().await.unwrap();
    let (leader, replicas) = cluster.roles().await.unwrap();
    let at = async |seconds: u32| {
        leader.cell(&format!("select to_char(now() at time zone 'utc' + interval '{seconds} s', 'YYYY-MM-DD\"T\"HH24:MI:SS\"+00:00\"')")).await
    };
    let late = at(3600).await.unwrap();
    let body = json!({"leader": leader.name, "candidate": replicas[0].name, "scheduled_at": late});
    let answer = leader.send("POST", "/switchover", &body).await.unwrap();
    assert_eq!((answer.status, answer.body.as_str()), (202, "Switchover scheduled"));
    let shown = until(PATIENCE, "the schedule in /cluster", async || {
        let shown = leader.get("/cluster").await?.json()["scheduled_switchover"].clone();
        Ok((!shown.is_null()).then_some(shown))
    });
    let shown = cluster.explain(shown.await).unwrap();
    assert_eq!(shown, json!({"at": late, "from": leader.name, "to": replicas[0].name}));
    assert_eq!(leader.send("DELETE", "/switchover", &json!({})).await.unwrap().status, 200);
    let gone = until(PATIENCE, "404 for a second DELETE", async || {
        Ok((leader.send("DELETE", "/switchover", &json!({})).await?.status == 404).then_some(()))
    });
    cluster.explain(gone.await).unwrap();

    let soon = at(5).await.unwrap();
    let body = json!({"leader": leader.name, "candidate": replicas[0].name, "scheduled_at": soon});
    assert_eq!(leader.send("POST", "/switchover", &body).await.unwrap().status, 202);
    cluster.wait_leader(&[&leader.name, &replicas[1].name], PATIENCE).await.unwrap();
    cluster.wait_healthy(PATIENCE).await.unwrap();
}

/// P093 a failover that names the leader is a switchover, P031 the store's old form `leader:candidate` is understood.
#[tokio::test]
async fn a_failover_with_a_leader_and_the_colon_form_switch_over() {
    let cluster = CLUSTER.lend().await.unwrap();
    let (leader, replicas) = cluster.roles().await.unwrap();
    let body = json!({"leader": leader.name, "candidate": replicas[0].name});
    let answer = leader.send("POST", "/failover", &body).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
    cluster.wait_healthy(PATIENCE).await.unwrap();

    let (leader, replicas) = cluster.roles().await.unwrap();
    let wish = format!("{}:{}", leader.name, replicas[0].name);
    cluster.store.put(&cluster.key("failover"), &wish).await.unwrap();
    cluster.wait_leader(&[&leader.name, &replicas[1].name], PATIENCE).await.unwrap();
    cluster.wait_healthy(PATIENCE).await.unwrap();
}
