//! A state of the model: three nodes, a store, and what is left of the faults. It holds what `decide` reads, in as few
//! bits as that needs, and, apart in [`Ghost`], what only the laws look at. Plain data; nothing here moves.

pub use super::mind::{Ended, Force, Intent, Job, Lineage, Memory, Peer, Said, Setback, Work};

/// How many nodes there are.
pub const NODES: usize = 3;
/// How many timelines a run may make.
pub const MINTS: usize = 5;

/// A revision of the store: only the order of those in a state counts. 0 is none.
pub type Rev = u8;
/// A position in the log: one per record. 0 is none.
pub type Pos = u8;
/// A node.
pub type Id = u8;

/// A moment as one node tells it: see `moment.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Stamp(pub u8);

/// The world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct State {
    /// The hosts.
    pub nodes: [Node; NODES],
    /// The store.
    pub store: Store,
    /// Every timeline that was ever made, the first included.
    pub mints: [Option<Mint>; MINTS],
    /// Faults, writes and wishes still to come.
    pub left: Left,
    /// What `decide` never sees.
    pub ghost: Ghost,
}

/// What may still happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Left {
    /// Crashes of a host or of its server.
    pub crashes: u8,
    /// Freezes of a daemon.
    pub pauses: u8,
    /// Hosts cut off.
    pub cuts: u8,
    /// Writes of clients.
    pub writes: u8,
    /// Switchovers that people ask for.
    pub switchovers: u8,
    /// Writes to the store whose answer is lost.
    pub lost: u8,
    /// Views that are late.
    pub lags: u8,
    /// Reigns after the first.
    pub reigns: u8,
}

/// What the laws need to remember.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Ghost {
    /// By timeline: the last commit that a client was told of in a synchronous mode.
    pub promised: [Pos; MINTS],
    /// The last epoch that was given out.
    pub epoch: Rev,
    /// The law that the last action broke.
    pub broken: Option<Law>,
}

/// What must never happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Law {
    /// Something became writable without a fresh lease.
    Lease,
    /// An epoch that is not above the last.
    Epoch,
    /// A directory started that an interrupted act left unusable, or that is not there.
    Toxic,
    /// A standby takes the log of a history that is not its own.
    History,
    /// The lease was given back while the server takes writes.
    Release,
    /// A step that the model does not know how to carry out.
    Unknown,
}

/// A timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mint {
    /// Its number.
    pub number: u8,
    /// Which one it left.
    pub parent: u8,
    /// Where.
    pub from: Pos,
}

/// The store: its records, and how many ticks ago what expires was last renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Store {
    /// What a view shows.
    pub records: Records,
    /// Of the leader key.
    pub leader_age: u8,
    /// Of the member records.
    pub member_age: [u8; NODES],
    /// A write of the sync record that is still under way, although nobody waits for its answer any more.
    pub flight: Option<Sync>,
}

/// The records at one revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Records {
    /// The revision.
    pub revision: Rev,
    /// The leader key.
    pub leader: Option<Key>,
    /// The member records.
    pub members: [Option<Record>; NODES],
    /// The record of synchronous standbys.
    pub sync: Option<Sync>,
    /// The timeline that the history says is current.
    pub timeline: u8,
    /// A switchover that people asked for.
    pub failover: Option<Wished>,
}

/// The leader key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Whose.
    pub node: Id,
    /// Its create revision.
    pub epoch: Rev,
    /// Its mod revision.
    pub revision: Rev,
}

/// A member record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Record {
    /// It takes writes.
    pub primary: bool,
    /// Its server runs.
    pub running: bool,
    /// It has not checkpointed on its timeline yet.
    pub pending: bool,
    /// Its timeline.
    pub timeline: u8,
}

/// The record of synchronous standbys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sync {
    /// Whose.
    pub leader: Id,
    /// With how many others each must compare itself.
    pub quorum: u8,
    /// Who, a bit each.
    pub standbys: u8,
    /// Its mod revision; of a write under way, the one that it replaces.
    pub revision: Rev,
}

/// A switchover that people asked for, from the leader of that moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Wished {
    /// Who gives up.
    pub leader: Id,
    /// To whom, if that matters.
    pub candidate: Option<Id>,
    /// Its mod revision.
    pub revision: Rev,
}

/// A host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Node {
    /// Its server and directory.
    pub server: Server,
    /// Its daemon, while it runs.
    pub daemon: Option<Daemon>,
    /// From what it is cut off.
    pub cut: Cut,
}

/// From what a host is cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cut {
    /// Nothing.
    No,
    /// The store.
    Store,
    /// Everybody.
    All,
}

/// What lies in a data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dir {
    /// Nothing.
    Empty,
    /// What an interrupted rewind left.
    Toxic,
    /// A data directory.
    Whole,
}

/// What `pg_control` says of how the last server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Control {
    /// A primary, cleanly.
    ShutDown,
    /// A standby, cleanly.
    ShutDownInRecovery,
    /// A standby runs or ran.
    InRecovery,
    /// A primary runs or ran.
    InProduction,
}

/// The processes of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Process {
    /// None.
    Gone,
    /// A postmaster.
    Up,
    /// Some, without a postmaster.
    Remnants,
}

/// A server and its directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Server {
    /// What lies there.
    pub dir: Dir,
    /// The processes.
    pub process: Process,
    /// It takes writes.
    pub primary: bool,
    /// Its timeline.
    pub mint: u8,
    /// Where its log ends.
    pub end: Pos,
    /// How it ended, or runs.
    pub control: Control,
    /// `standby.signal` is there.
    pub signal: bool,
    /// It has checkpointed on its timeline.
    pub settled: bool,
    /// Whom its settings make it follow.
    pub upstream: Option<Id>,
    /// `synchronous_standby_names` in the file.
    pub file: Names,
    /// As the server has read it.
    pub names: Names,
    /// What some process may still work by, until the next tick.
    pub stale: [Option<Names>; 2],
    /// Commits of which nobody was told yet, a bit for each position.
    pub waiting: u16,
    /// How many ticks ago the proof was sent by which the fencer's deadline stands; absent: it is not armed.
    pub fence: Option<u8>,
    /// When it ended on its own.
    pub crashed: Option<Stamp>,
    /// When it ended.
    pub down: Option<Stamp>,
}

/// A list of those for whom commits wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Names {
    /// Nobody.
    #[default]
    Nobody,
    /// One who cannot exist.
    Forever {
        /// As `ANY`.
        any: bool,
    },
    /// These, a bit each.
    For {
        /// Who.
        mask: u8,
        /// How many of them.
        count: u8,
        /// As `ANY`.
        any: bool,
    },
}

/// A running daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Daemon {
    /// It is stopped, its lease thread too.
    pub frozen: bool,
    /// The view that it has, if that is not the store's present one.
    pub view: Option<Records>,
    /// The leader lease.
    pub held: Option<Held>,
    /// The last epoch that it gave up itself.
    pub released: Rev,
    /// The revision of its last write of the sync record.
    pub written: Rev,
    /// How that ended is not known.
    pub doubtful: bool,
    /// The job that runs.
    pub job: Option<Job>,
    /// How the last one ended.
    pub ended: Option<Ended>,
    /// The leader's history.
    pub history: Option<Lineage>,
    /// What others answered.
    pub peers: [Option<Peer>; NODES],
    /// What it remembers between turns.
    pub memory: Memory,
}

/// The leader lease of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Held {
    /// The reign.
    pub epoch: Rev,
    /// The mod revision of the key.
    pub revision: Rev,
    /// How many ticks ago the last renewal was sent: with 2 the node steps down, with 3 the fencer kills.
    pub age: u8,
}
