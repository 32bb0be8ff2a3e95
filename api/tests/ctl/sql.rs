//! `query` against a real Postgres.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use dcs::Moment;

use crate::stage::{NODE1, NODE2, Stage};

/// A Postgres of this test's own, gone with it however it ends.
struct Postgres {
    port: u16,
    process: Child,
    dir: tempfile::TempDir,
}

/// The newest Postgres of this machine.
fn programs() -> PathBuf {
    let versions =
        std::fs::read_dir("/usr/lib/postgresql").map(|found| found.map(|entry| entry.unwrap().path()));
    let found = versions.into_iter().flatten().map(|path| path.join("bin"));
    let newest = found.filter(|bin| bin.join("postgres").exists()).max();
    newest.expect("these tests need Postgres: apt-get install postgresql")
}

/// A command that runs as an ordinary user (Postgres refuses root) and dies with its test.
fn ordinary(dir: &tempfile::TempDir) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).stdin(Stdio::null()).stdout(Stdio::null()).current_dir("/");
    if is_root() {
        assert!(Command::new("chown").args(["-R", "postgres"]).arg(dir.path()).status().unwrap().success());
        command.args(["--reuid", "postgres", "--regid", "postgres", "--clear-groups"]);
    }
    command.arg("--");
    command
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

impl Postgres {
    fn start() -> Self {
        let (dir, bin) = (tempfile::tempdir().unwrap(), programs());
        let data = dir.path().join("data");
        let made = ordinary(&dir)
            .arg(bin.join("initdb"))
            .args(["-A", "trust", "-U", "postgres", "--no-sync", "-D"])
            .arg(&data)
            .status()
            .unwrap();
        assert!(made.success(), "initdb failed");
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let process = ordinary(&dir)
            .arg(bin.join("postgres"))
            .args(["-F", "-h", "127.0.0.1", "-p", &port.to_string(), "-k"])
            .arg(dir.path())
            .arg("-D")
            .arg(&data)
            .stderr(std::fs::File::create(dir.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        Self { port, process, dir }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default());
        }
        // SIGQUIT also ends the postmaster's children.
        let pid = self.process.id().to_string();
        let _ = Command::new("kill").args(["-QUIT", &pid]).status();
        let _ = self.process.wait();
    }
}

/// P173: rows by role and by member in every format, errors as errors.
#[test]
fn query_finds_its_member_and_shows_rows() {
    let mut stage = Stage::new();
    let postgres = Postgres::start();
    for (key, value) in [("members/node1", NODE1), ("members/node2", NODE2)] {
        let at = |port: &str| value.replace(port, &postgres.port.to_string());
        stage.put(key, &if key.ends_with('1') { at("30541") } else { at("30542") });
    }
    let query = |stage: &Stage, more: &[&str], sql: &str| {
        let args = [&["query", "-U", "postgres", "-d", "postgres", "-c", sql], more].concat();
        stage.run(&args)
    };
    let end = Moment::now() + Duration::from_secs(30);
    loop {
        let done = query(&stage, &[], "SELECT 1");
        if done.code == 0 {
            break;
        }
        assert!(Moment::now() < end, "{done:?}");
    }

    let sql = "SELECT 1 AS a, 'x' AS b, true AS c, NULL AS d, 1.5::float8 AS e";
    for (format, expected) in [
        ("tsv", "a\tb\tc\td\te\n1\tx\tTrue\tNone\t1.5\n"),
        ("json", "[{\"a\": 1, \"b\": \"x\", \"c\": true, \"d\": null, \"e\": 1.5}]\n"),
        ("yaml", "- a: 1\n  b: x\n  c: true\n  d: null\n  e: 1.5\n\n"),
        (
            "pretty",
            "+---+---+------+------+-----+\n| a | b | c    | d    | e   |\n+---+---+------+------+-----+\n\
             | 1 | x | True | None | 1.5 |\n+---+---+------+------+-----+\n",
        ),
    ] {
        let done = query(&stage, &["--format", format], sql);
        assert_eq!((done.code, done.out.as_str()), (0, expected), "{format}: {done:?}");
    }
    assert_eq!(query(&stage, &["-m", "node2", "--delimiter", ";"], "SELECT 1 a, 2 b").out, "a;b\n1;2\n");
    assert_eq!(
        query(&stage, &["-r", "primary"], "SELECT pg_is_in_recovery()").out,
        "pg_is_in_recovery\nFalse\n"
    );

    let script =
        stage.write("script.sql", "CREATE TABLE t (n int);\nINSERT INTO t VALUES (7);\nSELECT n FROM t;\n");
    let done = stage.run(&["query", "-U", "postgres", "-d", "postgres", "-f", script.to_str().unwrap()]);
    assert_eq!((done.code, done.out.as_str()), (0, "n\n7\n"), "{done:?}");
    assert_eq!(query(&stage, &[], "DELETE FROM t").out, "");

    for (more, sql, reason) in [
        (&["-r", "replica"][..], "SELECT 1", "node2 is no standby any more"),
        (&["-m", "node9"], "SELECT 1", "its members are node1, node2"),
        (&[], "SELECT * FROM nowhere", "relation \"nowhere\" does not exist (SQLSTATE 42P01)"),
        (&["-U", "stranger"], "SELECT 1", "role \"stranger\" does not exist"),
    ] {
        let base: &[&str] = if more.contains(&"-U") { &["query"] } else { &["query", "-U", "postgres"] };
        let done = stage.run(&[base, &["-d", "postgres", "-c", sql], more].concat());
        assert_eq!((done.code, done.out.as_str()), (1, ""), "{done:?}");
        assert!(done.err.contains(reason), "{done:?}");
    }
    assert_eq!(stage.run(&["query"]).code, 2);
}
