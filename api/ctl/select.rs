//! Which members a command means: by name, by role, by asking.

use anyhow::bail;

use crate::args::Role;
use crate::ask;
use crate::roster::{Entry, Roster};

/// All members with `role`, by name.
#[must_use]
pub fn with_role(roster: &Roster, role: Role) -> Vec<&Entry> {
    let leader = roster.leader();
    match role {
        Role::Any => roster.members.iter().collect(),
        Role::Replica | Role::Standby => roster.members.iter().filter(|member| !member.leads()).collect(),
        Role::Leader => leader.into_iter().collect(),
        Role::Primary => leader.into_iter().filter(|leader| leader.role != "standby_leader").collect(),
        Role::StandbyLeader => leader.into_iter().filter(|leader| leader.role == "standby_leader").collect(),
    }
}

/// One member: the named one, or the first with the role, by default the leader.
///
/// # Errors
/// If there is none.
pub fn one<'a>(
    roster: &'a Roster,
    cluster: &str,
    role: Option<Role>,
    name: Option<&str>,
) -> anyhow::Result<&'a Entry> {
    let found = match name {
        Some(name) => roster.member(name),
        None => with_role(roster, role.unwrap_or(Role::Leader)).into_iter().next(),
    };
    match (found, name) {
        (Some(found), _) => Ok(found),
        (None, Some(name)) => bail!("Can not find a suitable member: {}", unknown(roster, cluster, name)),
        (None, None) if role.is_none() => {
            bail!(
                "Can not find a suitable member: cluster {cluster} has no leader now; choose one with --member"
            )
        }
        (None, None) => bail!(
            "Can not find a suitable member: no member of cluster {cluster} has this role; see matriarchctl list"
        ),
    }
}

/// The members among `names` that have `role`; all with the role if no names are given.
///
/// # Errors
/// If there are none, or if a name is no member with the role.
pub fn named<'a>(
    roster: &'a Roster,
    cluster: &str,
    names: &[String],
    role: Role,
) -> anyhow::Result<Vec<&'a Entry>> {
    let fitting = with_role(roster, role);
    if let Some(stranger) = names.iter().find(|name| roster.member(name).is_none()) {
        bail!("{}", unknown(roster, cluster, stranger));
    }
    if let Some(other) = names.iter().find(|name| !fitting.iter().any(|member| member.name == **name)) {
        let found = roster.member(other).map_or("", |member| member.role.as_str());
        bail!("{other} has not the role that was asked for, it is {found}: leave it out");
    }
    if fitting.is_empty() {
        bail!("{cluster} cluster doesn't have any members with this role; see matriarchctl list");
    }
    Ok(fitting.into_iter().filter(|member| names.is_empty() || names.contains(&member.name)).collect())
}

/// Asks whether `action` may be done to `members`; `force` answers yes.
///
/// # Errors
/// If the answer is no.
pub fn agreed(members: &[&Entry], force: bool, action: &str) -> anyhow::Result<()> {
    let names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
    let question = format!("Are you sure you want to {action} members {}?", names.join(", "));
    if force || ask::confirm(&question)? {
        return Ok(());
    }
    bail!("Aborted {action}: nothing was done");
}

/// The REST URL of a member.
///
/// # Errors
/// If it publishes none.
pub fn api_url(member: &Entry) -> anyhow::Result<&str> {
    match &member.api_url {
        Some(url) => Ok(url),
        None => bail!("{} publishes no api_url: look at its log, it has not finished starting", member.name),
    }
}

/// A sentence about a name that is no member's.
#[must_use]
pub fn unknown(roster: &Roster, cluster: &str, name: &str) -> String {
    let names: Vec<&str> = roster.members.iter().map(|member| member.name.as_str()).collect();
    if names.is_empty() {
        return format!(
            "{name} is not a member of cluster {cluster}, which has no members: check the name of the cluster"
        );
    }
    format!("{name} is not a member of cluster {cluster}; its members are {}", names.join(", "))
}
