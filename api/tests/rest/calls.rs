//! The client against a real server, and programs that were written for Patroni.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use api::client::{AskError, Client, ClientSettings};
use api::peer::PeerAnswer;
use api::server::{Inputs, Server};
use config::Secret;
use dcs::{Lsn, Moment, Seen};
use serde_json::json;
use tokio::sync::{Notify, mpsc, watch};

use crate::fixture::{Served, later, primary, replica, settings};

const DEADLINE: Duration = Duration::from_secs(10);

fn client() -> Client {
    Client::new(&ClientSettings::default()).unwrap()
}

/// What elections read comes out of what a node says of itself.
#[tokio::test]
async fn peers_read_what_a_node_says() {
    let served = Served::new(settings(), replica(later()));
    let url = format!("http://{}/patroni", served.address);
    let answer = client().ask("GET", &url, None, DEADLINE).await.unwrap();
    let peer = PeerAnswer::read(&answer.json().unwrap()).unwrap();
    assert_eq!((peer.primary, peer.position, peer.matriarch), (false, Some(Lsn(50_331_744)), true));
    assert_eq!(peer.tags["datacenter"], json!("dc1"));
}

/// A kept connection that the other side has closed costs one try, unseen by the caller.
#[tokio::test]
async fn kept_connections_survive_a_restart_of_the_other_side() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/patroni", listener.local_addr().unwrap());
    let other = thread::spawn(move || {
        for _ in 0..2 {
            let mut socket = listener.accept().unwrap().0;
            let mut request = [0; 1024];
            assert!(socket.read(&mut request).unwrap() > 0);
            socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").unwrap();
        }
    });
    let client = client();
    for _ in 0..2 {
        assert_eq!(client.ask("GET", &url, None, DEADLINE).await.unwrap().code, 200);
    }
    other.join().unwrap();
}

/// Connections are used again: many calls, one connection.
#[tokio::test]
async fn calls_share_a_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/patroni", listener.local_addr().unwrap());
    let other = thread::spawn(move || {
        let mut socket = listener.accept().unwrap().0;
        for _ in 0..3 {
            let mut request = [0; 1024];
            assert!(socket.read(&mut request).unwrap() > 0);
            socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").unwrap();
        }
    });
    let client = client();
    for _ in 0..3 {
        assert_eq!(client.ask("GET", &url, None, DEADLINE).await.unwrap().code, 200);
    }
    other.join().unwrap();
}

#[tokio::test]
async fn failures_name_the_url_and_the_cause() {
    let client = client();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let ask = |url: String, deadline| {
        let client = client.clone();
        async move { client.ask("GET", &url, None, deadline).await.unwrap_err() }
    };
    let error = ask(format!("http://{free}/patroni"), DEADLINE).await;
    assert!(
        matches!(error, AskError::Connect { .. }) && error.to_string().contains(&free.to_string()),
        "{error}"
    );
    assert!(matches!(ask("nonsense".to_owned(), DEADLINE).await, AskError::Url(_)));
    assert!(matches!(ask("ftp://127.0.0.1/".to_owned(), DEADLINE).await, AskError::Url(_)));
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let error = ask(format!("http://{}/", silent.local_addr().unwrap()), Duration::from_millis(50)).await;
    assert!(matches!(error, AskError::Deadline { .. }), "{error}");
    let rude = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = rude.local_addr().unwrap();
    let other = thread::spawn(move || rude.accept().unwrap().0.write_all(b"nonsense\r\n\r\n").unwrap());
    let error = ask(format!("http://{address}/"), DEADLINE).await;
    assert!(matches!(error, AskError::Exchange { .. }), "{error}");
    other.join().unwrap();
}

/// P106: the client shows the password; it is not printed.
#[tokio::test]
async fn the_password_travels_but_is_never_printed() {
    let login = Some(("admin".to_owned(), Secret::new("hunter2".to_owned())));
    let served =
        Served::new(api::server::Settings { authentication: login.clone(), ..settings() }, primary(later()));
    let settings = ClientSettings { authentication: login, ..ClientSettings::default() };
    assert!(!format!("{settings:?}").contains("hunter2"));
    let client = Client::new(&settings).unwrap();
    let url = format!("http://{}/sigterm", served.address);
    assert_eq!(client.ask("POST", &url, Some(&json!({})), DEADLINE).await.unwrap().code, 202);
}

/// Who reads `/patroni` gets positions as they are now: the node is told to look, and waited for.
#[tokio::test]
async fn patroni_is_answered_after_a_fresh_look() {
    let old = Moment(Moment::now().0.saturating_sub(5_000_000_000));
    let (status, watched) = watch::channel(Arc::new(replica(old)));
    let (_seen, seen) = watch::channel(Seen::default());
    let (node, _asked) = mpsc::channel(1);
    let look = Arc::new(Notify::new());
    let inputs =
        Inputs { status: watched, seen, node, look: Some(look.clone()), recollection: Default::default() };
    let server = Server::bind(&settings(), inputs).unwrap();
    let url = format!("http://{}/patroni", server.address().unwrap());
    let (stop, stopped) = watch::channel(false);
    let thread = server.start(stopped).unwrap();
    let client = client();
    let (answer, ()) = tokio::join!(client.ask("GET", &url, None, DEADLINE), async {
        look.notified().await;
        let mut fresh = replica(Moment::now());
        fresh.role = api::status::Role::Demoted;
        status.send_replace(Arc::new(fresh));
    });
    assert_eq!(answer.unwrap().json().unwrap()["role"], "demoted");
    stop.send(true).unwrap();
    thread.join().unwrap();
}

/// An idle primary looks at its server about once per second: who asks for it in between is told what is so now.
#[tokio::test]
async fn an_old_claim_to_take_writes_is_looked_at_anew() {
    let ago = |millis: u64| Moment(Moment::now().0.saturating_sub(millis * 1_000_000));
    for path in ["/primary", "/api/role", "/metrics"] {
        let (status, watched) = watch::channel(Arc::new(primary(ago(900))));
        let (_seen, seen) = watch::channel(Seen::default());
        let (node, _asked) = mpsc::channel(1);
        let look = Arc::new(Notify::new());
        let inputs = Inputs {
            status: watched,
            seen,
            node,
            look: Some(look.clone()),
            recollection: Default::default(),
        };
        let server = Server::bind(&settings(), inputs).unwrap();
        let url = format!("http://{}{path}", server.address().unwrap());
        let (stop, stopped) = watch::channel(false);
        let thread = server.start(stopped).unwrap();
        let client = client();
        let (answer, ()) = tokio::join!(client.ask("GET", &url, None, DEADLINE), async {
            look.notified().await;
            let mut fresh = primary(Moment::now());
            fresh.writable = false;
            status.send_replace(Arc::new(fresh));
        });
        let answer = answer.unwrap();
        match path {
            "/primary" => assert_eq!(answer.code, 503),
            "/api/role" => assert_eq!(answer.json().unwrap()["role"], "unknown"),
            _ => assert_eq!(answer.code, 200),
        }
        // What was seen lately is not looked at again.
        status.send_replace(Arc::new(primary(ago(100))));
        client.ask("GET", &url, None, DEADLINE).await.unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(1), look.notified()).await.is_err());
        stop.send(true).unwrap();
        thread.join().unwrap();
    }
}

/// A node too busy to look answers with what it has.
#[tokio::test]
async fn a_busy_node_answers_with_what_it_has() {
    let old = Moment(Moment::now().0.saturating_sub(5_000_000_000));
    let (_status, watched) = watch::channel(Arc::new(replica(old)));
    let (_seen, seen) = watch::channel(Seen::default());
    let (node, _asked) = mpsc::channel(1);
    let inputs = Inputs {
        status: watched,
        seen,
        node,
        look: Some(Arc::new(Notify::new())),
        recollection: Default::default(),
    };
    let server = Server::bind(&settings(), inputs).unwrap();
    let url = format!("http://{}/patroni", server.address().unwrap());
    let (stop, stopped) = watch::channel(false);
    let thread = server.start(stopped).unwrap();
    let answer = client().ask("GET", &url, None, DEADLINE).await.unwrap();
    assert_eq!(answer.json().unwrap()["role"], "replica");
    drop(stop);
    thread.join().unwrap();
}

/// A monitoring client written for Patroni's REST interface, as found in the field.
const MONITOR: &str = r#"
import sys, requests
from typing import Dict, List

class PatroniCluster:
    def __init__(self, patroni_url: str):
        self.patroni_url = patroni_url

    def get_cluster_state(self) -> Dict:
        response = requests.get(f"{self.patroni_url}/config", timeout=5)
        response.raise_for_status()
        return response.json()

    def list_members(self) -> List[Dict]:
        response = requests.get(f"{self.patroni_url}/members", timeout=5)
        response.raise_for_status()
        return response.json()['members']

    def get_primary(self) -> Dict:
        for member in self.list_members():
            if member['role'] == 'leader':
                return member
        raise ValueError("No primary found in cluster")

    def get_replicas(self) -> List[Dict]:
        return [m for m in self.list_members() if m['role'] == 'replica']

cluster = PatroniCluster(sys.argv[1])
role = requests.get(f"{sys.argv[1]}/api/role", timeout=5).json()
print(cluster.get_cluster_state()['ttl'], cluster.get_primary()['host'], cluster.get_primary()['port'],
      [m['host'] + ':' + str(m['port']) for m in cluster.get_replicas()], role['role'], sorted(role)[:2])
"#;

#[test]
fn a_monitoring_client_written_for_patroni_works() {
    let served = Served::plain();
    let url = format!("http://{}", served.address);
    let output = Command::new("python3").args(["-c", MONITOR, &url]).output();
    let output =
        output.expect("python3 with the module requests is needed: apt-get install python3-requests");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}\nif requests is missing: apt-get install python3-requests");
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.trim(), "30 127.0.0.1 30541 ['127.0.0.1:30542'] primary ['hostname', 'leader']");
}
