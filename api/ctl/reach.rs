//! The ways to a cluster: its store, and the REST interfaces of its members.

use std::cell::Cell;
use std::time::Duration;

use anyhow::{Context, bail};
use config::{Endpoints, StoreConfig};
use dcs::{Abode, ClusterView, Dcs, Failover, Keys, Moment, Revision};
use http::Method;
use serde_json::Value;

use crate::ask::note;
use crate::rest::Rest;
use crate::roster::{Modes, Roster};
use crate::settings::Settings;

/// How long the store may take for one answer.
pub const STORE: Duration = Duration::from_secs(5);
/// The same where a member can be asked instead.
const STORE_OR_MEMBER: Duration = Duration::from_millis(1500);
/// How long a member may take when the store is gone.
const MEMBER: Duration = Duration::from_secs(5);
/// Time between two looks while waiting for something.
const PAUSE: Duration = Duration::from_millis(200);
/// Patroni's `loop_wait` where the settings have none.
const LOOP_WAIT: Duration = Duration::from_secs(10);

/// One cluster, reachable.
pub struct Reach {
    cluster: String,
    store: Dcs,
    place: String,
    section: &'static str,
    /// The store did not answer in this run; members are asked at once.
    gone: Cell<bool>,
    rest: Rest,
    urls: Vec<String>,
}

/// One look at a cluster.
#[derive(Debug)]
pub struct Seen {
    /// The members.
    pub roster: Roster,
    /// What changes the meaning of commands.
    pub modes: Modes,
    /// Members look at the store at least this often.
    pub loop_wait: Duration,
    view: Option<ClusterView>,
}

impl Seen {
    fn of(view: ClusterView) -> Self {
        let settings = view.config.as_ref().map(|config| &config.value);
        Self {
            roster: Roster::from_view(&view),
            modes: Modes::read(settings),
            loop_wait: loop_wait(settings),
            view: Some(view),
        }
    }

    /// Whether `name` leads or is a synchronous standby, as the store says.
    #[must_use]
    pub fn is_synchronous(&self, name: &str) -> bool {
        let Some(sync) = self.view.as_ref().and_then(|view| view.sync.as_ref()) else { return false };
        let same = |other: &String| other.eq_ignore_ascii_case(name);
        sync.value.leader.as_ref().is_none_or(same) || sync.value.standbys.iter().any(same)
    }

    /// The revision of a scheduled switchover.
    #[must_use]
    pub fn scheduled_revision(&self) -> Option<Revision> {
        let failover = self.view.as_ref()?.failover.as_ref()?;
        failover.value.scheduled_at.as_ref().map(|_| failover.revision)
    }
}

fn loop_wait(settings: Option<&Value>) -> Duration {
    let seconds = settings.and_then(|settings| settings.get("loop_wait")).and_then(Value::as_f64);
    seconds.and_then(|s| Duration::try_from_secs_f64(s).ok()).unwrap_or(LOOP_WAIT)
}

/// Where a store is, for messages.
pub fn place(store: &StoreConfig) -> String {
    match store {
        StoreConfig::Etcd(etcd) => match &etcd.endpoints {
            Endpoints::Listed { urls, .. } => urls.join(", "),
            Endpoints::Srv { domain, .. } => domain.clone(),
        },
        StoreConfig::Raft(raft) => {
            let members = raft.self_addr.iter().chain(&raft.partner_addrs);
            members.map(ToString::to_string).collect::<Vec<_>>().join(", ")
        }
    }
}

/// The store that the cluster lives in: of two that the configuration names, the one where somebody leads, else the
/// one whose records say so, else the first.
async fn home<'a>(
    settings: &'a Settings,
    keys: &Keys,
    patience: Duration,
) -> anyhow::Result<(Dcs, &'a StoreConfig)> {
    let first = Dcs::connect(&settings.store, keys.clone(), patience).await?;
    let Some(other) = &settings.second_store else { return Ok((first, &settings.store)) };
    let here = first.load().await.ok().filter(|view| matches!(view.abode(), Abode::Here(_)));
    if here.as_ref().is_some_and(|view| view.leader.is_some()) {
        return Ok((first, &settings.store));
    }
    let second = Dcs::connect(other, keys.clone(), patience).await?;
    match second.load().await {
        Ok(there)
            if there.leader.is_some() || (here.is_none() && matches!(there.abode(), Abode::Here(_))) =>
        {
            Ok((second, other))
        }
        _ => Ok((first, &settings.store)),
    }
}

impl Reach {
    /// The store's records.
    #[must_use]
    pub fn store(&self) -> &Dcs {
        &self.store
    }

    /// The section of the configuration that names the store.
    #[must_use]
    pub fn section(&self) -> &'static str {
        self.section
    }

    /// Where the store is, for messages.
    #[must_use]
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Prepares the ways to `cluster`, by default the one that the configuration names.
    ///
    /// # Errors
    /// If no cluster is named, or a certificate cannot be used.
    pub async fn open(settings: &Settings, cluster: Option<&str>) -> anyhow::Result<Self> {
        let Some(cluster) = cluster.or(settings.scope.as_deref()) else {
            bail!("which cluster? name it, or give a configuration file with scope: NAME (-c FILE)");
        };
        let patience = if settings.urls.is_empty() { STORE } else { STORE_OR_MEMBER };
        let keys = Keys::new(&settings.namespace, cluster);
        let (store, config) = home(settings, &keys, patience).await?;
        Ok(Self {
            cluster: cluster.to_owned(),
            store,
            place: place(config),
            section: config.section(),
            gone: Cell::new(false),
            rest: Rest::new(&settings.client)?,
            urls: settings.urls.clone(),
        })
    }

    /// The cluster's name.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// The way to members.
    #[must_use]
    pub fn rest(&self) -> &Rest {
        &self.rest
    }

    /// Reads the store.
    ///
    /// # Errors
    /// If it cannot be reached.
    pub async fn view(&self) -> anyhow::Result<ClusterView> {
        let unread = || format!("cluster {} cannot be read at {}", self.cluster, self.place);
        self.store.load().await.with_context(unread)
    }

    /// Looks at the cluster: in the store, or if that cannot be reached by asking a member.
    ///
    /// # Errors
    /// If neither answers.
    pub async fn look(&self) -> anyhow::Result<Seen> {
        let failed = if self.gone.get() {
            anyhow::anyhow!("cluster {} could not be read at {}", self.cluster, self.place)
        } else {
            match self.view().await {
                Ok(view) => return Ok(Seen::of(view)),
                Err(failed) => failed,
            }
        };
        for url in &self.urls {
            match self.rest.ask(url, Method::GET, "cluster", None, MEMBER).await {
                Ok(answer) if answer.code == 200 => {
                    let body: Value = serde_json::from_str(&answer.body)
                        .with_context(|| format!("{url} answered no JSON"))?;
                    if !self.gone.replace(true) {
                        note(format!("{failed:#}; this is what {url} knows"));
                    }
                    return self.ask_about(url, &body).await;
                }
                Ok(answer) => note(format!("{url} answered {}", answer.code)),
                Err(error) => note(error.to_string()),
            }
        }
        Err(failed)
    }

    async fn ask_about(&self, url: &str, body: &Value) -> anyhow::Result<Seen> {
        let asked = self.rest.ask(url, Method::GET, "config", None, MEMBER).await;
        let settings = asked.ok().and_then(|answer| serde_json::from_str::<Value>(&answer.body).ok());
        Ok(Seen {
            roster: Roster::from_json(body),
            modes: Modes::read(settings.as_ref()),
            loop_wait: loop_wait(settings.as_ref()),
            view: None,
        })
    }

    /// Looks at one endpoint of any member that is known without the store.
    pub async fn of_any_member(&self, endpoint: &str) -> Option<Value> {
        for url in &self.urls {
            if let Ok(answer) = self.rest.ask(url, Method::GET, endpoint, None, MEMBER).await
                && answer.code == 200
                && let Ok(body) = serde_json::from_str(&answer.body)
            {
                return Some(body);
            }
        }
        None
    }

    /// Waits until the store says what is awaited; nothing if it does not within `limit`.
    ///
    /// # Errors
    /// If the store could not be read at all.
    pub async fn until(
        &self,
        limit: Duration,
        awaited: impl Fn(&ClusterView) -> bool,
    ) -> anyhow::Result<Option<ClusterView>> {
        let end = Moment::now() + limit;
        loop {
            let view = self.view().await?;
            if awaited(&view) {
                return Ok(Some(view));
            }
            if Moment::now() >= end {
                return Ok(None);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The settings that the cluster shares.
    ///
    /// # Errors
    /// If neither the store nor a known member answers.
    pub async fn settings_document(&self) -> anyhow::Result<Option<Value>> {
        match self.view().await {
            Ok(view) => Ok(view.config.map(|config| config.value)),
            Err(failed) => match self.of_any_member("config").await {
                Some(document) => Ok(Some(document)),
                None => Err(failed),
            },
        }
    }

    /// Writes the shared settings if they still have `revision`; false if somebody was faster.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn write_settings(&self, document: &Value, revision: Revision) -> anyhow::Result<bool> {
        Ok(self.store.write_config(document, Some(revision)).await?)
    }

    /// Asks for a switchover or failover through the store.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn wish(
        &self,
        leader: Option<&str>,
        candidate: Option<&str>,
        scheduled_at: Option<&str>,
    ) -> anyhow::Result<()> {
        let wish = Failover {
            leader: leader.map(str::to_owned),
            candidate: candidate.map(str::to_owned),
            scheduled_at: scheduled_at.map(str::to_owned),
        };
        self.store.write_failover(&wish, None).await?;
        Ok(())
    }

    /// Takes back what was asked for through the store, if it still has `revision`.
    ///
    /// # Errors
    /// If it was changed meanwhile, or the store does not answer.
    pub async fn clear_wish(&self, revision: Revision) -> anyhow::Result<()> {
        if self.store.clear_failover(Some(revision)).await? {
            return Ok(());
        }
        bail!("the scheduled switchover was changed meanwhile: look at matriarchctl list and try again")
    }

    /// Removes everything the store knows of the cluster.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn remove(&self) -> anyhow::Result<()> {
        self.store.remove_cluster().await?;
        Ok(())
    }
}
