//! Liveness on a bounded graph: from which states is no state reachable in which somebody is admitted as primary?
//!
//! Every state within the bounds is explored with its edges, and reachability followed backwards. A state whose
//! successors were not all explored counts as one from which it is reachable, so that what remains is certain.

use std::collections::{BTreeMap, VecDeque};

use super::law::admitted;
use super::state::State;
use super::{Action, Model};

/// What came of it.
#[derive(Debug)]
pub struct Reached {
    /// States explored whole.
    pub states: usize,
    /// Edges.
    pub edges: usize,
    /// States at the edge of what was explored.
    pub open: usize,
    /// The way to the first state from which nobody is ever admitted, if there is one.
    pub stuck: Option<Vec<Action>>,
    /// How many there are.
    pub dead: usize,
}

/// Explores at most so many states, and looks backwards.
#[must_use]
pub fn liveness(model: &Model, most: usize) -> Reached {
    let mut numbers: BTreeMap<State, usize> = BTreeMap::new();
    let mut came: Vec<Option<(usize, Action)>> = vec![None];
    let mut back: Vec<Vec<u32>> = vec![Vec::new()];
    let mut good: Vec<usize> = Vec::new();
    let mut queue: VecDeque<State> = VecDeque::new();
    let begin = model.begins();
    numbers.insert(begin, 0);
    queue.push_back(begin);
    let (mut explored, mut edges, mut open) = (0, 0, 0);
    while let Some(state) = queue.pop_front() {
        let from = numbers.get(&state).copied().unwrap_or(0);
        if admitted(&state).is_some() {
            good.push(from);
        }
        if explored >= most || !model.is_within(&state) {
            open += 1;
            good.push(from);
            continue;
        }
        explored += 1;
        for action in model.choices(&state) {
            let Some((next, _)) = model.follows(&state, action) else { continue };
            edges += 1;
            let to = *numbers.entry(next).or_insert_with(|| {
                came.push(Some((from, action)));
                back.push(Vec::new());
                queue.push_back(next);
                came.len() - 1
            });
            if let (Some(list), Ok(from)) = (back.get_mut(to), u32::try_from(from)) {
                list.push(from);
            }
        }
    }
    let mut alive = vec![false; came.len()];
    while let Some(at) = good.pop() {
        let Some(known) = alive.get_mut(at).filter(|known| !**known) else { continue };
        *known = true;
        let before = back.get(at).into_iter().flatten();
        good.extend(before.filter_map(|from| usize::try_from(*from).ok()));
    }
    let stuck = alive.iter().position(|alive| !alive);
    let dead = alive.iter().filter(|alive| !**alive).count();
    Reached { states: explored, edges, open, stuck: stuck.map(|at| way(&came, at)), dead }
}

fn way(came: &[Option<(usize, Action)>], at: usize) -> Vec<Action> {
    let mut actions = Vec::new();
    let mut next = Some(at);
    while let Some((from, action)) = next.and_then(|at| came.get(at).copied().flatten()) {
        actions.push(action);
        next = Some(from);
    }
    actions.reverse();
    actions
}
