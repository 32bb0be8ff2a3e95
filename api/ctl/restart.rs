//! `restart`: which members, under which conditions, now or later.

use std::time::Duration;

use anyhow::bail;
use http::Method;
use serde_json::{Map, Value, json};

use crate::args::Restart;
use crate::ask::{self, say};
use crate::maintain::{Tally, ask_member, choose, report};
use crate::progress;
use crate::reach::Reach;
use crate::rest::Answer;
use crate::roster::Entry;
use crate::select;
use crate::when;

/// Requests that are answered at once.
const SOON: Duration = Duration::from_secs(30);
/// A restart is answered when it is over.
const RESTART: Duration = Duration::from_secs(3600);

/// `restart`.
///
/// # Errors
/// If a member was not restarted.
pub async fn restart(reach: &Reach, wanted: &Restart) -> anyhow::Result<()> {
    let force = wanted.force.force;
    let seen = reach.look().await?;
    let mut members = choose(reach, &seen, &wanted.members.members, wanted.role)?;
    let scheduled = match &wanted.scheduled {
        None if !force => {
            let question = format!("When should the restart take place (e.g. {}) ", when::in_an_hour());
            Some(ask::prompt(&question, Some("now"))?)
        }
        given => given.clone(),
    };
    let at = when::scheduled(scheduled.as_deref())?;
    if wanted.pending && at.is_none() {
        members.retain(|member| member.pending_restart);
        if members.is_empty() {
            return say("No member waits for a restart");
        }
    }
    if wanted.any {
        let chosen = any_index(members.len());
        members = members.into_iter().skip(chosen).take(1).collect();
    }
    let mut content = Map::new();
    agree_to_restart(&members, wanted, at.as_deref())?;
    let version = match &wanted.pg_version {
        None if !force => {
            ask::prompt("Restart if the PostgreSQL version is less than provided (e.g. 9.5.2) ", Some(""))?
        }
        given => given.clone().unwrap_or_default(),
    };
    if !version.is_empty() {
        check_version(&version)?;
        content.insert("postgres_version".to_owned(), json!(version));
    }
    if wanted.pending {
        content.insert("restart_pending".to_owned(), json!(true));
    }
    if let Some(at) = &at {
        if seen.modes.pause {
            bail!("Can't schedule restart in the paused state: run matriarchctl resume first");
        }
        content.insert("schedule".to_owned(), json!(at));
    }
    if let Some(timeout) = &wanted.timeout {
        content.insert("timeout".to_owned(), json!(timeout));
    }
    restart_each(reach, &members, Value::Object(content), force && at.is_some()).await
}

async fn restart_each(
    reach: &Reach,
    members: &[&Entry],
    content: Value,
    replace: bool,
) -> anyhow::Result<()> {
    let mut tally = Tally::new("restart");
    for member in members {
        if replace && member.scheduled_restart.is_some() {
            let answer = ask_member(reach, member, Method::DELETE, "restart", None, SOON).await;
            report("flush scheduled restart", member, &answer, true)?;
        }
        let work = ask_member(reach, member, Method::POST, "restart", Some(&content), RESTART);
        let answer = progress::shown(reach, work).await;
        let name = &member.name;
        let done = match &answer {
            Ok(Answer { code: 200, .. }) => say(format!("Success: restart on member {name}")).map(|()| true),
            Ok(Answer { code: 202, .. }) => {
                say(format!("Success: restart scheduled on member {name}")).map(|()| true)
            }
            Ok(Answer { code: 409, .. }) => {
                say(format!("Failed: another restart is already scheduled on member {name}")).map(|()| false)
            }
            other => report("restart", member, other, false),
        };
        tally.count(done?);
    }
    tally.end()
}

fn agree_to_restart(members: &[&Entry], wanted: &Restart, at: Option<&str>) -> anyhow::Result<()> {
    let Some(at) = at else { return select::agreed(members, wanted.force.force, "restart") };
    let question = if wanted.pending {
        "The nodes needing a restart will be identified at the scheduled time, and might be different from the \
         ones showing pending restart right now. Is this fine?"
            .to_owned()
    } else {
        let names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
        format!("Are you sure you want to schedule restart of members {} at {at}?", names.join(", "))
    };
    if wanted.force.force || ask::confirm(&question)? {
        return Ok(());
    }
    bail!("Aborted scheduled restart: nothing was done")
}

/// Which of `count` members `--any` means: no two nights the same one.
fn any_index(count: usize) -> usize {
    let nanos = usize::try_from(dcs::Moment::now().0 / 1000).unwrap_or_default();
    nanos.checked_rem(count).unwrap_or_default()
}

fn check_version(text: &str) -> anyhow::Result<()> {
    let parts: Vec<&str> = text.split('.').collect();
    let numbers = parts.iter().all(|part| part.parse::<u32>().is_ok());
    if numbers && (2..=3).contains(&parts.len()) {
        return Ok(());
    }
    bail!("{text:?} is no version of Postgres: write it as 16.1 or 9.6.24")
}
