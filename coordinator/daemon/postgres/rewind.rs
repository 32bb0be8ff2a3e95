//! Bringing back a server whose history left the leader's: crash recovery, then `pg_rewind`.
//!
//! Owns the programs and their order. A rewind is marked beside the data directory before it touches anything
//! (F15), and what it will throw away has been copied by custody first: both are arguments here.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use config::Arguments;
use dcs::{Lsn, Timeline};

use super::archive::{ARCHIVE, archive_ready, archiver};
use super::conninfo::write_pgpass;
use super::controldata::{self, ControlError, ControlFile, State};
use super::run;
use super::{Conninfo, Paths, Stopped, Target, files, off_loop};
use crate::command::{CommandError, Program};
use crate::custody::Capsule;
use crate::custody::marker::{Mark, Work};

/// How long `pg_waldump` may take for a few records.
const GLANCE: Duration = Duration::from_secs(30);
/// How long a rewind may take; it is a job that can be cancelled, this only ends what hangs for ever.
const DEADLINE: Duration = Duration::from_secs(24 * 3600);

/// The directory was not brought back.
#[derive(Debug, thiserror::Error)]
pub enum RewindError {
    /// A file could not be written.
    #[error("{what}: {source}")]
    Files {
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// A program failed.
    #[error(transparent)]
    Run(#[from] CommandError),
    /// The control file is unusable.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// It is a restored backup, which would recover from the wrong place (P231, F128).
    #[error(
        "there is a backup_label: this is a restored backup, to be started as a standby and not recovered alone"
    )]
    BackupLabel,
    /// Crash recovery ended, but not in a clean shutdown.
    #[error(
        "after crash recovery in single-user mode the control file says {state:?}. The server said: {tail}"
    )]
    NotRecovered {
        /// What it says.
        state: State,
        /// The end of its output.
        tail: String,
    },
    /// It is not known where the shutdown checkpoint ends.
    #[error("pg_waldump does not show a last, shutdown checkpoint at {at}; it said:\n{said}")]
    End {
        /// Where the checkpoint begins.
        at: Lsn,
        /// What it said.
        said: String,
    },
    /// The proof is of another directory.
    #[error("the proof that Postgres has stopped is of {0}")]
    WrongProof(String),
}

pub(super) fn failed(what: &'static str) -> impl FnOnce(io::Error) -> RewindError {
    move |source| RewindError::Files { what, source }
}

/// The end of the shutdown checkpoint's record of a cleanly stopped primary: where its history ends.
///
/// The record's size depends on version and platform, so it is read with `pg_waldump`: asked for two records,
/// it prints one and says at which position it found no second.
pub async fn end_of_checkpoint(paths: &Paths, control: &ControlFile) -> Result<Lsn, RewindError> {
    let output = waldump(paths, control.timeline)
        .args(["-n".to_owned(), "2".to_owned(), "-s".to_owned(), control.checkpoint.to_string()])
        .run(GLANCE)
        .await?;
    let (records, errors) = (output.text(), output.errors());
    read_end(&records, &errors, control.checkpoint)
        .ok_or_else(|| RewindError::End { at: control.checkpoint, said: format!("{records}{errors}") })
}

/// Where the valid WAL of a crashed primary ends: all that it ever flushed lies before. `None` if that
/// cannot be told: it had just changed its timeline, or the log ends in some other way than unwritten.
/// `written` is a position that is known to be written: what lies well before it is not read again.
pub async fn end_of_wal(
    paths: &Paths,
    control: &ControlFile,
    written: Lsn,
) -> Result<Option<Lsn>, RewindError> {
    if newer_history(&paths.data_dir.join("pg_wal"), control.timeline) {
        return Ok(None);
    }
    // Told no end, pg_waldump waits 5 s for a segment after the last one.
    let Some(last) = end_of_segments(paths, control) else { return Ok(None) };
    // From the beginning of a segment pg_waldump finds the first record by itself; in the last one
    // there may be none yet.
    let size = control.wal_segment_size.max(1);
    let from = control.redo.max(Lsn((written.0 / size).saturating_sub(1) * size));
    let output = waldump(paths, control.timeline)
        .args(["--quiet".to_owned(), format!("--start={from}"), format!("--end={last}")])
        .run(GLANCE)
        .await?;
    if output.code == Some(0) {
        // Valid up to the end of the last segment: that is where it ends, or a little before.
        return Ok(Some(last));
    }
    Ok(read_unwritten(&output.errors()).filter(|end| *end >= written))
}

/// Where the last segment ends that follows the redo point without a gap.
fn end_of_segments(paths: &Paths, control: &ControlFile) -> Option<Lsn> {
    let size = control.wal_segment_size.max(1);
    let exists = |number: &u64| {
        paths.data_dir.join("pg_wal").join(segment_name(control.timeline, *number, size)).exists()
    };
    let last = (control.redo.0 / size..).take_while(exists).last()?;
    Some(Lsn((last + 1) * size))
}

fn newer_history(wal: &Path, timeline: Timeline) -> bool {
    let number = |name: &str| u32::from_str_radix(name.strip_suffix(".history")?, 16).ok();
    let Ok(entries) = fs::read_dir(wal) else { return true };
    entries.flatten().filter_map(|entry| number(entry.file_name().to_str()?)).any(|found| found > timeline.0)
}

/// Reads `error in WAL record at 0/4000060: invalid record length at 0/40000D8: wanted 24, got 0`. A segment
/// that was used before ends in old records, whose link back is wrong.
fn read_unwritten(errors: &str) -> Option<Lsn> {
    let line = errors.lines().find(|line| line.contains("error in WAL record at "))?;
    let (_, said) = line.split_once("error in WAL record at ")?;
    let (_, said) = said.split_once(": ")?;
    let unwritten = said.starts_with("invalid record length at ")
        || (said.starts_with("record with incorrect prev-link ") && said.contains(" at "));
    let (_, position) = said.rsplit_once(" at ").filter(|_| unwritten)?;
    position.split([':', '\n']).next()?.trim().parse().ok()
}

fn waldump(paths: &Paths, timeline: Timeline) -> Program {
    Program::new(paths.program("pg_waldump"))
        .arg("-p")
        .arg(paths.data_dir.join("pg_wal"))
        .args(["-t".to_owned(), timeline.to_string()])
        .in_c_locale()
}

fn read_end(records: &str, errors: &str, checkpoint: Lsn) -> Option<Lsn> {
    let is_the_record = records.lines().count() == 1 && records.contains("CHECKPOINT_SHUTDOWN");
    let pattern = format!("error in WAL record at {checkpoint}: invalid record length at ");
    let (_, rest) = errors.split_once(&pattern)?;
    let position = rest.split([':', '\n']).next()?;
    is_the_record.then(|| position.trim().parse().ok()).flatten()
}

/// Where the redo point of the last checkpoint before `fork` is, looking back segment by segment
/// through what is still there: from there on the WAL says all that this server did since.
pub async fn checkpoint_before(
    paths: &Paths,
    control: &ControlFile,
    fork: Lsn,
) -> Result<Option<Lsn>, RewindError> {
    if control.redo <= fork {
        return Ok(Some(control.redo));
    }
    let size = control.wal_segment_size.max(1);
    let mut segment = fork.0 / size;
    loop {
        let name = segment_name(control.timeline, segment, size);
        if !paths.data_dir.join("pg_wal").join(name).exists() {
            return Ok(None);
        }
        let (from, to) = (Lsn(segment * size), Lsn(fork.0.min((segment + 1) * size)));
        let output = waldump(paths, control.timeline)
            .args(["--rmgr=XLOG".to_owned(), format!("--start={from}"), format!("--end={to}")])
            .run(GLANCE)
            .await?;
        let found = output.text().lines().filter_map(redo_of).next_back();
        if found.is_some() || segment == 0 {
            return Ok(found);
        }
        segment -= 1;
    }
}

/// The redo point in a line such as `… desc: CHECKPOINT_ONLINE redo 0/3000028; tli 1; …`.
fn redo_of(line: &str) -> Option<Lsn> {
    let (_, rest) = line.split_once("CHECKPOINT_")?;
    let (_, rest) = rest.split_once(" redo ")?;
    rest.split(';').next()?.trim().parse().ok()
}

/// The file name of a WAL segment.
pub fn segment_name(timeline: Timeline, segment: u64, segment_size: u64) -> String {
    let per_id = (0x1_0000_0000 / segment_size.max(1)).max(1);
    format!("{:08X}{:08X}{:08X}", timeline.0, segment / per_id, segment % per_id)
}

/// Brings a crashed primary's WAL to a clean end, without becoming reachable (P230). The
/// capsule proves that what it held was copied first.
pub async fn recover_crash(
    paths: &Paths,
    stopped: &Stopped,
    _capsule: &Capsule,
    archive_command: Option<&str>,
    deadline: Duration,
) -> Result<(), RewindError> {
    right_proof(paths, stopped)?;
    if paths.data_dir.join("backup_label").exists() {
        return Err(RewindError::BackupLabel);
    }
    if let Some(command) = archive_command {
        archive_ready(paths, command).await?;
    }
    let prepare = paths.clone();
    off_loop(move || {
        files::remove(&prepare.standby_signal())?;
        files::remove(&prepare.data_dir.join("recovery.signal"))?;
        forget_archived(&prepare.data_dir)
    })
    .await
    .map_err(failed("preparing crash recovery"))?;
    // Archiving on, with a command that fails, keeps every segment that a rewind may need.
    let quick: &[&str] = if run::syncs_at_once(paths) { &["-c", run::SYNC_AT_ONCE] } else { &[] };
    let single = Program::new(paths.program("postgres"))
        .arg("--single")
        .args(quick.iter().copied())
        .arg("-D")
        .arg(&paths.data_dir)
        .arg("-c")
        .arg(format!("config_file={}", paths.conf().display()))
        .args(["-c", "archive_mode=on", "-c", "archive_command=false", "-c", "log_destination=stderr"])
        .args(["-c", "logging_collector=off", "template1"])
        .in_c_locale();
    let output = run::past_stale_pid_file(paths, single).run(deadline).await?;
    let state = controldata::read(paths).await?.state;
    if state != State::ShutDown {
        return Err(RewindError::NotRecovered { state, tail: output.tail() });
    }
    Ok(())
}

/// Removes the marks of archived segments: without them no segment counts as archived, so none is removed.
fn forget_archived(data_dir: &Path) -> io::Result<()> {
    let status = data_dir.join("pg_wal/archive_status");
    for entry in fs::read_dir(&status)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "done") {
            fs::remove_file(path)?;
        }
    }
    fs::File::open(status)?.sync_all()
}

/// From whom to rewind, and how.
#[derive(Debug, Clone)]
pub struct Order {
    /// The leader, with the login for rewinds.
    pub source: Target,
    /// `postgresql.rewind`: the operator's options.
    pub options: Arguments,
    /// `restore_command`, if there is one: missing WAL is fetched with it (P233).
    pub restore_command: Option<String>,
    /// `archive_command`, if archiving is on.
    pub archive_command: Option<String>,
    /// The version of the local programs (`server_version_num`).
    pub version: u32,
    /// Where this server had come to: until it has passed that again it neither votes nor leads.
    pub floor: Lsn,
}

/// Rewinds the data directory to where it left the source's history (P232).
///
/// Afterwards the configuration files are the source's and must be written again. The mark stays,
/// with `done`, until the caller has seen Postgres pass the old position.
pub async fn rewind(
    paths: &Paths,
    stopped: &Stopped,
    _capsule: &Capsule,
    order: &Order,
) -> Result<(), RewindError> {
    right_proof(paths, stopped)?;
    if let Some(command) = &order.archive_command {
        archive_ready(paths, command).await?;
    }
    let (pgpass, source) = (paths.pgpass.clone(), order.source.clone());
    let written = off_loop(move || write_pgpass(&pgpass, &[&source]))
        .await
        .map_err(failed("writing the password file"))?;
    let info = Conninfo::to(&order.source, written.then_some(paths.pgpass.as_path()))
        .with("application_name", "matriarch rewind")
        .with("target_session_attrs", "read-write");
    let mut mark = Mark {
        what: format!("a rewind from {}:{}", order.source.host, order.source.port),
        floor: Some(order.floor.0),
        done: false,
    };
    set_mark(paths, &mark).await?;
    let mut program = Program::new(paths.program("pg_rewind"))
        .arg("-D")
        .arg(&paths.data_dir)
        .arg("--source-server")
        .arg(info.text(order.version))
        .args(order.options.as_slice())
        // Everything is made durable at once, below.
        .arg("--no-sync")
        .env("PGOPTIONS", "-c statement_timeout=0")
        .in_c_locale();
    let elsewhere = paths.config_dir() != paths.data_dir;
    // Before 15, pg_rewind looks for postgresql.conf in the data directory only.
    let restores = order.restore_command.is_some()
        && (order.version >= 150_000 || (order.version >= 130_000 && !elsewhere));
    if restores {
        program = program.arg("--restore-target-wal");
    }
    if elsewhere && order.version >= 150_000 {
        program = program.arg(format!("--config-file={}", paths.conf().display()));
    }
    let mut fetched = None;
    loop {
        let output = program.clone().run(DEADLINE).await?;
        let (missing, said) = (missing_segment(&output.errors()), output.into_success("pg_rewind"));
        let Err(error) = said else { break };
        match (&order.restore_command, missing) {
            // The same segment twice means that the command does not deliver it.
            (Some(command), Some(segment)) if !restores && fetched.as_ref() != Some(&segment) => {
                archiver(paths, command, &segment).succeed(ARCHIVE).await?;
                fetched = Some(segment);
            }
            _ => return Err(error.into()),
        }
    }
    let data_dir = paths.data_dir.clone();
    off_loop(move || {
        let mut places = crate::custody::outside_links(&data_dir)?;
        places.push(data_dir);
        files::sync_file_systems(&places)
    })
    .await
    .map_err(failed("making the rewound directory durable"))?;
    mark.done = true;
    set_mark(paths, &mark).await
}

async fn set_mark(paths: &Paths, mark: &Mark) -> Result<(), RewindError> {
    let (paths, mark) = (paths.clone(), mark.clone());
    off_loop(move || Work::Rewind.mark(&paths, &mark))
        .await
        .map_err(failed("marking the data directory as being rewound"))
}

fn right_proof(paths: &Paths, stopped: &Stopped) -> Result<(), RewindError> {
    if stopped.data_dir() == paths.data_dir {
        return Ok(());
    }
    Err(RewindError::WrongProof(stopped.data_dir().display().to_string()))
}

/// The segment in `could not open file "…/pg_wal/0000000A00006AA100000068": No such file or directory`.
fn missing_segment(errors: &str) -> Option<String> {
    let (_, rest) = errors.split_once("could not open file \"")?;
    let name = rest.split('"').next()?.rsplit_once("pg_wal/")?.1;
    (name.len() == 24).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_crashed_log_is_read() {
        let read = |text: &str| {
            read_unwritten(&format!("pg_waldump: error: error in WAL record at 0/4000060: {text}\n"))
        };
        assert_eq!(read("invalid record length at 0/40000D8: wanted 24, got 0"), Some(Lsn(0x0400_00D8)));
        assert_eq!(read("record with incorrect prev-link 0/1000028 at 0/40000D8"), Some(Lsn(0x0400_00D8)));
        assert_eq!(read("incorrect resource manager data checksum in record at 0/40000D8"), None);
        assert_eq!(read_unwritten("pg_waldump: error: could not find file"), None);
    }

    #[test]
    fn the_end_of_a_shutdown_checkpoint_is_read_from_pg_waldump() {
        let record = "rmgr: XLOG        len (rec/tot):    114/   114, tx:          0, lsn: 0/0182E220, prev 0/0182E1E8, desc: CHECKPOINT_SHUTDOWN redo 0/182E220; tli 1; prev tli 1\n";
        let at = Lsn(0x182_E220);
        for wanted in ["wanted 24, got 0", "expected at least 24, got 0"] {
            let error = format!(
                "pg_waldump: fatal: error in WAL record at 0/182E220: invalid record length at 0/182E298: {wanted}\n"
            );
            assert_eq!(read_end(record, &error, at), Some(Lsn(0x182_E298)));
        }
        assert_eq!(read_end(&format!("{record}{record}"), "", at), None);
        assert_eq!(redo_of(record), Some(at));
        assert_eq!(redo_of("desc: NEXTOID 24576"), None);
    }

    #[test]
    fn segments_have_postgress_names() {
        let size = 16 << 20;
        assert_eq!(segment_name(Timeline(1), 3, size), "000000010000000000000003");
        assert_eq!(segment_name(Timeline(10), 0x6AA1 * 256 + 0x68, size), "0000000A00006AA100000068");
        let error = "pg_rewind: error: could not open file \"/x/pg_wal/0000000A00006AA100000068\": No such file or directory";
        assert_eq!(missing_segment(error).as_deref(), Some("0000000A00006AA100000068"));
    }
}
