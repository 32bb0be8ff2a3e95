//! Synchronous replication: which commits wait for whom, and who may lead for it.

pub mod names;
pub mod resolver;
#[cfg(test)]
mod tests;
