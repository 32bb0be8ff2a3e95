//! What this node should do next.
//!
//! Plain data in ([`Observation`], [`Past`]), plain data out ([`Decision`]): no file, no
//! socket, no clock, no process. The same [`decide`] runs in the daemon, in the
//! scenarios, in the simulator and in the replayer.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod busy;
mod claim;
pub mod custody;
mod decide;
mod decision;
mod election;
mod eligible;
pub mod failsafe;
mod fresh;
mod handover;
mod leader;
mod local;
mod moving;
mod observation;
mod offline;
mod past;
mod paused;
mod promotion;
mod reason;
mod rejoin;
mod replica;
mod request;
pub mod restored;
pub mod slots;
pub mod sync;
mod turn;

pub use decide::decide;
pub use decision::{Decision, Grounds, Reply, Step, StopMode, Task};
pub use eligible::{Obstacle, forbids_leading, obstacles};
pub use local::{
    Control, ControlState, Data, Postgres, Process, Running, Sender, Slot, Standby, Unfinished, Upstream,
};
pub use observation::{
    Arrival, Asked, Bootstrap, Consent, Held, Job, LeaderHistory, Myself, Observation, Outcome, Peer, Repair,
    Request, Standing, Store, SyncWrites, Wish,
};
pub use past::{Intent, Past, Setback};
pub use reason::Reason;
pub use rejoin::{Lineage, lineage};
pub use replica::address;
pub use turn::Turn;
