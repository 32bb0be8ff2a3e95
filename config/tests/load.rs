//! Whole files, directories and environments: what users bring, and what is made of it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::path::{Path, PathBuf};

use config::{ClusterConfig, Effective, Endpoints, Loaded, Method, StoreConfig, load, load_ctl};
use serde_json::json;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn environment(variables: &[(&str, &str)]) -> impl Iterator<Item = (String, String)> {
    variables.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect::<Vec<_>>().into_iter()
}

fn loaded(name: &str, variables: &[(&str, &str)]) -> Loaded {
    load(Some(&fixture(name)), environment(variables)).unwrap()
}

fn about(loaded: &Loaded) -> Vec<&str> {
    loaded.warnings.iter().map(|problem| problem.path.as_str()).collect()
}

fn urls(store: &Option<StoreConfig>) -> (Vec<String>, bool) {
    let Some(StoreConfig::Etcd(etcd)) = store else { return (Vec::new(), false) };
    match &etcd.endpoints {
        Endpoints::Listed { urls, fixed } => (urls.clone(), *fixed),
        Endpoints::Srv { domain, suffix } => (vec![format!("srv {domain} {suffix:?}")], false),
    }
}

// P114
#[test]
fn an_unmodified_patroni_file_loads_without_a_word() {
    let loaded = loaded("simple.yml", &[]);
    assert_eq!(about(&loaded), ["bootstrap.dcs.ttl"], "only what a ttl of 5 s cannot ride out");
    let node = &loaded.node;
    assert_eq!(node.name.as_str(), "n1");
    assert_eq!(node.namespace, "/service/");
    assert_eq!(node.restapi.api_url(), "http://127.0.3.1:8008/patroni");
    assert_eq!(node.bootstrap.method, Method::Initdb);
    assert_eq!(node.bootstrap.initdb.as_slice(), ["--encoding=UTF8", "--data-checksums"]);
    assert_eq!(
        urls(&node.store),
        (vec!["http://127.0.3.1:2379".to_owned(), "http://127.0.3.2:2379".to_owned()], false)
    );
    assert_eq!(node.postgresql.superuser.password.as_ref().unwrap().reveal(), "secret");
    assert_eq!(node.postgresql.program("pg_ctl"), Path::new("/usr/lib/postgresql/15/bin/pg_ctl"));
}

#[test]
fn the_full_seed_loads_and_says_what_it_leaves_out() {
    let loaded = loaded("patroni-full.yml", &[]);
    assert_eq!(about(&loaded), ["postgresql.create_replica_methods", "raft"]);
    let node = &loaded.node;
    assert_eq!(node.store, None, "three copies of one file must not become three clusters");
    assert!(node.tags.published.is_empty(), "tags that are off are not published");
    let (cluster, problems) = ClusterConfig::from_document(node.bootstrap.dcs.as_ref().unwrap());
    assert_eq!(problems, []);
    let effective = Effective::of(node, &cluster, 14);
    assert_eq!(effective.parameters["random_page_cost"], "1.1");
    assert_eq!(effective.parameters["work_mem"], "4130kB");
    assert_eq!(effective.basebackup.as_slice(), ["--max-rate=100M", "--checkpoint=fast"]);
    assert_eq!(effective.create_replica_methods, ["basebackup", "pgbackrest"]);
    assert!(effective.use_pg_rewind);
}

#[test]
fn the_minimal_seed_loads_and_says_which_defaults_serve() {
    let loaded = loaded("patroni-minimal.yml", &[]);
    assert_eq!(
        about(&loaded),
        [
            "restapi.connect_address",
            "postgresql.authentication.replication",
            "postgresql.authentication.superuser"
        ]
    );
    let node = &loaded.node;
    assert_eq!(node.postgresql.superuser.username, "postgres");
    assert_eq!(node.postgresql.replication.username, "replicator");
    assert_eq!(node.restapi.connect_address.port, 8008);
    assert_ne!(node.restapi.connect_address.host, "0.0.0.0");
    assert_eq!(urls(&node.store).0, ["http://etcd1.example.com:2379", "http://etcd2.example.com:2379"]);
}

// P117
#[test]
fn the_environment_lies_over_the_file() {
    let seed = loaded(
        "patroni-minimal.yml",
        &[
            ("PATRONI_NAME", "other"),
            ("PATRONI_ETCD3_HOSTS", "127.0.0.1:1,127.0.0.1:2"),
            ("PATRONI_POSTGRESQL_DATA_DIR", "/srv/other"),
            ("PATRONI_POSTGRESQL_BIN_PG_CTL", "pg_ctl_15"),
            ("PATRONI_REPLICATION_USERNAME", "rep"),
            ("PATRONI_REPLICATION_PASSWORD", "0123"),
            ("PATRONI_REPLICATION_SSLMODE", "verify-full"),
            ("PATRONI_RESTAPI_USERNAME", "admin"),
            ("PATRONI_RESTAPI_PASSWORD", "p"),
            ("PATRONI_RESTAPI_HTTP_EXTRA_HEADERS", "X-A: 1, X-B: two"),
            ("PATRONI_RESTAPI_ALLOWLIST", "10.0.0.0/8, 127.0.0.1"),
            ("PATRONI_LOGLEVEL", "DEBUG"),
            ("MATRIARCH_VAULT_DIR", "/srv/vault"),
            ("MATRIARCH_RECORDER__SIZE", "1MB"),
        ],
    );
    let node = &seed.node;
    assert_eq!(node.name.as_str(), "other");
    assert_eq!(urls(&node.store).0, ["http://127.0.0.1:1", "http://127.0.0.1:2"]);
    assert_eq!(node.postgresql.data_dir, Path::new("/srv/other"));
    assert_eq!(node.postgresql.program("pg_ctl"), Path::new("pg_ctl_15"));
    assert_eq!(node.postgresql.replication.username, "rep");
    assert_eq!(node.postgresql.replication.password.as_ref().unwrap().reveal(), "0123");
    assert_eq!(node.postgresql.replication.options["sslmode"], "verify-full");
    assert_eq!(node.restapi.authentication.as_ref().unwrap().username, "admin");
    assert_eq!(node.restapi.http_extra_headers["X-B"], "two");
    assert_eq!(node.restapi.allowlist, ["10.0.0.0/8", "127.0.0.1"]);
    assert_eq!(node.log.level, config::Level::Debug);
    assert_eq!(node.matriarch.vault_dir, Path::new("/srv/vault"));
    assert_eq!(node.matriarch.recorder.dir, Path::new("/srv/other.turns"));
    assert_eq!(node.matriarch.recorder.size, 1 << 20);
}

// P116
#[test]
fn a_whole_configuration_may_stand_in_one_variable() {
    let text = std::fs::read_to_string(fixture("simple.yml")).unwrap();
    let found =
        load(None, environment(&[("PATRONI_CONFIGURATION", &text), ("PATRONI_NAME", "ignored")])).unwrap();
    assert_eq!(found.node.name.as_str(), "n1", "the other variables are ignored then");
    let found = load(
        Some(&fixture("simple.yml")),
        environment(&[("PATRONI_CONFIGURATION", "{}"), ("PATRONI_NAME", "used")]),
    );
    assert_eq!(found.unwrap().node.name.as_str(), "used", "a file stands above it");
    let broken = load(None, environment(&[("PATRONI_CONFIGURATION", "scope: a\nname: [b\n")])).unwrap_err();
    assert!(broken.to_string().starts_with("environment variable PATRONI_CONFIGURATION:2:7"), "{broken}");
}

#[test]
fn variables_alone_configure_a_node() {
    let found = load(
        None,
        environment(&[
            ("PATRONI_SCOPE", "s"),
            ("PATRONI_NAME", "n"),
            ("PATRONI_RESTAPI_LISTEN", "127.0.0.1:8008"),
            ("PATRONI_POSTGRESQL_LISTEN", "127.0.0.1:5432"),
            ("PATRONI_POSTGRESQL_DATA_DIR", "/srv/d"),
            ("PATRONI_ETCD_HOST", "127.0.0.1:2379"),
        ]),
    )
    .unwrap();
    assert_eq!(found.node.scope, "s");
    assert_eq!(urls(&found.node.store).0, ["http://127.0.0.1:2379"]);
}

// P118
#[test]
fn understood_variables_are_listed_so_that_children_do_not_see_them() {
    let found = loaded(
        "simple.yml",
        &[
            ("PATRONI_SUPERUSER_PASSWORD", "p"),
            ("PATRONI_CONSUL_TOKEN", "t"),
            ("PATRONI_NAME", ""),
            ("PATRONI_SOMETHING_ELSE", "kept"),
            ("MATRIARCH_REWIND", "never"),
            ("MATRIARCH_OTHER", "kept"),
            ("PATH", "/bin"),
        ],
    );
    assert_eq!(
        found.consumed,
        ["MATRIARCH_REWIND", "PATRONI_CONSUL_TOKEN", "PATRONI_NAME", "PATRONI_SUPERUSER_PASSWORD"]
    );
    assert_eq!(found.node.name.as_str(), "n1", "an empty variable says nothing");
    assert_eq!(found.node.matriarch.rewind, config::Rewind::Never);
}

// P115
#[test]
fn a_directory_is_merged_in_the_order_of_its_names() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    write("00-base.yml", &std::fs::read_to_string(fixture("simple.yml")).unwrap());
    write("20-last.yaml", "name: last\npostgresql: {bin_dir: ~}\n");
    write("10-middle.yml", "name: middle\npostgresql:\n  parameters: {work_mem: 1MB, a.b: x}\n");
    write("30-ignored.txt", "name: [broken");
    let found = load(Some(directory.path()), std::iter::empty()).unwrap();
    assert_eq!(found.node.name.as_str(), "last");
    assert_eq!(found.node.postgresql.bin_dir, None, "null removes");
    let effective = Effective::of(&found.node, &ClusterConfig::default(), 15);
    assert_eq!(effective.parameters["work_mem"], "1MB");
    assert_eq!(effective.parameters["a.b"], "x");
    assert_eq!(effective.socket_dir().as_deref(), Some(Path::new("/tmp")), "merged deeply");
}

// P125
#[test]
fn names_of_older_versions_are_understood() {
    let text = "scope: s\nrestapi: {listen: '127.0.0.1:8008', connect_address: '127.0.0.1:8008'}\netcd: {host: '127.0.0.1:2379'}\n\
        bootstrap: {dcs: {ttl: 30, master_start_timeout: 7, master_stop_timeout: 8}}\n\
        postgresql:\n  name: old\n  listen: 127.0.0.1:5432\n  connect_address: 127.0.0.1:5432\n  data_dir: /srv/d\n  \
        replication: {username: rep, password: x}\n  superuser: {username: su, password: y}\n  create_replica_method: [basebackup]\n";
    let found = load(None, environment(&[("PATRONI_CONFIGURATION", text)])).unwrap();
    assert_eq!(about(&found), [""; 0]);
    assert_eq!(found.node.name.as_str(), "old");
    assert_eq!(found.node.postgresql.replication.username, "rep");
    assert_eq!(found.node.postgresql.superuser.username, "su");
    let (cluster, _) = ClusterConfig::from_document(found.node.bootstrap.dcs.as_ref().unwrap());
    assert_eq!(cluster.primary_start_timeout.as_secs(), 7);
    assert_eq!(cluster.primary_stop_timeout.as_secs(), 8);
}

// P043
#[test]
fn etcd_is_found_in_every_form() {
    let store = |section: &str| {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("c.yml");
        let base = std::fs::read_to_string(fixture("simple.yml")).unwrap();
        std::fs::write(&file, base.replace("hosts: 127.0.3.1:2379,127.0.3.2:2379", section)).unwrap();
        load(Some(&file), std::iter::empty()).unwrap().node.store
    };
    let one = |url: &str, fixed| (vec![url.to_owned()], fixed);
    assert_eq!(urls(&store("host: a:1")), one("http://a:1", false));
    assert_eq!(urls(&store("host: a")), one("http://a:2379", false));
    assert_eq!(urls(&store("{host: a, protocol: https, port: 9}").clone()), one("https://a:9", false));
    assert_eq!(urls(&store("url: https://a:1/")), one("https://a:1", false));
    assert_eq!(urls(&store("proxy: http://a:1")), one("http://a:1", true));
    assert_eq!(urls(&store("{hosts: [a:1], use_proxies: true}")), one("http://a:1", true));
    assert_eq!(urls(&store("{host: a:1, cacert: /ca.pem}")), one("https://a:1", false));
    assert_eq!(urls(&store("host: '[fd00::1]:1'")), one("http://[fd00::1]:1", false));
    assert_eq!(urls(&store("{srv: example.com, srv_suffix: x}")), one("srv example.com Some(\"x\")", false));
}

#[test]
fn a_list_in_a_variable_may_be_written_in_every_way() {
    for (text, wanted) in [
        ("a:1,b:2", ["http://a:1", "http://b:2"]),
        ("'a:1', 'b:2'", ["http://a:1", "http://b:2"]),
        ("[a:1, 'b:2']", ["http://a:1", "http://b:2"]),
        ("- a:1\n- b:2", ["http://a:1", "http://b:2"]),
        ("[fd00::1]:1,[fd00::2]:2", ["http://[fd00::1]:1", "http://[fd00::2]:2"]),
    ] {
        let found = loaded("simple.yml", &[("PATRONI_ETCD_HOSTS", text)]);
        assert_eq!(urls(&found.node.store).0, wanted, "{text}");
    }
}

// P128
#[test]
fn free_tags_are_published_and_quiet_ones_left_out() {
    let text = std::fs::read_to_string(fixture("simple.yml")).unwrap()
        + "tags:\n  dc: north\n  rack: 7\n  nofailover: no\n  failover_priority: 0\n  clonefrom: yes\n  noloadbalance: false\n  nosync: off\n  nested: {a: [1]}\n";
    let found = load(None, environment(&[("PATRONI_CONFIGURATION", &text)])).unwrap();
    let tags = &found.node.tags;
    assert!(!tags.nofailover, "the written boolean wins over the priority");
    assert!(tags.clonefrom);
    let published = serde_json::to_value(&tags.published).unwrap();
    assert_eq!(
        published,
        json!({"dc": "north", "rack": 7, "nofailover": false, "failover_priority": 0, "clonefrom": true, "nested": {"a": [1]}})
    );
}

#[test]
fn a_slash_at_the_end_of_the_data_directory_does_not_move_the_vault_into_it() {
    let found = loaded("simple.yml", &[("PATRONI_POSTGRESQL_DATA_DIR", "/srv/d/")]);
    assert_eq!(found.node.postgresql.data_dir.as_os_str(), "/srv/d");
    assert_eq!(found.node.matriarch.vault_dir, Path::new("/srv/d.vault"));
}

// P130
#[test]
fn addresses_are_published_as_urls() {
    let found = loaded("simple.yml", &[("PATRONI_POSTGRESQL_PROXY_ADDRESS", "10.0.0.9:6432")]);
    assert_eq!(found.node.postgresql.conn_url(), "postgres://127.0.3.1:5432/postgres");
    assert_eq!(found.node.postgresql.proxy_url().as_deref(), Some("postgres://10.0.0.9:6432/postgres"));
}

#[test]
fn the_command_line_program_reads_a_nodes_file_and_its_own() {
    let found = load_ctl(Some(&fixture("simple.yml")), std::iter::empty()).unwrap();
    assert_eq!(found.scope.as_deref(), Some("demo"));
    assert_eq!(found.own_api.as_deref(), Some("http://127.0.3.1:8008"));

    let directory = tempfile::tempdir().unwrap();
    let own = directory.path().join("patroni");
    std::fs::create_dir(&own).unwrap();
    let text = "etcd3: {host: 'h:1'}\nctl: {insecure: on, authentication: {username: a, password: b}}\n";
    std::fs::write(own.join("patronictl.yaml"), text).unwrap();
    let home = directory.path().display().to_string();
    let variables = [("XDG_CONFIG_HOME", home.as_str()), ("DCS_URL", "etcd3://:2399/space")];
    let found = load_ctl(None, environment(&variables)).unwrap();
    assert_eq!(found.scope, None);
    assert!(found.ctl.insecure);
    assert_eq!(found.ctl.authentication.unwrap().username, "a");
    assert_eq!(urls(&Some(found.store.clone())).0, ["http://localhost:2399"]);
    assert_eq!(found.namespace, "/space");
    assert!(load_ctl(Some(Path::new("/nowhere")), std::iter::empty()).is_err());
    assert!(load_ctl(None, environment(&[("DCS_URL", "consul://x")])).is_err());
    assert!(load_ctl(None, std::iter::empty()).is_ok(), "without any file the defaults serve");
}
