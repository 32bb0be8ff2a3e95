//! Real etcd servers for a test: started on addresses of their own, stopped,
//! frozen and started again, and gone with the test however it ends.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use config::StoreConfig;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// One etcd server.
pub struct Server {
    pub url: String,
    pub port: u16,
    host: String,
    args: Vec<String>,
    dir: tempfile::TempDir,
    process: Option<Child>,
}

/// A loopback address that no other test of any process is likely to use.
pub fn address() -> String {
    let count = NEXT.fetch_add(1, Ordering::Relaxed);
    let pid = std::process::id();
    format!("127.{}.{}.{}", 64 + (pid >> 8) % 128, pid % 256, 2 + count % 250)
}

/// Two free ports, taken together so that they differ.
fn free_ports(host: &str) -> (u16, u16) {
    let taken = || TcpListener::bind((host, 0)).unwrap();
    let (one, other) = (taken(), taken());
    (one.local_addr().unwrap().port(), other.local_addr().unwrap().port())
}

impl Server {
    /// A server that is not started yet. `scheme` is for clients.
    pub fn new(scheme: &str, extra: &[&str]) -> Self {
        let host = address();
        let (client, peer) = free_ports(&host);
        let url = format!("{scheme}://{host}:{client}");
        let peer = format!("http://{host}:{peer}");
        let name = format!("s{client}");
        let mut args: Vec<String> = [
            "--name",
            &name,
            "--listen-client-urls",
            &url,
            "--advertise-client-urls",
            &url,
            "--listen-peer-urls",
            &peer,
            "--initial-advertise-peer-urls",
            &peer,
            "--initial-cluster",
            &format!("{name}={peer}"),
            "--log-level",
            "error",
        ]
        .iter()
        .map(|arg| (*arg).to_owned())
        .collect();
        args.extend(extra.iter().map(|arg| (*arg).to_owned()));
        Self { url, port: client, host, args, dir: tempfile::tempdir().unwrap(), process: None }
    }

    /// `count` servers of one cluster, not started yet.
    pub fn cluster(count: usize) -> Vec<Self> {
        let mut servers: Vec<Self> = (0..count).map(|_| Self::new("http", &[])).collect();
        let members: Vec<String> = servers.iter().map(|server| server.after("--initial-cluster")).collect();
        for server in &mut servers {
            let at = server.args.iter().position(|arg| arg == "--initial-cluster").unwrap();
            server.args[at + 1] = members.join(",");
        }
        servers
    }

    fn after(&self, option: &str) -> String {
        let at = self.args.iter().position(|arg| arg == option).unwrap();
        self.args[at + 1].clone()
    }

    /// Files of this test.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn host(&self) -> &str {
        &self.host
    }

    pub fn add_args(&mut self, args: &[&str]) {
        self.args.extend(args.iter().map(|arg| (*arg).to_owned()));
    }

    pub fn start(&mut self) {
        let etcd =
            ["/usr/bin/etcd", "/usr/local/bin/etcd"].into_iter().find(|path| PathBuf::from(path).exists());
        let etcd = etcd.expect("these tests need etcd: apt-get install etcd-server");
        let log = std::fs::File::options().create(true).append(true).open(self.path("log")).unwrap();
        // The server dies with the thread of its test, even if the test is killed.
        let process = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--", etcd, "--data-dir"])
            .arg(self.path("data"))
            .args(&self.args)
            .env("ETCD_UNSUPPORTED_ARCH", std::env::consts::ARCH.replace("aarch64", "arm64"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        self.process = Some(process.expect("these tests need setpriv: apt-get install util-linux"));
    }

    /// Kills the server; its data stays.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Kills the server and forgets its data.
    pub fn destroy(&mut self) {
        self.kill();
        let gone = self.path(&format!("gone{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        assert!(Command::new("mv").arg(self.path("data")).arg(gone).status().unwrap().success());
    }

    /// Stops the server's time, or lets it go on.
    pub fn freeze(&self, frozen: bool) {
        let pid = self.process.as_ref().unwrap().id().to_string();
        let signal = if frozen { "-STOP" } else { "-CONT" };
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the log of etcd at {}:\n{}", self.url, self.log());
        }
        self.kill();
    }
}

/// One started server and its settings.
pub fn one() -> (Server, StoreConfig) {
    let mut server = Server::new("http", &[]);
    server.start();
    let config = super::etcd(std::slice::from_ref(&server.url));
    (server, config)
}
