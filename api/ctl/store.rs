//! `store`: who keeps the embedded store, and who shall. Of clusters and Postgres it says nothing.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::{Subcommand, ValueEnum};
use config::Address;
use dcs::{Dcs, Keys, StoreMember};

use crate::args::Force;
use crate::ask::{confirm, note, say};
use crate::output::{Cell, Format, Sheet};
use crate::reach::{STORE, place};
use crate::settings::Settings;
use crate::{backup, relocation};

/// A section of the configuration that names a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Section {
    /// The embedded store.
    Raft,
    /// etcd.
    Etcd3,
}

/// `store`.
#[derive(Debug, Subcommand)]
pub enum Store {
    /// Show the members of the embedded store
    Members {
        /// How to write them
        #[arg(short, long, value_enum, default_value = "pretty")]
        format: Format,
    },
    /// Let a member join that the store does not know yet; then start it with an empty raft.data_dir
    Add {
        /// Its raft.self_addr, HOST:PORT
        address: String,
    },
    /// Remove a member for good
    Remove {
        /// Its address or its identity, as store members shows them
        member: String,
        /// Also if those that are left and can be reached are no quorum: they may then be unable to write
        #[arg(long)]
        below_quorum: bool,
        #[command(flatten)]
        force: Force,
    },
    /// Move the running cluster to the store of another section, without restarting Postgres
    Move {
        /// The section of every member's configuration that names the new store
        #[arg(value_enum)]
        to: Section,
        #[command(flatten)]
        force: Force,
    },
    /// Write the cluster's records to a file
    Dump {
        /// The file [default: standard output]
        file: Option<PathBuf>,
    },
    /// Replace the cluster's records in the store by those of a file that dump has written; nobody may lead meanwhile
    Load {
        /// The file; - is standard input
        file: PathBuf,
        /// Into the store of this section, if the configuration names two
        #[arg(long, value_enum, value_name = "SECTION")]
        into: Option<Section>,
        #[command(flatten)]
        force: Force,
    },
}

/// Obeys one verb.
///
/// # Errors
/// If the store is another one, does not answer, or refuses.
pub async fn store(settings: &Settings, verb: &Store) -> anyhow::Result<()> {
    match verb {
        Store::Move { to, force } => return relocation::relocate(settings, *to, force.force).await,
        Store::Dump { file } => return backup::dump(settings, file.as_deref()).await,
        Store::Load { file, into, force } => return backup::load(settings, file, *into, force.force).await,
        Store::Members { .. } | Store::Add { .. } | Store::Remove { .. } => {}
    }
    let Some(embedded) = settings.store_of("raft") else {
        bail!(
            "the configuration names etcd at {}, whose members are changed with etcdctl: these verbs are for the embedded \
             store (section raft)",
            place(&settings.store)
        );
    };
    // Members belong to no cluster: the keys do not matter.
    let keys = Keys::new(&settings.namespace, settings.scope.as_deref().unwrap_or_default());
    let dcs = Dcs::connect(embedded, keys, STORE).await?;
    let unread = || format!("the embedded store cannot be read at {}", place(embedded));
    let members = dcs.store_members().await.with_context(unread)?;
    match verb {
        Store::Members { format } => say(sheet(&members).write(*format, "\t")),
        Store::Add { address } => add(&dcs, &members, address).await,
        Store::Remove { member, below_quorum, force } => {
            let Some(found) =
                members.iter().find(|known| &known.address == member || identity(known) == *member)
            else {
                bail!("{member} is no member: matriarchctl store members shows all of them");
            };
            let question = format!(
                "Are you sure you want to remove {} from the embedded store for good?",
                found.address
            );
            if !force.force && !confirm(&question)? {
                bail!("nothing was removed");
            }
            dcs.remove_store_member(&found.address, *below_quorum).await?;
            say(format!(
                "{} is no member any more. Stop it, and take it out of raft.partner_addrs everywhere",
                found.address
            ))
        }
        Store::Move { .. } | Store::Dump { .. } | Store::Load { .. } => Ok(()),
    }
}

async fn add(dcs: &Dcs, members: &[StoreMember], text: &str) -> anyhow::Result<()> {
    let address = Address::parse(text)
        .with_context(|| format!("{text:?} is no host and port, such as 10.0.0.4:2222"))?;
    if members.iter().any(|member| member.address == address.to_string()) {
        note(format!("{address} is a member already: one that lost its disk needs no leave to come back"));
    }
    dcs.admit_store_member(&address).await?;
    say(format!(
        "{address} may join. Start it with an empty raft.data_dir and the present members as raft.partner_addrs; it votes \
         when it has caught up (matriarchctl store members)"
    ))
}

fn identity(member: &StoreMember) -> String {
    format!("{:x}", member.id)
}

fn sheet(members: &[StoreMember]) -> Sheet {
    let row = |member: &StoreMember| {
        let role = match (member.leads, member.votes) {
            (true, _) => "leader",
            (false, true) => "voter",
            (false, false) => "learner",
        };
        let state = if member.reachable { "reachable" } else { "not reachable" };
        [member.address.clone(), identity(member), role.to_owned(), state.to_owned()].map(Cell::text).to_vec()
    };
    Sheet {
        title: "Embedded store".to_owned(),
        columns: ["Member", "Identity", "Role", "State"].map(str::to_owned).to_vec(),
        rows: members.iter().map(row).collect(),
        sparse: false,
    }
}
