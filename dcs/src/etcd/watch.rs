//! One watch on etcd. It lasts until anything about it is doubtful: the stream
//! broke, was cancelled, fell silent, or another server is in use by now.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{EventType, WatchOptions, WatchResponse, WatchStream};
use tokio::sync::watch;

use super::attempts::Attempts;
use super::outcome::{Outcome, outcome};
use super::pool::{Endpoint, Pool};
use super::record;
use crate::store::{Batch, Event, Patience, StoreError};
use crate::{Moment, Revision};

/// After this long without a word, ask whether the other side is still there (F76).
const QUIET: Duration = Duration::from_secs(5);
/// How long to wait for the answer to that.
const PROBE: Duration = Duration::from_millis(1500);

/// A watch on one etcd server.
pub(crate) struct EtcdWatch {
    pool: Arc<Pool>,
    endpoint: Arc<Endpoint>,
    stream: WatchStream,
    doubts: watch::Receiver<u64>,
    /// When the answer to a question is due that was asked already.
    due: Option<Moment>,
}

impl EtcdWatch {
    pub(super) async fn open(
        pool: &Arc<Pool>,
        prefix: &str,
        from: Revision,
        patience: Patience,
    ) -> Result<Self, StoreError> {
        let mut attempts = Attempts::new(patience);
        while let Some(each) = attempts.next().await {
            let endpoint = match pool.current().await {
                Ok(endpoint) => endpoint,
                Err(error) => {
                    attempts.failed(1, error.to_string());
                    continue;
                }
            };
            let opened = tokio::time::timeout(each, Box::pin(start(pool, &endpoint, prefix, from))).await;
            let silent = || Outcome::silent(&endpoint.url, each, true);
            match opened.unwrap_or_else(|_| Err(silent())) {
                Ok(stream) => {
                    let doubts = pool.doubts();
                    return Ok(Self { pool: Arc::clone(pool), endpoint, stream, doubts, due: None });
                }
                Err(outcome) => {
                    if let Some(error) = pool.judge(&endpoint, outcome, true, &mut attempts) {
                        return Err(error);
                    }
                }
            }
        }
        Err(attempts.given_up())
    }

    pub async fn next(&mut self) -> Result<Batch, StoreError> {
        loop {
            if !self.pool.uses(&self.endpoint) {
                return Err(StoreError::Unreachable(format!("{} is not in use any more", self.endpoint.url)));
            }
            // A deadline rather than a span: doubts that keep coming must not put it off.
            let wait = self.due.map_or(QUIET, |due| Moment::now().until(due));
            tokio::select! {
                biased;
                message = self.stream.message() => {
                    self.due = None;
                    return self.read(message);
                }
                _ = self.doubts.changed() => self.probe().await?,
                () = tokio::time::sleep(wait) => {
                    if self.due.is_some() {
                        self.pool.leave(&self.endpoint, true);
                        let url = &self.endpoint.url;
                        return Err(StoreError::Unreachable(format!("the watch on {url} fell silent")));
                    }
                    self.probe().await?;
                }
            }
        }
    }

    /// Asks for a sign of life, unless one is due already.
    async fn probe(&mut self) -> Result<(), StoreError> {
        if self.due.is_some() {
            return Ok(());
        }
        self.due = Some(Moment::now() + PROBE);
        self.stream.request_progress().await.map_err(|error| StoreError::Unreachable(error.to_string()))
    }

    fn read(&self, message: Result<Option<WatchResponse>, etcd_client::Error>) -> Result<Batch, StoreError> {
        let response = match message {
            Ok(Some(response)) => response,
            Ok(None) => return Err(StoreError::Unreachable("the watch ended".to_owned())),
            Err(error) => {
                // The connection may be as dead as the stream: whoever comes next makes a new one.
                self.pool.leave(&self.endpoint, true);
                return Err(match outcome(&error) {
                    Outcome::Final(error) => error,
                    Outcome::NotSent(why)
                    | Outcome::Doubtful(why)
                    | Outcome::Silent { why, .. }
                    | Outcome::Auth(why) => StoreError::Unreachable(why),
                });
            }
        };
        self.pool.known().check(response.header().into(), None)?;
        if response.compact_revision() > 0 {
            return Err(StoreError::Gap(format!(
                "revisions up to {} are compacted",
                response.compact_revision()
            )));
        }
        if response.canceled() {
            return Err(StoreError::Gap(format!("etcd cancelled the watch: {}", response.cancel_reason())));
        }
        let event = |event: &etcd_client::Event| {
            let found = event.kv()?;
            Some(match event.event_type() {
                EventType::Put => Event::Put(record(found)),
                EventType::Delete => Event::Delete {
                    key: String::from_utf8_lossy(found.key()).into_owned(),
                    modified: found.mod_revision(),
                },
            })
        };
        Ok(Batch { events: response.events().iter().filter_map(event).collect() })
    }
}

/// Opens the stream and waits until etcd has created the watch.
async fn start(
    pool: &Pool,
    endpoint: &Endpoint,
    prefix: &str,
    from: Revision,
) -> Result<WatchStream, Outcome> {
    let mut client = pool.client(endpoint).await?;
    let options = WatchOptions::new().with_prefix().with_start_revision(from.0);
    let mut stream = client.watch(prefix, Some(options)).await.map_err(|error| outcome(&error))?;
    let ended = || Outcome::Doubtful("the watch ended before it was created".to_owned());
    let created = stream.message().await.map_err(|error| outcome(&error))?.ok_or_else(ended)?;
    pool.known().check(created.header().into(), None).map_err(|error| Outcome::NotSent(error.to_string()))?;
    if created.canceled() {
        let why = created.cancel_reason().to_owned();
        return Err(if why.contains("permission denied") || why.contains("auth") {
            Outcome::Auth(why)
        } else {
            Outcome::NotSent(format!("etcd would not create the watch: {why}"))
        });
    }
    Ok(stream)
}
