//! Turns the bodies of changing requests into commands, with every check and every
//! text of Patroni that needs no look at the cluster's members (patroni-compat 2.7).
//! Pure: whether a command can be carried out is decided elsewhere.

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::command::{Command, HandoverRequest, MoveRequest, MoveStep, Reply, RestartRequest};
use crate::quantity;
use crate::shared::is_on;
use crate::wall::{self, BadSchedule};

type Object = Map<String, Value>;

/// `POST /switchover` (`failover` false) and `POST /failover`.
///
/// # Errors
/// The refusal to send.
pub fn handover(failover: bool, body: &Object, paused: bool, now: Timestamp) -> Result<Command, Reply> {
    let leader = name(body, "leader")?;
    let candidate = match name(body, "candidate")? {
        Some(candidate) => Some(candidate),
        None => name(body, "member")?,
    };
    let refuse = |text: &str| Err(Reply::text(400, text));
    if failover && candidate.is_none() {
        return refuse("Failover could be performed only to a specific candidate");
    }
    if !failover && leader.is_none() {
        return refuse("Switchover could be performed only from a specific leader");
    }
    let mut scheduled_at = None;
    if let Some(at) = body.get("scheduled_at").filter(|at| is_given(at)) {
        if failover {
            return refuse("Failover can't be scheduled");
        }
        if paused {
            return refuse("Can't schedule switchover in the paused state");
        }
        scheduled_at = Some(schedule(at, "switchover", now)?);
    }
    if paused && candidate.is_none() {
        return refuse("Switchover is possible only to a specific candidate in a paused state");
    }
    if leader.is_some() && leader == candidate {
        return refuse("Switchover target and source are the same");
    }
    Ok(Command::Handover(HandoverRequest { leader, candidate, scheduled_at }))
}

/// `POST /restart`.
///
/// # Errors
/// The refusal to send.
pub fn restart(body: &Object, paused: bool, now: Timestamp) -> Result<Command, Reply> {
    let mut request = RestartRequest::default();
    if paused && body.contains_key("schedule") {
        return Err(Reply::text(500, "Can't schedule restart in the paused state"));
    }
    for (key, value) in body {
        match key.as_str() {
            "schedule" => request.schedule = Some(schedule(value, "restart", now)?),
            "role" => request.role = Some(role(value)?),
            "postgres_version" => request.postgres_version = Some(version(value)?),
            "timeout" => request.timeout = Some(timeout(value)?),
            // Counts by presence, as with Patroni.
            "restart_pending" => request.restart_pending = true,
            other => {
                let text = format!("Unknown filter for the scheduled restart: {other}");
                return Err(Reply::text(400, text));
            }
        }
    }
    Ok(Command::Restart(request))
}

/// `POST /reinitialize`; both spellings of `from_leader` are accepted.
#[must_use]
pub fn reinitialize(body: &Object) -> Command {
    let on = |key: &str| body.get(key).is_some_and(is_on);
    Command::Reinitialize { force: on("force"), from_leader: on("from_leader") || on("from-leader") }
}

/// `POST /matriarch/store`: `to`, `step`, and for the later steps `seal`.
///
/// # Errors
/// The refusal to send.
pub fn move_store(body: &Object) -> Result<Command, Reply> {
    let text = |key: &str| body.get(key).and_then(Value::as_str);
    let Some(to @ ("raft" | "etcd3")) = text("to") else {
        return Err(Reply::text(400, "to should be raft or etcd3, the section that names the new store"));
    };
    let seal = text("seal").unwrap_or_default().to_owned();
    let step = match text("step").unwrap_or_default() {
        "prepare" => MoveStep::Prepare,
        "check" => MoveStep::Check,
        "announce" => MoveStep::Announce,
        "confirm" | "go" | "withdraw" if seal.is_empty() => {
            return Err(Reply::text(400, "seal is missing: announce gives it"));
        }
        "confirm" => MoveStep::Confirm(seal),
        "go" => MoveStep::Go(seal),
        "withdraw" => MoveStep::Withdraw(seal),
        other => {
            let known = "prepare, check, announce, confirm, go or withdraw";
            return Err(Reply::text(400, format!("step should be {known}, not {other:?}")));
        }
    };
    Ok(Command::Move(MoveRequest { to: to.to_owned(), step }))
}

/// The number that Postgres gives a version: `16.1` is 160001, `9.5.3` is 90503.
///
/// # Errors
/// Patroni's text about what is accepted.
pub fn version_number(text: &str) -> Result<u32, String> {
    let parts: Option<Vec<u32>> = text.split('.').map(|part| part.trim().parse().ok()).collect();
    let parts = parts.ok_or_else(|| format!("Invalid PostgreSQL version: {text}"))?;
    match parts[..] {
        [major, minor] if (10..=9999).contains(&major) && minor < 100 => Ok(major * 10_000 + minor),
        [major, middle, minor] if major <= 9999 && middle < 100 && minor < 100 => {
            Ok(major * 10_000 + middle * 100 + minor)
        }
        _ => Err(format!("Invalid PostgreSQL version format: X.Y or X.Y.Z is accepted: {text}")),
    }
}

fn is_given(value: &Value) -> bool {
    !value.is_null() && value != "" && value != &Value::Bool(false)
}

fn name(body: &Object, key: &str) -> Result<Option<String>, Reply> {
    match body.get(key) {
        Some(Value::String(name)) if !name.is_empty() => Ok(Some(name.clone())),
        Some(value) if is_given(value) => {
            Err(Reply::text(400, format!("{key} should be the name of a member")))
        }
        _ => Ok(None),
    }
}

fn schedule(value: &Value, action: &str, now: Timestamp) -> Result<(i64, String), Reply> {
    let parsed = value.as_str().map_or(Err(BadSchedule::NotATime), wall::schedule);
    match parsed {
        Err(BadSchedule::NotATime) => Err(Reply::text(
            422,
            "Unable to parse scheduled timestamp. It should be in an unambiguous format, e.g. ISO 8601",
        )),
        Err(BadSchedule::NoZone) => {
            Err(Reply::text(400, format!("Timezone information is mandatory for the scheduled {action}")))
        }
        Ok((time, _)) if time < now => Err(Reply::text(422, format!("Cannot schedule {action} in the past"))),
        Ok((time, text)) => Ok((time.as_second(), text)),
    }
}

fn role(value: &Value) -> Result<String, Reply> {
    match value.as_str() {
        Some(role @ ("primary" | "standby_leader" | "replica")) => Ok(role.to_owned()),
        _ => Err(Reply::text(400, "PostgreSQL role should be either primary, standby_leader, or replica")),
    }
}

fn version(value: &Value) -> Result<(u32, String), Reply> {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    version_number(&text).map(|number| (number, text)).map_err(|problem| Reply::text(400, problem))
}

fn timeout(value: &Value) -> Result<f64, Reply> {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    quantity::seconds(&text)
        .filter(|seconds| *seconds > 0.0)
        .ok_or_else(|| Reply::text(400, "Timeout should be a positive number of seconds"))
}
