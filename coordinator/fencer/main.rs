//! The fencer: kills every process of one instance at a deadline, whatever state the daemon is in.
//!
//! It is started by the daemon, in its folder, with a socket as its standard input. It never extends a deadline by
//! itself, never logs, and waits for nothing but its socket, its timer, and processes that it has killed.

mod privileges;
mod sched;
mod successor;
mod vigil;
mod watchdog;
mod wdioc;

#[path = "../fencing/mod.rs"]
#[allow(dead_code, reason = "the daemon uses the rest")]
mod fencing;

use std::os::fd::AsFd;
use std::process::ExitCode;

use rustix::net::SocketType;
use rustix::net::sockopt::socket_type;

fn main() -> ExitCode {
    let stdin = std::io::stdin();
    let socket = socket_type(stdin.as_fd());
    if !matches!(socket, Ok(SocketType::SEQPACKET)) {
        eprintln!(
            "matriarch-fencer is started by matriarch, which talks to it over a socket: nothing to do for people"
        );
        return ExitCode::FAILURE;
    }
    match stdin.as_fd().try_clone_to_owned().and_then(vigil::keep) {
        Ok(()) => ExitCode::SUCCESS,
        // Nobody reads this; the daemon sees the end.
        Err(_) => ExitCode::FAILURE,
    }
}
