//! When a lease may be ended: the raft leader counts every lease down on a clock that nobody slews and
//! that counts suspend. It decides nothing by itself: it proposes, and the log decides.
//!
//! A lease never ends before its holder's own deadline. Say the holder's newest renewal that was answered was
//! sent at `s` and made generation `g`; the holder's deadline is before `s + ttl`. Take the entry
//! `Revoke { generation: r }` that ends the lease.
//! 1. It is applied only if the lease's generation is `r` at that place in the log. If `r < g`, the renewal
//!    stands behind it in the log, and finds no lease: then it was not answered as kept. So `r >= g`.
//! 2. Whoever proposed it had applied generation `r`, at some moment `a` of its own, and proposed at `a + ttl` or
//!    later, counted on its clock since `a`, or since it started if that is later. Generation `r` was sent after
//!    or with `g`, so `s <= a`.
//! 3. So it is proposed at `s + ttl` or later, and applied later still.
//!
//! Every member counts from its own applying, not only the leader, so that an election costs no second ttl; and only
//! a leader that has applied an entry of its own term proposes, because only then has it applied every renewal that
//! was ever committed. That is for the holder's comfort; 1 to 3 do not need it. Two clocks measure two spans of the same
//! length: they differ by their crystals (`RAFT_CLOCK`), which `authority` takes from the holder's time.

use std::collections::BTreeMap;
use std::time::Duration;

use super::machine::Machine;
use crate::Moment;

/// How long to wait for a proposal before it is made again.
const AGAIN: Duration = Duration::from_secs(1);

/// When each lease was last touched, as this member applied it.
#[derive(Debug, Default)]
pub(super) struct Countdown {
    /// On [`Moment::unslewed`].
    touched: BTreeMap<i64, Moment>,
    asked: BTreeMap<i64, Moment>,
}

impl Countdown {
    /// Counting from `now` for every lease there is: after a start, or a snapshot.
    pub fn start(machine: &Machine, now: Moment) -> Self {
        Self { touched: machine.leases().map(|(lease, ..)| (lease, now)).collect(), asked: BTreeMap::new() }
    }

    /// A lease was granted or renewed.
    pub fn touch(&mut self, lease: i64, now: Moment) {
        self.touched.insert(lease, now);
        self.asked.remove(&lease);
    }

    /// The leases to end, each with the generation seen. Each is named once a second at most.
    pub fn due(&mut self, machine: &Machine, now: Moment) -> Vec<(i64, u64)> {
        let leases: BTreeMap<i64, (u64, u64)> =
            machine.leases().map(|(lease, generation, ttl)| (lease, (generation, ttl))).collect();
        self.touched.retain(|lease, _| leases.contains_key(lease));
        self.asked.retain(|lease, _| leases.contains_key(lease));
        let mut due = Vec::new();
        for (lease, (generation, ttl)) in leases {
            // One that nobody saw touched counts from now.
            let since = *self.touched.entry(lease).or_insert(now);
            let waits = self.asked.get(&lease).is_some_and(|asked| now.since(*asked) < AGAIN);
            if now.since(since) >= Duration::from_millis(ttl) && !waits {
                self.asked.insert(lease, now);
                due.push((lease, generation));
            }
        }
        due
    }
}
