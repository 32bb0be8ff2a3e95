//! A timer on the clock of the lease: it counts suspend, so it goes off at the moment the
//! machine wakes up, where the runtime's own timers would sleep on (Linux timerfd). It also wakes
//! the daemon once per use, where the runtime's wheel turns in between.
//!
//! Owns the one unsafe registration of a timerfd with the runtime. It judges nothing.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use dcs::Moment;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// How often the clock is looked at where the kernel gives no timer: the runtime's timers stop
/// in suspend, the deadline does not.
const GLANCE: Duration = Duration::from_millis(250);

/// One alarm.
pub struct Alarm(Option<AsyncFd<OwnedFd>>);

impl Alarm {
    /// Makes an alarm that is not set, for the runtime that this is called in.
    pub fn new() -> Self {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let made = timerfd_create(TimerfdClockId::Boottime, flags).map_err(Into::into).and_then(register);
        if let Err(error) = &made {
            tracing::warn!("there is no timer that counts suspend ({error}): the clock is watched instead");
        }
        Self(made.ok())
    }

    /// Returns at `end`, or at once if it has passed; only the last call counts.
    pub async fn at(&self, end: Moment) {
        if let Some(timer) = &self.0
            && go_off(timer, end).await.is_ok()
        {
            return;
        }
        loop {
            let left = Moment::now().until(end);
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left.min(GLANCE)).await;
        }
    }
}

/// Sets the timer and waits for it. An error means that nothing was set, or that it cannot be waited for.
async fn go_off(timer: &AsyncFd<OwnedFd>, end: Moment) -> io::Result<()> {
    let nanos = i64::try_from(end.0.max(1)).unwrap_or(i64::MAX);
    let value = Timespec { tv_sec: nanos / 1_000_000_000, tv_nsec: nanos % 1_000_000_000 };
    let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
    // Setting it makes it unreadable again: an alarm that went off before is forgotten.
    timerfd_settime(timer.get_ref(), TimerfdTimerFlags::ABSTIME, &once)?;
    loop {
        let mut guard = timer.readable().await?;
        if Moment::now() >= end {
            guard.retain_ready();
            return Ok(());
        }
        guard.clear_ready();
    }
}

#[allow(unsafe_code, reason = "tokio offers no safe way to register a foreign descriptor")]
fn register(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: `OwnedFd` is open, is moved into the `AsyncFd`, which owns it until both are
    // dropped together, and its `as_raw_fd` always returns the same number. Nothing here ever
    // takes the descriptor out again.
    unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }.map_err(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_alarm_goes_off_when_it_was_last_set_for_and_not_before() {
        for alarm in [Alarm::new(), Alarm(None)] {
            alarm.at(Moment::default()).await;
            for _ in 0..3 {
                let end = Moment::now() + Duration::from_millis(20);
                alarm.at(end).await;
                assert!(Moment::now() >= end);
            }
        }
    }
}
