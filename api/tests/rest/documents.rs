//! P072–P079, P082, P083, P085: the documents, word for word.

use std::time::Duration;

use api::status::{Guard, HeldLease, Kill, NodeStatus, PostgresState, Role};
use api::{metrics, read};
use dcs::{ClusterView, Failover, HistoryRow, Lsn, Moment, Revision, SyncState, Timeline, Versioned};
use serde_json::{Value, json};

use crate::fixture::{primary, replica, view, with_config};

const NOW: Moment = Moment(1_000_000_000_000);

/// Patroni's text with what matriarch adds taken out.
fn as_patroni(text: &str) -> String {
    let own = format!(", \"matriarch\": \"{}\", \"known_timeline\": 0", api::MATRIARCH_VERSION);
    assert!(text.contains(&own), "{text}");
    text.replace(&own, "")
}

/// P072, P085.
#[test]
fn a_primary_describes_itself_as_captured() {
    assert_eq!(
        as_patroni(&read::patroni(&primary(NOW), NOW)),
        r#"{"state": "running", "postmaster_start_time": "2026-11-20 07:00:39.805522+00:00", "role": "primary", "server_version": 150020, "xlog": {"location": 50331744}, "timeline": 1, "replication": [{"usename": "replicator", "application_name": "node2", "client_addr": "127.0.0.1", "state": "streaming", "sync_state": "async", "sync_priority": 0}], "dcs_last_seen": 1795158110, "database_system_identifier": "7710145069470500063", "patroni": {"version": "4.1.5", "scope": "batman", "name": "node1"}}"#
    );
}

/// P073.
#[test]
fn a_replica_describes_itself_as_captured() {
    assert_eq!(
        as_patroni(&read::patroni(&replica(NOW), NOW)),
        r#"{"state": "running", "postmaster_start_time": "2026-11-20 07:01:12.537473+00:00", "role": "replica", "server_version": 150020, "xlog": {"received_location": 50331744, "replayed_location": 50331744, "replayed_timestamp": null, "paused": false}, "timeline": 1, "replication_state": "streaming", "dcs_last_seen": 1795158110, "tags": {"datacenter": "dc1"}, "database_system_identifier": "7710145069470500063", "patroni": {"version": "4.1.5", "scope": "batman", "name": "node2"}}"#
    );
}

/// P074.
#[test]
fn a_dead_postgres_leaves_no_position() {
    let dead = NodeStatus { server: None, ..primary(NOW) };
    assert_eq!(
        as_patroni(&read::patroni(&dead, NOW)),
        r#"{"state": "unknown", "role": "primary", "dcs_last_seen": 1795158110, "database_system_identifier": "7710145069470500063", "patroni": {"version": "4.1.5", "scope": "batman", "name": "node1"}}"#
    );
    let stopped = NodeStatus { state: PostgresState::Stopped, role: Role::Demoted, ..dead };
    assert!(read::patroni(&stopped, NOW).starts_with(r#"{"state": "stopped", "role": "demoted", "dcs"#));
}

/// P072: the fields that are there only sometimes, in Patroni's order.
#[test]
fn rare_fields_appear_in_order() {
    let status = NodeStatus {
        pause: true,
        sync_standby: true,
        leader_known: false,
        failsafe_until: Some(Moment(NOW.0 + 1)),
        pending_restart_flag: true,
        pending_restart: [("max_connections".to_owned(), ("50".to_owned(), "60".to_owned()))].into(),
        scheduled_restart: Some(json!({
            "postgres_version": "16.1", "schedule": "2026-11-20T09:04:00+00:00", "postmaster_start_time": "x"
        })),
        watchdog_failed: true,
        ..replica(NOW)
    };
    let text = as_patroni(&read::patroni(&status, NOW));
    let tail = text.split_once(r#""paused": false}, "#).unwrap().1;
    assert_eq!(
        tail,
        r#""sync_standby": true, "timeline": 1, "replication_state": "streaming", "pause": true, "cluster_unlocked": true, "failsafe_mode_is_active": true, "dcs_last_seen": 1795158110, "tags": {"datacenter": "dc1"}, "database_system_identifier": "7710145069470500063", "pending_restart": true, "pending_restart_reason": {"max_connections": {"old_value": "50", "new_value": "60"}}, "patroni": {"version": "4.1.5", "scope": "batman", "name": "node2"}, "scheduled_restart": {"postgres_version": "16.1", "schedule": "2026-11-20T09:04:00+00:00"}, "watchdog_failed": true}"#
    );
}

/// P075, P076.
#[test]
fn the_cluster_reads_as_captured() {
    let mut view = view();
    view.failover = Some(Versioned {
        value: Failover {
            leader: Some("node1".to_owned()),
            candidate: Some("node2".to_owned()),
            scheduled_at: Some("2026-11-20T09:04:00+00:00".to_owned()),
        },
        revision: Revision(9),
    });
    assert_eq!(
        read::cluster(&view, "batman"),
        r#"{"members": [{"name": "node1", "role": "leader", "state": "running", "api_url": "http://127.0.0.1:30081/patroni", "host": "127.0.0.1", "port": 30541, "timeline": 1, "pending_restart": true, "pending_restart_reason": {"max_connections": {"old_value": "50", "new_value": "60"}}}, {"name": "node2", "role": "replica", "state": "streaming", "api_url": "http://127.0.0.1:30082/patroni", "host": "127.0.0.1", "port": 30542, "timeline": 1, "tags": {"datacenter": "dc1"}, "receive_lag": 0, "receive_lsn": "0/30486F8", "replay_lag": 0, "replay_lsn": "0/30486F8", "lag": 0, "lsn": "0/30486F8"}], "scheduled_switchover": {"at": "2026-11-20T09:04:00+00:00", "from": "node1", "to": "node2"}, "scope": "batman"}"#
    );
}

fn parsed(view: &ClusterView) -> Value {
    serde_json::from_str(&read::cluster(view, "batman")).unwrap()
}

/// P075, P076: pause, roles, lag, and unknown positions.
#[test]
fn the_cluster_shows_pause_roles_and_lag() {
    let mut paused = with_config(json!({"pause": true, "synchronous_mode": "on"}));
    paused.sync = Some(Versioned {
        value: SyncState {
            leader: Some("node1".to_owned()),
            quorum: 0,
            standbys: ["NODE2".to_owned()].into(),
        },
        revision: Revision(4),
    });
    paused.status.optime = Some(Lsn(0x0304_86F8 + 100));
    let node2 = paused.members.values_mut().last().unwrap();
    node2.receive_lsn = None;
    let shown = parsed(&paused);
    assert_eq!(shown["pause"], true);
    assert_eq!(shown["members"][1]["role"], "sync_standby");
    assert_eq!(shown["members"][1]["lag"], 100);
    assert_eq!(shown["members"][1]["receive_lag"], "unknown");
    assert_eq!(shown["members"][1]["receive_lsn"], "unknown");
    paused.config.as_mut().unwrap().value = json!({"synchronous_mode": "quorum"});
    assert_eq!(parsed(&paused)["members"][1]["role"], "quorum_standby");
    paused.config.as_mut().unwrap().value =
        json!({"standby_cluster": {"host": "10.0.0.1"}, "synchronous_mode": true});
    assert_eq!(parsed(&paused)["members"][0]["role"], "standby_leader");
    assert_eq!(parsed(&paused)["members"][1]["role"], "replica");
}

#[test]
fn hosts_and_ports_come_out_of_urls() {
    for (url, expected) in [
        ("postgres://10.0.0.1:5433/postgres", Some(("10.0.0.1", 5433))),
        ("postgres://[::1]:5433/postgres", Some(("::1", 5433))),
        ("postgres://db.example/postgres", Some(("db.example", 5432))),
        ("postgres://u:p@db:1/x?a=b", Some(("db", 1))),
        ("nonsense", None),
    ] {
        let expected = expected.map(|(host, port)| (host.to_owned(), port));
        assert_eq!(read::host_and_port(url), expected, "{url}");
    }
}

/// P077.
#[test]
fn history_is_printed_as_stored() {
    let mut view = view();
    assert_eq!(read::history(&view), "[]");
    view.history = Some(vec![
        HistoryRow {
            timeline: Timeline(1),
            lsn: Lsn(50_628_640),
            reason: "no recovery target specified".to_owned(),
            timestamp: Some("2026-11-20T07:04:18.485455+00:00".to_owned()),
            leader: Some("node2".to_owned()),
        },
        HistoryRow {
            timeline: Timeline(2),
            lsn: Lsn(9),
            reason: "x".to_owned(),
            timestamp: None,
            leader: None,
        },
    ]);
    assert_eq!(
        read::history(&view),
        r#"[[1, 50628640, "no recovery target specified", "2026-11-20T07:04:18.485455+00:00", "node2"], [2, 9, "x"]]"#
    );
}

/// P078.
#[test]
fn config_is_the_stored_object_or_nothing() {
    assert_eq!(read::config(&view()).unwrap(), r#"{"loop_wait": 10, "ttl": 30}"#);
    assert_eq!(read::config(&with_config(json!([1]))), None);
    assert_eq!(read::config(&ClusterView::default()), None);
}

/// The names and types of patroni-compat 2.6, in its order.
const METRICS: &str = "version gauge,postgres_running gauge,postmaster_start_time gauge,primary gauge,\
xlog_location counter,standby_leader gauge,replica gauge,sync_standby gauge,quorum_standby gauge,\
xlog_received_location counter,xlog_replayed_location counter,xlog_replayed_timestamp gauge,xlog_paused gauge,\
postgres_streaming gauge,postgres_in_archive_recovery gauge,postgres_server_version gauge,cluster_unlocked gauge,\
failsafe_mode_is_active gauge,failsafe_mode_enabled gauge,failsafe_member gauge,postgres_timeline gauge,\
dcs_last_seen gauge,pending_restart gauge,is_paused gauge,postgres_state gauge,failover_priority gauge";

/// P082.
#[test]
fn metrics_have_exactly_patronis_names_and_types() {
    let page = metrics::page(&replica(NOW), Some(&view()), 5, NOW);
    let types: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("# TYPE patroni_")).collect();
    assert_eq!(types.join(","), METRICS);
    let lines: Vec<&str> = page.lines().collect();
    for (at, line) in lines.iter().enumerate().filter(|(_, line)| line.starts_with("# TYPE ")) {
        let name = line.split(' ').nth(2).unwrap();
        let help = if name == "patroni_postgres_state" { at - 2 } else { at - 1 };
        assert!(lines[help].starts_with(&format!("# HELP {name} ")), "{name} has its help before it");
        let labels = r#"{scope="batman",name="node2"} "#;
        let value = lines[at + 1].strip_prefix(name).and_then(|rest| rest.strip_prefix(labels));
        assert!(value.is_some_and(|value| value.parse::<f64>().is_ok()), "{}", lines[at + 1]);
    }
    assert!(page.contains("# Values: 0=initdb, 1=initdb_failed, 2=custom_bootstrap,"));
}

fn value(page: &str, name: &str) -> String {
    let start = format!("{name}{{");
    let line = page.lines().find(|line| line.starts_with(&start)).unwrap_or_else(|| panic!("no {name}"));
    line.rsplit(' ').next().unwrap().to_owned()
}

/// P082, P083.
#[test]
fn metrics_carry_the_statuss_values() {
    let page = metrics::page(&primary(NOW), Some(&view()), 5, NOW);
    for (name, expected) in [
        ("patroni_version", "040105"),
        ("patroni_postgres_running", "1"),
        ("patroni_postmaster_start_time", "1795158039.805522"),
        ("patroni_primary", "1"),
        ("patroni_replica", "0"),
        ("patroni_xlog_location", "50331744"),
        ("patroni_xlog_received_location", "0"),
        ("patroni_postgres_server_version", "150020"),
        ("patroni_postgres_state", "5"),
        ("patroni_postgres_timeline", "1"),
        ("patroni_dcs_last_seen", "1795158110"),
        ("patroni_failover_priority", "1"),
        ("patroni_cluster_unlocked", "0"),
        ("matriarch_writable", "1"),
        ("matriarch_lease_remaining_seconds", "20.0"),
        ("matriarch_http_requests_total", "5"),
    ] {
        assert_eq!(value(&page, name), expected, "{name}");
    }
    let last =
        Kill { at: 1_795_158_000, processes: 9, signalled: Duration::from_millis(3), ..Kill::default() };
    let guard = Guard {
        running: true,
        woke: Duration::from_micros(70),
        kills: 1,
        last: Some(last),
        ..Guard::default()
    };
    let fenced = NodeStatus { guard, ..primary(NOW) };
    let page = metrics::page(&fenced, None, 0, NOW);
    for (name, expected) in [
        ("matriarch_fencer_running", "1"),
        ("matriarch_fencer_armed", "0"),
        ("matriarch_fencer_wakeup_seconds", "7e-5"),
        ("matriarch_fencer_kills_total", "1"),
        ("matriarch_fencer_kill_time", "1795158000"),
        ("matriarch_fencer_kill_signalled_seconds", "0.003"),
        ("matriarch_one_writer_promised", "1"),
    ] {
        assert_eq!(value(&page, name), expected, "{name}");
    }
    let shown: Value = serde_json::from_str(&read::patroni(&fenced, NOW)).unwrap();
    assert_eq!(shown["fenced"], json!({"at": 1_795_158_000, "processes": 9, "gone_ms": 0}));
    let unknown = NodeStatus { server: None, lease: None, ..primary(NOW) };
    let page = metrics::page(&unknown, None, 0, NOW);
    assert_eq!(value(&page, "patroni_postgres_state"), "-1");
    assert_eq!(value(&page, "patroni_postmaster_start_time"), "0");
    assert!(!page.contains("patroni_postgres_streaming"), "needs a known server version");
}

/// What scripts that used to read pg_controldata ask now.
#[test]
fn the_role_document_says_what_postgres_is() {
    let role = |status: &NodeStatus| -> Value {
        serde_json::from_str(&read::role_document(status, "db1", 1.5, NOW)).unwrap()
    };
    let shown = role(&primary(NOW));
    assert_eq!(
        (&shown["role"], &shown["hostname"], &shown["timestamp"]),
        (&json!("primary"), &json!("db1"), &json!(1.5))
    );
    assert_eq!(shown["leader"], true);
    assert_eq!(role(&replica(NOW))["role"], "replica");
    assert_eq!(role(&NodeStatus { server: None, ..replica(NOW) })["role"], "unknown");
    assert_eq!(role(&NodeStatus { writable: false, ..primary(NOW) })["role"], "unknown");
    let lapsed = HeldLease { until: NOW, ..primary(NOW).lease.unwrap() };
    assert_eq!(role(&NodeStatus { lease: Some(lapsed), ..primary(NOW) })["leader"], false);
}

#[test]
fn why_names_the_reason_and_every_obstacle() {
    let mut status = primary(NOW);
    status.why.since = 7;
    status.why.because = "the lease is mine".to_owned();
    status.why.steps = vec!["promote".to_owned()];
    status.why.obstacles.insert(crate::fixture::name("node1"), None);
    status.why.obstacles.insert(crate::fixture::name("node2"), Some("it lags".to_owned()));
    assert_eq!(
        read::why(&status, None),
        r#"{"name": "node1", "scope": "batman", "because": "the lease is mine", "since": 7, "steps": ["promote"], "obstacles": {"node1": null, "node2": "it lags"}}"#
    );
}
