//! `remove`: forgets a cluster. Three questions, because nothing brings it back.

use anyhow::bail;

use crate::ask::{prompt, say};
use crate::members::{self, Shape};
use crate::output::Format;
use crate::reach::Reach;

/// Shows the members, asks three times, removes every key of the cluster.
///
/// # Errors
/// If an answer is not the expected one: nothing is removed then.
pub async fn remove(reach: &Reach, format: Format) -> anyhow::Result<()> {
    let cluster = reach.cluster();
    let view = reach.view().await?;
    let roster = crate::roster::Roster::from_view(&view);
    say(members::write(&roster, cluster, false, Shape::Rows(format)))?;
    if prompt("Please confirm the cluster name to remove", None)? != cluster {
        bail!("Cluster names specified do not match: nothing was removed");
    }
    let message = "Yes I am aware";
    let question =
        format!("You are about to remove all information in DCS for {cluster}, please type: \"{message}\"");
    if prompt(&question, None)? != message {
        bail!("You did not exactly type \"{message}\": nothing was removed");
    }
    if let Some(leader) = &view.leader {
        let question = "This cluster currently is healthy. Please specify the leader name to continue";
        if prompt(question, None)? != leader.name.as_str() {
            bail!("You did not specify the current leader of the cluster: nothing was removed");
        }
    }
    reach.remove().await
}
