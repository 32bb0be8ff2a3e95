//! What travels between members: frames of a length, a kind, a content and, under a password, a seal.
//! Whatever arrives is judged before it is used; nothing that arrives can make this code panic.

use prost::Message as _;
use raft::eraftpb::{EntryType, Message, MessageType};
use ring::hmac;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::command::{Command, Id};
use super::request::{Reply, Request};
use crate::store::{Batch, StoreError};

/// The longest frame, in bytes.
pub(super) const LONGEST: usize = 8 << 20;
/// The longest frame of somebody who has not yet shown who they are.
pub(super) const LONGEST_HELLO: usize = 4096;
/// Bytes of a seal: the first of an HMAC-SHA256.
const SEAL: usize = 16;

/// Why a frame is not used, and its connection ends.
#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError {
    #[error("it is closed")]
    Closed,
    #[error("a frame of {0} bytes was announced, which no member sends")]
    Oversized(usize),
    #[error("a frame has no valid seal: it was changed, repeated or sent by somebody without the password")]
    Seal,
    #[error("a frame cannot be read: {0}")]
    Garbage(String),
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

/// What one frame says.
#[derive(Debug)]
pub(super) enum Frame {
    /// I am here.
    Ping,
    /// A message of raft.
    Raft(Box<Message>),
    Word(Word),
}

/// What members and clients say to each other beside raft.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Word {
    /// Propose this; sent to the leader.
    Propose(Command),
    /// It was not proposed: by whom it was refused and why, or because its receiver does not lead.
    Turned { id: Id, refused: Option<String> },
    /// A request, to be answered within so many milliseconds.
    Ask { number: u64, request: Request, patience: u64 },
    /// The answer.
    Answer { number: u64, answer: Result<Reply, StoreError> },
    /// News of a watch; after an error it is over.
    News { number: u64, news: Result<Batch, StoreError> },
    /// A fresh or joining member asks to be let in; passed on to the leader.
    Join { member: u64, address: String },
    /// The connection ends, and why.
    Refuse(String),
}

const PING: u8 = 0;
const RAFT: u8 = 1;
const WORD: u8 = 2;

impl Frame {
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Ping => vec![PING],
            Self::Raft(message) => {
                let mut bytes = vec![RAFT];
                bytes.extend(message.encode_to_vec());
                bytes
            }
            Self::Word(word) => {
                let mut bytes = vec![WORD];
                bytes.extend(serde_json::to_vec(word).unwrap_or_default());
                bytes
            }
        }
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        let garbage = |why: String| FrameError::Garbage(why);
        match bytes.split_first() {
            Some((&PING, [])) => Ok(Self::Ping),
            Some((&RAFT, content)) => {
                let message = Message::decode(content).map_err(|error| garbage(error.to_string()))?;
                check(&message).map_err(garbage)?;
                Ok(Self::Raft(Box::new(message)))
            }
            Some((&WORD, content)) => {
                serde_json::from_slice(content).map(Self::Word).map_err(|error| garbage(error.to_string()))
            }
            _ => Err(garbage("its kind is unknown".to_owned())),
        }
    }
}

/// Whether a message is one that another member may send: raft panics on numbers that are no kinds,
/// and takes its own local messages from nobody else.
fn check(message: &Message) -> Result<(), String> {
    let kind = MessageType::from_i32(message.msg_type).ok_or("its message is of no known kind")?;
    let is_local = matches!(
        kind,
        MessageType::MsgHup
            | MessageType::MsgBeat
            | MessageType::MsgUnreachable
            | MessageType::MsgSnapStatus
            | MessageType::MsgCheckQuorum
            | MessageType::MsgPropose
            | MessageType::MsgTransferLeader
    );
    if is_local {
        return Err(format!("its message is {kind:?}, which no member sends"));
    }
    let known = |entry: &raft::eraftpb::Entry| EntryType::from_i32(entry.entry_type).is_some();
    if !message.entries.iter().all(known) {
        return Err("its message has an entry of no known kind".to_owned());
    }
    let mut follow = message.entries.iter().zip(1..);
    if kind == MessageType::MsgAppend
        && follow.any(|(entry, step)| message.index.checked_add(step) != Some(entry.index))
    {
        return Err("its message has entries that do not follow each other".to_owned());
    }
    if kind == MessageType::MsgSnapshot && message.get_snapshot().get_metadata().index == 0 {
        return Err("its message has an empty snapshot".to_owned());
    }
    Ok(())
}

/// One direction of a connection under a password: each frame is sealed with a key
/// that this connection alone has, and with its number.
#[derive(Debug, Default)]
pub(super) struct Seals {
    key: Option<hmac::Key>,
    count: u64,
}

impl Seals {
    pub fn with(key: Option<hmac::Key>) -> Self {
        Self { key, count: 0 }
    }

    fn seal(&mut self, content: &[u8]) -> Vec<u8> {
        let Some(key) = &self.key else { return Vec::new() };
        self.count += 1;
        tag(key, self.count, content).as_ref().iter().take(SEAL).copied().collect()
    }

    fn open<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], FrameError> {
        let Some(key) = &self.key else { return Ok(bytes) };
        self.count += 1;
        let at = bytes.len().checked_sub(SEAL).ok_or(FrameError::Seal)?;
        let (content, seal) = bytes.split_at_checked(at).ok_or(FrameError::Seal)?;
        let wanted = tag(key, self.count, content);
        // Every byte is compared, so that the time taken tells nothing.
        let differs = wanted.as_ref().iter().zip(seal).fold(0, |sum, (a, b)| sum | (a ^ b));
        if differs == 0 { Ok(content) } else { Err(FrameError::Seal) }
    }
}

fn tag(key: &hmac::Key, count: u64, content: &[u8]) -> hmac::Tag {
    let mut context = hmac::Context::with_key(key);
    context.update(&count.to_be_bytes());
    context.update(content);
    context.sign()
}

/// Writes one frame.
pub(super) async fn write(
    writer: &mut (impl AsyncWrite + Unpin),
    seals: &mut Seals,
    content: &[u8],
) -> Result<(), FrameError> {
    let seal = seals.seal(content);
    let length = content.len() + seal.len();
    if length > LONGEST {
        return Err(FrameError::Oversized(length));
    }
    let mut bytes = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes().to_vec();
    bytes.extend_from_slice(content);
    bytes.extend(seal);
    writer.write_all(&bytes).await?;
    writer.flush().await?;
    Ok(())
}

/// Reads the content of one frame. Not to be dropped half way: the rest of the frame would be lost.
pub(super) async fn read(
    reader: &mut (impl AsyncRead + Unpin),
    seals: &mut Seals,
    longest: usize,
) -> Result<Vec<u8>, FrameError> {
    let mut length = [0; 4];
    match reader.read_exact(&mut length).await {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Err(FrameError::Closed),
        Err(error) => return Err(error.into()),
    }
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > longest {
        return Err(FrameError::Oversized(length));
    }
    // Grown as it arrives: what is only announced costs no memory.
    let mut bytes = Vec::new();
    let got = reader.take(length as u64).read_to_end(&mut bytes).await?;
    if got < length {
        return Err(FrameError::Closed);
    }
    let content = seals.open(&bytes)?;
    Ok(content.to_vec())
}
