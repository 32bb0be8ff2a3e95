//! The book and the README against the repository: every page is listed, every link leads somewhere, every file
//! and test that a page names exists, and the README's examples are what they claim to be.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Pages that are made from the code and name things of the cluster rather than of the repository.
const CRATES: [&str; 5] = ["config/", "dcs/", "api/", "coordinator/", "chaos/"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every file below a folder with this extension.
fn files(below: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(below).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|is| is == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The targets of a page's links, outside of code; addresses elsewhere are left out.
fn links(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in outside_code(text) {
        for part in line.split("](").skip(1) {
            let target = part.split(')').next().unwrap_or_default();
            if !target.contains("://") {
                found.push(target.to_owned());
            }
        }
    }
    found
}

fn outside_code(text: &str) -> impl Iterator<Item = &str> {
    let mut inside = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        inside ^= fence;
        !inside && !fence
    })
}

/// The links of a page that lead nowhere, given what exists.
fn dead_links(page: &Path, text: &str, exists: &dyn Fn(&Path) -> bool) -> Vec<String> {
    let folder = page.parent().unwrap();
    let dead = |target: &String| {
        let file = target.split('#').next().unwrap_or_default();
        !file.is_empty() && !exists(&folder.join(file))
    };
    links(text).into_iter().filter(dead).collect()
}

/// Texts in backticks, outside of code blocks.
fn quoted(text: &str) -> Vec<String> {
    let spans = outside_code(text).flat_map(|line| line.split('`').skip(1).step_by(2));
    spans.map(str::to_owned).collect()
}

fn pages() -> Vec<PathBuf> {
    let mut pages = files(&root().join("docs/src"), "md");
    pages.extend(["README.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(|name| root().join(name)));
    pages
}

#[test]
fn every_link_leads_somewhere() {
    for page in pages() {
        let text = read(&page);
        let dead = dead_links(&page, &text, &|path| normal(path).exists());
        assert!(dead.is_empty(), "{}: {dead:?}", page.display());
        for line in text.lines().filter(|line| line.starts_with("{{#include ")) {
            let named = line["{{#include ".len()..].trim_end_matches("}}");
            assert!(page.parent().unwrap().join(named).is_file(), "{}: {line}", page.display());
        }
    }
}

/// A path without `..`, so that it can be compared by its end.
fn normal(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => {
                plain.pop();
            }
            other => plain.push(other),
        }
    }
    plain
}

#[test]
fn every_page_is_listed_once() {
    let source = root().join("docs/src");
    let listed = links(&read(&source.join("SUMMARY.md")));
    let once: BTreeSet<&String> = listed.iter().collect();
    assert_eq!(once.len(), listed.len(), "a page is listed twice");
    for page in files(&source, "md") {
        let name = page.strip_prefix(&source).unwrap().to_string_lossy().into_owned();
        assert!(name == "SUMMARY.md" || once.contains(&name), "{name} is not in SUMMARY.md");
    }
}

/// Files, and long names in the page of invariants, must be there.
#[test]
fn what_pages_name_exists() {
    let sources: String =
        CRATES.iter().flat_map(|name| files(&root().join(name), "rs")).map(|path| read(&path)).collect();
    for page in pages() {
        for name in quoted(&read(&page)) {
            let is_path =
                CRATES.iter().any(|folder| name.starts_with(folder)) && !name.contains(['…', '*', ' ']);
            let file = name.split("::").next().unwrap_or_default();
            assert!(!is_path || root().join(file).exists(), "{}: there is no {name}", page.display());
            let is_test = page.ends_with("invariants.md") && name.matches('_').count() >= 3;
            let there = sources.contains(&format!("fn {name}("));
            assert!(!is_test || there, "{}: there is no fn {name}", page.display());
        }
    }
}

/// What the runbook quotes is what the code prints, apart from names and numbers and the halves of sentences.
#[test]
fn the_runbook_quotes_what_the_code_says() {
    let sources = ["coordinator", "dcs"].map(|folder| files(&root().join(folder), "rs")).concat();
    let said: String = sources.iter().map(|path| read(path)).collect();
    let said = said.split("\\\n").map(str::trim_start).collect::<Vec<_>>().concat();
    let page = read(&root().join("docs/src/operate/runbook.md"));
    let mut checked = 0;
    for quote in page.split('"').skip(1).step_by(2) {
        let fixed = quote.split(['…', '(']).flat_map(|part| part.split(") "));
        for part in fixed.flat_map(|part| part.split([':', ';'])).map(str::trim) {
            let variable = ["NAME", "SETTING", " N ", " M", " X", "because", "use_pg_rewind"];
            if part.len() > 14 && !variable.iter().any(|word| part.contains(word)) {
                checked += 1;
                assert!(said.contains(part), "nothing says {part:?} any more");
            }
        }
    }
    assert!(checked > 25, "only {checked} sentences were found");
}

/// The fenced blocks of the README, by language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    text.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn the_readme_is_short() {
    let lines = read(&root().join("README.md")).lines().count();
    assert!(lines <= 120, "README.md has {lines} lines, 120 are allowed");
}

#[test]
fn the_readmes_node_loads_without_a_word() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("n1.yml");
    let node = blocks(&read(&root().join("README.md")), "yaml").swap_remove(0);
    std::fs::write(&file, node).unwrap();
    let loaded =
        config::load(Some(&file), std::iter::empty()).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(loaded.warnings.iter().map(ToString::to_string).collect::<Vec<_>>(), Vec::<String>::new());
}

/// The README prints the file that is shipped, and HAProxy accepts it.
#[tokio::test]
async fn the_readmes_haproxy_works_as_printed() {
    let file = root().join("packaging/haproxy.cfg");
    assert!(
        blocks(&read(&root().join("README.md")), "").contains(&read(&file)),
        "README.md prints another one"
    );
    let haproxy = &chaos::setup::tools().await.unwrap().haproxy;
    let done = std::process::Command::new(haproxy).arg("-c").arg("-f").arg(&file).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// The checks themselves: what they must find, and what they must leave alone.
#[test]
fn planted_faults_are_found() {
    let page = Path::new("docs/src/a/page.md");
    let text =
        "[good](../b.md#part) [gone](c.md) [here](#part) [far](https://x/y.md)\n```\n[code](gone.md)\n```\n";
    let dead = dead_links(page, text, &|path| normal(path) == Path::new("docs/src/b.md"));
    assert_eq!(dead, ["c.md"]);
    assert_eq!(quoted("a `b/c.rs` d `e`\n```\n`f`\n```\n"), ["b/c.rs", "e"]);
    assert_eq!(blocks("```yaml\na: 1\n```\n\n```\nx\n```\n", "yaml"), ["a: 1\n"]);
}
