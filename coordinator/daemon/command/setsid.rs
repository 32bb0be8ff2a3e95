//! Whether a program outlives the daemon: `setsid(2)` for one that must, `PR_SET_PDEATHSIG` for one that
//! must not.
//!
//! Owns the unsafe hooks between fork and exec, and does nothing else there.

use std::os::unix::process::CommandExt;
use std::process::Command;

/// Makes the program the leader of a new session, without a terminal, when it starts.
#[allow(unsafe_code, reason = "std has no stable way to call setsid in the child")]
pub fn own_session(command: &mut Command) {
    // SAFETY: the closure runs in the forked child before exec, where only async-signal-safe
    // calls are allowed. It makes one system call, allocates nothing and takes no lock.
    unsafe {
        command.pre_exec(|| rustix::process::setsid().map(drop).map_err(Into::into));
    }
}

/// Lets the kernel kill the program when the thread that starts it ends, however that ends: a clone or a
/// rewind of a daemon that was killed must not go on beside that of the next one (B56).
#[allow(unsafe_code, reason = "std has no way to set the parent-death signal of a child")]
pub fn end_with_parent(command: &mut Command) {
    let parent = rustix::process::getpid();
    // SAFETY: as above: two system calls, nothing else.
    unsafe {
        command.pre_exec(move || {
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
            // The daemon may have died before the signal was set.
            if rustix::process::getppid() == Some(parent) {
                Ok(())
            } else {
                Err(rustix::io::Errno::SRCH.into())
            }
        });
    }
}
