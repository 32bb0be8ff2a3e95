//! What befalls a cluster besides what its people do to it: signals that stop a part of a daemon, hosts that sleep,
//! clocks that are set, lines that lose, a store that misbehaves. Each is a verb of the scripts.

use std::time::Duration;

use config::NodeName;
use coordinator::Process;
use dcs::{Epoch, Initialize, Leader};

use super::chance::Stream;
use super::network::Kind;
use super::script::{duration, position};
use super::stopped::Stopped;
use super::verbs::{Done, known};
use super::{WATCH, World};

/// How long an election of the store's own leader lasts, at most.
const ELECTION: u64 = 2500;

impl World {
    /// Verbs about the store and the links; `None`: this is none of them.
    pub(super) fn fault(&mut self, words: &[&str]) -> Option<Done> {
        match words {
            ["store", "down"] => self.store.up = false,
            ["store", "up"] => self.store_returns(),
            ["wipe-store"] => self.wipe_store(),
            ["delete-leader-key"] => {
                self.excuse(self.store.longest());
                self.store.leader = None;
                self.store.commit();
            }
            ["overwrite-leader-key", name] => return Some(self.overwrite(name)),
            ["store", "leader-dies"] => self.store_leader_dies(),
            ["store", "full"] => self.store.full = true,
            ["store", "has-space"] => self.store.full = false,
            ["store", "jumps", span] => match duration(span) {
                Ok(span) => self.store_jumps(span),
                Err(why) => return Some(Err(why)),
            },
            ["store", "late", millis] => self.store.slow = millis.parse().unwrap_or(0),
            ["store", "watches-lag", span] => self.watches_lag(duration(span).unwrap_or_default()),
            ["store-clock", thousandths] => self.store.fast = thousandths.parse().unwrap_or(0),
            ["store", "saved"] => self.store.save(),
            ["store", "restored"] => {
                let claimed = self.store.claimed.1;
                if self.store.restore(self.now + self.store.settings.ttl) {
                    self.hit("F74");
                    self.law.forgot = true;
                    self.law.restored = self.law.restored.max(Some(claimed));
                    self.excuse(self.store.longest());
                }
            }
            ["deafen", from, to] => drop(self.deaf.insert(((*from).to_owned(), (*to).to_owned()))),
            ["cut-wal", one, other] => return Some(self.cut_kind(Kind::Wal, one, other)),
            ["cut-rest", one, other] => return Some(self.cut_kind(Kind::Rest, one, other)),
            _ => return None,
        }
        Some(Ok(()))
    }

    fn overwrite(&mut self, name: &str) -> Done {
        let (name, revision) = (known(self, name)?, self.store.commit());
        self.excuse(self.store.longest());
        self.store.leader = Some(Leader { name, epoch: Epoch(revision.0), revision, lease: 0 });
        Ok(())
    }

    fn cut_kind(&mut self, kind: Kind, one: &str, other: &str) -> Done {
        let (one, other) = (known(self, one)?, known(self, other)?);
        let (first, second) = if one < other { (one, other) } else { (other, one) };
        self.kinds.insert((kind, first, second));
        Ok(())
    }

    /// Verbs about one node; `None`: this is none of them.
    pub(super) fn fault_on(&mut self, verb: &str, name: &NodeName, rest: &[&str]) -> Option<Done> {
        let now = self.now;
        let local = self.clock(name);
        if self.nodes[name].stopped.host.is_some() && verb != "kill" {
            return Some(Err("its host sleeps".into()));
        }
        if self.death(verb, name, rest) {
            return Some(Ok(()));
        }
        match (verb, rest) {
            ("stop-daemon", []) => self.node(name).stopped.daemon = Some(now),
            ("stop-lease", []) => self.node(name).stopped.lease = Some(now),
            ("stop-turns", []) => self.node(name).stopped.turns = Some(now),
            ("stop-fencer", []) => {
                if let Some(fencer) = &mut self.node(name).fencer {
                    fencer.stopped = Some(now);
                }
            }
            ("continue", []) => self.goes_on(name),
            ("sleep", [span]) => return Some(self.sleep(name, span, false)),
            ("halt", [span]) => return Some(self.sleep(name, span, true)),
            ("slew", [millionths]) => match millionths.parse() {
                Ok(fast) => self.node(name).clock.slew(now, fast),
                Err(_) => return Some(Err("by how many millionths?".into())),
            },
            ("wall", [seconds]) => self.node(name).wall_ahead = seconds.parse().unwrap_or(0),
            ("loses", [hundredths]) => self.node(name).poor_line = hundredths.parse().unwrap_or(0),
            ("far", [span]) => self.node(name).far = duration(span).unwrap_or_default(),
            ("pause-replay", []) => self.node(name).server.replay_paused = true,
            ("resume-replay", []) => {
                (self.node(name).server.replay_paused, self.node(name).server.unreplayed) = (false, 0);
            }
            ("behind", [bytes]) => self.node(name).server.unreplayed = position(bytes).unwrap_or(0),
            ("set-names", names) => {
                let text = names.join(" ");
                let server = &mut self.node(name).server;
                if server.writable() {
                    (server.names, server.by_hand) = (text, true);
                    self.hit("F132");
                }
            }
            ("stranger", [who]) => {
                let who = (*who).to_owned();
                if self.nodes[name].server.writable() {
                    self.node(name).server.stranger = Some(who);
                }
            }
            ("revoke", []) => self.revoke(name),
            ("forget-member", []) => {
                if self.store.members.remove(name).is_some() {
                    self.store.commit();
                    self.hit("F151");
                }
            }
            ("crash-on-start", [times]) => {
                let times = times.parse().unwrap_or(1);
                let fails = &mut self.node(name).fails;
                for job in ["start", "restart-in-place"] {
                    fails.extend(std::iter::repeat_n(job.to_owned(), times));
                }
                let server = &mut self.node(name).server;
                if server.process == Process::Postmaster {
                    server.crash(Process::Gone);
                    server.crashed = Some(local);
                    self.wake(name);
                }
            }
            _ => return None,
        }
        Some(Ok(()))
    }

    /// Verbs by which something of a node dies; `false`: this is none of them.
    fn death(&mut self, verb: &str, name: &NodeName, rest: &[&str]) -> bool {
        let now = self.clock(name);
        match (verb, rest) {
            ("kill", []) => {
                let node = self.node(name);
                (node.daemon, node.up, node.fencer) = (None, false, None);
                node.server.crash(Process::Gone);
                node.server.process = Process::Gone;
                node.stopped = Stopped::default();
            }
            ("kill-daemon", []) => {
                let node = self.node(name);
                node.daemon = None;
                (node.stopped.daemon, node.stopped.lease, node.stopped.turns) = (None, None, None);
            }
            ("kill-postmaster", left) => {
                let remnants =
                    if left == ["leaving", "backends"] { Process::Remnants } else { Process::Gone };
                self.node(name).server.crash(remnants);
                self.node(name).server.crashed = Some(now);
                self.wake(name);
            }
            ("kill-fencer", how) => {
                let node = self.node(name);
                (node.fencer, node.unfenceable) = (None, *how == ["for-good"]);
            }
            _ => return false,
        }
        true
    }

    /// Everything of a daemon goes on; a fencer is there again.
    pub(super) fn goes_on(&mut self, name: &NodeName) {
        let now = self.now;
        let node = self.node(name);
        let was = node.stopped.daemon.take().or(node.stopped.lease.take()).or(node.stopped.turns.take());
        node.stopped.lease = None;
        node.stopped.turns = None;
        if let (Some(_), Some(daemon)) = (was, &mut node.daemon) {
            daemon.wake = now;
        }
        node.unfenceable = false;
        let lost = node.fencer.as_ref().is_none_or(|fencer| fencer.stopped.is_some());
        if lost && node.daemon.is_some() {
            self.new_fencer(name);
        }
    }

    /// The host sleeps, or its hypervisor halts it and its clock with it.
    fn sleep(&mut self, name: &NodeName, span: &str, clock_too: bool) -> Done {
        let span = duration(span)?;
        let now = self.now;
        if self.nodes[name].stopped.host.is_none() {
            self.node(name).stopped.host = Some((now, now + span, clock_too));
        }
        Ok(())
    }

    /// A host whose sleep is over.
    pub(super) fn wake_up(&mut self, name: &NodeName) {
        let now = self.now;
        let node = self.node(name);
        let Some((since, _, clock_too)) = node.stopped.host.take_if(|(_, until, _)| *until <= now) else {
            return;
        };
        let slept = now.since(since);
        let held = node.daemon.as_ref().and_then(|daemon| daemon.held);
        let led = held.is_some();
        if clock_too {
            let node = self.node(name);
            node.clock.ahead -= i64::try_from(slept.as_nanos()).unwrap_or(0);
            if let Some(fires) = node.fencer.as_mut().and_then(|fencer| fencer.fires.as_mut()) {
                *fires = *fires + slept;
            }
            // No clock of the host can tell (reliability 6.3): it goes on for as long as its lease had left.
            let left = held.map_or(Duration::ZERO, |held| held.hard.since(self.clock(name)));
            self.excuse(self.store.longest().max(left) + Duration::from_millis(200));
            self.hit("F41");
        } else if led && slept >= self.store.settings.ttl {
            self.hit("F40");
        } else if led && slept <= Duration::from_secs(2) {
            self.hit("F44");
        }
    }

    /// From now on watches tell so late; one that lags less than before tells what it has at once.
    pub(super) fn watches_lag(&mut self, span: Duration) {
        let (late, now) = (span < self.store.watch_delay, self.now);
        self.store.watch_delay = span;
        for daemon in self.nodes.values_mut().filter_map(|node| node.daemon.as_mut()).filter(|_| late) {
            daemon.view_due = daemon.view_due.map(|due| due.min(now + WATCH));
            daemon.taken.clear();
        }
    }

    /// Its leader dies: for a moment nobody answers, and the next one extends every session by an election.
    fn store_leader_dies(&mut self) {
        if !self.store.up {
            return;
        }
        let millis = 300 + self.chances.roll(Stream::Net, ELECTION - 300);
        self.store.up = false;
        self.store.back = Some(self.now + Duration::from_millis(millis));
        self.hit("F71");
    }

    /// The clock of the store's leader jumps: what runs out ends too early.
    fn store_jumps(&mut self, span: Duration) {
        let back = |at: &mut dcs::Moment| {
            *at = dcs::Moment(at.0.saturating_sub(u64::try_from(span.as_nanos()).unwrap_or(0)));
        };
        self.store.sessions.values_mut().for_each(back);
        self.excuse(self.store.longest());
        self.hit("F47");
    }

    /// Somebody, or a store that should not, revokes a session: what lives under it is gone.
    fn revoke(&mut self, name: &NodeName) {
        let Some(session) = self.nodes[name].daemon.as_ref().and_then(|daemon| daemon.session) else {
            return;
        };
        let now = self.now;
        if let Some(until) = self.store.sessions.get_mut(&session) {
            *until = now;
            self.excuse(self.store.longest());
            self.hit("F77");
            self.hit("F81");
            if self.store.back.is_some() || !self.store.up {
                self.hit("F82");
            }
        }
    }

    /// How long the store keeps what was granted for `ttl`: its own clock may run fast or slow, and it sweeps twice a second.
    pub(super) fn store_span(&mut self, ttl: Duration) -> Duration {
        if !self.chances.are_there() {
            return ttl;
        }
        let millis = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        let span = millis * 1000 / 1000u64.saturating_add_signed(self.store.fast);
        Duration::from_millis(span + self.chances.roll(Stream::Net, 500))
    }

    /// While it was away nobody's session ran out: a new etcd leader extends them all.
    pub(super) fn store_returns(&mut self) {
        if self.store.up {
            return;
        }
        self.store.up = true;
        // By its time to live and an election; that it was still there when it went is all that counts.
        for session in self.store.sessions.keys().copied().collect::<Vec<_>>() {
            let ttl = self.store.ttl_of(session);
            let until = self.now + self.store_span(ttl);
            self.store.renew(session, until, ttl);
        }
        self.store.back = None;
    }

    fn wipe_store(&mut self) {
        self.excuse(self.store.longest());
        self.store.leader = None;
        self.store.members.clear();
        self.store.sessions.clear();
        self.store.initialize = Initialize::Absent;
        self.store.identities.clear();
        (self.store.history, self.store.config, self.store.failover) = (None, None, None);
        (self.store.sync, self.store.failsafe, self.store.reign) = (None, None, None);
        self.store.failsafe_at = dcs::Revision(0);
        self.store.claimed = Default::default();
        self.law.forgot = true;
        self.store.status = dcs::Status::default();
        self.store.commit();
    }
}
