//! Clients that insert unique rows without pause, and the verdict on what became of them.
//!
//! An insert is *ok* only if its commit returned without a warning, *failed* only if the server said that it
//! did not happen, and *unknown* in every other case. Only ok rows are promised to exist.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use dcs::Moment;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_postgres::Statement;

use crate::sql::Session;

/// How long one connection attempt may take: a frozen server accepts and says nothing.
const CONNECT: Duration = Duration::from_millis(500);
/// How long one insert may take before the client gives it up as unknown.
const INSERT: Duration = Duration::from_secs(2);
/// Pause after every server has refused, so that a client does not starve the recovery that it waits for.
const BREATH: Duration = Duration::from_millis(3);

/// What a client knows of one insert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The server acknowledged the commit.
    Ok,
    /// The server refused; the row cannot exist.
    Failed,
    /// Anything else; the row may exist.
    Unknown,
}

/// One insert.
#[derive(Debug, Clone, Copy)]
pub struct Record {
    /// The row's id, never used twice.
    pub id: i64,
    /// Which of the client's servers it was sent to.
    pub server: SocketAddr,
    /// When it was sent.
    pub sent: Moment,
    /// When the answer, or its absence, was known.
    pub answered: Moment,
    /// What the answer was.
    pub outcome: Outcome,
}

/// What the rows of a finished workload say.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// Inserts sent.
    pub sent: usize,
    /// Inserts acknowledged.
    pub acked: usize,
    /// Inserts whose fate the client could not know.
    pub unknown: usize,
    /// Acknowledged rows that are not there: must be empty.
    pub lost: Vec<i64>,
    /// Rows that nobody sent, or whose insert was refused: must be empty.
    pub phantom: Vec<i64>,
    /// The longest time between two acknowledgements.
    pub outage: Duration,
}

#[derive(Debug, Default)]
struct Shared {
    next: AtomicI64,
    records: Mutex<Vec<Record>>,
}

/// Running clients; they stop when this is dropped.
#[derive(Debug)]
pub struct Workload {
    shared: Arc<Shared>,
    clients: JoinSet<()>,
    stop: watch::Sender<bool>,
}

impl Workload {
    /// Makes the table and starts one client that writes to whichever server lets it.
    ///
    /// # Errors
    /// When no server takes the table within ten seconds.
    pub async fn start(servers: &[SocketAddr], pause: Duration) -> anyhow::Result<Self> {
        let table =
            crate::cluster::until(Duration::from_secs(10), "a server that takes a table", async || {
                for server in servers {
                    let Ok(session) = Session::open(*server, CONNECT).await else { continue };
                    let made =
                        session.rows("create table if not exists writes (id bigint primary key)", INSERT);
                    if made.await.is_ok() {
                        return Ok(Some(()));
                    }
                }
                Ok(None)
            });
        table.await?;
        let (stop, _) = watch::channel(false);
        let mut workload = Self { shared: Arc::default(), clients: JoinSet::new(), stop };
        workload.add_client(servers, pause);
        Ok(workload)
    }

    /// One client for all servers and one for each, which find a second primary; returns when they have written enough to
    /// see one by, however soon a fault comes.
    ///
    /// # Errors
    /// As [`Workload::start`], and when no writes are acknowledged.
    pub async fn everywhere(servers: &[SocketAddr]) -> anyhow::Result<Self> {
        let mut workload = Self::start(servers, Duration::from_millis(5)).await?;
        for server in servers {
            workload.add_client(&[*server], Duration::from_millis(20));
        }
        let enough = async || Ok((workload.acked() > 60).then_some(()));
        crate::cluster::until(Duration::from_secs(90), "sixty acknowledged rows", enough).await?;
        Ok(workload)
    }

    /// Adds a client. One that knows a single server is what finds a second primary.
    pub fn add_client(&mut self, servers: &[SocketAddr], pause: Duration) {
        let client = Client {
            shared: Arc::clone(&self.shared),
            servers: servers.iter().map(|server| (*server, None)).collect(),
            pause,
        };
        self.clients.spawn(client.run(self.stop.subscribe()));
    }

    /// How many inserts were acknowledged so far.
    #[must_use]
    pub fn acked(&self) -> usize {
        self.acks().len()
    }

    /// When the newest acknowledgement came.
    #[must_use]
    pub fn last_ack(&self) -> Option<Moment> {
        let records = records(&self.shared);
        records.iter().rev().find(|record| record.outcome == Outcome::Ok).map(|record| record.answered)
    }

    /// How many inserts were acknowledged that were sent after a moment: whatever was on its way then does not count.
    #[must_use]
    pub fn acked_since(&self, moment: Moment) -> usize {
        let is_new = |record: &&Record| record.outcome == Outcome::Ok && record.sent > moment;
        records(&self.shared).iter().filter(is_new).count()
    }

    /// The longest time without an acknowledgement that ended after `since`; a gap that is still open counts.
    #[must_use]
    pub fn outage_since(&self, since: Moment) -> Duration {
        let mut acks = self.acks();
        acks.push(Moment::now());
        longest_gap(&acks, since)
    }

    /// Waits until writes are acknowledged that were sent after `since`.
    ///
    /// # Errors
    /// When none is after `limit`.
    pub async fn wait_ack_after(&self, since: Moment, limit: Duration) -> anyhow::Result<()> {
        crate::cluster::until(limit, "an acknowledged write", async || {
            let records = records(&self.shared);
            let newest = records.iter().rev().find(|record| record.outcome == Outcome::Ok);
            Ok(newest.filter(|record| record.sent > since).map(|_| ()))
        })
        .await
    }

    /// Stops the clients and returns what they recorded.
    pub async fn stop(mut self) -> Vec<Record> {
        self.stop.send_replace(true);
        while self.clients.join_next().await.is_some() {}
        records(&self.shared).clone()
    }

    /// Stops the clients and compares what they were promised with the rows of one server.
    ///
    /// # Errors
    /// When the rows cannot be read.
    pub async fn verdict(self, server: SocketAddr) -> anyhow::Result<Verdict> {
        let records = self.stop().await;
        let limit = Duration::from_secs(30);
        let rows = Session::open(server, limit).await?.rows("select id from writes", limit).await?;
        let ids: Result<BTreeSet<i64>, _> = rows.iter().flatten().map(|id| id.parse()).collect();
        Ok(judge(&records, &ids.context("read the ids of the rows")?))
    }

    fn acks(&self) -> Vec<Moment> {
        let records = records(&self.shared);
        records.iter().filter(|record| record.outcome == Outcome::Ok).map(|record| record.answered).collect()
    }
}

fn records(shared: &Shared) -> MutexGuard<'_, Vec<Record>> {
    shared.records.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Compares what clients were told with the rows that exist.
#[must_use]
pub fn judge(records: &[Record], present: &BTreeSet<i64>) -> Verdict {
    let ids = |outcome: Outcome| -> BTreeSet<i64> {
        records.iter().filter(|record| record.outcome == outcome).map(|record| record.id).collect()
    };
    let (acked, unknown) = (ids(Outcome::Ok), ids(Outcome::Unknown));
    let acks: Vec<Moment> =
        records.iter().filter(|record| record.outcome == Outcome::Ok).map(|record| record.answered).collect();
    Verdict {
        sent: records.len(),
        acked: acked.len(),
        unknown: unknown.len(),
        lost: acked.difference(present).copied().collect(),
        phantom: present.iter().filter(|id| !acked.contains(id) && !unknown.contains(id)).copied().collect(),
        outage: longest_gap(&acks, Moment(0)),
    }
}

fn longest_gap(moments: &[Moment], since: Moment) -> Duration {
    let gaps = moments.iter().zip(moments.iter().skip(1)).filter(|(_, end)| **end > since);
    gaps.map(|(start, end)| end.since(*start)).max().unwrap_or_default()
}

/// One client: its servers, each with a connection while it has one.
struct Client {
    shared: Arc<Shared>,
    servers: Vec<(SocketAddr, Option<(Session, Statement)>)>,
    pause: Duration,
}

impl Client {
    async fn run(mut self, stop: watch::Receiver<bool>) {
        let mut refused = 0;
        let mut at = 0;
        while !*stop.borrow() {
            let acked = match self.servers.get_mut(at) {
                Some((server, session)) => write(&self.shared, *server, session).await,
                None => false,
            };
            if acked {
                refused = 0;
                if !self.pause.is_zero() {
                    tokio::time::sleep(self.pause).await;
                }
                continue;
            }
            refused += 1;
            at = (at + 1) % self.servers.len().max(1);
            if refused >= self.servers.len() {
                refused = 0;
                tokio::time::sleep(BREATH).await;
            }
        }
    }
}

/// Tries one insert on one server; true if it was acknowledged. A connection that broke is dropped.
async fn write(shared: &Shared, server: SocketAddr, session: &mut Option<(Session, Statement)>) -> bool {
    if session.is_none() {
        *session = connect(server).await;
    }
    let Some((open, insert)) = session.as_ref() else { return false };
    let id = shared.next.fetch_add(1, Ordering::Relaxed);
    let sent = Moment::now();
    let answer = tokio::time::timeout(INSERT, open.client.execute(insert, &[&id])).await;
    let answered = Moment::now();
    let outcome = match &answer {
        Ok(Ok(_)) if open.take_warning() => Outcome::Unknown,
        Ok(Ok(_)) => Outcome::Ok,
        Ok(Err(err)) if is_refusal(err) => Outcome::Failed,
        Ok(Err(_)) | Err(_) => Outcome::Unknown,
    };
    records(shared).push(Record { id, server, sent, answered, outcome });
    if outcome != Outcome::Ok && !is_read_only(&answer) {
        *session = None;
    }
    outcome == Outcome::Ok
}

async fn connect(server: SocketAddr) -> Option<(Session, Statement)> {
    let session = Session::open(server, CONNECT).await.ok()?;
    let insert = session.client.prepare("insert into writes values ($1)");
    let insert = tokio::time::timeout(CONNECT, insert).await.ok()?.ok()?;
    Some((session, insert))
}

/// Errors after which the row cannot exist: read-only transaction, serialization failure, deadlock,
/// server starting up or in recovery (reliability: classification of outcomes).
fn is_refusal(err: &tokio_postgres::Error) -> bool {
    err.code().is_some_and(|code| ["25006", "40001", "40P01", "57P03"].contains(&code.code()))
}

fn is_read_only<T, E>(answer: &Result<Result<T, tokio_postgres::Error>, E>) -> bool {
    matches!(answer, Ok(Err(err)) if err.code().is_some_and(|code| code.code() == "25006"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: i64, at: u64, outcome: Outcome) -> Record {
        let server = SocketAddr::from(([127, 0, 0, 1], 1));
        Record { id, server, sent: Moment(at), answered: Moment(at + 1), outcome }
    }

    #[test]
    fn the_verdict_finds_lost_and_phantom_rows() {
        let records = [
            record(1, 0, Outcome::Ok),
            record(2, 10, Outcome::Ok),
            record(3, 20, Outcome::Failed),
            record(4, 30, Outcome::Unknown),
            record(5, 90, Outcome::Ok),
        ];
        let honest = judge(&records, &BTreeSet::from([1, 2, 4, 5]));
        assert!(honest.lost.is_empty() && honest.phantom.is_empty());
        assert_eq!((honest.sent, honest.acked, honest.unknown), (5, 3, 1));
        assert_eq!(honest.outage, Duration::from_nanos(80));
        let lying = judge(&records, &BTreeSet::from([1, 3, 5, 99]));
        assert_eq!((lying.lost, lying.phantom), (vec![2], vec![3, 99]));
    }
}
