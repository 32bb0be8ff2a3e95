//! The embedded store among strangers: garbage, wrong passwords, wrong certificates, other stores, copies.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

mod ground;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use config::{Address, RaftConfig, Secret, StoreConfig};
use dcs::{Dcs, Embedded, Lsn, Status, StoreError};
use ground::members::{self, Members, keys};

fn status(lsn: u64) -> Status {
    Status { optime: Some(Lsn(lsn)), ..Status::default() }
}

fn pour(address: &Address, bytes: &[u8]) {
    let mut stream = TcpStream::connect((address.host.as_str(), address.port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    // The member ends the connection by itself.
    let mut rest = Vec::new();
    let ended = stream.read_to_end(&mut rest);
    assert!(
        ended.is_ok() || ended.unwrap_err().kind() != std::io::ErrorKind::WouldBlock,
        "the connection stays open"
    );
}

/// Whatever is sent, the store goes on.
#[tokio::test]
async fn garbage_ends_its_connection_only() {
    let members = Members::started(3);
    let dcs = members.dcs(0);
    dcs.write_status(&status(1)).await.unwrap();
    let hello =
        br#"{"matriarch":1,"cluster":0,"member":1,"address":"127.0.0.1:1","sealed":true,"nonce":[1,2,3]}"#;
    let framed = |content: &[u8]| {
        let mut bytes = u32::try_from(content.len()).unwrap().to_be_bytes().to_vec();
        bytes.extend_from_slice(content);
        bytes
    };
    let version = br#"{"matriarch":9,"cluster":0,"member":1,"address":"","sealed":true,"nonce":[]}"#;
    let proof = [framed(hello), framed(&[7; 32])].concat();
    let attempts: [&[u8]; 8] = [
        b"",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        &[0xff; 64],
        &[0; 64],
        &framed(hello),
        &framed(version),
        &proof,
        &u32::to_be_bytes(8 << 20),
    ];
    for bytes in attempts {
        pour(&members.address(0), bytes);
    }
    dcs.write_status(&status(2)).await.unwrap();
}

fn with_password(config: StoreConfig, password: Option<&str>) -> StoreConfig {
    let StoreConfig::Raft(raft) = config else { panic!("no raft") };
    StoreConfig::Raft(RaftConfig { password: password.map(|text| Secret::new(text.to_owned())), ..raft })
}

async fn load(config: StoreConfig) -> Result<(), StoreError> {
    Dcs::connect(&config, keys(), Duration::from_millis(1500)).await?.load().await.map(drop)
}

/// Who does not know the password is told so, member or client.
#[tokio::test]
async fn a_wrong_password_opens_nothing() {
    let mut members = Members::started(1);
    members.dcs(0).write_status(&status(1)).await.unwrap();
    load(members.client()).await.unwrap();
    let wrong = load(with_password(members.client(), Some("another"))).await;
    assert!(matches!(&wrong, Err(StoreError::Auth(why)) if why.contains("raft.password")), "{wrong:?}");
    let none = load(with_password(members.client(), None)).await;
    assert!(
        matches!(&none, Err(StoreError::Auth(why)) if why.contains("and this program has none")),
        "{none:?}"
    );
    // A member with another password stays outside.
    let more = members.add();
    members.configs[more].password = Some(Secret::new("another".to_owned()));
    members.start(more);
    let alone = Dcs::embedded(members.get(more), keys(), Duration::from_millis(700));
    assert!(matches!(alone.load().await, Err(StoreError::Unreachable(_))));
}

/// F93: two stores that were founded apart never mix.
#[tokio::test]
async fn two_stores_never_mix() {
    let (one, mut other) = (Members::started(1), Members::started(1));
    one.dcs(0).write_status(&status(1)).await.unwrap();
    other.dcs(0).write_status(&status(2)).await.unwrap();
    // The other one is told that the first is its partner, and starts again.
    other.crash(0).await;
    other.configs[0].partner_addrs = vec![one.address(0)];
    other.start(0);
    assert_eq!(other.dcs(0).load().await.unwrap().status.optime, Some(Lsn(2)));
    assert_eq!(one.dcs(0).load().await.unwrap().status.optime, Some(Lsn(1)));
    assert_eq!(one.dcs(0).store_members().await.unwrap().len(), 1);
}

/// A copied directory is another's identity: it is refused.
#[tokio::test]
async fn a_copied_directory_is_refused() {
    let mut members = Members::started(3);
    members.dcs(0).write_status(&status(1)).await.unwrap();
    let copy = members.add();
    members.crash(2).await;
    let (from, to) = (&members.configs[2].data_dir, &members.configs[copy].data_dir);
    assert!(std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
    members.start(copy);
    let alone = Dcs::embedded(members.get(copy), keys(), Duration::from_millis(1200));
    assert!(matches!(alone.load().await, Err(StoreError::Unreachable(_))));
    members.crash(copy).await;
    members.start(2);
    assert_eq!(members.dcs(2).load().await.unwrap().status.optime, Some(Lsn(1)));
}

/// With certificates, members and clients show theirs; whoever has none, or one of another authority, stays outside.
#[tokio::test]
async fn certificates_are_checked_both_ways() {
    let mut members = Members::new(3);
    let authority = members::authority();
    for member in 0..3 {
        let host = members.address(member).host;
        let tls = members::tls(members.dir(), &format!("m{member}"), &host, &authority);
        members.configs[member].tls = Some(tls);
        members.configs[member].password = None;
    }
    (0..3).for_each(|member| members.start(member));
    members.dcs(0).write_status(&status(1)).await.unwrap();
    load(members.client()).await.unwrap();
    let StoreConfig::Raft(own) = members.client() else { panic!("no raft") };
    let plain = load(StoreConfig::Raft(RaftConfig { tls: None, ..own.clone() })).await;
    assert!(matches!(plain, Err(StoreError::Unreachable(_))), "{plain:?}");
    let stranger = members::tls(members.dir(), "stranger", "127.0.0.1", &members::authority());
    let tls = Some(config::RaftTls { cacert: own.tls.clone().unwrap().cacert, ..stranger });
    let foreign = load(StoreConfig::Raft(RaftConfig { tls, ..own })).await;
    let told = foreign.as_ref().is_err_and(|error| error.to_string().contains("the certificates do not fit"));
    assert!(told, "{foreign:?}");
}

/// Without password and certificates nobody beyond this machine may reach it.
#[tokio::test]
async fn an_open_store_stays_on_loopback() {
    let mut members = Members::new(1);
    members.configs[0].password = None;
    let mut open = members.configs[0].clone();
    open.bind_addr = Some(Address { host: "0.0.0.0".to_owned(), port: members.address(0).port });
    let refused = Embedded::start(&open).err().unwrap().to_string();
    assert!(refused.contains("raft.password"), "{refused}");
    members.start(0);
    members.dcs(0).write_status(&status(1)).await.unwrap();
}
