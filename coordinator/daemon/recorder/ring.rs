//! Two files of lines that together never exceed a size: the newer one takes lines until it is half of that, then takes
//! the older one's place. A line that could not be written to its end is closed off, so that only it is lost.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use api::recording::{self, FORMAT, Header, NEW, OLD};

use crate::postgres::files;

/// The longest first line that is looked for, in bytes.
const FIRST_LINE: u64 = 4096;

/// The files; opened with the first line that is to be kept.
#[derive(Debug)]
pub struct Ring {
    dir: PathBuf,
    size: u64,
    header: Header,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    len: u64,
    /// The last line was not written to its end.
    torn: bool,
}

impl Ring {
    /// Files in `dir`, of at most `size` bytes together; touches nothing yet.
    pub fn new(dir: PathBuf, size: u64, header: Header) -> Self {
        Self { dir, size, header, open: None }
    }

    /// Where the files are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Keeps one line, which must hold no line break.
    ///
    /// # Errors
    /// If it cannot be written; the next one is tried all the same.
    pub fn append(&mut self, mut line: Vec<u8>) -> io::Result<()> {
        line.push(b'\n');
        let half = self.size / 2;
        let length = u64::try_from(line.len()).unwrap_or(u64::MAX);
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.open()?,
        };
        if open.len + length > half {
            let first = self.first()?;
            if u64::try_from(first.len()).unwrap_or(u64::MAX) + length > half {
                self.open = Some(open);
                let why =
                    format!("a turn of {length} bytes does not fit into half of matriarch.recorder.size");
                return Err(io::Error::other(why));
            }
            drop(open);
            files::rename(&self.dir.join(NEW), &self.dir.join(OLD))?;
            open = self.open()?;
        }
        if open.torn {
            line.insert(0, b'\n');
        }
        let written = open.write(&line);
        self.open = Some(open);
        written
    }

    fn first(&self) -> io::Result<Vec<u8>> {
        let mut first = serde_json::to_vec(&self.header)?;
        first.push(b'\n');
        Ok(first)
    }

    /// Opens the newer file to go on with it. One that does not begin as it must, or that another version wrote, becomes
    /// the older one.
    fn open(&self) -> io::Result<Open> {
        if !self.dir.is_dir() {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        }
        let path = self.dir.join(NEW);
        let mut open = Open::at(&path)?;
        match open.begins(&self.header)? {
            Begins::AsToday => return Ok(open),
            // Nothing follows a first line that was not finished.
            Begins::Unfinished if open.len > 0 => open.file.set_len(0)?,
            Begins::Unfinished => {}
            Begins::Otherwise => {
                drop(open);
                files::rename(&path, &self.dir.join(OLD))?;
                open = Open::at(&path)?;
            }
        }
        open.write(&self.first()?)?;
        Ok(open)
    }
}

/// How a file begins.
enum Begins {
    /// With the first line that it would be given now.
    AsToday,
    /// With less than a line, or it is empty.
    Unfinished,
    /// As another version began it, or somebody else.
    Otherwise,
}

impl Open {
    fn at(path: &Path) -> io::Result<Self> {
        let mut options = File::options();
        let mut file = options.read(true).append(true).create(true).mode(0o600).open(path)?;
        let len = file.seek(SeekFrom::End(0))?;
        let mut torn = false;
        if len > 0 {
            file.seek(SeekFrom::End(-1))?;
            let mut end = [0];
            file.read_exact(&mut end)?;
            torn = end != *b"\n";
        }
        Ok(Self { file, len, torn })
    }

    fn begins(&mut self, header: &Header) -> io::Result<Begins> {
        if self.len == 0 {
            return Ok(Begins::Unfinished);
        }
        self.file.seek(SeekFrom::Start(0))?;
        let mut begin = Vec::new();
        (&self.file).take(FIRST_LINE).read_to_end(&mut begin)?;
        let first = begin.split_inclusive(|byte| *byte == b'\n').next().unwrap_or_default();
        Ok(match recording::header(first) {
            Some(first) if first == *header && first.matriarch_turns == FORMAT => Begins::AsToday,
            None if !begin.contains(&b'\n') && self.len < FIRST_LINE => Begins::Unfinished,
            _ => Begins::Otherwise,
        })
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        self.torn = true;
        let written = self.file.write_all(line);
        self.len = self.file.seek(SeekFrom::End(0)).unwrap_or(self.len);
        written?;
        self.torn = false;
        Ok(())
    }
}
