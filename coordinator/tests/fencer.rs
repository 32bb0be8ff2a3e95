//! The fencer itself, against a tree of processes that looks like an instance: it kills at the deadline and not
//! before, takes later deadlines, refuses older ones, and outlives the daemon.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a panic is a failed test")]

#[path = "../fencing/mod.rs"]
#[allow(dead_code, reason = "the programs use the rest")]
mod fencing;

use std::fs;
use std::io::{BufRead, BufReader};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use dcs::{Epoch, Moment};
use fencing::deadline::{Deadline, Now};
use fencing::record::Fired;
use fencing::scan::Home;
use fencing::words::{LARGEST, Order, Report, Watch, Wish};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType, connect, recv, send, sendmsg, socket_with, socketpair,
};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

const FENCER: &str = env!("CARGO_BIN_EXE_matriarch-fencer");
/// Far more than a busy machine needs.
const LONG: Duration = Duration::from_secs(20);

/// A "server": a shell under another name with two children in sessions of their own and a grandchild.
struct Dummy {
    root: Child,
    dir: PathBuf,
}

impl Dummy {
    fn start(dir: &Path) -> Self {
        let (bin, data) = (dir.join("postgres"), dir.join("data"));
        fs::create_dir(&data).unwrap();
        // By another process: one of this one's that is being started would hold the file open for writing.
        assert!(Command::new("cp").args(["/bin/sh".as_ref(), bin.as_path()]).status().unwrap().success());
        let script = "setsid /bin/sh -c '/bin/sleep 1000 & wait' & setsid /bin/sleep 1000 & echo up; wait";
        let mut root = Command::new(&bin)
            .args(["-c", script])
            .current_dir(&data)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(root.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let dummy = Self { root, dir: data };
        wait("all four of them", || dummy.alive().len() == 4);
        dummy
    }

    fn home(&self) -> Home {
        Home::of(&self.dir, "postgres")
    }

    /// Whatever works in its directory.
    fn alive(&self) -> Vec<u32> {
        let pids = fs::read_dir("/proc").unwrap().flatten();
        let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let dir = self.dir.canonicalize().unwrap();
        let here = |pid: &u32| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == dir);
        pids.filter(here).collect()
    }
}

impl Drop for Dummy {
    fn drop(&mut self) {
        for pid in self.alive() {
            let _ = kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::KILL);
        }
        let _ = self.root.wait();
    }
}

/// A fencer and the daemon's end of its socket.
struct Fencer {
    child: Child,
    socket: OwnedFd,
    folder: PathBuf,
    number: u64,
}

impl Fencer {
    fn start(dir: &Path) -> Self {
        let folder = dir.join("fence");
        fs::create_dir(&folder).unwrap();
        let pair =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        let child = Command::new(FENCER).current_dir(&folder).stdin(pair.1).spawn().unwrap();
        let fencer = Self { child, socket: pair.0, folder, number: 0 };
        assert_eq!(fencer.hear().unwrap().pid, fencer.child.id());
        fencer
    }

    fn say(&self, order: &Order) {
        send(&self.socket, &order.encode(), SendFlags::NOSIGNAL).unwrap();
    }

    fn extend(&mut self, deadline: Deadline) {
        self.number += 1;
        self.say(&Order::Extend { number: self.number, deadline });
    }

    /// Arms it and waits until it says so.
    fn arm(&mut self, dummy: &Dummy, deadline: Deadline) -> Report {
        self.number += 1;
        let number = self.number;
        self.say(&Order::Arm { number, deadline, home: dummy.home() });
        self.hear_until(|report| report.number == number)
    }

    /// The next report; nothing if it has ended.
    fn hear(&self) -> Option<Report> {
        hear(&self.socket)
    }

    fn hear_until(&self, enough: impl Fn(&Report) -> bool) -> Report {
        loop {
            let report = self.hear().unwrap();
            if enough(&report) {
                return report;
            }
        }
    }

    fn fired(&self) -> Option<Fired> {
        serde_json::from_slice(&fs::read(self.folder.join("fired")).ok()?).ok()
    }
}

impl Drop for Fencer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn hear(socket: &OwnedFd) -> Option<Report> {
    let limit = Timespec { tv_sec: LONG.as_secs().cast_signed(), tv_nsec: 0 };
    let ready = poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&limit)).unwrap();
    assert!(ready > 0, "it says nothing");
    let mut buffer = [0; LARGEST];
    match recv(socket, &mut buffer, RecvFlags::empty()) {
        Ok((0, _)) | Err(_) => None,
        Ok((said, _)) => Some(Report::decode(&buffer[..said]).unwrap()),
    }
}

fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let end = Moment::now() + LONG;
    while !done() {
        assert!(Moment::now() < end, "waited in vain for {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

fn within(epoch: i64, span: Duration) -> Deadline {
    Deadline { epoch: Epoch(epoch), ..Deadline::grace(span, Now::read()) }
}

/// The whole tree is gone soon after the deadline and was there until then; the record tells.
#[test]
fn the_deadline_kills_everything_in_time_and_not_before() {
    let dir = tempfile::tempdir().unwrap();
    let (dummy, mut fencer) = (Dummy::start(dir.path()), Fencer::start(dir.path()));
    let deadline = within(7, Duration::from_millis(700));
    let report = fencer.arm(&dummy, deadline);
    assert!(report.armed && report.epoch == Epoch(7) && report.until == deadline.boot);
    let mut last = Moment::now();
    wait("the end of the tree", || {
        let now = Moment::now();
        let four = dummy.alive().len() == 4;
        last = if four { now } else { last };
        !four
    });
    let told = fencer.hear_until(|report| report.kills == 1);
    assert!(!told.armed && dummy.alive().is_empty());
    println!("signalled after {:?}, gone after {:?}", nanos(told.signalled), nanos(told.gone));
    println!("woke at most {:?} late", nanos(told.woke_worst));
    assert!(last + Duration::from_millis(50) > deadline.boot, "before the deadline nothing is touched");
    assert!(nanos(told.signalled) <= nanos(told.gone) && nanos(told.gone) < Duration::from_secs(2));
    wait("the record", || fencer.fired().is_some());
    let fired = fencer.fired().unwrap();
    assert!(fired.epoch == 7 && fired.processes >= 4 && fired.daemon, "{fired:?}");
}

fn nanos(nanos: u64) -> Duration {
    Duration::from_nanos(nanos)
}

#[test]
fn later_deadlines_are_taken_and_older_ones_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (dummy, mut fencer) = (Dummy::start(dir.path()), Fencer::start(dir.path()));
    let first = within(7, Duration::from_millis(600));
    fencer.arm(&dummy, first);
    let later = within(7, Duration::from_secs(60));
    fencer.extend(later);
    fencer.extend(within(7, Duration::from_millis(100)));
    fencer.extend(within(6, Duration::from_secs(90)));
    wait("the first deadline", || Moment::now() > first.boot + Duration::from_millis(700));
    assert_eq!(dummy.alive().len(), 4, "the later deadline is in force");
    assert_eq!(fencer.arm(&dummy, within(0, Duration::from_secs(900))).until, later.boot);
    // A later reign counts, whatever its deadline.
    fencer.extend(within(8, Duration::from_millis(200)));
    fencer.hear_until(|report| report.kills == 1);
    assert!(dummy.alive().is_empty());
}

/// Before the key moves under a shorter lease, and whatever reign the daemon knows of.
#[test]
fn a_bound_brings_the_deadline_forward_and_never_back() {
    let dir = tempfile::tempdir().unwrap();
    let (dummy, mut fencer) = (Dummy::start(dir.path()), Fencer::start(dir.path()));
    fencer.arm(&dummy, within(7, Duration::from_secs(60)));
    let bound = within(0, Duration::from_secs(30));
    fencer.say(&Order::Bound { number: 2, deadline: bound });
    let report = fencer.hear_until(|report| report.number == 2);
    assert_eq!((report.until, report.epoch), (bound.boot, Epoch(7)));
    fencer.say(&Order::Bound { number: 3, deadline: within(9, Duration::from_secs(90)) });
    assert_eq!(fencer.hear_until(|report| report.number == 3).until, bound.boot);
    fencer.say(&Order::Bound { number: 4, deadline: within(0, Duration::from_millis(100)) });
    fencer.hear_until(|report| report.kills == 1);
    assert!(dummy.alive().is_empty());
}

/// A host whose first clock runs slow: the second one ends it.
#[test]
fn the_clock_that_nobody_slews_ends_it_too() {
    let dir = tempfile::tempdir().unwrap();
    let (dummy, mut fencer) = (Dummy::start(dir.path()), Fencer::start(dir.path()));
    let (soon, far) = (within(7, Duration::from_millis(400)), within(7, Duration::from_secs(60)));
    fencer.arm(&dummy, Deadline { boot: far.boot, ..soon });
    fencer.hear_until(|report| report.kills == 1);
    assert!(Now::read().raw >= soon.raw && dummy.alive().is_empty());
}

#[test]
fn disarmed_it_kills_nobody_and_ends_with_the_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let (dummy, mut fencer) = (Dummy::start(dir.path()), Fencer::start(dir.path()));
    let deadline = within(7, Duration::from_millis(600));
    fencer.arm(&dummy, deadline);
    fencer.say(&Order::Disarm { number: 9 });
    assert!(!fencer.hear_until(|report| report.number == 9).armed);
    // Not armed, it takes no deadline.
    fencer.extend(within(8, Duration::ZERO));
    wait("the deadline", || Moment::now() > deadline.boot + Duration::from_millis(300));
    assert_eq!(dummy.alive().len(), 4);
    drop(std::mem::replace(&mut fencer.socket, null()));
    assert!(fencer.child.wait().unwrap().success());
    assert_eq!(dummy.alive().len(), 4);
}

fn null() -> OwnedFd {
    fs::File::open("/dev/null").unwrap().into()
}

/// The daemon ends: the deadline stays, nobody with a wrong nonce is let in, and then it fires and ends.
#[test]
fn without_a_daemon_the_last_deadline_stands() {
    let dir = tempfile::tempdir().unwrap();
    let (dummy, mut fencer) = (Dummy::start(dir.path()), Fencer::start(dir.path()));
    fencer.arm(&dummy, within(7, Duration::from_secs(2)));
    drop(std::mem::replace(&mut fencer.socket, null()));
    let stranger = knock(&fencer.folder);
    send(&stranger, &Order::Claim([0; 16]).encode(), SendFlags::NOSIGNAL).unwrap();
    assert_eq!(hear(&stranger), None, "a wrong nonce ends the conversation");
    assert_eq!(dummy.alive().len(), 4);
    assert!(fencer.child.wait().unwrap().success());
    assert!(dummy.alive().is_empty());
    assert!(!fencer.fired().unwrap().daemon);
}

fn knock(folder: &Path) -> OwnedFd {
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    let open = fs::File::open(folder).unwrap();
    let path = format!("/proc/self/fd/{}/socket", open.as_raw_fd());
    connect(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
    socket
}

/// Exactly one successor: it finds the old deadline in force and can extend it; a nonce serves once, and while it is
/// connected nobody else is heard.
#[test]
fn one_successor_takes_over() {
    let dir = tempfile::tempdir().unwrap();
    let (dummy, mut fencer) = (Dummy::start(dir.path()), Fencer::start(dir.path()));
    let old = within(7, Duration::from_secs(15));
    fencer.arm(&dummy, old);
    let nonce: [u8; 16] = fs::read(fencer.folder.join("nonce")).unwrap().try_into().unwrap();
    let early = knock(&fencer.folder);
    send(&early, &Order::Claim([0; 16]).encode(), SendFlags::NOSIGNAL).unwrap();
    fencer.extend(old);
    fencer.hear().unwrap();
    assert!(recv(&early, &mut [0; 64], RecvFlags::DONTWAIT).is_err(), "the daemon is still there");
    drop(early);
    fencer.socket = knock(&fencer.folder);
    fencer.say(&Order::Claim(nonce));
    let report = fencer.hear().unwrap();
    assert!(report.armed && report.number == 0, "{report:?}");
    assert_eq!((report.epoch, report.until), (Epoch(7), old.boot), "the old deadline stands");
    assert_ne!(fs::read(fencer.folder.join("nonce")).unwrap(), nonce, "it serves once");
    fencer.extend(within(7, Duration::from_millis(16_000)));
    fencer.hear_until(|report| report.until > old.boot);
    fencer.extend(within(8, Duration::ZERO));
    fencer.hear_until(|report| report.kills == 1);
    assert!(dummy.alive().is_empty());
}

/// Says it and hands a process's handle over.
fn say_with(socket: &OwnedFd, order: &Order, handle: &OwnedFd) {
    let handles = [handle.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&handles)));
    let message = order.encode();
    sendmsg(socket, &[std::io::IoSlice::new(&message)], &mut control, SendFlags::NOSIGNAL).unwrap();
}

/// With a postmaster's pidfd it need not be found first.
#[test]
fn a_postmaster_comes_by_its_handle() {
    let dir = tempfile::tempdir().unwrap();
    let (mut dummy, mut fencer) = (Dummy::start(dir.path()), Fencer::start(dir.path()));
    let pid = Pid::from_raw(dummy.root.id().cast_signed()).unwrap();
    let handle = pidfd_open(pid, PidfdFlags::empty()).unwrap();
    // What it is told to look for does not exist: only the handle leads to the process.
    let home = Home::known(b"nobody".to_vec(), "/nonexistent".into(), None);
    fencer.number += 1;
    let order = Order::Arm { number: 1, deadline: within(7, Duration::from_millis(200)), home };
    say_with(&fencer.socket, &order, &handle);
    fencer.hear_until(|report| report.kills == 1);
    assert!(!dummy.root.wait().unwrap().success());
}

/// A pipe in place of a watchdog device, as Patroni's tests have it: what was written is read.
struct Pipe {
    path: PathBuf,
    end: fs::File,
    said: String,
}

impl Pipe {
    fn make(dir: &Path) -> Self {
        let path = dir.join("watchdog");
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        // For reading and writing, so that it never ends.
        let end = fs::File::options().read(true).write(true).open(&path).unwrap();
        rustix::io::ioctl_fionbio(&end, true).unwrap();
        Self { path, end, said: String::new() }
    }

    fn wish(&self, timeout: u16) -> Order {
        Order::Watch(Some(Wish { device: self.path.clone(), testing: true, timeout, limit: timeout }))
    }

    /// All that was ever written to it.
    fn read(&mut self) -> &str {
        let mut buffer = [0; 4096];
        while let Ok(read) = std::io::Read::read(&mut self.end, &mut buffer) {
            self.said.push_str(str::from_utf8(&buffer[..read]).unwrap());
        }
        &self.said
    }
}

/// P214, reliability.md §6.4: pinged for every deadline, never so that it could fire after it; F37: not by a fencer that
/// is frozen; B07: switched off although nothing of the instance is left.
#[test]
fn the_watchdog_is_pinged_only_as_far_as_it_fires_before_the_deadline() {
    let dir = tempfile::tempdir().unwrap();
    let mut pipe = Pipe::make(dir.path());
    let (dummy, mut fencer) = (Dummy::start(dir.path()), Fencer::start(dir.path()));
    fencer.say(&pipe.wish(30));
    fencer.arm(&dummy, within(7, Duration::from_secs(20)));
    assert_eq!(pipe.read(), "", "it would fire after the deadline");

    fencer.extend(within(7, Duration::from_secs(900)));
    assert_eq!(fencer.hear_until(|report| report.watch != Watch::Off).watch, Watch::Active(30));
    wait("a ping", || pipe.read() == "Ctimeout=30\n1");
    fencer.extend(within(7, Duration::from_secs(901)));
    wait("a ping for the new deadline", || pipe.read() == "Ctimeout=30\n11");
    // Another timeout, in force at once.
    fencer.say(&pipe.wish(40));
    fencer.hear_until(|report| report.watch == Watch::Active(40));
    assert!(pipe.read().contains("Ctimeout=40\n"));

    let pid = Pid::from_raw(fencer.child.id().cast_signed()).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    let before = pipe.read().to_owned();
    fencer.extend(within(7, Duration::from_secs(902)));
    std::thread::park_timeout(Duration::from_millis(500));
    assert_eq!(pipe.read(), before, "nobody pings for a frozen fencer");
    kill_process(pid, Signal::CONT).unwrap();
    wait("the ping afterwards", || pipe.read().len() > before.len());

    drop(dummy);
    fencer.say(&Order::Disarm { number: 99 });
    assert_eq!(fencer.hear_until(|report| report.watch == Watch::Off).number, 99);
    assert!(pipe.read().ends_with('V'), "{}", pipe.read());
    assert_eq!(pipe.read().matches('V').count(), 1);
}

/// At the end of the lease the instance is ended before the watchdog would reset the host, which is then not needed.
#[test]
fn the_instance_ends_before_the_watchdog_fires() {
    let dir = tempfile::tempdir().unwrap();
    let mut pipe = Pipe::make(dir.path());
    let (dummy, mut fencer) = (Dummy::start(dir.path()), Fencer::start(dir.path()));
    fencer.say(&pipe.wish(1));
    let deadline = within(7, Duration::from_secs(3));
    fencer.arm(&dummy, deadline);
    // Without a new deadline it goes on pinging, for as long as it may.
    let killed = fencer.hear_until(|report| report.kills == 1);
    assert!(nanos(killed.gone) < Duration::from_secs(2) && dummy.alive().is_empty());
    let told = fencer.hear_until(|report| report.watch == Watch::Off);
    assert!(!told.armed);
    let said = pipe.read().to_owned();
    assert!(said.starts_with("Ctimeout=1\n1") && said.ends_with('V'), "{said}");
}

/// B06: the postmaster is gone and a backend is not: the watchdog stays, unpinged, until that has ended too.
#[test]
fn the_watchdog_stays_while_something_may_serve_clients() {
    let dir = tempfile::tempdir().unwrap();
    let mut pipe = Pipe::make(dir.path());
    let (mut dummy, mut fencer) = (Dummy::start(dir.path()), Fencer::start(dir.path()));
    // A "backend": it runs the server's program in a session of its own.
    let backend = Command::new("setsid")
        .args([dir.path().join("postgres").as_os_str(), "-c".as_ref(), "echo; /bin/sleep 1000; :".as_ref()])
        .current_dir(&dummy.dir)
        .stdout(Stdio::piped())
        .spawn();
    let mut backend = backend.unwrap();
    BufReader::new(backend.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
    fencer.say(&pipe.wish(30));
    fencer.arm(&dummy, within(7, Duration::from_secs(900)));
    let root =
        pidfd_open(Pid::from_raw(dummy.root.id().cast_signed()).unwrap(), PidfdFlags::empty()).unwrap();
    say_with(&fencer.socket, &Order::Cover, &root);
    fencer.hear_until(|report| report.watch == Watch::Active(30));
    dummy.root.kill().unwrap();
    dummy.root.wait().unwrap();
    fencer.say(&Order::Disarm { number: 99 });
    fencer.hear_until(|report| report.number == 99);
    let before = pipe.read().to_owned();
    std::thread::park_timeout(Duration::from_millis(500));
    assert_eq!(pipe.read(), before, "neither pinged nor switched off");
    for pid in dummy.alive() {
        let _ = kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::KILL);
    }
    backend.wait().unwrap();
    fencer.hear_until(|report| report.watch == Watch::Off);
    wait("the end of the watch", || pipe.read().ends_with('V'));
}

/// P213: a device that is not there, or that nobody reads, is told, and the guard goes on without it.
#[test]
fn a_watchdog_that_cannot_be_opened_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let (dummy, mut fencer) = (Dummy::start(dir.path()), Fencer::start(dir.path()));
    let device = dir.path().join("nothing");
    fencer.say(&Order::Watch(Some(Wish { device: device.clone(), testing: false, timeout: 5, limit: 5 })));
    fencer.arm(&dummy, within(7, Duration::from_secs(900)));
    let told = fencer.hear_until(|report| report.watch != Watch::Off);
    assert_eq!((told.watch, told.armed), (Watch::Failed(libc::ENOENT), true));
    // A file is no watchdog: it takes no timeout.
    fs::write(&device, "").unwrap();
    let told = fencer.hear_until(|report| report.watch != Watch::Failed(libc::ENOENT));
    assert_eq!(told.watch, Watch::Failed(libc::ENOTTY));
}
