//! Who is a member: the leader lets in who may come, as a learner, makes it a voter when it has caught up, and
//! removes members on request. One change at a time, and never so that the members that are there are no quorum.

use std::time::Duration;

use raft::eraftpb::{ConfChangeSingle, ConfChangeType, ConfChangeV2};

use super::command::{Command, Id, What};
use super::drive::{Drive, DriveError, Turned};
use crate::Moment;

/// How many entries a learner may be behind and still become a voter.
const BEHIND: u64 = 16;
/// How long a request to remove a member is remembered.
const FORGET: Duration = Duration::from_secs(60);

/// What a member that was removed is told, and says.
pub(super) const REMOVED: &str = "this member was removed from the embedded store; to let it come back, stop it, move its data_dir \
                                  away, run matriarchctl store add with its address, and start it";

impl Drive {
    /// Whether this member knows that it is none any more.
    pub fn is_removed(&self) -> bool {
        self.machine.removed.contains(&self.wire.member)
    }

    /// What the leader does about the members at every tick.
    pub fn tend(&mut self, now: Moment) -> Result<(), DriveError> {
        if self.raw.raft.has_pending_conf() {
            return Ok(());
        }
        let what = self.promotion(now).or_else(|| self.admission());
        if let Some(what) = what {
            // While the same is wanted it is the same command, so that its waiting is not begun anew.
            let command = match self.wanted.take() {
                Some(command) if command.what == what => command,
                _ => self.command(what),
            };
            self.wanted = Some(command.clone());
            if let Some(Turned(Some(why))) = self.propose(&command)? {
                tracing::warn!("the embedded store's members stay as they are: {why}");
            }
        }
        Ok(())
    }

    /// A learner that has caught up becomes a voter; who had its address before, and so has lost its disk, leaves first:
    /// the two never vote at the same time.
    fn promotion(&self, now: Moment) -> Option<What> {
        let committed = self.raw.raft.raft_log.committed;
        let is_level = |id: &u64| {
            let progress = self.raw.raft.prs().get(*id);
            self.is_heard(*id, now) && progress.is_some_and(|progress| progress.matched + BEHIND >= committed)
        };
        let learner = *self.conf.learners.iter().find(|id| is_level(id))?;
        let address = self.machine.members.get(&learner)?;
        let former = self.machine.members.iter().find(|(id, other)| **id != learner && *other == address);
        Some(match former {
            Some((former, _)) => What::Expel { member: former.to_string(), force: false },
            None => What::Promote { member: learner },
        })
    }

    fn admission(&mut self) -> Option<What> {
        let (member, address) = self.joins.pop_first()?;
        let is_member = self.machine.members.contains_key(&member);
        let may = self.machine.admitted.contains(&address)
            || self.machine.members.values().any(|known| *known == address);
        // The former member of this address may be there still: then the one who asks is not what it says.
        let former = self.machine.members.iter().find(|(_, known)| **known == address);
        let alive = former.is_some_and(|(id, _)| self.is_heard(*id, Moment::now()));
        if is_member || !may || alive || self.machine.removed.contains(&member) {
            return None;
        }
        tracing::info!("a member at {address} joins the embedded store");
        Some(What::Learn { member, address })
    }

    /// Proposes a change of membership.
    pub fn propose_change(&mut self, command: &Command) -> Result<Option<Turned>, DriveError> {
        let (kind, member) = match &command.what {
            What::Learn { member, .. } => (ConfChangeType::AddLearnerNode, *member),
            What::Promote { member } => (ConfChangeType::AddNode, *member),
            What::Expel { member, force } => {
                let Some(id) = self.machine.member(member) else {
                    return Ok(Some(Turned(Some(format!(
                        "no member of the embedded store is called {member}"
                    )))));
                };
                if let Some(turned) = self.keep(command.id, id, *force) {
                    return Ok(Some(turned));
                }
                (ConfChangeType::RemoveNode, id)
            }
            _ => return Ok(Some(Turned(None))),
        };
        if !self.serves() || self.raw.raft.has_pending_conf() {
            return Ok(Some(Turned(None)));
        }
        let mut single = ConfChangeSingle::default();
        single.set_change_type(kind);
        single.node_id = member;
        let mut change = ConfChangeV2::default();
        change.mut_changes().push(single);
        let context = serde_json::to_vec(command).unwrap_or_default();
        match self.raw.propose_conf_change(context, change) {
            Ok(()) => Ok(None),
            Err(raft::Error::ProposalDropped) => Ok(Some(Turned(None))),
            Err(error) => Err(error.into()),
        }
    }

    /// Why a member must stay, for now or at all.
    fn keep(&mut self, asked: Id, leaving: u64, force: bool) -> Option<Turned> {
        let now = Moment::now();
        if !self.conf.voters.contains(&leaving) {
            return None;
        }
        // Whoever was heard before somebody asked may have died since: all are waited for anew.
        self.leaving.retain(|_, since| now.since(*since) < FORGET);
        let since = *self.leaving.entry(asked).or_insert(now);
        if now.since(since) < self.election() && !force {
            return Some(Turned(None));
        }
        let rest: Vec<u64> = self.conf.voters.iter().copied().filter(|id| *id != leaving).collect();
        if rest.is_empty() {
            return Some(Turned(Some("it is the last voter of the embedded store".to_owned())));
        }
        let there: Vec<u64> = rest.iter().copied().filter(|id| self.is_heard_since(*id, since)).collect();
        let needed = rest.len() / 2 + 1;
        if there.len() < needed && !force {
            return Some(Turned(Some(format!(
                "without it the embedded store would have {} voters, of which {needed} are needed and only {} can be reached; start the \
                 others first, or force it",
                rest.len(),
                there.len()
            ))));
        }
        if leaving != self.wire.member {
            return None;
        }
        // The leader does not remove itself: whoever leads next will.
        self.leave_the_lead(there);
        Some(Turned(None))
    }

    /// Lets another voter that is heard lead the store, if this member does: one that ends would leave it without a leader
    /// for an election timeout.
    pub fn abdicate(&mut self) {
        if !self.leads() {
            return;
        }
        let now = Moment::now();
        let others = self.conf.voters.iter().copied().filter(|id| *id != self.wire.member);
        let there = others.filter(|id| self.is_heard(*id, now)).collect();
        self.leave_the_lead(there);
    }

    /// The most advanced of these is to lead.
    fn leave_the_lead(&mut self, there: Vec<u64>) {
        let matched = |id: &u64| self.raw.raft.prs().get(*id).map_or(0, |progress| progress.matched);
        if let Some(heir) = there.into_iter().max_by_key(matched) {
            self.raw.transfer_leader(heir);
        }
    }
}
