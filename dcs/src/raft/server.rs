//! The connections that others make to this member: members that talk raft, and clients that ask.
//! Whoever sends what they must not is cut off with one line in the log.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;

use super::frame::{Frame, FrameError, Word};
use super::link::{Hello, Link, LinkError, Receiver};
use super::members::REMOVED;
use super::request::{Reply, Request};
use super::wire::{Input, Wire};
use crate::Moment;
use crate::store::{Batch, StoreError};

/// The same complaint about the same address is not repeated for this long.
const AGAIN: Duration = Duration::from_secs(30);
/// How many connections are served at once.
const MOST: usize = 256;
/// A connection on which nothing comes for this long is closed.
const SILENT: Duration = Duration::from_secs(10);
/// A watcher on which nothing happens is shown this often that the store is there.
const ALIVE: Duration = Duration::from_secs(2);
/// The longest that a client may make this member try.
const PATIENCE: Duration = Duration::from_secs(60);

/// Serves everybody who connects.
pub(super) async fn serve(wire: Arc<Wire>, listener: TcpListener) {
    let room = Arc::new(Semaphore::new(MOST));
    let said = Arc::default();
    let mut tasks = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = tasks.join_next() => continue,
        };
        let (tcp, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!("the embedded store cannot take a connection: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&room).try_acquire_owned() else {
            tracing::warn!("the embedded store has {MOST} connections: {from} is turned away");
            continue;
        };
        let wire = Arc::clone(&wire);
        let said = Arc::clone(&said);
        tasks.spawn(async move {
            if let Err(error) = talk(&wire, tcp).await {
                complain(&said, from.ip(), &error.to_string());
            }
            drop(place);
        });
    }
}

/// When each complaint about somebody was said.
type Said = Mutex<BTreeMap<(IpAddr, String), Moment>>;

/// Whoever is turned away tries again and again: the same is said of them once in a while.
fn complain(said: &Said, from: IpAddr, why: &str) {
    let now = Moment::now();
    let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
    said.retain(|_, when| now.since(*when) < AGAIN);
    let complaint = (from, why.to_owned());
    if said.len() < MOST && !said.contains_key(&complaint) {
        said.insert(complaint, now);
        tracing::warn!("a connection to the embedded store from {from} was ended: {why}");
    }
}

async fn talk(wire: &Arc<Wire>, tcp: TcpStream) -> Result<(), LinkError> {
    let Link { them, mut receiver, mut sender } = wire.security.accept(tcp, wire.hello()?).await?;
    if let Some(why) = unwelcome(wire, &them) {
        let _ = sender.write(&Frame::Word(Word::Refuse(why.clone()))).await;
        return Err(LinkError::Refused(why));
    }
    let (answers, mut waiting) = mpsc::channel::<Frame>(64);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Some(frame) = waiting.recv().await {
            if sender.write(&frame).await.is_err() {
                break;
            }
        }
    });
    let caller = Caller { wire, them, answers };
    let ended = caller.hear(&mut receiver, &mut tasks).await;
    match ended {
        Err(FrameError::Closed) => Ok(()),
        Err(FrameError::Io(error)) => {
            tracing::debug!("a connection to the embedded store broke: {error}");
            Ok(())
        }
        Err(error) => Err(error.into()),
        Ok(()) => Ok(()),
    }
}

/// Why somebody who knows the password is still not welcome.
fn unwelcome(wire: &Wire, them: &Hello) -> Option<String> {
    if them.member == 0 {
        return None;
    }
    if them.member == wire.member && them.address != wire.address {
        return Some(format!(
            "{} has the identity of this member: its data_dir is a copy; stop it and give it an empty one",
            them.address
        ));
    }
    if wire.is_removed(them.member) {
        return Some(REMOVED.to_owned());
    }
    let known = wire.others.borrow().get(&them.member).cloned();
    known.filter(|known| *known != them.address).map(|known| {
        format!(
            "the member with this identity is at {known}, not at {}: its data_dir is a copy, or it has moved; \
             give it an empty one and run matriarchctl store add with its address",
            them.address
        )
    })
}

struct Caller<'a> {
    wire: &'a Arc<Wire>,
    them: Hello,
    answers: mpsc::Sender<Frame>,
}

impl Caller<'_> {
    async fn hear(&self, receiver: &mut Receiver, tasks: &mut JoinSet<()>) -> Result<(), FrameError> {
        loop {
            let silent = || std::io::Error::new(std::io::ErrorKind::TimedOut, "nothing was heard for 10 s");
            let frame = tokio::time::timeout(SILENT, receiver.read()).await.map_err(|_| silent())??;
            // Tasks that have ended are forgotten.
            while tasks.try_join_next().is_some() {}
            if self.wire.is_cut(&self.them.address) {
                continue;
            }
            let input = match frame {
                Frame::Ping => continue,
                // It is told why when it connects again.
                Frame::Raft(_) if self.wire.is_removed(self.them.member) => return Ok(()),
                Frame::Raft(message) => {
                    let ours = self.wire.introduction.borrow().cluster;
                    if self.them.member == 0
                        || message.from != self.them.member
                        || message.to != self.wire.member
                    {
                        let why = format!("member {:x} speaks for {:x}", self.them.member, message.from);
                        return Err(FrameError::Garbage(why));
                    }
                    // Before this member belongs to a store it has nothing to say in it.
                    if ours == 0 || self.them.cluster != ours {
                        return Ok(());
                    }
                    self.wire.meet(&self.them);
                    Input::Message(message)
                }
                Frame::Word(Word::Ask { number, request, patience }) => {
                    self.answer(tasks, number, request, Duration::from_millis(patience).min(PATIENCE));
                    continue;
                }
                Frame::Word(Word::Join { member, address }) if self.them.member != 0 => {
                    Input::Join { member, address }
                }
                Frame::Word(Word::Propose(command)) if self.them.member != 0 => {
                    Input::Forwarded { from: self.them.member, command }
                }
                Frame::Word(Word::Turned { id, refused }) if self.them.member != 0 => {
                    Input::Turned { id, refused }
                }
                Frame::Word(_) => return Err(FrameError::Garbage("it is not for this member".to_owned())),
            };
            // A full queue loses it, as a network would.
            let _ = self.wire.inputs.try_send(input);
        }
    }

    fn answer(&self, tasks: &mut JoinSet<()>, number: u64, request: Request, patience: Duration) {
        let (wire, answers) = (Arc::clone(self.wire), self.answers.clone());
        tasks.spawn(async move {
            if let Request::Watch { prefix, from } = &request {
                return watch(&wire, &answers, number, prefix, *from).await;
            }
            let answer = ask(&wire, request, patience).await;
            let _ = answers.send(Frame::Word(Word::Answer { number, answer })).await;
        });
    }
}

/// Lets the raft thread answer a request.
pub(super) async fn ask(wire: &Wire, request: Request, patience: Duration) -> Result<Reply, StoreError> {
    if request == Request::Introduce {
        return Ok(Reply::Introduced(wire.introduction.borrow().clone()));
    }
    if !request.is_for_clients() {
        return Err(StoreError::Refused("this is no request for clients".to_owned()));
    }
    let (reply, answer) = oneshot::channel();
    let end = Moment::now() + patience;
    if wire.inputs.try_send(Input::Request { request, end, reply }).is_err() {
        return Err(StoreError::Unreachable(
            "this member of the embedded store is overloaded or has ended".to_owned(),
        ));
    }
    let ended = || StoreError::Unknown("this member of the embedded store has ended".to_owned());
    // The raft thread keeps the deadline; this one is for a thread that is stuck.
    let late = || StoreError::Unknown("this member of the embedded store did not answer in time".to_owned());
    let slack = patience + Duration::from_millis(50);
    tokio::time::timeout(slack, answer).await.map_err(|_| late())?.unwrap_or_else(|_| Err(ended()))
}

async fn watch(wire: &Wire, answers: &mpsc::Sender<Frame>, number: u64, prefix: &str, from: i64) {
    let opened = wire.ring.watch(prefix, from);
    // That it stands is the first news.
    let first = opened.as_ref().map(|_| Batch::default()).map_err(Clone::clone);
    let sent = answers.send(Frame::Word(Word::News { number, news: first })).await;
    let (Ok(mut watching), Ok(())) = (opened, sent) else { return };
    loop {
        let news =
            tokio::time::timeout(ALIVE, watching.next()).await.unwrap_or_else(|_| Ok(Batch::default()));
        let over = news.is_err();
        let sent = answers.send(Frame::Word(Word::News { number, news })).await;
        if over || sent.is_err() {
            return;
        }
    }
}
