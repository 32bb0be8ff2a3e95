//! What a stopped (or running) instance's control file says.
//!
//! Owns two readings: everything, through `pg_controldata`; and the head of the file, read
//! directly, for waits that would otherwise start a program every few milliseconds.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use dcs::{Lsn, SystemId, Timeline};

use super::Paths;
use crate::command::{CommandError, Program};

/// How long `pg_controldata` may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// The control file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// `pg_controldata` failed.
    #[error("the control file could not be read: {0}")]
    Run(#[from] CommandError),
    /// It printed something without a field that is always there.
    #[error("pg_controldata printed no usable {field:?}; the control file may be damaged")]
    Field {
        /// The field's label.
        field: &'static str,
    },
}

/// What the server was doing when it last wrote its control file (`enum DBState`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// `starting up`: initdb has not finished.
    StartingUp,
    /// `shut down`: a primary that ended cleanly.
    ShutDown,
    /// `shut down in recovery`: a standby that ended cleanly.
    ShutDownInRecovery,
    /// `shutting down`.
    ShuttingDown,
    /// `in crash recovery`.
    InCrashRecovery,
    /// `in archive recovery`: a standby.
    InArchiveRecovery,
    /// `in production`: a primary.
    InProduction,
}

impl State {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "starting up" => Self::StartingUp,
            "shut down" => Self::ShutDown,
            "shut down in recovery" => Self::ShutDownInRecovery,
            "shutting down" => Self::ShuttingDown,
            "in crash recovery" => Self::InCrashRecovery,
            "in archive recovery" => Self::InArchiveRecovery,
            "in production" => Self::InProduction,
            _ => return None,
        })
    }

    fn from_number(number: u32) -> Option<Self> {
        let all = [
            Self::StartingUp,
            Self::ShutDown,
            Self::ShutDownInRecovery,
            Self::ShuttingDown,
            Self::InCrashRecovery,
            Self::InArchiveRecovery,
            Self::InProduction,
        ];
        all.get(usize::try_from(number).ok()?).copied()
    }
}

/// Everything that `pg_controldata` says and somebody here needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlFile {
    /// The identity of the database cluster.
    pub system_id: SystemId,
    /// What it was doing.
    pub state: State,
    /// Where the latest checkpoint record begins.
    pub checkpoint: Lsn,
    /// Where recovery from it begins.
    pub redo: Lsn,
    /// The timeline of the latest checkpoint.
    pub timeline: Timeline,
    /// The timeline before it.
    pub previous_timeline: Timeline,
    /// How far a standby must replay to be consistent; 0 if that does not apply.
    pub min_recovery: Lsn,
    /// The timeline of `min_recovery`; 0 if that does not apply.
    pub min_recovery_timeline: Timeline,
    /// `wal_log_hints` when it last ran.
    pub wal_log_hints: bool,
    /// Whether data pages carry checksums.
    pub checksums: bool,
    /// Bytes per WAL segment.
    pub wal_segment_size: u64,
    /// The values of the last primary below which a standby must not go: parameter → value (P147).
    pub limits: BTreeMap<&'static str, i64>,
}

impl ControlFile {
    /// Whether `pg_rewind` can work on this directory (patroni-compat 5.10).
    pub fn allows_rewind(&self) -> bool {
        self.wal_log_hints || self.checksums
    }
}

/// The label of `pg_controldata` → the parameter that must not be lower on a standby.
const LIMITS: [(&str, &str); 5] = [
    ("max_connections setting", "max_connections"),
    ("max_prepared_xacts setting", "max_prepared_transactions"),
    ("max_locks_per_xact setting", "max_locks_per_transaction"),
    ("max_worker_processes setting", "max_worker_processes"),
    ("max_wal_senders setting", "max_wal_senders"),
];

/// Reads everything with `pg_controldata`.
pub async fn read(paths: &Paths) -> Result<ControlFile, ControlError> {
    read_from(paths, &paths.data_dir).await
}

/// Reads the control file of some other directory, such as an unfinished clone.
pub async fn read_from(paths: &Paths, data_dir: &Path) -> Result<ControlFile, ControlError> {
    let program = Program::new(paths.program("pg_controldata")).arg("-D").arg(data_dir).in_c_locale();
    parse(&program.succeed(DEADLINE).await?.text())
}

fn parse(text: &str) -> Result<ControlFile, ControlError> {
    let fields: BTreeMap<&str, &str> =
        text.lines().filter_map(|line| line.split_once(':')).map(|(k, v)| (k.trim(), v.trim())).collect();
    let get = |field: &'static str| fields.get(field).copied().ok_or(ControlError::Field { field });
    let lsn = |field| get(field)?.parse::<Lsn>().map_err(|_| ControlError::Field { field });
    let number = |field| get(field)?.parse::<u64>().map_err(|_| ControlError::Field { field });
    let timeline = |field| get(field)?.parse().map(Timeline).map_err(|_| ControlError::Field { field });
    let limits = LIMITS.iter().filter_map(|(label, name)| Some((*name, fields.get(label)?.parse().ok()?)));
    Ok(ControlFile {
        system_id: SystemId(number("Database system identifier")?),
        state: State::parse(get("Database cluster state")?)
            .ok_or(ControlError::Field { field: "Database cluster state" })?,
        checkpoint: lsn("Latest checkpoint location")?,
        redo: lsn("Latest checkpoint's REDO location")?,
        timeline: timeline("Latest checkpoint's TimeLineID")?,
        previous_timeline: timeline("Latest checkpoint's PrevTimeLineID")?,
        min_recovery: lsn("Minimum recovery ending location")?,
        min_recovery_timeline: timeline("Min recovery ending loc's timeline")?,
        wal_log_hints: get("wal_log_hints setting")? == "on",
        checksums: number("Data page checksum version")? != 0,
        wal_segment_size: number("Bytes per WAL segment")?,
        limits: limits.collect(),
    })
}

/// The first fields of the control file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The identity of the database cluster.
    pub system_id: SystemId,
    /// What the server is or was doing.
    pub state: State,
    /// Where the latest checkpoint record begins.
    pub checkpoint: Lsn,
    /// Where recovery from it begins.
    pub redo: Lsn,
    /// The timeline of the latest checkpoint.
    pub timeline: Timeline,
}

/// Reads the head of the control file. `None` if it is missing, cut short, or of a format that
/// this function does not know; `read` then tells more.
///
/// The offsets are those of `ControlFileData` (`catalog/pg_control.h`), the same for every
/// `pg_control_version` listed below. The server replaces the file's first sector in one write, and all fields
/// read here lie in its first 56 bytes, so a reader sees them all old or all new.
pub fn head(data_dir: &Path) -> Option<Head> {
    let mut bytes = [0_u8; 56];
    std::fs::File::open(data_dir.join("global/pg_control")).ok()?.read_exact(&mut bytes).ok()?;
    let long = |at: usize| Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let word = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    // 1201: Postgres 12, 1300: 13 to 16, 1700: 17, 1800: 18.
    if ![1201, 1300, 1700, 1800].contains(&word(8)?) {
        return None;
    }
    Some(Head {
        system_id: SystemId(long(0)?),
        state: State::from_number(word(16)?)?,
        checkpoint: Lsn(long(32)?),
        redo: Lsn(long(40)?),
        timeline: Timeline(word(48)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINTED: &str = "\
pg_control version number:            1300
Database system identifier:           7412345678901234567
Database cluster state:               shut down in recovery
Latest checkpoint location:           0/5000060
Latest checkpoint's REDO location:    0/5000028
Latest checkpoint's TimeLineID:       2
Latest checkpoint's PrevTimeLineID:   1
Minimum recovery ending location:     0/50000D8
Min recovery ending loc's timeline:   2
wal_log_hints setting:                on
max_connections setting:              100
max_worker_processes setting:         8
max_wal_senders setting:              10
max_prepared_xacts setting:           0
max_locks_per_xact setting:           64
Bytes per WAL segment:                16777216
Data page checksum version:           0
";

    #[test]
    fn pg_controldata_is_understood() {
        let data = parse(PRINTED).unwrap();
        assert_eq!(data.system_id, SystemId(7_412_345_678_901_234_567));
        assert_eq!(data.state, State::ShutDownInRecovery);
        assert_eq!((data.checkpoint, data.redo), (Lsn(0x500_0060), Lsn(0x500_0028)));
        assert_eq!((data.min_recovery, data.min_recovery_timeline), (Lsn(0x500_00D8), Timeline(2)));
        assert!(data.allows_rewind() && !data.checksums);
        assert_eq!(data.limits.get("max_locks_per_transaction"), Some(&64));
        assert_eq!(data.limits.len(), 5);
    }

    #[test]
    fn a_missing_field_is_named() {
        let error = parse(&PRINTED.replace("Latest checkpoint location", "Something")).unwrap_err();
        assert!(error.to_string().contains("Latest checkpoint location"), "{error}");
    }

    #[test]
    fn a_damaged_control_file_has_no_head() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(head(dir.path()), None);
        std::fs::create_dir(dir.path().join("global")).unwrap();
        std::fs::write(dir.path().join("global/pg_control"), [7_u8; 20]).unwrap();
        assert_eq!(head(dir.path()), None);
        std::fs::write(dir.path().join("global/pg_control"), [7_u8; 8192]).unwrap();
        assert_eq!(head(dir.path()), None);
    }
}
