//! matriarchctl as its users see it: the real program, a real etcd with keys
//! written by hand (the captured ones of the compatibility notes), the real REST server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod changes;
#[path = "../rest/fixture.rs"]
#[allow(dead_code, reason = "shared with the tests of the REST server")]
mod fixture;
#[path = "../../../dcs/tests/ground/mod.rs"]
mod ground;
mod looks;
mod members;
mod sql;
mod stage;
