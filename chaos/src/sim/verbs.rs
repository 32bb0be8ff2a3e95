//! The verbs of scenario scripts.

use std::sync::Arc;
use std::time::Duration;

use config::NodeName;
use coordinator::{Bootstrap, Consent, Wish};
use dcs::{Failover, SystemId, Timeline, Versioned};

use super::node::Daemon;
use super::script::{duration, position};
use super::server::Dir;
use super::{World, script};

pub(super) type Done = Result<(), String>;

impl World {
    /// Does what one line says.
    pub(super) fn verb(&mut self, words: &[&str]) -> Done {
        let named = self.aim(words)?;
        let words: &[&str] = &named.iter().map(String::as_str).collect::<Vec<_>>();
        self.mark_verb(words);
        if let Some(done) = self.fault(words) {
            done?;
            self.run(Duration::ZERO);
            return Ok(());
        }
        match words {
            ["cluster", parts @ ..] => self.cluster(parts),
            ["wait", span] => {
                self.run(duration(span)?);
                Ok(())
            }
            ["await", job, span] => self.await_job(job, span),
            ["flap", name, span, times] => self.flap(name, span, times),
            ["set", pair] => self.setting(pair),
            ["pause"] => self.setting("pause=true"),
            ["resume"] => {
                // Two may take writes until one of them has stopped.
                self.excuse(self.store.longest());
                self.setting("pause=false")
            }
            ["switchover", rest @ ..] => self.handover(true, rest),
            ["failover", rest @ ..] => self.handover(false, rest),
            ["heal"] => {
                self.cuts.clear();
                self.deaf.clear();
                self.kinds.clear();
                Ok(())
            }
            ["cut", one, other] => self.cut(one, other),
            ["leave-store", name] => self.leave_store(name),
            ["reach-new-store"] => {
                self.reach_new_store();
                Ok(())
            }
            ["stays", why @ ..] => {
                self.stays = Some(why.join(" "));
                Ok(())
            }
            ["expect", what @ ..] => self.expect(what),
            [verb, name, rest @ ..] => {
                let name = known(self, name)?;
                self.verb_on(verb, &name, rest)
            }
            _ => Err("unknown verb".into()),
        }?;
        self.run(Duration::ZERO);
        Ok(())
    }

    fn verb_on(&mut self, verb: &str, name: &NodeName, rest: &[&str]) -> Done {
        let now = self.clock(name);
        if let Some(done) = self.fault_on(verb, name, rest) {
            return done;
        }
        match (verb, rest) {
            ("start", []) => self.start_node(name),
            ("partition", []) => {
                for other in self.names().iter().map(NodeName::as_str).chain(["store"]) {
                    self.cut(name.as_str(), other)?;
                }
            }
            ("write", [bytes]) => self.write(name, position(bytes)?)?,
            ("tag", [pair]) => self.tag(name, pair)?,
            ("withhold", []) => {
                self.node(name).withheld.clear();
                self.wake(name);
            }
            ("withhold", why) => self.node(name).withheld = vec![why.join(" ")],
            ("repair", allowed) => {
                let repair = &mut self.node(name).repair;
                repair.rewind = allowed.contains(&"rewind");
                repair.after_failed_rewind = allowed.contains(&"after-failed-rewind");
                repair.when_diverged = allowed.contains(&"when-diverged");
            }
            ("restore", ["from", source]) => {
                let source = known(self, source)?;
                let copy = self.dir(&source)?.clone();
                let state = coordinator::ControlState::InProduction;
                let copy = Dir { state, signal: false, label: true, floor: None, ..copy };
                self.node(name).server.dir = Some(copy);
            }
            ("unrewindable", []) => self.dir(name)?.rewindable = false,
            ("no-bootstrap", []) => self.node(name).bootstrap = Bootstrap::Never,
            ("fail", [job]) => self.node(name).fails.push((*job).to_owned()),
            ("fail", [job, times]) => {
                let times = times.parse().map_err(|_| "how often?".to_owned())?;
                self.node(name).fails.extend(std::iter::repeat_n((*job).to_owned(), times));
            }
            ("slow", [job, span]) => {
                let span = duration(span)?;
                self.node(name).slow.insert((*job).to_owned(), span);
            }
            ("redo", [bytes]) => self.dir(name)?.to_recover = position(bytes)?,
            ("slack", [bytes]) => self.node(name).server.slack = position(bytes)?,
            ("freeze", []) => self.node(name).server.frozen = true,
            ("thaw", []) => self.node(name).server.frozen = false,
            ("hang", []) => self.node(name).server.hung = Some(now),
            ("suspend", []) => {
                self.node(name).server.hung = Some(now);
                self.node(name).server.suspended = true;
            }
            ("respond", []) => {
                (self.node(name).server.hung, self.node(name).server.suspended) = (None, false);
                self.wake(name);
            }
            ("torn", []) if self.nodes[name].server.streaming => self.node(name).server.torn = true,
            ("torn", []) => return Err("it does not stream".into()),
            ("wipe", []) => {
                self.node(name).server.dir = None;
                self.wake(name);
            }
            ("unreadable", []) => self.node(name).server.unreadable = true,
            ("readable", []) => {
                self.node(name).server.unreadable = false;
                self.wake(name);
            }
            ("foreign", []) => self.dir(name)?.system_id = SystemId(1),
            ("restart-as-standby", []) => self.node(name).server.start(false, None),
            ("promote-by-hand", []) => {
                self.mints += 1;
                let mint = self.mints;
                self.node(name).server.promote(mint, Timeline(0));
            }
            ("stop", []) => self.end_daemon(name, Wish::Stop),
            ("leave", []) => self.end_daemon(name, Wish::LeaveRunning),
            ("restart", filters) => self.restart(name, filters),
            ("reinit", how) => {
                let force = how.contains(&"force");
                let (from_leader, consent) = (how.contains(&"from-leader"), Consent::Unasked);
                self.request(name, Wish::Reinitialize { force, from_leader, consent });
            }
            _ => return Err("unknown verb".into()),
        }
        Ok(())
    }

    fn dir(&mut self, name: &NodeName) -> Result<&mut Dir, String> {
        self.node(name).server.dir.as_mut().ok_or_else(|| "it has no data directory".to_owned())
    }

    pub(super) fn wake(&mut self, name: &NodeName) {
        let now = self.now;
        if let Some(daemon) = &mut self.node(name).daemon {
            daemon.wake = now;
        }
    }

    fn end_daemon(&mut self, name: &NodeName, wish: Wish) {
        if let Some(daemon) = &mut self.node(name).daemon {
            daemon.ending = Some(wish);
        }
        self.wake(name);
    }

    pub(super) fn start_node(&mut self, name: &NodeName) {
        let (now, local, settings) = (self.now, self.clock(name), self.store.settings.clone());
        let node = self.node(name);
        (node.up, node.unfenceable) = (true, false);
        if node.daemon.is_none() {
            node.daemon = Some(Daemon::new(now, local, settings, node.known));
            node.exited = None;
            if self.nodes[name].fencer.as_ref().is_none_or(|fencer| fencer.stopped.is_some()) {
                self.new_fencer(name);
            }
        }
    }

    fn cut(&mut self, one: &str, other: &str) -> Done {
        let (first, second) = if one < other { (one, other) } else { (other, one) };
        if first != second {
            self.cuts.insert((first.to_owned(), second.to_owned()));
        }
        Ok(())
    }

    fn write(&mut self, name: &NodeName, bytes: u64) -> Done {
        if !self.nodes[name].server.writable() || !self.nodes[name].server.answers() {
            return Err("it takes no writes".into());
        }
        if self.nodes[name].server.closed {
            return Err("it lets no clients in".into());
        }
        self.dir(name)?.wal.end += bytes;
        let wal = self.dir(name)?.wal.clone();
        self.commit(name, wal);
        Ok(())
    }

    fn tag(&mut self, name: &NodeName, pair: &str) -> Done {
        let (key, value) = pair.split_once('=').unwrap_or((pair, "true"));
        let tags = &mut self.node(name).tags;
        match key {
            "nofailover" => tags.nofailover = value == "true",
            "failover_priority" => {
                tags.failover_priority = value.parse().ok();
                tags.nofailover |= tags.failover_priority.is_some_and(|priority| priority <= 0);
            }
            "clonefrom" => tags.clonefrom = value == "true",
            "nosync" => tags.nosync = value == "true",
            "sync_priority" => tags.sync_priority = value.parse().ok(),
            "nostream" => tags.nostream = value == "true",
            "replicatefrom" => tags.replicatefrom = NodeName::new(value).ok(),
            _ => return Err("unknown tag".into()),
        }
        self.wake(name);
        Ok(())
    }

    pub(super) fn setting(&mut self, pair: &str) -> Done {
        let Some((key, value)) = pair.split_once('=') else { return Err("key=value".into()) };
        let seconds = || value.parse().map(Duration::from_secs).map_err(|_| "no number".to_owned());
        if let ("failsafe_mode=false", Some(failover)) = (pair, &self.store.failover)
            && let Some(named) = &failover.value.candidate
        {
            self.makes_sure(named)?;
        }
        let settings = Arc::make_mut(&mut self.store.settings);
        match key {
            "pause" => settings.pause = value == "true",
            "ttl" => settings.ttl = seconds()?,
            "loop_wait" => settings.loop_wait = seconds()?,
            "primary_start_timeout" => settings.primary_start_timeout = seconds()?,
            "primary_race_backoff" => settings.primary_race_backoff = seconds()?,
            "member_slots_ttl" => settings.member_slots_ttl = seconds()?,
            "maximum_lag_on_failover" => settings.maximum_lag_on_failover = position(value)?,
            "failsafe_mode" => settings.failsafe_mode = value == "true",
            "check_timeline" => settings.check_timeline = value == "true",
            "use_slots" => settings.use_slots = value == "true",
            _ => self.synchronous_setting(key, value)?,
        }
        self.store.commit();
        Ok(())
    }

    /// `switchover [CANDIDATE] [in SPAN]`, `failover CANDIDATE`.
    pub(super) fn handover(&mut self, planned: bool, rest: &[&str]) -> Done {
        let mut failover = Failover { leader: None, candidate: None, scheduled_at: None };
        if planned {
            failover.leader = self.store.leader.as_ref().map(|leader| leader.name.to_string());
        }
        let mut words = rest.iter();
        while let Some(word) = words.next() {
            match *word {
                "in" => {
                    let span = script::duration(words.next().ok_or("in how long?")?)?;
                    failover.scheduled_at = Some(((self.now + span).0 / 1_000_000_000).to_string());
                }
                "from" => failover.leader = words.next().map(ToString::to_string),
                candidate => failover.candidate = Some(candidate.to_owned()),
            }
        }
        if let (false, Some(named)) = (self.store.settings.failsafe_mode, &failover.candidate) {
            self.makes_sure(named)?;
        }
        self.law.losing |= failover.leader.is_none();
        let revision = self.store.commit();
        self.store.failover = Some(Versioned { value: failover, revision });
        Ok(())
    }

    /// `restart NODE [role=ROLE] [if-pending] [below=VERSION]`.
    fn restart(&mut self, name: &NodeName, filters: &[&str]) {
        let find = |key: &str| filters.iter().find_map(|filter| filter.strip_prefix(key));
        let wish = Wish::Restart {
            role: find("role=").map(str::to_owned),
            below_version: find("below=").and_then(|version| version.parse().ok()),
            if_pending: filters.contains(&"if-pending"),
            pending: filters.contains(&"pending"),
            timeout: None,
        };
        self.request(name, wish);
    }

    /// All faults end; what the script or chance broke is whole again.
    pub(super) fn end_faults(&mut self) {
        self.cuts.clear();
        self.deaf.clear();
        self.kinds.clear();
        self.store_returns();
        self.watches_lag(Duration::ZERO);
        (self.store.full, self.store.slow) = (false, 0);
        if self.store.settings.pause {
            // As a resume.
            self.excuse(self.store.longest());
            Arc::make_mut(&mut self.store.settings).pause = false;
        }
        self.store.commit();
        let now = self.now;
        if self.nodes.values().any(super::node::Node::is_unfenced) {
            // From here on somebody is there to stop it, which takes a moment.
            self.excuse(self.store.longest());
        }
        for name in self.names().iter() {
            let node = self.node(name);
            node.fails.clear();
            node.slow.clear();
            node.withheld.clear();
            node.server.frozen = false;
            node.server.slack = 0;
            node.server.hung = None;
            node.server.suspended = false;
            node.server.unreadable = false;
            (node.server.replay_paused, node.server.unreplayed, node.server.stranger) = (false, 0, None);
            (node.poor_line, node.far) = (0, Duration::ZERO);
            if let Some((_, until, _)) = &mut node.stopped.host {
                *until = now;
            }
            self.wake_up(name);
            self.goes_on(name);
            self.start_node(name);
        }
    }
}

pub(super) fn known(world: &World, name: &str) -> Result<NodeName, String> {
    let name = NodeName::new(name).map_err(|error| error.to_string())?;
    if world.nodes.contains_key(&name) { Ok(name) } else { Err(format!("there is no node {name}")) }
}
