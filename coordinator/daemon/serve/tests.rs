//! The desk over a store in memory, with members that answer over real sockets.

use std::sync::Arc;
use std::time::Duration;

use api::client::{Client, ClientSettings};
use api::command::{Asked, Body, Command, HandoverRequest, Reply};
use api::server::{Inputs, Server, Settings};
use api::status::{NodeStatus, Role};
use config::NodeName;
use dcs::{Dcs, Fault, Faults, Keys, Memory, On, Seen};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::{Clerk, Desk};
use crate::failsafe::Promises;
use crate::lease::Tenure;
use crate::postgres::Paths;

const BASE: &str = "/service/batman/";

/// A desk, its store, and one member that answers health questions.
struct Office {
    memory: Memory,
    faults: Faults,
    clerk: Clerk,
    dcs: Dcs,
    inbox: mpsc::Sender<Asked>,
    node: mpsc::Receiver<Asked>,
    member: watch::Sender<Arc<NodeStatus>>,
    tenure: watch::Sender<Tenure>,
    /// Where promises are written.
    _paper: tempfile::TempDir,
    /// Runs the desk, the watch and the member until the test ends.
    _tasks: JoinSet<()>,
    _stop: watch::Sender<bool>,
}

impl Office {
    /// Two members: `a` leads, `b` can be asked. The config is `{"loop_wait": 10}` and `more`.
    fn open(more: &Value) -> Self {
        let memory = Memory::new();
        let faults = Faults::default();
        let keys = Keys::new("service", "batman");
        let dcs = Dcs::in_faulty_memory(memory.clone(), keys, Duration::from_secs(5), faults.clone());
        let (follow, seen) = dcs.follow();
        let mut tasks = JoinSet::new();
        tasks.spawn(follow);
        let (member, status) = watch::channel(Arc::new(standby()));
        let (stop, stopped) = watch::channel(false);
        let (_, no_view) = watch::channel(Seen::default());
        let (node, _) = mpsc::channel(1);
        let inputs = Inputs {
            status: status.clone(),
            seen: no_view,
            node,
            look: None,
            recollection: Default::default(),
        };
        let settings = Settings { listen: "127.0.0.1:0".to_owned(), ..Settings::default() };
        let server = Server::bind(&settings, inputs).unwrap();
        let address = server.address().unwrap();
        tasks.spawn(server.run(stopped));
        let url = json!({"api_url": format!("http://{address}/patroni")}).to_string();
        for name in ["a", "b"] {
            memory.put(&format!("{BASE}members/{name}"), &url);
        }
        let mut config = json!({"loop_wait": 10});
        super::merge::patch(&mut config, more);
        memory.put(&format!("{BASE}config"), &config.to_string());
        memory.put(&format!("{BASE}leader"), "a");
        let (inbox, asked) = mpsc::channel(8);
        let (to_node, node) = mpsc::channel(8);
        let client = Client::new(&ClientSettings::default()).unwrap();
        let (tenure, held) = watch::channel(Tenure::default());
        let paper = tempfile::tempdir().unwrap();
        let paths = Paths::new(paper.path().join("pg"));
        let promises =
            Arc::new(Promises::load(&paths, &NodeName::new("b").unwrap(), Duration::from_secs(10)));
        let clerk = Clerk {
            dcs: dcs.clone(),
            seen: seen.clone(),
            status: status.clone(),
            client: client.clone(),
            promises: Arc::clone(&promises),
            tenure: held.clone(),
        };
        let (to_mover, _) = mpsc::channel(1);
        let desk = Desk {
            dcs: dcs.clone(),
            seen,
            status,
            client,
            inbox: asked,
            to_node,
            to_mover,
            promises: Arc::clone(&promises),
            tenure: held,
        };
        tasks.spawn(desk.run());
        Self {
            memory,
            faults,
            clerk,
            dcs,
            inbox,
            node,
            member,
            tenure,
            _paper: paper,
            _tasks: tasks,
            _stop: stop,
        }
    }

    async fn ask(&self, command: Command) -> oneshot::Receiver<Reply> {
        let (answer, answered) = oneshot::channel();
        self.inbox.send(Asked { command, answer }).await.unwrap();
        answered
    }

    async fn reply(&self, command: Command) -> (u16, String) {
        text(self.ask(command).await.await.unwrap())
    }

    async fn config(&self) -> Value {
        self.dcs.load().await.unwrap().config.unwrap().value
    }

    /// Waits until a request stands in the store.
    async fn requested(&self) -> Value {
        let mut view = self.dcs.load().await.unwrap();
        while view.failover.is_none() {
            tokio::task::yield_now().await;
            view = self.dcs.load().await.unwrap();
        }
        let asked = view.failover.unwrap().value;
        json!([asked.leader, asked.candidate, asked.scheduled_at])
    }

    fn put(&self, key: &str, value: &str) {
        self.memory.put(&format!("{BASE}{key}"), value);
    }

    /// Another member takes over, as winners do: the old key goes, a new one comes, the request is cleared.
    fn take_over(&self, winner: &str) {
        self.memory.delete(&format!("{BASE}leader"));
        self.put("leader", winner);
        self.put("failover", "{}");
    }
}

fn text(reply: Reply) -> (u16, String) {
    match reply.body {
        Body::Text(text) => (reply.code, text),
        Body::Json(value) => (reply.code, value.to_string()),
    }
}

fn standby() -> NodeStatus {
    let position = api::status::Position::Standby {
        received: Some(dcs::Lsn(100)),
        replayed: Some(dcs::Lsn(90)),
        replayed_at: None,
        paused: false,
        upstream: None,
    };
    let server = api::status::Server {
        started: String::new(),
        started_epoch: 0.0,
        version: 150_020,
        timeline: None,
        position,
        replication_state: None,
        senders: Vec::new(),
    };
    NodeStatus {
        role: Role::Replica,
        server: Some(server),
        ..NodeStatus::unknown("batman".to_owned(), NodeName::new("b").unwrap())
    }
}

fn switchover(leader: Option<&str>, candidate: Option<&str>, at: Option<&str>) -> Command {
    Command::Handover(HandoverRequest {
        leader: leader.map(str::to_owned),
        candidate: candidate.map(str::to_owned),
        scheduled_at: at.map(|at| (1, at.to_owned())),
    })
}

/// P086, P113: the answer comes when it is decided, and not before.
#[tokio::test]
async fn a_switchover_answers_when_another_leads() {
    let office = Office::open(&json!({}));
    let mut answer = office.ask(switchover(Some("a"), Some("b"), None)).await;
    assert_eq!(office.requested().await, json!(["a", "b", null]));
    assert!(answer.try_recv().is_err(), "nothing is decided yet");
    office.take_over("b");
    assert_eq!(text(answer.await.unwrap()), (200, "Successfully switched over to \"b\"".to_owned()));
}

/// P091, P093: without a leader it is a failover, with one a switchover.
#[tokio::test]
async fn a_failover_names_itself_so() {
    let office = Office::open(&json!({}));
    let answer = office.ask(switchover(None, Some("b"), None)).await;
    assert_eq!(office.requested().await, json!([null, "b", null]));
    office.take_over("c");
    assert_eq!(text(answer.await.unwrap()), (200, "Failed over to \"c\" instead of \"b\"".to_owned()));
}

/// P094: the leader clears a request that it cannot follow.
#[tokio::test]
async fn a_cleared_request_has_failed() {
    let office = Office::open(&json!({}));
    let answer = office.ask(switchover(Some("a"), None, None)).await;
    office.requested().await;
    office.put("failover", "{}");
    assert_eq!(text(answer.await.unwrap()), (503, "Switchover failed".to_owned()));
}

/// P088: nobody may take over, and nothing is written.
#[tokio::test]
async fn without_candidates_nothing_is_requested() {
    let office = Office::open(&json!({}));
    let refused = "switchover is not possible: no good candidates have been found";
    let mut status = standby();
    status.tags.published.insert("nofailover".to_owned(), json!(true));
    office.member.send_replace(Arc::new(status));
    let reply = office.reply(switchover(Some("a"), Some("b"), None)).await;
    assert_eq!(reply, (412, refused.to_owned()));
    office.put("members/b", r#"{"api_url": "http://127.0.0.1:1/patroni"}"#);
    office.member.send_replace(Arc::new(standby()));
    let reply = office.reply(switchover(Some("a"), Some("b"), None)).await;
    assert_eq!(reply, (412, refused.to_owned()));
    let reply = office.reply(switchover(Some("b"), None, None)).await;
    assert_eq!(reply, (412, "leader name does not match".to_owned()));
    assert_eq!(office.dcs.load().await.unwrap().failover, None);
}

/// P089, P090.
#[tokio::test]
async fn a_scheduled_switchover_is_stored_and_taken_back() {
    let office = Office::open(&json!({}));
    let at = "2099-11-20T09:04:00+00:00";
    let reply = office.reply(switchover(Some("a"), Some("b"), Some(at))).await;
    assert_eq!(reply, (202, "Switchover scheduled".to_owned()));
    assert_eq!(office.requested().await, json!(["a", "b", at]));
    let deleted = (200, "scheduled switchover deleted".to_owned());
    assert_eq!(office.reply(Command::CancelSwitchover).await, deleted);
    let none = (404, "no switchover is scheduled".to_owned());
    assert_eq!(office.reply(Command::CancelSwitchover).await, none);
}

/// P079, P081.
#[tokio::test]
async fn config_is_patched_and_replaced() {
    let office = Office::open(&json!({"ttl": 30}));
    let (code, body) = office.reply(Command::PatchConfig(json!({"ttl": null, "pause": true}))).await;
    assert_eq!((code, body.parse::<Value>().unwrap()), (200, json!({"loop_wait": 10, "pause": true})));
    assert_eq!(office.config().await, json!({"loop_wait": 10, "pause": true}));
    let before = office.dcs.load().await.unwrap().config.unwrap().revision;
    assert_eq!(office.reply(Command::PatchConfig(json!({"loop_wait": "10"}))).await.0, 200);
    assert_eq!(office.dcs.load().await.unwrap().config.unwrap().revision, before, "nothing was written");
    assert_eq!(office.reply(Command::PutConfig(json!({"ttl": 20}))).await, (200, r#"{"ttl":20}"#.to_owned()));
    assert_eq!(office.config().await, json!({"ttl": 20}));
}

/// P080, P090: somebody was faster, and nothing is overwritten.
#[tokio::test]
async fn a_lost_race_is_a_conflict() {
    let office = Office::open(&json!({}));
    office.put("failover", r#"{"leader": "a", "scheduled_at": "2099-11-20T09:04:00+00:00"}"#);
    let old = office.dcs.load().await.unwrap();
    office.put("config", r#"{"ttl": 99}"#);
    office.put("failover", r#"{"leader": "a", "member": "b"}"#);
    let reply = office.clerk.patch_config(old.clone(), &json!({"ttl": 20})).await;
    assert_eq!(text(reply), (409, String::new()));
    assert_eq!(office.config().await, json!({"ttl": 99}));
    assert_eq!(text(office.clerk.cancel_switchover(old).await), (409, String::new()));
    assert_eq!(office.requested().await, json!(["a", "b", null]));
}

/// A store that does not answer: nothing is claimed that is not known.
#[tokio::test]
async fn a_failing_store_is_told_as_it_is() {
    let office = Office::open(&json!({}));
    let at = "2099-11-20T09:04:00+00:00";
    let mut watched = office.dcs.follow().1;
    watched.wait_for(|seen| seen.view.is_some()).await.unwrap();
    office.faults.plant(On::Load, Fault::Unreachable);
    let (code, told) = office.reply(Command::PatchConfig(json!({"ttl": 20}))).await;
    assert_eq!(code, 503);
    assert!(told.contains("nothing was changed"), "{told}");
    office.faults.plant(On::Write, Fault::LoseReply);
    let (code, told) = office.reply(Command::PatchConfig(json!({"ttl": 20}))).await;
    assert_eq!(code, 503);
    assert!(told.contains("look at the cluster"), "{told}");
    office.faults.plant(On::Write, Fault::Refuse);
    let (code, told) = office.reply(Command::PutConfig(json!({"ttl": 25}))).await;
    assert_eq!(code, 502);
    assert!(told.contains("not written"), "{told}");
    office.faults.plant(On::Write, Fault::LoseRequest);
    let lost = office.reply(switchover(Some("a"), Some("b"), Some(at))).await;
    assert_eq!(lost, (503, "failed to write failover key into DCS".to_owned()));
    office.faults.plant(On::Write, Fault::LoseReply);
    let written = office.reply(switchover(Some("a"), Some("b"), Some(at))).await;
    assert_eq!(written, (202, "Switchover scheduled".to_owned()), "the store was asked what became of it");
    assert_eq!(office.faults.waiting(), 0);
}

/// A value that no node could act on changes nothing.
#[tokio::test]
async fn impossible_settings_are_refused() {
    let office = Office::open(&json!({}));
    let (code, text) = office.reply(Command::PatchConfig(json!({"ttl": "soon"}))).await;
    assert_eq!(code, 400);
    assert!(text.contains("ttl") && text.contains("nothing was changed"), "{text}");
    assert_eq!(office.config().await, json!({"loop_wait": 10}));
}

/// P078: a configuration that is no object cannot be merged into.
#[tokio::test]
async fn a_broken_config_cannot_be_patched() {
    let office = Office::open(&json!({}));
    office.put("config", "[]");
    assert_eq!(office.reply(Command::PatchConfig(json!({"ttl": 20}))).await, (503, String::new()));
}

/// P102, P103, P104.
#[tokio::test]
async fn failsafe_asks_the_role() {
    let office = Office::open(&json!({"failsafe_mode": true}));
    let mut seen = office.dcs.follow().1;
    seen.wait_for(|seen| seen.view.as_ref().is_some_and(|view| view.config.is_some())).await.unwrap();
    let asked = Command::Failsafe(json!({"name": "a"}));
    let reply = office.ask(asked.clone()).await.await.unwrap();
    assert_eq!((reply.code, reply.lsn), (200, Some(dcs::Lsn(100))));
    assert_eq!(text(reply).1, "Accepted");
    // It holds the lease, and nothing of it shows yet.
    let held = coordinator::Held {
        epoch: dcs::Epoch(9),
        revision: dcs::Revision(9),
        soft: dcs::Moment(0),
        hard: dcs::Moment(0),
    };
    office.tenure.send_modify(|tenure| tenure.held = Some(held));
    assert_eq!(office.reply(asked.clone()).await, (500, "Running as a leader".to_owned()));
    office.tenure.send_modify(|tenure| tenure.held = None);
    let leads = NodeStatus { role: Role::Primary, state: api::status::PostgresState::Running, ..standby() };
    office.member.send_replace(Arc::new(leads));
    assert_eq!(office.reply(asked.clone()).await, (500, "Running as a leader".to_owned()));
    office.put("config", "{}");
    seen.wait_for(|seen| {
        seen.view.as_ref().is_some_and(|view| view.config.as_ref().unwrap().value == json!({}))
    })
    .await
    .unwrap();
    assert_eq!(office.reply(asked).await.0, 502);
}

#[tokio::test]
async fn what_is_the_nodes_goes_to_the_node() {
    let mut office = Office::open(&json!({}));
    for command in
        [Command::Reload, Command::CancelRestart, Command::LeaveRunning, Command::Restart(Default::default())]
    {
        let answer = office.ask(command.clone()).await;
        let asked = office.node.recv().await.unwrap();
        assert_eq!(asked.command, command);
        asked.answer.send(Reply::text(202, "done")).unwrap();
        assert_eq!(text(answer.await.unwrap()), (202, "done".to_owned()));
    }
}
