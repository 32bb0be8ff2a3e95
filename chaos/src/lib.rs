//! Real clusters on one machine: started, watched, broken and checked.
//!
//! Everything here runs real programs (Postgres, etcd, HAProxy, matriarch, Patroni) on addresses of
//! 127.0.0.0/8 and judges them from outside: by SQL, by REST and by the rows that clients were promised.
//! Nothing in the workspace depends on this crate.

pub mod bench;
pub mod cluster;
pub mod demo;
pub mod embedded;
pub mod etcd;
pub mod haproxy;
pub mod http;
pub mod live;
pub mod load;
pub mod model;
pub mod net;
pub mod node;
pub mod packages;
pub mod process;
pub mod promise;
pub mod relay;
pub mod replay;
pub mod report;
pub mod segments;
pub mod setup;
pub mod shared;
pub mod sim;
pub mod spec;
pub mod sql;
pub mod starve;
pub mod store;
pub mod user;
pub mod workload;

pub use cluster::{Cluster, until};
pub use node::Node;
pub use shared::Shared;
pub use spec::{Program, Spec, Store};
pub use workload::{Verdict, Workload};
