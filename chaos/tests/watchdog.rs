//! The kernel's watchdog on real nodes, with a pipe for a device as Patroni's own tests have it: who pings it, for how
//! long, and when it is switched off.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a panic is a failed test, in its helpers too"
)]

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chaos::{Cluster, Node, Spec, until};
use dcs::Moment;
use rustix::process::Signal;
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(60);

/// A pipe that notes when what was written to it, from a thread of its own.
struct Device {
    path: PathBuf,
    noted: Arc<Mutex<Vec<(u8, Moment)>>>,
    end: File,
}

impl Device {
    /// Makes the device of a node and requires it.
    fn of(node: &Node) -> Self {
        let path = node.dir.join("watchdog");
        assert!(Command::new("mkfifo").args(["-m", "666"]).arg(&path).status().unwrap().success());
        // For reading and writing, so that it never ends before this does.
        let end = File::options().read(true).write(true).open(&path).unwrap();
        let noted: Arc<Mutex<Vec<(u8, Moment)>>> = Arc::default();
        let (mut reader, notes) = (end.try_clone().unwrap(), Arc::clone(&noted));
        std::thread::spawn(move || {
            let mut byte = [0];
            while reader.read_exact(&mut byte).is_ok() && byte != *b"X" {
                notes.lock().unwrap().push((byte[0], Moment::now()));
            }
        });
        require(node, &path);
        Self { path, noted, end }
    }

    fn notes(&self) -> Vec<(u8, Moment)> {
        self.noted.lock().unwrap().clone()
    }

    fn text(&self) -> String {
        self.notes().iter().map(|(byte, _)| char::from(*byte)).collect()
    }

    fn forget(&self) {
        self.noted.lock().unwrap().clear();
    }

    async fn wait(&self, cluster: &Cluster, what: &str, is: impl Fn(&str) -> bool) {
        let seen = until(PATIENCE, what, async || Ok(is(&self.text()).then_some(())));
        cluster.explain(seen.await).unwrap_or_else(|error| panic!("{:?}: {error:#}", self.text()));
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let _ = std::io::Write::write_all(&mut self.end, b"X");
        let _ = std::fs::remove_file(&self.path);
    }
}

fn require(node: &Node, device: &std::path::Path) {
    node.edit(&json!({"watchdog": {"mode": "required", "driver": "testing", "device": device}})).unwrap();
}

async fn metric(node: &Node, name: &str) -> f64 {
    let page = node.get("/metrics").await.unwrap().body;
    let line =
        page.lines().find(|line| line.starts_with(&format!("{name}{{"))).unwrap_or_else(|| panic!("{page}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// P214: the leader's is opened with a timeout within the lease and pinged, nobody else's; closed in pause and on an orderly
/// stop, opened again afterwards. F37: with daemon and fencer frozen nobody pings, and it fires before anybody else leads.
#[tokio::test]
async fn only_a_leader_that_holds_its_lease_pings() {
    let cluster = Cluster::in_slot(Spec::tested(3)).await.unwrap();
    let devices: Vec<Device> = cluster.nodes.iter().map(Device::of).collect();
    cluster.nodes.iter().try_for_each(Node::start).unwrap();
    let leader = cluster.wait_healthy(PATIENCE).await.unwrap();
    let of = |node: &Node| devices.iter().find(|device| device.path.starts_with(&node.dir)).unwrap();
    let device = of(leader);
    device.wait(&cluster, "pings", |text| text.ends_with("111")).await;
    let ttl = cluster.ttl().as_secs();
    assert!(device.text().contains(&format!("Ctimeout={}\n", ttl / 2)), "{}", device.text());
    let log = leader.log();
    let activated = format!("activated with {} second timeout, timing slack", ttl / 2);
    assert!(log.contains(&activated), "{log}");
    let timeout = Duration::from_secs_f64(metric(leader, "matriarch_watchdog_timeout_seconds").await);
    assert_eq!(timeout, Duration::from_secs(ttl / 2));
    for other in cluster.others(leader) {
        assert_eq!(of(other).text(), "", "{} does not lead", other.name);
    }

    cluster.patch_config(&json!({"pause": true})).await.unwrap();
    device.wait(&cluster, "the end of the watch in pause", |text| text.ends_with('V')).await;
    device.forget();
    cluster.patch_config(&json!({"pause": null})).await.unwrap();
    device.wait(&cluster, "pings after pause", |text| text.ends_with("111")).await;

    // An orderly stop: switched off, by nobody but a fencer that saw the end of the server.
    assert_eq!(leader.stop(PATIENCE).await.unwrap(), Some(0));
    device.wait(&cluster, "the end of the watch", |text| text.ends_with('V')).await;
    let next = cluster.wait_leader(&[&leader.name], PATIENCE).await.unwrap();
    leader.start().unwrap();
    cluster.wait_streaming(leader, next, PATIENCE).await.unwrap();

    let device = of(next);
    device.wait(&cluster, "pings of the next leader", |text| text.ends_with("111")).await;
    next.signal(Signal::STOP);
    let fencer = next.fencer().unwrap();
    chaos::process::signal(fencer, Signal::STOP);
    let successor = until(PATIENCE, "a successor", async || {
        for node in cluster.others(next) {
            if node.code("/primary").await == 200 {
                return Ok(Some(Moment::now()));
            }
        }
        Ok(None)
    });
    let led = cluster.explain(successor.await).unwrap();
    let notes = device.notes();
    let (last, at) = *notes.last().unwrap();
    assert_eq!(last, b'1', "not switched off: {}", device.text());
    println!("it would have fired {:?} before the next leader", led.since(at + timeout));
    assert!(at + timeout < led, "the host would have been reset {:?} too late", (at + timeout).since(led));
    chaos::process::signal(fencer, Signal::CONT);
    next.signal(Signal::CONT);
    device.wait(&cluster, "the end of the watch", |text| text.ends_with('V')).await;
    cluster.wait_healthy(PATIENCE).await.unwrap();
}

/// P213: without its device a node never leads, and everybody is told why; one whose device is there does.
#[tokio::test]
async fn a_node_without_the_watchdog_it_requires_does_not_lead() {
    let cluster = Cluster::in_slot(Spec::tested(3)).await.unwrap();
    let [barred, rest @ ..] = &cluster.nodes[..] else { panic!("three nodes") };
    let missing = barred.dir.join("missing");
    require(barred, &missing);
    let _devices: Vec<Device> = rest.iter().map(Device::of).collect();
    cluster.nodes.iter().try_for_each(Node::start).unwrap();
    let leader = cluster.wait_healthy(PATIENCE).await.unwrap();
    assert_ne!(leader.name, barred.name);
    let told = barred.get("/patroni").await.unwrap().json();
    assert_eq!(told["watchdog_failed"], true, "{told}");
    let why = format!("watchdog.mode is required, and {} cannot be used: No such file", missing.display());
    assert!(barred.log().contains(&why), "{}", barred.log());
    let other = cluster.others(leader).into_iter().find(|node| node.name != barred.name).unwrap();
    // A switchover to it is refused.
    let asked = json!({"leader": leader.name, "candidate": barred.name});
    assert_eq!(leader.send("POST", "/switchover", &asked).await.unwrap().status, 412);
    leader.kill();
    let next = cluster.wait_leader(&[&leader.name], PATIENCE).await.unwrap();
    assert_eq!(next.name, other.name);

    // Its device appears: it may lead at once.
    let device = Device::of(barred);
    barred.signal(Signal::HUP);
    let allowed = until(PATIENCE, "the end of the complaint", async || {
        Ok(barred.get("/patroni").await?.json().get("watchdog_failed").is_none().then_some(()))
    });
    cluster.explain(allowed.await).unwrap();
    leader.start().unwrap();
    cluster.wait_healthy(PATIENCE).await.unwrap();
    let asked = json!({"leader": next.name, "candidate": barred.name});
    let handed = leader.send("POST", "/switchover", &asked).await.unwrap();
    assert_eq!(handed.status, 200, "{}", cluster.report());
    device.wait(&cluster, "pings of the new leader", |text| text.ends_with("111")).await;
}
