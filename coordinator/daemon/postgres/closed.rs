//! The host-based authentication of a server that lets no clients in yet: made from the file in force, which stays as
//! it is.
//!
//! Pure but for [`put`], which writes the file that the server is then started with. Whoever gets in has got in before,
//! by the same line and method; whatever is not understood lets nobody in.

use std::io;
use std::path::PathBuf;

use super::conf::Conf;
use super::paths::CLOSED_HBA;
use super::{Paths, files, off_loop};

/// A server cannot be started closed.
#[derive(Debug, thiserror::Error)]
pub enum ClosedError {
    /// A file could not be read or written.
    #[error("{}: {source}", file.display())]
    File {
        /// Which.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Without these nobody could see that it may be opened.
    #[error(
        "clients cannot be kept out for a while, as synchronous_mode_strict asks: no line of {} lets {whom} in by `all` or by \
         name (groups, regular expressions and included files are not followed); add such a line, or switch \
         synchronous_mode_strict off",
        file.display()
    )]
    NobodyLeft {
        /// The file in force.
        file: PathBuf,
        /// Who is missing.
        whom: String,
    },
}

/// Who is let in all the same: the daemon's own roles. Standbys are let in by every line for `replication`.
#[derive(Debug, Clone)]
pub struct Kept {
    /// The superuser as whom the daemon logs in.
    pub superuser: String,
    /// The role by which other members compare histories and rewind, if there is one.
    pub rewind: Option<String>,
}

/// Writes the closed file for a server with this configuration, and returns where it is.
pub async fn put(paths: &Paths, conf: &Conf, kept: &Kept) -> Result<PathBuf, ClosedError> {
    let open = match conf.parameters.get("hba_file") {
        Some(file) => paths.config_dir().join(file),
        None => paths.hba(),
    };
    let closed = paths.closed_hba();
    let from = open.clone();
    let text = off_loop(move || std::fs::read_to_string(from)).await;
    let text = text.map_err(|source| ClosedError::File { file: open.clone(), source })?;
    let text = close(&text, kept).map_err(|whom| ClosedError::NobodyLeft { file: open, whom })?;
    let (file, mode) = (closed.clone(), files::mode_for(&paths.data_dir));
    let written = off_loop(move || files::replace_if_changed(&file, text.as_bytes(), mode)).await;
    written.map_err(|source| ClosedError::File { file: closed.clone(), source })?;
    Ok(closed)
}

/// Whether a server that was started with this file is closed.
pub fn is(hba_file: &str) -> bool {
    hba_file.ends_with(CLOSED_HBA)
}

const HEADER: &str = "# Made by matriarch at a start that lets no clients in yet: only replication and its own roles.\n\
                      # Postgres is started again without this file when what clients may read is on a standby too.\n";

/// The closed file for this open one; else who would be missing in it.
fn close(open: &str, kept: &Kept) -> Result<String, String> {
    let mut text = String::from(HEADER);
    let (mut superuser, mut replication) = (false, false);
    for line in logical_lines(open) {
        let Some(rule) = Rule::read(&line) else {
            if line.trim_start().starts_with('#') {
                text.push_str(&format!("{line}\n"));
            }
            continue;
        };
        if rule.rejects {
            text.push_str(&format!("{line}\n"));
            continue;
        }
        let (before, between, after) = rule.around(&line);
        if rule.streams {
            replication = true;
            let users = line.get(rule.user.start..rule.user.end).unwrap_or_default();
            text.push_str(&format!("{before}replication{between}{users}{after}\n"));
        }
        let names = rule.admits(kept);
        if !names.is_empty() && rule.queries {
            superuser |= names.contains(&kept.superuser.as_str());
            let databases = line.get(rule.database.start..rule.database.end).unwrap_or_default();
            let names: Vec<String> = names.into_iter().map(quoted).collect();
            text.push_str(&format!("{before}{databases}{between}{}{after}\n", names.join(",")));
        }
    }
    match (superuser, replication) {
        (false, _) => Err(format!("{} (postgresql.authentication.superuser)", kept.superuser)),
        (true, false) => Err("replication".to_owned()),
        (true, true) => Ok(text),
    }
}

/// A name in quotes is nothing but a name.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Lines as Postgres reads them: a backslash at the end of one joins it with the next.
fn logical_lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut begun = String::new();
    for line in text.lines() {
        match line.strip_suffix('\\') {
            Some(part) => begun.push_str(part),
            None => lines.push(std::mem::take(&mut begun) + line),
        }
    }
    if !begun.is_empty() {
        lines.push(begun);
    }
    lines
}

/// One line that says who is let in, or is not.
#[derive(Debug)]
struct Rule {
    database: Field,
    user: Field,
    rejects: bool,
    /// It is for physical replication.
    streams: bool,
    /// It is for a database.
    queries: bool,
}

impl Rule {
    /// Reads a line; nothing for one that says nothing, or is not understood.
    fn read(line: &str) -> Option<Self> {
        let fields = fields(line)?;
        let mut words = fields.into_iter();
        let (kind, database, user) = (words.next()?, words.next()?, words.next()?);
        let rest: Vec<Field> = words.collect();
        let kind = kind.only()?;
        let methods = match kind {
            "local" => rest.get(..1)?,
            "host" | "hostssl" | "hostnossl" | "hostgssenc" | "hostnogssenc" => {
                rest.get(1..rest.len().min(3)).filter(|methods| !methods.is_empty())?
            }
            _ => return None,
        };
        let rejects = methods.iter().any(|method| method.only() == Some("reject"));
        // A relative name would be looked for beside the new file.
        if database.words.iter().any(|word| word.starts('@'))
            || (rejects && user.words.iter().any(|word| word.starts('@')))
        {
            return None;
        }
        let for_streaming = |word: &Word| word.is("replication");
        let streams =
            database.words.iter().any(for_streaming) && !user.words.iter().any(|word| word.starts('@'));
        let queries = !database.words.iter().all(for_streaming);
        Some(Self { database, user, rejects, streams, queries })
    }

    /// What stands before the databases, between them and the users, and after those.
    fn around<'a>(&self, line: &'a str) -> (&'a str, &'a str, &'a str) {
        let part = |from: usize, to: usize| line.get(from..to).unwrap_or_default();
        (
            part(0, self.database.start),
            part(self.database.end, self.user.start),
            part(self.user.end, line.len()),
        )
    }

    /// Whom of those kept it certainly lets in.
    fn admits<'a>(&self, kept: &'a Kept) -> Vec<&'a str> {
        let names = std::iter::once(&kept.superuser).chain(&kept.rewind);
        let listed = |name: &&String| {
            self.user.words.iter().any(|word| word.is("all") || (word.is_name() && word.text == **name))
        };
        names.filter(listed).map(String::as_str).collect()
    }
}

/// One field of a line: where it is, and what it lists.
#[derive(Debug)]
struct Field {
    start: usize,
    end: usize,
    words: Vec<Word>,
}

impl Field {
    /// The text of a field that is one word.
    fn only(&self) -> Option<&str> {
        match self.words.as_slice() {
            [word] => Some(&word.text),
            _ => None,
        }
    }
}

#[derive(Debug, Default)]
struct Word {
    text: String,
    /// It begins with a quote: no keyword, no group, no file.
    quoted: bool,
}

impl Word {
    fn is(&self, keyword: &str) -> bool {
        !self.quoted && self.text == keyword
    }

    fn starts(&self, mark: char) -> bool {
        !self.quoted && self.text.starts_with(mark)
    }

    fn is_name(&self) -> bool {
        !self.starts('+') && !self.starts('@') && !self.text.starts_with('/')
    }
}

/// The fields of a line, as Postgres splits it: at blanks, and each at commas; quotes keep both, and `#` ends it outside of
/// them. Nothing if there is none, or a quote is left open.
fn fields(line: &str) -> Option<Vec<Field>> {
    let mut fields: Vec<Field> = Vec::new();
    let mut rest = line.char_indices().peekable();
    let mut goes_on = false;
    loop {
        while rest.next_if(|(_, c)| blank(*c) || *c == ',').is_some() {}
        let Some((start, first)) = rest.peek().copied() else { break };
        if first == '#' {
            break;
        }
        let (mut word, mut open, mut was_quote, mut seen) = (Word::default(), false, false, false);
        let mut comma = false;
        let mut end = start;
        while let Some((at, c)) = rest.next_if(|(_, c)| open || !(blank(*c) || *c == '#')) {
            if c == ',' && !open {
                comma = true;
                break;
            }
            end = at + c.len_utf8();
            if c != '"' || was_quote {
                word.text.push(c);
            }
            was_quote = open && c == '"' && !was_quote;
            if c == '"' {
                open = !open;
                word.quoted |= !seen;
            }
            seen = true;
        }
        if open {
            return None;
        }
        match fields.last_mut().filter(|_| goes_on) {
            Some(field) => {
                field.words.push(word);
                field.end = end;
            }
            None => fields.push(Field { start, end, words: vec![word] }),
        }
        goes_on = comma;
    }
    (!fields.is_empty()).then_some(fields)
}

fn blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept() -> Kept {
        Kept { superuser: "postgres".into(), rewind: Some("rewinder".into()) }
    }

    /// The closed file's lines without its header.
    fn closed(open: &str) -> Vec<String> {
        let text = close(open, &kept()).unwrap();
        text.strip_prefix(HEADER).unwrap().lines().map(str::to_owned).collect()
    }

    const NEEDED: &str = "local all postgres peer\nlocal replication all peer\n";
    const NEEDED_CLOSED: [&str; 2] = ["local all \"postgres\" peer", "local replication all peer"];

    /// What a line becomes beside those that must be there.
    fn one(line: &str) -> Vec<String> {
        let lines = closed(&format!("{NEEDED}{line}\n"));
        assert_eq!(lines[..2], NEEDED_CLOSED);
        lines[2..].to_vec()
    }

    #[test]
    fn the_daemons_own_roles_and_replication_are_let_in_and_nobody_else() {
        let open = "# who\nlocal all all trust\n\nhost replication replicator 127.0.0.0/8 scram-sha-256\n\
                    host app app,postgres 10.0.0.0 255.0.0.0 md5\nhost all all all scram-sha-256\nhost app app all cert\n";
        assert_eq!(
            closed(open),
            [
                "# who",
                "local all \"postgres\",\"rewinder\" trust",
                "host replication replicator 127.0.0.0/8 scram-sha-256",
                "host app \"postgres\" 10.0.0.0 255.0.0.0 md5",
                "host all \"postgres\",\"rewinder\" all scram-sha-256",
            ]
        );
    }

    #[test]
    fn the_line_of_both_becomes_two() {
        assert_eq!(
            one("hostssl all,replication all ::/0 md5 # everybody"),
            [
                "hostssl replication all ::/0 md5 # everybody",
                "hostssl all,replication \"postgres\",\"rewinder\" ::/0 md5 # everybody",
            ]
        );
        assert_eq!(
            one("host \"replication\" all all md5"),
            ["host \"replication\" \"postgres\",\"rewinder\" all md5"]
        );
    }

    #[test]
    fn who_was_turned_away_is_turned_away() {
        for line in [
            "host all all 10.1.0.0/16 reject",
            "host all +staff 10.1.0.0 255.255.0.0 reject",
            "local all all reject",
        ] {
            assert_eq!(one(line), [line]);
        }
        // `reject` as a host's name admits.
        assert_eq!(one("host all app reject trust"), Vec::<String>::new());
    }

    #[test]
    fn what_is_not_understood_lets_nobody_in() {
        for line in [
            "host all +postgres all md5",
            "host all @postgres all md5",
            "host @databases all all md5",
            "host replication @standbys all md5",
            "host all /^post all md5",
            "host all @blocked all reject",
            "include other.conf",
            "include_dir \"conf.d\"",
            "@more",
            "host all postgres",
            "local all postgres",
            "host all \"postgres all md5",
            "hosts all postgres all md5",
            "host all \"all\" all md5",
            "host all Postgres all md5",
        ] {
            assert_eq!(one(line), Vec::<String>::new(), "{line}");
        }
    }

    #[test]
    fn lines_are_split_as_postgres_splits_them() {
        assert_eq!(one("host  app , \"a b\",  x\tapp, \"postgres\" all md5"), [] as [&str; 0]);
        assert_eq!(
            one("host\tapp, \"a b\"  app, \"postgres\"\tall md5"),
            ["host\tapp, \"a b\"  \"postgres\"\tall md5"]
        );
        assert_eq!(one("host all \\\npostgres all md5#x"), ["host all \"postgres\" all md5#x"]);
        let named = Kept { superuser: "a\"b c".into(), rewind: None };
        let text = close("local all \"a\"\"b c\" peer\nlocal replication all peer", &named).unwrap();
        assert!(text.contains("\nlocal all \"a\"\"b c\" peer\n"), "{text}");
    }

    #[test]
    fn a_file_without_a_line_for_the_daemon_or_for_standbys_is_refused() {
        let missing = |open: &str| close(open, &kept()).unwrap_err();
        assert!(missing("include all.conf").starts_with("postgres "));
        assert!(missing("local all +admins peer\nlocal replication all peer").starts_with("postgres "));
        assert!(missing("local all rewinder peer\nlocal replication all peer").starts_with("postgres "));
        assert_eq!(missing("local all all peer\nlocal replication all reject"), "replication");
    }
}
