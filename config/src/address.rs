//! `host:port` and `address[,address]:port` as they are written in a file.
//! Nothing is resolved here.

use std::fmt;

/// One host and one port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// A name or an IP address, without brackets.
    pub host: String,
    /// The TCP port.
    pub port: u16,
}

impl Address {
    /// Reads `host:port`; an IPv6 address with a port stands in brackets.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.trim().rsplit_once(':')?;
        let host = host.trim();
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        let sane = !bare.is_empty() && !bare.contains(|c: char| c.is_whitespace() || c == ',' || c == '/');
        let port = port.parse::<u16>().ok().filter(|p| *p > 0)?;
        sane.then(|| Self { host: bare.to_owned(), port })
    }

    /// Whether the host means every address of this machine, which nobody else can connect to.
    #[must_use]
    pub fn is_any(&self) -> bool {
        matches!(self.host.as_str(), "0.0.0.0" | "*" | "::")
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// The addresses and the port on which Postgres listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// The addresses, in order, without brackets.
    pub addresses: Vec<String>,
    /// The TCP port.
    pub port: u16,
}

impl Listen {
    /// Reads `addr[,addr]:port`; without a port it is 5432.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let (list, port) = match text.rsplit_once(':') {
            Some((list, port)) if !port.ends_with(']') => (list, port.parse::<u16>().ok()?),
            _ => (text, 5432),
        };
        let addresses: Vec<String> = list
            .split(',')
            .map(|a| a.trim().trim_start_matches('[').trim_end_matches(']').to_owned())
            .collect();
        let is_port = |a: &String| a.bytes().all(|b| b.is_ascii_digit());
        let sane = addresses.iter().all(|a| !is_port(a) && !a.contains(char::is_whitespace));
        (sane && port > 0).then_some(Self { addresses, port })
    }

    /// What Postgres's `listen_addresses` is set to.
    #[must_use]
    pub fn listen_addresses(&self) -> String {
        self.addresses.join(",")
    }

    /// The address to publish: one that means every address if there is one, else the first.
    pub(crate) fn published_host(&self) -> &str {
        let any = self.addresses.iter().find(|a| matches!(a.as_str(), "*" | "0.0.0.0" | "::"));
        any.or_else(|| self.addresses.first()).map_or("0.0.0.0", String::as_str)
    }

    /// The host through which this machine reaches its own Postgres over TCP:
    /// `localhost` if that is covered, else the first address.
    #[must_use]
    pub fn local_host(&self) -> &str {
        let covers = |a: &String| matches!(a.as_str(), "*" | "0.0.0.0" | "127.0.0.1" | "localhost");
        if self.addresses.iter().any(covers) {
            return "localhost";
        }
        self.addresses.first().map_or("localhost", String::as_str)
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.listen_addresses(), self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_with_names_and_both_ip_versions() {
        let read = |text| Address::parse(text).map(|a| (a.to_string(), a.host, a.port));
        let wanted = |text: &str, host: &str, port| Some((text.to_owned(), host.to_owned(), port));
        assert_eq!(read("10.0.0.1:8008"), wanted("10.0.0.1:8008", "10.0.0.1", 8008));
        assert_eq!(read("[fd00::1]:8008"), wanted("[fd00::1]:8008", "fd00::1", 8008));
        assert_eq!(read("8008"), None);
        assert_eq!(read("host:99999"), None);
        assert_eq!(read(":1"), None);
    }

    // P129
    #[test]
    fn postgres_may_listen_on_several_addresses() {
        let listen = Listen::parse("10.0.0.1,127.0.0.1:5433").unwrap();
        assert_eq!(listen.listen_addresses(), "10.0.0.1,127.0.0.1");
        assert_eq!(listen.port, 5433);
        assert_eq!(listen.local_host(), "localhost");
        assert_eq!(Listen::parse("127.0.3.1:1").unwrap().local_host(), "127.0.3.1");
    }
}
