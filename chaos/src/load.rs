//! A load generator for one HTTP path, run as a process of its own so that it is not measured with the server.
//!
//! Keeps connections alive where the server lets it, and reconnects where it does not.

use std::net::SocketAddr;
use std::time::Duration;

use dcs::Moment;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// What came out, printed as one line of JSON.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Load {
    /// Answers with status 200.
    pub answers: usize,
    /// Requests that failed or had another status.
    pub failures: usize,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// Median time to an answer, in milliseconds.
    pub p50_ms: f64,
    /// 99th percentile of the time to an answer, in milliseconds.
    pub p99_ms: f64,
}

/// Asks for `path` over so many connections for so long.
pub async fn run(server: SocketAddr, path: &str, connections: usize, span: Duration) -> Load {
    let start = Moment::now();
    let mut clients = JoinSet::new();
    for _ in 0..connections {
        clients.spawn(client(server, path.to_owned(), start + span));
    }
    let (mut times, mut failures) = (Vec::new(), 0);
    while let Some(done) = clients.join_next().await {
        let (own, failed) = done.unwrap_or_default();
        times.extend(own);
        failures += failed;
    }
    let seconds = Moment::now().since(start).as_secs_f64();
    times.sort_unstable();
    let at = |percent: usize| {
        let time = times.get(times.len() * percent / 100).copied().unwrap_or_default();
        time.as_secs_f64() * 1000.0
    };
    Load { answers: times.len(), failures, seconds, p50_ms: at(50), p99_ms: at(99) }
}

async fn client(server: SocketAddr, path: String, end: Moment) -> (Vec<Duration>, usize) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {server}\r\n\r\n").into_bytes();
    let (mut times, mut failures) = (Vec::new(), 0);
    let mut stream = None;
    let mut buffer = vec![0; 16 * 1024];
    while Moment::now() < end {
        let asked = Moment::now();
        match ask(server, &mut stream, &request, &mut buffer).await {
            Ok(true) => times.push(Moment::now().since(asked)),
            Ok(false) => failures += 1,
            Err(_) => {
                stream = None;
                failures += 1;
            }
        }
    }
    (times, failures)
}

/// One request; true if it was answered with 200. Leaves no stream behind that the server has closed.
async fn ask(
    server: SocketAddr,
    stream: &mut Option<TcpStream>,
    request: &[u8],
    buffer: &mut [u8],
) -> std::io::Result<bool> {
    let mut open = match stream.take() {
        Some(open) => open,
        None => {
            let open = TcpStream::connect(server).await?;
            open.set_nodelay(true)?;
            open
        }
    };
    open.write_all(request).await?;
    let mut filled = 0;
    loop {
        let count = open.read(buffer.get_mut(filled..).unwrap_or_default()).await?;
        filled += count;
        let answer = buffer.get(..filled).unwrap_or_default();
        let good = answer.get(9..12) == Some(b"200");
        if count == 0 {
            return Ok(good);
        }
        if is_whole(answer) {
            *stream = Some(open);
            return Ok(good);
        }
    }
}

/// Whether an answer with a length has arrived completely; one without is complete when the server closes.
fn is_whole(answer: &[u8]) -> bool {
    let Some(head) = answer.windows(4).position(|window| window == b"\r\n\r\n") else { return false };
    let text = String::from_utf8_lossy(answer.get(..head).unwrap_or_default()).to_ascii_lowercase();
    let length =
        text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    length.is_some_and(|length| answer.len() >= head + 4 + length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_when_its_length_has_arrived() {
        assert!(is_whole(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"));
        assert!(!is_whole(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok"));
        assert!(!is_whole(b"HTTP/1.0 200 OK\r\n\r\nok"));
    }
}
