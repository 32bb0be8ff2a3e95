//! The record of the last kill at a deadline, in the fencer's folder: written by the fencer, shown by the daemon and
//! its successors. One line of JSON with numbers only.

/// The name of the file.
pub const FILE: &str = "fired";

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
pub struct Fired {
    /// When, on the wall clock (epoch seconds).
    pub at: u64,
    /// The reign whose deadline it was; 0 if there was none.
    pub epoch: i64,
    /// How many processes were killed.
    pub processes: u64,
    /// From the deadline until every process had its signal, in microseconds.
    pub signalled_us: u64,
    /// From the deadline until no process was left, in microseconds.
    pub gone_us: u64,
    /// Whether a daemon was connected.
    pub daemon: bool,
}

impl Fired {
    /// As it is written.
    pub fn line(&self) -> String {
        let Self { at, epoch, processes, signalled_us, gone_us, daemon } = self;
        format!(
            "{{\"at\":{at},\"epoch\":{epoch},\"processes\":{processes},\"signalled_us\":{signalled_us},\
             \"gone_us\":{gone_us},\"daemon\":{daemon}}}\n"
        )
    }
}
