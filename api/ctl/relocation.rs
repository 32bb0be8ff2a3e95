//! `store move`: leads the members through a cluster's move to another store, step by step. Every step but the last
//! can be taken back, and the last one is the leader's alone.

use std::time::Duration;

use anyhow::{Context, bail};
use http::Method;
use serde_json::{Value, json};

use crate::args::Role;
use crate::ask::{confirm, note, say};
use crate::maintain::{ask_member, choose};
use crate::progress;
use crate::reach::Reach;
use crate::rest::Answer;
use crate::roster::Entry;
use crate::settings::Settings;
use crate::store::Section;

/// How long a member may take for one step: a new embedded store is founded meanwhile.
const STEP: Duration = Duration::from_secs(40);

/// `store move`.
///
/// # Errors
/// If a member is not ready, in which case nothing was changed, or the last step did not succeed.
pub async fn relocate(settings: &Settings, to: Section, force: bool) -> anyhow::Result<()> {
    let reach = Reach::open(settings, None).await?;
    let (from, to) = (reach.section(), to.name());
    if from == to {
        bail!("cluster {} lives in the store of the section {to} already", reach.cluster());
    }
    let seen = reach.look().await?;
    let members = choose(&reach, &seen, &[], Role::Any)?;
    let Some(leader) = members.iter().copied().find(|member| member.leads()) else {
        bail!(
            "cluster {} has no leader, and only a leader can move it: look at matriarchctl why",
            reach.cluster()
        );
    };
    if seen.modes.pause {
        bail!("the cluster is paused: run matriarchctl resume first");
    }
    let question = format!("Are you sure you want to move cluster {} from {from} to {to}?", reach.cluster());
    if !force && !confirm(&question)? {
        bail!("nothing was changed");
    }
    let all = |step: &'static str, seal: Option<String>| everybody(&reach, &members, to, step, seal);
    all("prepare", None).await?;
    all("check", None).await?;
    let told = ask(&reach, leader, to, "announce", None).await.context("nothing was changed")?;
    let Some(seal) = told.get("seal").and_then(Value::as_str) else {
        bail!("{} gave no seal: {told}", leader.name)
    };
    if let Err(error) = all("confirm", Some(seal.to_owned())).await {
        // If this fails too, the next attempt overwrites it, and nobody minds it until then.
        if let Err(error) = ask(&reach, leader, to, "withdraw", Some(seal)).await {
            note(format!("what was written into the new store is still there: {error:#}"));
        }
        return Err(error);
    }
    let done = progress::shown(&reach, ask(&reach, leader, to, "go", Some(seal))).await;
    done.context("the move did not come to its end; matriarchctl list shows who leads, and where")?;
    say(format!(
        "Cluster {} lives in the store of the section {to} now, {} leads. When matriarchctl list shows every member, take \
         the section {from} out of their configurations",
        reach.cluster(),
        leader.name
    ))
}

/// Asks every member; says of each that is not ready why.
async fn everybody(
    reach: &Reach,
    members: &[&Entry],
    to: &str,
    step: &str,
    seal: Option<String>,
) -> anyhow::Result<()> {
    let asked = members.iter().map(|member| ask(reach, member, to, step, seal.as_deref()));
    let answers = progress::shown(reach, futures::future::join_all(asked)).await;
    let refused: Vec<String> =
        answers.into_iter().filter_map(Result::err).map(|error| format!("{error:#}")).collect();
    if refused.is_empty() {
        return Ok(());
    }
    bail!("not every member is ready, so nothing was changed: {}", refused.join("; "))
}

async fn ask(
    reach: &Reach,
    member: &Entry,
    to: &str,
    step: &str,
    seal: Option<&str>,
) -> anyhow::Result<Value> {
    let body = json!({"to": to, "step": step, "seal": seal});
    let name = &member.name;
    match ask_member(reach, member, Method::POST, "matriarch/store", Some(&body), STEP).await {
        Ok(Answer { code: 200, body }) => Ok(serde_json::from_str(&body).unwrap_or(Value::Null)),
        Ok(Answer { code: 501 | 404, .. }) => bail!("{name} does not run a matriarch that can move"),
        Ok(Answer { code, body }) => bail!("{name} ({code}): {}", body.trim()),
        Err(error) => Err(error.context(format!("{name} does not answer"))),
    }
}
