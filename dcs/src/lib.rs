//! What the cluster agrees on, and the lease that says who leads.
//!
//! Cluster meaning (key names, JSON, who may write what) is written once, above
//! the one `Store` trait; a backend knows nothing of Postgres, and nothing in
//! this crate knows what a decision is.

mod authority;
mod backend;
pub mod belief;
mod cluster;
mod connect;
mod estate;
mod etcd;
mod faulty;
mod follow;
mod home;
mod keys;
mod lease;
mod lsn;
mod memory;
mod moment;
mod passage;
mod raft;
mod retry;
mod store;
mod succession;
mod text;
mod view;

pub use authority::{Authority, ETCD_CLOCK, authority};
pub use cluster::Dcs;
pub use estate::{Dump, DumpError, Estate};
pub use faulty::{Fault, Faults, On, WatchFault};
pub use follow::Seen;
pub use keys::{Keys, Place};
pub use lease::{Adopt, Leadership, Proof, RenewError, Session};
pub use lsn::{BadLsn, Lsn, SystemId, Timeline};
pub use memory::{Flaw, Memory};
pub use moment::Moment;
pub use passage::{Departure, Passage, Stand};
pub use raft::{BareKey, BareStore, Embedded, RAFT_CLOCK, StoreMember};
pub use store::StoreError;
pub use succession::{Acquire, Claim};
pub use view::{
    Abode, ClusterView, Epoch, Failover, HistoryRow, Initialize, Leader, Member, Revision, Status, SyncState,
    Versioned,
};
