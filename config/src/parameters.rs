//! Which Postgres parameters belong to the coordinator: passed on the command
//! line, the same on every member, bounded, never smaller on a standby than on
//! its primary (patroni-compat 3.5).

use std::collections::BTreeMap;

use crate::problem::{Place, Problem};
use crate::quantity;

/// What a parameter of ours accepts.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Accepts {
    AtLeast(i64),
    Mebibytes(u64),
    Boolean,
    /// Must be on.
    On,
    WalLevel,
    /// Never from the parameters: the coordinator knows it.
    Nothing,
}

/// A parameter of ours.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Owned {
    pub(crate) name: &'static str,
    pub(crate) default: &'static str,
    pub(crate) accepts: Accepts,
}

const fn owned(name: &'static str, default: &'static str, accepts: Accepts) -> Owned {
    Owned { name, default, accepts }
}

/// The parameters that only the dynamic configuration may set, with Patroni's defaults and minimums.
pub(crate) const OWNED: &[Owned] = &[
    owned("listen_addresses", "", Accepts::Nothing),
    owned("port", "", Accepts::Nothing),
    owned("cluster_name", "", Accepts::Nothing),
    owned("wal_level", "replica", Accepts::WalLevel),
    owned("hot_standby", "on", Accepts::On),
    owned("max_connections", "100", Accepts::AtLeast(25)),
    owned("max_wal_senders", "10", Accepts::AtLeast(3)),
    owned("wal_keep_segments", "8", Accepts::AtLeast(1)),
    owned("wal_keep_size", "128MB", Accepts::Mebibytes(16)),
    owned("max_prepared_transactions", "0", Accepts::AtLeast(0)),
    owned("max_locks_per_transaction", "64", Accepts::AtLeast(32)),
    owned("track_commit_timestamp", "off", Accepts::Boolean),
    owned("max_replication_slots", "10", Accepts::AtLeast(4)),
    owned("max_worker_processes", "8", Accepts::AtLeast(2)),
    owned("wal_log_hints", "on", Accepts::Boolean),
];

/// Recovery parameters that an operator may set for replicas.
pub(crate) const RECOVERY: &[&str] = &[
    "restore_command",
    "archive_cleanup_command",
    "recovery_end_command",
    "recovery_min_apply_delay",
    "promote_trigger_file",
    "trigger_file",
];

/// Recovery parameters that the coordinator alone decides.
pub(crate) const FOLLOWING: &[&str] = &[
    "primary_conninfo",
    "primary_slot_name",
    "standby_mode",
    "recovery_target",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_xid",
    "recovery_target_lsn",
    "recovery_target_inclusive",
    "recovery_target_timeline",
    "recovery_target_action",
];

/// Parameters that are written to postgresql.conf only, not on the command line.
const FILE_ONLY: &[&str] = &["wal_keep_segments", "wal_keep_size"];

/// Parameters that a standby may not set lower than its primary did.
pub const NEVER_SHRINK: &[&str] = &[
    "max_connections",
    "max_prepared_transactions",
    "max_locks_per_transaction",
    "max_worker_processes",
    "max_wal_senders",
];

/// The parameter of ours with this name.
pub(crate) fn find(name: &str) -> Option<&'static Owned> {
    OWNED.iter().find(|owned| owned.name == name)
}

/// Whether only the dynamic configuration may set this parameter.
#[must_use]
pub fn is_ours(name: &str) -> bool {
    find(name).is_some()
}

/// Whether this parameter goes onto Postgres's command line, so that changing it needs a restart.
#[must_use]
pub fn on_command_line(name: &str) -> bool {
    is_ours(name) && !FILE_ONLY.contains(&name)
}

impl Owned {
    /// What to say about a value that it cannot take.
    pub(crate) fn refusal(&self, place: &Place, path: &str, value: &str) -> Problem {
        let found = match self.accepts {
            Accepts::Nothing => "is ignored, because matriarch sets it itself".to_owned(),
            _ => format!("is {value:?}, which it cannot be; {} is used", self.default),
        };
        let advice = match self.accepts {
            Accepts::Nothing => "remove it".to_owned(),
            accepts => format!("write {}", accepts.wanted()),
        };
        Problem::warning(place, path, found, advice)
    }
}

impl Accepts {
    pub(crate) fn accepts(self, text: &str) -> bool {
        match self {
            Self::AtLeast(low) => quantity::integer(text).is_some_and(|n| n >= low),
            Self::Mebibytes(low) => quantity::mebibytes(text).is_some_and(|n| n >= low),
            Self::Boolean => quantity::boolean(text).is_some(),
            Self::On => quantity::boolean(text) == Some(true),
            Self::WalLevel => matches!(text, "hot_standby" | "replica" | "logical"),
            Self::Nothing => false,
        }
    }

    /// An accepted value as Postgres reads it in every version: whole numbers in plain digits.
    pub(crate) fn plainly(self, text: String) -> String {
        match self {
            Self::AtLeast(_) => quantity::integer(&text).map_or(text, |number| number.to_string()),
            _ => text,
        }
    }

    pub(crate) fn wanted(self) -> String {
        match self {
            Self::AtLeast(low) => format!("a whole number of at least {low}"),
            Self::Mebibytes(low) => format!("a size of at least {low}MB"),
            Self::Boolean => "on or off".to_owned(),
            Self::On => "on".to_owned(),
            Self::WalLevel => "replica or logical".to_owned(),
            Self::Nothing => "nothing".to_owned(),
        }
    }
}

/// A parameter that is kept larger than wanted, until a restart after the primary has shrunk it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// What the configuration wants.
    pub wanted: String,
    /// What `pg_control` says the primary had, and is used.
    pub used: String,
}

/// Raises what a standby may not set lower than `pg_control` says; what was raised is pending a restart.
pub fn keep_for_standby(
    parameters: &mut BTreeMap<String, String>,
    pg_control: &BTreeMap<String, i64>,
) -> BTreeMap<String, Kept> {
    let mut kept = BTreeMap::new();
    for name in NEVER_SHRINK {
        let (Some(value), Some(floor)) = (parameters.get_mut(*name), pg_control.get(*name)) else {
            continue;
        };
        if quantity::integer(value).is_some_and(|wanted| wanted < *floor) {
            let used = floor.to_string();
            let wanted = std::mem::replace(value, used.clone());
            kept.insert((*name).to_owned(), Kept { wanted, used });
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    // P147
    #[test]
    fn a_standby_keeps_the_larger_value_of_pg_control() {
        let mut parameters = BTreeMap::from([
            ("max_connections".to_owned(), "50".to_owned()),
            ("max_worker_processes".to_owned(), "16".to_owned()),
        ]);
        let pg_control = BTreeMap::from([
            ("max_connections".to_owned(), 100),
            ("max_worker_processes".to_owned(), 8),
            ("max_wal_senders".to_owned(), 10),
        ]);
        let kept = keep_for_standby(&mut parameters, &pg_control);
        assert_eq!(parameters["max_connections"], "100");
        assert_eq!(parameters["max_worker_processes"], "16");
        assert_eq!(
            kept,
            BTreeMap::from([(
                "max_connections".to_owned(),
                Kept { wanted: "50".to_owned(), used: "100".to_owned() }
            )])
        );
    }
}
