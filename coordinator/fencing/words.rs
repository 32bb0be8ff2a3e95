//! What the daemon tells its fencer and what it answers: one message each, on a socket that keeps messages apart.
//!
//! Plain numbers, so that neither side needs a library to read the other. A message that cannot be read is nothing.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use dcs::{Epoch, Moment};

use super::deadline::Deadline;
use super::scan::Home;

/// The largest message: a path, the name of a program, and numbers.
pub const LARGEST: usize = 8192;
/// Length of the nonce by which a successor is known.
pub const NONCE: usize = 16;
/// The name of the socket, in the fencer's folder.
pub const SOCKET: &str = "socket";
/// The name of the file with the nonce, in the fencer's folder.
pub const NONCE_FILE: &str = "nonce";

/// What the daemon tells the fencer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// From now on kill this instance at the deadline. While armed already, the deadline only moves as
    /// [`Deadline::then`] says.
    Arm {
        /// Counts the orders.
        number: u64,
        /// Until when.
        deadline: Deadline,
        /// What to kill.
        home: Home,
    },
    /// The deadline moves, if it is armed.
    Extend {
        /// Counts the orders.
        number: u64,
        /// Until when.
        deadline: Deadline,
    },
    /// Whatever reign it is of, the deadline in force is no later than this one: the leader key is about to move under a
    /// shorter lease.
    Bound {
        /// Counts the orders.
        number: u64,
        /// Until when at most.
        deadline: Deadline,
    },
    /// Nothing of the instance takes writes: forget the deadline.
    Disarm {
        /// Counts the orders.
        number: u64,
    },
    /// The postmaster has changed; its pidfd comes along.
    Cover,
    /// Which watchdog to keep while armed; absent: none.
    Watch(Option<Wish>),
    /// A later daemon takes over: the first word of a connection through the socket.
    Claim([u8; NONCE]),
}

/// A watchdog, and how it is to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// The device.
    pub device: PathBuf,
    /// It is told its timeout in writing, as Patroni's tests do it, because it is no real one.
    pub testing: bool,
    /// After how many seconds without a ping it fires.
    pub timeout: u16,
    /// The longest timeout that can be kept at all, in seconds.
    pub limit: u16,
}

/// How it stands with the watchdog.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Watch {
    /// It is not open.
    #[default]
    Off,
    /// It fires after so many seconds without a ping.
    Active(u64),
    /// The device's shortest timeout, in seconds, is too long.
    TooLong(u64),
    /// It cannot be used: the number of the system's error.
    Failed(i32),
}

/// What the fencer says: after every order with a number, and when it has killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Report {
    /// The number of the last order.
    pub number: u64,
    /// Its process.
    pub pid: u32,
    /// Whether it will kill the instance at the deadline.
    pub armed: bool,
    /// The reign of the deadline in force; 0 if none.
    pub epoch: Epoch,
    /// The deadline in force.
    pub until: Moment,
    /// How much later than asked it woke: last, in nanoseconds.
    pub woke: u64,
    /// How much later than asked it woke: the worst since it started, in nanoseconds.
    pub woke_worst: u64,
    /// How often it killed the instance.
    pub kills: u64,
    /// From the last deadline until every process had its signal, in nanoseconds.
    pub signalled: u64,
    /// From the last deadline until no process was left, in nanoseconds.
    pub gone: u64,
    /// Its memory stays in memory.
    pub locked: bool,
    /// It runs before any ordinary program.
    pub realtime: bool,
    /// The kernel does not choose it when memory runs out.
    pub spared: bool,
    /// The watchdog.
    pub watch: Watch,
}

impl Order {
    /// As a message.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Arm { number, deadline, home } => {
                let (device, inode) = home.identity.unwrap_or_default();
                let numbers = [*number, epoch(deadline.epoch), deadline.boot.0, deadline.raw, device, inode];
                let mut message = message(b'A', &numbers);
                message.extend(u64::from(home.identity.is_some()).to_le_bytes());
                message.extend(&home.server);
                message.push(0);
                message.extend(home.path.as_os_str().as_bytes());
                message
            }
            Self::Extend { number, deadline } => {
                message(b'E', &[*number, epoch(deadline.epoch), deadline.boot.0, deadline.raw])
            }
            Self::Bound { number, deadline } => {
                message(b'B', &[*number, epoch(deadline.epoch), deadline.boot.0, deadline.raw])
            }
            Self::Disarm { number } => message(b'D', &[*number]),
            Self::Cover => message(b'C', &[]),
            Self::Watch(None) => message(b'W', &[]),
            Self::Watch(Some(Wish { device, testing, timeout, limit })) => {
                let mut message = message(b'W', &[(*testing).into(), (*timeout).into(), (*limit).into()]);
                message.extend(device.as_os_str().as_bytes());
                message
            }
            Self::Claim(nonce) => [b"S".as_slice(), nonce.as_slice()].concat(),
        }
    }

    /// From a message; nothing if it is none.
    pub fn decode(message: &[u8]) -> Option<Self> {
        let (kind, rest) = message.split_first()?;
        let mut rest = rest;
        match kind {
            b'A' => {
                let number = take(&mut rest)?;
                let deadline = take_deadline(&mut rest)?;
                let (device, inode, known) = (take(&mut rest)?, take(&mut rest)?, take(&mut rest)?);
                let end = rest.iter().position(|byte| *byte == 0)?;
                let (server, path) = (rest.get(..end)?, rest.get(end + 1..)?);
                let path = PathBuf::from(OsString::from_vec(path.to_vec()));
                let identity = (known == 1).then_some((device, inode));
                Some(Self::Arm { number, deadline, home: Home::known(server.to_vec(), path, identity) })
            }
            b'E' => Some(Self::Extend { number: take(&mut rest)?, deadline: take_deadline(&mut rest)? }),
            b'B' => Some(Self::Bound { number: take(&mut rest)?, deadline: take_deadline(&mut rest)? }),
            b'D' => take(&mut rest).map(|number| Self::Disarm { number }),
            b'C' => Some(Self::Cover),
            b'W' if rest.is_empty() => Some(Self::Watch(None)),
            b'W' => {
                let testing = take(&mut rest)? == 1;
                let (timeout, limit) = (take(&mut rest)?, take(&mut rest)?);
                let (timeout, limit) = (timeout.try_into().ok()?, limit.try_into().ok()?);
                let device = PathBuf::from(OsString::from_vec(rest.to_vec()));
                Some(Self::Watch(Some(Wish { device, testing, timeout, limit })))
            }
            b'S' => rest.try_into().ok().map(Self::Claim),
            _ => None,
        }
    }
}

impl Report {
    /// As a message.
    pub fn encode(&self) -> Vec<u8> {
        let (watch, value) = match self.watch {
            Watch::Off => (0, 0),
            Watch::Active(seconds) => (1, seconds),
            Watch::TooLong(seconds) => (2, seconds),
            Watch::Failed(error) => (3, u64::from(error.unsigned_abs())),
        };
        let numbers = [
            self.number,
            self.pid.into(),
            self.armed.into(),
            epoch(self.epoch),
            self.until.0,
            self.woke,
            self.woke_worst,
            self.kills,
            self.signalled,
            self.gone,
            self.locked.into(),
            self.realtime.into(),
            self.spared.into(),
            watch,
            value,
        ];
        message(b'R', &numbers)
    }

    /// From a message; nothing if it is none.
    pub fn decode(message: &[u8]) -> Option<Self> {
        let mut rest = message.strip_prefix(b"R")?;
        let rest = &mut rest;
        Some(Self {
            number: take(rest)?,
            pid: u32::try_from(take(rest)?).ok()?,
            armed: take(rest)? == 1,
            epoch: Epoch(take(rest)?.cast_signed()),
            until: Moment(take(rest)?),
            woke: take(rest)?,
            woke_worst: take(rest)?,
            kills: take(rest)?,
            signalled: take(rest)?,
            gone: take(rest)?,
            locked: take(rest)? == 1,
            realtime: take(rest)? == 1,
            spared: take(rest)? == 1,
            // A fencer of an earlier version knows no watchdog.
            watch: match (take(rest).unwrap_or(0), take(rest).unwrap_or(0)) {
                (1, seconds) => Watch::Active(seconds),
                (2, seconds) => Watch::TooLong(seconds),
                (3, error) => Watch::Failed(i32::try_from(error).unwrap_or(libc::EIO)),
                _ => Watch::Off,
            },
        })
    }
}

fn message(kind: u8, numbers: &[u64]) -> Vec<u8> {
    let mut message = vec![kind];
    for number in numbers {
        message.extend(number.to_le_bytes());
    }
    message
}

fn epoch(epoch: Epoch) -> u64 {
    epoch.0.cast_unsigned()
}

fn take(rest: &mut &[u8]) -> Option<u64> {
    let (number, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(u64::from_le_bytes(*number))
}

fn take_deadline(rest: &mut &[u8]) -> Option<Deadline> {
    let (epoch, boot, raw) = (take(rest)?, take(rest)?, take(rest)?);
    Some(Deadline { epoch: Epoch(epoch.cast_signed()), boot: Moment(boot), raw })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_side_says_the_other_hears() {
        let deadline = Deadline { epoch: Epoch(-7), boot: Moment(1 << 60), raw: 3 };
        let home = Home::known(b"postgres15".to_vec(), "/srv/pg \u{fc}".into(), Some((1, 2)));
        let orders = [
            Order::Arm { number: 4, deadline, home: home.clone() },
            Order::Arm { number: 4, deadline, home: Home { identity: None, ..home } },
            Order::Extend { number: 5, deadline },
            Order::Bound { number: 6, deadline },
            Order::Disarm { number: 9 },
            Order::Cover,
            Order::Claim([7; NONCE]),
            Order::Watch(None),
            Order::Watch(Some(Wish { device: "/dev/wd".into(), testing: true, timeout: 15, limit: 17 })),
        ];
        for order in orders {
            assert_eq!(Order::decode(&order.encode()), Some(order));
        }
        let report =
            Report { pid: 5, armed: true, epoch: Epoch(3), gone: 12, spared: true, ..Report::default() };
        for watch in [Watch::Off, Watch::Active(15), Watch::TooLong(60), Watch::Failed(13)] {
            let report = Report { watch, ..report };
            assert_eq!(Report::decode(&report.encode()), Some(report));
        }
        let earlier = report.encode();
        assert_eq!(Report::decode(&earlier[..earlier.len() - 16]), Some(report));
    }

    #[test]
    fn what_cannot_be_read_is_nothing() {
        for message in [&b""[..], b"A123", b"X", b"E1234567812345678", b"S123", b"R"] {
            assert_eq!(Order::decode(message), None);
            assert_eq!(Report::decode(message), None);
        }
    }
}
