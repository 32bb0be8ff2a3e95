//! `ioctl(2)` on a watchdog device (linux/watchdog.h), which no library offers safely: its timeout, and nothing else.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::ioctl::{Opcode, opcode};

const SET_TIMEOUT: Opcode = opcode::read_write::<libc::c_int>(b'W', 6);
const GET_TIMEOUT: Opcode = opcode::read::<libc::c_int>(b'W', 7);

/// Sets the timeout in seconds, which is a ping too, and returns the one in force: a device may round it.
///
/// # Errors
/// If the device has no timeout that can be set.
pub fn set_timeout(device: BorrowedFd<'_>, seconds: u16) -> io::Result<u64> {
    number(device, SET_TIMEOUT, seconds.into())?;
    let inforce = number(device, GET_TIMEOUT, 0)?;
    u64::try_from(inforce).map_err(io::Error::other)
}

#[allow(unsafe_code, reason = "no library offers the ioctls of a watchdog")]
fn number(device: BorrowedFd<'_>, code: Opcode, mut value: libc::c_int) -> io::Result<libc::c_int> {
    // SAFETY: both codes take a pointer to one int, read or write just that, and keep nothing; it outlives the call.
    let done = unsafe { libc::ioctl(device.as_raw_fd(), code as _, &raw mut value) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(value) }
}

#[cfg(test)]
mod tests {
    /// The numbers of linux/watchdog.h, as a compiler of C makes them on these machines.
    #[test]
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    fn the_codes_are_the_kernels() {
        assert_eq!((super::SET_TIMEOUT, super::GET_TIMEOUT), (0xC004_5706, 0x8004_5707));
    }
}
