//! What of a host stands still: a signal has stopped it, or the whole host sleeps.

use dcs::Moment;

/// What signals have stopped on a host, and since when; `host` is all of it, suspended until then.
#[derive(Debug, Clone, Default)]
pub struct Stopped {
    /// The whole daemon.
    pub daemon: Option<Moment>,
    /// Its lease thread alone.
    pub lease: Option<Moment>,
    /// The node's loop alone.
    pub turns: Option<Moment>,
    /// Everything, until then; `true`: and the clock with it, as a hypervisor can.
    pub host: Option<(Moment, Moment, bool)>,
}
