//! The end of a process as an event, and signals that cannot hit a stranger: Linux pidfds.
//!
//! Owns the one unsafe registration of a pidfd with the runtime. It never opens
//! a process by number twice: whoever holds a `Pidfd` means the process that it
//! was opened for, even after the number has been given to another.

use std::io;
use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A handle on one process, child or not.
#[derive(Debug)]
pub struct Pidfd(AsyncFd<OwnedFd>);

impl Pidfd {
    /// Opens the process that has this number now. Errors with `NotFound` when there is none.
    pub fn open(pid: u32) -> io::Result<Self> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        let fd = pidfd_open(pid, PidfdFlags::empty()).map_err(|error| match error {
            rustix::io::Errno::SRCH => io::Error::from(io::ErrorKind::NotFound),
            other => other.into(),
        })?;
        register(fd).map(Self)
    }

    /// Returns once the process has ended (a zombie has ended).
    pub async fn exited(&self) {
        loop {
            // A pidfd stays readable for ever once its process has ended, so the guard's
            // readiness is kept. An error here means that the runtime is going down.
            match self.0.readable().await {
                Ok(mut guard) => {
                    guard.retain_ready();
                    return;
                }
                Err(_) => std::future::pending().await,
            }
        }
    }

    /// The same handle for another process.
    pub fn handle(&self) -> io::Result<OwnedFd> {
        self.0.get_ref().try_clone()
    }

    /// Sends a signal to exactly this process. `NotFound` when it has ended and been reaped.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        pidfd_send_signal(self.0.get_ref(), signal).map_err(|error| match error {
            rustix::io::Errno::SRCH => io::Error::from(io::ErrorKind::NotFound),
            other => other.into(),
        })
    }
}

#[allow(unsafe_code, reason = "tokio offers no safe way to register a foreign descriptor")]
fn register(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: `OwnedFd` is open, is moved into the `AsyncFd`, which owns it until both are
    // dropped together, and its `as_raw_fd` always returns the same number. Nothing here ever
    // takes the descriptor out again.
    unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }.map_err(Into::into)
}
