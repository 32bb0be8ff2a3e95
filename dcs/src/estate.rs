//! What a cluster keeps in a store for good: its records without leases, for copies, backups and restoring them.
//! Leader and members are no part of it: they live under leases, and nobody may write them for another.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::cluster::Dcs;
use crate::keys::{Keys, Place};
use crate::store::{Condition, Snapshot, StoreError, Txn, Write};
use crate::view::Abode;
use crate::{SystemId, text};

/// The permanent records of a cluster, as they were at one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Estate {
    generation: u64,
    /// Path below the cluster's → text and mod revision.
    records: BTreeMap<String, (String, i64)>,
}

/// What a backup begins with.
const FORMAT: &str = "matriarch store dump";
/// The version of the backup's form.
const VERSION: u32 = 1;
/// The most records of a transaction: etcd allows 128 operations by default.
const MOST: usize = 100;

/// A backup of a cluster's records, as it is written to a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dump {
    format: String,
    version: u32,
    /// The path of the cluster's keys.
    pub cluster: String,
    /// The section of the configuration that names the store (`raft`, `etcd3`).
    pub store: String,
    /// When it was taken, as ISO 8601.
    pub taken: String,
    /// The store's revision then, with the generation in front.
    pub revision: i64,
    /// How many stores the cluster had lived in.
    pub generation: u64,
    /// The highest epoch that the store knew of.
    pub epoch: i64,
    /// Who led.
    pub leader: Option<String>,
    /// The text of each record, by its path below the cluster's.
    pub records: BTreeMap<String, String>,
    /// SHA-256 of all of the above.
    checksum: String,
}

/// Why a backup cannot be used, or was not restored.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// It is no backup.
    #[error("this is no file of matriarchctl store dump: {0}")]
    Form(String),
    /// It was changed after it was written.
    #[error("the file is damaged: its checksum is {found}, and {written} is written in it; use another copy")]
    Damaged {
        /// As computed.
        found: String,
        /// As written.
        written: String,
    },
    /// It is of a cluster with another name.
    #[error(
        "the file is of the cluster at {theirs}, and this is {ours}: check scope and namespace, or the file"
    )]
    OtherName {
        /// The path in the file.
        theirs: String,
        /// The path of the configuration.
        ours: String,
    },
    /// It is of another cluster.
    #[error(
        "the file is of the cluster with system identifier {theirs}, and the store has {ours}: nothing was written"
    )]
    OtherCluster {
        /// The identifier in the file.
        theirs: String,
        /// The identifier in the store.
        ours: SystemId,
    },
    /// Somebody leads.
    #[error(
        "{0} holds the leader lease in this store: only the records of a cluster without a leader can be replaced; stop its daemons first"
    )]
    Led(String),
    /// The store has seen more than the backup.
    #[error(
        "the file is older than the store: it ends with epoch {theirs} of generation {their_generation}, the store has \
         epoch {ours} of generation {generation}; nothing was written. If the file is wanted all the same, take the \
         cluster's records away first (matriarchctl remove)"
    )]
    Older {
        /// The epoch in the file.
        theirs: i64,
        /// The generation in the file.
        their_generation: u64,
        /// The epoch in the store.
        ours: i64,
        /// The generation in the store.
        generation: u64,
    },
    /// Somebody wrote meanwhile.
    #[error("somebody wrote into the store meanwhile, so nothing was written: look who leads, and try again")]
    Raced,
    /// The store's answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Estate {
    fn of(keys: &Keys, snapshot: &Snapshot, generation: u64) -> Self {
        let kept = snapshot.records.iter().filter(|record| record.lease == 0 && is_kept(keys, &record.key));
        let records = kept.filter_map(|record| {
            let path = record.key.strip_prefix(&keys.prefix())?.to_owned();
            Some((path, (record.value.clone(), record.modified)))
        });
        Self { generation: generation.max(1), records: records.collect() }
    }

    /// How many stores the cluster has lived in.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// The identity of the cluster.
    pub(crate) fn system_id(&self) -> Option<SystemId> {
        text::initialize(&self.records.get("initialize")?.0).system_id()
    }

    /// What makes the permanent records of a store that is as `snapshot` shows the same as these.
    pub(crate) fn writes(&self, keys: &Keys, snapshot: &Snapshot) -> Vec<Write> {
        let texts = self.records.iter().map(|(path, (value, _))| (path.as_str(), value.as_str()));
        writes(keys, snapshot, texts)
    }

    /// That nothing has changed since that anybody decides by; the leader's position always does.
    pub(crate) fn conditions(&self, keys: &Keys) -> Vec<Condition> {
        let at = |key: &str| {
            let path = key.strip_prefix(&keys.prefix()).unwrap_or_default();
            self.records.get(path).map_or(0, |(_, modified)| *modified)
        };
        [Place::Initialize, Place::Config, Place::History, Place::Failover, Place::Sync, Place::Failsafe]
            .iter()
            .map(|place| keys.path(place))
            .map(|key| Condition::Modified(key.clone(), at(&key)))
            .collect()
    }
}

/// Whether a permanent record goes along with its cluster.
fn is_kept(keys: &Keys, key: &str) -> bool {
    !matches!(
        keys.place(key),
        Some(Place::Leader | Place::Member(_) | Place::Generation | Place::Reign | Place::Bootstrap)
    )
}

fn writes<'a>(
    keys: &Keys,
    snapshot: &Snapshot,
    wanted: impl Iterator<Item = (&'a str, &'a str)> + Clone,
) -> Vec<Write> {
    let path = |relative: &str| format!("{}{relative}", keys.prefix());
    let stale = snapshot.records.iter().filter(|record| {
        record.lease == 0
            && is_kept(keys, &record.key)
            && !wanted.clone().any(|(relative, _)| path(relative) == record.key)
    });
    let mut all: Vec<Write> = stale.map(|record| Write::Delete(record.key.clone())).collect();
    all.extend(wanted.map(|(relative, value)| Write::Put {
        key: path(relative),
        value: value.to_owned(),
        lease: 0,
    }));
    all
}

impl Dump {
    /// Reads a backup and checks that it is whole.
    ///
    /// # Errors
    /// [`DumpError::Form`] and [`DumpError::Damaged`].
    pub fn read(text: &str) -> Result<Self, DumpError> {
        let dump: Self = serde_json::from_str(text).map_err(|error| DumpError::Form(error.to_string()))?;
        if dump.format != FORMAT || dump.version != VERSION {
            let found =
                format!("it says {:?} version {}, known is version {VERSION}", dump.format, dump.version);
            return Err(DumpError::Form(found));
        }
        let found = dump.sum();
        if found != dump.checksum {
            return Err(DumpError::Damaged { found, written: dump.checksum });
        }
        Ok(dump)
    }

    /// The backup as text, for people and for [`Dump::read`].
    #[must_use]
    pub fn text(&self) -> String {
        // Plain fields always have a text.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }

    /// The identity of the cluster.
    #[must_use]
    pub fn system_id(&self) -> Option<SystemId> {
        text::initialize(self.records.get("initialize")?).system_id()
    }

    fn sum(&self) -> String {
        let blank = Self { checksum: String::new(), ..self.clone() };
        let text = serde_json::to_vec(&blank).unwrap_or_default();
        let digest = ring::digest::digest(&ring::digest::SHA256, &text);
        digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl Dcs {
    /// The cluster's permanent records, linearizably, at one revision.
    ///
    /// # Errors
    /// Never [`StoreError::Unknown`]. [`StoreError::Refused`] if there are more than a transaction can write.
    pub async fn estate(&self) -> Result<Estate, StoreError> {
        let (view, snapshot) = self.read_all().await?;
        let estate = Estate::of(self.keys(), &snapshot, view.generation);
        if estate.records.len() > MOST {
            let many = format!(
                "{} records are below {}, more than fit into one transaction ({MOST})",
                estate.records.len(),
                self.keys().base()
            );
            return Err(StoreError::Refused(many));
        }
        Ok(estate)
    }

    /// A backup of the cluster's permanent records; `store` is the section that names the store.
    ///
    /// # Errors
    /// As [`Dcs::estate`].
    pub async fn dump(&self, store: &str) -> Result<Dump, StoreError> {
        let (view, snapshot) = self.read_all().await?;
        let estate = Estate::of(self.keys(), &snapshot, view.generation);
        let mut dump = Dump {
            format: FORMAT.to_owned(),
            version: VERSION,
            cluster: self.keys().base().to_owned(),
            store: store.to_owned(),
            taken: jiff::Timestamp::now().to_string(),
            revision: snapshot.revision.0,
            generation: estate.generation,
            epoch: view.epoch().0,
            leader: view.leader.map(|leader| leader.name.to_string()),
            records: estate.records.into_iter().map(|(path, (value, _))| (path, value)).collect(),
            checksum: String::new(),
        };
        dump.checksum = dump.sum();
        Ok(dump)
    }

    /// Makes the cluster's permanent records those of a backup. Guards: it is of this cluster, nobody leads, and
    /// the store has seen no reign after the backup's last. Where the store might count from below the backup's last
    /// epoch, a new generation begins. Returns how many records were written.
    ///
    /// # Errors
    /// Each guard has its own; [`StoreError::Unknown`] if the outcome is not known: asking again is safe.
    pub async fn restore(&self, dump: &Dump) -> Result<usize, DumpError> {
        if dump.cluster != self.keys().base() {
            let (theirs, ours) = (dump.cluster.clone(), self.keys().base().to_owned());
            return Err(DumpError::OtherName { theirs, ours });
        }
        let (here, snapshot) = self.read_all().await?;
        if let Some(leader) = &here.leader {
            return Err(DumpError::Led(leader.name.to_string()));
        }
        if let Some(ours) = here.initialize.system_id()
            && dump.system_id() != Some(ours)
        {
            let theirs = dump.system_id().map_or_else(|| "unknown".to_owned(), |id| id.to_string());
            return Err(DumpError::OtherCluster { theirs, ours });
        }
        let begun = match here.abode() {
            Abode::Moving(stand) => stand.passage().generation,
            Abode::Here(generation) => generation,
            Abode::Nowhere => here.generation,
        };
        if dump.epoch < here.epoch().0 || dump.generation < begun {
            let (theirs, their_generation) = (dump.epoch, dump.generation);
            let ours = here.epoch().0;
            return Err(DumpError::Older { theirs, their_generation, ours, generation: begun });
        }
        let goes_on = snapshot.revision.0 > dump.epoch && here.passage.is_none();
        let generation = if goes_on {
            here.generation.max(1)
        } else {
            dump.generation.max(here.generation).max(begun) + 1
        };
        let modified = |place: &Place| {
            let key = self.path(place);
            let found = snapshot.records.iter().find(|record| record.key == key);
            Condition::Modified(key, found.map_or(0, |record| record.modified))
        };
        let when = [Place::Leader, Place::Generation, Place::Reign].iter().map(modified).collect();
        let texts = dump.records.iter().map(|(path, value)| (path.as_str(), value.as_str()));
        let mut then = writes(self.keys(), &snapshot, texts);
        then.push(Write::Delete(self.path(&Place::Leader)));
        if generation > 1 {
            let key = self.path(&Place::Generation);
            then.push(Write::Put { key, value: generation.to_string(), lease: 0 });
        }
        let done = self.commit(&Txn { when, then, read: None }).await;
        self.home().forget();
        if done?.held { Ok(dump.records.len()) } else { Err(DumpError::Raced) }
    }
}
