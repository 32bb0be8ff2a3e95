//! `store dump` and `store load`: a cluster's permanent records as a file, and back. What makes a file fit is for
//! `dcs` to judge; nobody's lease is ever touched.

use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, bail};
use dcs::{Dcs, Dump, DumpError, Keys};

use crate::ask::{confirm, note, say};
use crate::reach::{Reach, STORE, place};
use crate::settings::Settings;
use crate::store::Section;

impl Section {
    /// As it is written in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Raft => "raft",
            Self::Etcd3 => "etcd3",
        }
    }
}

/// `store dump`.
///
/// # Errors
/// If the store or the file cannot be used.
pub async fn dump(settings: &Settings, file: Option<&Path>) -> anyhow::Result<()> {
    let reach = Reach::open(settings, None).await?;
    let unread = || format!("cluster {} cannot be read at {}", reach.cluster(), reach.place());
    let dump = reach.store().dump(reach.section()).await.with_context(unread)?;
    if dump.records.is_empty() {
        bail!(
            "the store at {} has no records of cluster {}: there is nothing to write",
            reach.place(),
            reach.cluster()
        );
    }
    let Some(file) = file.filter(|file| *file != Path::new("-")) else { return say(dump.text().trim_end()) };
    let unwritten = || format!("{} cannot be written", file.display());
    // Settings may hold what is not for everybody's eyes.
    let mut open = std::fs::OpenOptions::new();
    let mut to = open.write(true).create_new(true).mode(0o600).open(file).with_context(unwritten)?;
    to.write_all(dump.text().as_bytes()).and_then(|()| to.sync_all()).with_context(unwritten)?;
    note(format!(
        "{} records of cluster {}, epoch {} of generation {}, are in {}",
        dump.records.len(),
        reach.cluster(),
        dump.epoch,
        dump.generation,
        file.display()
    ));
    Ok(())
}

/// `store load`.
///
/// # Errors
/// If the file does not fit, somebody leads, or the store does not answer.
pub async fn load(
    settings: &Settings,
    file: &Path,
    into: Option<Section>,
    force: bool,
) -> anyhow::Result<()> {
    let unread = || format!("{} cannot be read", file.display());
    let mut text = String::new();
    if file == Path::new("-") {
        std::io::stdin().lock().read_to_string(&mut text).with_context(unread)?;
    } else {
        text = std::fs::read_to_string(file).with_context(unread)?;
    }
    let dump = Dump::read(&text).with_context(|| format!("{} was not loaded", file.display()))?;
    let store = match (into, &settings.second_store) {
        (None, None) => &settings.store,
        (None, Some(_)) => {
            bail!("the configuration names two stores: say which with --into raft or --into etcd3")
        }
        (Some(section), _) => settings
            .store_of(section.name())
            .with_context(|| format!("the configuration has no section {}", section.name()))?,
    };
    let Some(scope) = &settings.scope else {
        bail!("which cluster? give a configuration file with scope: NAME (-c FILE)")
    };
    let dcs = Dcs::connect(store, Keys::new(&settings.namespace, scope), STORE).await?;
    let question = format!(
        "Are you sure you want to replace the records of cluster {scope} at {} by those of {}, taken {}?",
        place(store),
        file.display(),
        dump.taken
    );
    if !force && !confirm(&question)? {
        bail!("nothing was written");
    }
    let written = dcs.restore(&dump).await.map_err(|error| match error {
        DumpError::Store(error) => {
            anyhow::Error::new(error).context(format!("the records were not written at {}", place(store)))
        }
        refusal => anyhow::Error::new(refusal),
    })?;
    say(format!(
        "{written} records of cluster {scope} were written. Start its daemons, the one that led last first"
    ))
}
