//! What the decoders of the embedded store do with anything at all: frames, seals, records, commands.

use proptest::prelude::*;
use raft::eraftpb::{Entry, Message, MessageType};
use ring::hmac;
use std::collections::BTreeMap;

use super::command::{Command, Id, Outcome, What};
use super::frame::{self, Frame, FrameError, Seals, Word};
use super::machine::{Machine, WINDOW};
use super::record;
use crate::Revision;
use crate::store::{Condition, Txn, Write};

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn key(byte: u8) -> Seals {
    Seals::with(Some(hmac::Key::new(hmac::HMAC_SHA256, &[byte; 32])))
}

fn written(seals: &mut Seals, content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    run(frame::write(&mut bytes, seals, content)).unwrap();
    bytes
}

fn read(seals: &mut Seals, mut bytes: &[u8]) -> Result<Vec<u8>, FrameError> {
    run(frame::read(&mut bytes, seals, frame::LONGEST))
}

#[test]
fn repeated_reordered_and_foreign_frames_are_refused() {
    let (mut sender, mut receiver) = (key(1), key(1));
    let frames: Vec<Vec<u8>> = (0..3u8).map(|byte| written(&mut sender, &[byte])).collect();
    assert_eq!(read(&mut receiver, &frames[0]).unwrap(), [0]);
    assert!(matches!(read(&mut receiver, &frames[0]), Err(FrameError::Seal)));
    let mut receiver = key(1);
    assert!(matches!(read(&mut receiver, &frames[1]), Err(FrameError::Seal)));
    assert!(matches!(read(&mut key(2), &frames[0]), Err(FrameError::Seal)));
    assert!(matches!(read(&mut key(1), &[0, 0, 0, 2, 0, 0]), Err(FrameError::Seal)));
}

#[test]
fn what_no_member_sends_is_refused() {
    let encode = |message: Message| Frame::Raft(Box::new(message)).encode();
    let of = |kind: MessageType| Message { msg_type: kind as i32, from: 1, to: 2, ..Message::default() };
    assert!(Frame::decode(&encode(of(MessageType::MsgHeartbeat))).is_ok());
    for kind in [
        MessageType::MsgHup,
        MessageType::MsgPropose,
        MessageType::MsgTransferLeader,
        MessageType::MsgSnapshot,
    ] {
        assert!(Frame::decode(&encode(of(kind))).is_err(), "{kind:?}");
    }
    assert!(Frame::decode(&encode(Message { msg_type: 99, ..Message::default() })).is_err());
    let entry = |index, kind| Entry { index, entry_type: kind, ..Entry::default() };
    let append = |entries| Message { index: 4, entries, ..of(MessageType::MsgAppend) };
    assert!(Frame::decode(&encode(append(vec![entry(5, 0), entry(6, 2)]))).is_ok());
    assert!(Frame::decode(&encode(append(vec![entry(5, 0), entry(7, 0)]))).is_err());
    assert!(Frame::decode(&encode(append(vec![entry(5, 7)]))).is_err());
    let far = Message { index: u64::MAX, entries: vec![entry(0, 0)], ..of(MessageType::MsgAppend) };
    assert!(Frame::decode(&encode(far)).is_err());
}

fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        // Something that is nearly right.
        (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(at, byte)| {
            let word = Word::Join { member: 7, address: "127.0.0.1:1".to_owned() };
            let mut bytes = Frame::Word(word).encode();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            bytes
        }),
        (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(at, byte)| {
            let entries = vec![Entry { index: 5, data: vec![1, 2, 3], ..Entry::default() }];
            let message = Message { msg_type: 3, index: 4, entries, from: 1, to: 2, ..Message::default() };
            let mut bytes = Frame::Raft(Box::new(message)).encode();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            bytes
        }),
    ]
}

fn any_write() -> impl Strategy<Value = Write> {
    let key = prop::sample::select(vec!["/a", "/a/b", "/c"]).prop_map(str::to_owned);
    prop_oneof![
        (key.clone(), "[a-z\"]{0,4}", 0..3i64).prop_map(|(key, value, lease)| Write::Put {
            key,
            value,
            lease
        }),
        key.clone().prop_map(Write::Delete),
        key.prop_map(Write::DeleteAll),
    ]
}

fn any_what() -> impl Strategy<Value = What> {
    let when = prop_oneof![
        Just(vec![]),
        Just(vec![Condition::Absent("/a".to_owned())]),
        (0..5i64).prop_map(|at| vec![Condition::Modified("/c".to_owned(), at)])
    ];
    let txn = (when, prop::collection::vec(any_write(), 0..4));
    prop_oneof![
        4 => txn.prop_map(|(when, then)| What::Commit(Txn { when, then, read: Some("/a".to_owned()) })),
        1 => (1..3i64).prop_map(|lease| What::Grant { lease, ttl: 1000 }),
        1 => (1..3i64).prop_map(|lease| What::Touch { lease }),
        1 => (1..3i64, prop::option::of(0..2u64)).prop_map(|(lease, generation)| What::Revoke { lease, generation }),
    ]
}

proptest! {
    #[test]
    fn no_bytes_make_the_frame_decoder_panic(bytes in any_bytes()) {
        let _ = Frame::decode(&bytes);
        let _ = read(&mut Seals::default(), &bytes);
        let _ = read(&mut key(1), &bytes);
    }

    #[test]
    fn a_record_is_what_was_written_or_damaged(content in prop::collection::vec(any::<u8>(), 0..200), at in any::<prop::sample::Index>(), bit in 0..8u8) {
        let sealed = record::seal("entry 7", &content);
        prop_assert_eq!(record::open("entry 7", &sealed).unwrap(), &content[..]);
        prop_assert!(record::open("entry 8", &sealed).is_err());
        let mut flipped = sealed.clone();
        flipped[at.index(sealed.len())] ^= 1 << bit;
        prop_assert!(record::open("entry 7", &flipped).is_err());
        prop_assert!(record::open("entry 7", &sealed[..at.index(sealed.len())]).is_err());
    }

    /// Applied again, a command changes nothing and gives the same outcome; and a machine survives being a snapshot.
    #[test]
    fn commands_are_applied_once(whats in prop::collection::vec(any_what(), 1..40), again in any::<prop::sample::Index>()) {
        let mut machine = Machine::new(BTreeMap::new());
        let commands: Vec<Command> = whats.into_iter().zip(1..).map(|(what, seq)| Command { id: Id { client: 1, seq }, after: 0, what }).collect();
        let mut outcomes = Vec::new();
        for (command, index) in commands.iter().zip(1..) {
            let before = machine.revision;
            let applied = machine.apply(index, command);
            prop_assert_eq!(applied.events.is_empty(), machine.revision == before);
            prop_assert!(machine.revision <= before + 1);
            outcomes.push(applied.outcome);
        }
        let again = again.index(commands.len());
        let before = machine.clone();
        let repeated = machine.apply(1000, &commands[again]);
        prop_assert!(repeated.events.is_empty() && repeated.touched.is_none());
        let bare = |outcome: &Outcome| match outcome {
            Outcome::Committed(done) => (done.held, done.revision, None),
            other => (false, Revision(0), Some(other.clone())),
        };
        prop_assert_eq!(bare(&repeated.outcome), bare(&outcomes[again]));
        prop_assert_eq!(&machine, &before);
        let copy: Machine = serde_json::from_slice(&serde_json::to_vec(&machine).unwrap()).unwrap();
        prop_assert_eq!(copy, machine);
    }
}

#[test]
fn a_command_that_comes_too_late_changes_nothing() {
    let mut machine = Machine::new(BTreeMap::new());
    let put = Write::Put { key: "/a".to_owned(), value: "1".to_owned(), lease: 0 };
    let what = What::Commit(Txn { then: vec![put], ..Txn::default() });
    let command = Command { id: Id { client: 1, seq: 1 }, after: 5, what };
    assert_eq!(machine.apply(5 + WINDOW + 1, &command).outcome, Outcome::Late);
    assert_eq!(machine.load("").records, []);
    assert!(matches!(machine.apply(6, &command).outcome, Outcome::Committed(_)));
    // For as long as it may be repeated, it is remembered.
    for index in 7..5 + WINDOW {
        let other =
            Command { id: Id { client: 2, seq: index }, after: index - 1, what: What::Touch { lease: 9 } };
        machine.apply(index, &other);
    }
    assert!(machine.apply(5 + WINDOW, &command).events.is_empty());
}

#[test]
fn a_full_store_still_renews_and_deletes() {
    let mut machine = Machine::new(BTreeMap::new());
    let mut index = 0;
    let mut apply = |what: What| {
        index += 1;
        machine.apply(index, &Command { id: Id { client: 1, seq: index }, after: index - 1, what }).outcome
    };
    let put = |number: i32| {
        What::Commit(Txn {
            then: vec![Write::Put { key: format!("/k{number}"), value: "\u{1}".repeat(60_000), lease: 0 }],
            ..Txn::default()
        })
    };
    assert_eq!(apply(What::Grant { lease: 1, ttl: 1000 }), Outcome::Done);
    let stored = (0..100).take_while(|number| matches!(apply(put(*number)), Outcome::Committed(_))).count();
    assert!((5..50).contains(&stored), "{stored} of 360 kB each");
    assert_eq!(apply(put(99)), Outcome::Full);
    assert_eq!(apply(What::Touch { lease: 1 }), Outcome::Done);
    assert!(matches!(
        apply(What::Commit(Txn { then: vec![Write::Delete("/k0".to_owned())], ..Txn::default() })),
        Outcome::Committed(_)
    ));
    assert!(matches!(apply(put(99)), Outcome::Committed(_)));
    assert!(serde_json::to_vec(&machine).unwrap().len() < frame::LONGEST);
}
