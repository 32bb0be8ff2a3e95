//! What the executor does not do, or must not be asked for: every pair of a local server and a step that would fail, or do
//! harm, whatever the cluster is like. Decisions must ask for none of them; the model shows that they do not.
//!
//! Each sentence names the guard in the daemon (`coordinator/daemon/act.rs`, `task/`).

use super::table::{ASKED, Place};

/// What a task or step needs of the local server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needs {
    /// Nothing: it concerns the store or other nodes.
    Nothing,
    /// An open session: `Postgres does not answer`.
    Session,
    /// A postmaster: `no postmaster runs`.
    Postmaster,
    /// A standby that answers: `promote` finds a primary already.
    Standby,
    /// A primary that answers: only a leader's server has followers that matter.
    Primary,
    /// A stopped server in a usable directory: `process::kill_all` would end a running one, `marker` refuses an unfinished.
    Stopped,
    /// A stopped server that was a primary: nothing else can be started as one.
    StoppedPrimary,
    /// A stopped server, whatever its directory is like, but not none: there is nothing to rewind or to move aside.
    StoppedOrUnfinished,
    /// An empty directory: `custody::install` refuses any other.
    Empty,
    /// Some process: there is nothing to stop or kill.
    Process,
    /// Nothing of the instance may take writes: the lease must not go before.
    NoWriter,
}

/// What each kind of step needs, in the order of [`ASKED`].
const NEEDS: [Needs; ASKED.len()] = [
    Needs::Nothing,             // claim initialize
    Needs::Session,             // write initialize
    Needs::Nothing,             // give up initialize
    Needs::Nothing,             // restore config
    Needs::Process,             // acquire
    Needs::Nothing,             // adopt
    Needs::NoWriter,            // release
    Needs::Nothing,             // clear failover
    Needs::Nothing,             // ask
    Needs::Nothing,             // read lineage
    Needs::Postmaster,          // follow
    Needs::Session,             // slots
    Needs::Primary,             // write history
    Needs::Session,             // write sync
    Needs::Primary,             // delete sync
    Needs::Primary,             // set names
    Needs::Primary,             // evict
    Needs::Nothing,             // cancel
    Needs::Nothing,             // seek consent
    Needs::Nothing,             // answer
    Needs::Nothing,             // exit
    Needs::Empty,               // initdb
    Needs::StoppedPrimary,      // first start
    Needs::Stopped,             // start standby
    Needs::StoppedPrimary,      // restart in place
    Needs::Standby,             // promote
    Needs::Process,             // stop (handover)
    Needs::Process,             // stop (fast)
    Needs::Process,             // stop (immediate)
    Needs::Process,             // kill remnants
    Needs::Session,             // checkpoint
    Needs::Empty,               // clone
    Needs::Stopped,             // recover crash
    Needs::StoppedOrUnfinished, // rewind
    Needs::StoppedOrUnfinished, // retire
    Needs::Session,             // restart
    Needs::Nothing,             // seek leave
    Needs::Primary,             // go on
    Needs::Standby,             // claim timeline
];

/// Why this step must not be asked of a server in this place; nothing if it may.
#[must_use]
pub fn refusal(place: Place, step: usize) -> Option<&'static str> {
    let stopped = matches!(place, Place::StoppedPrimary | Place::CrashedPrimary | Place::StoppedStandby);
    let answers = matches!(place, Place::Standby | Place::Primary);
    let (fits, why) = match NEEDS.get(step)? {
        Needs::Nothing => (true, ""),
        Needs::Session => (answers, "Postgres does not answer"),
        Needs::Postmaster => (answers, "no postmaster runs"),
        Needs::Standby => (place == Place::Standby, "only a standby that answers can be promoted"),
        Needs::Primary => (place == Place::Primary, "it is no primary"),
        Needs::Stopped => (stopped, "it would end what runs, or there is nothing that may be started"),
        Needs::StoppedPrimary => {
            let was = matches!(place, Place::StoppedPrimary | Place::CrashedPrimary);
            (was, "nothing that was not a primary is started as one")
        }
        Needs::StoppedOrUnfinished => {
            (stopped || place == Place::Unfinished, "it would end what runs, or there is nothing there")
        }
        Needs::Empty => (place == Place::Empty, "the data directory is not empty"),
        Needs::Process => (answers || place == Place::Remnants, "nothing runs"),
        Needs::NoWriter => (place != Place::Primary, "the server still takes writes"),
    };
    (!fits).then_some(why)
}
