//! What keeps others from holding the fencer up: memory that stays, a scheduler that prefers it, signals that do not
//! reach it. Each as far as it is permitted; what is not is told to the daemon.

use nix::sys::signal::SigSet;
use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{Resource, getrlimit};

use crate::fencing::scan::{By, Home, Scan};
use crate::sched;

/// Memory that certainly suffices: with a limit below this, memory that is needed later must not
/// be refused for being locked.
const AMPLE: u64 = 64 << 20;

/// What was permitted.
#[derive(Debug, Clone, Copy)]
pub struct Granted {
    /// Its memory stays in memory.
    pub locked: bool,
    /// It runs before any ordinary program.
    pub realtime: bool,
    /// The kernel does not choose it when memory runs out.
    pub spared: bool,
}

/// Takes all that is permitted.
pub fn take() -> Granted {
    // Whoever wants it to end closes its socket; a terminal or a stop of the service must not.
    let _ = SigSet::all().thread_block();
    let spared = std::fs::write("/proc/self/oom_score_adj", "-1000").is_ok();
    rehearse();
    let ample = getrlimit(Resource::Memlock).current.is_none_or(|limit| limit >= AMPLE);
    let locked = if ample {
        mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE)
    } else {
        mlockall(MlockAllFlags::CURRENT)
    };
    Granted { locked: locked.is_ok(), realtime: sched::realtime(), spared }
}

/// Looks at the process table once, for an instance that does not exist: afterwards the code and the memory for that
/// are there.
fn rehearse() {
    let nobody = Home::known(b"matriarch-rehearsal".to_vec(), "/nonexistent".into(), None);
    let sessions = std::iter::once(u32::MAX).collect();
    let _ = Scan::of(&nobody, By::Identity, &sessions);
}
