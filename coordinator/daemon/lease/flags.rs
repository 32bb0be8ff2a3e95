//! What the node's loop and the lease thread tell each other at any time, without waiting.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dcs::Moment;
use tokio::sync::Notify;

use crate::fence::{Fence, Unguarded};
use crate::fencing::scan::Home;
use crate::postgres::{Paths, Postmaster};

/// What both threads may read and set at any time.
#[derive(Debug, Default)]
pub struct Flags {
    /// The instance may be writable: the hard deadline is enforced.
    armed: AtomicBool,
    /// Operators have suspended the promise of one writer.
    paused: AtomicBool,
    /// When the node's loop last turned: nobody renews for a loop that hangs.
    turned: AtomicU64,
    /// What to kill, known before it is needed: the disk may hang when it is.
    home: Mutex<Option<Arc<Home>>>,
    /// Tells the lease thread of an arming.
    rouse: Notify,
    /// The process that kills at the deadline whatever becomes of this one.
    pub fence: Fence,
}

impl Flags {
    /// From now on the hard deadline kills the instance.
    pub fn arm(&self, paths: &Paths) {
        if self.armed.load(Ordering::SeqCst) {
            return;
        }
        let home = Arc::new(Home::of(&paths.data_dir, paths.server_name()));
        *self.home.lock().unwrap_or_else(PoisonError::into_inner) = Some(home);
        self.armed.store(true, Ordering::SeqCst);
        self.rouse.notify_one();
        self.fit(false);
    }

    /// As `arm`, and returns when the fencer has confirmed it; in pause, in which nothing is enforced, at once.
    ///
    /// # Errors
    /// If it does not: then nothing may become writable.
    pub async fn arm_surely(&self, paths: &Paths) -> Result<(), Unguarded> {
        self.arm(paths);
        let number = self.fit(true);
        if self.enforced() { self.fence.confirm(number).await } else { Ok(()) }
    }

    /// This process is the instance's postmaster.
    pub fn cover(&self, postmaster: &Postmaster) {
        self.fence.cover(postmaster.pid(), || postmaster.handle());
    }

    /// The instance is known to take no writes.
    pub fn disarm(&self) {
        self.armed.store(false, Ordering::SeqCst);
        self.fit(false);
    }

    /// Tells the fencer what is in force. Both threads may call this; the fence makes one order of it.
    fn fit(&self, afresh: bool) -> u64 {
        self.fence.fit(afresh, || self.home().filter(|_| self.enforced()))
    }

    /// Whether the instance may be writable.
    pub fn armed(&self) -> bool {
        self.armed.load(Ordering::SeqCst)
    }

    /// In pause a primary may go on without a lease.
    pub fn pause(&self, paused: bool) {
        if self.paused.swap(paused, Ordering::SeqCst) == paused {
            return;
        }
        if !paused {
            self.rouse.notify_one();
        }
        self.fit(false);
    }

    /// The node's loop is alive.
    pub fn turned(&self) {
        self.turned.store(Moment::now().0, Ordering::SeqCst);
    }

    /// Whether the node's loop has turned within `span`; a loop that never turned is only starting.
    pub(super) fn alive(&self, span: Duration) -> bool {
        let last = Moment(self.turned.load(Ordering::SeqCst));
        last == Moment::default() || Moment::now().since(last) < span
    }

    pub(super) fn enforced(&self) -> bool {
        self.armed.load(Ordering::SeqCst) && !self.paused.load(Ordering::SeqCst)
    }

    pub(super) fn home(&self) -> Option<Arc<Home>> {
        self.home.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns when something was armed since the last time.
    pub(super) async fn roused(&self) {
        self.rouse.notified().await;
    }
}
