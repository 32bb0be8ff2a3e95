//! The network between the members of an embedded store, as a process of its own: frozen, no member hears another, and
//! nobody outside reaches any, while all of them run on.
//!
//! Passes bytes on as they come; knows nothing of what they say.

use std::net::SocketAddr;

use anyhow::Context;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Serves pairs of addresses, `LISTEN=MEMBER` each, until it is ended.
///
/// # Errors
/// When a pair cannot be read or its port cannot be taken.
pub async fn run(pairs: &[String]) -> anyhow::Result<()> {
    let mut listeners = JoinSet::new();
    for pair in pairs {
        let (listen, member) = pair.split_once('=').with_context(|| format!("{pair} is no LISTEN=MEMBER"))?;
        let (listen, member): (SocketAddr, SocketAddr) = (listen.parse()?, member.parse()?);
        let listener = TcpListener::bind(listen).await.with_context(|| format!("listen at {listen}"))?;
        listeners.spawn(serve(listener, member));
    }
    while listeners.join_next().await.is_some() {}
    Ok(())
}

async fn serve(listener: TcpListener, member: SocketAddr) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Ok((from, _)) = accepted {
                connections.spawn(pass(from, member));
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Both ends end together, as those of one connection do.
async fn pass(mut from: TcpStream, member: SocketAddr) {
    let Ok(mut to) = TcpStream::connect(member).await else { return };
    let quick = from.set_nodelay(true).and_then(|()| to.set_nodelay(true));
    if quick.is_ok() {
        let _whoever_ended_it = tokio::io::copy_bidirectional(&mut from, &mut to).await;
    }
}
