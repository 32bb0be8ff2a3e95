//! The vault: where retired data directories live with their tickets.
//!
//! Owns the journal and the act. A ticket is written and synced before anything moves, and says
//! every move, so that after a crash each is completed or was never begun.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::evidence::Warrant;
use super::moves::{identity, is_mount_point, outside_links, rename, rename_contents};
use super::{CustodyError, files};
use crate::postgres::Paths;
use crate::postgres::files::{sync_parent, write};

/// Proof that the data directory's place is free, because what was there is in the vault.
#[derive(Debug)]
pub struct Emptied {
    entry: PathBuf,
}

impl Emptied {
    /// The vault's entry: `data/` and `ticket.json`.
    pub fn entry(&self) -> &Path {
        &self.entry
    }
}

/// The record of one retirement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Ticket {
    /// When, UTC.
    at: String,
    /// Who asked and why.
    why: String,
    /// The evidence, for people.
    evidence: String,
    /// The cluster that the directory belongs to.
    system_id: Option<String>,
    /// What is moved, in this order.
    moves: Vec<Move>,
    /// Whether all moves are done.
    done: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Move {
    from: PathBuf,
    to: PathBuf,
    /// Device and inode of `from`: after a crash they tell whether it has moved.
    device: u64,
    inode: u64,
    /// Only what it contains moves, because it is a mount point.
    contents: bool,
}

/// Moves the data directory aside, whole. Reversible: the entry's ticket says what came from where.
#[allow(clippy::needless_pass_by_value, reason = "a warrant is spent by its use")]
pub fn retire(warrant: Warrant) -> Result<Emptied, CustodyError> {
    warrant.still_holds()?;
    let data_dir = &warrant.paths.data_dir;
    let vault = &warrant.request.vault;
    let now = jiff::Timestamp::now();
    let label = format!("{}-{:?}", now.strftime("%Y%m%dT%H%M%S%.3fZ"), warrant.request.permission.grounds);
    let label = label.to_lowercase();
    let entry = vault.join(&label);
    make_private(vault)?;
    make_private(&entry)?;
    let mut moves = vec![planned(data_dir, &entry.join("data"))?];
    for target in outside_links(data_dir).map_err(files("reading the links of", data_dir))? {
        if is_mount_point(&target) {
            return Err(CustodyError::Files {
                what: "moving a tablespace that is a mount point",
                path: target,
                source: std::io::ErrorKind::CrossesDevices.into(),
            });
        }
        let mut aside = target.clone().into_os_string();
        aside.push(format!(".retired-{label}"));
        moves.push(planned(&target, Path::new(&aside))?);
    }
    let mut ticket = Ticket {
        at: now.to_string(),
        why: warrant.request.why.clone(),
        evidence: format!("{:?}", warrant.evidence),
        system_id: warrant.evidence.directory.system_id.map(|id| id.to_string()),
        moves,
        done: false,
    };
    record(&entry, &ticket)?;
    perform(&entry, &mut ticket, vault)?;
    Ok(Emptied { entry })
}

/// Completes what a crash interrupted: every move of a ticket that was written is done. Returns the entries.
pub fn complete_interrupted(vault: &Path, paths: &Paths) -> Result<Vec<PathBuf>, CustodyError> {
    let mut completed = Vec::new();
    let Ok(entries) = fs::read_dir(vault) else { return Ok(completed) };
    for entry in entries.flatten() {
        let path = entry.path().join("ticket.json");
        let Ok(bytes) = fs::read(&path) else { continue };
        let Ok(mut ticket) = serde_json::from_slice::<Ticket>(&bytes) else { continue };
        let begun = ticket.moves.first().is_some_and(|first| !is_in_place(first));
        let ours = ticket.moves.first().is_some_and(|first| first.from == paths.data_dir);
        // A first move that never happened stays undone: its evidence is stale by now.
        if !ticket.done && begun && ours {
            perform(&entry.path(), &mut ticket, vault)?;
            completed.push(entry.path());
        }
    }
    Ok(completed)
}

fn perform(entry: &Path, ticket: &mut Ticket, vault: &Path) -> Result<(), CustodyError> {
    for step in ticket.moves.iter().filter(|step| is_in_place(step) || step.contents) {
        if step.contents {
            make_private(&step.to)?;
            let vault = vault.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            rename_contents(&step.from, &step.to, &[vault, "lost+found"], "")
                .map_err(files("moving aside", &step.from))?;
        } else {
            rename(&step.from, &step.to).map_err(files("moving aside", &step.from))?;
        }
    }
    ticket.done = true;
    record(entry, ticket)
}

fn planned(from: &Path, to: &Path) -> Result<Move, CustodyError> {
    let (device, inode) = identity(from).map_err(files("examining", from))?;
    Ok(Move { from: from.to_owned(), to: to.to_owned(), device, inode, contents: is_mount_point(from) })
}

fn is_in_place(step: &Move) -> bool {
    identity(&step.from).is_ok_and(|found| found == (step.device, step.inode))
}

fn record(entry: &Path, ticket: &Ticket) -> Result<(), CustodyError> {
    let path = entry.join("ticket.json");
    let text = serde_json::to_vec_pretty(ticket).map_err(|error| files("writing", &path)(error.into()))?;
    write(&path, &text, 0o600).map_err(files("writing", &path))
}

fn make_private(directory: &Path) -> Result<(), CustodyError> {
    use std::os::unix::fs::DirBuilderExt;
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.and_then(|()| sync_parent(directory)).map_err(files("making", directory))
}
