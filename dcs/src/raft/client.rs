//! The way to the embedded store for whoever is no member of it: one connection per request, to the member that
//! answered last, else to the next. A request whose answer was lost is repeated only if that changes nothing.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use config::RaftConfig;

use super::frame::{Frame, Word};
use super::link::{Hello, Link, LinkError, Security};
use super::request::{Reply, Request};
use crate::Moment;
use crate::retry::Pauses;
use crate::store::{Batch, Patience, StoreError};

/// A watch that hears nothing for this long is over: a member says something every two seconds.
const SILENT: Duration = Duration::from_secs(6);

/// The members, as a client knows them.
pub(crate) struct Remote {
    security: Security,
    addresses: Vec<String>,
    /// Which one answered last.
    current: AtomicUsize,
}

/// What came of one attempt at one member.
enum Attempt {
    Answered(Result<Reply, StoreError>),
    /// It never heard of the request.
    NotSent(LinkError),
    /// It may have heard of it.
    Lost(String),
}

impl Remote {
    pub fn new(config: &RaftConfig) -> Result<Self, StoreError> {
        let addresses: Vec<String> =
            config.self_addr.iter().chain(&config.partner_addrs).map(ToString::to_string).collect();
        if addresses.is_empty() {
            return Err(StoreError::Settings("the section raft names no member of the store".to_owned()));
        }
        Ok(Self { security: Security::new(config)?, addresses, current: AtomicUsize::new(0) })
    }

    fn address(&self) -> &str {
        let at = self.current.load(Ordering::Relaxed) % self.addresses.len().max(1);
        self.addresses.get(at).map_or("", String::as_str)
    }

    fn turn(&self) {
        self.current.fetch_add(1, Ordering::Relaxed);
    }

    /// Asks one member after the other, for as long as the patience lasts.
    pub(super) async fn ask(&self, request: &Request, patience: Patience) -> Result<Reply, StoreError> {
        let end = Moment::now() + patience.total;
        let mut pauses = Pauses::new(Duration::from_millis(20), Duration::from_millis(200));
        loop {
            let address = self.address().to_owned();
            let left = Moment::now().until(end);
            let each = patience.each.unwrap_or((left / 2).min(Patience::ATTEMPT)).min(left);
            let failed = match attempt(&self.security, &address, request, each).await {
                Attempt::Answered(Err(StoreError::Unknown(_))) if request.is_repeatable() => {
                    format!("{address} did not answer in time")
                }
                Attempt::Answered(Err(StoreError::Unreachable(why))) => format!("{address}: {why}"),
                Attempt::Answered(answer) => return answer,
                Attempt::NotSent(why @ (LinkError::Password | LinkError::Open | LinkError::Sealed)) => {
                    return Err(StoreError::Auth(format!("{address}: {why}")));
                }
                Attempt::NotSent(why) => format!("{address}: {why}"),
                Attempt::Lost(why) if request.is_repeatable() => format!("{address}: {why}"),
                Attempt::Lost(why) => return Err(StoreError::Unknown(format!("{address}: {why}"))),
            };
            self.turn();
            let pause = pauses.next();
            if Moment::now().until(end) <= pause {
                return Err(StoreError::Unreachable(failed));
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Opens a watch.
    pub async fn watch(
        &self,
        prefix: &str,
        from: i64,
        patience: Patience,
    ) -> Result<RemoteWatch, StoreError> {
        let address = self.address().to_owned();
        let opening = async {
            let mut link = self.security.connect(&address, stranger()?).await?;
            let request = Request::Watch { prefix: prefix.to_owned(), from };
            let ask = Word::Ask { number: 1, request, patience: 0 };
            link.sender.write(&Frame::Word(ask)).await?;
            Ok::<_, LinkError>(link)
        };
        let late = || StoreError::Unreachable(format!("{address}: no answer within {:?}", patience.total));
        let standing = async {
            let link = opening.await.map_err(|why| StoreError::Unreachable(format!("{address}: {why}")))?;
            let mut watch = RemoteWatch { link: Some(Box::new(link)) };
            // The first news is that it stands.
            watch.next().await.map(|_| watch)
        };
        let opened = tokio::time::timeout(patience.total, standing).await.unwrap_or_else(|_| Err(late()));
        opened.inspect_err(|_| self.turn())
    }
}

/// What a client says on a connection: it is nobody.
fn stranger() -> Result<Hello, LinkError> {
    Hello::new(0, 0, String::new())
}

async fn attempt(security: &Security, address: &str, request: &Request, patience: Duration) -> Attempt {
    let connecting = async { security.connect(address, stranger()?).await };
    let link = match tokio::time::timeout(patience, connecting).await {
        Ok(Ok(link)) => link,
        Ok(Err(why)) => return Attempt::NotSent(why),
        Err(_) => return Attempt::NotSent(LinkError::Silent(patience)),
    };
    exchange(link, request, patience).await
}

async fn exchange(mut link: Link, request: &Request, patience: Duration) -> Attempt {
    let millis = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
    let ask = Word::Ask { number: 1, request: request.clone(), patience: millis };
    let talking = async {
        link.sender.write(&Frame::Word(ask)).await?;
        loop {
            match link.receiver.read().await? {
                Frame::Word(Word::Answer { answer, .. }) => return Ok(Attempt::Answered(answer)),
                Frame::Word(Word::Refuse(why)) => return Ok(Attempt::NotSent(LinkError::Refused(why))),
                _ => {}
            }
        }
    };
    let slack = patience + Duration::from_millis(200);
    match tokio::time::timeout(slack, talking).await {
        Ok(Ok(attempt)) => attempt,
        Ok(Err::<_, super::frame::FrameError>(error)) => Attempt::Lost(error.to_string()),
        Err(_) => Attempt::Lost(format!("no answer within {slack:?}")),
    }
}

/// Asks one member who it is, as a member.
pub(super) async fn introduce(security: &Security, address: &str, us: Hello) -> Result<Reply, String> {
    let patience = Duration::from_secs(1);
    let link = tokio::time::timeout(patience, security.connect(address, us)).await;
    let link = link.map_err(|_| "no answer within 1 s".to_owned())?.map_err(|why| why.to_string())?;
    match exchange(link, &Request::Introduce, patience).await {
        Attempt::Answered(Ok(reply)) => Ok(reply),
        Attempt::Answered(Err(error)) => Err(error.to_string()),
        Attempt::NotSent(why) => Err(why.to_string()),
        Attempt::Lost(why) => Err(why),
    }
}

/// Tells one member something, as a member.
pub(super) async fn tell(security: &Security, address: &str, us: Hello, word: Word) -> Result<(), LinkError> {
    let mut link = security.connect(address, us).await?;
    link.sender.write(&Frame::Word(word)).await?;
    Ok(())
}

/// A watch at one member.
pub(crate) struct RemoteWatch {
    link: Option<Box<Link>>,
}

impl RemoteWatch {
    pub async fn next(&mut self) -> Result<Batch, StoreError> {
        // Taken away while it is read: if the wait is dropped half way, the watch is over.
        let over = || StoreError::Unreachable("the watch is over".to_owned());
        let mut link = self.link.take().ok_or_else(over)?;
        let silent = || StoreError::Unreachable("the watch fell silent".to_owned());
        let frame = tokio::time::timeout(SILENT, link.receiver.read()).await.map_err(|_| silent())?;
        match frame {
            Ok(Frame::Word(Word::News { news, .. })) => {
                self.link = Some(link);
                news
            }
            Ok(Frame::Word(Word::Refuse(why))) => Err(StoreError::Unreachable(why)),
            Ok(_) => {
                self.link = Some(link);
                Ok(Batch::default())
            }
            Err(error) => Err(StoreError::Unreachable(error.to_string())),
        }
    }
}
