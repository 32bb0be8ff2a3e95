//! Running the operator's archive command for segments that Postgres did not get round to.
//!
//! Owns that one shell string, the only kind there is; never removes a segment.

use std::fs;
use std::io;
use std::time::Duration;

use super::rewind::{RewindError, failed};
use super::{Paths, files, off_loop};
use crate::command::Program;

/// How long one archive or restore command may take.
pub(super) const ARCHIVE: Duration = Duration::from_secs(600);

/// Archives segments that Postgres had not got round to: after a rewind they would be gone (P237, B49).
/// What cannot be archived stays marked; the capsule has it.
pub async fn archive_ready(paths: &Paths, archive_command: &str) -> Result<(), RewindError> {
    let wal = paths.data_dir.join("pg_wal");
    let status = wal.join("archive_status");
    let list = status.clone();
    let mut ready = off_loop(move || {
        let names = fs::read_dir(list)?.map(|entry| entry.map(|entry| entry.file_name()));
        names.collect::<io::Result<Vec<_>>>()
    })
    .await
    .map_err(failed("listing the segments to archive"))?;
    ready.sort();
    for name in ready.iter().filter_map(|name| name.to_str()?.strip_suffix(".ready")) {
        let is_segment = name.get(..24).is_some_and(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
            && matches!(name.get(24..), Some("" | ".partial"));
        if !is_segment || !wal.join(name).is_file() {
            continue;
        }
        let done = archiver(paths, archive_command, name).run(ARCHIVE).await?;
        if done.code == Some(0) {
            let (from, to) = (status.join(format!("{name}.ready")), status.join(format!("{name}.done")));
            off_loop(move || files::rename(&from, &to))
                .await
                .map_err(failed("marking an archived segment"))?;
        }
    }
    Ok(())
}

/// An archive or restore command as Postgres runs it: by the shell, in the data directory. It is the
/// operator's own program text, the only kind of shell string that there is.
pub(super) fn archiver(paths: &Paths, command: &str, segment: &str) -> Program {
    let mut text = String::new();
    let mut chars = command.chars();
    while let Some(char) = chars.next() {
        match (char, char == '%') {
            (_, true) => match chars.next() {
                Some('p') => text.push_str(&format!("pg_wal/{segment}")),
                Some('f') => text.push_str(segment),
                Some('r') => text.push_str("000000010000000000000001"),
                Some('%') | None => text.push('%'),
                Some(other) => text.extend(['%', other]),
            },
            (plain, false) => text.push(plain),
        }
    }
    Program::new("/bin/sh").args(["-c".to_owned(), text]).in_dir(&paths.data_dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archive_commands_get_their_placeholders() {
        let program = archiver(&Paths::new("/d"), "cp %p /a/%f # 100%% %x", "000000010000000000000003");
        let text = format!("{program:?}");
        assert!(
            text.contains("cp pg_wal/000000010000000000000003 /a/000000010000000000000003 # 100% %x"),
            "{text}"
        );
    }
}
