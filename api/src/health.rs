//! Health checks: a question and a status give a code, and nothing else does
//! (patroni-compat 2.3). Pure: no clock, no query, no store.
//!
//! `/primary` is stricter than Patroni's: it is 200 only while this node can
//! take writes, as seen within the last second, and before its lease's deadline.

use std::borrow::Cow;
use std::time::Duration;

use dcs::{Lsn, Moment};
use serde_json::Value;

use crate::quantity;
use crate::status::{NodeStatus, Position, PostgresState, Role};

/// A primary not looked at for longer than this is not announced as one.
pub const PRIMARY_STALE: Duration = Duration::from_secs(1);

/// A claim to take writes older than this is looked at anew before it is repeated: an idle node
/// looks at its server about once per second, which may be too long ago when somebody asks.
const AGING: Duration = Duration::from_millis(600);

/// What is fine.
pub const FINE: u16 = 200;
/// What is not.
pub const NOT: u16 = 503;

/// The answer to a health check: `path` as asked, `query` without its '?'.
#[must_use]
pub fn check(path: &str, query: &str, status: &NodeStatus, now: Moment) -> u16 {
    let path = if path == "/" { "/primary" } else { path };
    let held = Held::read(status, now);
    let has = |part: &str| path.contains(part);
    if has("standby_leader") || has("standby-leader") {
        return code(held.standby_leader);
    }
    if has("leader") {
        return code(held.leader);
    }
    if has("primary") || has("master") || has("read-write") {
        return code(held.primary);
    }
    let replica = || !held.hides_replica && is_replica(query, status, now);
    let writer_or = |standby: bool| held.primary || held.standby_leader || standby && replica();
    let fine = if has("replica") {
        replica()
    } else if has("read-only") && !has("sync") && !has("quorum") {
        writer_or(true)
    } else if has("health") {
        is_running(status, now)
    } else if store_is_fresh(status, now) {
        match path {
            "/sync" | "/synchronous" => status.sync_standby && replica(),
            "/quorum" => status.quorum_standby && replica(),
            "/async" | "/asynchronous" => !status.sync_standby && !status.quorum_standby && replica(),
            "/read-only-sync" | "/read-only-synchronous" => writer_or(status.sync_standby),
            "/read-only-quorum" => writer_or(status.quorum_standby),
            _ => false,
        }
    } else {
        false
    };
    code(fine && tags_match(query, status))
}

/// Whether this node claims to take writes, but has not looked lately.
#[must_use]
pub fn is_aging(status: &NodeStatus, now: Moment) -> bool {
    status.writable && now.since(status.looked) > AGING
}

/// `/liveness`: the node's turns go on, or nobody expects them to.
#[must_use]
pub fn liveness(status: &NodeStatus, now: Moment) -> u16 {
    let primary = status.role == Role::Primary && status.state == PostgresState::Running;
    let patience = status.loop_wait + status.ttl * if primary { 1 } else { 2 };
    code(status.pause || status.last_turn + patience > now)
}

/// `/readiness`: the leader, or a replica that streams and does not lag.
#[must_use]
pub fn readiness(query: &str, status: &NodeStatus, now: Moment) -> u16 {
    if Held::read(status, now).leader {
        return FINE;
    }
    if !is_running(status, now) || !streams(status) {
        return NOT;
    }
    if !store_is_fresh(status, now) && upstream(status).is_none() {
        return code(failsafe_is_active(status, now));
    }
    let (received, replayed) = standby_positions(status);
    let reached = if first(query, "mode").as_deref() == Some("write") { received } else { replayed };
    let limit = first(query, "lag")
        .and_then(|lag| quantity::bytes(&lag))
        .unwrap_or_else(|| i64::try_from(status.maximum_lag).unwrap_or(i64::MAX));
    let lag = i64::try_from(leader_position(status).ahead_of(reached)).unwrap_or(i64::MAX);
    code(lag <= limit)
}

/// Whether the store answered within the lease's time to live.
#[must_use]
pub fn store_is_fresh(status: &NodeStatus, now: Moment) -> bool {
    status.store_seen.is_some_and(|(seen, _)| now < seen + status.ttl)
}

/// Whether failsafe mode is in force.
#[must_use]
pub fn failsafe_is_active(status: &NodeStatus, now: Moment) -> bool {
    status.failsafe_until.is_some_and(|until| now < until)
}

/// What the lease, or in pause without the store the role, makes of this node.
struct Held {
    leader: bool,
    primary: bool,
    standby_leader: bool,
    hides_replica: bool,
}

impl Held {
    fn read(status: &NodeStatus, now: Moment) -> Self {
        let writes = status.writable && now.since(status.looked) <= PRIMARY_STALE;
        let held = status.lease.is_some_and(|lease| now < lease.until);
        let lapsed = status.lease.is_some() && !held;
        if status.pause && (lapsed || !store_is_fresh(status, now)) {
            let (primary, standby) = (status.role == Role::Primary, status.role == Role::StandbyLeader);
            return Self {
                leader: primary || standby,
                primary: primary && writes,
                standby_leader: standby,
                hides_replica: false,
            };
        }
        Self {
            leader: held,
            primary: held && writes && !status.standby_cluster,
            standby_leader: held
                && status.standby_cluster
                && matches!(status.role, Role::Replica | Role::StandbyLeader),
            hides_replica: held && status.standby_cluster,
        }
    }
}

fn code(fine: bool) -> u16 {
    if fine { FINE } else { NOT }
}

/// SQL answered, and not so long ago that the answer means nothing.
fn is_running(status: &NodeStatus, now: Moment) -> bool {
    let stale = (status.ttl * 2).max(Duration::from_secs(30));
    status.state == PostgresState::Running && status.server.is_some() && now.since(status.looked) <= stale
}

fn is_replica(query: &str, status: &NodeStatus, now: Moment) -> bool {
    status.role == Role::Replica
        && !status.tags.noloadbalance
        && is_running(status, now)
        && !is_lagging(query, status)
        && first(query, "replication_state").is_none_or(|wanted| replication_state(status) == Some(&wanted))
}

fn is_lagging(query: &str, status: &NodeStatus) -> bool {
    let Some(limit) = first(query, "lag").and_then(|lag| quantity::bytes(&lag)) else { return false };
    let (leader, (_, replayed)) = (leader_position(status), standby_positions(status));
    leader != Lsn(0) && i128::from(leader.0) > i128::from(replayed.0) + i128::from(limit)
}

fn leader_position(status: &NodeStatus) -> Lsn {
    status.optime.max(upstream(status)).unwrap_or_default()
}

fn upstream(status: &NodeStatus) -> Option<Lsn> {
    match &status.server.as_ref()?.position {
        Position::Standby { upstream, .. } => *upstream,
        Position::Primary(_) => None,
    }
}

fn standby_positions(status: &NodeStatus) -> (Lsn, Lsn) {
    match status.server.as_ref().map(|server| &server.position) {
        Some(Position::Standby { received, replayed, .. }) => {
            (received.unwrap_or_default(), replayed.unwrap_or_default())
        }
        _ => (Lsn(0), Lsn(0)),
    }
}

fn replication_state(status: &NodeStatus) -> Option<&str> {
    status.server.as_ref()?.replication_state.as_deref()
}

fn streams(status: &NodeStatus) -> bool {
    replication_state(status) == Some("streaming")
}

/// Every `tag_K=V` must equal the node's tag K.
fn tags_match(query: &str, status: &NodeStatus) -> bool {
    let tags = || pairs(query).filter(|(key, _)| key.starts_with("tag_"));
    query.is_empty()
        || tags().all(|(key, _)| {
            let wanted = first(query, &key).unwrap_or_default();
            let tag = key.strip_prefix("tag_").and_then(|tag| status.tags.published.get(tag));
            match tag {
                None | Some(Value::Null) => false,
                Some(Value::String(text)) => *text == wanted,
                Some(other) => other.to_string().to_lowercase() == wanted,
            }
        })
}

/// The first value of `key`; empty values do not count.
pub(crate) fn first<'a>(query: &'a str, key: &str) -> Option<Cow<'a, str>> {
    if query.is_empty() {
        return None;
    }
    pairs(query).find(|(k, _)| k == key).map(|(_, value)| value)
}

fn pairs(query: &str) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (decoded(key), decoded(value)))
        .filter(|(_, value)| !value.is_empty())
}

/// Undoes `+` and `%XX`.
fn decoded(text: &str) -> Cow<'_, str> {
    if !text.contains(['+', '%']) {
        return Cow::Borrowed(text);
    }
    let mut bytes = text.as_bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some((&byte, rest)) = bytes.split_first() {
        bytes = rest;
        let hex =
            || rest.get(..2).and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match byte {
            b'+' => out.push(b' '),
            b'%' => match hex() {
                Some(byte) => {
                    out.push(byte);
                    bytes = rest.get(2..).unwrap_or_default();
                }
                None => out.push(b'%'),
            },
            other => out.push(other),
        }
    }
    Cow::Owned(String::from_utf8_lossy(&out).into_owned())
}
