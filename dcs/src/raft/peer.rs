//! The connections from this member to the others: one for each, made again whenever it breaks.
//! What cannot be sent now is dropped; raft sends it again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use raft::eraftpb::MessageType;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

use super::frame::{Frame, FrameError, Word};
use super::link::{Link, LinkError};
use super::wire::{Input, Wire};
use crate::retry::Pauses;

/// How often a silent connection shows that it is there.
const PING: Duration = Duration::from_secs(2);

/// Keeps one connection to every other member, as they come and go.
pub(super) async fn keep_all(wire: Arc<Wire>) {
    let mut wanted = wire.others.subscribe();
    let mut kept: BTreeMap<u64, (String, AbortHandle)> = BTreeMap::new();
    let mut tasks = JoinSet::new();
    loop {
        let others = wanted.borrow_and_update().clone();
        kept.retain(|member, (address, task)| {
            let stays = others.get(member) == Some(address);
            if !stays {
                task.abort();
                wire.close(*member);
            }
            stays
        });
        for (member, address) in others {
            kept.entry(member).or_insert_with(|| {
                let frames = wire.open(member, &address);
                let peer = Peer { wire: Arc::clone(&wire), member, address: address.clone() };
                (address, tasks.spawn(peer.keep(frames)))
            });
        }
        tokio::select! {
            changed = wanted.changed() => if changed.is_err() { return },
            Some(_) = tasks.join_next() => {}
        }
    }
}

struct Peer {
    wire: Arc<Wire>,
    member: u64,
    address: String,
}

impl Peer {
    async fn keep(self, mut frames: mpsc::Receiver<Frame>) {
        let mut pauses = Pauses::new(Duration::from_millis(20), Duration::from_millis(300));
        let mut said = String::new();
        loop {
            let why = match self.connect().await {
                Ok(link) => {
                    if !said.is_empty() {
                        tracing::info!("the member of the embedded store at {} is there", self.address);
                        said.clear();
                    }
                    self.wire.set_fault(self.member, None);
                    pauses.reset();
                    match self.pump(link, &mut frames).await {
                        Ok(()) => return,
                        Err(why) => why,
                    }
                }
                Err(why) => why.to_string(),
            };
            if why != said {
                let address = &self.address;
                tracing::warn!(
                    "no connection to the member of the embedded store at {address}: {why}; trying on"
                );
                said.clone_from(&why);
            }
            self.wire.set_fault(self.member, Some(why));
            self.drop_waiting(&mut frames);
            tokio::time::sleep(pauses.next()).await;
        }
    }

    async fn connect(&self) -> Result<Link, LinkError> {
        if self.wire.is_cut(&self.address) {
            return Err(LinkError::Refused("cut off by a test".to_owned()));
        }
        let link = self.wire.security.connect(&self.address, self.wire.hello()?).await?;
        if link.them.member != self.member {
            let found = link.them.member;
            return Err(LinkError::Refused(format!(
                "it is not member {:x} any more but {found:x}: its data_dir was replaced",
                self.member
            )));
        }
        Ok(link)
    }

    /// Sends what comes until the connection breaks; returns why, or `Ok` if there is nothing to send any more.
    async fn pump(&self, link: Link, frames: &mut mpsc::Receiver<Frame>) -> Result<(), String> {
        let Link { mut receiver, mut sender, .. } = link;
        // The other side says nothing here but why it ends the connection.
        let hearing = async move {
            loop {
                match receiver.read().await {
                    Ok(Frame::Word(Word::Refuse(why))) => return format!("it refused: {why}"),
                    Ok(_) => {}
                    Err(FrameError::Closed) => return "it closed the connection".to_owned(),
                    Err(error) => return error.to_string(),
                }
            }
        };
        tokio::pin!(hearing);
        loop {
            let frame = tokio::select! {
                why = &mut hearing => return Err(why),
                frame = tokio::time::timeout(PING, frames.recv()) => match frame {
                    Ok(Some(frame)) => frame,
                    Ok(None) => return Ok(()),
                    Err(_) => Frame::Ping,
                },
            };
            let sent = sender.write(&frame).await;
            self.report(&frame, sent.is_ok());
            sent.map_err(|error| error.to_string())?;
        }
    }

    fn report(&self, frame: &Frame, whole: bool) {
        if let Frame::Raft(message) = frame
            && message.get_msg_type() == MessageType::MsgSnapshot
        {
            let _ = self.wire.inputs.try_send(Input::Sent { to: self.member, whole });
        }
    }

    fn drop_waiting(&self, frames: &mut mpsc::Receiver<Frame>) {
        let mut dropped = false;
        while let Ok(frame) = frames.try_recv() {
            self.report(&frame, false);
            dropped = true;
        }
        if dropped {
            let _ = self.wire.inputs.try_send(Input::Unreachable(self.member));
        }
    }
}
