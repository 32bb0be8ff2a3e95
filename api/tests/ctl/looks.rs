//! Commands that only look, against what Patroni's patronictl prints for the same keys.

use crate::stage::{NODE1, NODE2, Stage};

/// P168: the four formats of list, byte for byte as patronictl 4.1.5 printed them for these keys.
#[test]
fn list_has_patronis_columns_and_cells() {
    let mut stage = Stage::new();
    let expected = "\
+ Cluster: batman (7710145069470500063) ---------+----+-------------+-----+------------+-----+-----------------+
| Member | Host            | Role    | State     | TL | Receive LSN | Lag | Replay LSN | Lag | Tags            |
+--------+-----------------+---------+-----------+----+-------------+-----+------------+-----+-----------------+
| node1  | 127.0.0.1:30541 | Leader  | running   |  1 |             |     |            |     |                 |
| node2  | 127.0.0.1:30542 | Replica | streaming |  1 |   0/30486C0 |   0 |  0/30486C0 |   0 | datacenter: dc1 |
+--------+-----------------+---------+-----------+----+-------------+-----+------------+-----+-----------------+
";
    assert_eq!(stage.shown(&["list"]), expected);
    assert_eq!(stage.shown(&["list", "batman", "-f", "pretty"]), expected);
    assert_eq!(
        stage.shown(&["list", "-f", "json"]),
        concat!(
            r#"[{"Cluster": "batman", "Member": "node1", "Host": "127.0.0.1:30541", "Role": "Leader", "State": "running", "TL": 1}, "#,
            r#"{"Cluster": "batman", "Member": "node2", "Host": "127.0.0.1:30542", "Role": "Replica", "State": "streaming", "TL": 1, "#,
            r#""Receive LSN": "0/30486C0", "Receive Lag": 0, "Replay LSN": "0/30486C0", "Replay Lag": 0, "Tags": {"datacenter": "dc1"}}]"#,
            "\n"
        )
    );
    assert_eq!(
        stage.shown(&["list", "-f", "tsv"]),
        "Cluster\tMember\tHost\tRole\tState\tTL\tReceive LSN\tReceive Lag\tReplay LSN\tReplay Lag\tTags\n\
         batman\tnode1\t127.0.0.1:30541\tLeader\trunning\t1\t\t\t\t\t\n\
         batman\tnode2\t127.0.0.1:30542\tReplica\tstreaming\t1\t0/30486C0\t0\t0/30486C0\t0\t{datacenter: dc1}\n"
    );
    let yaml = "\
- Cluster: batman
  Host: 127.0.0.1:30541
  Member: node1
  Role: Leader
  State: running
  TL: 1
- Cluster: batman
  Host: 127.0.0.1:30542
  Member: node2
  Receive LSN: 0/30486C0
  Receive Lag: 0
  Replay LSN: 0/30486C0
  Replay Lag: 0
  Role: Replica
  State: streaming
  TL: 1
  Tags:
    datacenter: dc1

";
    assert_eq!(stage.shown(&["list", "-f", "yaml"]), yaml);
    assert_eq!(stage.shown(&["list", "-f", "yml"]), yaml);

    let stopped = r#"{"conn_url":"postgres://10.0.0.3:5432/postgres","state":"stopped","role":"replica","version":"4.1.5"}"#;
    stage.put("members/node3", stopped);
    let shown = stage.shown(&["list", "-f", "tsv"]);
    assert!(shown.contains("node3\t10.0.0.3:5432\tReplica\tstopped\t\tunknown\t\tunknown\t\t\n"), "{shown}");
}

/// P168: lags in MiB, ports only where needed, the titles of clusters that are not there yet.
#[test]
fn list_rounds_lags_and_hides_ports() {
    let mut stage = Stage::new();
    stage.put("members/node1", &NODE1.replace("127.0.0.1:30541", "10.0.0.1:5432"));
    let behind = NODE2
        .replace("127.0.0.1:30542", "10.0.0.2:5432")
        .replace("\"replay_lsn\":50628288", "\"replay_lsn\":46000000");
    stage.put("members/node2", &behind);
    let shown = stage.shown(&["list", "-f", "tsv"]);
    assert!(shown.contains("node1\t10.0.0.1\tLeader"), "{shown}");
    assert!(
        shown.contains("node2\t10.0.0.2\tReplica\tstreaming\t1\t0/30486C0\t0\t0/2BDE780\t4\t"),
        "{shown}"
    );

    stage.put("initialize", "");
    assert!(stage.shown(&["list"]).starts_with("+ Cluster: batman (initializing) -"));
    assert!(stage.shown(&["list", "nosuch"]).starts_with("+ Cluster: nosuch (uninitialized) -"));
}

/// P168: synchronous and quorum standbys, standby leaders, pause, a scheduled switchover.
#[test]
fn list_shows_roles_and_notes() {
    let mut stage = Stage::new();
    stage.put("sync", r#"{"leader":"node1","quorum":0,"sync_standby":"NODE2"}"#);
    for (config, roles) in [
        (r#"{"synchronous_mode":true}"#, ["Leader", "Sync Standby"]),
        (r#"{"synchronous_mode":"quorum"}"#, ["Leader", "Quorum Standby"]),
        (r#"{"synchronous_mode":"off"}"#, ["Leader", "Replica"]),
        (r#"{"synchronous_mode":"on","standby_cluster":{"host":"10.0.0.9"}}"#, ["Standby Leader", "Replica"]),
    ] {
        stage.put("config", config);
        let shown = stage.shown(&["list", "-f", "tsv"]);
        let found: Vec<&str> = shown.lines().skip(1).map(|line| line.split('\t').nth(3).unwrap()).collect();
        assert_eq!(found, roles, "{config}");
    }
    stage.put("config", r#"{"pause":true}"#);
    stage
        .put("failover", r#"{"leader":"node1","member":"node2","scheduled_at":"2026-11-20T09:04:00+00:00"}"#);
    let notes = "
 Maintenance mode: on
 Switchover scheduled at: 2026-11-20T09:04:00+00:00
                    from: node1
                      to: node2
";
    assert!(stage.shown(&["list"]).ends_with(notes));
    assert!(!stage.shown(&["list", "-f", "tsv"]).contains("Maintenance"));
}

/// P169: the extra columns appear when asked for or when there is something in them.
#[test]
fn list_shows_restarts() {
    let mut stage = Stage::new();
    let pending = NODE2.replace(
        "\"timeline\":1",
        r#""timeline":1,"pending_restart":true,"pending_restart_reason":{"max_connections":{"old_value":"50","new_value":"60"},"shared_preload_libraries":{"old_value":"","new_value":"pg_stat_statements,auto_explain,pg_cron"}},"scheduled_restart":{"postgres_version":"16.1","schedule":"2026-11-20T09:04:00+00:00","postmaster_start_time":"2026-11-20 07:01:12.537473+00:00"}"#,
    );
    assert!(
        stage
            .shown(&["list", "-e"])
            .contains("| Pending restart | Pending restart reason | Scheduled restart | Tags")
    );
    stage.put("members/node2", &pending);
    let shown = stage.shown(&["list"]);
    for part in [
        "| Pending restart | Pending restart reason                       | Scheduled restart                           | Tags            |",
        "| *               | max_connections: 50->60                      | 2026-11-20T09:04:00+00:00 if version < 16.1 | datacenter: dc1 |",
        "|                 | shared_preload_libraries: [hidden - too long] |",
    ] {
        let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(squeezed(&shown).contains(&squeezed(part)), "{part} is not in\n{shown}");
    }
    assert!(shown.lines().filter(|line| line.starts_with("+---")).count() == 3, "{shown}");
}

/// P168: a member stands under the one it streams from.
#[test]
fn topology_is_a_tree() {
    let mut stage = Stage::new();
    let cascading =
        |from: &str| NODE2.replace(r#"{"datacenter":"dc1"}"#, &format!(r#"{{"replicatefrom":"{from}"}}"#));
    stage.put("members/node3", &cascading("node2"));
    stage.put("members/node4", &cascading("node3"));
    stage.put("members/node5", &cascading("nobody"));
    let shown = stage.shown(&["topology"]);
    let names: Vec<&str> = shown.lines().skip(3).filter_map(|line| line.split('|').nth(1)).collect();
    assert_eq!(names, [" node1       ", " + node2     ", "   + node3   ", "     + node4 ", " + node5     "]);
    assert!(shown.contains("{datacenter: dc1}"), "{shown}");
}

/// P170: short rows of old versions are filled up.
#[test]
fn history_shows_rows() {
    let mut stage = Stage::new();
    assert_eq!(
        stage.shown(&["history"]),
        "\
+----+----------+------------------------------+----------------------------------+------------+
| TL |      LSN | Reason                       | Timestamp                        | New Leader |
+----+----------+------------------------------+----------------------------------+------------+
|  1 | 50628640 | no recovery target specified | 2026-11-20T07:04:18.485455+00:00 | node2      |
|  2 | 83886352 | no recovery target specified | 2026-11-20T07:09:44.905470+00:00 | node1      |
+----+----------+------------------------------+----------------------------------+------------+
"
    );
    stage.put("history", r#"[[1,25624,"no recovery target specified"]]"#);
    assert_eq!(
        stage.shown(&["history", "-f", "json"]),
        "[{\"TL\": 1, \"LSN\": 25624, \"Reason\": \"no recovery target specified\", \"Timestamp\": \"\", \"New Leader\": \"\"}]\n"
    );
    stage.delete("history");
    assert_eq!(stage.shown(&["history", "-f", "tsv"]), "TL\tLSN\tReason\tTimestamp\tNew Leader\n");
}

/// P172.
#[test]
fn dsn_finds_a_member_by_role_or_name() {
    let mut stage = Stage::new();
    assert_eq!(stage.shown(&["dsn"]), "host=127.0.0.1 port=30541\n");
    assert_eq!(stage.shown(&["dsn", "batman", "-r", "replica"]), "host=127.0.0.1 port=30542\n");
    assert_eq!(stage.shown(&["dsn", "-m", "node2"]), "host=127.0.0.1 port=30542\n");
    assert!(stage.refused(&["dsn", "-m", "node9"]).contains("its members are node1, node2"));
    assert_eq!(stage.run(&["dsn", "-m", "node2", "-r", "any"]).code, 2);
    stage.delete("leader");
    assert!(stage.refused(&["dsn"]).contains("has no leader now"));
}

/// P174.
#[test]
fn show_config_is_yaml() {
    let mut stage = Stage::new();
    let expected = "\
loop_wait: 1
maximum_lag_on_failover: 1048576
postgresql:
  parameters:
    max_connections: 50
  pg_hba:
  - local all all trust
  - host replication replicator 127.0.0.1/32 md5
  - host all all 127.0.0.1/32 md5
  use_pg_rewind: true
retry_timeout: 10
ttl: 30

";
    assert_eq!(stage.shown(&["show-config"]), expected);
    assert_eq!(stage.shown(&["show-config", "batman"]), expected);
    stage.delete("config");
    assert!(stage.refused(&["show-config"]).contains("has no settings in the store"));
}

/// One clear error that says what to do, for everything that can be wrong before the store is reached.
#[test]
fn wrong_configuration_is_explained() {
    let stage = Stage::new();
    let endpoint = stage.server.url.replace("http://", "etcd://");
    assert!(stage.shown(&["-d", &endpoint, "list", "batman"]).contains("node2"));
    assert!(stage.shown(&["-d", &format!("{endpoint}/other"), "list", "batman"]).contains("(uninitialized)"));
    assert!(stage.refused(&["-d", "zookeeper://x", "list"]).contains("\"zookeeper\", which is not etcd"));
    assert!(stage.refused(&["-c", "/nowhere.yml", "list"]).contains("-c"));
    let broken = stage.write("broken.yml", "scope: [batman\n");
    assert!(stage.refused(&["-c", broken.to_str().unwrap(), "list"]).contains("broken.yml"));
    let wrong =
        stage.write("wrong.yml", "scope: batman\netcd3: {hosts: [1, {}]}\nctl: {insecure: perhaps}\n");
    let problems = stage.refused(&["-c", wrong.to_str().unwrap(), "list"]);
    assert!(problems.contains("wrong.yml:2:") && problems.contains("wrong.yml:3:"), "{problems}");
    let empty = stage.write("empty.yml", "scope: batman\n");
    assert!(
        stage
            .refused(&["-c", empty.to_str().unwrap(), "list"])
            .contains("so is raft: the store is looked for at")
    );
    let unnamed = stage.write("unnamed.yml", &format!("etcd3: {{host: {}}}\n", &stage.server.url[7..]));
    assert!(stage.refused(&["-c", unnamed.to_str().unwrap(), "list"]).contains("which cluster?"));
    assert!(stage.refused(&["-d", "etcd://127.0.0.1:9", "list"]).contains("http://127.0.0.1:9"));
    assert_eq!(stage.run(&["lst"]).code, 2);
}

/// Whoever reads our output may stop reading.
#[test]
fn a_closed_pipe_is_no_error() {
    let stage = Stage::new();
    let mut command = stage.command(&["list", "-w", "0.05"]);
    let mut child = command.spawn().unwrap();
    let mut line = [0; 16];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut line).unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}
