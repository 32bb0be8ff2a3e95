//! The simulated jobs: how long each takes and what it leaves behind.

use std::time::Duration;

use config::NodeName;
use coordinator::{Consent, ControlState, Grounds, Process, StopMode, Task, Unfinished};
use dcs::{Epoch, Lsn, SystemId};

use super::World;
use super::planted::Fault;
use super::server::{Branch, Dir, RECOVERY_RATE, Wal};

/// The word by which scripts name a job.
pub fn word(task: &Task) -> &'static str {
    match task {
        Task::Initdb => "initdb",
        Task::FirstStart { .. } => "first-start",
        Task::StartStandby { .. } => "start",
        Task::RestartInPlace { .. } => "restart-in-place",
        Task::Promote { .. } => "promote",
        Task::Stop(StopMode::Handover) => "handover",
        Task::Stop(StopMode::Fast) => "stop",
        Task::Stop(StopMode::Immediate) => "kill-stop",
        Task::KillRemnants => "kill-remnants",
        Task::Checkpoint => "checkpoint",
        Task::Clone { .. } => "clone",
        Task::RecoverCrash => "recover",
        Task::Rewind { .. } => "rewind",
        Task::Retire { .. } => "retire",
        Task::Restart { .. } => "restart",
    }
}

impl World {
    pub(super) fn duration(&mut self, name: &NodeName, task: &Task) -> Duration {
        let node = &self.nodes[name];
        if let Some(slow) = node.slow.get(word(task)) {
            return *slow;
        }
        let recover = node.server.dir.as_ref().map_or(0, |dir| dir.to_recover) * 1000 / RECOVERY_RATE;
        let millis = match task {
            Task::Initdb => 800,
            Task::FirstStart { .. } => 300,
            Task::StartStandby { .. } => 100,
            Task::RestartInPlace { .. } => 150 + recover,
            Task::Promote { .. } => 100,
            Task::Stop(StopMode::Handover) => 80,
            Task::Stop(StopMode::Fast) => 50,
            Task::Stop(StopMode::Immediate) => 20,
            Task::KillRemnants => 20,
            Task::Checkpoint => 200,
            Task::Clone { .. } => 2000,
            Task::RecoverCrash => 300,
            Task::Rewind { .. } => 1000,
            Task::Retire { .. } => 20,
            Task::Restart { .. } => 250,
        };
        Duration::from_millis(millis) + self.jitter(50)
    }

    /// What happens the moment a job begins.
    pub(super) fn job_begins(&mut self, name: &NodeName, task: &Task) {
        self.check_begin(name, task);
        let node = self.node(name);
        match task {
            Task::Rewind { .. } => {
                if let Some(dir) = &mut node.server.dir {
                    dir.marker = Some(Unfinished::Rewind);
                }
            }
            Task::Initdb => {
                let marked = Dir { marker: Some(Unfinished::Bootstrap), ..empty(SystemId(0)) };
                node.server.dir = Some(marked);
            }
            Task::Promote { .. } | Task::FirstStart { .. } | Task::RestartInPlace { .. } => {
                self.becoming_writable(name, task);
            }
            // The stop comes first, and is not what takes long.
            Task::Restart { .. } => {
                self.keeps_unread(name);
                self.stop_cleanly(name);
                self.node(name).server.down = Some(self.clock(name));
            }
            _ => {}
        }
    }

    /// What a job that has come to its end has done, or why it failed.
    pub(super) fn job_ends(&mut self, name: &NodeName, task: &Task) -> Result<(), String> {
        let fails = &mut self.node(name).fails;
        if let Some(at) = fails.iter().position(|wanted| wanted == word(task)) {
            fails.remove(at);
            return Err(format!("{} failed, as the script says", word(task)));
        }
        match task {
            Task::Initdb => {
                self.mints += 1;
                let id = SystemId(7000 + self.mints);
                let dir = Dir { marker: Some(Unfinished::Bootstrap), ..empty(id) };
                self.node(name).server.dir = Some(dir);
            }
            Task::FirstStart { epoch } => return self.first_start(name, *epoch),
            Task::StartStandby { upstream } => self.start_standby(name, upstream.clone())?,
            Task::RestartInPlace { epoch, closed } => {
                self.unless_doomed(name)?;
                self.starts_in_place(name, *epoch, *closed);
            }
            Task::Promote { .. } => return self.promoted(name),
            Task::Stop(StopMode::Immediate) => {
                self.node(name).server.crash(Process::Gone);
                self.node(name).server.process = Process::Gone;
            }
            Task::Stop(_) => self.stop_cleanly(name),
            Task::KillRemnants => {
                let server = &mut self.node(name).server;
                server.crash(Process::Gone);
                server.process = Process::Gone;
            }
            Task::Checkpoint => {
                if let Some(dir) = &mut self.node(name).server.dir {
                    dir.checkpoint = dir.wal.end;
                    dir.to_recover = 0;
                    dir.settled = true;
                }
            }
            Task::Clone { from } => return self.clone_from(name, from),
            Task::RecoverCrash => {
                if self.nodes[name].server.dir.as_ref().is_some_and(|dir| dir.label) {
                    return Err("there is a backup_label".into());
                }
                if let Some(dir) = &mut self.node(name).server.dir {
                    dir.shutdown_checkpoint();
                    dir.to_recover = 0;
                }
            }
            Task::Rewind { from } => return self.rewind_from(name, from),
            Task::Retire { grounds, leader } => return self.retire(name, *grounds, leader.as_ref()),
            Task::Restart { standby, closed, .. } => match standby {
                Some(upstream) => self.start_standby(name, upstream.clone())?,
                None => {
                    let held = self.daemon(name).held;
                    if let Some(held) = held
                        && !self.daemon(name).settings.pause
                    {
                        self.proof(name, held.epoch)?;
                    }
                    self.starts_again(name, held.map(|held| held.epoch), *closed);
                }
            },
        }
        Ok(())
    }

    fn first_start(&mut self, name: &NodeName, epoch: Epoch) -> Result<(), String> {
        self.unless_doomed(name)?;
        let server = &mut self.node(name).server;
        server.start(true, None);
        server.reign = Some(epoch);
        if let Some(dir) = &mut server.dir {
            dir.marker = None;
            dir.settled = true;
        }
        Ok(())
    }

    /// What will take writes must prove the lease first, with a fencer armed; after that nothing stops it but a kill.
    fn becoming_writable(&mut self, name: &NodeName, task: &Task) {
        let (Task::Promote { epoch, .. } | Task::FirstStart { epoch } | Task::RestartInPlace { epoch, .. }) =
            task
        else {
            return;
        };
        let proof = self.proof(name, *epoch);
        let fails = self.nodes[name].fails.iter().any(|wanted| wanted == word(task));
        let ends = self.daemon(name).job.as_ref().map(|(_, ends)| *ends);
        let server = &mut self.node(name).server;
        server.doomed = proof.err();
        if let (Task::Promote { epoch, above }, Some(ends), None, false) = (task, ends, &server.doomed, fails)
        {
            server.promotes = Some((ends, *epoch, *above));
        }
    }

    fn unless_doomed(&mut self, name: &NodeName) -> Result<(), String> {
        self.node(name).server.doomed.take().map_or(Ok(()), Err)
    }

    /// Postgres ends recovery by itself once it was told to, whatever has become of the daemon.
    pub(super) fn promote_unattended(&mut self, name: &NodeName) {
        let now = self.now;
        let server = &mut self.node(name).server;
        let Some((_, epoch, above)) = server.promotes.take_if(|(ends, ..)| *ends <= now) else { return };
        if !server.answers() || server.primary {
            return;
        }
        let local = self.clock(name);
        let server = &mut self.node(name).server;
        if server.torn {
            server.crash(Process::Gone);
            server.crashed = Some(local);
            server.doomed = Some("it panicked: invalid magic number 0000".into());
            return;
        }
        self.loss_is_bounded(name);
        self.mints += 1;
        let mint = self.mints;
        let server = &mut self.node(name).server;
        server.promote(mint, above);
        server.reign = Some(epoch);
        server.unreplayed = 0;
        if self.nodes[name].daemon.is_none() || self.nodes[name].stopped.daemon.is_some() {
            self.hit("F04");
        }
    }

    fn promoted(&mut self, name: &NodeName) -> Result<(), String> {
        self.unless_doomed(name)?;
        let server = &self.nodes[name].server;
        if !server.answers() {
            return Err("the server does not answer".into());
        }
        if server.primary { Ok(()) } else { Err("it is still in recovery".into()) }
    }

    /// The executor proves by a transaction that the lease is held before anything becomes writable.
    fn proof(&mut self, name: &NodeName, epoch: Epoch) -> Result<(), String> {
        let connected = self.connected(name);
        if self.unguarded(name).is_some() && self.planted != Some(Fault::NoFencer) {
            return Err("there is no fencer".into());
        }
        let ours =
            self.store.leader.as_ref().is_some_and(|leader| leader.name == *name && leader.epoch == epoch);
        if !connected || !ours {
            return Err("the lease cannot be proven".into());
        }
        Ok(())
    }

    fn start_standby(
        &mut self,
        name: &NodeName,
        upstream: Option<coordinator::Upstream>,
    ) -> Result<(), String> {
        let now = self.clock(name);
        let server = &mut self.node(name).server;
        if server.process != Process::Gone {
            return Err("it runs already".into());
        }
        let Some(dir) = &server.dir else { return Err("there is no data directory".into()) };
        if dir.marker.is_some() {
            self.broken(format!("{name} started a directory that an interrupted act left unusable"));
            return Err("toxic".into());
        }
        server.start(false, upstream);
        self.standby_list(name);
        let server = &mut self.node(name).server;
        server.hung = server.torn.then_some(now);
        Ok(())
    }

    /// A clean stop sends everything to the standbys that stream.
    fn stop_cleanly(&mut self, name: &NodeName) {
        if self.nodes[name].server.process == Process::Postmaster
            && self.nodes[name].server.primary
            && let Some(dir) = &mut self.node(name).server.dir
        {
            dir.shutdown_checkpoint();
            self.pump_all();
            let server = &mut self.node(name).server;
            server.process = Process::Gone;
            server.streaming = false;
            server.hung = None;
            server.suspended = false;
            if let Some(dir) = &mut server.dir {
                dir.to_recover = 0;
            }
            return;
        }
        self.node(name).server.stop();
    }

    fn source(&mut self, name: &NodeName, from: &NodeName) -> Result<Dir, String> {
        if !self.linked(name, from) {
            return Err(format!("{from} cannot be reached"));
        }
        let source = &self.nodes[from].server;
        match &source.dir {
            Some(dir) if source.answers() => Ok(dir.clone()),
            _ => Err(format!("{from} does not take connections")),
        }
    }

    fn clone_from(&mut self, name: &NodeName, from: &NodeName) -> Result<(), String> {
        let source = self.source(name, from)?;
        if self.nodes[name].server.dir.is_some() {
            return Err("the data directory is not empty".into());
        }
        let dir = Dir { state: ControlState::InArchiveRecovery, signal: true, marker: None, ..source };
        self.node(name).server.dir = Some(dir);
        self.node(name).server.slots.clear();
        Ok(())
    }

    fn rewind_from(&mut self, name: &NodeName, from: &NodeName) -> Result<(), String> {
        let source = self.source(name, from)?;
        if !self.nodes[from].server.primary {
            return Err(format!("{from} is in recovery"));
        }
        let Some(dir) = &mut self.node(name).server.dir else {
            return Err("there is nothing to rewind".into());
        };
        if dir.wal.timeline() != source.wal.timeline() {
            dir.floor = Some(Lsn(dir.wal.end));
            let fork = dir.wal.common(&source.wal);
            dir.wal = source.wal;
            dir.wal.cut(fork);
        }
        dir.state = ControlState::InArchiveRecovery;
        dir.signal = true;
        dir.marker = None;
        Ok(())
    }

    /// Custody's answer before anything is stopped.
    pub(super) fn consent(&self, name: &NodeName) -> Consent {
        let leader = self.store.leader.as_ref().map(|leader| leader.name.clone());
        let proves = leader.is_some_and(|leader| {
            let server = self.nodes.get(&leader).map(|node| &node.server);
            self.linked(name, &leader) && server.is_some_and(|server| server.writable() && server.answers())
        });
        if proves { Consent::Given } else { Consent::Refused("the leader does not answer SQL".into()) }
    }

    /// Custody's part: only with a grown-up proof is a directory moved aside.
    fn retire(&mut self, name: &NodeName, grounds: Grounds, leader: Option<&NodeName>) -> Result<(), String> {
        if self.nodes[name].server.process != Process::Gone {
            return Err("refused: processes of the instance are left".into());
        }
        if self.nodes[name].server.unreadable {
            return Err("refused: the data directory cannot be read".into());
        }
        let unfinished = self.nodes[name].server.dir.as_ref().and_then(|dir| dir.marker);
        match leader {
            None if grounds == Grounds::UnfinishedBootstrap && unfinished == Some(Unfinished::Bootstrap) => {}
            None => return Err("refused: nothing proves another copy".into()),
            Some(leader) => {
                let holds = self.store.leader.as_ref().is_some_and(|held| held.name == *leader);
                let writable = self.nodes.get(leader).is_some_and(|node| node.server.writable());
                if !holds || !writable || !self.linked(name, leader) {
                    return Err(format!("refused: {leader} does not prove to lead and to take writes"));
                }
            }
        }
        self.leaves_a_copy(name);
        self.node(name).server.dir = None;
        Ok(())
    }
}

/// What initdb leaves.
fn empty(system_id: SystemId) -> Dir {
    let first = Branch { timeline: 1, mint: system_id.0, from: 0 };
    Dir::new(system_id, Wal { branches: vec![first], end: 0x100 }, ControlState::ShutDown)
}
