//! The cluster's settings, alone and under a node's own.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::time::Duration;

use config::{Arguments, ClusterConfig, Effective, NodeConfig, SynchronousMode, Tool, load, withheld};
use serde_json::{Value, json};

fn node(postgresql: &str) -> NodeConfig {
    node_with(postgresql, "")
}

fn node_with(postgresql: &str, rest: &str) -> NodeConfig {
    let text = format!(
        "scope: demo\nname: n1\nrestapi: {{listen: '10.0.0.1:8008', connect_address: '10.0.0.1:8008'}}\n\
         etcd3: {{host: '10.0.0.1:2379'}}\n{rest}\npostgresql:\n  listen: 10.0.0.1,127.0.0.1:5433\n  data_dir: /srv/d\n{postgresql}"
    );
    load(None, [("PATRONI_CONFIGURATION".to_owned(), text)].into_iter()).unwrap().node
}

fn cluster(document: &Value) -> ClusterConfig {
    ClusterConfig::from_document(document).0
}

fn effective(postgresql: &str, document: &Value) -> Effective {
    Effective::of(&node(postgresql), &cluster(document), 15)
}

fn timing(ttl: u64, loop_wait: u64, retry_timeout: u64) -> (u64, u64, u64) {
    let document = json!({"ttl": ttl, "loop_wait": loop_wait, "retry_timeout": retry_timeout});
    let found = cluster(&document);
    (found.ttl.as_secs(), found.loop_wait.as_secs(), found.retry_timeout.as_secs())
}

// P123
#[test]
fn timing_is_adjusted_as_in_patroni_from_20_seconds_on() {
    assert_eq!(timing(20, 10, 10), (20, 1, 9));
    assert_eq!(timing(20, 0, 1), (20, 1, 3));
    assert_eq!(timing(30, 15, 10), (30, 10, 10));
    assert_eq!(timing(30, 10, 20), (30, 1, 14));
    assert_eq!(timing(30, 10, 10), (30, 10, 10));
}

#[test]
fn timing_below_20_seconds_keeps_two_retries_within_the_lease() {
    for ttl in 2..20_u64 {
        let (found, _) = ClusterConfig::from_document(&json!({"ttl": ttl}));
        assert_eq!(found.ttl, Duration::from_secs(ttl));
        assert!(found.loop_wait + 2 * found.retry_timeout <= found.ttl, "{ttl}: {found:?}");
        assert!(found.loop_wait >= Duration::from_secs(1), "{ttl}");
        assert!(found.retry_timeout >= Duration::from_millis(500), "{ttl}");
    }
    assert_eq!(timing(10, 2, 2), (10, 2, 2), "what fits is left alone");
}

#[test]
fn a_short_ttl_costs_something_on_etcd_and_nothing_on_the_embedded_store() {
    let etcd = "etcd3: {host: 'h:1'}";
    let raft = "raft: {self_addr: '127.0.0.1:2222', data_dir: /r}";
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("c.yml");
    let store = |text: &str| {
        std::fs::write(&file, text).unwrap();
        config::load_ctl(Some(&file), std::iter::empty()).unwrap().store
    };
    for ttl in [2, 3, 5, 10] {
        let (found, problems) = ClusterConfig::from_document(&json!({"ttl": ttl}));
        assert_eq!(problems, []);
        assert_eq!(found.short_ttl(&store(raft)), None);
        assert_eq!(found.short_ttl(&store(etcd)).is_some(), ttl < 10);
    }
}

#[test]
fn a_ttl_below_2_seconds_is_refused() {
    let (found, problems) = ClusterConfig::from_document(&json!({"ttl": 1}));
    assert_eq!(found.ttl, Duration::from_secs(30));
    assert_eq!(problems.len(), 1);
    let good = cluster(&json!({"ttl": 15}));
    let (found, _) = ClusterConfig::from_document_after(&json!({"ttl": 0}), &good);
    assert_eq!(found.ttl, Duration::from_secs(15), "the last good one stays in force");
}

#[test]
fn a_new_cluster_gets_a_ttl_of_10_and_an_old_one_without_has_30() {
    assert_eq!(ClusterConfig::default_document(None), json!({"ttl": 10}));
    let dcs = json!({"loop_wait": 2, "postgresql": {"parameters": {"a": "1.10"}}});
    assert_eq!(
        ClusterConfig::default_document(Some(&dcs)),
        json!({"ttl": 10, "loop_wait": 2, "postgresql": {"parameters": {"a": "1.10"}}})
    );
    assert_eq!(ClusterConfig::default_document(Some(&json!({"ttl": 40}))), json!({"ttl": 40}));
    assert_eq!(cluster(&json!({})).ttl, Duration::from_secs(30));
    let (_, problems) = ClusterConfig::from_document(&ClusterConfig::default_document(None));
    assert_eq!(problems, [], "the default needs no comment");
}

#[test]
fn a_wrong_value_leaves_the_last_good_one_in_force_wherever_it_stands() {
    let good = cluster(&json!({
        "synchronous_mode": "quorum", "postgresql": {"pg_hba": ["a"], "parameters": {"work_mem": "1MB"}, "use_slots": false}
    }));
    let bad = json!({"synchronous_mode": [1], "postgresql": {"pg_hba": "b", "parameters": {"work_mem": {}}, "use_slots": "x"}});
    let (found, problems) = ClusterConfig::from_document_after(&bad, &good);
    assert_eq!(problems.iter().filter(|p| p.advice.contains("last good")).count(), 4);
    assert_eq!(found.synchronous_mode, SynchronousMode::Quorum);
    assert!(!found.use_slots);
    assert_eq!(found.document, bad, "the document itself is kept as it is");
    let effective = Effective::of(&node(""), &found, 15);
    assert_eq!(effective.pg_hba, Some(vec!["a".to_owned()]));
    assert_eq!(effective.parameters["work_mem"], "1MB");
    let (kept, problems) = ClusterConfig::from_document_after(&json!("no object"), &good);
    assert_eq!(kept.synchronous_mode, SynchronousMode::Quorum);
    assert_eq!(problems.len(), 1);
}

// P119
#[test]
fn a_nodes_parameter_beats_the_clusters_and_null_removes_it() {
    let found = effective(
        "  parameters:\n    work_mem: 8MB\n    maintenance_work_mem: ~\n",
        &json!({"postgresql": {"parameters": {"work_mem": "4MB", "maintenance_work_mem": "1GB", "Shared_Buffers": "2GB"}}}),
    );
    assert_eq!(found.parameters["work_mem"], "8MB");
    assert_eq!(found.parameters.get("maintenance_work_mem"), None);
    assert_eq!(found.parameters["shared_buffers"], "2GB", "names are compared without case");
}

// P120
#[test]
fn parameters_of_ours_come_from_the_cluster_alone() {
    let found = effective(
        "  parameters: {max_connections: 500, wal_level: logical, port: 1}\n",
        &json!({"postgresql": {"parameters": {"max_connections": 300, "cluster_name": "x"}}}),
    );
    assert_eq!(found.parameters["max_connections"], "300");
    assert_eq!(found.parameters["wal_level"], "replica");
    assert_eq!(found.parameters["port"], "5433");
    assert_eq!(found.parameters["cluster_name"], "demo");
}

#[test]
fn whole_numbers_of_ours_are_written_in_plain_digits() {
    let found = effective(
        "",
        &json!({"postgresql": {"parameters": {"max_connections": 300.0, "max_wal_senders": "1_0"}}}),
    );
    assert_eq!(found.parameters["max_connections"], "300");
    assert_eq!(found.parameters["max_wal_senders"], "10");
}

// P121
#[test]
fn parameters_below_their_minimum_fall_back_to_the_default() {
    let found = effective(
        "",
        &json!({"postgresql": {"parameters": {
            "max_connections": 10, "max_wal_senders": "2", "wal_keep_size": "1MB", "hot_standby": "off", "track_commit_timestamp": "maybe"
        }}}),
    );
    assert_eq!(found.parameters["max_connections"], "100");
    assert_eq!(found.parameters["max_wal_senders"], "10");
    assert_eq!(found.parameters["wal_keep_size"], "128MB");
    assert_eq!(found.parameters["hot_standby"], "on");
    assert_eq!(found.parameters["track_commit_timestamp"], "off");
    assert_eq!(found.warnings.len(), 5);
}

// P122
#[test]
fn slots_are_switched_for_the_whole_cluster_only() {
    assert!(effective("  use_slots: false\n", &json!({})).use_slots);
    assert!(!effective("", &json!({"postgresql": {"use_slots": false}})).use_slots);
}

// P129
#[test]
fn every_listen_address_reaches_the_server() {
    let found = effective("", &json!({}));
    assert_eq!(found.parameters["listen_addresses"], "10.0.0.1,127.0.0.1");
    assert_eq!(found.parameters["port"], "5433");
    assert!(found.command_line().contains(&"--listen_addresses=10.0.0.1,127.0.0.1".to_owned()));
    assert!(!found.command_line().iter().any(|a| a.contains("wal_keep")), "{:?}", found.command_line());
}

// P137
#[test]
fn the_first_absolute_socket_directory_is_used() {
    let found = effective("  parameters: {unix_socket_directories: 'rel, /run/a, /run/b'}\n", &json!({}));
    assert_eq!(found.socket_dir().unwrap(), std::path::Path::new("/run/a"));
    assert_eq!(effective("", &json!({})).socket_dir(), None);
}

// P139
#[test]
fn a_file_that_the_operator_names_is_not_ours_to_write() {
    let found = effective(
        "  pg_hba: [local all all trust]\n  pg_ident: [a b c]\n  parameters: {hba_file: own_hba.conf}\n",
        &json!({}),
    );
    assert_eq!(found.pg_hba, None);
    assert_eq!(found.pg_ident, Some(vec!["a b c".to_owned()]));
    assert_eq!(found.parameters["hba_file"], "/srv/d/own_hba.conf");
}

// P141
#[test]
fn recovery_parameters_are_kept_apart_and_never_say_whom_to_follow() {
    let found = effective(
        "  recovery_conf: {restore_command: cp a b, primary_conninfo: host=x}\n  parameters: {archive_cleanup_command: clean, recovery_target_lsn: 0/1}\n",
        &json!({}),
    );
    assert_eq!(found.recovery_conf["restore_command"], "cp a b");
    assert_eq!(found.recovery_conf["archive_cleanup_command"], "clean");
    assert_eq!(found.recovery_conf.len(), 2);
    assert!(!found.parameters.contains_key("recovery_target_lsn"));
}

// P148
#[test]
fn wal_kept_is_counted_in_segments_before_13_and_as_a_size_since() {
    let of = |parameters: Value, major: u32| {
        let cluster = cluster(&json!({"postgresql": {"parameters": parameters}}));
        Effective::of(&node(""), &cluster, major).parameters
    };
    let given = of(json!({"wal_keep_segments": 20}), 15);
    assert_eq!(given["wal_keep_size"], "320MB");
    assert!(!given.contains_key("wal_keep_segments"));
    let given = of(json!({"wal_keep_size": "1GB"}), 12);
    assert_eq!(given["wal_keep_segments"], "64");
    assert!(!given.contains_key("wal_keep_size"));
    assert_eq!(of(json!({}), 15)["wal_keep_size"], "128MB");
    assert_eq!(of(json!({}), 12)["wal_keep_segments"], "8");
    assert_eq!(of(json!({"wal_keep_size": "256MB", "wal_keep_segments": 99}), 15)["wal_keep_size"], "256MB");
}

// P149
#[test]
fn the_old_name_of_the_wal_level_is_translated() {
    let found = effective("", &json!({"postgresql": {"parameters": {"wal_level": "hot_standby"}}}));
    assert_eq!(found.parameters["wal_level"], "replica");
    let found = effective("", &json!({"postgresql": {"parameters": {"wal_level": "logical"}}}));
    assert_eq!(found.parameters["wal_level"], "logical");
}

#[test]
fn parameters_keep_the_text_that_was_written() {
    let text = "  parameters:\n    a.mode: 0755\n    a.version: 1.10\n    jit: on\n    a.big: 1_000\n    log_line_prefix: '%m [%p]: '\n    a.quoted: \"10\"\n";
    let local = effective(text, &json!({})).parameters;
    let node =
        node_with("", &format!("bootstrap:\n  dcs:\n    postgresql:\n    {}", text.replace('\n', "\n    ")));
    let shared = Effective::of(&node, &cluster(node.bootstrap.dcs.as_ref().unwrap()), 15).parameters;
    for found in [local, shared] {
        assert_eq!(found["a.mode"], "0755");
        assert_eq!(found["a.version"], "1.10");
        assert_eq!(found["jit"], "on");
        assert_eq!(found["a.big"], "1_000");
        assert_eq!(found["log_line_prefix"], "%m [%p]: ");
        assert_eq!(found["a.quoted"], "10");
    }
}

#[test]
fn postgres_never_restarts_itself_after_a_crash() {
    let found = effective("  parameters: {restart_after_crash: on}\n", &json!({}));
    assert_eq!(found.parameters["restart_after_crash"], "off");
    assert_eq!(found.warnings.len(), 1);
}

// P201
#[test]
fn options_of_pg_basebackup_that_matriarch_decides_are_left_out() {
    let found = effective(
        "  basebackup:\n    - max-rate: 100M\n    - dbname: x\n    - checkpoint: '\"fast\"'\n    - verbose\n    - compress: gzip\n    - compress: server-gzip\n",
        &json!({}),
    );
    assert_eq!(
        found.basebackup.as_slice(),
        ["--max-rate=100M", "--checkpoint=fast", "--verbose", "--compress=server-gzip"]
    );
    let older = Effective::of(&node("  basebackup: {compress: server-gzip}\n"), &cluster(&json!({})), 14);
    assert!(older.basebackup.as_slice().is_empty());
}

#[test]
fn outside_the_parameters_a_nodes_key_replaces_the_clusters() {
    let document = json!({"postgresql": {"callbacks": {"on_start": "a", "on_stop": "b"}, "pg_ctl_timeout": 5, "listen": "0.0.0.0:1"}});
    let found = effective("  callbacks: {on_start: mine}\n", &document);
    assert_eq!(found.callbacks.len(), 1);
    assert_eq!(found.callbacks["on_start"], "mine");
    assert_eq!(found.pg_ctl_timeout, Duration::from_secs(5));
    assert_eq!(found.parameters["port"], "5433");
}

#[test]
fn a_promise_that_cannot_be_kept_withholds_leadership() {
    let plain = node("");
    let none = [""; 0];
    let off = json!({"synchronous_mode": "quorum", "synchronous_mode_strict": true, "failsafe_mode": "on", "standby_cluster": {}});
    assert_eq!(withheld(&plain, &cluster(&off)), none);
    for (document, key) in [
        (json!({"standby_cluster": {"host": "x"}}), "standby_cluster"),
        (json!({"standby_cluster": {"port": 5432}}), "standby_cluster"),
        (json!({"postgresql": {"pre_promote": "fence"}}), "postgresql.pre_promote"),
        (json!({"synchronous_mode": "maybe"}), "synchronous_mode"),
        (json!({"standby_cluster": "x"}), "standby_cluster.host"),
    ] {
        let reasons = withheld(&plain, &cluster(&document));
        assert_eq!(reasons.len(), 1, "{document}: {reasons:?}");
        assert!(reasons[0].starts_with(&format!("{key} ")), "{document}: {reasons:?}");
    }
    // Whether a watchdog is there is for the machine to show.
    let required = node_with("", "watchdog: {mode: required, driver: testing}");
    assert_eq!(withheld(&required, &cluster(&json!({}))), none);
    assert!(required.watchdog.testing && required.watchdog.mode == config::WatchdogMode::Required);
    assert!(
        !withheld(&plain, &cluster(&json!([]))).is_empty(),
        "an unreadable document may have promised anything"
    );
}

#[test]
fn our_own_settings_may_stand_in_either_document() {
    let document = json!({"matriarch": {"rewind": "never", "single": true}});
    let found = effective("", &document).matriarch;
    assert_eq!((found.rewind, found.single), (config::Rewind::Never, true));
    let local = node_with("", "matriarch: {rewind: capsule}");
    let found = Effective::of(&local, &cluster(&document), 15).matriarch;
    assert_eq!((found.rewind, found.single), (config::Rewind::Capsule, true));
}

// P188, P189
#[test]
fn options_become_arguments_and_forbidden_ones_are_named() {
    let options = json!(["data-checksums", {"encoding": "UTF8"}, {"locale": "'C'"}]);
    let (arguments, problems) = Arguments::of(Tool::Initdb, &options);
    assert_eq!(arguments.as_slice(), ["--data-checksums", "--encoding=UTF8", "--locale=C"]);
    assert!(problems.is_empty() && arguments.give("locale") && !arguments.give("loc"));
    for (tool, bad) in [
        (Tool::Initdb, json!({"pgdata": "/x"})),
        (Tool::Initdb, json!(["nosync"])),
        (Tool::Initdb, json!(["pwfile=/x"])),
        (Tool::Basebackup, json!([{"dbname": "x"}])),
        (Tool::Rewind, json!(["no-ensure-shutdown"])),
    ] {
        let (arguments, problems) = Arguments::of(tool, &bad);
        assert_eq!((arguments.as_slice().len(), problems.len()), (0, 1), "{bad}");
        assert!(problems[0].to_string().contains("which matriarch decides itself"), "{}", problems[0]);
    }
}

// P228
#[test]
fn the_backoff_of_an_election_is_read() {
    assert_eq!(cluster(&json!({})).primary_race_backoff, Duration::ZERO);
    assert_eq!(cluster(&json!({"primary_race_backoff": "20"})).primary_race_backoff, Duration::from_secs(20));
    let (found, problems) = ClusterConfig::from_document(&json!({"primary_race_backoff": 20}));
    assert_eq!((found.primary_race_backoff, problems.len()), (Duration::from_secs(20), 0));
}
