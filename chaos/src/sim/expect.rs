//! What a script expects at some moment.

use coordinator::Process;

use super::World;
use super::verbs::{Done, known};

impl World {
    /// Whether the leader has every acknowledged write.
    fn keeps_everything(&self) -> bool {
        let leader = self.store.leader.as_ref().and_then(|leader| self.nodes.get(&leader.name));
        let wal = leader.and_then(|node| Some(&node.server.dir.as_ref()?.wal));
        wal.is_some_and(|wal| self.law.acknowledged.iter().all(|written| written.is_part_of(wal)))
    }

    /// `expect leader n2`, `expect nobody leads`, `expect streaming n1`, `expect primary n1`, `expect nothing lost` …
    pub(super) fn expect(&mut self, what: &[&str]) -> Done {
        let leader = self.store.leader.as_ref().map(|leader| leader.name.to_string());
        let met = match what {
            ["leader", name] => {
                leader.as_deref() == Some(*name) && {
                    let name = known(self, name)?;
                    self.nodes[&name].server.writable()
                }
            }
            ["nobody", "leads"] => leader.is_none(),
            ["sync", wanted @ ..] => self.synchronous_are(wanted),
            ["waiting", name] => !self.nodes[&known(self, name)?].server.waiting.is_empty(),
            ["nothing", "lost"] => self.keeps_everything(),
            ["something", "lost"] => !self.keeps_everything(),
            [state, name] => {
                let node = &self.nodes[&known(self, name)?];
                match *state {
                    "streaming" => node.server.streaming,
                    "primary" => node.server.writable(),
                    "open" => node.server.writable() && !node.server.closed,
                    "closed" => node.server.writable() && node.server.closed,
                    "stopped" => node.server.process == Process::Gone,
                    "standby" => node.server.process == Process::Postmaster && !node.server.primary,
                    "exited" => node.exited.is_some(),
                    "data" => node.server.dir.is_some(),
                    _ => return Err("unknown expectation".into()),
                }
            }
            _ => return Err("unknown expectation".into()),
        };
        met.then_some(()).ok_or_else(|| format!("it is not so; leader: {leader:?}, {:?}", self.unwell()))
    }
}
