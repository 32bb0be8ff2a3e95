//! The cluster's moves between stores, as this node makes them or follows them. On the leader it obeys an operator,
//! step by step; on every node it goes after a cluster that has left the store in use.
//!
//! It never opens a store by itself: that is for the leader within its own authority, or for an election once that
//! authority has certainly ended.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use api::command::{Asked, Command, MoveRequest, MoveStep, Reply};
use api::status::{NodeStatus, Role};
use config::NodeName;
use coordinator::Arrival;
use dcs::{Abode, ClusterView, Dcs, Moment, Passage, Seen, Stand, StoreError};
use serde_json::json;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinSet;

use crate::complaints::Complaints;
use crate::lease::{Arrived, Journey, Keeper};
use crate::way::Way;
use crate::ways::Ways;

/// How long a store may take for one answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a new store may take to answer for the first time: a member of the embedded store looks for the others.
const FOUNDING: Duration = Duration::from_secs(20);
/// The pause between two looks while something is under way.
const PAUSE: Duration = Duration::from_millis(250);
/// How often the records are copied again because they changed before the old store was closed.
const COPIES: u32 = 10;

/// Moves and follows. Clones are the same.
#[derive(Clone)]
pub struct Mover(Arc<Inner>);

/// What a mover works with: what the node uses already.
pub struct Parts {
    /// This node.
    pub me: NodeName,
    /// The stores.
    pub ways: Ways,
    /// The cluster's records, for everybody but the lease thread.
    pub dcs: Dcs,
    /// What the store's watch tells.
    pub seen: watch::Receiver<Seen>,
    /// What this node knows of itself.
    pub status: watch::Receiver<Arc<NodeStatus>>,
    /// The lease thread.
    pub keeper: Keeper,
}

struct Inner {
    parts: Parts,
    /// The move that was announced, until it is made or taken back. Locked while one is made.
    announced: Mutex<Option<Passage>>,
    /// When each move's old store was first seen closed.
    closed: Mutex<BTreeMap<String, Moment>>,
}

impl Mover {
    /// Puts a mover together; nothing runs yet.
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(Inner { parts, announced: Mutex::default(), closed: Mutex::default() }))
    }

    /// Obeys and follows until nobody can ask any more.
    pub async fn run(self, mut inbox: mpsc::Receiver<Asked>) {
        let obeying = async {
            let mut open = JoinSet::new();
            while let Some(asked) = inbox.recv().await {
                let Command::Move(request) = asked.command else { continue };
                while open.try_join_next().is_some() {}
                let mover = self.clone();
                open.spawn(async move {
                    // Who asked may have hung up; what was asked for is done all the same.
                    let _ = asked.answer.send(mover.obey(request).await);
                });
            }
            while open.join_next().await.is_some() {}
        };
        tokio::select! {
            () = obeying => {}
            () = self.follow() => {}
        }
    }

    fn parts(&self) -> &Parts {
        &self.0.parts
    }

    async fn obey(&self, request: MoveRequest) -> Reply {
        let to = request.to.as_str();
        let done = match request.step {
            MoveStep::Prepare => self.prepare(to),
            MoveStep::Check => self.check(to).await,
            MoveStep::Confirm(seal) => self.confirm(to, &seal).await,
            MoveStep::Announce => self.announce(to).await,
            MoveStep::Withdraw(seal) => self.withdraw(to, &seal).await,
            MoveStep::Go(seal) => match self.go(to, &seal).await {
                Ok(done) => Ok(done),
                Err(error) => return Reply::text(503, format!("{error:#}")),
            },
        };
        done.map_or_else(|error| Reply::text(412, format!("{error:#}")), |said| Reply::json(200, said))
    }

    /// Opens the way to the new store, and notes in which one the cluster lives until then.
    fn prepare(&self, to: &str) -> anyhow::Result<serde_json::Value> {
        let Parts { ways, seen, .. } = self.parts();
        ways.reach(to)?;
        if let Some(view) = &seen.borrow().view
            && let Abode::Here(generation) = view.abode()
        {
            ways.remember(generation);
        }
        Ok(json!({"prepared": to}))
    }

    /// Whether the new store answers and is free.
    async fn check(&self, to: &str) -> anyhow::Result<serde_json::Value> {
        let (_, view) = self.look(&self.parts().ways.reach(to)?, FOUNDING).await?;
        if let Abode::Here(_) = view.abode() {
            let id = view.initialize.system_id().map_or_else(|| "none".to_owned(), |id| id.to_string());
            bail!(
                "a cluster of this name lives in the store of the section {to} already (system identifier {id}): if it is \
                 not wanted any more, take its records away with matriarchctl remove, with a file that names only that store"
            );
        }
        Ok(json!({"reached": to}))
    }

    async fn confirm(&self, to: &str, seal: &str) -> anyhow::Result<serde_json::Value> {
        let (_, view) = self.look(&self.parts().ways.reach(to)?, PATIENCE).await?;
        match view.abode() {
            Abode::Moving(Stand::Arriving(passage)) if passage.seal == seal => Ok(json!({"confirmed": seal})),
            _ => bail!(
                "the store of the section {to}, as this node's configuration describes it, is not the one that the leader \
                 has written to: compare the sections"
            ),
        }
    }

    async fn announce(&self, to: &str) -> anyhow::Result<serde_json::Value> {
        let mut announced = self.0.announced.lock().await;
        self.leads()?;
        let way = self.parts().ways.reach(to)?;
        let (there, _) = self.look(&way, PATIENCE).await?;
        let estate = self.parts().dcs.estate().await?;
        let draft =
            Passage::draft(self.parts().ways.present().section(), to, self.parts().me.clone(), self.ttl()?)?;
        let passage = there.announce(&estate, draft).await.context("the new store was not prepared")?;
        tracing::info!(
            "the cluster's records are copied to the store of the section {to}, which waits for the cluster"
        );
        let said = json!({"seal": passage.seal, "generation": passage.generation});
        *announced = Some(passage);
        Ok(said)
    }

    async fn withdraw(&self, to: &str, seal: &str) -> anyhow::Result<serde_json::Value> {
        let mut announced = self.0.announced.lock().await;
        let passage =
            announced.take_if(|passage| passage.seal == seal).context("there is no such announcement")?;
        let (there, _) = self.look(&self.parts().ways.reach(to)?, PATIENCE).await?;
        let done = there.withdraw(&passage).await.context("the announcement could not be taken back")?;
        Ok(json!({"withdrawn": done}))
    }

    /// Closes the old store and leads in the new one.
    async fn go(&self, to: &str, seal: &str) -> anyhow::Result<serde_json::Value> {
        let mut announced = self.0.announced.lock().await;
        let passage = announced.clone().filter(|passage| passage.seal == seal && passage.to == to);
        let passage = passage.context("this leader has announced no such move: nothing was changed")?;
        self.leads()?;
        let way = self.parts().ways.reach(to)?;
        let (there, _) = self.look(&way, PATIENCE).await?;
        for _ in 0..COPIES {
            let estate = self.parts().dcs.estate().await?;
            let ttl = u64::try_from(self.ttl()?.as_millis())?;
            let draft = Passage { ttl, ..passage.clone() };
            let passage = there.announce(&estate, draft).await.context("the new store was not prepared")?;
            let generation = passage.generation;
            let journey =
                Journey { way: way.clone(), there: self.connect(&way, PATIENCE).await?, estate, passage };
            match self.parts().keeper.depart(journey).await.map_err(unsure)? {
                Arrived::Led => {
                    self.parts().dcs.relocate(&there);
                    self.parts().ways.exchange();
                    self.parts().ways.remember(generation);
                    *announced = None;
                    return Ok(json!({"leader": self.parts().me.as_str(), "store": to}));
                }
                Arrived::Changed => {}
                Arrived::NotLeading => bail!("this node does not lead any more: nothing was changed"),
                Arrived::Between => {
                    *announced = None;
                    bail!(
                        "the old store is closed, but the new one did not take this leader in time: as soon as it \
                         answers, the members elect a leader there; matriarchctl list shows it"
                    );
                }
            }
        }
        bail!("the cluster's records kept changing while they were copied: nothing was changed; try again")
    }

    /// Only a primary that leads, and that nobody has paused, may take the lead along.
    fn leads(&self) -> anyhow::Result<()> {
        let status = self.parts().status.borrow().clone();
        if status.pause {
            bail!("the cluster is paused: run matriarchctl resume first");
        }
        if self.parts().keeper.tenure.borrow().leading().is_none() || status.role != Role::Primary {
            bail!("this node does not lead: look at matriarchctl list, and try again");
        }
        Ok(())
    }

    /// Within which time the lease's authority ends.
    fn ttl(&self) -> anyhow::Result<Duration> {
        let session = self.parts().keeper.tenure.borrow().session.clone();
        Ok(session.context("there is no session in the store")?.ttl())
    }

    async fn connect(&self, way: &Way, patience: Duration) -> anyhow::Result<Dcs> {
        Ok(way.connect(self.parts().dcs.keys().clone(), patience).await?)
    }

    async fn look(&self, way: &Way, patience: Duration) -> anyhow::Result<(Dcs, ClusterView)> {
        let unread = || format!("the store of the section {} cannot be read", way.section());
        let dcs = self.connect(way, patience).await.with_context(unread)?;
        let view = dcs.load().await.with_context(unread)?;
        dcs.set_patience(PATIENCE);
        Ok((dcs, view))
    }

    /// Goes after the cluster for as long as it is run.
    async fn follow(&self) {
        let mut seen = self.parts().seen.clone();
        let mut said = Complaints::default();
        loop {
            let Seen { view, reachable, .. } = seen.borrow_and_update().clone();
            let stand = view.as_ref().and_then(|view| view.passage.clone());
            let calm = stand.is_none() && (reachable || self.parts().ways.other().is_none());
            if calm {
                if seen.changed().await.is_err() {
                    return;
                }
                continue;
            }
            let generation = view.map_or(0, |view| view.generation.max(1));
            if let Err(error) = self.go_after(stand, generation).await {
                let error = format!("{error:#}");
                if said.news("move", &error, Moment::now()) {
                    tracing::warn!("the cluster is not followed to another store: {error}");
                }
            }
            // What is awaited happens in another store, where nobody tells.
            let _ = tokio::time::timeout(PAUSE, seen.changed()).await;
        }
    }

    async fn go_after(&self, stand: Option<Stand>, generation: u64) -> anyhow::Result<()> {
        // While this node makes the move itself, nobody else may exchange the stores.
        let Ok(_mine) = self.0.announced.try_lock() else { return Ok(()) };
        match stand {
            Some(Stand::Left(passage)) => self.enter(&passage).await,
            Some(Stand::Arriving(passage)) => self.wait_for(&passage).await,
            None => self.scout(generation).await,
        }
    }

    /// The store in use is closed: the cluster is awaited in the other one, or leads there already.
    async fn enter(&self, passage: &Passage) -> anyhow::Result<()> {
        let arrival = self.arrival(passage).await;
        let way = self.parts().ways.reach(&passage.to)?;
        let (there, view) = self.look(&way, PATIENCE).await?;
        match view.abode() {
            Abode::Here(generation) if generation >= passage.generation => {
                self.exchange(way, &there, generation, None).await
            }
            Abode::Moving(Stand::Arriving(found)) if found == *passage => {
                self.exchange(way, &there, passage.generation, Some(arrival)).await
            }
            // It has gone on from there.
            Abode::Moving(stand) if stand.passage().generation > passage.generation => {
                self.exchange(way, &there, passage.generation, None).await
            }
            _ => bail!(
                "the cluster has moved to the store of the section {}, and the store that this node's configuration names \
                 there knows nothing of it: correct the section",
                passage.to
            ),
        }
    }

    /// The store in use waits for the cluster: whether the old one is closed only that one tells.
    async fn wait_for(&self, passage: &Passage) -> anyhow::Result<()> {
        if self.parts().keeper.tenure.borrow().arrival.as_ref().is_some_and(|known| known.passage == *passage)
        {
            return Ok(());
        }
        let (_, view) = self.look(&self.parts().ways.reach(&passage.from)?, PATIENCE).await?;
        match view.abode() {
            Abode::Moving(Stand::Left(found)) if found == *passage => {
                let arrival = self.arrival(passage).await;
                self.parts().keeper.may_arrive(arrival).await;
                Ok(())
            }
            _ => bail!("the store of the section {} does not say that the cluster has left it", passage.from),
        }
    }

    /// The store in use does not answer: perhaps the cluster was moved meanwhile.
    async fn scout(&self, generation: u64) -> anyhow::Result<()> {
        let Some(way) = self.parts().ways.other() else { return Ok(()) };
        let (there, view) = self.look(&way, PATIENCE).await?;
        match view.abode() {
            Abode::Here(found) if found > generation => self.exchange(way, &there, found, None).await,
            _ => Ok(()),
        }
    }

    /// When this node may open the new store: its own life before may have led, so it need not wait for itself.
    async fn arrival(&self, passage: &Passage) -> Arrival {
        let mut closed = self.0.closed.lock().await;
        let first = *closed.entry(passage.seal.clone()).or_insert_with(Moment::now);
        let from = if passage.leader == self.parts().me { first } else { first + passage.patience() };
        Arrival { passage: passage.clone(), from }
    }

    async fn exchange(
        &self,
        way: Way,
        there: &Dcs,
        generation: u64,
        arrival: Option<Arrival>,
    ) -> anyhow::Result<()> {
        tracing::info!(
            "the cluster has moved to the store of the section {}: this node follows",
            way.section()
        );
        self.parts().keeper.relocate(way).await?;
        if let Some(arrival) = arrival {
            self.parts().keeper.may_arrive(arrival).await;
        }
        self.parts().dcs.relocate(there);
        self.parts().ways.exchange();
        self.parts().ways.remember(generation);
        Ok(())
    }
}

/// Says what an error of the last steps leaves open.
fn unsure(error: anyhow::Error) -> anyhow::Error {
    let refused =
        error.downcast_ref::<StoreError>().is_some_and(|error| !matches!(error, StoreError::Unknown(_)));
    error.context(match refused {
        true => "nothing was changed",
        false => "the old store may or may not be closed; matriarchctl list shows who leads, and where",
    })
}
