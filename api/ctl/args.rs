//! The command line: every command, argument and option, with its help.
//! The reference page docs/src/reference/cli.md is generated from here.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::output::Format;
use crate::store::Store;

/// Look at and steer a matriarch or Patroni cluster.
#[derive(Debug, Parser)]
#[command(name = "matriarchctl", version, max_term_width = 100, arg_required_else_help = true)]
pub struct Arguments {
    /// Configuration file: a node's file, or one with the store's section only.
    /// [env: MATRIARCHCTL_CONFIG_FILE, PATRONICTL_CONFIG_FILE] [default: ~/.config/patroni/patronictl.yaml]
    #[arg(short = 'c', long, value_name = "FILE")]
    pub config_file: Option<PathBuf>,
    /// The store, as etcd://HOST:PORT/NAMESPACE; replaces the one in the configuration file
    #[arg(short = 'd', long = "dcs-url", visible_alias = "dcs", env = "DCS_URL", value_name = "URL")]
    pub dcs_url: Option<String>,
    /// Do not check the certificates of the members' REST interfaces
    #[arg(short = 'k', long)]
    pub insecure: bool,
    /// REST interface of any member, asked when the store cannot be reached
    #[arg(long, env = "MATRIARCHCTL_URL", value_name = "URL")]
    pub url: Option<String>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show the members: role, state, timeline, lag
    List(List),
    /// Show the members as a tree of who streams from whom
    Topology(Topology),
    /// Show past failovers and switchovers
    History {
        #[command(flatten)]
        cluster: ClusterName,
        /// How to write them
        #[arg(short, long, value_enum, default_value = "pretty")]
        format: Format,
    },
    /// Show the versions of matriarchctl, of the members and of their Postgres
    Version {
        /// The cluster; without it only matriarchctl's own version is shown
        cluster: Option<String>,
        /// Only these members
        members: Vec<String>,
    },
    /// Print host and port of a member, by default of the leader
    Dsn {
        #[command(flatten)]
        cluster: ClusterName,
        #[command(flatten)]
        whom: Whom,
    },
    /// Run SQL on a member, by default on the leader
    Query(Query),
    /// Show the settings that the cluster shares
    ShowConfig {
        #[command(flatten)]
        cluster: ClusterName,
    },
    /// Change the settings that the cluster shares
    EditConfig(EditConfig),
    /// Say why each member does what it does, and what keeps it from becoming leader
    Why(Why),
    /// Hand leadership to a healthy replica, losing nothing
    Switchover(Switchover),
    /// Make a replica the leader, even if there is no healthy leader
    Failover {
        #[command(flatten)]
        cluster: ClusterName,
        /// Who shall lead
        #[arg(long, value_name = "MEMBER")]
        candidate: Option<String>,
        #[command(flatten)]
        force: Force,
    },
    /// Restart Postgres on members
    Restart(Restart),
    /// Let members read their configuration again
    Reload {
        #[command(flatten)]
        members: Members,
        /// Only members with this role
        #[arg(short, long, value_enum, default_value = "any")]
        role: Role,
        #[command(flatten)]
        force: Force,
    },
    /// Clone replicas anew
    Reinit {
        #[command(flatten)]
        members: Members,
        /// Clone from the leader, whatever the configuration prefers
        #[arg(long)]
        from_leader: bool,
        /// Wait until the clone is complete
        #[arg(long)]
        wait: bool,
        #[command(flatten)]
        force: Force,
    },
    /// Switch automatic failover off
    Pause(Pause),
    /// Switch automatic failover on again
    Resume(Pause),
    /// Discard a scheduled restart or switchover
    Flush {
        /// CLUSTER [MEMBER]... restart|switchover
        #[arg(required = true, num_args = 1.., value_name = "CLUSTER [MEMBER]... restart|switchover")]
        words: Vec<String>,
        /// Only members with this role
        #[arg(short, long, value_enum, default_value = "any")]
        role: Role,
        #[command(flatten)]
        force: Force,
    },
    /// Stop a member's daemon for an upgrade and leave its Postgres running
    Handover {
        #[command(flatten)]
        members: Members,
        #[command(flatten)]
        force: Force,
    },
    /// Show and change the members of the embedded store, move to another store, back up and restore
    Store {
        #[command(subcommand)]
        verb: Store,
    },
    /// Remove everything the store knows of a cluster; Postgres and its data stay
    Remove {
        /// The cluster
        cluster: String,
        /// How to show the members first
        #[arg(short, long, value_enum, default_value = "pretty")]
        format: Format,
    },
}

/// The cluster a command is about.
#[derive(Debug, Args)]
pub struct ClusterName {
    /// The cluster [default: scope of the configuration file]
    pub cluster: Option<String>,
}

/// The members a command is about.
#[derive(Debug, Args)]
pub struct Members {
    /// The cluster [default: scope of the configuration file]
    pub cluster: Option<String>,
    /// Only these members
    pub members: Vec<String>,
}

/// Whether to ask first.
#[derive(Debug, Args)]
pub struct Force {
    /// Do not ask
    #[arg(long, visible_alias = "yes", short_alias = 'y')]
    pub force: bool,
}

/// Repetition.
#[derive(Debug, Args, Clone, Copy)]
pub struct Watch {
    /// Show it again every 2 seconds
    #[arg(short = 'W')]
    pub every_two: bool,
    /// Show it again every so many seconds
    #[arg(short = 'w', long = "watch", value_name = "SECONDS")]
    pub every: Option<f64>,
}

/// One member by role or name.
#[derive(Debug, Args)]
pub struct Whom {
    /// A member with this role
    #[arg(short, long, value_enum, conflicts_with = "member")]
    pub role: Option<Role>,
    /// This member
    #[arg(short, long)]
    pub member: Option<String>,
}

/// What a member is to the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Holds the leader lease.
    Leader,
    /// Leads and accepts writes.
    Primary,
    /// Leads a cluster that follows another one.
    StandbyLeader,
    /// Does not lead.
    Replica,
    /// The same as replica.
    Standby,
    /// Whatever.
    Any,
}

/// `list`.
#[derive(Debug, Args)]
pub struct List {
    /// The clusters [default: scope of the configuration file]
    pub clusters: Vec<String>,
    /// Always show pending and scheduled restarts and tags
    #[arg(short, long)]
    pub extended: bool,
    /// Print the time first
    #[arg(short, long)]
    pub timestamp: bool,
    /// How to write it
    #[arg(short, long, value_enum, default_value = "pretty")]
    pub format: Format,
    #[command(flatten)]
    pub watch: Watch,
}

/// `topology`.
#[derive(Debug, Args)]
pub struct Topology {
    /// The clusters [default: scope of the configuration file]
    pub clusters: Vec<String>,
    #[command(flatten)]
    pub watch: Watch,
}

/// `why`.
#[derive(Debug, Args)]
pub struct Why {
    #[command(flatten)]
    pub cluster: ClusterName,
    /// Only this member
    #[arg(short, long)]
    pub member: Option<String>,
    /// Show the last so many decisions, oldest first
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub last: Option<u32>,
    /// Show the decisions since then: a time, ISO 8601, or how long ago, such as 90min or 12h
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Read the decisions of a node from its disk, without asking anybody: its matriarch.recorder.dir, or a file in it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["cluster", "member"])]
    pub file: Option<PathBuf>,
    /// How to write it
    #[arg(short, long, value_enum, default_value = "pretty")]
    pub format: Format,
}

/// `query`.
#[derive(Debug, Args)]
pub struct Query {
    #[command(flatten)]
    pub cluster: ClusterName,
    /// The SQL to run
    #[arg(short = 'c', long, conflicts_with = "file", required_unless_present = "file")]
    pub command: Option<String>,
    /// Run the SQL of this file
    #[arg(short, long)]
    pub file: Option<PathBuf>,
    /// How to write the rows
    #[arg(long, value_enum, default_value = "tsv")]
    pub format: Format,
    /// Parts the cells of tsv
    #[arg(long, default_value = "\t")]
    pub delimiter: String,
    /// Database user [default: PGUSER, else the system user]
    #[arg(short = 'U', long)]
    pub username: Option<String>,
    /// Ask for the password [otherwise: PGPASSWORD]
    #[arg(long)]
    pub password: bool,
    /// Database [default: the user's name]
    #[arg(short, long)]
    pub dbname: Option<String>,
    #[command(flatten)]
    pub whom: Whom,
    #[command(flatten)]
    pub watch: Watch,
}

/// `edit-config`.
#[derive(Debug, Args)]
pub struct EditConfig {
    #[command(flatten)]
    pub cluster: ClusterName,
    /// Do not show the changes
    #[arg(short, long)]
    pub quiet: bool,
    /// Set one value, as a.b.c=value; an empty value removes the key
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Set one Postgres parameter
    #[arg(short, long, value_name = "PARAMETER=VALUE")]
    pub pg: Vec<String>,
    /// Merge this YAML file into the settings; - is standard input
    #[arg(long, value_name = "FILE")]
    pub apply: Option<String>,
    /// Replace the settings by this YAML file; - is standard input
    #[arg(long, value_name = "FILE")]
    pub replace: Option<String>,
    #[command(flatten)]
    pub force: Force,
}

/// `switchover`.
#[derive(Debug, Args)]
pub struct Switchover {
    #[command(flatten)]
    pub cluster: ClusterName,
    /// Who leads now
    #[arg(long, visible_alias = "primary", value_name = "MEMBER")]
    pub leader: Option<String>,
    /// Who shall lead; without it the best replica does
    #[arg(long, value_name = "MEMBER")]
    pub candidate: Option<String>,
    /// When, ISO 8601 with a time zone; "now" is at once
    #[arg(long, value_name = "TIME")]
    pub scheduled: Option<String>,
    #[command(flatten)]
    pub force: Force,
}

/// `restart`.
#[derive(Debug, Args)]
pub struct Restart {
    #[command(flatten)]
    pub members: Members,
    /// Only members with this role
    #[arg(short, long, value_enum, default_value = "any")]
    pub role: Role,
    /// Only one of them, chosen at random
    #[arg(long)]
    pub any: bool,
    /// When, ISO 8601 with a time zone; "now" is at once
    #[arg(long, value_name = "TIME")]
    pub scheduled: Option<String>,
    /// Only where Postgres is older than this version
    #[arg(long, value_name = "VERSION")]
    pub pg_version: Option<String>,
    /// Only where a restart is pending
    #[arg(long)]
    pub pending: bool,
    /// Report failure, and fail over if need be, when a restart takes longer than this
    #[arg(long, value_name = "SECONDS")]
    pub timeout: Option<String>,
    #[command(flatten)]
    pub force: Force,
}

/// `pause` and `resume`.
#[derive(Debug, Args)]
pub struct Pause {
    #[command(flatten)]
    pub cluster: ClusterName,
    /// Wait until every member has noticed
    #[arg(long)]
    pub wait: bool,
}
