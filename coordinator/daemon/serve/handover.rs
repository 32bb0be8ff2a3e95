//! Switchover and failover on request: whether one is possible (patroni-compat 2.7), the
//! request in the store, and what became of it. Every wait is woken by the store's watch.

use std::time::Duration;

use api::command::{HandoverRequest, Reply};
use api::peer::PeerAnswer;
use config::{ClusterConfig, NodeName, SynchronousMode};
use dcs::{ClusterView, Failover, Member, Revision, StoreError};
use tokio::task::JoinSet;

use super::Clerk;

/// How long a member may take to say how it is.
const PATIENCE: Duration = Duration::from_secs(2);

/// Later than any view: only a new reign decides.
const NEVER: Revision = Revision(i64::MAX);

/// What is asked for, in the words of the answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Action {
    noun: &'static str,
    title: &'static str,
    past: &'static str,
    past_title: &'static str,
}

const SWITCHOVER: Action =
    Action { noun: "switchover", title: "Switchover", past: "switched", past_title: "Switched" };
const FAILOVER: Action = Action { noun: "failover", title: "Failover", past: "failed", past_title: "Failed" };

impl Clerk {
    /// Checks, writes the request, and waits until it is decided.
    pub(super) async fn hand_over(&self, view: ClusterView, request: HandoverRequest) -> Reply {
        // A failover that names the leader is a switchover, as with Patroni.
        let action = if request.leader.is_some() { SWITCHOVER } else { FAILOVER };
        if request.scheduled_at.is_none() {
            let possible = match candidates(&view, &request, action) {
                Ok(members) => self.somebody_can(members).await.then_some(()).ok_or_else(|| {
                    format!("{} is not possible: no good candidates have been found", action.noun)
                }),
                Err(refusal) => Err(refusal),
            };
            if let Err(refusal) = possible {
                return Reply::text(412, refusal);
            }
        }
        let asked = Failover {
            leader: request.leader,
            candidate: request.candidate,
            scheduled_at: request.scheduled_at.map(|(_, text)| text),
        };
        if !self.write(&asked, &view).await {
            return Reply::text(503, "failed to write failover key into DCS");
        }
        if asked.scheduled_at.is_some() {
            return Reply::text(202, format!("{} scheduled", action.title));
        }
        self.outcome(&view, &asked, action).await
    }

    async fn write(&self, asked: &Failover, view: &ClusterView) -> bool {
        let guard = view.failover.as_ref().map(|failover| failover.revision);
        match self.dcs.write_failover(asked, guard).await {
            Ok(written) => written,
            // It may have been written: the store knows.
            Err(StoreError::Unknown(_)) => match self.dcs.load().await {
                Ok(view) => view.failover.is_some_and(|failover| failover.value == *asked),
                Err(_) => false,
            },
            Err(error) => {
                tracing::warn!("the request for a switchover could not be written: {error}");
                false
            }
        }
    }

    /// Whether at least one of these members is reachable and may lead.
    async fn somebody_can(&self, members: Vec<Member>) -> bool {
        let mut asked = JoinSet::new();
        for url in members.into_iter().filter_map(|member| member.api_url) {
            let client = self.client.clone();
            asked.spawn(async move {
                let answer = client.ask("GET", &url, None, PATIENCE).await.ok()?;
                PeerAnswer::read(&answer.json()?)
            });
        }
        while let Some(answer) = asked.join_next().await {
            if matches!(answer, Ok(Some(peer)) if peer.position.is_some() && may_lead(&peer)) {
                return true;
            }
        }
        false
    }

    async fn outcome(&self, before: &ClusterView, asked: &Failover, action: Action) -> Reply {
        let patience = patience(before);
        let unknown = || Reply::text(503, format!("{} status unknown", action.title));
        let outcome = tokio::time::timeout(patience, async {
            let mut watch = Watch::new(before, asked.candidate.as_deref(), action);
            // The watch may lag behind our own write; this read does not.
            if let Ok(view) = self.dcs.load().await {
                watch.written = view.revision;
                if let Some(reply) = watch.verdict(&view) {
                    return Some(reply);
                }
                watch.written = view.failover.map_or(NEVER, |failover| failover.revision);
            }
            let mut seen = self.seen.clone();
            let decided = |seen: &dcs::Seen| seen.view.as_ref().and_then(|view| watch.verdict(view));
            let last = seen.wait_for(|seen| decided(seen).is_some()).await.ok()?;
            decided(&last)
        });
        outcome.await.ok().flatten().unwrap_or_else(unknown)
    }
}

/// Patroni polls once a second, twice as often as the larger of 10 and `loop_wait`.
fn patience(view: &ClusterView) -> Duration {
    let loop_wait =
        view.config.as_ref().map(|config| ClusterConfig::from_document(&config.value).0.loop_wait);
    2 * loop_wait.unwrap_or_default().max(Duration::from_secs(10))
}

/// The members to ask, or why none is worth asking.
fn candidates(view: &ClusterView, request: &HandoverRequest, action: Action) -> Result<Vec<Member>, String> {
    let leader = view.leader.as_ref().map(|leader| &leader.name);
    if let Some(named) = &request.leader
        && leader.is_none_or(|leader| leader.as_str() != named)
    {
        return Err("leader name does not match".to_owned());
    }
    let synchronous = api::synchronous(view) == SynchronousMode::On;
    if let Some(candidate) = &request.candidate {
        if action == SWITCHOVER && synchronous && !in_sync(view, candidate) {
            return Err("candidate name does not match with sync_standby".to_owned());
        }
        let member = view.members.iter().find(|(name, _)| name.as_str() == candidate);
        return member.map(|(_, member)| vec![member.clone()]).ok_or("candidate does not exists".to_owned());
    }
    let chosen = |wanted: &dyn Fn(&NodeName) -> bool| -> Vec<Member> {
        view.members.iter().filter(|(name, _)| wanted(name)).map(|(_, member)| member.clone()).collect()
    };
    let (members, complaint) = if synchronous {
        (chosen(&|name| in_sync(view, name.as_str())), "can not find sync_standby")
    } else {
        (chosen(&|name| Some(name) != leader), "cluster does not have members except leader")
    };
    if members.is_empty() {
        return Err(format!("{} is not possible: {complaint}", action.noun));
    }
    Ok(members)
}

fn in_sync(view: &ClusterView, name: &str) -> bool {
    view.sync.as_ref().is_some_and(|sync| {
        sync.value.leader.is_some()
            && sync.value.standbys.iter().any(|standby| standby.eq_ignore_ascii_case(name))
    })
}

/// A member that answers may lead unless its tags or its watchdog forbid it.
fn may_lead(peer: &PeerAnswer) -> bool {
    !coordinator::forbids_leading(&peer.tags) && !peer.watchdog_failed
}

/// Tells from a view what became of a request.
struct Watch<'a> {
    /// Who led when it was made.
    before: Option<&'a NodeName>,
    /// A reign that began after this revision is a new one.
    since: i64,
    candidate: Option<&'a str>,
    action: Action,
    /// The request was in the store at this revision; older views know nothing of it.
    written: Revision,
}

impl<'a> Watch<'a> {
    fn new(before: &'a ClusterView, candidate: Option<&'a str>, action: Action) -> Self {
        let since = before.leader.as_ref().map_or(before.revision.0, |leader| leader.epoch.0);
        let leader = before.leader.as_ref().map(|leader| &leader.name);
        Self { before: leader, since, candidate, action, written: NEVER }
    }

    /// Decided by the reign of another leader, or by the end of the request while the old one
    /// leads on or again. A cleared request without any leader decides nothing: somebody is about to take over.
    fn verdict(&self, view: &ClusterView) -> Option<Reply> {
        let leader = view.leader.as_ref()?;
        let is_new = leader.epoch.0 > self.since;
        let name = &leader.name;
        if is_new && self.before != Some(name) {
            let (past, title) = (self.action.past, self.action.past_title);
            return Some(match self.candidate {
                Some(candidate) if candidate != name.as_str() => {
                    Reply::text(200, format!("{title} over to \"{name}\" instead of \"{candidate}\""))
                }
                _ => Reply::text(200, format!("Successfully {past} over to \"{name}\"")),
            });
        }
        let ended = view.failover.is_none() && (is_new || view.revision >= self.written);
        ended.then(|| Reply::text(503, format!("{} failed", self.action.title)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use dcs::{Epoch, Leader, SyncState, Versioned};
    use serde_json::{Value, json};

    use super::*;

    fn name(text: &str) -> NodeName {
        NodeName::new(text).unwrap()
    }

    fn view(leader: Option<(&str, i64)>, config: Value) -> ClusterView {
        let member = Member { api_url: Some("http://127.0.0.1:1/patroni".to_owned()), ..Member::default() };
        ClusterView {
            revision: Revision(50),
            leader: leader.map(|(who, epoch)| Leader {
                name: name(who),
                epoch: Epoch(epoch),
                revision: Revision(epoch),
                lease: 1,
            }),
            members: BTreeMap::from([(name("a"), member.clone()), (name("b"), member)]),
            config: Some(Versioned { value: config, revision: Revision(1) }),
            ..ClusterView::default()
        }
    }

    fn request(leader: Option<&str>, candidate: Option<&str>) -> HandoverRequest {
        HandoverRequest {
            leader: leader.map(str::to_owned),
            candidate: candidate.map(str::to_owned),
            scheduled_at: None,
        }
    }

    fn refusal(view: &ClusterView, leader: Option<&str>, candidate: Option<&str>) -> String {
        let action = if leader.is_some() { SWITCHOVER } else { FAILOVER };
        candidates(view, &request(leader, candidate), action).unwrap_err()
    }

    /// P088, P091, P092: the checks, in Patroni's order and words.
    #[test]
    fn impossible_requests_are_refused_in_patronis_words() {
        let plain = view(Some(("a", 7)), json!({}));
        assert_eq!(refusal(&plain, Some("b"), Some("nobody")), "leader name does not match");
        assert_eq!(refusal(&plain, Some("a"), Some("nobody")), "candidate does not exists");
        assert_eq!(refusal(&plain, None, Some("nobody")), "candidate does not exists");
        assert_eq!(refusal(&view(None, json!({})), Some("a"), None), "leader name does not match");
        let mut alone = plain.clone();
        alone.members.remove(&name("b"));
        assert_eq!(
            refusal(&alone, Some("a"), None),
            "switchover is not possible: cluster does not have members except leader"
        );
        let mut sync = view(Some(("a", 7)), json!({"synchronous_mode": true}));
        let no_sync = "candidate name does not match with sync_standby";
        assert_eq!(refusal(&sync, Some("a"), Some("b")), no_sync);
        assert_eq!(refusal(&sync, Some("a"), None), "switchover is not possible: can not find sync_standby");
        assert!(candidates(&sync, &request(None, Some("b")), FAILOVER).is_ok(), "a failover may lose writes");
        let standbys = ["B".to_owned()].into();
        let state = SyncState { leader: Some("a".to_owned()), quorum: 0, standbys };
        sync.sync = Some(Versioned { value: state, revision: Revision(2) });
        assert_eq!(candidates(&sync, &request(Some("a"), Some("b")), SWITCHOVER).unwrap().len(), 1);
        assert_eq!(candidates(&sync, &request(Some("a"), None), SWITCHOVER).unwrap().len(), 1);
    }

    #[test]
    fn tags_and_watchdog_keep_a_member_from_leading() {
        let peer = |tags: Value, watchdog_failed: bool| PeerAnswer {
            tags: tags.as_object().unwrap().clone().into_iter().collect(),
            watchdog_failed,
            ..PeerAnswer::default()
        };
        assert!(may_lead(&peer(json!({"failover_priority": 1}), false)));
        assert!(!may_lead(&peer(json!({"failover_priority": 0}), false)));
        assert!(!may_lead(&peer(json!({"failover_priority": "0"}), false)));
        assert!(may_lead(&peer(json!({"nofailover": false, "failover_priority": 0}), false)));
        assert!(!may_lead(&peer(json!({"nofailover": true}), false)));
        assert!(!may_lead(&peer(json!({}), true)));
    }

    fn verdict(before: &ClusterView, after: &ClusterView, candidate: Option<&str>) -> Option<String> {
        let mut watch = Watch::new(before, candidate, SWITCHOVER);
        watch.written = Revision(60);
        watch.verdict(after).map(|reply| match reply.body {
            api::command::Body::Text(text) => format!("{} {text}", reply.code),
            api::command::Body::Json(_) => unreachable!("outcomes are text"),
        })
    }

    /// P086, P094, P113.
    #[test]
    fn the_outcome_is_told_from_reigns_and_never_from_old_views() {
        let before = view(Some(("a", 7)), json!({}));
        let at = |leader: Option<(&str, i64)>, revision: i64, pending: bool| {
            let failover = Failover { leader: None, candidate: None, scheduled_at: None };
            let failover = pending.then_some(Versioned { value: failover, revision: Revision(60) });
            ClusterView { revision: Revision(revision), failover, ..view(leader, json!({})) }
        };
        let says = |view: &ClusterView, candidate| verdict(&before, view, candidate);
        let won = Some("200 Successfully switched over to \"b\"".to_owned());
        assert_eq!(says(&at(Some(("b", 70)), 70, true), None), won);
        assert_eq!(says(&at(Some(("b", 70)), 70, false), Some("b")), won);
        let other = Some("200 Switched over to \"b\" instead of \"c\"".to_owned());
        assert_eq!(says(&at(Some(("b", 70)), 70, true), Some("c")), other);
        let failed = Some("503 Switchover failed".to_owned());
        assert_eq!(says(&at(Some(("a", 7)), 61, false), None), failed);
        assert_eq!(says(&at(Some(("a", 70)), 70, false), None), failed);
        assert_eq!(says(&at(Some(("a", 7)), 61, true), None), None, "still pending");
        assert_eq!(says(&at(None, 61, false), None), None, "nobody leads yet");
        assert_eq!(says(&at(Some(("a", 7)), 55, false), None), None, "older than the request");
        assert_eq!(says(&at(Some(("b", 3)), 40, false), None), None, "a reign before this one");
        let vacant = view(None, json!({}));
        assert_eq!(verdict(&vacant, &at(Some(("a", 40)), 45, false), None), None, "ended before the request");
        assert_eq!(
            verdict(&vacant, &at(Some(("a", 55)), 61, false), None).unwrap(),
            "200 Successfully switched over to \"a\""
        );
    }
}
