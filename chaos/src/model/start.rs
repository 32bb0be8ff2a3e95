//! Where a run begins: three healthy nodes, one of which leads, with nothing left to do.

use config::{ClusterConfig, SynchronousMode};

use super::act::Action;
use super::canon::canonical;
use super::moment::TTL;
use super::planted::Fault;
use super::state::{
    Control, Cut, Daemon, Dir, Ghost, Held, Key, MINTS, Mint, NODES, Names, Node, Process, Records, Server,
    State, Store, Sync,
};
use super::{Mode, Model};

/// The settings of the cluster.
#[must_use]
pub fn settings(mode: Mode) -> ClusterConfig {
    ClusterConfig {
        ttl: TTL,
        use_slots: false,
        use_pg_rewind: true,
        maximum_lag_on_failover: u64::MAX,
        synchronous_mode: match mode {
            Mode::Off => SynchronousMode::Off,
            Mode::On | Mode::Strict => SynchronousMode::On,
            Mode::Quorum => SynchronousMode::Quorum,
        },
        synchronous_mode_strict: mode == Mode::Strict,
        ..ClusterConfig::default()
    }
}

/// How often everybody takes a turn before the run begins.
const ROUNDS: usize = 24;

impl Model {
    /// The first state: a cluster in which nobody has anything left to do.
    #[must_use]
    pub fn begins(&self) -> State {
        let sound = Self { planted: None, table: std::sync::Arc::default(), ..self.clone() };
        let (mut state, _) = canonical(sound.newborn());
        for _ in 0..ROUNDS {
            for action in sound.choices(&state) {
                let quiet = matches!(
                    action,
                    Action::Turn { stale: false, swapped: false, lost: false, .. }
                        | Action::Reload(_)
                        | Action::Replicate(_)
                        | Action::Finish(_)
                        | Action::Tick
                );
                if quiet {
                    // The names of the nodes do not matter: whoever moves, moves.
                    state = sound.follows(&state, action).map_or(state, |(next, _)| next);
                }
            }
        }
        self.spoil(&mut state);
        canonical(state).0
    }

    /// Where a planted fault shows soonest: something has happened already.
    fn spoil(&self, state: &mut State) {
        let leader = state.nodes.iter().position(|node| node.server.primary).unwrap_or(0);
        let followers: Vec<usize> = (0..NODES).filter(|node| *node != leader).collect();
        let listed = |state: &State, node: &&usize| {
            state.store.records.sync.is_some_and(|sync| sync.standbys & (1 << **node) != 0)
        };
        match self.planted {
            Some(Fault::MarkForgotten) => {
                let server = state.server(*followers.first().unwrap_or(&0));
                (server.dir, server.process) = (Dir::Toxic, Process::Gone);
            }
            Some(Fault::RecordForgotten | Fault::QuorumForgotten) => {
                // One standby has the last commit, and its host is down, and the leader's.
                let has = followers.iter().find(|node| listed(state, node)).copied().unwrap_or(0);
                let (has, leads) = (u8::try_from(has).unwrap_or(0), u8::try_from(leader).unwrap_or(0));
                let so_far = [
                    Action::Write(leads),
                    Action::Replicate(has),
                    Action::CrashHost(has),
                    Action::CrashHost(leads),
                ];
                for action in so_far {
                    *state = self.happens(state, action).unwrap_or(*state);
                }
            }
            Some(Fault::GuardIgnored) => {
                // Under way is a record that names the one who no longer acknowledges.
                let other = followers.iter().find(|node| !listed(state, node)).copied().unwrap_or(0);
                let late =
                    state.store.records.sync.map(|sync| Sync { standbys: 1 << other, revision: 0, ..sync });
                state.store.flight = late;
            }
            Some(Fault::TwinTimelines) => {
                // Two have promoted at the same place, and one of them has crashed.
                let first = Mint { number: 2, parent: 0, from: 2 };
                (state.mints[1], state.mints[2]) = (Some(first), Some(first));
                let server = state.server(leader);
                (server.mint, server.end) = (1, 4);
                let twin = state.server(*followers.first().unwrap_or(&0));
                (twin.mint, twin.end, twin.process, twin.signal) = (2, 3, Process::Gone, false);
                twin.control = Control::InProduction;
            }
            _ => {}
        }
    }

    fn newborn(&self) -> State {
        let server = |node: usize| Server {
            dir: Dir::Whole,
            process: Process::Up,
            primary: node == 0,
            mint: 0,
            end: 2,
            control: if node == 0 { Control::InProduction } else { Control::InRecovery },
            signal: node != 0,
            settled: true,
            upstream: (node != 0).then_some(0),
            file: Names::Nobody,
            names: Names::Nobody,
            stale: [None; 2],
            waiting: 0,
            fence: (node == 0).then_some(0),
            crashed: None,
            down: None,
        };
        let node = |node: usize| {
            let held = (node == 0).then_some(Held { epoch: 1, revision: 1, age: 0 });
            Node { server: server(node), daemon: Some(Daemon { held, ..Daemon::new() }), cut: Cut::No }
        };
        let mut mints = [None; MINTS];
        mints[0] = Some(Mint { number: 1, parent: 0, from: 0 });
        State {
            nodes: std::array::from_fn(node),
            store: Store {
                records: Records {
                    revision: 1,
                    leader: Some(Key { node: 0, epoch: 1, revision: 1 }),
                    members: [None; NODES],
                    sync: None,
                    timeline: 1,
                    failover: None,
                },
                leader_age: 0,
                member_age: [0; NODES],
                flight: None,
            },
            mints,
            left: self.left,
            ghost: Ghost { epoch: 1, ..Ghost::default() },
        }
    }
}
