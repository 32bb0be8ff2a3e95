//! A simulated store: Patroni's records at one revision, sessions that run out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use config::{ClusterConfig, NodeName};
use dcs::{
    Claim, ClusterView, Epoch, Failover, HistoryRow, Initialize, Leader, Member, Moment, Revision, Stand,
    Status, SyncState, SystemId, Timeline, Versioned,
};

/// What a backup of a store holds.
#[derive(Debug)]
struct Saved {
    leader: Option<Leader>,
    initialize: Initialize,
    claim: Option<NodeName>,
    settings: Arc<ClusterConfig>,
    config: Option<Revision>,
    members: BTreeMap<NodeName, (Member, i64)>,
    status: Status,
    failover: Option<Versioned<Failover>>,
    sync: Option<Versioned<SyncState>>,
    history: Option<Vec<HistoryRow>>,
    failsafe: Option<BTreeMap<NodeName, String>>,
    failsafe_at: Revision,
    reign: Option<Epoch>,
    claimed: (Revision, Timeline),
    sessions: Vec<i64>,
}

/// The records and the sessions under which some of them live.
#[derive(Debug)]
pub struct Store {
    /// It answers at all.
    pub up: bool,
    /// When it comes back by itself.
    pub back: Option<Moment>,
    /// No space is left: nothing can be put, no session opened.
    pub full: bool,
    /// By how many thousandths its clock runs too fast.
    pub fast: i64,
    /// By how many milliseconds it may be late with anything.
    pub slow: u64,
    /// How long changes take until watches tell of them, beyond the usual.
    pub watch_delay: Duration,
    pub revision: i64,
    pub leader: Option<Leader>,
    /// What stands in the leader key while the cluster moves.
    pub passage: Option<Stand>,
    pub initialize: Initialize,
    /// Who claimed `initialize`.
    pub claim: Option<NodeName>,
    /// Every identity that was ever written into `initialize` since the store was last empty.
    pub identities: Vec<SystemId>,
    pub settings: Arc<ClusterConfig>,
    pub config: Option<Revision>,
    pub members: BTreeMap<NodeName, (Member, i64)>,
    pub status: Status,
    pub failover: Option<Versioned<Failover>>,
    pub sync: Option<Versioned<SyncState>>,
    pub history: Option<Vec<HistoryRow>>,
    pub failsafe: Option<BTreeMap<NodeName, String>>,
    /// When that record was last written.
    pub failsafe_at: Revision,
    /// The last reign.
    pub reign: Option<Epoch>,
    /// The last timeline that was claimed, and when.
    pub claimed: (Revision, Timeline),
    /// Session → when it runs out.
    pub sessions: BTreeMap<i64, Moment>,
    /// Session → its time to live.
    ttls: BTreeMap<i64, Duration>,
    next_session: i64,
    snapshot: Option<Arc<ClusterView>>,
    saved: Option<Box<Saved>>,
}

impl Store {
    pub fn new() -> Self {
        Self {
            up: true,
            back: None,
            full: false,
            fast: 0,
            slow: 0,
            watch_delay: Duration::ZERO,
            revision: 1,
            leader: None,
            passage: None,
            initialize: Initialize::Absent,
            claim: None,
            identities: Vec::new(),
            settings: Arc::new(ClusterConfig::default()),
            config: None,
            members: BTreeMap::new(),
            status: Status::default(),
            failover: None,
            sync: None,
            history: None,
            failsafe: None,
            failsafe_at: Revision(0),
            reign: None,
            claimed: (Revision(0), Timeline(0)),
            sessions: BTreeMap::new(),
            ttls: BTreeMap::new(),
            next_session: 1,
            snapshot: None,
            saved: None,
        }
    }

    /// A write happened.
    pub fn commit(&mut self) -> Revision {
        self.revision += 1;
        self.snapshot = None;
        Revision(self.revision)
    }

    pub fn view(&mut self) -> Arc<ClusterView> {
        if let Some(view) = &self.snapshot {
            return view.clone();
        }
        let view = Arc::new(ClusterView {
            revision: Revision(self.revision),
            initialize: self.initialize,
            founder: self.claim.clone(),
            config: self.config.map(|revision| Versioned { value: serde_json::json!({}), revision }),
            leader: self.leader.clone(),
            members: self.members.iter().map(|(name, (member, _))| (name.clone(), member.clone())).collect(),
            status: self.status.clone(),
            failover: self.failover.clone(),
            sync: self.sync.clone(),
            history: self.history.clone(),
            failsafe: self.failsafe.clone(),
            failsafe_at: self.failsafe_at,
            passage: self.passage.clone(),
            generation: 1,
            reign: self.reign,
            claim: self.claimed.1,
            claimed: self.claimed.0,
        });
        self.snapshot = Some(view.clone());
        view
    }

    pub fn open(&mut self, until: Moment, ttl: Duration) -> i64 {
        self.next_session += 1;
        self.renew(self.next_session, until, ttl);
        self.next_session
    }

    /// A session of `ttl` lives until then.
    pub fn renew(&mut self, session: i64, until: Moment, ttl: Duration) {
        self.sessions.insert(session, until);
        self.ttls.insert(session, ttl);
    }

    /// The longest time that a session may live on by its last renewal.
    pub fn longest(&self) -> Duration {
        self.ttls.values().copied().fold(self.settings.ttl, Duration::max)
    }

    /// The time to live of a session.
    pub fn ttl_of(&self, session: i64) -> Duration {
        self.ttls.get(&session).copied().unwrap_or(self.settings.ttl)
    }

    /// Takes the leader key if nobody has it, if the last claim is the one that is known.
    pub fn acquire(&mut self, name: &NodeName, session: i64, claim: Claim) -> Option<(Epoch, Revision)> {
        if claim.after != self.claimed.0
            || self.leader.is_some()
            || matches!(self.passage, Some(Stand::Left(_)))
        {
            return None;
        }
        let revision = self.commit();
        self.passage = None;
        let epoch = Epoch(revision.0);
        self.reign = Some(epoch);
        self.claimed = (revision, claim.timeline);
        self.leader = Some(Leader { name: name.clone(), epoch, revision, lease: session });
        Some((epoch, revision))
    }

    /// Claims another timeline, if the last claim is the one that is known.
    pub fn reclaim(&mut self, claim: Claim) -> bool {
        let current = claim.after == self.claimed.0;
        if current {
            self.claimed = (self.commit(), claim.timeline);
        }
        current
    }

    /// Puts the leader key, which names the node already, under a session.
    pub fn adopt(&mut self, name: &NodeName, session: i64, at: Revision) -> Option<(Epoch, Revision)> {
        let leader = self.leader.clone().filter(|leader| leader.name == *name && leader.revision == at)?;
        let revision = self.commit();
        let epoch = leader.epoch;
        self.leader = Some(Leader { name: name.clone(), epoch, revision, lease: session });
        Some((epoch, revision))
    }

    /// Takes a backup of its records.
    pub fn save(&mut self) {
        self.saved = Some(Box::new(Saved {
            leader: self.leader.clone(),
            initialize: self.initialize,
            claim: self.claim.clone(),
            settings: self.settings.clone(),
            config: self.config,
            members: self.members.clone(),
            status: self.status.clone(),
            failover: self.failover.clone(),
            sync: self.sync.clone(),
            history: self.history.clone(),
            failsafe: self.failsafe.clone(),
            failsafe_at: self.failsafe_at,
            reign: self.reign,
            claimed: self.claimed,
            sessions: self.sessions.keys().copied().collect(),
        }));
    }

    /// Puts the backup back: old records, to which a later revision is added, as etcd can be told to do (without, every
    /// daemon refuses what the store says until it is started again). Its sessions live again for a while. Whether there was one.
    pub fn restore(&mut self, until: Moment) -> bool {
        let Some(saved) = self.saved.take() else { return false };
        (self.leader, self.members, self.status) = (saved.leader, saved.members, saved.status);
        (self.initialize, self.claim) = (saved.initialize, saved.claim);
        (self.settings, self.config) = (saved.settings, saved.config);
        (self.failover, self.sync, self.history) = (saved.failover, saved.sync, saved.history);
        (self.failsafe, self.failsafe_at) = (saved.failsafe, saved.failsafe_at);
        (self.reign, self.claimed) = (saved.reign, saved.claimed);
        self.sessions = saved.sessions.into_iter().map(|session| (session, until)).collect();
        self.commit();
        true
    }

    /// Ends what has run out; tells of it.
    pub fn expire(&mut self, now: Moment) -> Vec<String> {
        let over: Vec<i64> = self.sessions.iter().filter(|(_, at)| **at <= now).map(|(id, _)| *id).collect();
        let mut told = Vec::new();
        for session in over {
            self.sessions.remove(&session);
            self.ttls.remove(&session);
            if let Some(leader) = self.leader.take_if(|leader| leader.lease == session) {
                told.push(format!("the lease of {} has run out", leader.name));
            }
            self.members.retain(|_, (_, lease)| *lease != session);
            self.commit();
        }
        told
    }
}
