//! The cluster that a script begins with: running for a while already, or empty.

use std::time::Duration;

use config::NodeName;
use coordinator::ControlState;
use dcs::{Epoch, Initialize, Leader, Lsn, SystemId};

use super::World;
use super::node::Node;
use super::script::position;
use super::server::{Branch, Dir, Server, Wal};
use super::verbs::Done;

/// The identity of a cluster that a script begins with.
const CLUSTER: SystemId = SystemId(7000);

impl World {
    /// `cluster NODE=primary@TL/LSN NODE=replica@TL/LSN NODE=empty NODE=stopped@…`, quiet until it stands.
    pub(super) fn cluster(&mut self, parts: &[&str]) -> Done {
        self.quiet = true;
        let mut leader = None;
        for part in parts {
            let Some((name, how)) = part.split_once('=') else { return Err(format!("{part}: NODE=…")) };
            if matches!(name, "ttl" | "maximum_lag_on_failover") {
                self.setting(part)?;
                continue;
            }
            let (role, server) = self.server(how)?;
            let node = Node::new(name, server);
            let name = node.name.clone();
            let alone = role == "absent";
            self.nodes.insert(name.clone(), node);
            if !alone {
                self.start_node(&name);
            }
            if role == "primary" {
                leader = Some(name);
            }
        }
        if let Some(leader) = leader {
            self.found(&leader);
            self.run(Duration::from_secs(25));
        }
        self.begin_transcript();
        Ok(())
    }

    fn server(&mut self, how: &str) -> Result<(String, Server), String> {
        let (role, at) = how.split_once('@').unwrap_or((how, ""));
        let mut server = Server::default();
        if at.is_empty() {
            return Ok((role.to_owned(), server));
        }
        let (timeline, end) = at.split_once('/').ok_or("TIMELINE/POSITION")?;
        let last: u32 = timeline.parse().map_err(|_| "no timeline".to_owned())?;
        let end = position(end)?;
        let branch = |timeline: u32| Branch {
            timeline,
            mint: u64::from(timeline),
            from: u64::from(timeline - 1) * 0x10,
        };
        self.mints = self.mints.max(100);
        let id = if role == "foreign" { SystemId(1) } else { CLUSTER };
        let state = if role == "crashed" { ControlState::InProduction } else { ControlState::ShutDown };
        let wal = Wal { branches: (1..=last).map(branch).collect(), end };
        let signal = !matches!(role, "primary" | "crashed" | "stopped" | "absent");
        server.dir = Some(Dir { signal, ..Dir::new(id, wal, state) });
        match role {
            "primary" => server.start(true, None),
            "replica" => server.start(false, None),
            "frozen" => {
                server.start(false, None);
                server.frozen = true;
            }
            "crashed" | "stopped" | "absent" | "standby" | "foreign" => {}
            _ => {
                return Err(format!(
                    "{role}: primary, replica, standby, foreign, stopped, crashed, absent or empty"
                ));
            }
        }
        Ok((role.to_owned(), server))
    }

    /// The store as it is when this node has led for a while.
    fn found(&mut self, leader: &NodeName) {
        self.store.initialize = Initialize::Done(CLUSTER);
        self.store.identities.push(CLUSTER);
        let wal = self.nodes[leader].server.dir.as_ref().map(|dir| dir.wal.clone());
        let switches = wal.as_ref().map(Wal::switches).unwrap_or_default();
        self.store.status.optime = wal.map(|wal| Lsn(wal.end));
        let row = |(timeline, lsn)| dcs::HistoryRow {
            timeline,
            lsn,
            reason: String::new(),
            timestamp: None,
            leader: None,
        };
        self.store.history = Some(switches.into_iter().map(row).collect());
        let revision = self.store.commit();
        self.store.config = Some(revision);
        let timeline = self.nodes[leader].timeline().unwrap_or_default();
        let (name, revision) = (leader.clone(), self.store.commit());
        self.store.reign = Some(Epoch(revision.0));
        self.store.claimed = (revision, timeline);
        self.store.leader = Some(Leader { name, epoch: Epoch(revision.0), revision, lease: 0 });
    }
}
