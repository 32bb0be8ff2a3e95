//! `GET /metrics`: Patroni's names, types and labels exactly (patroni-compat 2.6),
//! and a few of our own behind them, in Prometheus's text format.

use std::fmt::Write as _;

use dcs::{ClusterView, Moment};

use crate::health;
use crate::shared;
use crate::status::{NodeStatus, Position, PostgresState, Role};
use crate::{MATRIARCH_VERSION, PATRONI_VERSION};

/// What `patroni_postgres_state` counts, as Patroni's comment line lists it.
const STATES: &str = "0=initdb, 1=initdb_failed, 2=custom_bootstrap, 3=custom_bootstrap_failed, \
    4=creating_replica, 5=running, 6=starting, 7=bootstrap_starting, 8=start_failed, 9=restarting, \
    10=restart_failed, 11=stopping, 12=stopped, 13=stop_failed, 14=crashed";

/// The page. `requests` counts the requests answered since the daemon started.
#[must_use]
pub fn page(status: &NodeStatus, view: Option<&ClusterView>, requests: u64, now: Moment) -> String {
    let mut page = Page {
        text: String::with_capacity(6000),
        labels: format!(
            "{{scope=\"{}\",name=\"{}\"}}",
            escaped(&status.scope),
            escaped(status.name.as_str())
        ),
    };
    server(&mut page, status);
    cluster(&mut page, status, view, now);
    own(&mut page, status, requests, now);
    page.text
}

fn server(page: &mut Page, status: &NodeStatus) {
    let server = status.server.as_ref();
    let running = server.is_some() && status.state == PostgresState::Running;
    let (mut location, mut received, mut replayed, mut at, mut paused) = (0, 0, 0, "0".to_owned(), false);
    match server.map(|server| &server.position) {
        Some(Position::Primary(lsn)) => location = lsn.0,
        Some(Position::Standby { received: r, replayed: p, replayed_at, paused: held, .. }) => {
            received = r.or(*p).unwrap_or_default().0;
            replayed = p.unwrap_or_default().0;
            at = replayed_at.as_ref().map_or(at, |(_, epoch)| format!("{epoch:?}"));
            paused = *held;
        }
        None => {}
    }
    let is = |role: Role| u8::from(status.role == role);
    page.gauge("patroni_version", "Patroni semver without periods.", padded(PATRONI_VERSION));
    page.gauge(
        "patroni_postgres_running",
        "Value is 1 if Postgres is running, 0 otherwise.",
        u8::from(running),
    );
    let started = server.map_or_else(|| "0".to_owned(), |server| format!("{:?}", server.started_epoch));
    page.gauge("patroni_postmaster_start_time", "Epoch seconds since Postgres started.", started);
    page.gauge("patroni_primary", "Value is 1 if this node is the leader, 0 otherwise.", is(Role::Primary));
    page.counter(
        "patroni_xlog_location",
        "Current location of the Postgres transaction log, 0 if this node is not the leader.",
        location,
    );
    page.gauge(
        "patroni_standby_leader",
        "Value is 1 if this node is the standby_leader, 0 otherwise.",
        is(Role::StandbyLeader),
    );
    page.gauge("patroni_replica", "Value is 1 if this node is a replica, 0 otherwise.", is(Role::Replica));
    page.gauge(
        "patroni_sync_standby",
        "Value is 1 if this node is a sync standby, 0 otherwise.",
        u8::from(status.sync_standby),
    );
    page.gauge(
        "patroni_quorum_standby",
        "Value is 1 if this node is a quorum standby, 0 otherwise.",
        u8::from(status.quorum_standby),
    );
    standby(page, (received, replayed, at, paused));
    if let Some(server) = server.filter(|server| server.version >= 90600) {
        let state = server.replication_state.as_deref();
        page.gauge(
            "patroni_postgres_streaming",
            "Value is 1 if Postgres is streaming, 0 otherwise.",
            u8::from(state == Some("streaming")),
        );
        page.gauge(
            "patroni_postgres_in_archive_recovery",
            "Value is 1 if Postgres is replicating from archive, 0 otherwise.",
            u8::from(state == Some("in archive recovery")),
        );
    }
    let version = server.map_or(0, |server| server.version);
    page.gauge("patroni_postgres_server_version", "Version of Postgres (if running), 0 otherwise.", version);
}

fn standby(page: &mut Page, (received, replayed, at, paused): (u64, u64, String, bool)) {
    page.counter(
        "patroni_xlog_received_location",
        "Current location of the received Postgres transaction log, 0 if this node is not a replica.",
        received,
    );
    page.counter(
        "patroni_xlog_replayed_location",
        "Current location of the replayed Postgres transaction log, 0 if this node is not a replica.",
        replayed,
    );
    page.gauge(
        "patroni_xlog_replayed_timestamp",
        "Current timestamp of the replayed Postgres transaction log, 0 if null.",
        at,
    );
    page.gauge(
        "patroni_xlog_paused",
        "Value is 1 if the Postgres xlog is paused, 0 otherwise.",
        u8::from(paused),
    );
}

fn cluster(page: &mut Page, status: &NodeStatus, view: Option<&ClusterView>, now: Moment) {
    let fresh = health::store_is_fresh(status, now);
    page.gauge(
        "patroni_cluster_unlocked",
        "Value is 1 if the cluster is unlocked, 0 if locked.",
        u8::from(!status.leader_known || !fresh),
    );
    page.gauge(
        "patroni_failsafe_mode_is_active",
        "Value is 1 if failsafe mode is active, 0 if inactive.",
        u8::from(health::failsafe_is_active(status, now)),
    );
    page.gauge(
        "patroni_failsafe_mode_enabled",
        "Value is 1 if failsafe mode is enabled, 0 if disabled.",
        u8::from(view.is_some_and(shared::failsafe_mode)),
    );
    let named = view
        .and_then(|view| view.failsafe.as_ref())
        .is_some_and(|failsafe| failsafe.contains_key(&status.name));
    page.gauge(
        "patroni_failsafe_member",
        "Value is 1 if this node is in the failsafe topology, 0 otherwise.",
        u8::from(named),
    );
    let timeline = status.server.as_ref().and_then(|server| server.timeline).unwrap_or_default();
    page.gauge(
        "patroni_postgres_timeline",
        "Postgres timeline of this node (if running), 0 otherwise.",
        timeline,
    );
    page.gauge(
        "patroni_dcs_last_seen",
        "Epoch timestamp when DCS was last contacted successfully by Patroni.",
        status.store_seen.map_or(0, |(_, epoch)| epoch),
    );
    page.gauge(
        "patroni_pending_restart",
        "Value is 1 if the node needs a restart, 0 otherwise.",
        u8::from(status.pending_restart_flag || !status.pending_restart.is_empty()),
    );
    page.gauge(
        "patroni_is_paused",
        "Value is 1 if auto failover is disabled, 0 otherwise.",
        u8::from(status.pause),
    );
    let silent = status.server.is_none() && status.state == PostgresState::Running;
    page.with_comment(
        "patroni_postgres_state",
        "Numeric representation of Postgres state.",
        STATES,
        if silent { -1 } else { status.state.number() },
    );
    page.gauge(
        "patroni_failover_priority",
        "Failover priority of this node, 0 if it must never lead.",
        status.tags.priority(),
    );
}

fn own(page: &mut Page, status: &NodeStatus, requests: u64, now: Moment) {
    page.gauge("matriarch_version", "matriarch semver without periods.", padded(MATRIARCH_VERSION));
    page.gauge(
        "matriarch_writable",
        "Value is 1 if Postgres takes writes here, as last seen, 0 otherwise.",
        u8::from(status.writable),
    );
    let left = status.lease.map_or(0.0, |lease| now.until(lease.until).as_secs_f64());
    page.gauge(
        "matriarch_lease_remaining_seconds",
        "Seconds until this node must stop calling itself leader, 0 if it does not hold the lease.",
        format!("{left:?}"),
    );
    page.gauge(
        "matriarch_status_age_seconds",
        "Seconds since Postgres was last looked at.",
        format!("{:?}", now.since(status.looked).as_secs_f64()),
    );
    page.gauge(
        "matriarch_turn_age_seconds",
        "Seconds since the last turn of the node ended.",
        format!("{:?}", now.since(status.last_turn).as_secs_f64()),
    );
    page.gauge(
        "matriarch_store_full",
        "Value is 1 if the store refuses writes because it is full, so that nobody could take over, 0 otherwise.",
        u8::from(status.store_full),
    );
    page.counter(
        "matriarch_strangers_ended_total",
        "How often a stranger's connection, which streamed under a member's name, was ended since the daemon started.",
        status.strangers.ended,
    );
    page.gauge(
        "matriarch_stranger_seconds",
        "How long the last such connection lived, in which its word counted as the member's.",
        seconds(status.strangers.last),
    );
    page.gauge(
        "matriarch_stranger_longest_seconds",
        "How long such a connection lived at most since the daemon started.",
        seconds(status.strangers.longest),
    );
    page.counter("matriarch_http_requests_total", "Requests answered since the daemon started.", requests);
    guard(page, status);
}

fn guard(page: &mut Page, status: &NodeStatus) {
    let guard = &status.guard;
    page.gauge(
        "matriarch_fencer_running",
        "Value is 1 if the fencer runs beside the daemon, 0 otherwise: without it this node does not lead.",
        u8::from(guard.running),
    );
    page.gauge(
        "matriarch_fencer_armed",
        "Value is 1 if the fencer will kill Postgres at the end of the lease, 0 otherwise.",
        u8::from(guard.armed),
    );
    page.gauge(
        "matriarch_fencer_wakeup_seconds",
        "How much later than asked the fencer last woke.",
        seconds(guard.woke),
    );
    page.gauge(
        "matriarch_fencer_wakeup_worst_seconds",
        "How much later than asked the fencer woke at worst since it started.",
        seconds(guard.woke_worst),
    );
    page.counter(
        "matriarch_fencer_kills_total",
        "How often the fencer killed Postgres since it started.",
        guard.kills,
    );
    page.gauge(
        "matriarch_watchdog_timeout_seconds",
        "Without a ping the kernel's watchdog resets the host after so long, 0 if it is not active.",
        seconds(guard.watchdog.unwrap_or_default()),
    );
    let last = guard.last.unwrap_or_default();
    page.gauge(
        "matriarch_fencer_kill_time",
        "Epoch seconds of the last kill at the end of a lease, 0 if there was none.",
        last.at,
    );
    page.gauge(
        "matriarch_fencer_kill_signalled_seconds",
        "From that deadline until every process had its signal, 0 if there was none.",
        seconds(last.signalled),
    );
    page.gauge(
        "matriarch_fencer_kill_gone_seconds",
        "From that deadline until no process of Postgres was left, 0 if there was none.",
        seconds(last.gone),
    );
    page.gauge(
        "matriarch_one_writer_promised",
        "Value is 1 if at most one node takes writes, 0 while the cluster is paused: then nobody sees to it.",
        u8::from(!status.pause),
    );
}

fn seconds(span: std::time::Duration) -> String {
    format!("{:?}", span.as_secs_f64())
}

/// `4.1.5` → `040105`.
fn padded(version: &str) -> String {
    version.split('.').map(|part| format!("{part:0>2}")).collect()
}

fn escaped(label: &str) -> String {
    label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

struct Page {
    text: String,
    labels: String,
}

impl Page {
    fn gauge(&mut self, name: &str, help: &str, value: impl std::fmt::Display) {
        let labels = &self.labels;
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} gauge\n{name}{labels} {value}\n");
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        let labels = &self.labels;
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} counter\n{name}{labels} {value}\n");
    }

    fn with_comment(&mut self, name: &str, help: &str, values: &str, value: i32) {
        let labels = &self.labels;
        let _ = write!(
            self.text,
            "# HELP {name} {help}\n# Values: {values}\n# TYPE {name} gauge\n{name}{labels} {value}\n"
        );
    }
}
