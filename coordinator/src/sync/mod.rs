//! Synchronous replication: which commits wait for whom, and who may lead for it.

pub mod admission;
pub mod leading;
pub mod names;
pub mod resolver;
pub mod right;
#[cfg(test)]
mod tests;
