//! How nodes, people and HAProxy talk: REST types, server, client, command line.
//!
//! Everything is answered from watched values and channels; nothing here controls Postgres.

pub mod access;
mod answer;
mod body;
mod change;
pub mod client;
pub mod command;
mod document;
pub mod health;
mod listen;
pub mod metrics;
mod page;
pub mod peer;
mod quantity;
pub mod read;
pub mod recording;
mod respondent;
mod router;
pub mod routes;
pub mod server;
mod shared;
pub mod status;
pub mod tls;
pub mod wall;
pub mod write;

pub use shared::{paused, standby_cluster, synchronous};

/// The Patroni release whose formats and behaviour a node promises; it steers Patroni peers.
pub const PATRONI_VERSION: &str = "4.1.5";

/// The header in which a member of matriarch promises a leader without the store to leave the lead alone: reign, number
/// and milliseconds of the question that it answers.
pub const PROMISE: &str = "matriarch-promise";

/// matriarch's own version.
pub const MATRIARCH_VERSION: &str = env!("CARGO_PKG_VERSION");
