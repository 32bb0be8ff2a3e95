//! Who belongs to the cluster and how they are: the content of `GET /cluster`,
//! read from the store or from a member's REST answer.

use std::collections::BTreeMap;

use dcs::{ClusterView, Initialize, Lsn, Member, SystemId};
use serde_json::Value;

/// One cluster as commands see it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Roster {
    /// What is known of the cluster's identity, as the title shows it.
    pub identity: String,
    /// The members, sorted by name.
    pub members: Vec<Entry>,
    /// Automatic failover is switched off.
    pub pause: bool,
    /// A switchover that waits for its time.
    pub switchover: Option<Scheduled>,
}

/// A switchover that waits for its time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scheduled {
    /// When, ISO 8601.
    pub at: String,
    /// Who gives up.
    pub from: Option<String>,
    /// Who takes over.
    pub to: Option<String>,
}

/// One member.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// `leader`, `standby_leader`, `sync_standby`, `quorum_standby` or `replica`.
    pub role: String,
    /// Replication state if there is one, else the member's state.
    pub state: String,
    /// Its REST URL, ending in `/patroni`.
    pub api_url: Option<String>,
    /// Where its Postgres listens.
    pub host: Option<String>,
    /// The port there.
    pub port: Option<u16>,
    /// Its timeline.
    pub timeline: Option<u32>,
    /// A restart is pending.
    pub pending_restart: bool,
    /// Why: parameter, old value, new value.
    pub pending_reason: Vec<(String, String, String)>,
    /// A scheduled restart: when, and below which version.
    pub scheduled_restart: Option<(String, Option<String>)>,
    /// Its tags.
    pub tags: BTreeMap<String, Value>,
    /// Received position and lag; absent for the leader.
    pub receive: Option<Place>,
    /// Replayed position and lag.
    pub replay: Option<Place>,
    /// The larger of both.
    pub position: Option<Place>,
}

/// A position with its distance from the leader's; `None` inside is "unknown".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place(pub Option<(String, u64)>);

impl Entry {
    /// Whether this member leads.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.role.ends_with("leader")
    }
}

impl Roster {
    /// Reads the store's records.
    #[must_use]
    pub fn from_view(view: &ClusterView) -> Self {
        let settings = view.config.as_ref().map(|config| &config.value);
        let modes = Modes::read(settings);
        let leader = view.leader.as_ref().map(|leader| leader.name.as_str());
        let optime = view.status.optime.unwrap_or_default();
        let members = view.members.iter().map(|(name, member)| {
            let role = if leader == Some(name.as_str()) {
                if modes.standby_cluster { "standby_leader" } else { "leader" }
            } else if modes.synchronous && is_synchronous(view, name.as_str()) {
                if modes.quorum { "quorum_standby" } else { "sync_standby" }
            } else {
                "replica"
            };
            entry(name.as_str(), member, role, leader == Some(name.as_str()), optime)
        });
        Self {
            identity: match view.initialize {
                Initialize::Absent => "uninitialized".to_owned(),
                Initialize::Running => "initializing".to_owned(),
                Initialize::Done(SystemId(id)) => id.to_string(),
                Initialize::Invalid => "invalid".to_owned(),
            },
            members: members.collect(),
            pause: modes.pause,
            switchover: view.failover.as_ref().and_then(|failover| {
                let wanted = &failover.value;
                wanted.scheduled_at.as_ref().map(|at| Scheduled {
                    at: api::wall::schedule(at).map_or_else(|_| at.clone(), |(_, text)| text),
                    from: wanted.leader.clone(),
                    to: wanted.candidate.clone(),
                })
            }),
        }
    }

    /// Reads a member's answer to `GET /cluster`; `identity` is not part of it.
    #[must_use]
    pub fn from_json(body: &Value) -> Self {
        let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
        let members = body.get("members").and_then(Value::as_array);
        Self {
            identity: "store unreachable".to_owned(),
            members: members.into_iter().flatten().map(entry_from_json).collect(),
            pause: body.get("pause").and_then(Value::as_bool).unwrap_or(false),
            switchover: body.get("scheduled_switchover").and_then(|wanted| {
                Some(Scheduled {
                    at: text(wanted, "at")?,
                    from: text(wanted, "from"),
                    to: text(wanted, "to"),
                })
            }),
        }
    }

    /// The member that leads.
    #[must_use]
    pub fn leader(&self) -> Option<&Entry> {
        self.members.iter().find(|member| member.leads())
    }

    /// The member called `name`.
    #[must_use]
    pub fn member(&self, name: &str) -> Option<&Entry> {
        self.members.iter().find(|member| member.name == name)
    }
}

/// The modes of a cluster that change what a command says or asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Modes {
    /// `pause`.
    pub pause: bool,
    /// `synchronous_mode`, on or quorum.
    pub synchronous: bool,
    /// `synchronous_mode: quorum`.
    pub quorum: bool,
    /// `standby_cluster` names a source.
    pub standby_cluster: bool,
}

impl Modes {
    /// Reads the dynamic configuration as Patroni does: `on`, `yes`, `1` count as true.
    #[must_use]
    pub fn read(settings: Option<&Value>) -> Self {
        let is_on = |key: &str| match settings.and_then(|settings| settings.get(key)) {
            Some(Value::Bool(on)) => *on,
            Some(Value::Number(number)) => number.as_i64() == Some(1),
            Some(Value::String(text)) => matches!(text.to_lowercase().as_str(), "on" | "true" | "yes" | "1"),
            _ => false,
        };
        let source = settings.and_then(|settings| settings.get("standby_cluster"));
        let names_source = |key| match source.and_then(|source| source.get(key)) {
            None | Some(Value::Null) => false,
            Some(Value::String(text)) => !text.is_empty(),
            Some(value) => value.as_i64() != Some(0),
        };
        let standby_cluster = ["host", "port", "restore_command"].into_iter().any(names_source);
        let quorum = settings
            .and_then(|settings| settings.get("synchronous_mode"))
            .and_then(Value::as_str)
            .is_some_and(|mode| mode.eq_ignore_ascii_case("quorum"));
        Self {
            pause: is_on("pause"),
            quorum,
            synchronous: (quorum || is_on("synchronous_mode")) && !standby_cluster,
            standby_cluster,
        }
    }
}

fn is_synchronous(view: &ClusterView, name: &str) -> bool {
    view.sync.as_ref().is_some_and(|sync| {
        sync.value.leader.is_some()
            && sync.value.standbys.iter().any(|standby| standby.eq_ignore_ascii_case(name))
    })
}

fn entry(name: &str, member: &Member, role: &str, leads: bool, optime: Lsn) -> Entry {
    let (host, port) = member.conn_url.as_deref().and_then(address).unzip();
    let place = |lsn: Option<Lsn>| {
        let known = lsn.filter(|lsn| *lsn != Lsn(0));
        (!leads).then(|| Place(known.map(|lsn| (lsn.to_string(), optime.ahead_of(lsn)))))
    };
    let replication = member.replication_state.as_deref().filter(|_| role != "leader");
    Entry {
        name: name.to_owned(),
        role: role.to_owned(),
        state: replication.filter(|state| !state.is_empty()).unwrap_or(&member.state).to_owned(),
        api_url: member.api_url.clone(),
        host,
        port: port.map(|port| port.unwrap_or(5432)),
        timeline: member.timeline.map(|timeline| timeline.0),
        pending_restart: member.pending_restart_flag || !member.pending_restart.is_empty(),
        pending_reason: member
            .pending_restart
            .iter()
            .map(|(parameter, (old, new))| (parameter.clone(), old.clone(), new.clone()))
            .collect(),
        scheduled_restart: member.scheduled_restart.as_ref().and_then(scheduled_restart),
        tags: member.tags.clone(),
        receive: place(member.receive_lsn),
        replay: place(member.replay_lsn),
        position: place(member.xlog_location),
    }
}

fn scheduled_restart(value: &Value) -> Option<(String, Option<String>)> {
    let schedule = value.get("schedule")?.as_str()?.to_owned();
    Some((schedule, value.get("postgres_version").and_then(Value::as_str).map(str::to_owned)))
}

fn entry_from_json(member: &Value) -> Entry {
    let text = |key: &str| member.get(key).and_then(Value::as_str).map(str::to_owned);
    let place = |location: &str| {
        let lsn = member.get(format!("{location}lsn"))?.as_str()?.to_owned();
        let lag = member.get(format!("{location}lag")).and_then(Value::as_u64);
        Some(Place((lsn != "unknown").then_some((lsn, lag.unwrap_or_default()))))
    };
    let reasons = member.get("pending_restart_reason").and_then(Value::as_object);
    Entry {
        name: text("name").unwrap_or_default(),
        role: text("role").unwrap_or_default(),
        state: text("state").unwrap_or_default(),
        api_url: text("api_url"),
        host: text("host"),
        port: member.get("port").and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok()),
        timeline: member.get("timeline").and_then(Value::as_u64).and_then(|tl| u32::try_from(tl).ok()),
        pending_restart: member.get("pending_restart").and_then(Value::as_bool).unwrap_or(false),
        pending_reason: reasons
            .into_iter()
            .flatten()
            .map(|(parameter, change)| {
                let side = |key| change.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
                (parameter.clone(), side("old_value"), side("new_value"))
            })
            .collect(),
        scheduled_restart: member.get("scheduled_restart").and_then(scheduled_restart),
        tags: member
            .get("tags")
            .and_then(Value::as_object)
            .map(|tags| tags.iter().map(|(key, value)| (key.clone(), value.clone())).collect())
            .unwrap_or_default(),
        receive: place("receive_"),
        replay: place("replay_"),
        position: place(""),
    }
}

/// Host and port of a `postgres://host:port/database` URL; the port if it is written.
#[must_use]
pub fn address(url: &str) -> Option<(String, Option<u16>)> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?']).next()?;
    let host_port = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let (host, port) = match host_port.strip_prefix('[') {
        Some(bracketed) => {
            let (host, rest) = bracketed.split_once(']')?;
            (host, rest.strip_prefix(':'))
        }
        None => host_port.split_once(':').map_or((host_port, None), |(host, port)| (host, Some(port))),
    };
    (!host.is_empty()).then(|| (host.to_lowercase(), port.and_then(|port| port.parse().ok())))
}
