//! Where etcd's servers are, according to DNS SRV records (`srv`, `srv_suffix`).
//!
//! The names are Patroni's, in its order: `_etcd-client-ssl._tcp.<domain>`, then `-client`, `-ssl`
//! and none; the first that exists decides, and `-ssl` means TLS. Records that name peer ports
//! (`-server`) are not followed. The system's resolver library does not ask for SRV records, so
//! this file speaks DNS itself (RFC 1035, RFC 2782), and believes nothing it reads.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use crate::Moment;
use crate::store::StoreError;

const SERVICES: [&str; 4] = ["-client-ssl", "-client", "-ssl", ""];
/// How long one name server may take.
const WAIT: Duration = Duration::from_millis(1500);
const SRV: u16 = 33;
const INTERNET: u16 = 1;
/// The answer did not fit: ask again over TCP.
const TRUNCATED: u16 = 0x0200;

/// The URLs that the records of `domain` name, in the order in which to try them.
pub(super) async fn resolve(domain: &str, suffix: Option<&str>) -> Result<Vec<String>, StoreError> {
    let file = tokio::fs::read_to_string("/etc/resolv.conf").await.unwrap_or_default();
    resolve_at(&name_servers(&file), domain, suffix).await
}

async fn resolve_at(
    servers: &[SocketAddr],
    domain: &str,
    suffix: Option<&str>,
) -> Result<Vec<String>, StoreError> {
    let mut why = "it has no such record".to_owned();
    for service in SERVICES {
        let suffix =
            suffix.filter(|suffix| !suffix.is_empty()).map(|suffix| format!("-{suffix}")).unwrap_or_default();
        let name = format!("_etcd{service}{suffix}._tcp.{domain}");
        match ask_all(servers, &name).await {
            Ok(targets) if targets.is_empty() => {}
            Ok(targets) => {
                let scheme = if service.ends_with("-ssl") { "https" } else { "http" };
                return Ok(targets
                    .iter()
                    .map(|target| format!("{scheme}://{}:{}", target.host, target.port))
                    .collect());
            }
            Err(error) => why = error,
        }
    }
    Err(StoreError::Unreachable(format!("no SRV record _etcd-client._tcp.{domain} was found: {why}")))
}

/// The `nameserver` lines of resolv.conf; this host if there are none.
fn name_servers(file: &str) -> Vec<SocketAddr> {
    let found = file.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let address: IpAddr =
            words.next().filter(|word| *word == "nameserver").and(words.next())?.parse().ok()?;
        Some(SocketAddr::new(address, 53))
    });
    let found: Vec<SocketAddr> = found.collect();
    if found.is_empty() { vec![SocketAddr::from(([127, 0, 0, 1], 53))] } else { found }
}

async fn ask_all(servers: &[SocketAddr], name: &str) -> Result<Vec<Target>, String> {
    let mut why = String::new();
    for server in servers {
        match tokio::time::timeout(WAIT, ask(*server, name)).await {
            Ok(Ok(targets)) => return Ok(targets),
            Ok(Err(error)) => why = format!("name server {server}: {error}"),
            Err(_) => why = format!("name server {server} did not answer"),
        }
    }
    Err(why)
}

async fn ask(server: SocketAddr, name: &str) -> Result<Vec<Target>, std::io::Error> {
    let id = u16::try_from(Moment::now().0 & 0xFFFF).unwrap_or_default();
    let question = question(id, name);
    let unreadable = || std::io::Error::other("the answer cannot be read");
    let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(&question).await?;
    let mut buffer = vec![0; 4096];
    let flags = loop {
        let length = socket.recv(&mut buffer).await?;
        let message = buffer.get(..length).unwrap_or_default();
        // Somebody else's answer is not an answer.
        if number(message, 0) != Some(id) {
            continue;
        }
        let flags = number(message, 2).ok_or_else(unreadable)?;
        if flags & TRUNCATED == 0 {
            return targets(message).ok_or_else(unreadable);
        }
        break flags;
    };
    tracing::debug!("the answer about {name} is cut short (flags {flags:x}): asking {server} over TCP");
    let mut stream = TcpStream::connect(server).await?;
    stream.write_u16(u16::try_from(question.len()).unwrap_or_default()).await?;
    stream.write_all(&question).await?;
    let mut message = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut message).await?;
    targets(&message).ok_or_else(unreadable)
}

/// A question for the SRV records of `name`.
fn question(id: u16, name: &str) -> Vec<u8> {
    let mut message = Vec::with_capacity(name.len() + 18);
    // Recursion desired, one question.
    for number in [id, 0x0100, 1, 0, 0, 0] {
        message.extend(number.to_be_bytes());
    }
    for label in name.split('.').filter(|label| !label.is_empty()) {
        let label: &[u8] = label.as_bytes().get(..63).unwrap_or(label.as_bytes());
        message.push(u8::try_from(label.len()).unwrap_or_default());
        message.extend(label);
    }
    message.push(0);
    message.extend(SRV.to_be_bytes());
    message.extend(INTERNET.to_be_bytes());
    message
}

/// One server that a record names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Target {
    priority: u16,
    /// Negated weight, so that heavier ones sort first.
    lightness: u16,
    host: String,
    port: u16,
}

fn number(message: &[u8], at: usize) -> Option<u16> {
    let bytes = message.get(at..at.checked_add(2)?)?;
    Some(u16::from_be_bytes(bytes.try_into().ok()?))
}

/// The SRV records of an answer, best first; `None` if it is not a well-formed answer.
fn targets(message: &[u8]) -> Option<Vec<Target>> {
    let (questions, answers) = (number(message, 4)?, number(message, 6)?);
    let mut at = 12;
    for _ in 0..questions {
        at = name(message, at)?.1.checked_add(4)?;
    }
    let mut found = Vec::new();
    for _ in 0..answers {
        at = name(message, at)?.1;
        let (kind, length) = (number(message, at)?, number(message, at.checked_add(8)?)?);
        let data = at.checked_add(10)?;
        if kind == SRV {
            found.push(Target {
                priority: number(message, data)?,
                lightness: u16::MAX - number(message, data.checked_add(2)?)?,
                port: number(message, data.checked_add(4)?)?,
                host: name(message, data.checked_add(6)?)?.0,
            });
        }
        at = data.checked_add(usize::from(length))?;
    }
    found.sort();
    Some(found)
}

/// The name at `at`, and where the bytes after it begin.
fn name(message: &[u8], mut at: usize) -> Option<(String, usize)> {
    let mut labels: Vec<String> = Vec::new();
    let mut after = None;
    // A name has at most 127 labels; more are a loop of pointers.
    for _ in 0..127 {
        let length = usize::from(*message.get(at)?);
        if length == 0 {
            return Some((labels.join("."), after.unwrap_or(at + 1)));
        }
        if length & 0xC0 == 0xC0 {
            after = after.or(Some(at.checked_add(2)?));
            at = usize::from(number(message, at)? & 0x3FFF);
            continue;
        }
        let end = at.checked_add(1 + length)?;
        labels.push(String::from_utf8_lossy(message.get(at + 1..end)?).into_owned());
        at = end;
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::task::JoinSet;

    use super::*;

    /// An answer to `question`, with a pointer to the question's name in each record.
    fn answer(question: &[u8], records: &[(u16, u16, u16, &str)]) -> Vec<u8> {
        let mut message = question.to_vec();
        message[2] |= 0x80;
        message[6..8].copy_from_slice(&u16::try_from(records.len()).unwrap().to_be_bytes());
        for (priority, weight, port, host) in records {
            message.extend([0xC0, 12, 0, 33, 0, 1, 0, 0, 0, 9]);
            let mut data: Vec<u8> =
                [*priority, *weight, *port].iter().flat_map(|n| n.to_be_bytes()).collect();
            for label in host.split('.') {
                data.push(u8::try_from(label.len()).unwrap());
                data.extend(label.as_bytes());
            }
            data.push(0);
            message.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
            message.extend(data);
        }
        message
    }

    fn asked(message: &[u8]) -> String {
        name(message, 12).unwrap().0
    }

    #[tokio::test]
    async fn records_become_urls_in_their_order() {
        // P043
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let server = socket.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut buffer = [0; 512];
            loop {
                let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
                let records: &[_] = match asked(&buffer[..length]).as_str() {
                    "_etcd-client._tcp.example.org" => {
                        &[(10, 1, 2379, "late.example.org"), (1, 1, 2379, "light"), (1, 9, 2381, "heavy")]
                    }
                    "_etcd-client-ssl-blue._tcp.example.org" => &[(0, 0, 443, "127.0.0.1")],
                    _ => &[],
                };
                let mut stray = answer(&buffer[..length], &[(0, 0, 1, "stray")]);
                stray[0] ^= 0xFF;
                socket.send_to(&stray, from).await.unwrap();
                socket.send_to(&answer(&buffer[..length], records), from).await.unwrap();
            }
        });
        let plain = resolve_at(&[server], "example.org", None).await.unwrap();
        assert_eq!(plain, ["http://heavy:2381", "http://light:2379", "http://late.example.org:2379"]);
        let blue = resolve_at(&[server], "example.org", Some("blue")).await.unwrap();
        assert_eq!(blue, ["https://127.0.0.1:443"]);
        let nothing = resolve_at(&[server], "example.net", None).await;
        assert!(matches!(nothing, Err(StoreError::Unreachable(_))));
    }

    #[test]
    fn name_servers_are_read() {
        let file = "# hello\nsearch lan\nnameserver 10.0.0.1\nnameserver ::1\nnameserver x\n";
        let servers: Vec<String> = name_servers(file).iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["10.0.0.1:53", "[::1]:53"]);
        assert_eq!(name_servers("").len(), 1);
    }

    proptest! {
        #[test]
        fn no_answer_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = targets(&bytes);
        }

        #[test]
        fn no_damaged_answer_panics(at in 0usize..80, byte in any::<u8>()) {
            let mut message = answer(&question(7, "_etcd._tcp.example.org"), &[(1, 2, 3, "host.example.org")]);
            if let Some(place) = message.get_mut(at) {
                *place = byte;
            }
            let _ = targets(&message);
        }
    }
}
