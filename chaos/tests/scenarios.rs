//! Decisions as text: each file of `scenarios/` is a script and the transcript of
//! what the production `decide` made every node do, reviewed as a diff of English.
//! `MATRIARCH_BLESS=1` rewrites the transcripts.

// A test may stop at the first surprise.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::unwrap_used, clippy::panic)]

mod reasons;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use chaos::sim::planted::PLANTED;
use chaos::sim::planted::bugs::{BUGS, Stand};
use chaos::sim::reasons::{ELSEWHERE, declared};
use chaos::sim::{self, World, script};

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .expect("the folder of scenarios")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    files.sort();
    files
}

/// Runs a script; afterwards all faults end and the cluster must come together.
fn play(text: &str) -> World {
    let mut world = World::new(None);
    let outcome = script::run(text, &mut world);
    if let Err(why) = outcome {
        world.violations.push(why);
    }
    world.quiet = true;
    if world.stays.is_none() && world.violations.is_empty() {
        world.converge(Duration::from_secs(120));
    }
    world
}

fn blessing() -> bool {
    std::env::var_os("MATRIARCH_BLESS").is_some_and(|value| value == "1")
}

#[test]
fn every_scenario_reads_as_written() {
    let mut wrong = Vec::new();
    for path in files() {
        let text = std::fs::read_to_string(&path).expect("a readable scenario");
        let (plot, expected) = script::split(&text);
        let world = play(plot);
        let transcript: String = world.log.iter().map(|line| format!("{}\n", line.trim_end())).collect();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !world.violations.is_empty() {
            wrong.push(format!("{name}: {:#?}\n{transcript}", world.violations));
        }
        if transcript != expected {
            if blessing() {
                std::fs::write(&path, format!("{plot}----\n{transcript}")).expect("a writable scenario");
            } else {
                wrong.push(format!(
                    "{name} reads differently now (MATRIARCH_BLESS=1 rewrites it):\n{transcript}"
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// For every reason the scenarios that show it.
fn shown() -> &'static BTreeMap<String, Vec<String>> {
    static SHOWN: OnceLock<BTreeMap<String, Vec<String>>> = OnceLock::new();
    SHOWN.get_or_init(|| {
        let mut shown: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for path in files() {
            let text = std::fs::read_to_string(&path).expect("a readable scenario");
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            for reason in play(script::split(&text).0).shown {
                shown.entry(reason).or_default().push(name.clone());
            }
        }
        shown
    })
}

fn missing(declared: &[(String, String)], shown: &BTreeMap<String, Vec<String>>) -> Vec<String> {
    declared.iter().map(|(name, _)| name).filter(|name| !shown.contains_key(*name)).cloned().collect()
}

#[test]
fn every_reason_is_shown_by_a_scenario() {
    let missing = missing(&declared(), shown());
    assert!(missing.is_empty(), "no scenario shows {missing:?}");
}

#[test]
fn what_lives_by_chance_do_not_show_its_scenario_does() {
    for (reason, _, scenario) in ELSEWHERE {
        assert!(shown()[reason].iter().any(|name| name == scenario), "{scenario} does not show {reason}");
    }
}

#[test]
fn a_reason_that_no_scenario_shows_is_found() {
    let mut declared = declared();
    declared.push(("Planted".into(), "Nobody shows it.".into()));
    assert_eq!(missing(&declared, shown()), ["Planted"]);
}

/// `MATRIARCH_SEED=n` plays one seed and prints its transcript; `MATRIARCH_SEEDS=n` plays so many.
#[test]
fn whatever_befalls_a_cluster_its_promises_hold() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let one = number("MATRIARCH_SEED");
    let seeds = match one {
        Some(seed) => seed..seed + 1,
        None => 0..number("MATRIARCH_SEEDS").unwrap_or(40),
    };
    let mut wrong = Vec::new();
    for seed in seeds {
        let plot = sim::plot::script(seed, 10);
        let (world, _) = sim::trial::live(seed, &plot, true);
        let short: Vec<&str> = plot.lines().take(5).collect();
        let plot = if one.is_some() { plot.clone() } else { short.join("\n") };
        if one.is_some() {
            println!("{plot}\n----\n{}", world.log.join("\n"));
        }
        if !world.violations.is_empty() {
            let tail = world.log.len().saturating_sub(60);
            let log = world.log[tail..].join("\n");
            wrong.push(format!("seed {seed}: {:#?}\n{plot}\n----\n{log}", world.violations));
        }
    }
    let first = wrong.first().cloned().unwrap_or_default();
    assert!(wrong.is_empty(), "{} seeds fail (MATRIARCH_SEED=n shows one); the first:\n{first}", wrong.len());
}

/// Faults planted into the world and into its copies of the guards: without each nothing is broken, with it its checker
/// says so.
#[test]
fn every_checker_fires() {
    let mut uncaught = Vec::new();
    for (fault, plot, says) in PLANTED {
        let plot = match plot.strip_prefix("scenario ") {
            Some(name) => {
                let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/scenarios/{name}.txt"));
                let text = std::fs::read_to_string(path).expect("a readable scenario");
                script::split(&text).0.to_owned()
            }
            None => format!("cluster n1=primary@1/500 n2=replica@1/500 n3=replica@1/500\n{plot}"),
        };
        let broken = |planted| {
            let mut world = World::new(None);
            world.planted = planted;
            if let Err(why) = script::run(&plot, &mut world) {
                world.violations.push(why);
            }
            if world.violations.is_empty() && world.stays.is_none() {
                world.converge(Duration::from_secs(120));
            }
            world.violations
        };
        assert_eq!(broken(None), Vec::<String>::new(), "{fault:?} is not what breaks this script");
        let found = broken(Some(fault));
        if !found.iter().any(|what| what.contains(says)) {
            uncaught.push(format!("{fault:?} goes unnoticed: {found:#?}"));
        }
    }
    println!("{} of {} planted faults are caught", PLANTED.len() - uncaught.len(), PLANTED.len());
    assert!(uncaught.is_empty(), "{}", uncaught.join("\n"));
}

/// The page of the book about known bugs, as it must read.
fn bugs_page() -> String {
    let mut page = String::from(BUGS_HEAD);
    for (number, what, stand) in BUGS {
        let stands = match stand {
            Stand::Planted(faults) => {
                let names: Vec<String> = faults.iter().map(|fault| format!("`{fault:?}`")).collect();
                format!("planted: {}", names.join(", "))
            }
            Stand::Elsewhere(why) => why.to_owned(),
        };
        page.push_str(&format!("| {number} | {what} | {stands} |\n"));
    }
    page
}

const BUGS_HEAD: &str = "# Known bugs of other systems

What went wrong elsewhere, and what would notice it here. *Planted*: a fault of this name takes the same guard away in
the simulator (`chaos/src/sim/planted`), and the suite must catch it (`every_checker_fires` prints how many it caught).
Otherwise: why it is no decision's matter, and what tests it instead. This page is made from the source by a test.

| Bug | What went wrong | What stands for it |
|---|---|---|
";

#[test]
fn every_known_bug_is_planted_or_said_why_not() {
    let planted: Vec<_> = PLANTED.iter().map(|(fault, ..)| *fault).collect();
    for (index, (number, _, stand)) in BUGS.iter().enumerate() {
        assert_eq!(*number, format!("B{:02}", index + 1));
        match stand {
            Stand::Planted(faults) => {
                assert!(!faults.is_empty() && faults.iter().all(|fault| planted.contains(fault)), "{number}");
            }
            Stand::Elsewhere(why) => assert!(!why.is_empty(), "{number}"),
        }
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/src/reference/known-bugs.md");
    if blessing() {
        std::fs::write(&path, bugs_page()).expect("a writable page");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == bugs_page(),
        "{} is not what the source says now (MATRIARCH_BLESS=1 rewrites it)",
        path.display()
    );
}

#[test]
fn the_book_lists_every_reason() {
    let (page, missing) = reasons::page(&declared(), shown());
    assert!(missing.is_empty(), "the book's samples lack {missing:?}");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/src/reference/reasons.md");
    if blessing() {
        std::fs::write(&path, &page).expect("a writable page");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == page,
        "{} is not what the source says now (MATRIARCH_BLESS=1 rewrites it)",
        path.display()
    );
}
