//! Putting one snapshot together from what the node holds. Nothing is judged here.

use coordinator::{Observation, Process, Running, Sender, Slot, Standby, Store, Unfinished, Upstream};
use dcs::{Lsn, Moment, Timeline};

use crate::custody::marker::Work;
use crate::fence::watchdog;
use crate::lineage;
use crate::node::Node;
use crate::postgres::look::Look;
use crate::postgres::{Conninfo, following, off_loop};

/// How long clearing a mark may hold up a turn.
const CLEAR: std::time::Duration = std::time::Duration::from_millis(500);

impl Node {
    /// The world as it is now.
    pub(crate) async fn observe(&mut self) -> Observation {
        self.want_watchdog();
        let seen = self.seen.borrow().clone();
        let tenure = self.keeper.tenure.borrow().clone();
        if tenure.leading().is_none() {
            self.instance.read_end(&self.settings).await;
        }
        let unfinished = self.unfinished();
        let mut data = self.instance.data(&self.settings, unfinished);
        if let (coordinator::Data::Present(control), Some(down)) = (&mut data, self.instance.down())
            && tenure.leading().is_some()
        {
            let (process, written) = (self.instance.process(), self.instance.written());
            control.end = control.end.or(self.crash.end(down, process, &self.settings.paths, written));
        }
        let postgres = self.postgres();
        let timeline = match (&postgres.running, &data) {
            (Some(running), _) => running.timeline,
            (None, coordinator::Data::Present(control)) => control.timeline,
            _ => Timeline::default(),
        };
        self.note_role(&postgres, tenure.leading().is_some()).await;
        let reachable = seen.reachable && (!tenure.silent || tenure.leading().is_some());
        let failover_due = seen.view.as_ref().and_then(|view| {
            let at = view.failover.as_ref()?.value.scheduled_at.as_deref()?;
            let (due, _) = api::wall::schedule(at).ok()?;
            Some(due.as_second() - api::wall::now().as_second())
        });
        Observation {
            now: Moment::now(),
            me: self.myself(),
            settings: self.settings.cluster.clone(),
            store: Store { view: seen.view, reachable, silent: tenure.silent, seen: seen.reached },
            // After the lease was looked at: see there.
            failsafe: self.failsafe.facts(),
            sync: self.sync,
            lease: tenure.held,
            released: tenure.released,
            arrival: tenure.arrival,
            restored: None,
            postgres,
            data,
            job: self.jobs.running(),
            ended: self.ended.clone(),
            leader_history: self.leader_history.clone(),
            switches: lineage::switches(&self.settings.paths, timeline),
            peers: self.peers.answers().clone(),
            floor: self.floor,
            failover_due,
            requests: self.open_requests(),
            ending: self.ending.clone(),
        }
    }

    /// The fencer keeps the watchdog that the settings in force ask for.
    fn want_watchdog(&self) {
        let (section, cluster) = (&self.settings.node.watchdog, &self.settings.cluster);
        let clock = self.ways.present().clock();
        let fence = &self.keeper.flags.fence;
        fence.watch(watchdog::wanted(section, cluster.ttl, cluster.loop_wait, clock));
        fence.complain();
    }

    /// What this node is and may be: without a fencer it may not lead.
    pub(crate) fn myself(&self) -> coordinator::Myself {
        let mut myself = self.settings.myself();
        myself.withheld.extend(self.keeper.tenure.borrow().unguarded.clone());
        myself.withheld.extend(self.keeper.flags.fence.unwatched());
        myself
    }

    /// Whether everybody can see that this node is paused: before that its promises hold (design: fencing).
    pub(crate) fn pause_is_published(&self) -> bool {
        let view = self.seen.borrow().view.clone();
        let me = &self.settings.node.name;
        self.published.member.as_ref().is_some_and(|(record, ..)| record.pause)
            || view.is_some_and(|view| view.members.get(me).is_some_and(|record| record.pause))
    }

    /// What was interrupted in the data directory, by the marks beside it. A bootstrap that this
    /// very process runs is not interrupted; a finished rewind only sets a floor.
    fn unfinished(&mut self) -> Option<Unfinished> {
        let found = self.instance.on_disk()?;
        let begun = found.bootstrap.is_some();
        if let Some(mark) = &found.rewind {
            if !mark.done {
                return Some(Unfinished::Rewind);
            }
            self.floor = mark.floor.map(Lsn);
        }
        (begun && !self.past.creates(self.ended.as_ref())).then_some(Unfinished::Bootstrap)
    }

    fn postgres(&mut self) -> coordinator::Postgres {
        let running = self.instance.look().cloned().map(|(at, look)| running(at, &look));
        let process = self.instance.process();
        let primary = running.as_ref().is_some_and(|running| running.standby.is_none());
        let upstream = (process == Process::Postmaster && !primary).then(|| self.upstream()).flatten();
        coordinator::Postgres {
            process,
            running,
            upstream,
            silent_since: self.instance.silent_since(),
            frozen: self.instance.frozen(),
            crashed: self.instance.crashed(),
            down: self.instance.down(),
        }
    }

    /// Whom the configuration files make the server follow. A server that was found
    /// running tells by its files; the member is looked up by its address.
    pub(crate) fn upstream(&mut self) -> Option<Upstream> {
        let (paths, view) = (self.settings.paths.clone(), self.seen.borrow().view.clone());
        self.instance.following(move || {
            let set = following::settings(&paths);
            let conninfo = Conninfo::parse(set.get("primary_conninfo")?)?;
            let host = conninfo.get("host")?.to_owned();
            let port = conninfo.get("port").and_then(|port| port.parse().ok()).unwrap_or(5432);
            let slot = set.get("primary_slot_name").filter(|slot| !slot.is_empty()).cloned();
            let view = view?;
            let member = view.members.iter().find(|(_, member)| {
                member.conn_url.as_deref().and_then(coordinator::address) == Some((host.clone(), port))
            });
            Some(Upstream { member: member?.0.clone(), host, port, slot })
        })
    }

    /// The hard deadline is enforced as soon as the server may be writable, and no longer than that.
    async fn note_role(&mut self, postgres: &coordinator::Postgres, leading: bool) {
        match &postgres.running {
            Some(running) if running.standby.is_none() => {
                if let Some(postmaster) = self.instance.postmaster() {
                    self.keeper.flags.cover(&postmaster);
                }
                self.keeper.flags.arm(&self.settings.paths);
            }
            Some(_) if self.jobs.running().is_none() => self.keeper.flags.disarm(),
            _ => {}
        }
        if let (Some(floor), Some(running)) = (self.floor, &postgres.running)
            && (running.position >= floor || leading)
        {
            self.floor = None;
            self.instance.rewritten();
            let paths = self.settings.paths.clone();
            let cleared = off_loop(move || Work::Rewind.clear(&paths));
            // On a hung disk it goes on by itself.
            if let Ok(Err(error)) = tokio::time::timeout(CLEAR, cleared).await {
                tracing::warn!("the mark of the rewind stays: {error}");
            }
        }
    }
}

fn running(at: Moment, look: &Look) -> Running {
    let standby = look.in_recovery.then(|| Standby {
        received: Some(look.received).filter(|at| *at > Lsn(0)),
        replayed: look.replayed,
        streaming: look.receiver.as_ref().is_some_and(|receiver| receiver.status == "streaming"),
        paused: look.replay_paused,
    });
    Running {
        at,
        system_id: look.system_id,
        version: look.version,
        timeline: look.timeline,
        standby,
        position: look.position(),
        slots: look
            .slots
            .iter()
            .map(|slot| Slot {
                name: slot.name.clone(),
                physical: slot.kind == "physical",
                active: slot.active,
                restart: slot.restart.map(Lsn),
            })
            .collect(),
        senders: look.senders.iter().filter_map(|sender| sender_of(sender, look)).collect(),
        standby_names: look.standby_names.clone(),
        quiet: look.quiet,
        closed: look.closed,
    }
}

/// Who follows the log; a backup, or one that has only connected, does not.
fn sender_of(sender: &crate::postgres::look::Sender, look: &Look) -> Option<Sender> {
    let state = sender.state.as_deref().filter(|state| matches!(*state, "streaming" | "catchup"))?;
    let slot = look.slots.iter().find(|slot| slot.active_pid == Some(sender.pid));
    Some(Sender {
        pid: sender.pid,
        name: sender.application_name.clone(),
        streaming: state == "streaming",
        flushed: sender.flush.map(Lsn),
        slot: slot.map(|slot| slot.name.clone()),
    })
}
