//! Real-time scheduling: `sched_setscheduler(2)`, which no library offers safely.

/// Above every ordinary program, below the kernel's own threads (which start at 50).
const PRIORITY: libc::c_int = 40;

/// Lets this process run before any ordinary one, if that is permitted.
#[allow(unsafe_code, reason = "no library offers sched_setscheduler")]
pub fn realtime() -> bool {
    // SAFETY: `sched_param` is plain numbers, for which zero is a value.
    let mut parameters: libc::sched_param = unsafe { std::mem::zeroed() };
    parameters.sched_priority = PRIORITY;
    // SAFETY: the call reads the structure that the pointer leads to, which outlives it, and keeps nothing.
    let set = unsafe {
        libc::sched_setscheduler(0, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, &raw const parameters)
    };
    set == 0
}
