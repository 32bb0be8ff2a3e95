//! Every interleaving of the resolver's changes with commits, settling lists, confirmations, wishes and restarts of the
//! daemon, for up to five names, the leader among them: in no state may whoever could lead lack a commit.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;

use super::resolver::{Change, Situation, Voters, Wait, next};

type Names = BTreeSet<u8>;

/// A list in few bits, so that there can be many states: whom it names, how many of them, and what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct List(u8, u8, bool);

/// No further list.
const NONE: List = List(0, u8::MAX, false);

/// All that matters of a leader and its standbys. The leader has every commit; a standby's log is a prefix of its.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct State {
    voters: u8,
    quorum: u8,
    list: List,
    /// Lists by which some process may still work.
    before: [List; 2],
    /// The daemon knows that none does.
    settled: bool,
    confirmed: u8,
    /// No commit was acknowledged since it knows.
    fresh: bool,
    /// Who has the last acknowledged commit, and so all.
    holders: u8,
}

/// What the resolver sees of a state.
type Seen = (u8, u8, List, bool, u8);

/// What is wished at one step.
#[derive(Debug, Clone)]
struct Wish {
    wanted: u8,
    count: usize,
    any: bool,
    strict: bool,
}

type Rule = fn(&Situation<u8>) -> Option<Change<u8>>;

fn names(mask: u8) -> Names {
    (0..8).filter(|name| mask & (1 << name) != 0).collect()
}

fn mask(names: &Names) -> u8 {
    names.iter().map(|name| 1 << name).sum()
}

fn small(number: usize) -> u8 {
    u8::try_from(number).unwrap()
}

fn list(wait: &Wait<u8>) -> List {
    match wait {
        Wait::Nobody | Wait::Foreign => List(0, 0, false),
        Wait::For { names, count } => List(mask(names), small(*count), false),
        Wait::Forever => List(0, 0, true),
    }
}

fn wait(list: List) -> Wait<u8> {
    if list.2 { Wait::Forever } else { Wait::of(names(list.0), usize::from(list.1)) }
}

fn situation(seen: Seen, wish: &Wish) -> Situation<u8> {
    Situation {
        voters: Voters { quorum: usize::from(seen.1), names: names(seen.0) },
        wait: wait(seen.2),
        settled: seen.3,
        confirmed: names(seen.4),
        wanted: names(wish.wanted),
        count: wish.count,
        barred: Names::new(),
        any: wish.any,
        strict: wish.strict,
    }
}

impl State {
    fn new() -> Self {
        Self {
            voters: 0,
            quorum: 0,
            list: List(0, 0, false),
            before: [NONE; 2],
            settled: false,
            confirmed: 0,
            fresh: false,
            holders: 0,
        }
    }

    fn seen(&self) -> Seen {
        (self.voters, self.quorum, self.list, self.settled, self.confirmed)
    }

    /// Nothing if more lists than fit would be mixed.
    fn changed(&self, change: &Change<u8>) -> Option<Self> {
        match change {
            Change::Record(voters) => {
                Some(Self { voters: mask(&voters.names), quorum: small(voters.quorum), ..*self })
            }
            Change::Names(to) => {
                let to = list(to);
                let mut before: BTreeSet<List> = self.before.iter().copied().chain([self.list]).collect();
                before.remove(&to);
                before.remove(&NONE);
                let mut listed = before.into_iter();
                let before = [listed.next().unwrap_or(NONE), listed.next().unwrap_or(NONE)];
                let fits = listed.next().is_none();
                fits.then_some(Self { list: to, before, settled: false, confirmed: 0, ..*self })
            }
        }
    }

    fn settle(&self) -> Self {
        Self { before: [NONE; 2], settled: true, confirmed: 0, fresh: true, ..*self }
    }

    fn confirm(&self, name: u8) -> Self {
        let holders = if self.fresh { self.holders | 1 << name } else { self.holders };
        Self { confirmed: self.confirmed | 1 << name, holders, ..*self }
    }

    /// The worst that acknowledging one more commit can leave behind, under every list that may be in force.
    fn acknowledged(&self) -> Vec<Self> {
        let lists = self.before.iter().chain([&self.list]).filter(|list| **list != NONE && !list.2);
        let left = lists.flat_map(|list| {
            (0..=list.0).filter(|set| set & !list.0 == 0 && set.count_ones() == u32::from(list.1))
        });
        left.map(|holders| Self { holders, fresh: false, ..*self }).collect()
    }

    /// A candidate hears from `quorum` others: among so many and itself there must be one that has everything.
    fn is_safe(&self) -> bool {
        self.voters == 0 || (self.voters & !self.holders).count_ones() <= u32::from(self.quorum)
    }
}

fn wishes(standbys: u8, counts: &[usize]) -> Vec<Wish> {
    let mut found = Vec::new();
    for wanted in 0..1_u8 << standbys {
        for (any, strict) in [(false, false), (false, true), (true, false), (true, true)] {
            for count in counts.iter().copied() {
                // In the other mode every wanted one counts.
                if any || wanted.count_ones() as usize <= count {
                    found.push(Wish { wanted, count, any, strict });
                }
            }
        }
    }
    found
}

/// Every state that can be reached; the first unsafe one with the way to it.
fn explore(standbys: u8, counts: &[usize], rule: Rule) -> Result<BTreeSet<State>, String> {
    let wishes = wishes(standbys, counts);
    let mut known: BTreeMap<Seen, Vec<Change<u8>>> = BTreeMap::new();
    let mut from: BTreeMap<State, Option<State>> = BTreeMap::from([(State::new(), None)]);
    let mut open = Vec::from([State::new()]);
    while let Some(state) = open.pop() {
        let changes = known.entry(state.seen()).or_insert_with(|| {
            let mut changes: Vec<_> =
                wishes.iter().filter_map(|wish| rule(&situation(state.seen(), wish))).collect();
            changes.dedup();
            changes
        });
        let mut after: Vec<State> = changes.iter().filter_map(|change| state.changed(change)).collect();
        after.extend(state.acknowledged());
        if state.settled {
            // The daemon starts anew and knows nothing but what stands.
            after.push(State { settled: false, confirmed: 0, ..state });
            let open = (0..standbys).filter(|name| state.confirmed & (1 << name) == 0);
            after.extend(open.map(|name| state.confirm(name)));
        } else {
            after.push(state.settle());
        }
        for next in after {
            if !next.is_safe() {
                return Err(alloc::format!("{next:#?}\nafter {state:#?}\nafter {:#?}", from.get(&state)));
            }
            from.entry(next).or_insert_with(|| {
                open.push(next);
                Some(state)
            });
        }
    }
    Ok(from.into_keys().collect())
}

/// With everybody confirmed and every list settled, the wish is fulfilled in a few changes and then nothing changes.
fn converges(seen: Seen, wish: &Wish) -> Result<usize, String> {
    let mut now = situation(seen, wish);
    let mut changes = 0;
    while changes < 12 {
        match next(&now) {
            Some(Change::Record(voters)) => (now.voters, changes) = (voters, changes + 1),
            Some(Change::Names(wait)) => {
                (now.wait, now.settled, changes) = (wait, false, changes + 1);
                now.confirmed.clear();
            }
            None if now.settled && now.confirmed.len() == 8 => break,
            None => (now.settled, now.confirmed) = (true, names(u8::MAX)),
        }
    }
    let count = if wish.any { wish.count.min(now.wanted.len()) } else { now.wanted.len() };
    let fulfilled = now.voters.names == now.wanted
        && now.voters.quorum == now.wanted.len() - count
        && now.wait == Wait::of(now.wanted.clone(), count);
    let blocked = wish.wanted == 0 && wish.strict && !matches!(now.wait, Wait::Nobody | Wait::Foreign);
    (changes < 12 && (fulfilled || blocked))
        .then_some(changes)
        .ok_or_else(|| alloc::format!("{seen:?}\n{wish:?}\nends as {now:#?} after {changes} changes"))
}

#[test]
fn whoever_may_lead_has_every_commit_and_every_wish_comes_true() {
    for (standbys, counts) in [(1, &[1][..]), (2, &[1, 2]), (3, &[1, 2])] {
        let states = explore(standbys, counts, next).unwrap_or_else(|why| panic!("{why}"));
        let views: BTreeSet<Seen> = states.iter().map(State::seen).collect();
        let wishes = wishes(standbys, &[1, 2, 3]);
        for seen in &views {
            for wish in &wishes {
                let changes = converges(*seen, wish).unwrap_or_else(|why| panic!("{why}"));
                assert!(changes <= 3, "{changes} changes from {seen:?} to {wish:?}");
            }
        }
        assert!(states.len() > [4, 50, 1000][usize::from(standbys) - 1], "{}", states.len());
    }
}

#[test]
fn with_five_names_too() {
    let states = explore(4, &[2], next).unwrap_or_else(|why| panic!("{why}"));
    assert!(states.len() > 100_000, "{}", states.len());
}

#[test]
fn the_walk_notices_what_is_done_in_the_wrong_order() {
    let faults: [(&str, Rule); 5] = [
        ("names before the record", |now| match next(now) {
            Some(Change::Record(voters)) if voters.names.len() < now.voters.names.len() => {
                let wanted = Wait::of(now.wanted.clone(), now.wanted.len());
                (wanted != now.wait).then_some(Change::Names(wanted))
            }
            other => other,
        }),
        ("the record before the names", |now| match next(now) {
            Some(Change::Names(_)) if !now.wanted.is_empty() && !now.any => {
                Some(Change::Record(Voters { quorum: 0, names: now.wanted.clone() }))
            }
            other => other,
        }),
        ("a list counts before it is in force", |now| {
            next(&Situation { settled: true, confirmed: now.wanted.clone(), ..now.clone() })
        }),
        ("nobody has to be confirmed", |now| {
            next(&Situation { confirmed: now.wanted.clone(), ..now.clone() })
        }),
        ("a quorum that is one too small", |now| match next(now) {
            Some(Change::Record(voters)) if voters.quorum > 0 => {
                Some(Change::Record(Voters { quorum: voters.quorum - 1, ..voters }))
            }
            other => other,
        }),
    ];
    for (what, rule) in faults {
        assert!(explore(2, &[1], rule).is_err(), "{what} goes unnoticed");
    }
}

#[test]
fn a_list_that_somebody_else_wrote_makes_nobody_certain() {
    let names = Names::from([1]);
    let now = Situation {
        voters: Voters { quorum: 0, names: names.clone() },
        wait: Wait::Foreign,
        settled: true,
        confirmed: names.clone(),
        wanted: names,
        count: 1,
        barred: Names::new(),
        any: false,
        strict: false,
    };
    assert_eq!(next(&now), Some(Change::Record(Voters::nobody())));
}

#[test]
fn who_acknowledged_last_stays_the_one_who_may_lead_while_strict_commits_wait() {
    let names = Names::from([1]);
    let gone = Situation {
        voters: Voters { quorum: 0, names: names.clone() },
        wait: Wait::of(names.clone(), 1),
        settled: true,
        confirmed: Names::new(),
        wanted: Names::new(),
        count: 1,
        barred: Names::new(),
        any: false,
        strict: true,
    };
    assert_eq!(next(&gone), None);
    let barred = Situation { barred: names, ..gone };
    assert_eq!(next(&barred), Some(Change::Names(Wait::Forever)));
    // Without the promise commits go on, and then nobody else is certain to have them.
    let lenient = Situation { strict: false, ..barred };
    assert_eq!(next(&lenient), Some(Change::Record(Voters::nobody())));
    let after = Situation { voters: Voters::nobody(), ..lenient };
    assert_eq!(next(&after), Some(Change::Names(Wait::Nobody)));
}
