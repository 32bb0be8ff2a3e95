//! The servers of one etcd cluster: one client each, one of them in use, the next
//! on failure. It remembers which cluster they belong to and the highest revision
//! any of them showed, and believes no answer that contradicts either (F73, F74, F80).

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use config::{Endpoints, EtcdConfig};
use etcd_client::{Client, ResponseHeader};
use tokio::sync::{OnceCell, watch};

use super::access::{Access, Failed};
use super::attempts::Attempts;
use super::outcome::{Outcome, outcome};
use super::srv;
use crate::store::{Patience, StoreError};

/// How long the member list may take.
const LEARN: Duration = Duration::from_millis(100);

/// Whether the version of etcd was complained about: once for all connections of this process.
static WARNED: AtomicBool = AtomicBool::new(false);

/// The servers, and what is known of their cluster.
pub(super) struct Pool {
    access: Access,
    source: Endpoints,
    ring: Mutex<Ring>,
    /// Counts the times that we left a server or doubted it.
    doubts: watch::Sender<u64>,
    known: Known,
}

#[derive(Default)]
struct Ring {
    endpoints: Vec<Arc<Endpoint>>,
    current: usize,
}

/// One server.
pub(super) struct Endpoint {
    pub url: String,
    client: OnceCell<Client>,
    /// Attempts in a row that nobody answered.
    silent: AtomicU32,
}

impl Endpoint {
    fn new(url: &str) -> Arc<Self> {
        Arc::new(Self { url: url.to_owned(), client: OnceCell::new(), silent: AtomicU32::new(0) })
    }
}

/// What the cluster has shown of itself.
#[derive(Default)]
pub(super) struct Known {
    /// 0: nothing yet.
    cluster: AtomicU64,
    revision: AtomicI64,
}

impl Known {
    /// Checks that an answer comes from our cluster and, if `floor` is given, not from its past.
    pub fn check(&self, stamp: Stamp, floor: Option<i64>) -> Result<(), StoreError> {
        if stamp.cluster != 0 {
            let set = self.cluster.compare_exchange(0, stamp.cluster, Ordering::AcqRel, Ordering::Acquire);
            if let Err(was) = set
                && was != stamp.cluster
            {
                return Err(StoreError::Replaced { was, now: stamp.cluster });
            }
        }
        if let Some(seen) = floor {
            if stamp.revision < seen {
                return Err(StoreError::Regressed { seen, now: stamp.revision });
            }
            self.revision.fetch_max(stamp.revision, Ordering::AcqRel);
        }
        Ok(())
    }
}

/// Which cluster answered, at which revision.
#[derive(Clone, Copy, Default)]
pub(super) struct Stamp {
    cluster: u64,
    revision: i64,
}

impl From<Option<&ResponseHeader>> for Stamp {
    fn from(header: Option<&ResponseHeader>) -> Self {
        header
            .map(|header| Self { cluster: header.cluster_id(), revision: header.revision() })
            .unwrap_or_default()
    }
}

/// An answer and its stamp.
pub(super) struct Answer<T> {
    stamp: Stamp,
    pub value: T,
}

impl<T> Answer<T> {
    pub fn new(header: Option<&ResponseHeader>, value: T) -> Self {
        Self { stamp: header.into(), value }
    }

    pub fn revision(&self) -> i64 {
        self.stamp.revision
    }
}

impl Pool {
    pub fn new(config: &EtcdConfig) -> Result<Self, StoreError> {
        let access = Access::new(config)?;
        let endpoints = match &config.endpoints {
            Endpoints::Listed { urls, .. } if urls.is_empty() => {
                return Err(StoreError::Settings("no etcd host is named".into()));
            }
            Endpoints::Listed { urls, .. } => urls.iter().map(|url| Endpoint::new(url)).collect(),
            Endpoints::Srv { .. } => Vec::new(),
        };
        Ok(Self {
            access,
            source: config.endpoints.clone(),
            ring: Mutex::new(Ring { endpoints, current: 0 }),
            doubts: watch::Sender::new(0),
            known: Known::default(),
        })
    }

    pub fn known(&self) -> &Known {
        &self.known
    }

    /// Changes whenever a server was left or doubted.
    pub fn doubts(&self) -> watch::Receiver<u64> {
        self.doubts.subscribe()
    }

    /// Whether this server is the one in use.
    pub fn uses(&self, endpoint: &Arc<Endpoint>) -> bool {
        let ring = self.ring();
        ring.endpoints.get(ring.current).is_some_and(|current| current.url == endpoint.url)
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The server in use; asks DNS first if there is none.
    pub async fn current(&self) -> Result<Arc<Endpoint>, StoreError> {
        let current = || {
            let ring = self.ring();
            ring.endpoints.get(ring.current).cloned()
        };
        if let Some(endpoint) = current() {
            return Ok(endpoint);
        }
        if let Endpoints::Srv { domain, suffix } = &self.source {
            let urls = srv::resolve(domain, suffix.as_deref()).await?;
            self.add(&urls);
        }
        current().ok_or_else(|| StoreError::Unreachable("no etcd server is known".to_owned()))
    }

    fn add(&self, urls: &[String]) {
        let mut ring = self.ring();
        for url in urls {
            if !ring
                .endpoints
                .iter()
                .any(|known| known.url.trim_end_matches('/') == url.trim_end_matches('/'))
            {
                ring.endpoints.push(Endpoint::new(url));
            }
        }
    }

    fn count(&self) -> usize {
        self.ring().endpoints.len()
    }

    /// Goes on to the next server, if `endpoint` is still the one in use.
    /// `afresh`: its connection is given up, so that the next use makes a new one.
    pub fn leave(&self, endpoint: &Arc<Endpoint>, afresh: bool) {
        {
            let mut ring = self.ring();
            let count = ring.endpoints.len().max(1);
            if afresh && let Some(slot) = ring.endpoints.iter_mut().find(|known| Arc::ptr_eq(known, endpoint))
            {
                *slot = Endpoint::new(&endpoint.url);
            }
            if ring.endpoints.get(ring.current).is_some_and(|current| current.url == endpoint.url) {
                ring.current = (ring.current + 1) % count;
            }
        }
        self.doubts.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// The client of a server, connected, and its cluster checked.
    pub async fn client(&self, endpoint: &Endpoint) -> Result<Client, Outcome> {
        let connect = || async {
            let mut client = self.access.connect(&endpoint.url).await.map_err(|failed| match failed {
                Failed::Settings(error) => Outcome::Final(error),
                Failed::Etcd(error) => match outcome(&error) {
                    Outcome::Doubtful(why) => Outcome::NotSent(why),
                    known => known,
                },
            })?;
            let status = client.status().await.map_err(|error| match outcome(&error) {
                Outcome::Doubtful(why) => Outcome::NotSent(why),
                known => known,
            })?;
            // Before anything is written there: a server can advertise an address (its default is
            // localhost) at which, from here, some other etcd listens.
            self.known
                .check(status.header().into(), None)
                .map_err(|error| Outcome::NotSent(error.to_string()))?;
            tracing::debug!("connected to etcd {} at {}", status.version(), endpoint.url);
            if !keeps_leases(status.version()) && !WARNED.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    "etcd {} can end leases too early when its leader stalls, which makes a healthy primary step \
                     down: upgrade it to 3.5.23, 3.6.5 or later",
                    status.version()
                );
            }
            self.learn(&client).await;
            Ok(client)
        };
        endpoint.client.get_or_try_init(|| Box::pin(connect())).await.cloned()
    }

    /// Performs one request, on as many servers as it takes and `patience` allows.
    /// `repeatable`: sending it twice does no harm, so an unknown outcome is a reason to
    /// try again; otherwise it is returned as [`StoreError::Unknown`] at once.
    pub async fn call<T, F, R>(
        &self,
        patience: Patience,
        repeatable: bool,
        call: F,
    ) -> Result<Answer<T>, StoreError>
    where
        F: Fn(Client) -> R,
        R: Future<Output = Result<Answer<T>, etcd_client::Error>>,
    {
        let mut attempts = Attempts::new(patience);
        while let Some(each) = attempts.next().await {
            let endpoint = match self.current().await {
                Ok(endpoint) => endpoint,
                Err(error) => {
                    attempts.failed(1, error.to_string());
                    continue;
                }
            };
            let floor = self.known.revision.load(Ordering::Acquire);
            let sent = AtomicBool::new(false);
            // In a box, here and below: the futures of etcd-client are tens of kilobytes each.
            let attempt = Box::pin(async {
                let client = self.client(&endpoint).await?;
                sent.store(true, Ordering::Release);
                call(client).await.map_err(|error| outcome(&error))
            });
            let outcome = match tokio::time::timeout(each, attempt).await {
                Ok(Ok(answer)) => match self.known.check(answer.stamp, Some(floor)) {
                    Ok(()) => {
                        endpoint.silent.store(0, Ordering::Release);
                        return Ok(answer);
                    }
                    Err(error) if repeatable => {
                        attempts.last = Some(error.clone());
                        Outcome::NotSent(error.to_string())
                    }
                    Err(error) => Outcome::Doubtful(error.to_string()),
                },
                Ok(Err(outcome)) => outcome,
                Err(_) => Outcome::silent(&endpoint.url, each, sent.load(Ordering::Acquire)),
            };
            if let Some(error) = self.judge(&endpoint, outcome, repeatable, &mut attempts) {
                return Err(error);
            }
        }
        Err(attempts.given_up())
    }

    /// Leaves a server that failed; `Some` if that ends the request.
    pub fn judge(
        &self,
        endpoint: &Arc<Endpoint>,
        outcome: Outcome,
        repeatable: bool,
        attempts: &mut Attempts,
    ) -> Option<StoreError> {
        match outcome {
            Outcome::NotSent(why) => {
                self.leave(endpoint, true);
                attempts.failed(self.count(), why);
            }
            Outcome::Silent { was_sent: false, why } => {
                self.leave(endpoint, true);
                attempts.unanswered(self.count(), why);
            }
            Outcome::Doubtful(why) | Outcome::Silent { was_sent: true, why } if !repeatable => {
                self.doubt(endpoint);
                return Some(StoreError::Unknown(why));
            }
            Outcome::Doubtful(why) => {
                self.doubt(endpoint);
                attempts.failed(self.count(), why);
            }
            Outcome::Silent { was_sent: true, why } => {
                self.doubt(endpoint);
                attempts.unanswered(self.count(), why);
            }
            Outcome::Auth(why) => {
                self.leave(endpoint, true);
                if attempts.logins >= 2 || !self.access.has_user() {
                    return Some(StoreError::Auth(why));
                }
                attempts.logins += 1;
            }
            Outcome::Final(error) => return Some(error),
        }
        None
    }

    /// Leaves a server that may have heard us, and gives its connection up the second time in a row.
    fn doubt(&self, endpoint: &Arc<Endpoint>) {
        let silent = endpoint.silent.fetch_add(1, Ordering::AcqRel) + 1;
        self.leave(endpoint, silent >= 2);
    }

    /// Learns the other servers from the cluster's member list, unless only the listed ones may be used.
    /// It is not needed now, so it may take little of the time of whoever wants to connect.
    async fn learn(&self, client: &Client) {
        if matches!(self.source, Endpoints::Listed { fixed: true, .. }) {
            return;
        }
        let mut asked = client.cluster_client();
        let Ok(Ok(list)) = tokio::time::timeout(LEARN, asked.member_list()).await else { return };
        if self.known.check(list.header().into(), None).is_err() {
            return;
        }
        let is_tls = self.ring().endpoints.first().is_some_and(|first| first.url.starts_with("https://"));
        let urls = list.members().iter().flat_map(|member| member.client_urls().iter().cloned());
        let urls: Vec<String> = urls.filter(|url| url.starts_with("https://") == is_tls).collect();
        self.add(&urls);
    }
}

/// Whether a version has the repairs of its lease keeping (etcd #15247, #20590, #21638; F81, F82).
fn keeps_leases(version: &str) -> bool {
    let mut numbers = version.split(['.', '-', '+']).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    version >= (3, 6, 5) || ((3, 5, 23)..(3, 6, 0)).contains(&version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_another_cluster_or_of_the_past_are_refused() {
        // F73, F74, F80
        let known = Known::default();
        let stamp = |cluster, revision| Stamp { cluster, revision };
        assert_eq!(known.check(stamp(7, 10), Some(0)), Ok(()));
        assert_eq!(known.check(stamp(7, 10), Some(10)), Ok(()));
        assert_eq!(known.check(stamp(7, 9), Some(10)), Err(StoreError::Regressed { seen: 10, now: 9 }));
        assert_eq!(known.check(stamp(8, 11), Some(10)), Err(StoreError::Replaced { was: 7, now: 8 }));
        // A keepalive's header shows one server's own progress, which may lag.
        assert_eq!(known.check(stamp(7, 3), None), Ok(()));
    }

    #[test]
    fn old_versions_are_known() {
        for (version, good) in [
            ("3.4.23", false),
            ("3.5.22", false),
            ("3.5.23", true),
            ("3.6.0", false),
            ("3.6.5", true),
            ("3.7.0-rc.1", true),
            ("x", false),
        ] {
            assert_eq!(keeps_leases(version), good, "{version}");
        }
    }

    fn pool(urls: &[&str]) -> Pool {
        let urls = urls.iter().map(|url| (*url).to_owned()).collect();
        let endpoints = Endpoints::Listed { urls, fixed: false };
        Pool::new(&EtcdConfig { endpoints, user: None, cacert: None, cert: None, key: None }).unwrap()
    }

    #[tokio::test]
    async fn a_server_is_left_once() {
        let pool = pool(&["http://a", "http://b"]);
        let first = pool.current().await.unwrap();
        pool.leave(&first, false);
        assert_eq!(pool.current().await.unwrap().url, "http://b");
        // Two requests that failed on the same server must not skip the next one.
        pool.leave(&first, true);
        assert_eq!(pool.current().await.unwrap().url, "http://b");
    }

    #[tokio::test]
    async fn no_server_at_all_is_a_mistake_in_the_settings() {
        let endpoints = Endpoints::Listed { urls: Vec::new(), fixed: false };
        let config = EtcdConfig { endpoints, user: None, cacert: None, cert: None, key: None };
        assert!(matches!(Pool::new(&config), Err(StoreError::Settings(_))));
    }
}
