//! Postgres's files as they are written, compared as text.

use super::*;
use crate::postgres::{Login, Target};

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn directory() -> (tempfile::TempDir, Paths) {
    let dir = tempfile::tempdir().unwrap();
    let paths = Paths::new(dir.path());
    fs::write(paths.conf(), "shared_buffers = 1MB\n").unwrap();
    fs::write(paths.hba(), "local all all trust\n").unwrap();
    (dir, paths)
}

/// P144, P138, P141.
#[test]
fn the_files_have_patronis_scheme() {
    let (_dir, paths) = directory();
    let upstream = Target { host: "h".into(), port: 1, database: "postgres".into(), login: Login::default() };
    let info = Conninfo::primary(&upstream, "n2", None, None);
    let conf = Conf {
        parameters: map(&[("wal_level", "replica"), ("archive_command", "cp '%p' \\x")]),
        hba: vec!["local all all peer".into(), "host all all all md5".into()],
        recovery: Some(recovery(
            Some((&info, Some("n2"))),
            &map(&[("restore_command", "false"), ("recovery_target", "immediate")]),
            150_000,
        )),
        ..Conf::default()
    };
    let written = write(&paths, &conf).unwrap();
    assert_eq!((written.conf, written.hba, written.ident), (true, true, false));
    assert_eq!(fs::read_to_string(paths.base_conf()).unwrap(), "shared_buffers = 1MB\n");
    let text = fs::read_to_string(paths.conf()).unwrap();
    let expected = format!(
        "{HEADER}include 'postgresql.base.conf'\n\narchive_command = 'cp ''%p'' \\\\x'\nwal_level = 'replica'\n\
         hba_file = '{0}/pg_hba.conf'\nident_file = '{0}/pg_ident.conf'\n\n# recovery.conf\n\
         primary_conninfo = 'dbname=postgres host=h port=1 sslmode=prefer application_name=n2 gssencmode=prefer channel_binding=prefer'\n\
         primary_slot_name = 'n2'\nrecovery_target = ''\nrecovery_target_lsn = ''\nrecovery_target_name = ''\n\
         recovery_target_time = ''\nrecovery_target_timeline = 'latest'\nrecovery_target_xid = ''\nrestore_command = 'false'\nwal_retrieve_retry_interval = '500ms'\n",
        paths.data_dir.display()
    );
    assert_eq!(text, expected);
    assert_eq!(
        fs::read_to_string(paths.hba()).unwrap(),
        format!("{HEADER}local all all peer\nhost all all all md5\n")
    );
    // The second time nothing differs, and the base is not overwritten.
    assert_eq!(write(&paths, &conf).unwrap(), Written::default());
    assert_eq!(fs::read_to_string(paths.base_conf()).unwrap(), "shared_buffers = 1MB\n");
}

/// P139, P131.
#[test]
fn an_operators_own_files_are_left_alone() {
    let (_dir, paths) = directory();
    let conf = Conf {
        parameters: map(&[("hba_file", "/etc/hba"), ("ident_file", "ident.mine")]),
        custom_conf: Some("/etc/mine.conf".into()),
        hba: vec!["ignored".into()],
        ..Conf::default()
    };
    write(&paths, &conf).unwrap();
    assert_eq!(fs::read_to_string(paths.hba()).unwrap(), "local all all trust\n");
    assert!(!paths.base_conf().exists());
    let text = fs::read_to_string(paths.conf()).unwrap();
    assert!(
        text.contains("include '/etc/mine.conf'\n") && text.contains("hba_file = '/etc/hba'\n"),
        "{text}"
    );
    assert!(text.contains(&format!("ident_file = '{}/ident.mine'\n", paths.data_dir.display())), "{text}");
}

/// P146.
#[test]
fn recovery_settings_leave_auto_conf() {
    let (_dir, paths) = directory();
    let auto = paths.data_dir.join("postgresql.auto.conf");
    fs::write(&auto, "# auto\nwork_mem = '8MB'\nprimary_conninfo = 'host=evil'\nRESTORE_COMMAND='x'\n")
        .unwrap();
    assert!(write(&paths, &Conf::default()).unwrap().conf);
    assert_eq!(fs::read_to_string(&auto).unwrap(), "# auto\nwork_mem = '8MB'\n");
}

/// P147: the case captured from Patroni, `max_connections: 100->50`.
#[test]
fn a_standby_keeps_the_primarys_larger_values() {
    let mut parameters = map(&[("max_connections", "50"), ("max_wal_senders", "10"), ("work_mem", "1MB")]);
    let limits =
        BTreeMap::from([("max_connections", 100), ("max_wal_senders", 10), ("max_worker_processes", 8)]);
    let raised = raise(&mut parameters, &limits);
    assert_eq!(raised, BTreeMap::from([("max_connections".to_owned(), (50, 100))]));
    assert_eq!(
        parameters,
        map(&[("max_connections", "100"), ("max_wal_senders", "10"), ("work_mem", "1MB")])
    );
    assert_eq!(command_line(&parameters), map(&[("max_connections", "100"), ("max_wal_senders", "10")]));
}

/// P145, P202.
#[test]
fn copies_bring_lost_files_back() {
    let (_dir, paths) = directory();
    append_hba(&paths, &["host all all all md5".into()]).unwrap();
    save_copies(&paths).unwrap();
    fs::remove_file(paths.hba()).unwrap();
    restore_copies(&paths).unwrap();
    assert_eq!(fs::read_to_string(paths.hba()).unwrap(), "local all all trust\n\nhost all all all md5\n");
    assert_eq!(fs::read_to_string(paths.ident()).unwrap(), "");
}
