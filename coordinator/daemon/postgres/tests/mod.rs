//! Tests on real Postgres, each in a directory and on sockets of its own.

mod bench;
mod cloning;
mod life;
mod looking;
mod rejoin;

use bench::{Bench, real};
