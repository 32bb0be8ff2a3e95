//! The kernel's watchdog: a device that resets the host unless it is pinged. It is open while something may take writes,
//! and pinged only as long as it fires before the deadline at the latest (reliability.md §6.4): whatever stops this
//! process stops the pings. It is switched off only when nothing is left that could serve clients.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use dcs::Moment;

use crate::fencing::deadline::{Deadline, Now};
use crate::fencing::words::{Watch, Wish};
use crate::wdioc;

/// How long before it fires the instance is killed: its host need not be reset then.
const LEAD: Duration = Duration::from_millis(150);
/// How long before the last moment for a ping that ping is sent.
const EARLY: Duration = Duration::from_millis(20);
/// The pause between two attempts to open a device.
const AGAIN: Duration = Duration::from_secs(2);

/// The watchdog.
#[derive(Default)]
pub struct Watchdog {
    wish: Option<Wish>,
    open: Option<Open>,
    watch: Watch,
    tried: Option<Moment>,
}

struct Open {
    device: File,
    wish: Wish,
    timeout: Duration,
    pinged: Moment,
    /// The deadline when it was last pinged.
    served: Moment,
}

impl Watchdog {
    /// From now on this is wanted.
    pub fn wish(&mut self, wish: Option<Wish>) {
        if self.wish != wish {
            (self.wish, self.tried) = (wish, None);
        }
        let moved = |open: &Open| self.wish.as_ref().is_none_or(|wish| wish.device != open.wish.device);
        if self.open.as_ref().is_some_and(moved) {
            self.close();
        }
    }

    /// What the daemon is told.
    pub fn watch(&self) -> Watch {
        self.watch
    }

    /// Whether the host is reset unless it is pinged.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Something may take writes until this deadline: opens the device, gives it its timeout, and pings it as far as
    /// it then fires before the deadline.
    pub fn keep(&mut self, deadline: Deadline, now: Now) {
        let Some(wish) = &self.wish else { return };
        let wanted = Duration::from_secs(wish.timeout.into());
        match &mut self.open {
            None => {
                let waits = self.tried.is_some_and(|tried| now.boot.since(tried) < AGAIN);
                // Both opening it and setting its timeout are pings.
                if waits || !fits(wanted, deadline, now) {
                    return;
                }
                self.tried = Some(now.boot);
                self.watch = match open(wish.clone(), now) {
                    Ok(open) => {
                        let seconds = open.timeout.as_secs();
                        self.open = Some(open);
                        Watch::Active(seconds)
                    }
                    Err(watch) => watch,
                };
            }
            Some(open) if open.wish.timeout != wish.timeout && fits(wanted, deadline, now) => {
                self.watch = match open.set(wish.clone(), now) {
                    Ok(()) => Watch::Active(open.timeout.as_secs()),
                    Err(watch) => watch,
                };
            }
            Some(open) if open.is_due(deadline, now) && fits(open.timeout, deadline, now) => {
                self.watch = match open.ping(deadline, now) {
                    Ok(()) => Watch::Active(open.timeout.as_secs()),
                    Err(error) => failed(&error),
                };
            }
            Some(_) => {}
        }
    }

    /// Nothing that could serve clients is left: the device is switched off.
    pub fn close(&mut self) {
        if let Some(mut open) = self.open.take() {
            // One that has gone wrong fires, or has fired; nothing can be done about it.
            let _ = open.device.write_all(b"V");
        }
        (self.watch, self.tried) = (Watch::Off, None);
    }

    /// Whether it fires soon unless it is pinged, which it no longer may be.
    pub fn is_about_to_fire(&self, now: Moment) -> bool {
        self.open.as_ref().is_some_and(|open| now + LEAD >= open.fires())
    }

    /// When it wants to be asked again at the latest.
    pub fn next(&self, deadline: Option<Deadline>, now: Now) -> Option<Moment> {
        let (deadline, wish) = (deadline?, self.wish.as_ref()?);
        let Some(open) = &self.open else {
            let again = self.tried? + AGAIN;
            return fits(Duration::from_secs(wish.timeout.into()), deadline, now)
                .then_some(again.max(now.boot));
        };
        let kill = Moment(open.fires().0.saturating_sub(nanos(LEAD)));
        Some(open.due(deadline).filter(|due| *due > now.boot).map_or(kill, |due| due.min(kill)))
    }
}

impl Open {
    /// When it resets the host unless it is pinged.
    fn fires(&self) -> Moment {
        self.pinged + self.timeout
    }

    /// When to ping again for this deadline: at half of the timeout, and once as late as it may be.
    fn due(&self, deadline: Deadline) -> Option<Moment> {
        let last = Moment(deadline.boot.0.saturating_sub(nanos(self.timeout + EARLY)));
        Some(last.min(self.pinged + self.timeout / 2)).filter(|due| *due > self.pinged)
    }

    /// Whether to ping now: for every new deadline, and when it is due.
    fn is_due(&self, deadline: Deadline, now: Now) -> bool {
        self.served != deadline.boot || self.due(deadline).is_some_and(|due| now.boot >= due)
    }

    fn ping(&mut self, deadline: Deadline, now: Now) -> io::Result<()> {
        self.device.write_all(b"1")?;
        (self.pinged, self.served) = (now.boot, deadline.boot);
        Ok(())
    }

    fn set(&mut self, wish: Wish, now: Now) -> Result<(), Watch> {
        let timeout = if wish.testing {
            self.device
                .write_all(format!("Ctimeout={}\n", wish.timeout).as_bytes())
                .map(|()| wish.timeout.into())
        } else {
            wdioc::set_timeout(self.device.as_fd(), wish.timeout)
        };
        self.wish = wish;
        let seconds = timeout.map_err(|error| failed(&error))?;
        (self.timeout, self.pinged) = (Duration::from_secs(seconds), now.boot);
        if seconds > self.wish.limit.into() { Err(Watch::TooLong(seconds)) } else { Ok(()) }
    }
}

fn open(wish: Wish, now: Now) -> Result<Open, Watch> {
    // A named pipe that nobody reads must not hold anybody up.
    let device = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(&wish.device);
    let device = device.map_err(|error| failed(&error))?;
    let mut open = Open {
        device,
        wish: wish.clone(),
        timeout: Duration::ZERO,
        pinged: now.boot,
        served: Moment::default(),
    };
    match open.set(wish, now) {
        Ok(()) => Ok(open),
        Err(watch) => {
            let _ = open.device.write_all(b"V");
            Err(watch)
        }
    }
}

/// Whether a ping now lets it fire before the deadline, on either clock.
fn fits(timeout: Duration, deadline: Deadline, now: Now) -> bool {
    now.boot + timeout <= deadline.boot && now.raw.saturating_add(nanos(timeout)) <= deadline.raw
}

fn failed(error: &io::Error) -> Watch {
    Watch::Failed(error.raw_os_error().unwrap_or(libc::EIO))
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}
