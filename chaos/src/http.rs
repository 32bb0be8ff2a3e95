//! A small HTTP client of our own, so that tests do not judge a server by its own library.
//!
//! One request per connection, whole bodies, HTTP/1.1 or the close-delimited HTTP/1.0 of Patroni.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long a request may take unless the caller says otherwise.
pub const LIMIT: Duration = Duration::from_secs(5);

/// What a server answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Status line and headers, as they came.
    pub head: String,
    /// The whole body as text.
    pub body: String,
}

impl Answer {
    /// The body as JSON; null if it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or(Value::Null)
    }
}

/// Sends a request with an optional body and reads the answer until the connection closes.
///
/// # Errors
/// When the server cannot be reached, does not speak HTTP, or exceeds `limit`.
pub async fn request(
    server: SocketAddr,
    method: &str,
    path: &str,
    body: Option<&str>,
    limit: Duration,
) -> anyhow::Result<Answer> {
    let length =
        body.map(|body| format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()));
    let text = format!(
        "{method} {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n{}\r\n{}",
        length.unwrap_or_default(),
        body.unwrap_or_default()
    );
    let raw = tokio::time::timeout(limit, raw(server, text.as_bytes())).await;
    let raw = raw.with_context(|| format!("{method} http://{server}{path} took longer than {limit:?}"))?;
    parse(&raw.with_context(|| format!("{method} http://{server}{path}"))?)
}

/// Sends bytes as they are and returns everything up to the end of the connection.
///
/// # Errors
/// When the server cannot be reached or resets the connection before it answers.
pub async fn raw(server: SocketAddr, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    stream.set_nodelay(true)?;
    // A server may answer and close before it has read everything (too large, say): read what it said.
    let sent = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer).await {
        Err(err) if answer.is_empty() => return Err(err),
        _ => {}
    }
    if answer.is_empty() {
        sent?;
    }
    Ok(answer)
}

/// GET with the usual limit.
///
/// # Errors
/// As for [`request`].
pub async fn get(server: SocketAddr, path: &str) -> anyhow::Result<Answer> {
    request(server, "GET", path, None, LIMIT).await
}

fn parse(raw: &[u8]) -> anyhow::Result<Answer> {
    let text = String::from_utf8_lossy(raw);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|code| code.get(..3)?.parse().ok());
    let Some(status) = status else { bail!("this is no HTTP answer: {head:?}") };
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    let body = if chunked { unchunk(body) } else { body.to_owned() };
    Ok(Answer { status, head: head.to_owned(), body })
}

fn unchunk(mut rest: &str) -> String {
    let mut body = String::new();
    while let Some((size, tail)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or_default();
        let Some(chunk) = tail.get(..size).filter(|_| size > 0) else { break };
        body.push_str(chunk);
        rest = tail.get(size + 2..).unwrap_or_default();
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_closed_and_chunked_bodies() {
        let closed = parse(b"HTTP/1.0 503 Service Unavailable\r\nA: b\r\n\r\n{\"a\": 1}").unwrap();
        assert_eq!((closed.status, closed.json()["a"].as_i64()), (503, Some(1)));
        let chunked =
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
        assert_eq!(parse(chunked).unwrap().body, "abcde");
        assert!(parse(b"nonsense").is_err());
    }
}
