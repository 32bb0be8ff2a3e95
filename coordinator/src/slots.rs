//! Physical slots for members: their names, and which to create, advance and
//! drop (patroni-compat 5.12). A slot that never belonged to a member is never touched.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use dcs::Lsn;
use serde::{Deserialize, Serialize};

use crate::local::Slot;
use crate::observation::Observation;
use crate::past::Past;

/// One change to the local server's slots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SlotChange {
    /// Create it, reserving WAL at once.
    Create(String),
    /// Move it forward to this position.
    Advance(String, Lsn),
    /// Drop it.
    Drop(String),
}

impl fmt::Display for SlotChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create(name) => write!(f, "+{name}"),
            Self::Advance(name, to) => write!(f, "{name}→{to}"),
            Self::Drop(name) => write!(f, "-{name}"),
        }
    }
}

/// Longest slot name in bytes (Postgres's NAMEDATALEN - 1).
const LONGEST: usize = 63;

/// The name of a member's slot: lower case, `-` and `.` become `_`, any other
/// character outside `[a-z0-9_]` becomes `u` and its code point (patroni-compat 5.12).
#[must_use]
pub fn slot_name(member: &str) -> String {
    let mut name = String::new();
    for c in member.chars().flat_map(char::to_lowercase) {
        match c {
            'a'..='z' | '0'..='9' | '_' => name.push(c),
            '-' | '.' => name.push('_'),
            other => name.push_str(&format!("u{:04}", u32::from(other))),
        }
    }
    name.truncate(LONGEST);
    name
}

/// The changes that bring the local slots in line with the members.
#[must_use]
pub fn changes(seen: &Observation, past: &Past) -> Vec<SlotChange> {
    let (Some(view), Some(running)) = (&seen.store.view, &seen.postgres.running) else { return Vec::new() };
    if !seen.settings.use_slots {
        return Vec::new();
    }
    let me = seen.me.name.as_str();
    let mine = slot_name(me);
    let mut wanted: BTreeMap<String, Option<Lsn>> = BTreeMap::new();
    for (name, member) in view.members.iter().filter(|(name, _)| name.as_str() != me) {
        let upstream = member.tags.get("replicatefrom").and_then(serde_json::Value::as_str);
        // Whoever never leads is followed only by those that are told to.
        let follows = seen.me.tags.may_lead() || upstream == Some(me);
        let slot = slot_name(name.as_str());
        if !follows || is_true(member.tags.get("nostream")) || slot == mine {
            continue;
        }
        // The leader's slot of a member that follows another one does not move: what that member tells does.
        let told = upstream.and(member.xlog_location);
        let to = view.status.slots.get(&slot).copied().max(told);
        wanted.insert(
            slot,
            to.filter(|_| running.standby.is_some() || upstream.is_some_and(|from| from != me)),
        );
    }
    let mut changes = Vec::new();
    for (name, to) in &wanted {
        match running.slots.iter().find(|slot| slot.name == *name) {
            None => changes.push(SlotChange::Create(name.clone())),
            Some(slot) => changes.extend(advance(slot, *to, running)),
        }
    }
    if seen.settings.pause {
        // Operators have taken over: nothing is dropped (patroni-compat 5.11).
        return changes;
    }
    let keep = seen.settings.member_slots_ttl;
    for slot in
        running.slots.iter().filter(|slot| slot.physical && !slot.active && !wanted.contains_key(&slot.name))
    {
        let expired = past.members_seen.get(&slot.name).is_some_and(|at| seen.now.since(*at) > keep);
        if expired || slot.name == mine {
            changes.push(SlotChange::Drop(slot.name.clone()));
        }
    }
    changes
}

/// An unused slot follows its member, never past what is replayed or written here.
fn advance(slot: &Slot, to: Option<Lsn>, running: &crate::Running) -> Option<SlotChange> {
    let here = running.standby.as_ref().map_or(running.position, |standby| standby.replayed);
    let to = to?.min(here);
    (!slot.active && slot.restart.is_some_and(|at| at < to))
        .then(|| SlotChange::Advance(slot.name.clone(), to))
}

/// Whether a published tag is set.
#[must_use]
pub fn is_true(tag: Option<&serde_json::Value>) -> bool {
    match tag {
        Some(serde_json::Value::Bool(set)) => *set,
        Some(serde_json::Value::String(text)) => {
            ["true", "on", "yes", "1"].iter().any(|on| text.eq_ignore_ascii_case(on))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::slot_name;

    // P261
    #[test]
    fn a_slot_is_named_after_its_member() {
        assert_eq!(slot_name("Node-1.x@y"), "node_1_xu0064y");
        assert_eq!(slot_name(&"n".repeat(80)).len(), 63);
    }
}
