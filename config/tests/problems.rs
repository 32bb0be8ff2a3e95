//! What an operator is told about a configuration that is not right.
//! Read the snapshots aloud: would you know what to do at three in the morning?

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::fmt::Write;

use config::{ClusterConfig, load};
use serde_json::json;

/// A file without any problem, to break in one place.
const GOOD: &str = "\
scope: demo
name: n1
restapi:
  listen: 10.0.0.1:8008
  connect_address: 10.0.0.1:8008
etcd3:
  hosts: 10.0.0.1:2379
postgresql:
  listen: 10.0.0.1:5432
  connect_address: 10.0.0.1:5432
  data_dir: /srv/data
  authentication:
    superuser: {username: postgres, password: hunter2}
    replication: {username: replicator, password: hunter2}
";

fn said_with(text: &str, environment: &[(&str, &str)]) -> String {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("patroni.yml");
    std::fs::write(&file, text).unwrap();
    let environment = environment.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
    let mut said = String::new();
    match load(Some(&file), environment) {
        Ok(loaded) => {
            said.push_str("loads\n");
            for warning in loaded.warnings {
                writeln!(said, "{warning}").unwrap();
            }
        }
        Err(problems) => writeln!(said, "refused\n{problems}").unwrap(),
    }
    said.replace(&format!("{}/", directory.path().display()), "")
}

fn said(text: &str) -> String {
    said_with(text, &[])
}

/// The good file with one piece of text replaced.
fn with(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from}");
    GOOD.replace(from, to)
}

#[test]
fn a_good_file_is_loaded_in_silence() {
    assert_eq!(said(GOOD), "loads\n");
}

#[test]
fn text_that_is_not_yaml() {
    insta::assert_snapshot!(
        [
            said("scope: demo\n\tname: n1\n"),
            said("scope: demo\nname: [n1\nrestapi:\n  listen: 0.0.0.0:8008\n"),
            said("scope: demo\nname: 'n1\n"),
            said("scope: demo\n---\nname: n1\n"),
            said("just a sentence\n"),
            said("- a\n- b\n"),
            said(""),
            said("scope: demo\n  name: n1\n"),
        ]
        .concat()
    );
}

#[test]
fn keys_that_are_missing() {
    insta::assert_snapshot!(said("scope: demo\n"));
}

#[test]
fn placeholders_of_a_generated_file_must_be_filled_in() {
    let sample = with("scope: demo", "scope: '#FIXME'").replace("hunter2", "'#FIXME'");
    insta::assert_snapshot!(said(&sample));
}

#[test]
fn empty_text_is_the_same_as_nothing() {
    assert_eq!(
        said(&format!(
            "{GOOD}  bin_dir: ''\n  proxy_address: ''\n  pg_ctl_timeout: ''\nlog: {{level: ''}}\n"
        )),
        "loads\n"
    );
}

#[test]
fn a_key_written_twice_is_a_warning_as_in_patroni() {
    insta::assert_snapshot!(said(&format!("{GOOD}scope: other\n")));
}

#[test]
fn an_unknown_key_names_its_nearest_neighbour() {
    insta::assert_snapshot!(said(&format!(
        "{GOOD}  use_pg_rewnd: true\n  zzz: 1\n  shared_buffers: 1GB\nrestap:\n  listen: x\nbootstrap:\n  dcs:\n    loop_wiat: 10\n    retry: {{}}\n"
    )));
}

#[test]
fn values_of_the_wrong_kind_are_all_reported_at_once() {
    insta::assert_snapshot!(said(
        "scope: [demo]\nname: n/1\nrestapi:\n  listen: 8008\n  verify_client: maybe\n  allowlist: {a: b}\netcd3:\n  port: 99999\n  use_proxies: perhaps\npostgresql:\n  listen: 5432\n  data_dir: /srv/data\n  parameters:\n    work_mem: [1]\n  pg_hba: local all all trust\n  use_pg_rewind: 2\n  pg_ctl_timeout: soon\nbootstrap:\n  dcs:\n    ttl: 1\n    maximum_lag_on_failover: much\n    synchronous_mode: maybe\nlog:\n  level: chatty\n  mode: 0999\ntags:\n  nofailover: perhaps\n  failover_priority: high\nwatchdog: always\n"
    ));
}

#[test]
fn secrets_are_never_repeated() {
    let said = [
        said(&with("superuser: {username: postgres, password: hunter2}", "superuser: postgres:hunter2")),
        said(&with("password: hunter2}", "password: [hunter2]}")),
        said(&with("restapi:", "restapi:\n  authentication: admin:hunter2")),
        said(&with("restapi:", "restapi:\n  authentication: {password: hunter2}")),
        said(&with("password: hunter2}", "password: 'hunter2}")),
    ]
    .concat();
    assert!(!said.contains("hunter2"), "{said}");
    insta::assert_snapshot!(said);
}

#[test]
fn keys_that_are_known_but_not_acted_on_warn_once_each() {
    insta::assert_snapshot!(said(&format!(
        "{GOOD}  callbacks:\n    on_start: /bin/true\n  parameters_replica: {{work_mem: 1MB}}\n  pg_hba_primary: []\nthread_pool_size: 8\nlog:\n  dir: /var/log\n  loggers: {{patroni.postmaster: WARNING}}\nwatchdog:\n  mode: automatic\nbootstrap:\n  users: {{admin: {{password: x}}}}\n  dcs:\n    ttl: 30\n    slots: {{a: {{type: physical}}}}\n"
    )));
}

#[test]
fn promises_that_cannot_be_kept_are_named_as_such() {
    insta::assert_snapshot!(said(&format!(
        "{GOOD}  pre_promote: /bin/fence\nwatchdog: {{mode: required}}\nbootstrap:\n  dcs:\n    ttl: 30\n    failsafe_mode: true\n    standby_cluster: {{host: 10.9.9.9}}\n"
    )));
}

#[test]
fn settings_in_the_wrong_document() {
    insta::assert_snapshot!(said(&format!(
        "{GOOD}  use_slots: false\n  parameters:\n    max_connections: 500\n    port: 1\nttl: 20\nbootstrap:\n  dcs:\n    postgresql:\n      listen: 0.0.0.0:1\n      parameters:\n        max_connections: 10\n        wal_level: minimal\n        cluster_name: x\n"
    )));
}

// P189
#[test]
fn options_that_matriarch_decides_are_refused() {
    insta::assert_snapshot!(said(&format!(
        "{GOOD}  basebackup:\n    - dbname: x\n    - max-rate: 100M\nbootstrap:\n  initdb:\n    - encoding: UTF8\n    - pgdata: /elsewhere\n    - --data-checksums\n    - pwfile=/x\n"
    )));
}

#[test]
fn an_embedded_store_that_cannot_work() {
    let raft = |text: &str| said(&with("etcd3:\n  hosts: 10.0.0.1:2379\n", &format!("raft:\n{text}")));
    insta::assert_snapshot!(
        [
            raft("  self_addr: 10.0.0.1:2222\n  partner_addrs: [10.0.0.2:2222]\n  data_dir: /d\n"),
            raft("  partner_addrs: [10.0.0.2:2222]\n"),
            raft("  data_dir: /d\n"),
            raft("  self_addr: 0.0.0.0:2222\n"),
            raft("  self_addr: 10.0.0.1:2222\n  data_dir: /d\n  partner_addrs: [10.0.0.2]\n"),
            raft("  self_addr: 10.0.0.1:2222\n  data_dir: /d\n  cacert: /c\n"),
            raft("  self_addr: 10.0.0.1:2222\n  data_dir: /d\n  min_timeout: 2\n  max_timeout: 1\n"),
            raft("  self_addr: 10.0.0.1:2222\n  data_dir: /d\n  connection_timeout: 3\n"),
        ]
        .concat()
    );
}

#[test]
fn stores_that_are_not_supported() {
    insta::assert_snapshot!(
        [
            said(&with("etcd3:\n  hosts: 10.0.0.1:2379", "consul:\n  host: 10.0.0.1:8500")),
            said(&with("etcd3:", "kubernetes: {}\netcd3:")),
            said(&with("etcd3:\n  hosts: 10.0.0.1:2379\n", "etcd3:\n  protocol: http\n")),
            said(&with("etcd3:\n  hosts: 10.0.0.1:2379\n", "")),
            said(&with("etcd3:", "etcd3:\n  username: root")),
            said(&format!("{GOOD}citus: {{group: 0, database: c}}\n")),
        ]
        .concat()
    );
}

#[test]
fn fields_that_contradict_each_other() {
    insta::assert_snapshot!(
        [
            said(&with("10.0.0.1:8008\n  connect", "10.0.0.1:5432\n  connect")),
            said(&format!("{GOOD}tags: {{nofailover: false, failover_priority: 0, replicatefrom: n1}}\n")),
            said(&with("restapi:", "restapi:\n  keyfile: /k.pem\n  verify_client: required")),
            said(&with("connect_address: 10.0.0.1:8008", "connect_address: 0.0.0.0:8008"))
                .replace(&hostname(), "HOST"),
            said(&with("data_dir: /srv/data", "data_dir: data")).replace(&current(), "/CURRENT"),
        ]
        .concat()
    );
}

fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim().to_owned()
}

fn current() -> String {
    std::env::current_dir().unwrap().display().to_string()
}

#[test]
fn a_custom_bootstrap_method_is_not_replaced_by_initdb() {
    insta::assert_snapshot!(said(&format!(
        "{GOOD}bootstrap:\n  method: restore\n  restore:\n    command: /bin/restore\n"
    )));
}

#[test]
fn a_variable_is_named_where_it_is_wrong() {
    insta::assert_snapshot!(said_with(
        GOOD,
        &[
            ("PATRONI_POSTGRESQL_LISTEN", "5432"),
            ("PATRONI_RESTAPI_HTTP_EXTRA_HEADERS", "[1, 2]"),
            ("PATRONI_LOG_LEVEL", "chatty"),
            ("MATRIARCH_REWIND", "always"),
        ],
    ));
}

#[test]
fn a_path_that_is_not_there() {
    let missing = std::path::Path::new("/nowhere/patroni.yml");
    let problems = load(Some(missing), std::iter::empty()).unwrap_err();
    insta::assert_snapshot!(problems);
    assert_eq!(load(None, std::iter::empty()).unwrap_err().to_string().lines().count(), 1);
}

#[test]
fn a_short_ttl_says_what_it_cannot_ride_out() {
    let dcs = |text: &str| said(&format!("{GOOD}bootstrap:\n  dcs: {{{text}}}\n"));
    insta::assert_snapshot!(
        [
            dcs("ttl: 10"),
            dcs("ttl: 5"),
            dcs("ttl: 3"),
            dcs("ttl: 2"),
            dcs("ttl: 20, loop_wait: 10, retry_timeout: 10"),
        ]
        .concat()
    );
}

#[test]
fn a_broken_document_in_the_store_is_explained_and_passed_over() {
    let document = json!({
        "ttl": 1, "loop_wait": "often", "synchronous_mode": "maybe", "maximum_lag": 5,
        "postgresql": {"use_pg_rewind": "sure", "parameters": [1]}, "name": "n1", "matriarch": {"rewind": "always"}
    });
    let (_, problems) = ClusterConfig::from_document(&document);
    let (_, not_an_object) = ClusterConfig::from_document(&json!([1]));
    let said: Vec<String> = problems.iter().chain(&not_an_object).map(ToString::to_string).collect();
    insta::assert_snapshot!(said.join("\n"));
}
