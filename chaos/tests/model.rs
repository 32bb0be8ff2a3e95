//! The model checker, bounded so that it ends within a moment: no law is broken, every planted fault is found, a primary
//! can be admitted again from everywhere, and nothing is asked of a local server that the executor refuses.

#![allow(clippy::unwrap_used, reason = "a panic is a failed test, in its helpers too")]

use std::path::Path;

use chaos::model::check::{Found, Reach, check};
use chaos::model::planted::PLANTED;
use chaos::model::reach::liveness;
use chaos::model::refusal::refusal;
use chaos::model::state::Left;
use chaos::model::table::{ASKED, PLACES};
use chaos::model::{BOUNDS, Mode, Model};

const MODES: [Mode; 4] = [Mode::Off, Mode::On, Mode::Strict, Mode::Quorum];
const NOTHING: Left =
    Left { crashes: 0, pauses: 0, cuts: 0, writes: 0, switchovers: 0, lost: 0, lags: 0, reigns: 2 };

fn explore(mode: Mode, left: Left, states: usize) -> (Model, Found) {
    let model = Model::new(mode, left, None);
    let found = check(&model, Reach { states, depth: None, threads: 2, limit: None, until: None });
    println!("{mode:?}: {} states, {} steps deep, {:?}", found.unique, found.depth, found.took);
    for (law, actions) in &found.broken {
        println!("{law}\n{}", model.tell(actions));
    }
    assert!(found.broken.is_empty(), "a law is broken: the trace is above");
    (model, found)
}

/// What decisions asked for in these runs is in the book's table, and the executor refuses none of it.
fn is_in_the_book(model: &Model) {
    assert_eq!(model.table.refused(), Vec::<String>::new());
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/src/reference/steps.md");
    let page = std::fs::read_to_string(&file).unwrap();
    let rows: Vec<Vec<&str>> = page.lines().map(|line| line.split('|').map(str::trim).collect()).collect();
    for (step, words) in ASKED.iter().enumerate() {
        let row = rows.iter().find(|row| row.get(1) == Some(words));
        assert!(row.is_some(), "docs/src/reference/steps.md has no row for {words}");
        for (at, place) in PLACES.into_iter().enumerate() {
            let sign = *row.and_then(|row| row.get(at + 2)).unwrap();
            let refused = refusal(place, step).is_some();
            assert_eq!(sign == "–", refused, "{words} of {}: the book says {sign:?}", place.words());
            let asked = model.table.was_asked(place, step);
            assert!(
                !asked || sign == "×",
                "{words} is asked of {}, and the book does not say so",
                place.words()
            );
        }
    }
}

#[test]
fn no_law_is_broken_within_the_bounds() {
    for mode in MODES {
        let (model, found) = explore(mode, BOUNDS, 40_000);
        assert!(found.unique > 5_000, "{found:?}");
        is_in_the_book(&model);
    }
}

/// With one crash and nothing else every state there is has been seen, and the cluster comes through.
#[test]
fn one_crash_is_survived_in_every_order_of_events() {
    let (model, found) = explore(Mode::Off, Left { crashes: 1, reigns: 1, ..NOTHING }, usize::MAX);
    assert!(found.complete && found.unique > 100_000, "{found:?}");
    assert_eq!(found.reached, ["a failover completes", "a former primary rejoins"]);
    is_in_the_book(&model);
}

#[test]
fn a_switchover_completes() {
    let (model, found) = explore(Mode::Off, Left { switchovers: 1, reigns: 1, ..NOTHING }, 100_000);
    assert!(found.reached.contains(&"a switchover completes"), "{found:?}");
    is_in_the_book(&model);
}

/// From none of the states that one crash leads to is nobody admitted any more.
#[test]
fn a_primary_can_always_be_admitted_again() {
    const MANY: usize = 8_000;
    for mode in [Mode::Off, Mode::On] {
        let model = Model::new(mode, Left { crashes: 1, ..NOTHING }, None);
        let reached = liveness(&model, MANY);
        println!("{mode:?}: {} states, {} ways, {} at the edge", reached.states, reached.edges, reached.open);
        if let Some(actions) = &reached.stuck {
            println!("{}", model.tell(actions));
        }
        assert!(reached.stuck.is_none() && reached.states == MANY, "stuck in {} states", reached.dead);
    }
}

#[test]
fn every_planted_fault_is_found() {
    let mut caught = 0;
    for (fault, mode, left, law) in PLANTED {
        let model = Model::new(mode, left, Some(fault));
        let until = Some(law);
        let found = check(&model, Reach { states: 2_000_000, depth: None, threads: 2, limit: None, until });
        let by: Vec<&str> = found.broken.iter().map(|(law, _)| *law).collect();
        println!("{fault:?}: {by:?} in {} states, {:?}", found.unique, found.took);
        caught += usize::from(by.contains(&law));
    }
    println!("caught/planted: {caught}/{}", PLANTED.len());
    assert_eq!(caught, PLANTED.len());
}
