//! The keys of the dynamic configuration (the store's `config` key and
//! `bootstrap.dcs`), and those that may stand there or in a node's file.

use super::{Key, Reach};
use crate::kind::{COUNT, Kind};

const fn dynamic(path: &'static str, kind: Kind, default: &'static str, says: &'static str) -> Key {
    Key::new(Reach::Dynamic, path, kind, default, says)
}

const fn both(path: &'static str, kind: Kind, default: &'static str, says: &'static str) -> Key {
    Key::new(Reach::Both, path, kind, default, says)
}

pub(super) const KEYS: &[Key] = &[
    dynamic(
        "ttl",
        Kind::Seconds(2),
        "10 in a new cluster, else 30",
        "How long the leader's lease lives without renewal.",
    ),
    dynamic(
        "loop_wait",
        Kind::Seconds(0),
        "10",
        "The longest time between two turns; events wake a node at once.",
    ),
    dynamic("retry_timeout", Kind::Seconds(0), "10", "How long an operation on the store may be retried."),
    dynamic("maximum_lag_on_failover", Kind::Bytes(0), "1048576", "How many bytes a candidate may lack."),
    dynamic(
        "maximum_lag_on_syncnode",
        Kind::BytesOrOff,
        "-1",
        "How many bytes a synchronous standby may lack; -1 is any number.",
    ),
    dynamic("max_timelines_history", COUNT, "0", "How many timelines the history keeps; 0 keeps all."),
    dynamic(
        "primary_start_timeout",
        Kind::Seconds(0),
        "300",
        "How long a leader may take to start; 0 fails over at once.",
    ),
    dynamic("master_start_timeout", Kind::Seconds(0), "300", "The old name of primary_start_timeout."),
    dynamic(
        "primary_stop_timeout",
        Kind::Seconds(0),
        "0",
        "How long a leader may take to stop; 0 is no limit.",
    ),
    dynamic("master_stop_timeout", Kind::Seconds(0), "0", "The old name of primary_stop_timeout."),
    dynamic(
        "primary_race_backoff",
        Kind::Seconds(0),
        "0",
        "How long candidates wait while WAL still flows from a primary that lost its lease; 0 is not at all.",
    ),
    dynamic("synchronous_mode", Kind::BoolOr(&["quorum"]), "off", "Which commits wait for standbys."),
    dynamic(
        "synchronous_mode_strict",
        Kind::Bool,
        "off",
        "Commits wait even when no standby can acknowledge.",
    ),
    dynamic(
        "synchronous_node_count",
        Kind::Integer(1, i64::MAX),
        "1",
        "How many standbys acknowledge a commit.",
    ),
    dynamic("failsafe_mode", Kind::Bool, "off", "The leader outlives the store while all members agree."),
    dynamic("check_timeline", Kind::Bool, "off", "Refuse candidates on an older timeline."),
    dynamic("pause", Kind::Bool, "off", "Operators have taken over."),
    dynamic("member_slots_ttl", Kind::Seconds(0), "30min", "How long the slot of a vanished member is kept."),
    dynamic("slots", Kind::Section, "", "Permanent replication slots.").later(),
    dynamic("permanent_replication_slots", Kind::Section, "", "An old name of slots.").later(),
    dynamic("permanent_slots", Kind::Section, "", "An old name of slots.").later(),
    dynamic("ignore_slots", Kind::Anything, "", "Replication slots that belong to somebody else.").later(),
    dynamic("standby_cluster.host", Kind::Text, "", "The server that this whole cluster follows.")
        .withholds(),
    dynamic("standby_cluster.port", Kind::Integer(1, 65_535), "5432", "The port of that server.").withholds(),
    dynamic("standby_cluster.primary_slot_name", Kind::Text, "", "The slot to stream from it.").later(),
    dynamic(
        "standby_cluster.create_replica_methods",
        Kind::Names,
        "",
        "How the first member is cloned from it.",
    )
    .later(),
    dynamic("standby_cluster.restore_command", Kind::Text, "", "How its archived WAL is fetched.")
        .withholds(),
    dynamic("standby_cluster.archive_cleanup_command", Kind::Text, "", "How replayed WAL is cleaned up.")
        .later(),
    dynamic("standby_cluster.recovery_min_apply_delay", Kind::Text, "", "How far replay stays behind.")
        .later(),
    dynamic("postgresql.use_slots", Kind::Bool, "on", "Members stream through replication slots."),
    both("postgresql.parameters", Kind::Texts, "", "Postgres's own parameters."),
    both("postgresql.parameters_primary", Kind::Texts, "", "Parameters on the primary only.").later(),
    both("postgresql.parameters_replica", Kind::Texts, "", "Parameters on replicas only.").later(),
    both("postgresql.parameters_standby_leader", Kind::Texts, "", "Parameters on a standby leader only.")
        .later(),
    both("postgresql.pg_hba", Kind::Lines, "", "The whole of pg_hba.conf."),
    both("postgresql.pg_hba_primary", Kind::Lines, "", "pg_hba.conf on the primary.").later(),
    both("postgresql.pg_hba_replica", Kind::Lines, "", "pg_hba.conf on replicas.").later(),
    both("postgresql.pg_hba_standby_leader", Kind::Lines, "", "pg_hba.conf on a standby leader.").later(),
    both("postgresql.pg_ident", Kind::Lines, "", "The whole of pg_ident.conf."),
    both("postgresql.pg_ident_primary", Kind::Lines, "", "pg_ident.conf on the primary.").later(),
    both("postgresql.pg_ident_replica", Kind::Lines, "", "pg_ident.conf on replicas.").later(),
    both("postgresql.pg_ident_standby_leader", Kind::Lines, "", "pg_ident.conf on a standby leader.").later(),
    both(
        "postgresql.recovery_conf",
        Kind::Texts,
        "",
        "Recovery parameters of replicas, such as restore_command.",
    ),
    both("postgresql.use_pg_rewind", Kind::Bool, "off", "A former leader whose history diverged is rewound."),
    both("postgresql.rewind", Kind::Options, "", "Options of pg_rewind."),
    both("postgresql.basebackup", Kind::Options, "", "Options of pg_basebackup."),
    both(
        "postgresql.remove_data_directory_on_rewind_failure",
        Kind::Bool,
        "off",
        "After a failed rewind the data directory may be moved aside and cloned anew.",
    ),
    both(
        "postgresql.remove_data_directory_on_diverged_timelines",
        Kind::Bool,
        "off",
        "A diverged data directory may be moved aside and cloned anew.",
    ),
    both(
        "postgresql.create_replica_methods",
        Kind::Names,
        "basebackup",
        "How a replica is made, in order of preference.",
    ),
    both(
        "postgresql.create_replica_method",
        Kind::Names,
        "basebackup",
        "The old name of create_replica_methods.",
    ),
    both("postgresql.callbacks.on_start", Kind::Text, "", "A command run after Postgres started.").later(),
    both("postgresql.callbacks.on_stop", Kind::Text, "", "A command run after Postgres stopped.").later(),
    both("postgresql.callbacks.on_restart", Kind::Text, "", "A command run after Postgres was restarted.")
        .later(),
    both("postgresql.callbacks.on_reload", Kind::Text, "", "A command run after a reload.").later(),
    both("postgresql.callbacks.on_role_change", Kind::Text, "", "A command run after the role changed.")
        .later(),
    both(
        "postgresql.pre_promote",
        Kind::Text,
        "",
        "A command that must succeed before this node is promoted.",
    )
    .withholds(),
    both("postgresql.before_stop", Kind::Text, "", "A command run before Postgres is stopped.").later(),
    both(
        "postgresql.pg_ctl_timeout",
        Kind::Seconds(0),
        "60",
        "How long starting and stopping Postgres may take; a standby's start is waited for at most 5 s and watched from then on.",
    ),
    // Matriarch's own.
    both(
        "matriarch.rewind",
        Kind::OneOf(&["capsule", "never"]),
        "capsule",
        "Whether pg_rewind may run; before it does, the WAL it would lose is copied aside.",
    ),
    both(
        "matriarch.single",
        Kind::Bool,
        "off",
        "This cluster has one member on purpose: no warnings about missing replicas.",
    ),
    Key::new(
        Reach::Local,
        "matriarch.vault_dir",
        Kind::Path,
        "<data_dir>.vault",
        "Where data directories are moved that are out of use.",
    ),
    Key::new(
        Reach::Local,
        "matriarch.recorder.dir",
        Kind::Path,
        "<data_dir>.turns",
        "Where the node keeps its last decisions and what it saw; read at the start.",
    ),
    Key::new(
        Reach::Local,
        "matriarch.recorder.size",
        Kind::Bytes(0),
        "16MB",
        "How much of them it keeps at most; 0 keeps none. Read at the start.",
    ),
];
