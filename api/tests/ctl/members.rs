//! Commands that ask members: the real REST server, with a node behind it that answers as told.

use std::sync::Arc;

use api::command::{Asked, Command, Reply};
use api::recording::Entry;
use api::server::Settings;
use config::Secret;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::fixture::{Served, later, primary, settings};
use crate::stage::{Done, NODE1, NODE2, Stage};

/// The stage, with every member's REST interface served.
struct Cluster {
    stage: Stage,
    served: Served,
}

impl Cluster {
    fn new() -> Self {
        Self::with(settings())
    }

    fn with(settings: Settings) -> Self {
        let mut stage = Stage::new();
        let mut status = primary(later());
        status.why.because = "I hold the lease".to_owned();
        status.why.steps = vec!["publish".to_owned()];
        status.why.obstacles.insert(config::NodeName::new("node2").unwrap(), None);
        let served = Served::new(settings, status);
        let at = served.address.to_string();
        stage.put("members/node1", &NODE1.replace("127.0.0.1:9", &at));
        stage.put("members/node2", &NODE2.replace("127.0.0.1:9", &at));
        Self { stage, served }
    }

    /// Runs the program while the node gives `reply` to each of its requests.
    fn run(&mut self, args: &[&str], reply: impl Fn(&Command) -> Reply) -> (Done, Vec<Command>) {
        let command = self.stage.command(args);
        let mut heard = Vec::new();
        let done = std::thread::scope(|scope| {
            let program = scope.spawn(move || crate::stage::finish(command, ""));
            while !program.is_finished() {
                answer(&mut self.served.asked, &reply, &mut heard);
            }
            program.join().unwrap()
        });
        (done, heard)
    }
}

fn answer(asked: &mut mpsc::Receiver<Asked>, reply: &impl Fn(&Command) -> Reply, heard: &mut Vec<Command>) {
    match asked.try_recv() {
        Ok(request) => {
            let _ = request.answer.send(reply(&request.command));
            heard.push(request.command);
        }
        Err(_) => std::thread::yield_now(),
    }
}

/// P177: the success text and the new list; P180's fallback is not used.
#[test]
fn switchover_goes_to_the_leader() {
    let mut cluster = Cluster::new();
    let (done, heard) = cluster.run(&["switchover", "--candidate", "node2", "--force"], |_| {
        Reply::text(200, "Successfully switched over to \"node2\"")
    });
    assert_eq!(done.code, 0, "{done:?}");
    assert!(done.out.starts_with("Current cluster topology\n+ Cluster: batman"), "{done:?}");
    assert!(done.out.contains(" Successfully switched over to \"node2\"\n+ Cluster: batman"), "{done:?}");
    let [Command::Handover(wish)] = heard.as_slice() else { panic!("{heard:?}") };
    assert_eq!((wish.leader.as_deref(), wish.candidate.as_deref()), (Some("node1"), Some("node2")));
    assert_eq!(cluster.stage.get("failover"), None);
}

/// P177: a refusal is a failure, says why, and is not written into the store behind the members' back.
#[test]
fn a_refusal_is_a_failure() {
    let mut cluster = Cluster::new();
    let text = "switchover is not possible: no good candidates have been found";
    let (done, _) = cluster.run(&["switchover", "--force"], |_| Reply::text(412, text));
    assert_eq!(done.code, 1, "{done:?}");
    assert!(
        done.err.contains(&format!("Switchover failed, details: 412, {text}; matriarchctl why")),
        "{done:?}"
    );
    assert_eq!(cluster.stage.get("failover"), None);
}

/// P179: without a leader the candidate is asked.
#[test]
fn failover_works_without_a_leader() {
    let mut cluster = Cluster::new();
    cluster.stage.delete("leader");
    let (done, heard) = cluster.run(&["failover", "--candidate", "node2", "--force"], |_| {
        Reply::text(200, "Successfully failed over to \"node2\"")
    });
    assert_eq!(done.code, 0, "{done:?}");
    let [Command::Handover(wish)] = heard.as_slice() else { panic!("{heard:?}") };
    assert_eq!((wish.leader.as_deref(), wish.candidate.as_deref()), (None, Some("node2")));
}

/// P176: with --wait every member must have noticed; P181 filters; P183; P185.
#[test]
fn pause_waits_for_every_member() {
    let mut cluster = Cluster::new();
    let paused = |text: &str, at: &str| {
        text.replace("127.0.0.1:9", at).replace("\"timeline\"", "\"pause\":true,\"timeline\"")
    };
    let ok = |_: &Command| Reply::json(200, json!({"pause": true}));
    let (done, heard) = cluster.run(&["pause"], ok);
    assert_eq!((done.code, done.out.as_str()), (0, "Success: cluster management is paused\n"), "{done:?}");
    assert_eq!(heard, [Command::PatchConfig(json!({"pause": true}))]);

    let at = cluster.served.address.to_string();
    cluster.stage.put("members/node1", &paused(NODE1, &at));
    let (done, _) = cluster.run(&["pause", "--wait"], ok);
    assert_eq!(done.code, 1, "{done:?}");
    assert!(done.err.contains("node2 members didn't recognized pause state"), "{done:?}");
    cluster.stage.put("members/node2", &paused(NODE2, &at));
    let (done, _) = cluster.run(&["pause", "--wait"], ok);
    assert_eq!(done.code, 0, "{done:?}");
    assert!(done.out.ends_with("Success: cluster management is paused\n"), "{done:?}");

    cluster.stage.put("config", r#"{"pause":true}"#);
    let (done, heard) = cluster.run(&["resume"], ok);
    assert_eq!((done.code, done.out.as_str()), (0, "Success: cluster management is resumed\n"), "{done:?}");
    assert_eq!(heard, [Command::PatchConfig(json!({"pause": null}))]);
}

/// P181, P182: filters travel to the members; roles, --pending and --any choose them.
#[test]
fn restart_chooses_members() {
    let mut cluster = Cluster::new();
    let ok = |_: &Command| Reply::text(200, "restarted successfully");
    let (done, heard) = cluster.run(&["restart", "batman", "--force"], ok);
    assert_eq!(done.code, 0, "{done:?}");
    assert!(
        done.out.ends_with("Success: restart on member node1\nSuccess: restart on member node2\n"),
        "{done:?}"
    );
    assert_eq!(heard.len(), 2);

    let (done, heard) = cluster.run(&["restart", "batman", "-r", "replica", "--force"], ok);
    assert!(done.out.ends_with("|\n+--------+-----------------+---------+-----------+----+-------------+-----+------------+-----+-----------------+\nSuccess: restart on member node2\n"), "{done:?}");
    assert_eq!(heard.len(), 1);
    let (_, heard) = cluster.run(&["restart", "batman", "--any", "--force"], ok);
    assert_eq!(heard.len(), 1);
    let (done, heard) = cluster.run(&["restart", "batman", "--pending", "--force"], ok);
    assert_eq!((done.code, heard.len()), (0, 0), "{done:?}");

    let later = [
        "restart",
        "batman",
        "node2",
        "--scheduled",
        "2099-01-01T00:00:00+00:00",
        "--pg-version",
        "16.1",
        "--force",
    ];
    let (done, heard) = cluster.run(&later, |_| Reply::text(202, "Restart scheduled"));
    assert!(done.out.ends_with("Success: restart scheduled on member node2\n"), "{done:?}");
    let [Command::Restart(restart)] = heard.as_slice() else { panic!("{heard:?}") };
    assert_eq!(restart.schedule.as_ref().unwrap().1, "2099-01-01T00:00:00+00:00");
    assert_eq!(restart.postgres_version, Some((160_001, "16.1".to_owned())));

    let (done, _) =
        cluster.run(&["restart", "batman", "node2", "--force"], |_| Reply::text(503, "restart failed"));
    assert_eq!(done.code, 1, "{done:?}");
    assert!(
        done.out.ends_with("Failed: restart for member node2, status code=503, (restart failed)\n"),
        "{done:?}"
    );
    assert!(done.err.ends_with("Error: restart failed on 1 of 1 members, see above\n"), "{done:?}");
}

/// P183: the text names loop_wait.
#[test]
fn reload_tells_when_it_happens() {
    let mut cluster = Cluster::new();
    let (done, heard) =
        cluster.run(&["reload", "batman", "--force"], |_| Reply::text(202, "reload scheduled"));
    assert_eq!(done.code, 0, "{done:?}");
    let text = "Reload request received for member node2 and will be processed within 1 seconds\n";
    assert!(done.out.ends_with(text), "{done:?}");
    assert_eq!(heard, [Command::Reload, Command::Reload]);
}

/// P184: the options travel; a member that is busy is not interrupted without leave.
#[test]
fn reinit_names_its_source() {
    let mut cluster = Cluster::new();
    let args = ["reinit", "batman", "node2", "--force", "--from-leader", "--wait"];
    let (done, heard) = cluster.run(&args, |_| Reply::text(200, "reinitialize started"));
    assert_eq!(done.code, 0, "{done:?}");
    assert!(done.out.ends_with("Reinitialize is completed on: node2\n"), "{done:?}");
    assert_eq!(heard, [Command::Reinitialize { force: true, from_leader: true }]);
    let (done, _) = cluster.run(&args, |_| Reply::text(503, "restart already in progress"));
    assert_eq!(done.code, 1, "{done:?}");
}

/// P185: only members with a scheduled restart are asked. P178: a scheduled switchover.
#[test]
fn flush_takes_schedules_back() {
    let mut cluster = Cluster::new();
    let at = cluster.served.address.to_string();
    let scheduled = NODE2.replace("127.0.0.1:9", &at).replace(
        "\"timeline\"",
        "\"scheduled_restart\":{\"schedule\":\"2099-01-01T00:00:00+00:00\"},\"timeline\"",
    );
    cluster.stage.put("members/node2", &scheduled);
    let (done, heard) = cluster
        .run(&["flush", "batman", "restart", "--force"], |_| Reply::text(200, "scheduled restart deleted"));
    let text = "No scheduled restart for member node1\nSuccess: flush scheduled restart for member node2\n";
    assert!(done.code == 0 && done.out.ends_with(text), "{done:?}");
    assert_eq!(heard, [Command::CancelRestart]);

    cluster.stage.put("failover", r#"{"leader":"node1","scheduled_at":"2099-11-20T09:04:00+00:00"}"#);
    let (done, heard) =
        cluster.run(&["flush", "batman", "switchover"], |_| Reply::text(200, "scheduled switchover deleted"));
    assert_eq!((done.code, done.out.as_str()), (0, "Success: scheduled switchover deleted\n"), "{done:?}");
    assert_eq!(heard, [Command::CancelSwitchover]);
}

/// P162: the daemon stops, Postgres goes on.
#[test]
fn handover_asks_the_named_member() {
    let mut cluster = Cluster::new();
    let (done, heard) =
        cluster.run(&["handover", "batman", "node2", "--force"], |_| Reply::text(202, "leaving"));
    assert!(done.code == 0 && done.out.ends_with("Success: handover for member node2\n"), "{done:?}");
    assert_eq!(heard, [Command::LeaveRunning]);
}

/// P171: member and Postgres version.
#[test]
fn version_asks_members() {
    let cluster = Cluster::new();
    let own = format!("matriarchctl version {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(cluster.stage.shown(&["version"]), own);
    let shown = cluster.stage.shown(&["version", "batman", "node2"]);
    assert!(shown.starts_with(&format!("{own}\nnode2: ")), "{shown}");
    assert!(shown.ends_with("Patroni 4.1.5 PostgreSQL 15.20\n"), "{shown}");
}

/// The reason of each member, and what keeps each from leading.
#[test]
fn why_shows_reasons() {
    let cluster = Cluster::new();
    let shown = cluster.stage.shown(&["why", "-f", "json"]);
    let rows: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(rows[0]["Member"], "node1");
    assert_eq!(rows[0]["Because"], "I hold the lease");
    assert_eq!(rows[0]["Last steps"], "publish");
    assert_eq!(rows[1]["Keeps it from leading"], "nothing");
    assert!(cluster.stage.shown(&["why", "-m", "node2"]).contains("node2"));
}

/// The decisions of all members by time; those of a dead node from its files, without a store or a configuration.
#[test]
fn why_shows_what_happened() {
    let cluster = Cluster::new();
    let entry = |second: u32, because: &str| Entry {
        at: format!("2026-11-20T02:00:0{second}+00:00"),
        quiet: 4,
        lost: u64::from(second == 2),
        because: because.to_owned(),
        steps: vec!["acquire lease".to_owned(), "begin promote".to_owned()],
    };
    cluster.served.recollection.add(entry(1, "a"));
    cluster.served.recollection.add(entry(2, "b"));
    let done = cluster.stage.run(&["why", "--last", "2", "-f", "json"]);
    let rows: Value = serde_json::from_str(&done.out).unwrap();
    // Both members are served by the same node here.
    let row = |member: &str| {
        json!({"Time": "2026-11-20T02:00:02+00:00", "Member": member, "Because": "b",
               "Steps": "acquire lease\nbegin promote", "Quiet turns before": 4})
    };
    assert_eq!(rows, json!([row("node1"), row("node2")]), "{done:?}");
    assert!(done.err.contains("2 decisions in this time were not recorded"), "{done:?}");
    let shown = cluster.stage.shown(&["why", "--since", "2026-11-20T02:00:02Z", "-m", "node1"]);
    assert!(shown.contains("2026-11-20 02:00:02.000") && !shown.contains("02:00:01"), "{shown}");

    let header = r#"{"matriarch_turns":1,"version":"0.1.0","scope":"batman","name":"node7"}"#;
    let line = |entry: &Entry| serde_json::to_string(entry).unwrap();
    let text = format!("{header}\n{}\n{}\n{{\"at\"", line(&entry(1, "a")), line(&entry(3, "c")));
    let file = cluster.stage.write("turns.jsonl", &text);
    let nowhere = cluster.stage.home().join("missing.yml").display().to_string();
    let done = cluster.stage.run(&["-c", &nowhere, "why", "--file", file.to_str().unwrap(), "-f", "tsv"]);
    let expected = "Time\tMember\tBecause\tSteps\tQuiet turns before\n\
        2026-11-20T02:00:01+00:00\tnode7\ta\tacquire lease\nbegin promote\t4\n\
        2026-11-20T02:00:03+00:00\tnode7\tc\tacquire lease\nbegin promote\t4\n";
    assert_eq!((done.code, done.out.as_str()), (0, expected), "{done:?}");
    assert!(done.err.contains("1 decisions were not written to their end"), "{done:?}");
    let gone = cluster.stage.refused(&["why", "--file", "/nowhere/turns"]);
    assert!(gone.contains("/nowhere/turns cannot be read"), "{gone}");
    assert!(cluster.stage.refused(&["why", "--since", "whenever"]).contains("how long ago"));
}

/// With the store gone, what a member knows is shown, and changes still reach the members.
#[test]
fn a_member_answers_when_the_store_is_gone() {
    let mut cluster = Cluster::new();
    let url = format!("http://{}", cluster.served.address);
    let at = cluster.served.address.port();
    let mut view = crate::fixture::view();
    for member in view.members.values_mut() {
        member.api_url = Some(format!("http://127.0.0.1:{at}/patroni"));
    }
    let _ = cluster.served.seen.send(dcs::Seen { view: Some(Arc::new(view)), ..dcs::Seen::default() });
    cluster.stage.server.kill();
    let done = cluster.stage.run(&["--url", &url, "list"]);
    assert_eq!(done.code, 0, "{done:?}");
    assert!(done.out.starts_with("+ Cluster: batman (store unreachable) -"), "{done:?}");
    assert!(
        done.out.contains("| node2  | 127.0.0.1:30542 | Replica | streaming |  1 |   0/30486F8 |   0 |"),
        "{done:?}"
    );
    assert!(done.err.contains("cannot be read") && done.err.contains(&url), "{done:?}");
    assert_eq!(cluster.stage.shown(&["--url", &url, "dsn", "-r", "replica"]), "host=127.0.0.1 port=30542\n");
    assert!(cluster.stage.shown(&["--url", &url, "show-config"]).contains("ttl: 30"));
    assert_eq!(cluster.stage.shown(&["--url", &url, "history", "-f", "tsv"]).lines().count(), 1);
    let (done, heard) = cluster
        .run(&["--url", &url, "switchover", "--candidate", "node2", "--force"], |_| {
            Reply::text(200, "Successfully switched over to \"node2\"")
        });
    assert_eq!((done.code, heard.len()), (0, 1), "{done:?}");
    assert_eq!(cluster.stage.run(&["list"]).code, 1);
    assert_eq!(cluster.stage.run(&["--url", &url, "edit-config", "-s", "ttl=31", "--force"]).code, 1);
}

/// The login comes from ctl, else restapi; a wrong one is explained.
#[test]
fn the_login_is_sent() {
    let login = Some(("adm".to_owned(), Secret::new("se cret".to_owned())));
    let mut cluster = Cluster::with(Settings { authentication: login, ..settings() });
    let ok = |_: &Command| Reply::text(200, "Successfully switched over to \"node2\"");
    let (done, heard) = cluster.run(&["switchover", "--force"], ok);
    assert_eq!((done.code, heard.len()), (1, 0), "{done:?}");
    assert!(done.err.contains("details: 401") && done.err.contains("ctl.authentication"), "{done:?}");
    let base = std::fs::read_to_string(cluster.stage.home().join("ctl.yml")).unwrap();
    for section in ["ctl", "restapi"] {
        let login = "authentication: {username: adm, password: 'se cret'}";
        cluster.stage.write("ctl.yml", &format!("{base}{section}: {{{login}}}\n"));
        let (done, heard) = cluster.run(&["switchover", "--force"], ok);
        assert_eq!((done.code, heard.len()), (0, 1), "{section}: {done:?}");
    }
}
