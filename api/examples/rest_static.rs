//! A REST server with one unchanging status, for measuring: prints its address, then the CPU
//! time that it used per request whenever a line arrives on standard input.
//! `cargo run --release -p api --example rest_static`, then `wrk -c16 http://ADDRESS/primary`.

use std::sync::Arc;
use std::time::Duration;

use api::server::{Inputs, Server, Settings};
use api::status::{HeldLease, NodeStatus, Position, PostgresState, Role, Server as Postgres};
use dcs::{Epoch, Lsn, Moment, Seen};
use tokio::sync::{mpsc, watch};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let later = Moment::now() + Duration::from_secs(86_400);
    let server = Postgres {
        started: "2026-11-20 07:00:39.805522+00:00".to_owned(),
        started_epoch: 1_795_158_039.805_522,
        version: 150_020,
        timeline: None,
        position: Position::Primary(Lsn(50_331_744)),
        replication_state: None,
        senders: Vec::new(),
    };
    let status = NodeStatus {
        looked: later,
        state: PostgresState::Running,
        role: Role::Primary,
        writable: true,
        lease: Some(HeldLease { epoch: Epoch(1), until: later }),
        server: Some(server),
        store_seen: Some((later, 1_795_158_110)),
        leader_known: true,
        last_turn: later,
        ..NodeStatus::unknown("batman".to_owned(), config::NodeName::new("node1")?)
    };
    let (_status, status) = watch::channel(Arc::new(status));
    let (_seen, seen) = watch::channel(Seen::default());
    let (node, _asked) = mpsc::channel(1);
    let listen = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let settings = Settings { listen, ..Settings::default() };
    let server =
        Server::bind(&settings, Inputs { status, seen, node, look: None, recollection: Default::default() })?;
    println!("{}", server.address()?);
    let (stop, stopped) = watch::channel(false);
    let thread = server.start(stopped)?;
    let mut line = String::new();
    while std::io::stdin().read_line(&mut line)? > 0 {
        let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        println!("{}.{:09} s of CPU", used.tv_sec, used.tv_nsec);
    }
    stop.send(true)?;
    thread.join().map_err(|_| "the server's thread panicked")?;
    Ok(())
}
