//! What this node has promised a leader that lost the store: written to the disk before it is said, so that a restart
//! does not break it. It judges who may be promised what; that it is kept is `coordinator::failsafe`'s.

use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use config::NodeName;
use coordinator::failsafe::Promise;
use dcs::{ClusterView, Epoch, Moment};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::leave::promise_text;
use crate::postgres::{Paths, files, off_loop};

/// The longest that anybody is promised anything: longer than any sensible ttl.
const LONGEST: Duration = Duration::from_secs(600);
/// How long an unreadable promise of an earlier daemon is kept at least.
const UNREADABLE: Duration = Duration::from_secs(30);

/// What was promised, in memory and on the disk.
#[derive(Debug)]
pub struct Promises {
    file: PathBuf,
    boot: String,
    kept: Mutex<Option<Kept>>,
    /// One writes at a time, and always the newest.
    writing: tokio::sync::Mutex<()>,
}

/// A promise.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Kept {
    leader: NodeName,
    /// Absent for a leader that runs Patroni.
    epoch: Option<Epoch>,
    nonce: u64,
    span: Duration,
    until: Moment,
}

/// As it stands in the file.
#[derive(Debug, Serialize, Deserialize)]
struct Written {
    leader: String,
    epoch: Option<i64>,
    nonce: u64,
    span_ms: u64,
    /// On the clock of this boot.
    until_ns: u64,
    boot_id: String,
}

/// What a leader asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// Its name.
    leader: NodeName,
    /// What only matriarch says: its reign, a number that grows, and for how long; zero gives the promise back.
    terms: Option<(Epoch, u64, Duration)>,
}

/// Why nothing is promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// This node leads.
    #[error("Running as a leader")]
    Leads,
    /// A later reign is known.
    #[error("there is a later leader")]
    Old,
    /// It was asked before.
    #[error("this was asked before")]
    Replayed,
    /// The store does not name who asks.
    #[error("no such member")]
    Unknown,
    /// More than twice the cluster's `ttl`.
    #[error("that is longer than twice the ttl")]
    Long,
    /// It could not be written down.
    #[error("the promise could not be written down")]
    Disk,
}

impl Wish {
    /// Reads the body of a question; the error says what is wrong with it.
    pub fn read(body: &Value) -> Result<Self, &'static str> {
        let name = body.get("name").and_then(Value::as_str).ok_or("name is missing")?;
        let leader = NodeName::new(name).map_err(|_| "name is no member's name")?;
        let Some(ours) = body.get("matriarch") else { return Ok(Self { leader, terms: None }) };
        let number = |key: &str| ours.get(key).and_then(Value::as_u64);
        let epoch = ours.get("epoch").and_then(Value::as_i64);
        let (Some(epoch), Some(nonce), Some(millis)) = (epoch, number("nonce"), number("millis")) else {
            return Err("matriarch must have the numbers epoch, nonce and millis");
        };
        let span = Duration::from_millis(millis);
        if span > LONGEST {
            return Err("millis is longer than anything that is promised");
        }
        Ok(Self { leader, terms: Some((Epoch(epoch), nonce, span)) })
    }
}

impl Promises {
    /// Reads what an earlier daemon has promised. What cannot be read counts for as long as the cluster's `ttl`.
    pub fn load(paths: &Paths, me: &NodeName, ttl: Duration) -> Self {
        let file = paths.beside(".promise");
        // Without it a promise counts anew from here, as after a restart of the host.
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let boot = boot.trim().to_owned();
        let kept = match std::fs::read(&file) {
            Ok(text) => read(&text, &boot).unwrap_or_else(|| {
                tracing::error!(
                    "{} cannot be read: this node does not take the lead for as long as it may have promised",
                    file.display()
                );
                Some(unreadable(me, ttl))
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::error!("{} cannot be read: {error}", file.display());
                Some(unreadable(me, ttl))
            }
        };
        Self { file, boot, kept: Mutex::new(kept), writing: tokio::sync::Mutex::new(()) }
    }

    fn kept(&self) -> MutexGuard<'_, Option<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The promise that binds this node now.
    pub fn binding(&self) -> Option<Promise> {
        let kept = self.kept().clone().filter(|kept| Moment::now() < kept.until)?;
        Some(Promise { leader: kept.leader, until: kept.until })
    }

    /// Promises what is asked for, or says why not; `leads` looks at the lease at that very moment. Returns the
    /// words of the promise, if the leader understands them.
    pub async fn give(
        &self,
        wish: &Wish,
        view: &ClusterView,
        ttl: Duration,
        leads: impl Fn() -> bool,
    ) -> Result<Option<String>, Refusal> {
        let said = {
            let mut kept = self.kept();
            // Under the lock: a turn that sees a lease which this has not seen sees the promise (Failsafe::facts).
            if leads() {
                return Err(Refusal::Leads);
            }
            let (next, said) = judge(kept.as_ref(), wish, view, ttl, Moment::now())?;
            *kept = next;
            said
        };
        if self.write().await.is_err() {
            return Err(Refusal::Disk);
        }
        Ok(said)
    }

    /// Writes down what is promised now.
    async fn write(&self) -> io::Result<()> {
        let _turn = self.writing.lock().await;
        let (file, newest) = (self.file.clone(), self.kept().clone());
        let Some(kept) = newest else { return off_loop(move || files::remove(&file).map(drop)).await };
        let written = Written {
            leader: kept.leader.to_string(),
            epoch: kept.epoch.map(|epoch| epoch.0),
            nonce: kept.nonce,
            span_ms: u64::try_from(kept.span.as_millis()).unwrap_or(u64::MAX),
            until_ns: kept.until.0,
            boot_id: self.boot.clone(),
        };
        let text = serde_json::to_vec(&written).map_err(io::Error::other)?;
        off_loop(move || files::write(&file, &text, 0o600)).await
    }
}

fn unreadable(me: &NodeName, ttl: Duration) -> Kept {
    let span = ttl.max(UNREADABLE);
    // Nobody is known by whose word it could end sooner.
    let leader = NodeName::new("somebody").unwrap_or_else(|_| me.clone());
    Kept { leader, epoch: None, nonce: 0, span, until: Moment::now() + span }
}

/// What the file says; outer nothing if it says nothing sensible.
fn read(text: &[u8], boot: &str) -> Option<Option<Kept>> {
    let written: Written = serde_json::from_slice(text).ok()?;
    let span = Duration::from_millis(written.span_ms).min(LONGEST);
    let until = match written.boot_id == boot && !boot.is_empty() {
        true => Moment(written.until_ns),
        // The clock began anew, and how long the host was down is not known.
        false => Moment::now() + span,
    };
    let leader = NodeName::new(&written.leader).ok()?;
    Some(Some(Kept { leader, epoch: written.epoch.map(Epoch), nonce: written.nonce, span, until }))
}

/// What is promised after a question, and in which words.
fn judge(
    kept: Option<&Kept>,
    wish: &Wish,
    view: &ClusterView,
    ttl: Duration,
    now: Moment,
) -> Result<(Option<Kept>, Option<String>), Refusal> {
    let listed = view.failsafe.as_ref().is_some_and(|record| record.contains_key(&wish.leader));
    let led = view.leader.as_ref().filter(|leader| leader.name == wish.leader);
    let known = listed || led.is_some();
    // Nothing that was promised before ends sooner for it.
    let bound = kept.map(|kept| kept.until).unwrap_or_default();
    let Some((epoch, nonce, span)) = wish.terms else {
        let ours = view.members.get(&wish.leader).is_some_and(|member| member.matriarch.is_some());
        // Patroni acknowledges whoever asks. In the name of a leader that could prove more, it binds nobody (F171).
        if !known || ours {
            return Ok((kept.cloned(), None));
        }
        let leader = wish.leader.clone();
        let until = bound.max(now + ttl);
        return Ok((Some(Kept { leader, epoch: None, nonce: 0, span: ttl, until }), None));
    };
    if !known {
        return Err(Refusal::Unknown);
    }
    let other =
        view.leader.as_ref().is_some_and(|leader| leader.epoch == epoch && leader.name != wish.leader);
    let binding = kept.filter(|kept| now < kept.until);
    let later = binding.and_then(|kept| kept.epoch).is_some_and(|before| before > epoch);
    if epoch < view.epoch() || other || later {
        return Err(Refusal::Old);
    }
    let same = kept.filter(|kept| kept.leader == wish.leader && kept.epoch == Some(epoch));
    if same.is_some_and(|kept| nonce <= kept.nonce) {
        return Err(Refusal::Replayed);
    }
    if span > ttl * 2 {
        return Err(Refusal::Long);
    }
    if span.is_zero() {
        let free = same.map(|kept| Kept { nonce, until: now, ..kept.clone() });
        return Ok((free.or_else(|| kept.cloned()), None));
    }
    let until = bound.max(now + span);
    let promised = Kept { leader: wish.leader.clone(), epoch: Some(epoch), nonce, span, until };
    Ok((Some(promised), Some(promise_text(epoch, nonce, span))))
}

#[cfg(test)]
mod tests;
