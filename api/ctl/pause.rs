//! `pause` and `resume`: one member changes the shared settings, the leader if it answers.

use std::time::Duration;

use anyhow::bail;
use http::Method;
use serde_json::json;

use crate::args::Pause;
use crate::ask::{note, say};
use crate::maintain::leader_first;
use crate::reach::{Reach, Seen};
use crate::select;

/// Requests that are answered at once.
const SOON: Duration = Duration::from_secs(30);

/// Sets (`on`) or removes the pause.
///
/// # Errors
/// If nothing was changed, or with `--wait` if a member has not noticed in time.
pub async fn set(reach: &Reach, on: bool, wanted: &Pause) -> anyhow::Result<()> {
    let seen = reach.look().await?;
    if seen.modes.pause == on {
        bail!("Cluster is {} paused", if on { "already" } else { "not" });
    }
    let body = json!({ "pause": on.then_some(true) });
    for member in leader_first(&seen) {
        let url = select::api_url(member)?;
        match reach.rest().ask(url, Method::PATCH, "config", Some(&body), SOON).await {
            Err(error) => note(format!("Member {} is not accessible: {error}", member.name)),
            Ok(answer) if answer.code == 200 => {
                return if wanted.wait { wait(reach, on, &seen).await } else { done(on) };
            }
            Ok(answer) => bail!(
                "Failed: {} cluster management status code={}, ({})",
                if on { "pause" } else { "resume" },
                answer.code,
                answer.body.trim()
            ),
        }
    }
    bail!(
        "Can not find accessible cluster member: start one, or set pause with matriarchctl edit-config -s pause={on}"
    )
}

fn done(on: bool) -> anyhow::Result<()> {
    say(format!("Success: cluster management is {}", if on { "paused" } else { "resumed" }))
}

async fn wait(reach: &Reach, on: bool, seen: &Seen) -> anyhow::Result<()> {
    let action = if on { "pause" } else { "resume" };
    say(format!("'{action}' request sent, waiting until it is recognized by all nodes"))?;
    let known: Vec<&str> = leader_first(seen).map(|member| member.name.as_str()).collect();
    let behind = |view: &dcs::ClusterView| -> Vec<String> {
        let late = view.members.iter().filter(|(name, m)| known.contains(&name.as_str()) && m.pause != on);
        late.map(|(name, _)| name.to_string()).collect()
    };
    let limit = seen.loop_wait + Duration::from_secs(1);
    if reach.until(limit, |view| behind(view).is_empty()).await?.is_some() {
        return done(on);
    }
    let names = behind(&reach.view().await?);
    if names.is_empty() {
        return done(on);
    }
    bail!(
        "{} members didn't recognized pause state after {} seconds: the cluster's settings are changed, look at these members' logs",
        names.join(", "),
        limit.as_secs()
    )
}
