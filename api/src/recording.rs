//! What a node keeps of its decisions: the layout of its files and how they are read, and the last of them in memory.
//!
//! A directory has two files of lines, the older one complete. Each begins with a line that says who recorded it in
//! which format; each further line is one turn, in short for people and whole for the replayer. Nothing is written here.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The format that this version writes and reads.
pub const FORMAT: u32 = 1;
/// The file that is written to.
pub const NEW: &str = "turns.jsonl";
/// The file that was full before it.
pub const OLD: &str = "turns.old.jsonl";
/// How many turns a node can tell over REST.
pub const REMEMBERED: usize = 2000;

/// The first line of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The format of the lines ([`FORMAT`]).
    pub matriarch_turns: u32,
    /// The version that recorded.
    pub version: String,
    /// The cluster.
    pub scope: String,
    /// The node.
    pub name: String,
}

/// One recorded turn in short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When, ISO 8601 in UTC.
    pub at: String,
    /// How many turns since the one before decided the same and did nothing.
    pub quiet: u64,
    /// How many turns since the one before should have been kept and could not be.
    pub lost: u64,
    /// The reason, as one sentence.
    pub because: String,
    /// The steps, each as one line.
    pub steps: Vec<String>,
}

impl Entry {
    /// Whether it was not recorded before this moment; a time that cannot be read counts as later.
    #[must_use]
    pub fn is_since(&self, moment: Timestamp) -> bool {
        self.at.parse::<Timestamp>().map_or(true, |at| at >= moment)
    }
}

/// One file, as far as it can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recording {
    /// Which file.
    pub file: PathBuf,
    /// Who recorded it.
    pub header: Header,
    /// Its turns: the number of the line, the turn in short, and the whole line.
    pub turns: Vec<(usize, Entry, String)>,
    /// Lines that were not written to their end.
    pub torn: usize,
}

/// Why nothing can be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// The system says no.
    #[error("{} cannot be read: {source}", file.display())]
    Unreadable {
        /// Which file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The directory has no such files.
    #[error(
        "{} has no recorded turns ({NEW}): name the directory matriarch.recorder.dir of a node, \
         by default its data directory with .turns appended, or one of the files in it", dir.display()
    )]
    Nothing {
        /// Which directory.
        dir: PathBuf,
    },
    /// The file does not begin as it must.
    #[error("{} holds no recorded turns of matriarch: its first line does not say so", file.display())]
    Foreign {
        /// Which file.
        file: PathBuf,
    },
    /// Another format.
    #[error(
        "{} is in format {format}, written by matriarch {version}; this program reads format {FORMAT}: \
         use the matriarch-chaos and matriarchctl of that version", file.display()
    )]
    Format {
        /// Which file.
        file: PathBuf,
        /// Its format.
        format: u32,
        /// Who wrote it.
        version: String,
    },
}

/// Reads a file, or both files of a directory, the older first; a device in their place is passed over. A file without a whole first line has no turns.
///
/// # Errors
/// [`RecordingError`] says what is wrong with which file. Torn lines are no error; they are counted.
pub fn read(path: &Path) -> Result<Vec<Recording>, RecordingError> {
    if !path.is_dir() {
        return Ok(read_file(path)?.into_iter().collect());
    }
    let files = [OLD, NEW].map(|name| path.join(name));
    let mut found = Vec::new();
    let mut any = false;
    for file in files.iter().filter(|file| file.is_file()) {
        any = true;
        found.extend(read_file(file)?);
    }
    if any { Ok(found) } else { Err(RecordingError::Nothing { dir: path.to_owned() }) }
}

fn read_file(file: &Path) -> Result<Option<Recording>, RecordingError> {
    let bytes =
        std::fs::read(file).map_err(|source| RecordingError::Unreadable { file: file.to_owned(), source })?;
    let mut lines = bytes.split_inclusive(|byte| *byte == b'\n');
    let first = lines.next().unwrap_or_default();
    let Some(header) = header(first) else {
        // Whoever made the file ended before its first line was written.
        let begun = lines.next().is_none() && !first.ends_with(b"\n");
        return if begun { Ok(None) } else { Err(RecordingError::Foreign { file: file.to_owned() }) };
    };
    if header.matriarch_turns != FORMAT {
        let (format, version) = (header.matriarch_turns, header.version);
        return Err(RecordingError::Format { file: file.to_owned(), format, version });
    }
    let mut recording = Recording { file: file.to_owned(), header, turns: Vec::new(), torn: 0 };
    for (index, line) in lines.enumerate() {
        let text = str::from_utf8(line).unwrap_or("(torn)").trim_end_matches('\n');
        match serde_json::from_str(text) {
            Ok(entry) => recording.turns.push((index + 2, entry, text.to_owned())),
            Err(_) if text.is_empty() => {}
            Err(_) => recording.torn += 1,
        }
    }
    Ok(Some(recording))
}

/// Reads a first line; nothing if it is none.
#[must_use]
pub fn header(line: &[u8]) -> Option<Header> {
    serde_json::from_slice(line.strip_suffix(b"\n")?).ok()
}

/// The last turns of a node, shared between whoever records and whoever tells.
#[derive(Debug, Clone, Default)]
pub struct Recollection(Arc<Mutex<VecDeque<Entry>>>);

impl Recollection {
    fn with<T>(&self, act: impl FnOnce(&mut VecDeque<Entry>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds a turn that was just taken.
    pub fn add(&self, entry: Entry) {
        self.with(|known| {
            known.push_back(entry);
            let over = known.len().saturating_sub(REMEMBERED);
            known.drain(..over);
        });
    }

    /// Puts turns of an earlier life of the node before all others.
    pub fn precede(&self, earlier: impl DoubleEndedIterator<Item = Entry>) {
        self.with(|known| {
            let room = REMEMBERED.saturating_sub(known.len());
            earlier.rev().take(room).for_each(|entry| known.push_front(entry));
        });
    }

    /// The last turns, oldest first: at most `last`, none before `since`.
    #[must_use]
    pub fn tell(&self, last: Option<usize>, since: Option<Timestamp>) -> Vec<Entry> {
        self.with(|known| {
            let skipped = known.len().saturating_sub(last.unwrap_or(REMEMBERED));
            let asked = known.iter().skip(skipped);
            asked.filter(|entry| since.is_none_or(|since| entry.is_since(since))).cloned().collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "{\"matriarch_turns\":1,\"version\":\"0.1.0\",\"scope\":\"demo\",\"name\":\"n1\"}\n";

    fn entry(second: u32) -> Entry {
        let at = format!("2026-11-21T02:00:{second:02}+00:00");
        Entry { at, quiet: 3, lost: 0, because: "no action".into(), steps: vec![] }
    }

    fn line(second: u32) -> String {
        serde_json::to_string(&entry(second)).unwrap()
    }

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(NEW);
        std::fs::write(&path, text).unwrap();
        (dir, path)
    }

    #[test]
    fn a_torn_line_is_skipped_and_counted_wherever_it_is() {
        let whole = line(1);
        let torn = &whole[..whole.len() / 2];
        let (_dir, path) = file(&format!("{HEADER}{whole}\n{torn}\n{}\n{torn}", line(2)));
        let read = read(&path).unwrap();
        let [recording] = &read[..] else { panic!("{read:?}") };
        assert_eq!(recording.torn, 2);
        assert_eq!(recording.turns.iter().map(|turn| turn.0).collect::<Vec<_>>(), [2, 4]);
        assert_eq!(recording.turns[1].1, entry(2));
    }

    #[test]
    fn the_older_file_comes_first() {
        let (dir, _) = file(&format!("{HEADER}{}\n", line(2)));
        std::fs::write(dir.path().join(OLD), format!("{HEADER}{}\n", line(1))).unwrap();
        let turns: Vec<Entry> =
            read(dir.path()).unwrap().into_iter().flat_map(|file| file.turns).map(|turn| turn.1).collect();
        assert_eq!(turns, [entry(1), entry(2)]);
    }

    #[test]
    fn what_is_no_recording_of_this_format_is_refused_in_one_sentence() {
        assert!(matches!(read(Path::new("/nowhere")), Err(RecordingError::Unreadable { .. })));
        let (_dir, path) = file("name: n1\nscope: demo\n");
        assert!(matches!(read(&path), Err(RecordingError::Foreign { .. })));
        let (_dir, path) = file(&HEADER.replace(":1,", ":7,").replace("0.1.0", "3.2.1"));
        let error = read(&path).unwrap_err().to_string();
        assert!(
            error.contains("format 7, written by matriarch 3.2.1; this program reads format 1"),
            "{error}"
        );
        let (_dir, path) = file(&HEADER[..20]);
        assert_eq!(read(&path).unwrap(), []);
        let empty = tempfile::tempdir().unwrap();
        assert!(matches!(read(empty.path()), Err(RecordingError::Nothing { .. })));
    }

    #[test]
    fn the_memory_is_bounded_and_tells_the_last_turns_oldest_first() {
        let memory = Recollection::default();
        memory.add(entry(5));
        memory.precede([entry(1), entry(2)].into_iter());
        assert_eq!(memory.tell(None, None), [entry(1), entry(2), entry(5)]);
        assert_eq!(memory.tell(Some(2), None), [entry(2), entry(5)]);
        let since = "2026-11-21T02:00:02Z".parse().unwrap();
        assert_eq!(memory.tell(None, Some(since)), [entry(2), entry(5)]);
        (0..REMEMBERED).for_each(|_| memory.add(entry(9)));
        assert_eq!(memory.tell(None, None), vec![entry(9); REMEMBERED]);
        memory.precede([entry(1)].into_iter());
        assert_eq!(memory.tell(None, None).len(), REMEMBERED);
    }
}
