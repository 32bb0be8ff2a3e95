//! Opens the server's port. Only sockets: what is answered on them is not known here.

use std::io;
use std::net::{SocketAddr, TcpListener as Listener, ToSocketAddrs};

use crate::server::ServerError;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 512;

/// Opens `host:port`; a host that means every address is opened for IPv6 and IPv4 together where that works.
pub(crate) fn listen(listen: &str) -> Result<Listener, ServerError> {
    let bad = |source| ServerError::Address { listen: listen.to_owned(), source };
    let (host, port) = listen
        .rsplit_once(':')
        .and_then(|(host, port)| Some((host.trim_matches(['[', ']']), port.parse::<u16>().ok()?)))
        .ok_or_else(|| bad(io::Error::new(io::ErrorKind::InvalidInput, "no port")))?;
    let addresses: Vec<SocketAddr> = match host {
        "" | "*" => vec![
            SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, port)),
            SocketAddr::from((std::net::Ipv4Addr::UNSPECIFIED, port)),
        ],
        host => (host, port).to_socket_addrs().map_err(bad)?.collect(),
    };
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for address in addresses {
        match open(address) {
            Ok(listener) => return Ok(listener),
            // Taken is taken: the other family would hide it.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                last = error;
                break;
            }
            Err(error) => last = error,
        }
    }
    Err(ServerError::Bind { listen: listen.to_owned(), source: last })
}

fn open(address: SocketAddr) -> io::Result<Listener> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, !address.ip().is_unspecified())?;
    }
    bind(&socket, &address)?;
    listen(&socket, BACKLOG)?;
    Ok(Listener::from(socket))
}
