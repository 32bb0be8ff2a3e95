//! `synchronous_standby_names`: written so that Postgres reads each name as it is, and read back.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use config::{ClusterConfig, SynchronousMode};

use super::resolver::Wait;

/// A standby of this name cannot exist: the name is refused to members. Commits wait for it where nobody else may
/// acknowledge them.
pub const PLACEHOLDER: &str = "__patroni_strict_sync_replica_placeholder__";

/// A name as the setting wants it: bare where that is safe, else in double quotes (F134).
fn quoted(name: &str) -> String {
    let plain = name.chars().next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !["any", "first"].iter().any(|word| name.eq_ignore_ascii_case(word));
    if plain { name.to_string() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// What a standby is started, and so promoted, with: nothing acknowledges its first commits but what the new leader
/// then chooses. Absent: the operator's own setting.
#[must_use]
pub fn of_standby(settings: &ClusterConfig) -> Option<String> {
    match (settings.synchronous_mode, &settings.standby_cluster) {
        (SynchronousMode::Off, _) | (_, Some(_)) => None,
        (mode, None) if settings.synchronous_mode_strict => {
            Some(text(&Wait::Forever, mode == SynchronousMode::Quorum))
        }
        _ => Some(String::new()),
    }
}

/// The text of the setting (patroni-compat 5.8): in quorum mode with `ANY`.
#[must_use]
pub fn text(wait: &Wait<String>, any: bool) -> String {
    let listed =
        |names: &BTreeSet<String>| names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(",");
    match wait {
        Wait::Nobody | Wait::Foreign => String::new(),
        Wait::Forever if any => format!("ANY 1 ({PLACEHOLDER})"),
        Wait::Forever => PLACEHOLDER.to_string(),
        Wait::For { names, count } if any => format!("ANY {count} ({})", listed(names)),
        Wait::For { names, count: 1 } if names.len() == 1 => listed(names),
        Wait::For { names, count } => format!("{count} ({})", listed(names)),
    }
}

/// What the setting makes commits wait for. A priority list in which not everybody has to acknowledge is
/// [`Wait::Foreign`], and so is whatever has a `*` in it.
#[must_use]
pub fn read(text: &str) -> Wait<String> {
    let text = text.trim();
    if text.is_empty() {
        return Wait::Nobody;
    }
    parse(text).unwrap_or(Wait::Foreign)
}

fn parse(text: &str) -> Option<Wait<String>> {
    let mut words = words(text)?.into_iter().peekable();
    let mut any = false;
    let mut count = None;
    if let Some(Word::Bare(first)) = words.peek() {
        let (is_any, is_first) = (first.eq_ignore_ascii_case("any"), first.eq_ignore_ascii_case("first"));
        if is_any || is_first {
            any = is_any;
            words.next();
        }
    }
    if let Some(Word::Bare(number)) = words.peek()
        && let Ok(number) = number.parse::<usize>()
    {
        count = Some(number);
        words.next();
        (words.next()? == Word::Open).then_some(())?;
    }
    let mut names = BTreeSet::new();
    loop {
        match words.next()? {
            Word::Bare(name) if name == "*" => return None,
            // The server folds nothing: it compares without regard to case.
            Word::Bare(name) | Word::Quoted(name) => names.insert(name).then_some(())?,
            _ => return None,
        }
        match words.next() {
            Some(Word::Comma) => {}
            Some(Word::Close) if count.is_some() => break,
            None if count.is_none() => break,
            _ => return None,
        }
    }
    words.next().is_none().then_some(())?;
    let count = count.unwrap_or(1);
    if names.iter().any(|name| name == PLACEHOLDER) {
        return (names.len() == 1).then_some(Wait::Forever);
    }
    // A priority list lets those who are not its first acknowledge nothing, but their order is not known here.
    ((any && count <= names.len()) || count == names.len()).then_some(Wait::For { names, count })
}

#[derive(Debug, PartialEq, Eq)]
enum Word {
    Bare(String),
    Quoted(String),
    Comma,
    Open,
    Close,
}

fn words(text: &str) -> Option<Vec<Word>> {
    let mut words = Vec::new();
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            c if c.is_ascii_whitespace() => {}
            ',' => words.push(Word::Comma),
            '(' => words.push(Word::Open),
            ')' => words.push(Word::Close),
            '"' => {
                let mut name = String::new();
                loop {
                    match rest.next()? {
                        '"' if rest.next_if_eq(&'"').is_some() => name.push('"'),
                        '"' => break,
                        other => name.push(other),
                    }
                }
                words.push(Word::Quoted(name));
            }
            first => {
                let mut name = String::from(first);
                while let Some(next) = rest.next_if(|c| !c.is_ascii_whitespace() && !",()\"".contains(*c)) {
                    name.push(next);
                }
                words.push(Word::Bare(name));
            }
        }
    }
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(names: &[&str], count: usize) -> Wait<String> {
        Wait::of(names.iter().map(ToString::to_string).collect(), count)
    }

    #[test]
    fn names_are_written_as_patroni_writes_them() {
        assert_eq!(text(&of(&["n1"], 1), false), "n1");
        assert_eq!(text(&of(&["n1", "n2"], 2), false), "2 (n1,n2)");
        assert_eq!(text(&of(&["n1", "n2"], 1), true), "ANY 1 (n1,n2)");
        assert_eq!(text(&of(&["n1"], 1), true), "ANY 1 (n1)");
        assert_eq!(text(&of(&["node-1", "First"], 2), false), "2 (\"First\",\"node-1\")");
        assert_eq!(text(&of(&["1a", "a\"b"], 2), false), "2 (\"1a\",\"a\"\"b\")");
        assert_eq!(text(&Wait::Nobody, true), "");
        assert_eq!(text(&Wait::Forever, true), "ANY 1 (__patroni_strict_sync_replica_placeholder__)");
    }

    #[test]
    fn what_was_written_is_read_back() {
        let lists =
            [of(&["n1"], 1), of(&["a b", "x\"y", "any", "*"], 4), of(&["n-1", "n2"], 2), Wait::Forever];
        for wait in lists {
            assert_eq!(read(&text(&wait, false)), wait);
            assert_eq!(read(&text(&wait, true)), wait);
        }
        assert_eq!(read(&text(&of(&["n1", "n2", "n3"], 2), true)), of(&["n1", "n2", "n3"], 2));
        assert_eq!(read(" "), Wait::Nobody);
        assert_eq!(read("FIRST 2 (n1, n2)"), of(&["n1", "n2"], 2));
    }

    #[test]
    fn what_promises_something_else_promises_nothing() {
        for foreign in ["*", "ANY 1 (*)", "n1, n2", "FIRST 1 (n1, n2)", "2 (n1", "n1,", "ANY 3 (a,b)", "(a)"]
        {
            assert_eq!(read(foreign), Wait::Foreign, "{foreign}");
        }
    }
}
