//! Logs: a timeline and an end, where timelines are told apart by the promotion that made them. Numbers alone say
//! nothing, as in reality. Pure.

use dcs::{Lsn, Timeline};

use super::state::{MINTS, Mint, Pos, Process, Server, State};

impl State {
    /// A timeline; the first where there is none.
    #[must_use]
    pub fn mint(&self, mint: u8) -> Mint {
        let found = self.mints.get(usize::from(mint)).copied().flatten();
        found.unwrap_or(Mint { number: 1, parent: 0, from: 0 })
    }

    /// The timelines that a log on this one has passed through, the newest first, each with where it begins.
    fn branches(&self, mint: u8) -> impl Iterator<Item = (u8, Pos)> {
        let mut next = Some(mint);
        std::iter::from_fn(move || {
            let at = next?;
            let found = self.mint(at);
            next = (found.parent != at).then_some(found.parent);
            Some((at, found.from))
        })
    }

    /// Past timelines and where they were left, ascending.
    #[must_use]
    pub fn switches(&self, mint: u8) -> Vec<(Timeline, Lsn)> {
        let mut found: Vec<(Timeline, Lsn)> = self
            .branches(mint)
            .filter(|(at, _)| self.mint(*at).parent != *at)
            .map(|(at, from)| (Timeline(u32::from(self.mint(self.mint(at).parent).number)), lsn(from)))
            .collect();
        found.reverse();
        found
    }

    /// Which timeline the record at this position of a log is on.
    #[must_use]
    pub fn mint_at(&self, mint: u8, position: Pos) -> u8 {
        self.branches(mint).find(|(_, from)| position > *from).map_or(0, |(at, _)| at)
    }

    /// Whether the log `(mint, end)` has the record at `position` of timeline `of`.
    #[must_use]
    pub fn has(&self, (mint, end): (u8, Pos), of: u8, position: Pos) -> bool {
        position <= end && self.mint_at(mint, position) == of
    }

    /// How far two logs are the same.
    #[must_use]
    pub fn common(&self, one: (u8, Pos), other: (u8, Pos)) -> Pos {
        let shorter = one.1.min(other.1);
        (1..=shorter).rev().find(|at| self.mint_at(one.0, *at) == self.mint_at(other.0, *at)).unwrap_or(0)
    }

    /// A new timeline at the end of this log, above this number; nothing if there have been too many.
    pub fn make(&mut self, server: &Server, above: u8) -> Option<u8> {
        let number = self.mint(server.mint).number.max(above) + 1;
        let free = (1..MINTS).find(|at| self.mints.get(*at).is_some_and(Option::is_none))?;
        *self.mints.get_mut(free)? = Some(Mint { number, parent: server.mint, from: server.end });
        u8::try_from(free).ok()
    }

    /// From whom a standby could stream now, as Postgres judges: by number only.
    #[must_use]
    pub fn streams(&self, node: usize) -> Option<usize> {
        let mine = &self.node(node).server;
        let from = usize::from(mine.upstream?);
        let theirs = &self.node(from).server;
        let able = mine.process == Process::Up && !mine.primary && theirs.process == Process::Up;
        if !able || from == node || !self.linked(node, from) {
            return None;
        }
        let own = self.mint(mine.mint).number;
        let possible = if own == self.mint(theirs.mint).number {
            mine.end <= theirs.end
        } else {
            let passed = |(number, at): &(Timeline, Lsn)| number.0 == u32::from(own) && lsn(mine.end) <= *at;
            self.switches(theirs.mint).iter().any(passed)
        };
        possible.then_some(from)
    }
}

/// The position as Postgres would say it.
#[must_use]
pub fn lsn(position: Pos) -> Lsn {
    Lsn(u64::from(position) * 0x100)
}

/// And back.
#[must_use]
pub fn position(lsn: Lsn) -> Pos {
    u8::try_from(lsn.0 / 0x100).unwrap_or(Pos::MAX)
}
