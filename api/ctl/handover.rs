//! `switchover` and `failover`: the leader is asked over REST; if it cannot be
//! reached, the wish is written into the store, where the members find it.

use std::time::Duration;

use anyhow::bail;
use http::Method;
use serde_json::{Value, json};

use crate::args::{Force, Switchover};
use crate::ask::{self, note, say};
use crate::members::{self, Shape};
use crate::output::Format;
use crate::progress;
use crate::reach::{Reach, Seen};
use crate::rest::Answer;
use crate::roster::Entry;
use crate::select;
use crate::when;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Switchover,
    Failover,
}

impl Kind {
    fn text(self) -> &'static str {
        match self {
            Self::Switchover => "switchover",
            Self::Failover => "failover",
        }
    }

    fn titled(self) -> &'static str {
        match self {
            Self::Switchover => "Switchover",
            Self::Failover => "Failover",
        }
    }
}

/// What is wished for.
struct Wish {
    kind: Kind,
    leader: Option<String>,
    candidate: Option<String>,
    at: Option<String>,
}

impl Wish {
    fn body(&self) -> Value {
        let mut body = json!({ "candidate": self.candidate });
        if let (Some(fields), Kind::Switchover) = (body.as_object_mut(), self.kind) {
            fields.insert("leader".to_owned(), json!(self.leader));
            if let Some(at) = &self.at {
                fields.insert("scheduled_at".to_owned(), json!(at));
            }
        }
        body
    }
}

/// `switchover`.
///
/// # Errors
/// If it was refused, did not happen, or cannot be known to have happened.
pub async fn switchover(reach: &Reach, wanted: &Switchover) -> anyhow::Result<()> {
    let seen = show(reach).await?;
    let Some(leader) = seen.roster.leader() else {
        bail!("This cluster has no leader: use matriarchctl failover --candidate MEMBER");
    };
    let force = wanted.force.force;
    let given = match &wanted.leader {
        Some(given) => given.clone(),
        None if force => leader.name.clone(),
        None => {
            let standby = seen.modes.standby_cluster;
            ask::prompt(if standby { "Standby Leader" } else { "Primary" }, Some(&leader.name))?
        }
    };
    if given != leader.name {
        bail!("Member {given} is not the leader of cluster {}; {} is", reach.cluster(), leader.name);
    }
    let candidate = candidate(reach, &seen, Kind::Switchover, wanted.candidate.clone(), force)?;
    let scheduled = match &wanted.scheduled {
        None if !force => {
            let question = format!("When should the switchover take place (e.g. {} ) ", when::in_an_hour());
            Some(ask::prompt(&question, Some("now"))?)
        }
        given => given.clone(),
    };
    let at = when::scheduled(scheduled.as_deref())?;
    if at.is_some() && seen.modes.pause {
        bail!("Can't schedule switchover in the paused state: run matriarchctl resume first");
    }
    let wish = Wish { kind: Kind::Switchover, leader: Some(given), candidate, at };
    fulfil(reach, &seen, &wish, force).await
}

/// `failover`.
///
/// # Errors
/// If it was refused, did not happen, or cannot be known to have happened.
pub async fn failover(reach: &Reach, wanted: Option<String>, force: &Force) -> anyhow::Result<()> {
    let force = force.force;
    let seen = show(reach).await?;
    let candidate = candidate(reach, &seen, Kind::Failover, wanted, force)?;
    let Some(candidate) = candidate else {
        bail!("Failover could be performed only to a specific candidate: name it with --candidate");
    };
    if let Some(loss) = seen.roster.member(&candidate).and_then(|entry| loss(&seen, entry)) {
        note(loss);
    }
    if !force && seen.modes.synchronous && !seen.is_synchronous(&candidate) {
        let question = format!("Are you sure you want to failover to the asynchronous node {candidate}?");
        if !ask::confirm(&question)? {
            bail!("Aborting failover: nothing was done");
        }
    }
    let wish = Wish { kind: Kind::Failover, leader: None, candidate: Some(candidate), at: None };
    fulfil(reach, &seen, &wish, force).await
}

/// What a failover to this member loses, as far as the published positions tell; nothing if it need not lose anything.
fn loss(seen: &Seen, candidate: &Entry) -> Option<String> {
    let name = &candidate.name;
    let known = candidate.position.as_ref().and_then(|place| place.0.as_ref());
    let asynchronous = seen.modes.synchronous && !seen.is_synchronous(name);
    match known {
        None => Some(format!("How much {name} lacks is not known: it has published no position.")),
        Some((at, lacks)) if *lacks > 0 => Some(format!(
            "{name} lacks at least {lacks} bytes of the log that the leader has published ({name} is at {at}). \
             Unless the leader can still send them, they are lost."
        )),
        Some((at, _)) if asynchronous => Some(format!(
            "{name} is at {at}, as far as the leader has published. It is no synchronous standby: what was committed since may be lost."
        )),
        Some(_) => None,
    }
}

async fn show(reach: &Reach) -> anyhow::Result<Seen> {
    let seen = reach.look().await?;
    say("Current cluster topology")?;
    table(reach, &seen)?;
    Ok(seen)
}

fn table(reach: &Reach, seen: &Seen) -> anyhow::Result<()> {
    say(members::write(&seen.roster, reach.cluster(), false, Shape::Rows(Format::Pretty)))
}

fn candidate(
    reach: &Reach,
    seen: &Seen,
    kind: Kind,
    given: Option<String>,
    force: bool,
) -> anyhow::Result<Option<String>> {
    let names: Vec<&str> = seen
        .roster
        .members
        .iter()
        .filter(|member| !member.leads() && !is_barred(member))
        .map(|member| member.name.as_str())
        .collect();
    if names.is_empty() {
        bail!(
            "No candidates found to {} to: every other member is missing or tagged nofailover",
            kind.text()
        );
    }
    let given = match given {
        None if !force => {
            let shown: Vec<String> = names.iter().map(|name| format!("'{name}'")).collect();
            Some(ask::prompt(&format!("Candidate [{}]", shown.join(", ")), Some(""))?)
        }
        given => given,
    };
    let Some(name) = given.filter(|name| !name.is_empty()) else { return Ok(None) };
    if names.contains(&name.as_str()) {
        return Ok(Some(name));
    }
    match seen.roster.member(&name) {
        Some(member) if member.leads() => {
            bail!("Member {name} is already the leader of cluster {}", reach.cluster())
        }
        Some(_) => bail!("Member {name} is tagged as nofailover: choose one of {}", names.join(", ")),
        None => bail!("{}", select::unknown(&seen.roster, reach.cluster(), &name)),
    }
}

/// Patroni's reading of the tags that forbid leading.
fn is_barred(member: &Entry) -> bool {
    let tag = |name: &str| member.tags.get(name);
    let is_on = |value: &Value| value.as_bool() == Some(true) || value.as_str() == Some("true");
    match tag("nofailover") {
        Some(value) => is_on(value),
        None => tag("failover_priority").and_then(Value::as_i64).is_some_and(|priority| priority <= 0),
    }
}

async fn fulfil(reach: &Reach, seen: &Seen, wish: &Wish, force: bool) -> anyhow::Result<()> {
    let leader = seen.roster.leader();
    if !force {
        let demoting =
            leader.map(|leader| format!(", demoting current leader {}", leader.name)).unwrap_or_default();
        let (kind, cluster) = (wish.kind.text(), reach.cluster());
        let question = match &wish.at {
            Some(at) => {
                format!("Are you sure you want to schedule {kind} of cluster {cluster} at {at}{demoting}?")
            }
            None => format!("Are you sure you want to {kind} cluster {cluster}{demoting}?"),
        };
        if !ask::confirm(&question)? {
            bail!("Aborting {kind}: nothing was done");
        }
    }
    let target = leader.or_else(|| seen.roster.member(wish.candidate.as_deref()?));
    let answered = match target.map(select::api_url) {
        Some(Ok(url)) => request(reach, seen, wish, url).await,
        Some(Err(error)) => Err(error),
        None => bail!("No member can be asked to {}", wish.kind.text()),
    };
    match answered {
        Ok(answer) => conclude(wish.kind, &answer)?,
        Err(error) => {
            note(format!("{error:#}"));
            let (stamp, kind) = (when::stamp(true), wish.kind.text());
            say(format!("{stamp} Could not {kind} using Patroni api, falling back to DCS"))?;
            through_store(reach, seen, wish).await?;
        }
    }
    table(reach, &reach.look().await?)
}

async fn request(reach: &Reach, seen: &Seen, wish: &Wish, url: &str) -> anyhow::Result<Answer> {
    let body = wish.body();
    let patience = patience(seen) + Duration::from_secs(10);
    let ask = |endpoint: &'static str| reach.rest().ask(url, Method::POST, endpoint, Some(&body), patience);
    let answer = progress::shown(reach, ask(wish.kind.text())).await?;
    let old = answer.code == 501 && answer.body.contains("Server does not support this operation");
    if old && wish.kind == Kind::Switchover {
        return Ok(progress::shown(reach, ask("failover")).await?);
    }
    Ok(answer)
}

/// How long members take at most to decide.
fn patience(seen: &Seen) -> Duration {
    2 * seen.loop_wait.max(Duration::from_secs(10))
}

fn conclude(kind: Kind, answer: &Answer) -> anyhow::Result<()> {
    let (code, text) = (answer.code, answer.body.trim());
    if matches!(code, 200 | 202) {
        return say(format!("{} {text}", when::stamp(true)));
    }
    let advice = match code {
        401 | 403 => "; give ctl.authentication of the members in the configuration file",
        412 => "; matriarchctl why says what keeps each member from leading",
        503 if text.contains("unknown") => "; matriarchctl list says who leads now",
        _ => "",
    };
    bail!("{} failed, details: {code}, {text}{advice}", kind.titled());
}

/// Writes the wish into the store and waits until the members have dealt with it.
async fn through_store(reach: &Reach, seen: &Seen, wish: &Wish) -> anyhow::Result<()> {
    let leader = wish.leader.as_deref();
    reach.wish(leader, wish.candidate.as_deref(), wish.at.as_deref()).await?;
    let title = wish.kind.titled();
    if wish.at.is_some() {
        return say(format!("{} {title} scheduled", when::stamp(true)));
    }
    let before = seen.roster.leader().map(|leader| leader.name.clone());
    let gone = reach
        .until(patience(seen), |view| {
            let now = view.leader.as_ref().map(|leader| leader.name.as_str());
            view.failover.is_none() && now.is_some()
        })
        .await?;
    let Some(view) = gone else {
        bail!(
            "{title} was requested through the store but is not decided yet: look at matriarchctl list and the members' logs"
        );
    };
    match view.leader.as_ref().map(|leader| leader.name.to_string()) {
        Some(now) if Some(&now) != before.as_ref() => {
            let done = if wish.kind == Kind::Switchover { "switched" } else { "failed" };
            say(format!("{} Successfully {done} over to \"{now}\"", when::stamp(true)))
        }
        _ => bail!(
            "{title} failed: the members refused it; their logs and matriarchctl why say what was missing"
        ),
    }
}
