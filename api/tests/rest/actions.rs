//! P086–P091, P095–P101, P105, P112: what reaches the node, and every text that refuses before it.

use std::thread;

use api::command::{Asked, Command, HandoverRequest, Reply, RestartRequest};
use api::server::Settings;
use dcs::Seen;
use serde_json::{Value, json};

use crate::fixture::{Served, later, primary, settings, with_config};

/// Sends one request while the node's end of the channel answers it with `reply`.
fn exchange(
    served: &mut Served,
    method: &str,
    path: &str,
    body: &str,
    reply: Reply,
) -> (Command, u16, String) {
    let mut inbox = std::mem::replace(&mut served.asked, tokio::sync::mpsc::channel(1).1);
    let (command, code, text) = thread::scope(|scope| {
        let node = scope.spawn(|| {
            let Asked { command, answer } = inbox.blocking_recv().unwrap();
            answer.send(reply).unwrap();
            command
        });
        let (code, _, text) = served.call(method, path, "", body);
        (node.join().unwrap(), code, text)
    });
    served.asked = inbox;
    (command, code, text)
}

fn passes(served: &mut Served, method: &str, path: &str, body: &str) -> Command {
    let (command, code, text) = exchange(served, method, path, body, Reply::text(202, "noted"));
    assert_eq!((code, text.as_str()), (202, "noted"), "{method} {path} {body}");
    command
}

fn handover(leader: Option<&str>, candidate: Option<&str>, at: Option<(i64, &str)>) -> Command {
    Command::Handover(HandoverRequest {
        leader: leader.map(str::to_owned),
        candidate: candidate.map(str::to_owned),
        scheduled_at: at.map(|(time, text)| (time, text.to_owned())),
    })
}

/// P086, P089, P090, P091, P093.
#[test]
fn switchovers_and_failovers_reach_the_node() {
    let mut served = Served::plain();
    let served = &mut served;
    for (path, body, expected) in [
        ("/switchover", json!({"leader": "a", "candidate": "b"}), handover(Some("a"), Some("b"), None)),
        ("/switchover", json!({"leader": "a", "member": "b"}), handover(Some("a"), Some("b"), None)),
        ("/switchover", json!({"leader": "a", "candidate": null}), handover(Some("a"), None, None)),
        (
            "/switchover",
            json!({"leader": "a", "scheduled_at": "2099-01-01T00:00:00Z"}),
            handover(Some("a"), None, Some((4_070_908_800, "2099-01-01T00:00:00+00:00"))),
        ),
        ("/failover", json!({"candidate": "b"}), handover(None, Some("b"), None)),
        ("/failover", json!({"leader": "a", "candidate": "b"}), handover(Some("a"), Some("b"), None)),
    ] {
        assert_eq!(passes(served, "POST", path, &body.to_string()), expected, "{path} {body}");
    }
    assert_eq!(passes(served, "DELETE", "/switchover", ""), Command::CancelSwitchover);
}

/// P095–P101, and the handover of the daemon.
#[test]
fn restarts_and_the_like_reach_the_node() {
    let mut served = Served::plain();
    let served = &mut served;
    let plain = RestartRequest::default();
    assert_eq!(passes(served, "POST", "/restart", ""), Command::Restart(plain.clone()));
    assert_eq!(passes(served, "POST", "/restart", "{}"), Command::Restart(plain.clone()));
    let body =
        json!({"role": "replica", "postgres_version": "16.1", "timeout": "1.5min", "restart_pending": false});
    let filtered = RestartRequest {
        role: Some("replica".to_owned()),
        postgres_version: Some((160_001, "16.1".to_owned())),
        timeout: Some(90.0),
        restart_pending: true,
        ..plain.clone()
    };
    assert_eq!(passes(served, "POST", "/restart", &body.to_string()), Command::Restart(filtered));
    let schedule = Some((4_070_908_800, "2099-01-01T01:00:00+01:00".to_owned()));
    let body = r#"{"schedule": "2099-01-01 01:00+01:00"}"#;
    assert_eq!(
        passes(served, "POST", "/restart", body),
        Command::Restart(RestartRequest { schedule, ..plain })
    );
    assert_eq!(passes(served, "DELETE", "/restart", ""), Command::CancelRestart);
    assert_eq!(passes(served, "POST", "/reload", ""), Command::Reload);
    assert_eq!(passes(served, "POST", "/matriarch/handover", ""), Command::LeaveRunning);
    for (body, force, from_leader) in [
        ("", false, false),
        (r#"{"force": "on"}"#, true, false),
        (r#"{"force": 1, "from_leader": "YES"}"#, true, true),
        (r#"{"from-leader": true}"#, false, true),
        (r#"{"force": "nonsense"}"#, false, false),
    ] {
        let expected = Command::Reinitialize { force, from_leader };
        assert_eq!(passes(served, "POST", "/reinitialize", body), expected, "{body}");
    }
}

/// P079, P081, P102: bodies arrive as they are; replies leave as they are.
#[test]
fn documents_reach_the_node_and_replies_come_back() {
    let mut served = Served::plain();
    let reply = Reply::json(200, json!({"ttl": 20, "loop_wait": 5}));
    let (command, code, text) = exchange(&mut served, "PATCH", "/config", r#"{"ttl": 20}"#, reply);
    assert_eq!(command, Command::PatchConfig(json!({"ttl": 20})));
    assert_eq!((code, text.as_str()), (200, r#"{"loop_wait": 5, "ttl": 20}"#));
    let (command, code, page) =
        exchange(&mut served, "PUT", "/config", r#"{"ttl": 20}"#, Reply::text(409, ""));
    assert_eq!(command, Command::PutConfig(json!({"ttl": 20})));
    assert_eq!(code, 409);
    assert!(page.contains("Request conflict"), "{page}");
    let view = with_config(json!({"failsafe_mode": true}));
    served.seen.send_replace(Seen { view: Some(view.into()), ..Seen::default() });
    let reply = Reply { lsn: Some(dcs::Lsn(17)), ..Reply::text(200, "Accepted") };
    let (command, _, text) = exchange(&mut served, "POST", "/failsafe", r#"{"name": "a"}"#, reply);
    assert_eq!((command, text.as_str()), (Command::Failsafe(json!({"name": "a"})), "Accepted"));
}

/// P102: the position travels in a header, and so does what only matriarch says.
#[test]
fn failsafe_answers_carry_the_position_and_the_promise() {
    let mut served = Served::plain();
    let view = with_config(json!({"failsafe_mode": true}));
    served.seen.send_replace(Seen { view: Some(view.into()), ..Seen::default() });
    let mut inbox = std::mem::replace(&mut served.asked, tokio::sync::mpsc::channel(1).1);
    let node = thread::spawn(move || {
        let asked = inbox.blocking_recv().unwrap();
        let promise = Some("7 5 10000".to_owned());
        asked
            .answer
            .send(Reply { lsn: Some(dcs::Lsn(17)), promise, ..Reply::text(200, "Accepted") })
            .unwrap();
    });
    let (code, head, _) = served.call("POST", "/failsafe", "", r#"{"name": "a"}"#);
    node.join().unwrap();
    assert_eq!(code, 200);
    for header in ["lsn: 17", "matriarch-promise: 7 5 10000"] {
        assert!(head.lines().any(|line| line == header), "{head}");
    }
}

fn refusals(served: &mut Served, path: &str, expected: &[(Value, u16, &str)]) {
    for (body, code, text) in expected {
        let answer = served.post(path, &body.to_string());
        assert_eq!((answer.0, answer.1.as_str()), (*code, *text), "{path} {body}");
    }
    assert!(served.asked.try_recv().is_err(), "no refused request reached the node");
}

/// P087, P089, P091: every argument error of a switchover or failover, in Patroni's order.
#[test]
fn wrong_arguments_of_a_switchover_are_refused_in_patronis_words() {
    let mut served = Served::plain();
    let past = "2001-01-01T00:00:00Z";
    let unparsable =
        "Unable to parse scheduled timestamp. It should be in an unambiguous format, e.g. ISO 8601";
    refusals(
        &mut served,
        "/switchover",
        &[
            (json!({"candidate": "b"}), 400, "Switchover could be performed only from a specific leader"),
            (
                json!({"leader": "", "candidate": "b"}),
                400,
                "Switchover could be performed only from a specific leader",
            ),
            (json!({"leader": "a", "scheduled_at": "soon"}), 422, unparsable),
            (json!({"leader": "a", "scheduled_at": 7}), 422, unparsable),
            (
                json!({"leader": "a", "scheduled_at": "2099-01-01T00:00:00"}),
                400,
                "Timezone information is mandatory for the scheduled switchover",
            ),
            (json!({"leader": "a", "scheduled_at": past}), 422, "Cannot schedule switchover in the past"),
            (json!({"leader": "a", "candidate": "a"}), 400, "Switchover target and source are the same"),
            (json!({"leader": 7}), 400, "leader should be the name of a member"),
        ],
    );
    refusals(
        &mut served,
        "/failover",
        &[
            (json!({"leader": "a"}), 400, "Failover could be performed only to a specific candidate"),
            (json!({"candidate": "b", "scheduled_at": past}), 400, "Failover can't be scheduled"),
            (json!({"leader": "b", "candidate": "b"}), 400, "Switchover target and source are the same"),
        ],
    );
    let paused = Seen { view: Some(with_config(json!({"pause": true})).into()), ..Seen::default() };
    served.seen.send_replace(paused);
    refusals(
        &mut served,
        "/switchover",
        &[
            (
                json!({"leader": "a", "scheduled_at": "2099-01-01T00:00:00Z"}),
                400,
                "Can't schedule switchover in the paused state",
            ),
            (
                json!({"leader": "a"}),
                400,
                "Switchover is possible only to a specific candidate in a paused state",
            ),
        ],
    );
    refusals(
        &mut served,
        "/restart",
        &[(json!({"schedule": "2099-01-01T00:00:00Z"}), 500, "Can't schedule restart in the paused state")],
    );
}

/// P096, P097, P098: every argument error of a restart.
#[test]
fn wrong_arguments_of_a_restart_are_refused_in_patronis_words() {
    let mut served = Served::plain();
    let role = "PostgreSQL role should be either primary, standby_leader, or replica";
    let timeout = "Timeout should be a positive number of seconds";
    refusals(
        &mut served,
        "/restart",
        &[
            (json!({"role": "master"}), 400, role),
            (json!({"role": 1}), 400, role),
            (json!({"postgres_version": "a.b"}), 400, "Invalid PostgreSQL version: a.b"),
            (
                json!({"postgres_version": "10"}),
                400,
                "Invalid PostgreSQL version format: X.Y or X.Y.Z is accepted: 10",
            ),
            (
                json!({"postgres_version": "9.6"}),
                400,
                "Invalid PostgreSQL version format: X.Y or X.Y.Z is accepted: 9.6",
            ),
            (json!({"timeout": "soon"}), 400, timeout),
            (json!({"timeout": 0}), 400, timeout),
            (json!({"timeout": -5}), 400, timeout),
            (json!({"colour": "blue"}), 400, "Unknown filter for the scheduled restart: colour"),
            (
                json!({"schedule": "2099-01-01T00:00:00"}),
                400,
                "Timezone information is mandatory for the scheduled restart",
            ),
            (json!({"schedule": "2001-01-01T00:00:00Z"}), 422, "Cannot schedule restart in the past"),
            (
                json!({"schedule": null}),
                422,
                "Unable to parse scheduled timestamp. It should be in an unambiguous format, e.g. ISO 8601",
            ),
        ],
    );
}

#[test]
fn versions_are_numbered_as_postgres_numbers_them() {
    for (text, number) in [("9.5.3", 90_503), ("9.3.13", 90_313), ("10.1", 100_001), ("17.0", 170_000)] {
        assert_eq!(api::write::version_number(text), Ok(number));
    }
}

/// P105: accepted, and nothing happens.
#[test]
fn sigterm_and_sharding_events_are_accepted_and_ignored() {
    let mut served = Served::plain();
    assert_eq!(served.post("/sigterm", "{}"), (202, "shutdown scheduled".to_owned()));
    assert_eq!(served.post("/citus", r#"{"type": "x"}"#), (200, "OK".to_owned()));
    assert_eq!(served.post("/mpp", r#"{"type": "x"}"#), (200, "OK".to_owned()));
    assert_eq!(served.post("/citus", "{}").0, 400);
    assert!(served.asked.try_recv().is_err());
}

/// A node that ends without answering, or takes no more requests, says so.
#[test]
fn a_node_that_cannot_answer_is_reported() {
    let mut served = Served::new(Settings { ..settings() }, primary(later()));
    let mut inbox = std::mem::replace(&mut served.asked, tokio::sync::mpsc::channel(1).1);
    let node = thread::spawn(move || drop(inbox.blocking_recv()));
    let (code, text) = served.post("/reload", "{}");
    node.join().unwrap();
    assert_eq!(code, 503);
    assert!(text.contains("no answer"), "{text}");
    let (code, text) = served.post("/reload", "{}");
    assert_eq!(code, 503);
    assert!(text.contains("stopping"), "{text}");
}

/// P113: the connection stays open until the node has decided.
#[test]
fn a_switchover_keeps_its_caller_waiting_and_others_are_served() {
    let mut served = Served::plain();
    let mut inbox = std::mem::replace(&mut served.asked, tokio::sync::mpsc::channel(1).1);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| served.post("/switchover", r#"{"leader": "a", "candidate": "b"}"#));
        let asked = inbox.blocking_recv().unwrap();
        assert_eq!(served.get("/primary").0, 200, "health checks go on");
        assert!(!waiting.is_finished());
        asked.answer.send(Reply::text(200, "Successfully switched over to \"b\"")).unwrap();
        assert_eq!(waiting.join().unwrap(), (200, "Successfully switched over to \"b\"".to_owned()));
    });
}
