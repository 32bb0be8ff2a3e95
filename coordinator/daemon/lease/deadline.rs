//! The hard deadline: whatever of the instance runs when the lease has run out is
//! killed, whatever else the daemon waits for. It never extends anything, touches
//! no disk before the kill, and says nothing before it: a log can be stuck too.

use std::sync::Arc;
use std::time::Duration;

use dcs::Moment;
use tokio::sync::watch;

use super::{Flags, Tenure, chain};
use crate::alarm::Alarm;
use crate::fencing::kill::kill;
use crate::fencing::scan::Home;
use crate::postgres::Paths;

/// How long one attempt to kill may take before it is repeated. Everything has its signal long before; nothing else of the
/// lease thread goes on meanwhile, and has nothing to do: the lease has run out.
const KILL: Duration = Duration::from_millis(500);

/// Watches the deadline for as long as the lease thread lives. A server that may take writes
/// without any lease is given `grace`, in which the node's loop proves a lease or stops it.
pub async fn enforce(
    tenure: Arc<watch::Sender<Tenure>>,
    flags: Arc<Flags>,
    paths: Paths,
    grace: watch::Receiver<Duration>,
) {
    let mut changed = tenure.subscribe();
    let alarm = Alarm::new();
    let unknown = Home::of(&paths.data_dir, paths.server_name());
    let mut naked_since: Option<Moment> = None;
    loop {
        let held = changed.borrow_and_update().held;
        let now = Moment::now();
        let end = match held {
            _ if !flags.enforced() => None,
            Some(held) => Some(held.hard),
            None => Some(*naked_since.get_or_insert(now) + *grace.borrow()),
        };
        if end.is_none() || held.is_some() {
            naked_since = None;
        }
        if end.is_some_and(|end| now >= end) {
            let home = flags.home();
            shoot(&tenure, &flags, home.as_deref().unwrap_or(&unknown));
            // Others of the thread get their turn before the next attempt.
            tokio::task::yield_now().await;
            naked_since = None;
            continue;
        }
        tokio::select! {
            () = pass(&alarm, end) => {}
            () = flags.roused() => {}
            // The sender lives in this function.
            _ = changed.changed() => {}
        }
    }
}

/// Returns at the deadline; never, if there is none.
async fn pass(alarm: &Alarm, end: Option<Moment>) {
    match end {
        Some(end) => alarm.at(end).await,
        None => std::future::pending().await,
    }
}

fn shoot(tenure: &watch::Sender<Tenure>, flags: &Flags, home: &Home) {
    match kill(home, KILL) {
        Ok(_) => {
            flags.disarm();
            tenure.send_modify(|tenure| {
                tenure.held = None;
                tenure.fenced += 1;
            });
            tracing::error!(
                "the leader lease had run out and Postgres might still have taken writes: every process of the \
                 instance was killed"
            );
        }
        Err(error) => {
            tracing::error!(error = %chain(&error), "killing the instance did not succeed; trying again");
        }
    }
}
