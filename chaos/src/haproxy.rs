//! HAProxy in front of a cluster: writes to the primary on 5432, reads to replicas on 5433.
//!
//! The configuration has the shape operators use with Patroni: `GET /primary` and `GET /replica` on 8008.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::net::{Net, POSTGRES, READ, REST};
use crate::process::{self, Start};
use crate::user::RunAs;

/// A running HAProxy; the cluster's reaper ends it.
#[derive(Debug)]
pub struct Haproxy {
    /// Where writes go in.
    pub write: SocketAddr,
    /// Where reads go in.
    pub read: SocketAddr,
}

impl Haproxy {
    /// Writes `haproxy.cfg` into a directory under `dir` and starts the program with it.
    ///
    /// # Errors
    /// When the file cannot be written or the program cannot be started.
    pub fn start(program: &Path, nodes: u8, net: &Net, dir: &Path, user: &RunAs) -> anyhow::Result<Self> {
        let own: PathBuf = dir.join("haproxy");
        std::fs::create_dir(&own)?;
        user.own(&own)?;
        let file = own.join("haproxy.cfg");
        std::fs::write(&file, configuration(nodes, net))?;
        let log = own.join("log");
        let args = ["-db".to_owned(), "-f".to_owned(), file.display().to_string()];
        process::spawn(&Start { program, args: &args, env: &[], dir: &own, log: &log, user })?;
        let at = |port| SocketAddr::from((net.address(5), port));
        Ok(Self { write: at(POSTGRES), read: at(READ) })
    }
}

/// The whole file. `inter 100ms` makes a failover visible to clients quickly, and sessions to a server that is
/// primary no longer are cut.
fn configuration(nodes: u8, net: &Net) -> String {
    let front = net.address(5);
    let mut servers = String::new();
    for index in 0..nodes {
        let host = net.address(11 + index);
        let _infallible = writeln!(servers, "    server n{} {host}:{POSTGRES} check port {REST}", index + 1);
    }
    format!(
        "global\n    maxconn 200\n\n\
         defaults\n    mode tcp\n    timeout connect 2s\n    timeout client 1h\n    timeout server 1h\n    \
         timeout check 1s\n    retries 0\n    default-server inter 100ms fall 1 rise 1 on-marked-down shutdown-sessions\n\n\
         frontend pg_write\n    bind {front}:{POSTGRES}\n    default_backend pg_primary\n\n\
         backend pg_primary\n    option httpchk GET /primary\n    http-check expect status 200\n{servers}\n\
         frontend pg_read\n    bind {front}:{READ}\n    default_backend pg_replicas\n\n\
         backend pg_replicas\n    balance roundrobin\n    option httpchk GET /replica\n    \
         http-check expect status 200\n{servers}"
    )
}
