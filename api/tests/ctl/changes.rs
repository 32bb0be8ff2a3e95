//! Commands that change the store: edit-config, remove, flush and switchover without REST.

use std::time::Duration;

use dcs::Moment;
use serde_json::{Value, json};

use crate::stage::{NODE2, Stage, finish};

fn config(stage: &mut Stage) -> Value {
    serde_json::from_str(&stage.get("config").unwrap()).unwrap()
}

/// P175: --set and --pg, with the difference shown, asked about and written compactly.
#[test]
fn edit_config_sets_values() {
    let mut stage = Stage::new();
    let done = stage.typed(&["edit-config", "-s", "ttl=20", "-p", "work_mem=8MB", "-p", "my.x=on"], "y\n");
    assert_eq!(done.code, 0, "{done:?}");
    let difference = "\
--- 
+++ 
@@ -3,10 +3,12 @@
 postgresql:
   parameters:
     max_connections: 50
+    my.x: true
+    work_mem: 8MB
   pg_hba:
   - local all all trust
   - host replication replicator 127.0.0.1/32 md5
   - host all all 127.0.0.1/32 md5
   use_pg_rewind: true
 retry_timeout: 10
-ttl: 30
+ttl: 20
Configuration changed
";
    assert_eq!(done.out, difference);
    assert_eq!(done.err, "Apply these changes? [y/N]: ");
    let written = config(&mut stage);
    assert_eq!(written["ttl"], 20);
    assert_eq!(
        written["postgresql"]["parameters"],
        json!({"max_connections": 50, "my.x": true, "work_mem": "8MB"})
    );
    assert!(!stage.get("config").unwrap().contains(": "), "the value is compact");

    let done =
        stage.run(&["edit-config", "-q", "--force", "-s", "postgresql.parameters.my.x=", "-s", "a.b=[1]"]);
    assert_eq!((done.code, done.out.as_str()), (0, "Configuration changed\n"), "{done:?}");
    assert_eq!(
        config(&mut stage)["postgresql"]["parameters"],
        json!({"max_connections": 50, "work_mem": "8MB"})
    );
    assert_eq!(config(&mut stage)["a"], json!({"b": [1]}));
}

/// P175: nothing is written without need, without leave, or without settings.
#[test]
fn edit_config_changes_nothing_unasked() {
    let mut stage = Stage::new();
    let before = stage.get("config").unwrap();
    assert_eq!(stage.shown(&["edit-config", "-s", "ttl=30"]), "Not changed\n");
    let done = stage.typed(&["edit-config", "-s", "ttl=31"], "n\n");
    assert_eq!(done.code, 1, "{done:?}");
    assert!(done.err.contains("nothing was changed"), "{done:?}");
    let done = stage.typed(&["edit-config", "-s", "ttl=31"], "");
    assert!(done.code == 1 && done.err.contains("--force"), "{done:?}");
    let done = stage.typed(&["edit-config", "--apply", "-"], "ttl: 31\n");
    assert!(done.code == 1 && done.err.contains("--force"), "{done:?}");
    assert!(stage.refused(&["edit-config", "-s", "ttl"]).contains("key=value"));
    assert!(stage.refused(&["edit-config", "--apply", "/nowhere"]).contains("/nowhere"));
    let list = stage.write("list.yml", "- 1\n");
    assert!(stage.refused(&["edit-config", "--replace", list.to_str().unwrap()]).contains("mapping"));
    assert_eq!(stage.get("config").unwrap(), before);
    stage.delete("config");
    assert!(stage.refused(&["edit-config", "-s", "ttl=31"]).contains("The config key does not exist"));
    assert_eq!(stage.get("config"), None);
}

/// P175: --apply merges, --replace replaces, - is standard input.
#[test]
fn edit_config_takes_files() {
    let mut stage = Stage::new();
    let change = stage
        .write("change.yml", "ttl: null\npostgresql:\n  pg_hba: null\n  parameters:\n    fsync: 'off'\n");
    stage.shown(&["edit-config", "--force", "--apply", change.to_str().unwrap()]);
    let expected = json!({
        "loop_wait": 1, "retry_timeout": 10, "maximum_lag_on_failover": 1_048_576,
        "postgresql": {"use_pg_rewind": true, "parameters": {"max_connections": 50, "fsync": "off"}}
    });
    assert_eq!(config(&mut stage), expected);
    let done = stage.typed(&["edit-config", "--force", "-q", "--replace", "-"], "ttl: 40\nloop_wait: 5\n");
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(config(&mut stage), json!({"ttl": 40, "loop_wait": 5}));
}

/// P175: without options the editor decides.
#[test]
fn edit_config_opens_the_editor() {
    let mut stage = Stage::new();
    let edit = |stage: &Stage, editor: &str| {
        let mut command = stage.command(&["edit-config", "--force", "-q"]);
        command.env("EDITOR", editor).env("TMPDIR", stage.home());
        finish(command, "")
    };
    assert_eq!(edit(&stage, "sed -i s/ttl:.30/ttl:\\x2033/").code, 0);
    assert_eq!(config(&mut stage)["ttl"], 33);
    let done = edit(&stage, "false");
    assert!(done.code == 1 && done.err.contains("nothing was changed"), "{done:?}");
    let done = edit(&stage, "sed -i s/:/=/");
    assert!(done.code == 1 && done.err.contains("nothing was changed"), "{done:?}");
    assert_eq!(config(&mut stage)["ttl"], 33);
    let left: Vec<_> =
        std::fs::read_dir(stage.home()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["ctl.yml"], "the edited file is cleaned up");
}

/// P175: a change that somebody else made meanwhile is never written over.
#[test]
fn edit_config_reports_a_conflict() {
    let mut stage = Stage::new();
    let signal = stage.home().join("editing");
    // The editor waits until the other change is made: it ends when the file is gone.
    let script = format!(
        "touch {0}; while [ -e {0} ]; do read -t 0.02 x </dev/null; done; sed -i s/30/31/ \"$1\"",
        signal.display()
    );
    let editor = stage.write("editor", &script);
    let mut command = stage.command(&["edit-config", "--force", "-q"]);
    command.env("EDITOR", format!("sh {}", editor.display()));
    let running = std::thread::spawn(move || finish(command, ""));
    let end = Moment::now() + Duration::from_secs(20);
    while !signal.exists() {
        assert!(Moment::now() < end, "the editor did not start");
        std::thread::yield_now();
    }
    stage.put("config", r#"{"ttl":99}"#);
    std::fs::remove_file(&signal).unwrap();
    let done = running.join().unwrap();
    assert_eq!(done.code, 1, "{done:?}");
    assert!(done.err.contains("Config modification aborted due to concurrent changes"), "{done:?}");
    assert_eq!(config(&mut stage), json!({"ttl": 99}));
}

/// P186: three questions; the wrong answer to any of them removes nothing.
#[test]
fn remove_asks_three_times() {
    let mut stage = Stage::new();
    let before = stage.keys();
    for answers in
        ["", "batmen\n", "batman\nyes\n", "batman\nYes I am aware\n", "batman\nYes I am aware\nnode2\n"]
    {
        let done = stage.typed(&["remove", "batman"], answers);
        assert_eq!(done.code, 1, "{answers:?}: {done:?}");
        assert_eq!(stage.keys(), before, "{answers:?}");
    }
    stage.put_path("/service/batman2/leader", "x");
    let done = stage.typed(&["remove", "batman"], "batman\nYes I am aware\nnode1\n");
    assert_eq!(done.code, 0, "{done:?}");
    assert!(done.out.contains("| node1  |"), "{done:?}");
    assert!(done.err.contains(
        "You are about to remove all information in DCS for batman, please type: \"Yes I am aware\""
    ));
    assert_eq!(stage.keys(), ["/service/batman2/leader"]);
}

/// P178: a scheduled switchover is taken back through the store when no member answers.
#[test]
fn flush_switchover_falls_back_to_the_store() {
    let mut stage = Stage::new();
    assert_eq!(stage.shown(&["flush", "batman", "switchover"]), "No pending scheduled switchover\n");
    stage
        .put("failover", r#"{"leader":"node1","member":"node2","scheduled_at":"2099-11-20T09:04:00+00:00"}"#);
    assert!(stage.shown(&["list"]).contains("Switchover scheduled at: 2099-11-20T09:04:00+00:00"));
    let done = stage.run(&["flush", "batman", "switchover"]);
    assert_eq!(done.code, 0, "{done:?}");
    assert!(done.err.contains("Member node1 is not accessible"), "{done:?}");
    assert_eq!(stage.get("failover").unwrap(), "{}");
    assert!(stage.refused(&["flush", "batman", "config"]).contains("restart or switchover"));
}

/// P180: with the member's REST interface down the wish is written into the store,
/// and what becomes of it is waited for.
#[test]
fn switchover_falls_back_to_the_store() {
    let mut stage = Stage::new();
    let command = stage.command(&["switchover", "--candidate", "node2", "--force"]);
    let running = std::thread::spawn(move || finish(command, ""));
    let end = Moment::now() + Duration::from_secs(20);
    let wish = loop {
        if let Some(wish) = stage.get("failover") {
            break wish;
        }
        assert!(Moment::now() < end, "no wish in the store");
    };
    assert_eq!(wish, r#"{"leader":"node1","member":"node2"}"#);
    // The members do it.
    stage.put("leader", "node2");
    stage.put("failover", "{}");
    let done = running.join().unwrap();
    assert_eq!(done.code, 0, "{done:?}");
    assert!(done.out.contains("Could not switchover using Patroni api, falling back to DCS"), "{done:?}");
    assert!(done.out.contains("Successfully switched over to \"node2\""), "{done:?}");
}

/// P180: a wish that the members refuse is a failure.
#[test]
fn a_refused_fallback_is_a_failure() {
    let mut stage = Stage::new();
    let command = stage.command(&["failover", "batman", "--candidate", "node2", "--force"]);
    let running = std::thread::spawn(move || finish(command, ""));
    let end = Moment::now() + Duration::from_secs(20);
    while stage.get("failover").is_none() {
        assert!(Moment::now() < end, "no wish in the store");
    }
    assert_eq!(stage.get("failover").unwrap(), r#"{"member":"node2"}"#);
    stage.put("failover", "{}");
    let done = running.join().unwrap();
    assert_eq!(done.code, 1, "{done:?}");
    assert!(done.err.contains("Failover failed"), "{done:?}");
}

/// P180: a schedule is written, not waited for.
#[test]
fn a_schedule_goes_into_the_store() {
    let mut stage = Stage::new();
    let done = stage.run(&["switchover", "--scheduled", "2099-11-20T09:04:00+00:00", "--force"]);
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(
        stage.get("failover").unwrap(),
        r#"{"leader":"node1","scheduled_at":"2099-11-20T09:04:00+00:00"}"#
    );
}

/// Unknown names, wrong leaders and impossible wishes change nothing.
#[test]
fn impossible_wishes_are_refused_before_anything_happens() {
    let mut stage = Stage::new();
    stage.put("members/node3", &NODE2.replace(r#"{"datacenter":"dc1"}"#, r#"{"nofailover":true}"#));
    for (args, reason) in [
        (&["switchover", "--force", "--candidate", "node9"][..], "node9 is not a member of cluster batman"),
        (&["switchover", "--force", "--candidate", "node3"], "tagged as nofailover"),
        (&["switchover", "--force", "--candidate", "node1"], "is already the leader"),
        (
            &["switchover", "--force", "--leader", "node2"],
            "node2 is not the leader of cluster batman; node1 is",
        ),
        (&["switchover", "--force", "--scheduled", "someday"], "Unable to parse scheduled timestamp"),
        (&["switchover"], "nothing was done"),
        (&["failover", "--force"], "only to a specific candidate"),
        (&["failover", "--candidate", "node2"], "nothing was done"),
        (&["restart", "batman", "node9", "--force"], "node9 is not a member"),
        (&["restart", "batman", "-r", "standby-leader", "--force"], "with this role"),
        (&["restart", "batman", "node2", "--pg-version", "sixteen", "--force"], "no version of Postgres"),
        (&["restart", "batman"], "nothing was done"),
        (&["reinit", "batman", "node1", "--force"], "it is leader"),
        (&["reinit", "batman", "--force"], "never means all of them"),
        (&["handover", "batman", "--force"], "name the members"),
    ] {
        let done = stage.run(args);
        assert_eq!(done.code, 1, "{args:?}: {done:?}");
        assert!(done.err.contains(reason), "{args:?}: {done:?}");
        assert_eq!(stage.get("failover"), None, "{args:?}");
    }
    stage.put("config", r#"{"pause":true}"#);
    let scheduled = ["switchover", "--force", "--scheduled", "2099-01-01T00:00Z"];
    assert!(stage.run(&scheduled).err.contains("Can't schedule switchover in the paused state"));
    assert!(stage.refused(&["pause"]).contains("already paused"));
    stage.delete("leader");
    assert!(stage.run(&["switchover", "--force"]).err.contains("This cluster has no leader"));
}
