//! The REST side as its callers see it: codes, documents, wire, access.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod access;
mod actions;
mod book;
mod calls;
mod documents;
mod fixture;
mod health;
mod wire;
