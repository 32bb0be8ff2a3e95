//! Which commits wait for whom, and who may lead for it: the next single change of the two records that say so.
//!
//! Owns the rule by which `/sync` and `synchronous_standby_names` follow each other (patroni-compat 5.8.1, by an
//! argument of its own). Pure; it knows no clock, no store and no Postgres.
//!
//! # Why no acknowledged commit is lost
//!
//! Postgres, waiting for `n` of the standbys `S`, acknowledges a commit when the leader and `n` of `S` have it on disk.
//! The record `(q, V)` lets a member of `V` lead that has heard from `q` others of `V` and the leader, and is behind none of
//! them; the leader itself needs nobody, since it has every commit. Logs are prefixes of each other, so the candidate is
//! complete if among those `q + 1` is one that has the last acknowledged commit. Of `V` at least
//! `g = max(0, n − |S \ V|)` have it, so it is enough that
//!
//! ```text
//! q + g ≥ |V|        (covers; nobody in V: nobody but the leader may lead, which is always safe)
//! ```
//!
//! It must hold for every list that some process of Postgres may still work by. So:
//!
//! 1. **Names change** only to a list that the record in the store covers. The old one is covered too, so whatever mixture of
//!    both is in force meanwhile is covered.
//! 2. **The record changes** to `(q′, V′)` only if at least `h` of `V′` certainly have each acknowledged commit and
//!    `q′ + h ≥ |V′|`. Commits of before the present list was surely in force are on `|V| − q` of `V` (else `V` were
//!    not covered), thus on `|V| − q − |V \ V′|` of `V′`, and on every member that is *confirmed*: it has flushed past a position that
//!    the leader reached after the list was surely in force. Commits since then are on `g` of `V′`. So
//!    `h = min(g, max(|V| − q − |V \ V′|, confirmed in V′))`; where `q` is 0, all of `V` have everything and the
//!    confirmed ones add to them. Before the list is surely in force only the first of these bounds counts.
//!
//! Each change is one write, and what it leaves is safe, so a crash between any two is. `tests.rs` walks through every
//! interleaving for up to five names.

use alloc::collections::BTreeSet;

/// What Postgres waits for before it acknowledges a commit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wait<N: Ord> {
    /// For nobody.
    Nobody,
    /// For any `count` of these; never none of none.
    For {
        /// The standbys.
        names: BTreeSet<N>,
        /// How many of them.
        count: usize,
    },
    /// For a standby that cannot exist: no commit returns.
    Forever,
    /// For something that is not of the resolver's making, and promises nothing.
    Foreign,
}

impl<N: Ord + Clone> Wait<N> {
    /// For `count` of `names`, or for nobody.
    #[must_use]
    pub fn of(names: BTreeSet<N>, count: usize) -> Self {
        let count = count.min(names.len());
        if count == 0 { Self::Nobody } else { Self::For { names, count } }
    }

    /// How many of `voters` have a commit at least that was acknowledged under this list.
    #[must_use]
    pub fn holders(&self, voters: &BTreeSet<N>) -> usize {
        match self {
            Self::Nobody | Self::Foreign => 0,
            Self::For { names, count } => count.saturating_sub(names.difference(voters).count()),
            // Nothing is ever acknowledged under it.
            Self::Forever => voters.len(),
        }
    }

    fn names(&self) -> BTreeSet<N> {
        match self {
            Self::For { names, .. } => names.clone(),
            _ => BTreeSet::new(),
        }
    }
}

/// The record in the store: who besides the leader may lead after it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Voters<N: Ord> {
    /// With how many others, the leader included, each of them must have compared itself.
    pub quorum: usize,
    /// Who.
    pub names: BTreeSet<N>,
}

impl<N: Ord + Clone> Voters<N> {
    /// Nobody but the leader.
    #[must_use]
    pub fn nobody() -> Self {
        Self { quorum: 0, names: BTreeSet::new() }
    }

    /// Whether whoever may lead by this record has every commit acknowledged under `wait`.
    #[must_use]
    pub fn covers(&self, wait: &Wait<N>) -> bool {
        self.names.is_empty() || self.quorum + wait.holders(&self.names) >= self.names.len()
    }

    /// How many of `among` have every commit that this record has ever covered.
    fn certain(&self, among: &BTreeSet<N>) -> usize {
        let left = self.names.difference(among).count();
        self.names.len().saturating_sub(self.quorum).saturating_sub(left)
    }
}

/// How things stand on a leader.
#[derive(Debug, Clone)]
pub struct Situation<N: Ord> {
    /// The record as it certainly stands in the store, under this leader's name.
    pub voters: Voters<N>,
    /// The list in the server's settings.
    pub wait: Wait<N>,
    /// Every process of the server works by that list.
    pub settled: bool,
    /// Who has all that was written before that was so.
    pub confirmed: BTreeSet<N>,
    /// Who shall acknowledge commits: the chosen ones, or in quorum mode everybody able.
    pub wanted: BTreeSet<N>,
    /// How many of them shall have to.
    pub count: usize,
    /// Whom an operator, or too great a lag, keeps from it.
    pub barred: BTreeSet<N>,
    /// Any `count` are enough (`synchronous_mode: quorum`).
    pub any: bool,
    /// Commits wait even for nobody (`synchronous_mode_strict`).
    pub strict: bool,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change<N: Ord> {
    /// Of the record in the store.
    Record(Voters<N>),
    /// Of the list in the server's settings.
    Names(Wait<N>),
}

/// The next change, if one is due now.
#[must_use]
pub fn next<N: Ord + Clone>(now: &Situation<N>) -> Option<Change<N>> {
    let target = target(now);
    if !now.voters.covers(&now.wait) {
        // Somebody else has changed the list (F132): from here on only the leader is certain.
        return Some(Change::Record(Voters::nobody()));
    }
    if now.wait == target {
        return grow(now).map(Change::Record);
    }
    if now.voters.covers(&target) {
        return Some(Change::Names(target));
    }
    Some(Change::Record(widened(now, &target).unwrap_or_else(|| narrowed(now, &target))))
}

/// The list that Postgres shall end with.
fn target<N: Ord + Clone>(now: &Situation<N>) -> Wait<N> {
    if !now.wanted.is_empty() {
        let count = if now.any { now.count } else { now.wanted.len() };
        return Wait::of(now.wanted.clone(), count.max(1));
    }
    match &now.wait {
        _ if !now.strict => Wait::Nobody,
        // Nobody is there. Those who acknowledged last have everything, and remain the ones who may lead.
        Wait::For { names, .. } if names.is_disjoint(&now.barred) => now.wait.clone(),
        _ => Wait::Forever,
    }
}

/// A record of all old and all wanted names, if with it the list can become the wanted one and somebody may lead.
fn widened<N: Ord + Clone>(now: &Situation<N>, target: &Wait<N>) -> Option<Voters<N>> {
    if !now.any || now.voters.names.is_empty() {
        return None;
    }
    let names: BTreeSet<N> = now.voters.names.union(&now.wanted).cloned().collect();
    let holders = certain(now, &names).min(target.holders(&names));
    let voters = Voters { quorum: names.len().saturating_sub(holders), names };
    (holders > 0 && voters != now.voters).then_some(voters)
}

/// A record of those alone who stay, with which the list can become the wanted one. To let fewer lead is always safe.
fn narrowed<N: Ord + Clone>(now: &Situation<N>, target: &Wait<N>) -> Voters<N> {
    let stay = target.names();
    let names: BTreeSet<N> = now.voters.names.intersection(&stay).cloned().collect();
    let quorum = now.voters.quorum.max(names.len().saturating_sub(target.holders(&names)));
    if quorum < names.len() { Voters { quorum, names } } else { Voters::nobody() }
}

/// How many of `names` certainly have every acknowledged commit, those to come included.
fn certain<N: Ord + Clone>(now: &Situation<N>, names: &BTreeSet<N>) -> usize {
    let old = now.voters.certain(names);
    if !now.settled {
        return old;
    }
    now.wait.holders(names).min(old.max(now.confirmed.intersection(names).count()))
}

/// The list is as it shall be: the record follows, as far as is certain.
fn grow<N: Ord + Clone>(now: &Situation<N>) -> Option<Voters<N>> {
    if now.wanted.is_empty() || !now.settled {
        return None;
    }
    let voters = if now.any {
        let holders = certain(now, &now.wanted);
        Voters { quorum: now.wanted.len().saturating_sub(holders), names: now.wanted.clone() }
    } else {
        let trusted = if now.voters.quorum == 0 { now.voters.names.clone() } else { BTreeSet::new() };
        let holds = |name: &&N| now.confirmed.contains(*name) || trusted.contains(*name);
        Voters { quorum: 0, names: now.wanted.iter().filter(holds).cloned().collect() }
    };
    // A record by which nobody could ever lead waits until somebody can.
    let usable = !voters.names.is_empty() && voters.quorum < voters.names.len();
    (usable && voters != now.voters).then_some(voters)
}
