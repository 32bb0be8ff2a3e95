//! The parity page (docs/src/reference/parity.md) against the code: every required number has a row, every
//! test it names exists and runs, and nothing is called done without one. It never judges what a test asserts;
//! whoever writes `yes` does.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::path::Path;

/// The numbers of Patroni's features that the page must have a row for.
const REQUIRED: &[RangeInclusive<u16>] = &[
    1..=38,
    40..=47,
    49..=70,
    72..=101,
    105..=107,
    110..=113,
    119..=124,
    129..=138,
    144..=150,
    161..=164,
    168..=168,
    170..=179,
    181..=181,
    183..=184,
    188..=189,
    192..=196,
    200..=202,
    204..=214,
    217..=224,
    226..=233,
    236..=238,
    243..=258,
    261..=261,
];

/// The test that plays every file of this folder.
const SCENARIOS: (&str, &str) =
    ("chaos/tests/scenarios/", "chaos/tests/scenarios.rs::every_scenario_reads_as_written");

/// One line of the table.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    number: u16,
    status: String,
    tests: Vec<String>,
}

/// The rows of the page's table; a line that begins like a row and is none is a problem.
fn rows(page: &str) -> (Vec<Row>, Vec<String>) {
    let (mut rows, mut problems) = (Vec::new(), Vec::new());
    for line in page.lines().filter(|line| line.starts_with("| P")) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let number = cells[0].strip_prefix('P').filter(|digits| digits.len() == 3);
        match (number.and_then(|digits| digits.parse().ok()), cells.as_slice()) {
            (Some(number), [_, feature, status, tests]) if !feature.is_empty() => rows.push(Row {
                number,
                status: (*status).to_owned(),
                tests: tests.split('`').skip(1).step_by(2).map(str::to_owned).collect(),
            }),
            _ => problems.push(format!("not a row of number, feature, status, tests: {line}")),
        }
    }
    (rows, problems)
}

/// What is wrong with the page. `read` gives the text of a file of the repository.
fn problems(page: &str, required: &BTreeSet<u16>, read: &dyn Fn(&str) -> Option<String>) -> Vec<String> {
    let (rows, mut problems) = rows(page);
    let mut seen = BTreeMap::new();
    for row in &rows {
        *seen.entry(row.number).or_insert(0) += 1;
        problems.extend(wrong_status(row).map(|why| format!("P{:03}: {why}", row.number)));
        let wrong = row.tests.iter().filter_map(|test| wrong_test(test, read).err());
        problems.extend(wrong.map(|why| format!("P{:03}: {why}", row.number)));
    }
    problems
        .extend(seen.iter().filter(|(_, times)| **times > 1).map(|(n, _)| format!("P{n:03} has two rows")));
    problems.extend(required.iter().filter(|n| !seen.contains_key(n)).map(|n| format!("P{n:03} has no row")));
    problems
}

fn wrong_status(row: &Row) -> Option<String> {
    let explained = |rest: &str| rest.strip_prefix(": ").is_some_and(|why| why.len() >= 10);
    if row.status == "yes" {
        return row.tests.is_empty().then(|| "yes without a test".to_owned());
    }
    let rest = row.status.strip_prefix("partial").or_else(|| row.status.strip_prefix("not yet"));
    match rest {
        Some(rest) if explained(rest) => None,
        Some(_) => Some(format!("{:?} does not say what is missing, or why", row.status)),
        None => Some(format!("{:?} is neither yes, partial nor not yet", row.status)),
    }
}

/// Whether `file::test`, `file::test/part` (a function that the test runs) or a scenario file is there and runs.
fn wrong_test(named: &str, read: &dyn Fn(&str) -> Option<String>) -> Result<(), String> {
    if named.starts_with(SCENARIOS.0) {
        let text = read(named).ok_or_else(|| format!("there is no scenario {named}"))?;
        let played = text.split_once("\n----\n").is_some_and(|(_, transcript)| !transcript.trim().is_empty());
        return if played {
            wrong_test(SCENARIOS.1, read)
        } else {
            Err(format!("{named} has no transcript"))
        };
    }
    let (file, name) = named.split_once("::").ok_or_else(|| format!("{named:?} is not file::test"))?;
    let text = read(file).ok_or_else(|| format!("there is no file {file}"))?;
    let (name, part) = name.split_once('/').map_or((name, None), |(name, part)| (name, Some(part)));
    runs(&text, name).map_err(|why| format!("{file}::{name} {why}"))?;
    match part {
        Some(part) if text.matches(&format!("{part}(")).count() < 2 => {
            Err(format!("{file}::{name} does not run {part}"))
        }
        _ => Ok(()),
    }
}

/// Whether the text has a test of this name that is not ignored.
fn runs(text: &str, name: &str) -> Result<(), &'static str> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let signature = format!("fn {name}(");
    let at = lines
        .iter()
        .position(|line| line.split_once(&signature).is_some_and(|(before, _)| is_qualifier(before)))
        .ok_or("is not there")?;
    let above: Vec<&&str> = lines[..at]
        .iter()
        .rev()
        .take_while(|line| line.starts_with("#[") || line.starts_with("//"))
        .collect();
    let has = |attribute: &str| above.iter().any(|line| line.starts_with(attribute));
    if !(has("#[test]") || has("#[tokio::test]") || has("#[tokio::test(")) {
        return Err("is not a test");
    }
    if has("#[ignore") || has("#[cfg") { Err("is ignored") } else { Ok(()) }
}

fn is_qualifier(before: &str) -> bool {
    before.split_whitespace().all(|word| matches!(word, "pub" | "async"))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn required() -> BTreeSet<u16> {
    REQUIRED.iter().cloned().flatten().collect()
}

#[test]
fn every_required_feature_has_its_row_and_its_tests() {
    let page = std::fs::read_to_string(root().join("docs/src/reference/parity.md")).unwrap();
    let found = problems(&page, &required(), &|file| std::fs::read_to_string(root().join(file)).ok());
    assert!(found.is_empty(), "docs/src/reference/parity.md:\n{}", found.join("\n"));
}

#[test]
fn the_summary_counts_the_rows() {
    let page = std::fs::read_to_string(root().join("docs/src/reference/parity.md")).unwrap();
    let (rows, _) = rows(&page);
    let count = |begins: &str| rows.iter().filter(|row| row.status.starts_with(begins)).count();
    let summary = format!("{} yes, {} partial, {} not yet", count("yes"), count("partial"), count("not yet"));
    assert!(page.contains(&summary), "the page must say: {summary}");
}

/// A small repository to judge pages against.
fn planted(file: &str) -> Option<String> {
    let text = match file {
        "a/tests/a.rs" => {
            "#[test]\nfn shown() {\n    helped();\n}\nfn helped() {}\n/// Says why.\n#[tokio::test]\nasync fn waits() {}\n\
             #[test]\n#[ignore = \"slow\"]\nfn skipped() {}\n#[ignore]\n#[test]\nfn skipped_too() {}\nfn no_test() {}\n\
             // #[test]\nfn commented() {}\n"
        }
        "chaos/tests/scenarios.rs" => "#[test]\nfn every_scenario_reads_as_written() {}\n",
        "chaos/tests/scenarios/leader-dies.txt" => "kill n1\n----\nn2 promote\n",
        "chaos/tests/scenarios/empty.txt" => "kill n1\n----\n\n",
        _ => return None,
    };
    Some(text.to_owned())
}

fn judged(page: &str) -> Vec<String> {
    problems(page, &[1, 2].into(), &planted)
}

#[test]
fn a_whole_page_passes() {
    let page = "| No. | Feature | Status | Shown by |\n|---|---|---|---|\n\
        | P001 | one | yes | `a/tests/a.rs::shown`, `a/tests/a.rs::waits` |\n\
        | P002 | two | partial: half of it is missing | `chaos/tests/scenarios/leader-dies.txt`, `a/tests/a.rs::shown/helped` |\n";
    assert_eq!(judged(page), Vec::<String>::new());
}

/// Every gap that a page can have is seen, and named with its number.
#[test]
fn planted_gaps_are_found() {
    let good = "| P001 | one | yes | `a/tests/a.rs::shown` |\n";
    for (row, complaint) in [
        ("", "P002 has no row"),
        ("| P002 | two | yes | |\n", "P002: yes without a test"),
        ("| P002 | two | yes | - |\n", "P002: yes without a test"),
        ("| P002 | two | done | `a/tests/a.rs::shown` |\n", "neither yes"),
        ("| P002 | two | partial | `a/tests/a.rs::shown` |\n", "does not say what is missing"),
        ("| P002 | two | not yet: | - |\n", "does not say what is missing"),
        ("| P002 | two | yes | `a/tests/a.rs::gone` |\n", "is not there"),
        ("| P002 | two | yes | `a/tests/a.rs::show` |\n", "is not there"),
        ("| P002 | two | yes | `a/tests/b.rs::shown` |\n", "there is no file"),
        ("| P002 | two | yes | `a/tests/a.rs::skipped` |\n", "is ignored"),
        ("| P002 | two | yes | `a/tests/a.rs::skipped_too` |\n", "is ignored"),
        ("| P002 | two | yes | `a/tests/a.rs::no_test` |\n", "is not a test"),
        ("| P002 | two | yes | `a/tests/a.rs::commented` |\n", "is not a test"),
        ("| P002 | two | yes | `a/tests/a.rs::shown/never_called` |\n", "does not run never_called"),
        ("| P002 | two | yes | `shown` |\n", "is not file::test"),
        ("| P002 | two | yes | `chaos/tests/scenarios/gone.txt` |\n", "there is no scenario"),
        ("| P002 | two | yes | `chaos/tests/scenarios/empty.txt` |\n", "has no transcript"),
        ("| P2 | two | yes | `a/tests/a.rs::shown` |\n", "not a row"),
        ("| P002 | yes | `a/tests/a.rs::shown` |\n", "not a row"),
        (
            "| P002 | two | yes | `a/tests/a.rs::shown` |\n| P002 | two | yes | `a/tests/a.rs::shown` |\n",
            "P002 has two rows",
        ),
    ] {
        let found = judged(&format!("{good}{row}"));
        assert!(found.iter().any(|problem| problem.contains(complaint)), "{row:?} gave {found:?}");
    }
}

/// Without the scenario's test its files prove nothing.
#[test]
fn scenarios_need_the_test_that_plays_them() {
    let page = "| P001 | one | yes | `chaos/tests/scenarios/leader-dies.txt` |\n| P002 | two | not yet: nobody wrote it | - |\n";
    let without = |file: &str| (file != "chaos/tests/scenarios.rs").then(|| planted(file)).flatten();
    let found = problems(page, &[1, 2].into(), &without);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(judged(page), Vec::<String>::new());
}
