//! Physical slots for members: their names, and which to create, advance and
//! drop (patroni-compat 5.12). A slot that never belonged to a member is never touched.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use dcs::Lsn;

use crate::local::Slot;
use crate::observation::Observation;
use crate::past::Past;

/// One change to the local server's slots.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    if !seen.settings.use_slots || !seen.me.tags.may_lead() {
        return Vec::new();
    }
    let mut wanted: BTreeSet<String> = view
        .members
        .iter()
        .filter(|(name, member)| **name != seen.me.name && !is_true(member.tags.get("nostream")))
        .map(|(name, _)| slot_name(name.as_str()))
        .collect();
    let mine = slot_name(seen.me.name.as_str());
    wanted.remove(&mine);
    let leading = running.standby.is_none();
    let mut changes = Vec::new();
    for name in &wanted {
        match running.slots.iter().find(|slot| slot.name == *name) {
            None => changes.push(SlotChange::Create(name.clone())),
            Some(slot) if !leading => changes.extend(advance(slot, view.status.slots.get(name), running)),
            Some(_) => {}
        }
    }
    if seen.settings.pause {
        // Operators have taken over: nothing is dropped (patroni-compat 5.11).
        return changes;
    }
    let keep = seen.settings.member_slots_ttl;
    for slot in
        running.slots.iter().filter(|slot| slot.physical && !slot.active && !wanted.contains(&slot.name))
    {
        let expired = past.members_seen.get(&slot.name).is_some_and(|at| seen.now.since(*at) > keep);
        if expired || slot.name == mine {
            changes.push(SlotChange::Drop(slot.name.clone()));
        }
    }
    changes
}

/// A standby's unused slot follows the leader's, never past what is replayed here.
fn advance(slot: &Slot, leader: Option<&Lsn>, running: &crate::Running) -> Option<SlotChange> {
    let replayed = running.standby.as_ref()?.replayed;
    let to = (*leader?).min(replayed);
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
