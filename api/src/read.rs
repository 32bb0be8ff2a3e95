//! The documents that people, peers and dashboards read: `/patroni`, `/cluster`,
//! `/members`, `/history`, `/api/role`, `/why`. Pure: a status or a view gives a text.

use config::SynchronousMode;
use dcs::{ClusterView, Lsn, Member, Moment};
use serde_json::Value;

use crate::document::{Object, array, quoted, spaced};
use crate::health;
use crate::recording::Entry;
use crate::shared;
use crate::status::{NodeStatus, Position, PostgresState, Role, Sender, Server};
use crate::{MATRIARCH_VERSION, PATRONI_VERSION};

/// `GET /patroni`, and the body of every health check (patroni-compat 2.4).
#[must_use]
pub fn patroni(status: &NodeStatus, now: Moment) -> String {
    let mut out = Object::new();
    let silent = status.server.is_none() && status.state == PostgresState::Running;
    out.text("state", if silent { "unknown" } else { status.state.text() });
    match &status.server {
        Some(server) => running(&mut out, status, server),
        None => {
            out.text("role", status.role.text());
        }
    }
    out.flag_if("pause", status.pause);
    out.flag_if("cluster_unlocked", !status.leader_known || !health::store_is_fresh(status, now));
    out.flag_if("failsafe_mode_is_active", health::failsafe_is_active(status, now));
    out.number("dcs_last_seen", status.store_seen.map_or(0, |(_, epoch)| epoch));
    if !status.tags.published.is_empty() {
        let tags = status.tags.published.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
        out.value("tags", &Value::Object(tags));
    }
    if let Some(id) = status.system_id {
        out.text("database_system_identifier", &id.to_string());
    }
    if status.pending_restart_flag || !status.pending_restart.is_empty() {
        out.flag("pending_restart", true);
        out.raw("pending_restart_reason", &pending(&status.pending_restart));
    }
    let mut patroni = Object::new();
    patroni.text("version", PATRONI_VERSION).text("scope", &status.scope).text("name", status.name.as_str());
    patroni.text("matriarch", MATRIARCH_VERSION);
    patroni.number("known_timeline", status.known_timeline.0);
    out.raw("patroni", &patroni.finish());
    if let Some(Value::Object(restart)) = &status.scheduled_restart {
        let mut restart = restart.clone();
        restart.remove("postmaster_start_time");
        out.value("scheduled_restart", &Value::Object(restart));
    }
    out.flag_if("watchdog_failed", status.watchdog_failed);
    if let Some(kill) = status.guard.last {
        let mut fenced = Object::new();
        fenced.number("at", kill.at).number("processes", kill.processes);
        fenced.number("gone_ms", kill.gone.as_millis());
        out.raw("fenced", &fenced.finish());
    }
    out.finish()
}

fn running(out: &mut Object, status: &NodeStatus, server: &Server) {
    out.text("postmaster_start_time", &server.started);
    out.text("role", status.role.text());
    out.number("server_version", server.version);
    let mut xlog = Object::new();
    match &server.position {
        Position::Primary(lsn) => {
            xlog.number("location", lsn.0);
        }
        Position::Standby { received, replayed, replayed_at, paused, .. } => {
            let received = received.or(*replayed).unwrap_or_default();
            xlog.number("received_location", received.0);
            xlog.number("replayed_location", replayed.unwrap_or_default().0);
            match replayed_at {
                Some((text, _)) => xlog.text("replayed_timestamp", text),
                None => xlog.null("replayed_timestamp"),
            };
            xlog.flag("paused", *paused);
        }
    }
    out.raw("xlog", &xlog.finish());
    if status.role == Role::Replica {
        out.flag_if("sync_standby", status.sync_standby);
        out.flag_if("quorum_standby", status.quorum_standby);
    }
    match server.timeline {
        Some(timeline) => out.number("timeline", timeline),
        None => out.null("timeline"),
    };
    if let Some(state) = &server.replication_state {
        out.text("replication_state", state);
    }
    if !server.senders.is_empty() {
        out.raw("replication", &array(server.senders.iter().map(sender)));
    }
}

fn sender(sender: &Sender) -> String {
    let mut out = Object::new();
    out.text("usename", &sender.usename).text("application_name", &sender.application_name);
    match &sender.client_addr {
        Some(address) => out.text("client_addr", address),
        None => out.null("client_addr"),
    };
    out.text("state", &sender.state).text("sync_state", &sender.sync_state);
    out.number("sync_priority", sender.sync_priority);
    out.finish()
}

fn pending(reasons: &std::collections::BTreeMap<String, (String, String)>) -> String {
    let mut out = Object::new();
    for (name, (old, new)) in reasons {
        let mut change = Object::new();
        change.text("old_value", old).text("new_value", new);
        out.raw(name, &change.finish());
    }
    out.finish()
}

/// `GET /cluster` (patroni-compat 2.5).
#[must_use]
pub fn cluster(view: &ClusterView, scope: &str) -> String {
    let mut out = Object::new();
    out.raw("members", &member_list(view));
    out.flag_if("pause", shared::paused(view));
    if let Some(failover) = &view.failover
        && let Some(at) = &failover.value.scheduled_at
    {
        let mut switchover = Object::new();
        switchover.text("at", at);
        if let Some(leader) = &failover.value.leader {
            switchover.text("from", leader);
        }
        if let Some(candidate) = &failover.value.candidate {
            switchover.text("to", candidate);
        }
        out.raw("scheduled_switchover", &switchover.finish());
    }
    out.text("scope", scope);
    out.finish()
}

/// `GET /members`: the members of `/cluster` and nothing else.
#[must_use]
pub fn members(view: &ClusterView) -> String {
    let mut out = Object::new();
    out.raw("members", &member_list(view));
    out.finish()
}

fn member_list(view: &ClusterView) -> String {
    array(view.members.iter().map(|(name, one)| member(view, name.as_str(), one)))
}

fn member(view: &ClusterView, name: &str, member: &Member) -> String {
    let leads = view.leader.as_ref().is_some_and(|leader| leader.name.as_str() == name);
    let role = role(view, name, leads);
    let state = match &member.replication_state {
        Some(state) if role != "leader" => state,
        _ => &member.state,
    };
    let mut out = Object::new();
    out.text("name", name).text("role", role).text("state", state);
    match &member.api_url {
        Some(url) => out.text("api_url", url),
        None => out.null("api_url"),
    };
    if let Some((host, port)) = member.conn_url.as_deref().and_then(host_and_port) {
        out.text("host", &host).number("port", port);
    }
    if let Some(timeline) = member.timeline {
        out.number("timeline", timeline);
    }
    if member.pending_restart_flag {
        out.flag("pending_restart", true);
    }
    if !member.pending_restart.is_empty() {
        out.raw("pending_restart_reason", &pending(&member.pending_restart));
    }
    if let Some(restart) = &member.scheduled_restart {
        out.value("scheduled_restart", restart);
    }
    if !member.tags.is_empty() {
        let tags = member.tags.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
        out.value("tags", &Value::Object(tags));
    }
    if !leads {
        let end = view.status.optime.unwrap_or_default();
        lag(&mut out, "receive_", member.receive_lsn, end);
        lag(&mut out, "replay_", member.replay_lsn, end);
        lag(&mut out, "", member.xlog_location, end);
    }
    out.finish()
}

fn role(view: &ClusterView, name: &str, leads: bool) -> &'static str {
    let in_sync = || {
        view.sync
            .as_ref()
            .filter(|sync| sync.value.leader.is_some())
            .is_some_and(|sync| sync.value.standbys.iter().any(|standby| standby.eq_ignore_ascii_case(name)))
    };
    match shared::synchronous(view) {
        _ if leads && shared::standby_cluster(view) => "standby_leader",
        _ if leads => "leader",
        SynchronousMode::On if in_sync() => "sync_standby",
        SynchronousMode::Quorum if in_sync() => "quorum_standby",
        _ => "replica",
    }
}

fn lag(out: &mut Object, kind: &str, lsn: Option<Lsn>, end: Lsn) {
    let (lag, position) = (format!("{kind}lag"), format!("{kind}lsn"));
    match lsn.filter(|lsn| *lsn != Lsn(0)) {
        Some(lsn) => out.number(&lag, end.ahead_of(lsn)).text(&position, &lsn.to_string()),
        None => out.text(&position, "unknown").text(&lag, "unknown"),
    };
}

/// Host and port of `postgres://host:port/database`; the port is 5432 if none is named.
#[must_use]
pub fn host_and_port(url: &str) -> Option<(String, u16)> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?']).next()?;
    let address = authority.rsplit_once('@').map_or(authority, |(_, address)| address);
    let (host, port) = match address.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, port)) => (host, port.strip_prefix(':')),
        None => address.rsplit_once(':').map_or((address, None), |(host, port)| (host, Some(port))),
    };
    let port = port.map_or(Some(5432), |port| port.parse().ok())?;
    (!host.is_empty()).then(|| (host.to_owned(), port))
}

/// `GET /history`: rows as they are stored.
#[must_use]
pub fn history(view: &ClusterView) -> String {
    array(view.history.iter().flatten().map(|row| {
        let mut fields = vec![row.timeline.to_string(), row.lsn.0.to_string(), quoted(&row.reason)];
        fields.extend(row.timestamp.as_deref().map(quoted));
        fields.extend(row.leader.as_deref().map(quoted));
        array(fields)
    }))
}

/// `GET /config`: the shared configuration, if there is a valid one.
#[must_use]
pub fn config(view: &ClusterView) -> Option<String> {
    view.config.as_ref().filter(|config| config.value.is_object()).map(|config| spaced(&config.value))
}

/// `GET /failsafe`: name → api_url of every member the leader may outlive the store with.
#[must_use]
pub fn failsafe(view: &ClusterView) -> Option<String> {
    let map = view.failsafe.as_ref()?;
    let mut out = Object::new();
    for (name, url) in map {
        out.text(name.as_str(), url);
    }
    Some(out.finish())
}

/// `GET /api/role`: what Postgres is here, in the words of scripts that used to
/// read `pg_controldata`: `primary`, `replica`, or `unknown` while SQL does not answer.
#[must_use]
pub fn role_document(status: &NodeStatus, hostname: &str, timestamp: f64, now: Moment) -> String {
    let answers = status.server.is_some();
    let fresh = now.since(status.looked) <= health::PRIMARY_STALE;
    let role = match status.role {
        Role::Primary if answers && status.writable && fresh => "primary",
        Role::Replica | Role::StandbyLeader | Role::Promoted if answers => "replica",
        _ => "unknown",
    };
    let mut out = Object::new();
    out.text("role", role).text("hostname", hostname).raw("timestamp", &format!("{timestamp:?}"));
    out.text("name", status.name.as_str()).text("scope", &status.scope).text("state", status.state.text());
    out.flag("leader", status.lease.is_some_and(|lease| now < lease.until));
    out.finish()
}

/// `GET /why`: the last decision, its reason, what keeps each member from leading, and if they were asked for, the
/// decisions that led there.
#[must_use]
pub fn why(status: &NodeStatus, history: Option<&[Entry]>) -> String {
    let why = &status.why;
    let mut obstacles = Object::new();
    for (name, obstacle) in &why.obstacles {
        match obstacle {
            Some(text) => obstacles.text(name.as_str(), text),
            None => obstacles.null(name.as_str()),
        };
    }
    let mut out = Object::new();
    out.text("name", status.name.as_str()).text("scope", &status.scope);
    out.text("because", &why.because).number("since", why.since);
    out.raw("steps", &array(why.steps.iter().map(|step| quoted(step))));
    out.raw("obstacles", &obstacles.finish());
    if let Some(history) = history {
        out.raw("history", &array(history.iter().map(turn)));
    }
    out.finish()
}

fn turn(entry: &Entry) -> String {
    let mut out = Object::new();
    out.text("at", &entry.at).text("because", &entry.because);
    out.raw("steps", &array(entry.steps.iter().map(|step| quoted(step))));
    out.number("quiet", entry.quiet).number("lost", entry.lost);
    out.finish()
}
