//! One state for all that `decide` cannot tell apart: revisions count by their order, moments of one tick by theirs on
//! their node, and nodes are interchangeable (`cast.rs` says why). The least of the six ways to number the nodes stands
//! for all.

use super::moment::NOW;
use super::state::{
    Cut, Daemon, Id, Intent, Key, Names, Node, Process, Records, Rev, Stamp, State, Sync, Wished, Work,
};

/// The six ways to number three nodes: the new number of each.
const ORDERS: [[u8; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

/// The state that stands for it, and by which numbering.
#[must_use]
pub fn canonical(mut state: State) -> (State, [u8; 3]) {
    tidy(&mut state);
    rank_revisions(&mut state);
    state.nodes.iter_mut().for_each(rank_stamps);
    let mut best = (state, ORDERS[0]);
    for order in &ORDERS[1..] {
        let other = renumber(&state, *order);
        if other < best.0 {
            best = (other, *order);
        }
    }
    best
}

/// What nobody will ever read is nothing.
fn tidy(state: &mut State) {
    let found = state.store.records.sync.map(|sync| sync.revision);
    if state.store.flight.is_some_and(|late| late.revision > 0 && found != Some(late.revision)) {
        state.store.flight = None;
    }
    let records = state.store.records;
    for node in &mut state.nodes {
        let connected = node.cut == Cut::No;
        if let Some(daemon) = &mut node.daemon {
            if connected && daemon.view == Some(records) {
                daemon.view = None;
            }
            forget(daemon, &records);
        }
        let server = &mut node.server;
        // Answers of before a tick are gone, so of an end of before nothing is older.
        server.crashed = server.crashed.filter(|at| at.is_fresh());
        server.down = server.down.filter(|at| at.is_fresh());
        if server.process != Process::Up {
            (server.waiting, server.stale) = (0, [None; 2]);
            server.names = server.file;
            server.primary = false;
        }
        if !server.primary {
            (server.waiting, server.stale) = (0, [None; 2]);
        }
        if server.stale[0].is_none() {
            server.stale.swap(0, 1);
        }
        if node.daemon.is_none() && node.cut != Cut::No && server.process == Process::Gone {
            node.cut = Cut::No;
        }
    }
}

/// A daemon's notes about reigns and requests that are over: epochs do not come again, and equality is all that they are
/// compared for.
fn forget(daemon: &mut Daemon, present: &Records) {
    let view = daemon.view.unwrap_or(*present);
    let reigns = [view.leader.map(|key| key.epoch), present.leader.map(|key| key.epoch)];
    let reigns = [reigns[0], reigns[1], daemon.held.map(|held| held.epoch)];
    let over = |reign: Rev| !reigns.contains(&Some(reign));
    if over(daemon.released) {
        daemon.released = 0;
    }
    if daemon.view.is_none() {
        daemon.written = 0;
    }
    daemon.history = daemon.history.filter(|history| !over(history.epoch));
    let memory = &mut daemon.memory;
    if over(memory.checkpointed) {
        memory.checkpointed = 0;
    }
    memory.compared = memory.compared.filter(|(_, reign)| !over(*reign));
    memory.diverged = memory.diverged.filter(|(_, reign, _)| !over(*reign));
    memory.in_force = memory.in_force.filter(|force| !over(force.epoch));
    let asked = |revision: Rev| {
        [view, *present].iter().any(|view| view.failover.is_some_and(|wished| wished.revision == revision))
    };
    memory.weighed = memory.weighed.filter(|(revision, _)| asked(*revision));
    if !asked(memory.abandoned) {
        memory.abandoned = 0;
    }
    // The pauses that these bound are shorter than a tick.
    memory.released_at = memory.released_at.filter(|at| at.is_fresh());
    memory.read = memory.read.filter(|(at, _)| at.is_fresh());
    if let Some((_, revision)) = &mut memory.read
        && *revision != view.revision
    {
        *revision = 0;
    }
    if memory.settled {
        memory.listed_since = None;
    }
}

fn rank_revisions(state: &mut State) {
    let mut seen = 0_u128;
    revisions(state, &mut |rev| seen |= 1_u128.checked_shl(u32::from(*rev)).unwrap_or(0));
    seen &= !1;
    revisions(state, &mut |rev| {
        if *rev > 0 {
            let below = seen & ((1_u128 << *rev) - 1);
            *rev = 1 + u8::try_from(below.count_ones()).unwrap_or(0);
        }
    });
}

fn revisions(state: &mut State, visit: &mut impl FnMut(&mut Rev)) {
    records(&mut state.store.records, visit);
    if let Some(late) = &mut state.store.flight {
        visit(&mut late.revision);
    }
    visit(&mut state.ghost.epoch);
    for daemon in state.nodes.iter_mut().filter_map(|node| node.daemon.as_mut()) {
        of_daemon(daemon, visit);
    }
}

fn records(records: &mut Records, visit: &mut impl FnMut(&mut Rev)) {
    visit(&mut records.revision);
    if let Some(key) = &mut records.leader {
        visit(&mut key.epoch);
        visit(&mut key.revision);
    }
    if let Some(sync) = &mut records.sync {
        visit(&mut sync.revision);
    }
    if let Some(wished) = &mut records.failover {
        visit(&mut wished.revision);
    }
}

fn of_daemon(daemon: &mut Daemon, visit: &mut impl FnMut(&mut Rev)) {
    if let Some(view) = &mut daemon.view {
        records(view, visit);
    }
    if let Some(held) = &mut daemon.held {
        visit(&mut held.epoch);
        visit(&mut held.revision);
    }
    visit(&mut daemon.released);
    visit(&mut daemon.written);
    let jobs = daemon.job.iter_mut().map(|job| &mut job.work);
    for work in jobs.chain(daemon.ended.iter_mut().map(|ended| &mut ended.work)) {
        if let Work::RestartInPlace(reign) | Work::Promote(reign, _) = work {
            visit(reign);
        }
    }
    if let Some(history) = &mut daemon.history {
        visit(&mut history.epoch);
    }
    let memory = &mut daemon.memory;
    if let Some(Intent::HandOver { revision, .. }) = &mut memory.intent {
        visit(revision);
    }
    visit(&mut memory.checkpointed);
    visit(&mut memory.abandoned);
    if let Some((_, reign)) = &mut memory.compared {
        visit(reign);
    }
    if let Some((_, reign, _)) = &mut memory.diverged {
        visit(reign);
    }
    if let Some((_, found)) = &mut memory.read {
        visit(found);
    }
    if let Some((found, _)) = &mut memory.weighed {
        visit(found);
    }
    if let Some(force) = &mut memory.in_force {
        visit(&mut force.epoch);
    }
}

fn rank_stamps(node: &mut Node) {
    let mut fresh = [false; 256];
    stamps(node, &mut |stamp, _| {
        if let Some(found) = fresh.get_mut(usize::from(stamp.0)) {
            *found |= stamp.is_fresh();
        }
    });
    let mut ranks = [Stamp(0); 256];
    let mut rank = 0;
    for (at, known) in ranks.iter_mut().zip(fresh) {
        if known {
            *at = Stamp::ranked(rank);
            rank += 1;
        }
    }
    stamps(node, &mut |stamp, _| {
        if stamp.is_fresh() {
            *stamp = ranks.get(usize::from(stamp.0)).copied().unwrap_or(NOW);
        }
    });
}

/// Every moment that a node keeps, and whether more than one tick of it counts.
pub fn stamps(node: &mut Node, visit: &mut impl FnMut(&mut Stamp, bool)) {
    for stamp in node.server.crashed.iter_mut().chain(&mut node.server.down) {
        visit(stamp, false);
    }
    let Some(daemon) = &mut node.daemon else { return };
    if let Some(job) = &mut daemon.job {
        visit(&mut job.since, false);
    }
    if let Some(ended) = &mut daemon.ended {
        visit(&mut ended.at, false);
    }
    for peer in daemon.peers.iter_mut().flatten() {
        visit(&mut peer.asked, false);
    }
    let memory = &mut daemon.memory;
    if let Some(stamp) = &mut memory.vacant_since {
        visit(stamp, true);
    }
    for stamp in
        [&mut memory.idle_since, &mut memory.released_at, &mut memory.listed_since].into_iter().flatten()
    {
        visit(stamp, false);
    }
    if let Some((stamp, _)) = &mut memory.read {
        visit(stamp, false);
    }
    if let Some((_, stamp)) = &mut memory.weighed {
        visit(stamp, false);
    }
    if let Some(Intent::HandOver { since, .. }) = &mut memory.intent {
        visit(since, false);
    }
    if let Some(force) = &mut memory.in_force {
        visit(&mut force.since, false);
        if let Some((_, at)) = &mut force.asked {
            visit(at, false);
        }
    }
}

/// The same state with the nodes numbered otherwise.
#[must_use]
pub fn renumber(state: &State, order: [u8; 3]) -> State {
    let to = |node: &mut Id| *node = order.get(usize::from(*node)).copied().unwrap_or(*node);
    let mut new = *state;
    for (old, at) in order.iter().enumerate() {
        let at = usize::from(*at);
        if let (Some(from), Some(place)) = (state.nodes.get(old), new.nodes.get_mut(at)) {
            *place = *from;
            renumber_node(place, order, &to);
        }
        if let (Some(from), Some(place)) = (state.store.member_age.get(old), new.store.member_age.get_mut(at))
        {
            *place = *from;
        }
    }
    renumber_records(&mut new.store.records, order, &to);
    if let Some(late) = &mut new.store.flight {
        renumber_sync(late, order, &to);
    }
    new
}

fn moved<T: Copy>(old: [T; 3], order: [u8; 3]) -> [T; 3] {
    let mut new = old;
    for (from, at) in old.iter().zip(order) {
        if let Some(place) = new.get_mut(usize::from(at)) {
            *place = *from;
        }
    }
    new
}

fn moved_mask(mask: u8, order: [u8; 3]) -> u8 {
    order.iter().enumerate().filter(|(old, _)| mask & (1 << old) != 0).fold(0, |new, (_, at)| new | 1 << at)
}

fn renumber_sync(sync: &mut Sync, order: [u8; 3], to: &impl Fn(&mut Id)) {
    to(&mut sync.leader);
    sync.standbys = moved_mask(sync.standbys, order);
}

fn renumber_records(records: &mut Records, order: [u8; 3], to: &impl Fn(&mut Id)) {
    if let Some(Key { node, .. }) = &mut records.leader {
        to(node);
    }
    records.members = moved(records.members, order);
    if let Some(sync) = &mut records.sync {
        renumber_sync(sync, order, to);
    }
    if let Some(Wished { leader, candidate, .. }) = &mut records.failover {
        to(leader);
        candidate.iter_mut().for_each(to);
    }
}

fn renumber_names(names: &mut Names, order: [u8; 3]) {
    if let Names::For { mask, .. } = names {
        *mask = moved_mask(*mask, order);
    }
}

fn renumber_work(work: &mut Work, to: &impl Fn(&mut Id)) {
    match work {
        Work::StartStandby(Some(node))
        | Work::Clone(node)
        | Work::Rewind(node)
        | Work::Retire(Some(node)) => to(node),
        _ => {}
    }
}

fn renumber_node(node: &mut Node, order: [u8; 3], to: &impl Fn(&mut Id)) {
    let server = &mut node.server;
    server.upstream.iter_mut().for_each(to);
    let lists = [&mut server.file, &mut server.names].into_iter().chain(server.stale.iter_mut().flatten());
    lists.for_each(|names| renumber_names(names, order));
    let Some(daemon) = &mut node.daemon else { return };
    if let Some(view) = &mut daemon.view {
        renumber_records(view, order, to);
    }
    daemon.job.iter_mut().for_each(|job| renumber_work(&mut job.work, to));
    daemon.ended.iter_mut().for_each(|ended| renumber_work(&mut ended.work, to));
    daemon.history.iter_mut().for_each(|history| to(&mut history.member));
    daemon.peers = moved(daemon.peers, order);
    let memory = &mut daemon.memory;
    if let Some(Intent::HandOver { candidate, .. }) = &mut memory.intent {
        candidate.iter_mut().for_each(to);
    }
    memory.setback.iter_mut().for_each(|setback| renumber_work(&mut setback.work, to));
    memory.superseded.iter_mut().for_each(|sync| renumber_sync(sync, order, to));
    if let Some((of, _)) = &mut memory.compared {
        to(of);
    }
    if let Some((of, ..)) = &mut memory.diverged {
        to(of);
    }
    if let Some(force) = &mut memory.in_force {
        renumber_names(&mut force.names, order);
        if let Some((names, _)) = &mut force.asked {
            renumber_names(names, order);
        }
    }
}
