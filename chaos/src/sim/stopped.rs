//! What of a host stands still: a signal has stopped it, or the whole host sleeps.

use dcs::Moment;

use super::node::Node;

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

impl Node {
    /// Neither the daemon nor the fencer can act: only a watchdog could (F37).
    pub fn is_unfenced(&self) -> bool {
        self.keeps_no_deadline() && self.fencer.as_ref().is_none_or(|fencer| fencer.stopped.is_some())
    }

    fn keeps_no_deadline(&self) -> bool {
        self.daemon.is_none() || self.stopped.daemon.is_some() || self.stopped.lease.is_some()
    }

    /// Nothing here can end a reign: nobody can act; or the daemon has not heard that a pause is over; or what keeps
    /// deadlines was stopped in a pause, when none was armed.
    pub fn knows_no_promise(&self) -> bool {
        let unarmed = self.fencer.as_ref().is_none_or(|fencer| fencer.fires.is_none());
        self.is_unfenced()
            || self.daemon.as_ref().is_some_and(|daemon| daemon.settings.pause)
            || (self.keeps_no_deadline() && unarmed)
    }
}
