//! Statuses and views such as section 2 of the compatibility notes captured, and a served copy of them.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use api::command::Asked;
use api::recording::Recollection;
use api::server::{Inputs, Reload, Server, Settings};
use api::status::{HeldLease, NodeStatus, Position, PostgresState, Role, Sender, Server as Postgres};
use config::NodeName;
use dcs::{ClusterView, Epoch, Leader, Lsn, Member, Moment, Revision, Seen, SystemId, Timeline, Versioned};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

pub fn name(text: &str) -> NodeName {
    NodeName::new(text).unwrap()
}

pub fn primary(now: Moment) -> NodeStatus {
    NodeStatus {
        looked: now,
        state: PostgresState::Running,
        role: Role::Primary,
        writable: true,
        lease: Some(HeldLease { epoch: Epoch(7), until: now + Duration::from_secs(20) }),
        server: Some(Postgres {
            started: "2026-11-20 07:00:39.805522+00:00".to_owned(),
            started_epoch: 1_795_158_039.805_522,
            version: 150_020,
            timeline: Some(Timeline(1)),
            position: Position::Primary(Lsn(50_331_744)),
            replication_state: None,
            senders: vec![Sender {
                usename: "replicator".to_owned(),
                application_name: "node2".to_owned(),
                client_addr: Some("127.0.0.1".to_owned()),
                state: "streaming".to_owned(),
                sync_state: "async".to_owned(),
                sync_priority: 0,
            }],
        }),
        system_id: Some(SystemId(7_710_145_069_470_500_063)),
        store_seen: Some((now, 1_795_158_110)),
        leader_known: true,
        optime: Some(Lsn(50_331_744)),
        last_turn: now,
        ..NodeStatus::unknown("batman".to_owned(), name("node1"))
    }
}

pub fn replica(now: Moment) -> NodeStatus {
    let mut status = NodeStatus {
        role: Role::Replica,
        writable: false,
        lease: None,
        name: name("node2"),
        server: Some(Postgres {
            started: "2026-11-20 07:01:12.537473+00:00".to_owned(),
            started_epoch: 1_795_158_072.537_473,
            version: 150_020,
            timeline: Some(Timeline(1)),
            position: Position::Standby {
                received: Some(Lsn(50_331_744)),
                replayed: Some(Lsn(50_331_744)),
                replayed_at: None,
                paused: false,
                upstream: Some(Lsn(50_331_744)),
            },
            replication_state: Some("streaming".to_owned()),
            senders: Vec::new(),
        }),
        ..primary(now)
    };
    status.tags.published.insert("datacenter".to_owned(), json!("dc1"));
    status
}

/// The replica, `bytes` behind in replay.
pub fn behind(now: Moment, bytes: u64) -> NodeStatus {
    let mut status = replica(now);
    if let Some(Postgres { position: Position::Standby { replayed, .. }, .. }) = &mut status.server {
        *replayed = Some(Lsn(50_331_744 - bytes));
    }
    status
}

pub fn standby_leader(now: Moment) -> NodeStatus {
    let lease = primary(now).lease;
    NodeStatus { role: Role::StandbyLeader, lease, standby_cluster: true, ..replica(now) }
}

/// The cluster of the captured `/cluster`.
pub fn view() -> ClusterView {
    let member = |port: u16, rest: u16| Member {
        conn_url: Some(format!("postgres://127.0.0.1:{port}/postgres")),
        api_url: Some(format!("http://127.0.0.1:{rest}/patroni")),
        state: "running".to_owned(),
        timeline: Some(Timeline(1)),
        ..Member::default()
    };
    let lsn = Some(Lsn(0x0304_86F8));
    let node1 = Member {
        role: "primary".to_owned(),
        xlog_location: lsn,
        pending_restart_flag: true,
        pending_restart: BTreeMap::from([("max_connections".to_owned(), ("50".to_owned(), "60".to_owned()))]),
        ..member(30541, 30081)
    };
    let node2 = Member {
        role: "replica".to_owned(),
        replication_state: Some("streaming".to_owned()),
        xlog_location: lsn,
        receive_lsn: lsn,
        replay_lsn: lsn,
        tags: BTreeMap::from([("datacenter".to_owned(), json!("dc1"))]),
        ..member(30542, 30082)
    };
    ClusterView {
        members: BTreeMap::from([(name("node1"), node1), (name("node2"), node2)]),
        leader: Some(Leader { name: name("node1"), epoch: Epoch(7), revision: Revision(7), lease: 1 }),
        status: dcs::Status { optime: lsn, ..dcs::Status::default() },
        config: Some(Versioned { value: json!({"ttl": 30, "loop_wait": 10}), revision: Revision(3) }),
        history: Some(Vec::new()),
        ..ClusterView::default()
    }
}

pub fn with_config(value: Value) -> ClusterView {
    ClusterView { config: Some(Versioned { value, revision: Revision(3) }), ..view() }
}

/// A server on a port of its own, and the ends of its channels. Its thread ends with it.
pub struct Served {
    pub address: SocketAddr,
    pub status: watch::Sender<Arc<NodeStatus>>,
    pub seen: watch::Sender<Seen>,
    pub asked: mpsc::Receiver<Asked>,
    pub reload: Reload,
    pub recollection: Recollection,
    stop: watch::Sender<bool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Served {
    #[allow(clippy::needless_pass_by_value, reason = "callers build settings in place")]
    pub fn new(settings: Settings, status: NodeStatus) -> Self {
        let view = Some(Arc::new(view()));
        let (status, status_out) = watch::channel(Arc::new(status));
        let (seen, seen_out) = watch::channel(Seen { view, ..Seen::default() });
        let (node, asked) = mpsc::channel(8);
        let recollection = Recollection::default();
        let told = recollection.clone();
        let inputs = Inputs { status: status_out, seen: seen_out, node, look: None, recollection: told };
        let server = Server::bind(&settings, inputs).unwrap();
        let (stop, stopped) = watch::channel(false);
        Self {
            address: server.address().unwrap(),
            status,
            seen,
            asked,
            reload: server.reloader(),
            recollection,
            stop,
            thread: Some(server.start(stopped).unwrap()),
        }
    }

    pub fn plain() -> Self {
        Self::new(settings(), primary(later()))
    }

    /// Sends `request` and reads to the end; the request should ask to close the connection.
    pub fn raw(&self, request: &str) -> String {
        let mut socket = self.connect();
        socket.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer);
        String::from_utf8(answer).unwrap()
    }

    pub fn connect(&self) -> TcpStream {
        let socket = TcpStream::connect(self.address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        socket
    }

    /// One request; gives code, head and body.
    pub fn call(&self, method: &str, path: &str, headers: &str, body: &str) -> (u16, String, String) {
        let length =
            if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        let answer = self.raw(&format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}{length}\r\n{body}"
        ));
        split(&answer)
    }

    pub fn get(&self, path: &str) -> (u16, String, String) {
        self.call("GET", path, "", "")
    }

    pub fn post(&self, path: &str, body: &str) -> (u16, String) {
        let (code, _, body) = self.call("POST", path, "", body);
        (code, body)
    }

    /// Ends the server and waits for its thread.
    pub fn stop(&mut self) {
        let _ = self.stop.send(true);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop();
    }
}

pub fn split(answer: &str) -> (u16, String, String) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head in {answer:?}"));
    let code = head.split(' ').nth(1).unwrap().parse().unwrap();
    (code, head.to_owned(), body.to_owned())
}

/// An hour ahead, so that a status stays fresh however slow the machine is.
pub fn later() -> Moment {
    Moment::now() + Duration::from_secs(3600)
}

pub fn settings() -> Settings {
    Settings { listen: "127.0.0.1:0".to_owned(), ..Settings::default() }
}
