//! The operator's words: parsed, checked and explained.
//!
//! Values made here are valid by construction; nobody re-checks them.
//! This crate never opens a socket and knows no Postgres process.

mod address;
mod bootstrap;
mod check;
mod cluster;
mod ctl;
mod effective;
mod environment;
mod keys;
mod kind;
mod legacy;
mod load;
mod log;
mod name;
mod node;
mod options;
pub mod parameters;
mod postgres;
mod problem;
pub mod quantity;
mod raft;
mod read;
mod reference;
mod rest;
mod rules;
mod secret;
mod store;
mod tags;
mod timing;
mod tree;
mod withheld;
mod witness;
mod yaml;

pub use address::{Address, Listen};
pub use bootstrap::{Bootstrap, Method};
pub use cluster::{ClusterConfig, SynchronousMode};
pub use ctl::{CtlConfig, load_ctl};
pub use effective::Effective;
pub use load::{Loaded, load};
pub use log::{Level, Log, LogFormat, LogType};
pub use name::{BadName, NodeName};
pub use node::{Matriarch, NodeConfig, Recorder, Rewind, Watchdog, WatchdogMode};
pub use options::{Arguments, Tool};
pub use postgres::{Credentials, LocalPostgres};
pub use problem::{Place, Problem, Problems, Severity};
pub use raft::{RaftConfig, RaftTls};
pub use reference::reference;
pub use rest::{Ctl, Login, RestApi, ServerTokens, VerifyClient};
pub use secret::Secret;
pub use store::{Endpoints, EtcdConfig, StoreConfig};
pub use tags::Tags;
pub use withheld::withheld;
pub use witness::{WitnessConfig, load_witness};
