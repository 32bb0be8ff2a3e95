//! P065, P067–P069, P084, P111, P112: what travels over the socket.

use std::io::{BufRead, BufReader, Read, Write};

use crate::fixture::{Served, later, replica, settings, split};
use api::recording::Entry;
use api::server::Settings;
use config::ServerTokens;

/// P068: HTTP/1.1 with keep-alive and lengths.
#[test]
fn connections_are_kept_and_answers_carry_lengths() {
    let served = Served::plain();
    let mut socket = BufReader::new(served.connect());
    for path in ["/primary", "/replica", "/patroni", "/metrics"] {
        write!(socket.get_mut(), "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let (mut head, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            socket.read_line(&mut line).unwrap();
            if let Some(value) = line.to_lowercase().strip_prefix("content-length: ") {
                length = value.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
            head.push_str(&line);
        }
        assert!(head.starts_with("HTTP/1.1 "), "{head}");
        assert!(length > 100, "{path}: {head}");
        let mut body = vec![0; length];
        socket.read_exact(&mut body).unwrap();
    }
}

/// P067: HEAD and OPTIONS answer like GET and send no body, also where Patroni answers 503.
#[test]
fn head_and_options_send_no_body() {
    let served = Served::plain();
    for method in ["HEAD", "OPTIONS"] {
        for (path, expected) in [
            ("/", 200),
            ("/primary", 200),
            ("/replica", 503),
            ("/patroni", 200),
            ("/metrics", 200),
            ("/cluster", 200),
            ("/config", 200),
            ("/history", 200),
            ("/liveness", 200),
            ("/readiness", 200),
            ("/failsafe", 502),
        ] {
            let (code, head, body) = served.call(method, path, "", "");
            assert_eq!((code, body.as_str()), (expected, ""), "{method} {path}: {head}");
        }
    }
    // HAProxy's default check is HTTP/1.0 without a host.
    let answer = served.raw("OPTIONS / HTTP/1.0\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.0 200 OK\r\n"), "{answer}");
}

/// P065, P111.
#[test]
fn every_get_answers_and_the_unknown_one_with_the_status() {
    let served = Served::new(settings(), replica(later()));
    for path in ["/nosuch", "/restart", "/switchover", "/matriarch/handover"] {
        let (code, head, body) = served.get(path);
        assert_eq!(code, 503, "{path}");
        assert!(head.to_lowercase().contains("content-type: application/json"), "{head}");
        assert!(body.starts_with(r#"{"state": "running""#), "{body}");
    }
    for path in
        ["/config", "/config/anything", "//config", "/cluster", "/members", "/history", "/api/role", "/why"]
    {
        assert_eq!(served.get(path).0, 200, "{path}");
    }
    let (code, _, body) = served.get("/failsafe");
    assert_eq!(code, 502);
    assert!(body.contains("Error code explanation: 502 - "), "{body}");
}

#[test]
fn why_tells_the_decisions_that_were_asked_for() {
    let served = Served::plain();
    for (second, because) in [(1, "a"), (2, "b"), (3, "c")] {
        let at = format!("2026-11-20T02:00:0{second}+00:00");
        let steps = vec!["begin promote".to_owned()];
        served.recollection.add(Entry { at, quiet: 4, lost: 0, because: because.to_owned(), steps });
    }
    let told = |query: &str| {
        let (code, _, body) = served.get(&format!("/why{query}"));
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(code, 200);
        let history = body["history"].as_array().cloned();
        history.map(|turns| turns.iter().map(|turn| turn["because"].as_str().unwrap()).collect::<String>())
    };
    assert_eq!(told(""), None);
    assert_eq!(told("?last=2").as_deref(), Some("bc"));
    assert_eq!(told("?since=2026-11-20T02:00:02Z").as_deref(), Some("bc"));
    assert_eq!(told("?last=1&since=2026-11-20T02:00:02%2B00:00").as_deref(), Some("c"));
    assert_eq!(told("?since=2026-11-21T02:00:02Z").as_deref(), Some(""));
    let turn = r#"{"at": "2026-11-20T02:00:03+00:00", "because": "c", "steps": ["begin promote"], "quiet": 4, "lost": 0}"#;
    assert!(served.get("/why?last=1").2.ends_with(&format!("\"history\": [{turn}]}}")));
    for wrong in ["?last=0", "?last=many", "?since=yesterday", "?since=2026-11-20T02:00:02"] {
        let (code, _, body) = served.get(&format!("/why{wrong}"));
        assert_eq!((code, body.contains("such as")), (400, true), "{wrong}: {body}");
    }
}

/// P069.
#[test]
fn unsupported_methods_get_patronis_page() {
    let served = Served::plain();
    for (method, path) in
        [("POST", "/nosuch"), ("PUT", "/primary"), ("DELETE", "/config"), ("BREW", "/coffee")]
    {
        let (code, head, body) = served.call(method, path, "", "");
        assert_eq!(code, 501);
        assert!(head.starts_with(&format!("HTTP/1.1 501 Unsupported method ('{method}')\r\n")), "{head}");
        assert!(head.to_lowercase().contains("content-type: text/html;charset=utf-8"), "{head}");
        assert!(body.contains("Server does not support this operation"), "{body}");
    }
}

/// P112.
#[test]
fn bodies_that_cannot_be_used_are_refused() {
    let mut served = Served::plain();
    let refused =
        |method: &str, path: &str, headers: &str, body: &str| served.call(method, path, headers, body);
    let (code, _, page) = refused("PATCH", "/config", "", "");
    assert_eq!(code, 411, "{page}");
    assert!(page.contains("Client must specify Content-Length"));
    for body in ["{}", "[]", "7", "nonsense", "{\"a\":", "\"text\""] {
        let (code, head, _) = refused("POST", "/switchover", "", body);
        assert_eq!(code, 400, "{body}: {head}");
        assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{head}");
    }
    assert_eq!(refused("PUT", "/config", "Content-Length: 0\r\n", "").0, 400);
    assert_eq!(refused("POST", "/restart", "", "[]").0, 400);
    assert_eq!(refused("POST", "/failsafe", "", "nonsense").0, 502, "failsafe mode is off");
    assert!(served.asked.try_recv().is_err(), "no refused request reached the node");
}

/// P112: a body over the limit is refused before it is sent.
#[test]
fn oversized_bodies_are_refused() {
    let served = Served::plain();
    let (code, _, page) = served.call("PATCH", "/config", "Content-Length: 20000000\r\n", "");
    assert_eq!(code, 413);
    assert!(page.contains("Entity is too large"), "{page}");
}

#[test]
fn malformed_requests_get_400_and_harm_nobody() {
    let served = Served::plain();
    for garbage in ["nonsense\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "GET /\u{0} HTTP/1.1\r\n\r\n"] {
        let answer = served.raw(garbage);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");
    }
    let many = "X-Header: y\r\n".repeat(200);
    let (code, _, _) = split(&served.raw(&format!("GET / HTTP/1.1\r\nHost: x\r\n{many}\r\n")));
    assert_eq!(code, 431);
    assert_eq!(served.get("/primary").0, 200);
}

/// A client that sends its head byte by byte is cut off; others are served meanwhile.
#[test]
fn slow_heads_are_cut_off() {
    let served = Served::plain();
    let mut slow = served.connect();
    slow.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow:").unwrap();
    assert_eq!(served.get("/primary").0, 200);
    let mut rest = Vec::new();
    let ended = slow.read_to_end(&mut rest);
    assert!(ended.is_ok(), "the server closed the connection before the client gave up: {ended:?}");
    assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 408"), "{}", String::from_utf8_lossy(&rest));
}

/// More connections than are kept: the newest is served, the oldest is closed.
#[test]
fn a_crowd_of_idle_clients_locks_nobody_out() {
    let served = Served::plain();
    let mut crowd: Vec<_> = (0..512).map(|_| served.connect()).collect();
    assert_eq!(served.get("/primary").0, 200);
    let mut byte = [0];
    assert_eq!(crowd[0].read(&mut byte).unwrap(), 0, "the oldest connection was closed");
}

/// P084.
#[test]
fn server_tokens_and_extra_headers_are_sent() {
    for (server_tokens, expected) in [
        (ServerTokens::Original, "server: basehttp/0.6 python/3.11.2"),
        (ServerTokens::Minimal, "server: patroni/4.1.5"),
        (ServerTokens::ProductOnly, "server: patroni\r\n"),
    ] {
        let http_extra_headers = [("X-Frame-Options".to_owned(), "DENY".to_owned())].into();
        let https_extra_headers = [("Strict-Transport-Security".to_owned(), "max-age=1".to_owned())].into();
        let served = Served::new(
            Settings { server_tokens, http_extra_headers, https_extra_headers, ..settings() },
            replica(later()),
        );
        let head = served.get("/replica").1.to_lowercase() + "\r\n";
        assert!(head.contains(expected), "{head}");
        assert!(head.contains("x-frame-options: deny\r\n"), "{head}");
        assert!(head.contains("date: "), "{head}");
        assert!(!head.contains("strict-transport"), "only over TLS: {head}");
    }
}

#[test]
fn a_taken_port_is_named() {
    let served = Served::plain();
    let listen = served.address.to_string();
    let (_status, status) = tokio::sync::watch::channel(std::sync::Arc::new(replica(later())));
    let (_seen, seen) = tokio::sync::watch::channel(dcs::Seen::default());
    let (node, _asked) = tokio::sync::mpsc::channel(1);
    let inputs = api::server::Inputs { status, seen, node, look: None, recollection: Default::default() };
    let error =
        api::server::Server::bind(&Settings { listen: listen.clone(), ..settings() }, inputs).err().unwrap();
    let text = error.to_string();
    assert!(text.contains(&listen) && text.contains("restapi.listen"), "{text}");
}

/// Answers follow the status from one request to the next, also where the last one was kept.
#[test]
fn a_new_status_is_answered_at_once() {
    let served = Served::plain();
    for _ in 0..2 {
        let (code, _, body) = served.get("/primary");
        assert_eq!((code, body.contains(r#""role": "primary""#)), (200, true), "{body}");
    }
    served.status.send_replace(std::sync::Arc::new(replica(later())));
    let (code, _, body) = served.get("/primary");
    assert_eq!((code, body.contains(r#""role": "replica""#)), (503, true), "{body}");
}

/// Told to stop, the server answers what is open and closes what is idle.
#[test]
fn stopping_closes_idle_connections() {
    let mut served = Served::plain();
    let mut idle = served.connect();
    idle.write_all(b"GET /primary HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut first = [0; 15];
    idle.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 200 OK");
    served.stop();
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).unwrap();
    assert!(std::net::TcpStream::connect(served.address).is_err());
}
