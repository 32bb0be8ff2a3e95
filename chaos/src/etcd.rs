//! An etcd cluster of one or three members, and its HTTP gateway for looking at keys.
//!
//! Never writes a key by itself; tests may, through `put` and `delete`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use dcs::Moment;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::http;
use crate::net::{ETCD, Net};
use crate::process::{self, Start};
use crate::store::Key;
use crate::user::RunAs;

/// The members of one etcd cluster.
#[derive(Debug)]
pub struct Etcd {
    program: PathBuf,
    members: Vec<Member>,
    user: RunAs,
}

#[derive(Debug)]
struct Member {
    client: SocketAddr,
    dir: PathBuf,
    args: Vec<String>,
    child: Mutex<Option<Child>>,
}

impl Etcd {
    /// Prepares members `e1`, `e2`, … in directories under `dir`, and starts them.
    ///
    /// # Errors
    /// When a member cannot be started.
    pub fn start(
        program: PathBuf,
        count: u8,
        net: &Net,
        dir: &std::path::Path,
        user: &RunAs,
    ) -> anyhow::Result<Self> {
        let peer = |n: u8| format!("http://{}:{}", net.address(n), ETCD + 1);
        let all: Vec<String> = (1..=count).map(|n| format!("e{n}={}", peer(n))).collect();
        let mut members = Vec::new();
        for n in 1..=count {
            let client = SocketAddr::from((net.address(n), ETCD));
            let own = dir.join(format!("e{n}"));
            std::fs::create_dir(&own)?;
            user.own(&own)?;
            let url = format!("http://{client}");
            let flags = [
                ("--name", format!("e{n}")),
                ("--data-dir", own.join("data").display().to_string()),
                ("--listen-client-urls", url.clone()),
                ("--advertise-client-urls", url),
                ("--listen-peer-urls", peer(n)),
                ("--initial-advertise-peer-urls", peer(n)),
                ("--initial-cluster", all.join(",")),
                ("--initial-cluster-state", "new".to_owned()),
                ("--logger", "zap".to_owned()),
            ];
            let args = flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect();
            members.push(Member { client, dir: own, args, child: Mutex::new(None) });
        }
        let etcd = Self { program, members, user: user.clone() };
        (0..etcd.members.len()).try_for_each(|index| etcd.start_member(index))?;
        Ok(etcd)
    }

    /// Starts a member that is not running.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn start_member(&self, index: usize) -> anyhow::Result<()> {
        let member = self.members.get(index).context("no such etcd member")?;
        let log = member.dir.join("log");
        let start = Start {
            program: &self.program,
            args: &member.args,
            env: &[],
            dir: &member.dir,
            log: &log,
            user: &self.user,
        };
        let child = process::spawn(&start)?;
        *lock(&member.child) = Some(child);
        Ok(())
    }

    /// Sends a signal to every member: STOP freezes the store, CONT lets it go on, KILL ends it.
    pub fn signal(&self, signal: Signal) {
        for index in 0..self.members.len() {
            self.signal_member(index, signal);
        }
    }

    /// Sends a signal to one member; after KILL it can be started again.
    pub fn signal_member(&self, index: usize, signal: Signal) {
        let Some(member) = self.members.get(index) else { return };
        let mut child = lock(&member.child);
        if let Some(running) = child.as_mut() {
            process::signal(i32::try_from(running.id()).unwrap_or_default(), signal);
            if signal == Signal::KILL {
                let _ended = running.wait();
                *child = None;
            }
        }
    }

    /// Copies what the members have on their disks, as a backup. None may run.
    ///
    /// # Errors
    /// When a copy fails.
    pub async fn save(&self) -> anyhow::Result<()> {
        self.each("cp", &["-a", "data", "saved"]).await
    }

    /// Puts that backup back in the place of what is there. None may run.
    ///
    /// # Errors
    /// When there is none.
    pub async fn put_back(&self) -> anyhow::Result<()> {
        self.each("mv", &["data", "newer"]).await?;
        self.each("mv", &["saved", "data"]).await
    }

    /// Runs a program in the directory of each member.
    async fn each(&self, program: &str, args: &[&str]) -> anyhow::Result<()> {
        for member in &self.members {
            let mut command = Command::new(program);
            command.args(args).current_dir(&member.dir);
            process::run(command, Duration::from_secs(30)).await?;
        }
        Ok(())
    }

    /// Waits until the store answers a linearizable read.
    ///
    /// # Errors
    /// When it does not within `limit`; the message shows the end of its log.
    pub async fn wait_ready(&self, limit: Duration) -> anyhow::Result<()> {
        let deadline = Moment::now() + limit;
        loop {
            match self.revision().await {
                Ok(_) => return Ok(()),
                Err(err) if Moment::now() > deadline => {
                    let log = self.members.first().map(|member| member.dir.join("log"));
                    let tail = log.map(|log| crate::node::tail(&log, 10)).unwrap_or_default();
                    return Err(
                        err.context(format!("etcd is not ready after {limit:?}; its log ends with\n{tail}"))
                    );
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// The store's revision: it grows by one with each write.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn revision(&self) -> anyhow::Result<u64> {
        let answer = self.call("kv/range", &json!({"key": BASE64.encode("/"), "count_only": true})).await?;
        number(answer.pointer("/header/revision"))
    }

    /// Every key that starts with `prefix`, in order.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn keys(&self, prefix: &str) -> anyhow::Result<Vec<Key>> {
        let mut end = prefix.as_bytes().to_vec();
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        let range = json!({"key": BASE64.encode(prefix), "range_end": BASE64.encode(end)});
        let answer = self.call("kv/range", &range).await?;
        let none = Vec::new();
        answer.get("kvs").and_then(Value::as_array).unwrap_or(&none).iter().map(key).collect()
    }

    /// Every value that a key had after revision `from`, oldest first; none where it did not exist.
    ///
    /// # Errors
    /// When the store does not answer or has compacted that far.
    pub async fn values_since(&self, name: &str, from: u64) -> anyhow::Result<Vec<Option<Key>>> {
        let mut values = Vec::new();
        for revision in from + 1..=self.revision().await? {
            let range = json!({"key": BASE64.encode(name), "revision": revision.to_string()});
            let answer = self.call("kv/range", &range).await?;
            let found = answer.pointer("/kvs/0").map(key).transpose()?;
            if values.last() != Some(&found) {
                values.push(found);
            }
        }
        Ok(values)
    }

    /// The time to live that a lease was granted with; none if it has ended.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn granted(&self, lease: i64) -> anyhow::Result<Option<Duration>> {
        let answer = self.call("lease/timetolive", &json!({"ID": lease.to_string()})).await?;
        let granted = answer.get("grantedTTL").map(|granted| number(Some(granted)));
        Ok(granted.transpose()?.map(Duration::from_secs))
    }

    /// Writes a key by hand, as an operator or another program would.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn put(&self, name: &str, value: &str) -> anyhow::Result<()> {
        let pair = json!({"key": BASE64.encode(name), "value": BASE64.encode(value)});
        self.call("kv/put", &pair).await.map(|_| ())
    }

    /// Deletes a key by hand.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn delete(&self, name: &str) -> anyhow::Result<()> {
        self.call("kv/deleterange", &json!({"key": BASE64.encode(name)})).await.map(|_| ())
    }

    /// Revokes a lease by hand; every key that hangs on it vanishes.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn revoke(&self, lease: i64) -> anyhow::Result<()> {
        self.call("lease/revoke", &json!({"ID": lease.to_string()})).await.map(|_| ())
    }

    /// Raises the alarm of a full database by hand on the first member, or takes it back: etcd then refuses writes and renews
    /// leases, as when its quota is used up.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn alarm_no_space(&self, raise: bool) -> anyhow::Result<()> {
        let status = self.call("maintenance/status", &json!({})).await?;
        let member = status.pointer("/header/member_id").context("etcd does not name its member")?;
        let action = if raise { "ACTIVATE" } else { "DEACTIVATE" };
        let alarm = json!({"action": action, "memberID": member, "alarm": "NOSPACE"});
        self.call("maintenance/alarm", &alarm).await.map(|_| ())
    }

    async fn call(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        let mut last = anyhow::anyhow!("etcd has no members");
        let (path, body) = (format!("/v3/{path}"), body.to_string());
        for member in &self.members {
            let asked = http::request(member.client, "POST", &path, Some(&body), Duration::from_secs(2));
            match asked.await {
                Ok(answer) if answer.status == 200 => return Ok(answer.json()),
                Ok(answer) => last = anyhow::anyhow!("etcd answered {}: {}", answer.status, answer.body),
                Err(err) => last = err,
            }
        }
        Err(last)
    }
}

/// A lock that a panicking test has poisoned still guards a usable value.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn key(value: &Value) -> anyhow::Result<Key> {
    let text = |field: &str| -> anyhow::Result<String> {
        let encoded = value.get(field).and_then(Value::as_str).unwrap_or_default();
        Ok(String::from_utf8_lossy(&BASE64.decode(encoded)?).into_owned())
    };
    Ok(Key {
        key: text("key")?,
        value: text("value")?,
        modified: number(value.get("mod_revision"))?,
        created: number(value.get("create_revision"))?,
        lease: value.get("lease").and_then(Value::as_str).and_then(|id| id.parse().ok()).unwrap_or_default(),
    })
}

/// The gateway writes 64-bit numbers as text.
fn number(value: Option<&Value>) -> anyhow::Result<u64> {
    match value.and_then(Value::as_str) {
        Some(text) => text.parse().with_context(|| format!("read the number {text:?} of etcd")),
        None => bail!("etcd left a number out"),
    }
}
