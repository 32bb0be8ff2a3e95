//! The style of the house, enforced as an ordinary test (docs/src/style.md has the reasons).
//!
//! Each rule is a small function from text to complaints, and each is shown to complain about a planted fault.
//! Words that no file may contain are written here in two halves.

#![allow(clippy::unwrap_used, reason = "a panic is a failed test, in its helpers too")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const CRATES: [&str; 5] = ["config", "dcs", "api", "coordinator", "chaos"];
const FOLDERS: [&str; 10] =
    [".cargo", ".ci", ".github", "api", "chaos", "config", "coordinator", "dcs", "docs", "packaging"];
const FILE_LINES: usize = 400;
const FUNCTION_LINES: usize = 70;

/// Words nobody may write, and what to do instead.
const WORDS: [(&str, &str); 9] = [
    (concat!("TO", "DO"), "do it now or open an issue"),
    (concat!("FIX", "ME"), "fix it"),
    (concat!("tokio::", "spawn("), "use a JoinSet that somebody awaits"),
    (concat!("thread::", "sleep"), "wait for an event with a deadline"),
    (concat!("Hash", "Map"), "use BTreeMap: random order breaks replay"),
    (concat!("Hash", "Set"), "use BTreeSet: random order breaks replay"),
    (concat!("macro_", "rules!"), "write a function"),
    (concat!("dbg", "!("), "use tracing"),
    (concat!("todo", "!("), "write it"),
];

/// Calls that end the process, allowed in tests only.
const PANICS: [&str; 4] = [
    concat!(".unw", "rap()"),
    concat!(".exp", "ect(\""),
    concat!("pan", "ic!("),
    concat!("unimpl", "emented!("),
];

/// Places that exist on somebody's machine only.
const PLACES: [&str; 4] =
    [concat!("/wo", "rk/"), concat!("/tmp/", "wt"), concat!("/opt/", "patroni"), concat!("/ro", "ot/")];

/// Endings of names that say nothing.
const EMPTY_NAMES: [(&str, &str); 8] = [
    ("Manager", "say what it does"),
    ("Handler", "name the thing it handles, or make it a function"),
    ("Helper", "name what it helps with"),
    ("Util", "put it where it belongs"),
    ("Service", "name the thing"),
    ("Info", "name what is known"),
    ("Data", "name what it holds"),
    ("Impl", "name what is special about it"),
];

/// What the pure library may name from its neighbours besides their plain types: nothing that can look or act.
const IMPURE: [&str; 9] =
    ["client", "server", "etcd", "store", "backend", "lease", "memory", "faulty", "routes"];

fn opens_with_purpose(text: &str) -> Vec<String> {
    let lines = text.lines().take_while(|line| line.starts_with("//!")).count();
    if lines == 0 {
        vec!["open the file with //!: what it owns, what it must never do".to_owned()]
    } else {
        vec![]
    }
}

/// The part of a file before its tests.
fn before_tests(text: &str) -> &str {
    text.find("#[cfg(test)]\nmod ").and_then(|at| text.get(..at)).unwrap_or(text)
}

fn is_short(text: &str) -> Vec<String> {
    let lines = before_tests(text).lines().count();
    if lines >= FILE_LINES {
        vec![format!("{lines} lines: split it, the limit is {FILE_LINES}")]
    } else {
        vec![]
    }
}

/// One line of a table: a `match` with an arm per line is read as a table, however long it is.
fn is_row(line: &str) -> bool {
    line.contains(" => ") && (line.ends_with(',') || line.ends_with(';'))
}

/// Relies on rustfmt: a function ends at the first closing brace with its own indentation.
fn functions_are_short(text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut open: Option<(usize, usize, &str)> = None;
    for (number, line) in before_tests(text).lines().enumerate() {
        let bare = line.trim_start();
        let indent = line.len() - bare.len();
        let is_head = ["fn ", "pub fn ", "async fn ", "pub async fn ", "const fn ", "pub const fn "];
        let is_head = bare.starts_with("pub(") && bare.contains(" fn ")
            || is_head.iter().any(|head| bare.starts_with(head));
        match open {
            None if is_head && !bare.ends_with(';') && !bare.ends_with('}') => {
                open = Some((number, indent, bare));
            }
            Some((start, depth, head)) if indent == depth && (bare == "}" || bare.ends_with(';')) => {
                let rows = text.lines().skip(start).take(number - start).filter(|line| is_row(line)).count();
                let lines = number - start + 1 - rows;
                if lines >= FUNCTION_LINES {
                    complaints.push(format!("{head} has {lines} lines: the limit is {FUNCTION_LINES}"));
                }
                open = None;
            }
            _ => {}
        }
    }
    complaints
}

/// Quoted, a word may be what somebody else writes: Patroni's placeholders, say.
fn uses_no_banned_word(text: &str) -> Vec<String> {
    let is_said = |word: &str| text.match_indices(word).any(|(at, _)| !text[..at].ends_with(['"', '#', '`']));
    let found = WORDS.iter().filter(|(word, _)| is_said(word));
    found.map(|(word, instead)| format!("{word}: {instead}")).collect()
}

fn ignores_no_test(text: &str) -> Vec<String> {
    let ignored = text.lines().any(|line| line.trim_start().starts_with("#[ignore"));
    if ignored { vec!["a test is ignored: make it pass or remove it".to_owned()] } else { vec![] }
}

fn panics_in_tests_only(text: &str) -> Vec<String> {
    let code: Vec<&str> =
        before_tests(text).lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let found = PANICS.iter().filter(|call| code.iter().any(|line| line.contains(**call)));
    found.map(|call| format!("{call} outside tests: return an error")).collect()
}

fn names_say_something(text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    for line in text.lines() {
        let bare = line.trim_start().trim_start_matches("pub ").trim_start_matches("pub(crate) ");
        let Some((kind, rest)) = bare.split_once(' ') else { continue };
        if !["struct", "enum", "trait", "type", "union"].contains(&kind) {
            continue;
        }
        let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let empty =
            EMPTY_NAMES.iter().filter(|(ending, _)| name.len() > ending.len() && name.ends_with(ending));
        complaints.extend(empty.map(|(_, instead)| format!("{kind} {name}: {instead}")));
    }
    complaints
}

fn names_no_place(text: &str) -> Vec<String> {
    let found = PLACES.iter().filter(|place| text.contains(**place));
    found.map(|place| format!("{place} exists on one machine only")).collect()
}

fn folders_are_planned<'a>(found: impl Iterator<Item = &'a str>) -> Vec<String> {
    let stray = found.filter(|name| !FOLDERS.contains(name));
    stray.map(|name| format!("{name}/ is not in the plan: put it into one of {FOLDERS:?}")).collect()
}

/// `config ← dcs ← api ← coordinator ← chaos`: each may use what stands left of it.
fn depends_leftwards(krate: &str, manifest: &str) -> Vec<String> {
    let place = |name: &str| CRATES.iter().position(|known| *known == name);
    let used = manifest.lines().filter_map(|line| {
        let name: String = line.chars().take_while(|c| c.is_alphanumeric() || *c == '-').collect();
        (line.contains('=') || line.contains(".workspace")).then_some(name)
    });
    let wrong = used.filter(|name| place(name).is_some_and(|at| place(krate).is_some_and(|own| at >= own)));
    wrong.map(|name| format!("{krate} must not use {name}, which stands right of it")).collect()
}

fn library_is_pure(text: &str, is_root: bool) -> Vec<String> {
    let mut complaints = Vec::new();
    if is_root && !text.contains("#![no_std]") {
        complaints.push("the deciding library must be #![no_std]".to_owned());
    }
    let code = before_tests(text);
    if code
        .lines()
        .any(|line| line.trim_start().starts_with("use std::") || line.contains("extern crate std"))
    {
        complaints.push("the deciding library must not use std".to_owned());
    }
    for krate in ["config::", "dcs::", "api::"] {
        for (at, _) in code.match_indices(krate) {
            let rest = code.get(at + krate.len()..).unwrap_or_default();
            let path: String =
                rest.chars().take_while(|c| c.is_alphanumeric() || "_:".contains(*c)).collect();
            let impure = path.split("::").find(|part| IMPURE.contains(part));
            complaints
                .extend(impure.map(|part| format!("{krate}{path}: {part} can act; take plain types only")));
        }
    }
    complaints
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// Every text file that belongs to the project, with its path from the root.
fn files() -> BTreeMap<String, String> {
    let (root, mut found) = (workspace(), BTreeMap::new());
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap().flatten() {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            if [".git", "target", "book"].contains(&name.as_str()) {
                continue;
            } else if path.is_dir() {
                folders.push(path);
            } else if let Ok(text) = std::fs::read_to_string(&path) {
                found.insert(path.strip_prefix(&root).unwrap().to_string_lossy().into_owned(), text);
            }
        }
    }
    found
}

fn complain(rule: impl Fn(&str, &str) -> Vec<String>) {
    let files = files();
    assert!(files.len() > 20, "this does not look like the workspace: {:?}", files.keys());
    let complaints = files.iter().flat_map(|(path, text)| {
        rule(path, text).into_iter().map(move |complaint| format!("{path}: {complaint}"))
    });
    let complaints: Vec<String> = complaints.collect();
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

fn is_rust(path: &str) -> bool {
    path.ends_with(".rs")
}

fn is_test(path: &str) -> bool {
    path.contains("/tests/") || path.contains("tests.rs") || is_declared_for_tests(path)
}

/// A simulated world that contradicts itself must stop at once: it is a test that users can run.
fn may_panic(path: &str) -> bool {
    is_test(path) || path.starts_with("chaos/src/sim/")
}

/// A file whose `mod` line stands below `#[cfg(test)]`.
fn is_declared_for_tests(path: &str) -> bool {
    let path = workspace().join(path);
    let (Some(dir), Some(name)) = (path.parent(), path.file_stem()) else { return false };
    let declaration = format!("#[cfg(test)]\nmod {};", name.to_string_lossy());
    ["main.rs", "lib.rs", "mod.rs"]
        .iter()
        .any(|parent| std::fs::read_to_string(dir.join(parent)).is_ok_and(|text| text.contains(&declaration)))
}

#[test]
fn every_file_opens_with_its_purpose() {
    complain(|path, text| if is_rust(path) { opens_with_purpose(text) } else { vec![] });
    assert!(!opens_with_purpose("use std::fmt;\n//! late").is_empty());
}

#[test]
fn files_and_functions_are_short() {
    let short = |text: &str| [is_short(text), functions_are_short(text)].concat();
    complain(|path, text| if is_rust(path) && !is_test(path) { short(text) } else { vec![] });
    assert!(!is_short(&"x\n".repeat(FILE_LINES)).is_empty());
    assert!(is_short(&format!("#[cfg(test)]\nmod tests {{}}\n{}", "x\n".repeat(FILE_LINES))).is_empty());
    let long = format!(
        "impl A {{\n    pub async fn b(\n        c: u8,\n    ) {{\n{}    }}\n}}\n",
        "        d();\n".repeat(70)
    );
    assert_eq!(functions_are_short(&long).len(), 1);
    assert!(functions_are_short("fn a() {\n    b();\n}\n").is_empty());
}

#[test]
fn words_and_names_say_something() {
    let said =
        |text: &str| [uses_no_banned_word(text), ignores_no_test(text), names_say_something(text)].concat();
    complain(|path, text| if is_rust(path) { said(text) } else { vec![] });
    for (word, _) in WORDS {
        assert_eq!(uses_no_banned_word(&format!("a {word} b")).len(), 1, "{word}");
    }
    assert_eq!(ignores_no_test("#[test]\n#[ignore]\nfn a() {}").len(), 1);
    for (ending, _) in EMPTY_NAMES {
        assert_eq!(names_say_something(&format!("    pub struct Node{ending}<T> {{")).len(), 1, "{ending}");
    }
    assert!(names_say_something("pub struct Database;\nenum Informed {}").is_empty());
}

#[test]
fn only_tests_panic() {
    complain(
        |path, text| if is_rust(path) && !may_panic(path) { panics_in_tests_only(text) } else { vec![] },
    );
    for call in PANICS {
        assert_eq!(panics_in_tests_only(&format!("    a{call}b;")).len(), 1, "{call}");
        assert!(
            panics_in_tests_only(&format!("#[cfg(test)]\nmod tests {{\n a{call}b;")).is_empty(),
            "{call}"
        );
    }
}

#[test]
fn no_file_names_somebodys_machine() {
    complain(|_, text| names_no_place(text));
    for place in PLACES {
        assert_eq!(names_no_place(&format!("see {place}x")).len(), 1, "{place}");
    }
}

#[test]
fn folders_and_dependencies_keep_to_the_plan() {
    let entries = std::fs::read_dir(workspace()).unwrap().flatten();
    let folders: Vec<String> = entries
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| ![".git", "target"].contains(&name.as_str()))
        .collect();
    assert_eq!(folders_are_planned(folders.iter().map(String::as_str)), Vec::<String>::new());
    assert_eq!(folders_are_planned(["api", "misc"].into_iter()).len(), 1);
    for krate in CRATES {
        let manifest = std::fs::read_to_string(workspace().join(krate).join("Cargo.toml")).unwrap();
        assert_eq!(depends_leftwards(krate, &manifest), Vec::<String>::new());
    }
    assert_eq!(depends_leftwards("dcs", "config.workspace = true\napi = { path = \"../api\" }\n").len(), 1);
}

#[test]
fn the_deciding_library_is_pure() {
    complain(|path, text| match path.strip_prefix("coordinator/src/") {
        Some(file) if is_rust(path) => library_is_pure(text, file == "lib.rs"),
        _ => vec![],
    });
    assert_eq!(library_is_pure("mod a;", true).len(), 1);
    assert_eq!(library_is_pure("use std::fs;", false).len(), 1);
    assert_eq!(library_is_pure("let c = api::client::Client::new();", false).len(), 1);
    assert!(library_is_pure("use dcs::{Lsn, Moment};\nuse config::NodeName;", false).is_empty());
}
