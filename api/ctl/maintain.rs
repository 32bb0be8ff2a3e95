//! `reload`, `reinit`, `flush` and `handover`: one member after the other is
//! asked over REST; every failure is printed and counted.

use std::time::Duration;

use anyhow::bail;
use http::Method;
use serde_json::{Value, json};

use crate::args::{Force, Members, Role};
use crate::ask::{self, note, say};
use crate::members::{self, Shape};
use crate::output::Format;
use crate::progress;
use crate::reach::{Reach, Seen};
use crate::rest::Answer;
use crate::roster::Entry;
use crate::select;
use crate::when;

/// Requests that are answered at once.
const SOON: Duration = Duration::from_secs(30);
/// Time between two looks at a clone.
const CLONE_PAUSE: Duration = Duration::from_secs(1);

/// Counts members on which something failed.
pub struct Tally {
    what: &'static str,
    asked: usize,
    failed: usize,
}

impl Tally {
    /// Starts counting.
    #[must_use]
    pub fn new(what: &'static str) -> Self {
        Self { what, asked: 0, failed: 0 }
    }

    /// Counts one member.
    pub fn count(&mut self, done: bool) {
        self.asked += 1;
        self.failed += usize::from(!done);
    }

    /// Ends the count.
    ///
    /// # Errors
    /// If something failed on a member.
    pub fn end(&self) -> anyhow::Result<()> {
        if self.failed == 0 {
            return Ok(());
        }
        bail!("{} failed on {} of {} members, see above", self.what, self.failed, self.asked)
    }
}

/// Prints how a request went; true if it was accepted.
///
/// # Errors
/// If nothing can be printed.
pub fn report(
    action: &str,
    member: &Entry,
    answer: &anyhow::Result<Answer>,
    quiet: bool,
) -> anyhow::Result<bool> {
    match answer {
        Ok(Answer { code, body }) if *code >= 400 => {
            say(format!("Failed: {action} for member {}, status code={code}, ({body})", member.name))?;
            Ok(false)
        }
        Ok(_) if quiet => Ok(true),
        Ok(_) => say(format!("Success: {action} for member {}", member.name)).map(|()| true),
        Err(error) => say(format!("Failed: {action} for member {}, {error:#}", member.name)).map(|()| false),
    }
}

/// Sends one request to a member.
///
/// # Errors
/// If there is no answer.
pub async fn ask_member(
    reach: &Reach,
    member: &Entry,
    method: Method,
    endpoint: &str,
    body: Option<&Value>,
    deadline: Duration,
) -> anyhow::Result<Answer> {
    let url = select::api_url(member)?;
    Ok(reach.rest().ask(url, method, endpoint, body, deadline).await?)
}

/// Shows the cluster and picks the members that are meant.
///
/// # Errors
/// If a name or a role fits nobody.
pub fn choose<'a>(
    reach: &Reach,
    seen: &'a Seen,
    names: &[String],
    role: Role,
) -> anyhow::Result<Vec<&'a Entry>> {
    say(members::write(&seen.roster, reach.cluster(), false, Shape::Rows(Format::Pretty)))?;
    select::named(&seen.roster, reach.cluster(), names, role)
}

/// `reload`.
///
/// # Errors
/// If a member did not accept it.
pub async fn reload(reach: &Reach, members: &Members, role: Role, force: &Force) -> anyhow::Result<()> {
    let seen = reach.look().await?;
    let chosen = choose(reach, &seen, &members.members, role)?;
    select::agreed(&chosen, force.force, "reload")?;
    let mut tally = Tally::new("reload");
    for member in chosen {
        let answer = ask_member(reach, member, Method::POST, "reload", None, SOON).await;
        let name = &member.name;
        let done = match &answer {
            Ok(Answer { code: 200, .. }) => {
                say(format!("No changes to apply on member {name}")).map(|()| true)
            }
            Ok(Answer { code: 202, .. }) => {
                let within = seen.loop_wait.as_secs();
                say(format!(
                    "Reload request received for member {name} and will be processed within {within} seconds"
                ))
                .map(|()| true)
            }
            other => report("reload", member, other, false),
        };
        tally.count(done?);
    }
    tally.end()
}

/// `reinit`.
///
/// # Errors
/// If a member did not start it, or ended it without becoming healthy.
pub async fn reinit(
    reach: &Reach,
    members: &Members,
    from_leader: bool,
    wait: bool,
    force: &Force,
) -> anyhow::Result<()> {
    let seen = reach.look().await?;
    let mut names = members.members.clone();
    if names.is_empty() {
        let replicas = choose(reach, &seen, &[], Role::Replica)?;
        if force.force {
            bail!("name the members to reinitialize: --force never means all of them");
        }
        let known: Vec<&str> = replicas.iter().map(|member| member.name.as_str()).collect();
        let question = format!("Which member do you want to reinitialize [{}]?", known.join(", "));
        names.push(ask::prompt(&question, None)?);
    }
    let chosen = if members.members.is_empty() {
        select::named(&seen.roster, reach.cluster(), &names, Role::Replica)?
    } else {
        choose(reach, &seen, &names, Role::Replica)?
    };
    select::agreed(&chosen, force.force, "reinitialize")?;
    let mut tally = Tally::new("reinitialize");
    let mut started = Vec::new();
    for member in chosen {
        let accepted = start_clone(reach, member, from_leader, force.force).await?;
        tally.count(accepted);
        if accepted {
            started.push(member);
        }
    }
    if wait {
        await_clones(reach, started).await?;
    }
    tally.end()
}

async fn start_clone(reach: &Reach, member: &Entry, from_leader: bool, force: bool) -> anyhow::Result<bool> {
    let mut body = json!({ "force": force, "from_leader": from_leader });
    loop {
        let answer = ask_member(reach, member, Method::POST, "reinitialize", Some(&body), SOON).await;
        let accepted = report("reinitialize", member, &answer, false)?;
        let busy = matches!(&answer, Ok(answer) if answer.body.trim_end().ends_with(" already in progress"));
        let again = !accepted && busy && body.get("force") == Some(&Value::Bool(false));
        if !again || !ask::confirm("Do you want to cancel it and reinitialize anyway?")? {
            return Ok(accepted);
        }
        body = json!({ "force": true, "from_leader": from_leader });
    }
}

async fn await_clones(reach: &Reach, mut left: Vec<&Entry>) -> anyhow::Result<()> {
    let mut shown = 0;
    while !left.is_empty() {
        if shown != left.len() {
            shown = left.len();
            let names: Vec<&str> = left.iter().map(|member| member.name.as_str()).collect();
            say(format!("Waiting for reinitialize to complete on: {}", names.join(", ")))?;
        }
        tokio::time::sleep(CLONE_PAUSE).await;
        let mut still = Vec::new();
        for member in left {
            let answer = ask_member(reach, member, Method::GET, "patroni", None, SOON).await;
            let state = answer.ok().and_then(|answer| serde_json::from_str::<Value>(&answer.body).ok());
            let state = state.as_ref().and_then(|body| body.get("state")).and_then(Value::as_str);
            match state {
                // A member that does not answer for a moment may be restarting; its clone is not over.
                None | Some("creating replica") => still.push(member),
                Some(_) => say(format!("Reinitialize is completed on: {}", member.name))?,
            }
        }
        left = still;
    }
    Ok(())
}

/// `flush CLUSTER [MEMBER]... restart`.
///
/// # Errors
/// If a member did not accept it.
pub async fn flush_restart(reach: &Reach, names: &[String], role: Role, force: &Force) -> anyhow::Result<()> {
    let seen = reach.look().await?;
    let chosen = choose(reach, &seen, names, role)?;
    select::agreed(&chosen, force.force, "flush")?;
    let mut tally = Tally::new("flush");
    for member in chosen {
        if member.scheduled_restart.is_none() {
            say(format!("No scheduled restart for member {}", member.name))?;
            continue;
        }
        let answer = ask_member(reach, member, Method::DELETE, "restart", None, SOON).await;
        tally.count(report("flush scheduled restart", member, &answer, false)?);
    }
    tally.end()
}

/// `flush CLUSTER switchover`.
///
/// # Errors
/// If it is still scheduled.
pub async fn flush_switchover(reach: &Reach) -> anyhow::Result<()> {
    let seen = reach.look().await?;
    let Some(revision) = seen.scheduled_revision() else { return say("No pending scheduled switchover") };
    for member in leader_first(&seen) {
        match ask_member(reach, member, Method::DELETE, "switchover", None, SOON).await {
            Ok(Answer { code: 200, body }) => return say(format!("Success: {body}")),
            Ok(Answer { code: 404, body }) => bail!("{body}"),
            Ok(Answer { code, body }) => {
                say(format!("Failed: member={}, status_code={code}, ({body})", member.name))?;
            }
            Err(error) => note(format!("Member {} is not accessible: {error:#}", member.name)),
        }
    }
    let (stamp, cluster) = (when::stamp(true), reach.cluster());
    say(format!("{stamp} Could not find any accessible member of cluster {cluster}, falling back to DCS"))?;
    reach.clear_wish(revision).await?;
    say("Success: scheduled switchover deleted")
}

/// The members that publish a REST URL, the leader first.
pub fn leader_first(seen: &Seen) -> impl Iterator<Item = &Entry> {
    let members = &seen.roster.members;
    let leads = |leads: bool| {
        members.iter().filter(move |member| member.leads() == leads && member.api_url.is_some())
    };
    leads(true).chain(leads(false))
}

/// `handover`.
///
/// # Errors
/// If a member did not accept it.
pub async fn handover(reach: &Reach, members: &Members, force: &Force) -> anyhow::Result<()> {
    if members.members.is_empty() {
        bail!("name the members whose daemon shall stop: matriarchctl handover CLUSTER MEMBER");
    }
    let seen = reach.look().await?;
    let chosen = choose(reach, &seen, &members.members, Role::Any)?;
    select::agreed(&chosen, force.force, "stop the daemon of")?;
    let mut tally = Tally::new("handover");
    for member in chosen {
        let work = ask_member(reach, member, Method::POST, "matriarch/handover", None, SOON);
        let answer = progress::shown(reach, work).await;
        let done = match &answer {
            Ok(Answer { code: 501 | 404, .. }) => {
                say(format!("Failed: member {} does not run matriarch", member.name)).map(|()| false)
            }
            other => report("handover", member, other, false),
        };
        tally.count(done?);
    }
    tally.end()
}
