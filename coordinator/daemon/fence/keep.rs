//! Keeps a fencer beside the daemon, for as long as the lease thread lives: one that has ended, or does not answer, is
//! replaced at once. While there is none for longer than a moment, the node is told that it may not lead.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram as Plain;
use std::sync::Arc;
use std::time::Duration;

use dcs::Moment;
use rustix::process::Signal;
use tokio::net::UnixDatagram;
use tokio::sync::watch;

use super::open::{Link, OpenError, folder, start, succeed};
use super::{Fence, Post};
use crate::command::pidfd::Pidfd;
use crate::fencing::record::{FILE, Fired};
use crate::fencing::words::{LARGEST, Report};
use crate::lease::{Flags, Tenure, chain};

/// How long the fencer may take to answer; every new deadline is a question. Also how long the node may be without one.
const SILENCE: Duration = Duration::from_secs(1);
/// How long a fencer may take for its first word.
const FIRST_WORD: Duration = Duration::from_millis(500);
/// How long words that have arrived may take to be seen.
const LAST_WORD: Duration = Duration::from_millis(50);
/// The pause between two tries to start one.
const AGAIN: Duration = Duration::from_millis(200);

/// A connected fencer that has spoken.
struct Companion {
    /// Where it is told.
    ear: OwnedFd,
    /// Where it speaks.
    mouth: UnixDatagram,
    process: Pidfd,
    report: Report,
}

/// Keeps one until the thread ends. The first may be that of an earlier daemon.
pub async fn keep(flags: Arc<Flags>, tenure: Arc<watch::Sender<Tenure>>, post: Post) {
    let fence = &flags.fence;
    if let Some(fired) = last_kill(&post).await {
        tracing::warn!("before this daemon started, {}", told(&fired));
        *fence.fired() = Some(fired);
    }
    let mut inherits = true;
    loop {
        let lost = Moment::now();
        let companion = loop {
            match get(&post, std::mem::take(&mut inherits)).await {
                Ok(companion) => break companion,
                Err(error) => {
                    let known = tenure.borrow().unguarded.is_some();
                    if known || Moment::now().since(lost) >= SILENCE {
                        complain(&tenure, Some(chain(&error)));
                    }
                    tokio::time::sleep(AGAIN).await;
                }
            }
        };
        fence.connect(companion.ear, companion.report);
        greet(&companion.report);
        complain(&tenure, None);
        let began = Moment::now();
        let why = listen(fence, &post, &companion.mouth, companion.report).await;
        // A stopped process can be killed, and must not wake up with an old deadline.
        let _ = companion.process.signal(Signal::KILL);
        fence.disconnect();
        tracing::error!("matriarch-fencer {why}: another one is started");
        if Moment::now().since(began) < SILENCE {
            tokio::time::sleep(AGAIN).await;
        }
    }
}

/// The earlier daemon's, if there is one, or a new one; it has said its first word.
async fn get(post: &Post, inherits: bool) -> Result<Companion, OpenError> {
    let of = post.clone();
    at_a_distance(move || folder(&of)).await?;
    if inherits {
        let of = post.clone();
        match at_a_distance(move || succeed(&of).map_err(OpenError::Start)).await {
            Ok(None) => {}
            Ok(Some(link)) => match meet(link).await {
                Ok(companion) => {
                    tracing::info!("took over the fencer of the daemon before");
                    return Ok(companion);
                }
                Err(error) => tracing::warn!("the fencer of the daemon before is not taken over: {error}"),
            },
            Err(error) => tracing::warn!("the fencer of the daemon before cannot be asked: {error}"),
        }
    }
    let of = post.clone();
    meet(at_a_distance(move || start(&of)).await?).await.map_err(OpenError::Start)
}

/// Work with files, where a hung disk cannot hold up the renewals.
async fn at_a_distance<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, OpenError> + Send + 'static,
) -> Result<T, OpenError> {
    match tokio::time::timeout(SILENCE, tokio::task::spawn_blocking(work)).await {
        Ok(Ok(done)) => done,
        Ok(Err(error)) => Err(OpenError::Start(io::Error::other(error))),
        Err(_) => {
            Err(OpenError::Start(io::Error::other(format!("the disk has not answered for {SILENCE:?}"))))
        }
    }
}

/// Waits for the first word; who does not speak is killed, since it would not hear either.
async fn meet(link: Link) -> io::Result<Companion> {
    let Link { socket, process } = link;
    let ear = socket.try_clone()?;
    let plain = Plain::from(socket);
    plain.set_nonblocking(true)?;
    let mouth = UnixDatagram::from_std(plain)?;
    let mut buffer = vec![0; LARGEST];
    match tokio::time::timeout(FIRST_WORD, mouth.recv(&mut buffer)).await {
        Ok(said) => {
            let report = buffer.get(..said?).and_then(Report::decode);
            let report = report.ok_or_else(|| io::Error::other("it ended the conversation"))?;
            Ok(Companion { ear, mouth, process, report })
        }
        Err(_) => {
            let _ = process.signal(Signal::KILL);
            Err(io::Error::other(format!("it has said nothing for {FIRST_WORD:?} and was killed")))
        }
    }
}

/// Hears what it says until it ends, or does not answer; returns which.
async fn listen(fence: &Fence, post: &Post, mouth: &UnixDatagram, mut last: Report) -> &'static str {
    let mut buffer = vec![0; LARGEST];
    let mut heard = Moment::now();
    loop {
        let expected = fence.awaits(&last);
        let patience = Moment::now().until(heard + SILENCE);
        let said = tokio::select! {
            biased;
            said = mouth.recv(&mut buffer) => said,
            () = fence.ordered.notified() => {
                if !expected {
                    // From here on it is expected to speak.
                    heard = Moment::now();
                }
                continue;
            }
            () = tokio::time::sleep(patience), if expected => {
                // After a freeze of the daemon its words wait here, and the runtime has not seen them yet.
                match tokio::time::timeout(LAST_WORD, mouth.recv(&mut buffer)).await {
                    Ok(said) => said,
                    Err(_) => return "does not answer",
                }
            }
        };
        let Ok(said @ 1..) = said else { return "has ended" };
        let Some(report) = buffer.get(..said).and_then(Report::decode) else { continue };
        heard = Moment::now();
        fence.note(last.watch, report.watch);
        if report.kills > last.kills {
            tracing::error!("{}", shot(&report));
        }
        // The record is written after the first report of a kill and before the second.
        if report.kills > 0
            && !report.armed
            && let Some(fired) = last_kill(post).await
        {
            *fence.fired() = Some(fired);
        }
        last = report;
        fence.reports.send_replace(Some(report));
    }
}

fn complain(tenure: &watch::Sender<Tenure>, why: Option<String>) {
    tenure.send_if_modified(|tenure| {
        if tenure.unguarded == why {
            return false;
        }
        if let Some(why) = &why {
            tracing::error!("this node cannot lead: {why}");
        }
        tenure.unguarded = why;
        true
    });
}

fn greet(report: &Report) {
    let lacks = [
        (report.locked, "memory that stays (LimitMEMLOCK, or CAP_IPC_LOCK)"),
        (report.realtime, "real-time priority (LimitRTPRIO=40, or CAP_SYS_NICE)"),
        (report.spared, "safety from the kernel when memory runs out (CAP_SYS_RESOURCE)"),
    ];
    let lacks: Vec<_> = lacks.iter().filter(|(has, _)| !has).map(|(_, what)| *what).collect();
    let lacks = match lacks.is_empty() {
        true => String::new(),
        false => format!(", without what it was not permitted: {}", lacks.join(", ")),
    };
    tracing::info!("matriarch-fencer is there (process {}){lacks}", report.pid);
}

async fn last_kill(post: &Post) -> Option<Fired> {
    let file = post.folder.join(FILE);
    let read = at_a_distance(move || fs::read(file).map_err(OpenError::Start)).await;
    serde_json::from_slice(&read.ok()?).ok()
}

/// What the record of a kill says.
fn told(fired: &Fired) -> String {
    format!(
        "the fencer killed every process of the instance ({}) at the hard deadline of the lease, since Postgres might \
         still have taken writes (epoch seconds {}, {} ms after the deadline)",
        fired.processes,
        fired.at,
        fired.gone_us / 1000
    )
}

fn shot(report: &Report) -> String {
    let millis = |nanos: u64| Duration::from_nanos(nanos).as_secs_f64() * 1e3;
    format!(
        "the fencer killed the instance: the leader lease had run out and Postgres might still have taken writes. Every \
         process had its signal {:.1} ms after the deadline, and none was left after {:.1} ms",
        millis(report.signalled),
        millis(report.gone)
    )
}
