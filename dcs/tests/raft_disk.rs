//! The embedded store in processes of its own: killed without warning, with a full disk, with a damaged file.
//! This program is also the member: it starts itself again for each one.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

mod ground;

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use config::{Address, RaftConfig, Secret};
use dcs::{Dcs, Embedded, Lsn, Moment, Status, StoreError};
use ground::members::{Members, keys};

const MEMBER: &str = "MATRIARCH_TEST_MEMBER";

/// A member in a process of its own; it dies with this thread.
struct Process {
    child: Option<Child>,
    log: std::path::PathBuf,
}

impl Process {
    /// `blocks`: the largest file that it may write, in units of 1 kB.
    fn start(config: &RaftConfig, blocks: Option<u32>) -> Self {
        let partners: Vec<String> = config.partner_addrs.iter().map(ToString::to_string).collect();
        let own = config.self_addr.as_ref().unwrap().to_string();
        let dir = config.data_dir.to_str().unwrap();
        let limit = blocks.map_or(String::new(), |blocks| format!("trap '' XFSZ; ulimit -f {blocks}; "));
        let log = config.data_dir.with_extension("log");
        let out = std::fs::File::options().create(true).append(true).open(&log).unwrap();
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--", "bash", "-c", &format!("{limit}exec \"$0\" \"$@\"")])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "this_program_is_a_member_when_told_so", "--nocapture"])
            .env(MEMBER, format!("{own};{};{dir}", partners.join(",")))
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .spawn();
        Self { child: Some(child.expect("these tests need setpriv: apt-get install util-linux")), log }
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            child.wait().unwrap();
        }
    }

    /// Waits until the process has ended by itself.
    async fn ends(&mut self) {
        let end = Moment::now() + Duration::from_secs(20);
        while self.child.as_mut().unwrap().try_wait().unwrap().is_none() {
            assert!(Moment::now() < end, "the process goes on: {}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The member's side: without the variable there is nothing to be.
#[tokio::test]
async fn this_program_is_a_member_when_told_so() {
    let Ok(told) = std::env::var(MEMBER) else { return };
    let parts: Vec<&str> = told.split(';').collect();
    let address = |text: &str| Address::parse(text).unwrap();
    let config = RaftConfig {
        self_addr: Some(address(parts[0])),
        bind_addr: None,
        partner_addrs: parts[1].split(',').filter(|text| !text.is_empty()).map(address).collect(),
        data_dir: parts[2].into(),
        password: Some(Secret::new("a secret of the members".to_owned())),
        tls: None,
        min_timeout: Duration::from_millis(300),
        max_timeout: Duration::from_millis(600),
    };
    match Embedded::start(&config) {
        Ok(member) => eprintln!("ended: {}", member.ended().await),
        Err(error) => eprintln!("refused: {error}"),
    }
}

async fn client(members: &Members) -> Dcs {
    Dcs::connect(&members.client(), keys(), Duration::from_secs(10)).await.unwrap()
}

fn status(lsn: u64) -> Status {
    Status { optime: Some(Lsn(lsn)), ..Status::default() }
}

/// kill -9, again and again, of members and of all at once: what was confirmed is there.
#[tokio::test]
async fn killed_processes_lose_nothing() {
    let members = Members::new(3);
    let start = |member: usize| Process::start(&members.configs[member], None);
    let mut processes: Vec<Process> = (0..3).map(start).collect();
    let dcs = client(&members).await;
    let mut confirmed = 0;
    let mut lsn = 0;
    for round in 0..9usize {
        for _ in 0..15 {
            lsn += 1;
            match dcs.write_status(&status(lsn)).await {
                Ok(()) => confirmed = lsn,
                Err(StoreError::Unknown(_)) => {}
                Err(error) => panic!("{error}; the members say:\n{}", processes[0].log()),
            }
        }
        if round % 3 == 2 {
            // In the middle of writing, as far as that can be arranged from here.
            let last = status(lsn);
            let writing = dcs.write_status(&last);
            let _ = tokio::time::timeout(Duration::from_millis(2), writing).await;
            processes.iter_mut().for_each(Process::kill);
            (0..3).for_each(|member| processes[member] = start(member));
        } else {
            processes[round % 3].kill();
            processes[round % 3] = start(round % 3);
        }
        let seen = dcs.load().await.unwrap().status.optime.unwrap().0;
        assert!(seen >= confirmed && seen <= lsn, "{seen} is there, {confirmed} of {lsn} was confirmed");
    }
}

/// A full disk ends the member with a message, and nothing that it had confirmed is lost.
#[tokio::test]
async fn a_full_disk_ends_the_member() {
    let members = Members::new(1);
    let mut process = Process::start(&members.configs[0], Some(2048));
    let dcs = client(&members).await;
    let mut confirmed = 0;
    let big = "x".repeat(60_000);
    let end = Moment::now() + Duration::from_secs(30);
    for lsn in 1.. {
        let config = serde_json::json!({ "lsn": lsn, "ballast": big });
        match dcs.put_config(&config).await {
            Ok(()) => confirmed = lsn,
            Err(_) => break,
        }
        assert!(Moment::now() < end, "the disk is never full");
    }
    assert!(confirmed > 0);
    process.ends().await;
    let log = process.log();
    assert!(log.contains("cannot be written") && log.contains("check the disk"), "{log}");
    process.kill();
    // With room again, everything confirmed is there.
    let _process = Process::start(&members.configs[0], None);
    let found = dcs.load().await.unwrap().config.unwrap().value;
    let found = found["lsn"].as_u64().unwrap();
    assert!(found == confirmed || found == confirmed + 1, "{found} after {confirmed}");
}

/// A member whose file is damaged, in use or out of place refuses to start and says what to do.
#[tokio::test]
async fn a_member_refuses_what_it_cannot_trust() {
    let mut members = Members::started(1);
    members.dcs(0).write_status(&status(1)).await.unwrap();
    let refused = |config: &RaftConfig| match Embedded::start(config) {
        Ok(_) => panic!("it started"),
        Err(error) => error.to_string(),
    };
    let twice = RaftConfig { self_addr: Some(ground::members::address()), ..members.configs[0].clone() };
    assert!(refused(&twice).contains("in use by another process"), "{}", refused(&twice));
    members.crash(0).await;
    let file = members.file(0);
    let whole = std::fs::read(&file).unwrap();
    let at = whole.windows(8).rposition(|bytes| bytes == b"/service").unwrap();
    let mut damaged = whole.clone();
    damaged[at] ^= 1;
    std::fs::write(&file, &damaged).unwrap();
    let why = refused(&members.configs[0]);
    assert!(why.contains("is damaged") && why.contains("move the directory away"), "{why}");
    std::fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    assert!(refused(&members.configs[0]).contains("is damaged"));
    std::fs::write(&file, b"").unwrap();
    assert!(refused(&members.configs[0]).contains("is damaged"));
    std::fs::write(&file, &whole).unwrap();
    members.start(0);
    assert_eq!(members.dcs(0).load().await.unwrap().status.optime, Some(Lsn(1)));

    let nowhere = RaftConfig {
        data_dir: "/proc/matriarch".into(),
        self_addr: Some(ground::members::address()),
        ..members.configs[0].clone()
    };
    assert!(refused(&nowhere).contains("/proc/matriarch"));
}
