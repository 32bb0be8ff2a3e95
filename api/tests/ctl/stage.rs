//! A cluster that exists only in a store: keys as captured from Patroni, and
//! the program run against them.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use etcd_client::Client;

use crate::ground::servers::Server;

pub const CONFIG: &str = r#"{"ttl":30,"loop_wait":1,"retry_timeout":10,"maximum_lag_on_failover":1048576,"postgresql":{"use_pg_rewind":true,"parameters":{"max_connections":50},"pg_hba":["local all all trust","host replication replicator 127.0.0.1/32 md5","host all all 127.0.0.1/32 md5"]}}"#;
pub const NODE1: &str = r#"{"conn_url":"postgres://127.0.0.1:30541/postgres","api_url":"http://127.0.0.1:9/patroni","state":"running","role":"primary","version":"4.1.5","xlog_location":50628288,"timeline":1}"#;
pub const NODE2: &str = r#"{"conn_url":"postgres://127.0.0.1:30542/postgres","api_url":"http://127.0.0.1:9/patroni","state":"running","role":"replica","version":"4.1.5","tags":{"datacenter":"dc1"},"xlog_location":50628288,"replay_lsn":50628288,"receive_lsn":50628288,"replication_state":"streaming","timeline":1}"#;
pub const HISTORY: &str = r#"[[1,50628640,"no recovery target specified","2026-11-20T07:04:18.485455+00:00","node2"],[2,83886352,"no recovery target specified","2026-11-20T07:09:44.905470+00:00","node1"]]"#;

/// What the program did.
#[derive(Debug)]
pub struct Done {
    pub code: i32,
    pub out: String,
    pub err: String,
}

/// A store with the captured cluster `batman`.
pub struct Stage {
    pub server: Server,
    pub client: Client,
    home: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
}

impl Stage {
    pub fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        // A store that elects itself at once.
        let mut server = Server::new("http", &["--heartbeat-interval", "10", "--election-timeout", "100"]);
        server.start();
        let config = crate::ground::etcd(std::slice::from_ref(&server.url));
        let client = runtime.block_on(crate::ground::raw(&config));
        let mut stage = Self { server, client, home: tempfile::tempdir().unwrap(), runtime };
        for (key, value) in [
            ("config", CONFIG),
            ("initialize", "7710145069470500063"),
            ("leader", "node1"),
            ("members/node1", NODE1),
            ("members/node2", NODE2),
            ("status", r#"{"optime":50628288,"slots":{"node2":50628288},"retain_slots":["node1","node2"]}"#),
            ("history", HISTORY),
        ] {
            stage.put(key, value);
        }
        stage.write(
            "ctl.yml",
            &format!("scope: batman\netcd3:\n  host: {}\n", stage.server.url[7..].to_owned()),
        );
        stage
    }

    /// Writes a key of the cluster.
    pub fn put(&mut self, key: &str, value: &str) {
        self.put_path(&format!("/service/batman/{key}"), value);
    }

    /// Writes any key.
    pub fn put_path(&mut self, key: &str, value: &str) {
        self.runtime.block_on(self.client.put(key, value, None)).unwrap();
    }

    pub fn get(&mut self, key: &str) -> Option<String> {
        let key = format!("/service/batman/{key}");
        let answer = self.runtime.block_on(self.client.get(key, None)).unwrap();
        answer.kvs().first().map(|kv| kv.value_str().unwrap().to_owned())
    }

    pub fn delete(&mut self, key: &str) {
        let key = format!("/service/batman/{key}");
        self.runtime.block_on(self.client.delete(key, None)).unwrap();
    }

    /// Every key in the store.
    pub fn keys(&mut self) -> Vec<String> {
        let all = etcd_client::GetOptions::new().with_all_keys().with_keys_only();
        let answer = self.runtime.block_on(self.client.get("", Some(all))).unwrap();
        answer.kvs().iter().map(|kv| kv.key_str().unwrap().to_owned()).collect()
    }

    /// Writes a file and gives its path.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.home.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// The program, with this stage's configuration file, without any variable of ours.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_matriarchctl"));
        command
            .env_clear()
            .env("HOME", self.home.path())
            .env("PATH", "/usr/bin:/bin")
            .env("TZ", "UTC")
            .env("MATRIARCHCTL_CONFIG_FILE", self.home.path().join("ctl.yml"))
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs the program with answers typed in.
    pub fn typed(&self, args: &[&str], answers: &str) -> Done {
        finish(self.command(args), answers)
    }

    pub fn run(&self, args: &[&str]) -> Done {
        self.typed(args, "")
    }

    /// What a run prints that must succeed.
    pub fn shown(&self, args: &[&str]) -> String {
        let done = self.run(args);
        assert_eq!(done.code, 0, "{args:?}: {done:?}");
        done.out
    }

    /// What a run says that must fail and print nothing.
    pub fn refused(&self, args: &[&str]) -> String {
        let done = self.run(args);
        assert_eq!(done.code, 1, "{args:?}: {done:?}");
        done.err
    }
}

pub fn finish(mut command: Command, answers: &str) -> Done {
    let mut child = command.spawn().unwrap();
    // A program that asks nothing may be gone before it is answered.
    let _ = child.stdin.take().unwrap().write_all(answers.as_bytes());
    let output = child.wait_with_output().unwrap();
    Done {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}
