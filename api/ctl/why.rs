//! `why`: the last decision of each member and what keeps it from leading, and the decisions before it, as members tell
//! them or as a dead node's files do.

use std::path::Path;

use anyhow::{Context, bail};
use api::recording::{self, Entry};
use serde_json::Value;

use crate::args::{Role, Why};
use crate::ask::{note, say};
use crate::output::{Cell, Format, Sheet};
use crate::reach::Reach;
use crate::{select, show, when};

/// How many decisions are shown where only the time from which on was asked for.
const MANY: usize = recording::REMEMBERED;

impl Why {
    fn last(&self) -> usize {
        self.last.and_then(|last| usize::try_from(last).ok()).unwrap_or(MANY)
    }
}

/// One decision, and whose.
type Told = (String, Entry);

/// `why --last` and `why --since`: the decisions of the members, by time.
///
/// # Errors
/// If the cluster cannot be looked at, or no member tells anything.
pub async fn history(reach: &Reach, wanted: &Why) -> anyhow::Result<()> {
    let since = wanted.since.as_deref().map(when::since).transpose()?;
    let mut question = format!("why?last={}", wanted.last());
    if let Some(since) = since {
        question.push_str(&format!("&since={}", since.strftime("%Y-%m-%dT%H:%M:%S%.fZ")));
    }
    let seen = reach.look().await?;
    let names: Vec<String> = wanted.member.iter().cloned().collect();
    let mut told: Vec<Told> = Vec::new();
    let (mut asked, mut silent) = (0, 0);
    for member in select::named(&seen.roster, reach.cluster(), &names, Role::Any)? {
        asked += 1;
        let entries = show::ask(reach, member, &question).await.and_then(|mut body| {
            let history = body.get_mut("history").map(Value::take);
            let history =
                history.context("it does not keep its decisions: it runs Patroni, or an older version")?;
            serde_json::from_value::<Vec<Entry>>(history).context("it told its decisions in another format")
        });
        match entries {
            Ok(entries) => told.extend(entries.into_iter().map(|entry| (member.name.clone(), entry))),
            Err(error) => {
                silent += 1;
                note(format!("{}: no answer: {error:#}", member.name));
            }
        }
    }
    if silent == asked {
        bail!(
            "no member could say why; the files of a node that is dead: matriarchctl why --file DIRECTORY, on its machine, with its matriarch.recorder.dir"
        );
    }
    let title = format!(" Cluster: {} ({}) ", reach.cluster(), seen.roster.identity);
    show_history(told, wanted, title)
}

/// `why --file`: the decisions that a node's files hold.
///
/// # Errors
/// If they cannot be read.
pub fn of_file(file: &Path, wanted: &Why) -> anyhow::Result<()> {
    let since = wanted.since.as_deref().map(when::since).transpose()?;
    let files = recording::read(file)?;
    let torn: usize = files.iter().map(|file| file.torn).sum();
    if torn > 0 {
        note(format!("{torn} decisions were not written to their end and are left out"));
    }
    let mut title = String::new();
    let mut told: Vec<Told> = Vec::new();
    for file in files {
        let name = file.header.name;
        title = format!(" Cluster: {} ", file.header.scope);
        let turns = file.turns.into_iter().map(|(_, entry, _)| (name.clone(), entry));
        told.extend(turns.filter(|(_, entry)| since.is_none_or(|since| entry.is_since(since))));
    }
    show_history(told, wanted, title)
}

fn show_history(mut told: Vec<Told>, wanted: &Why, title: String) -> anyhow::Result<()> {
    told.sort_by(|(_, a), (_, b)| a.at.cmp(&b.at));
    // Each member told so many: together they are more.
    let over = wanted.last.map_or(0, |_| told.len().saturating_sub(wanted.last()));
    told.drain(..over);
    let lost: u64 = told.iter().map(|(_, entry)| entry.lost).sum();
    if lost > 0 {
        note(format!("{lost} decisions in this time were not recorded: the disk did not take them in"));
    }
    let pretty = wanted.format == Format::Pretty;
    let rows = told.into_iter().map(|(name, entry)| {
        let at = if pretty { when::local(&entry.at) } else { entry.at };
        vec![
            Cell::text(at),
            Cell::text(name),
            Cell::text(entry.because),
            Cell::text(entry.steps.join("\n")),
            Cell::Number(i64::try_from(entry.quiet).unwrap_or(i64::MAX)),
        ]
    });
    let columns = ["Time", "Member", "Because", "Steps", "Quiet turns before"].map(str::to_owned).to_vec();
    let sheet = Sheet { title, columns, rows: rows.collect(), sparse: true };
    say(sheet.write(wanted.format, "\t"))
}

/// `why`.
///
/// # Errors
/// If the cluster cannot be looked at, or no member answers.
pub async fn why(reach: &Reach, only: Option<&str>, format: Format) -> anyhow::Result<()> {
    let seen = reach.look().await?;
    let names: Vec<String> = only.map(str::to_owned).into_iter().collect();
    let mut rows = Vec::new();
    let mut silent = 0;
    for member in select::named(&seen.roster, reach.cluster(), &names, Role::Any)? {
        let told = show::ask(reach, member, "why").await;
        let because = told.as_ref().ok().and_then(|body| body.get("because")).and_then(Value::as_str);
        match (&told, because) {
            (Ok(body), Some(because)) => rows.push((member, because.to_owned(), body.clone())),
            (Ok(_), None) => {
                silent += 1;
                rows.push((member, "it does not run matriarch, so it cannot say".to_owned(), Value::Null));
            }
            (Err(error), _) => {
                silent += 1;
                rows.push((member, format!("no answer: {error:#}"), Value::Null));
            }
        }
    }
    let leader = seen.roster.leader().map(|leader| leader.name.as_str());
    let judge = rows.iter().find(|(member, ..)| Some(member.name.as_str()) == leader).or(rows.first());
    let obstacles = judge.and_then(|(_, _, body)| body.get("obstacles")).cloned().unwrap_or_default();
    let columns = ["Member", "Role", "Because", "Last steps", "Keeps it from leading"];
    let sheet = Sheet {
        title: format!(" Cluster: {} ({}) ", reach.cluster(), seen.roster.identity),
        columns: columns.map(str::to_owned).to_vec(),
        rows: rows.iter().map(|(member, because, body)| reasons(member, because, body, &obstacles)).collect(),
        sparse: true,
    };
    say(sheet.write(format, "\t"))?;
    if silent == rows.len() {
        bail!("no member could say why");
    }
    Ok(())
}

fn reasons(member: &crate::roster::Entry, because: &str, body: &Value, obstacles: &Value) -> Vec<Cell> {
    let own = body.get("obstacles").and_then(|own| own.get(&member.name));
    let obstacle = match obstacles.get(&member.name).or(own) {
        _ if member.leads() => "",
        Some(Value::Null) => "nothing",
        Some(text) => text.as_str().unwrap_or_default(),
        None => "",
    };
    let steps = body.get("steps").and_then(Value::as_array);
    let steps: Vec<&str> = steps.into_iter().flatten().filter_map(Value::as_str).collect();
    vec![
        Cell::text(&*member.name),
        Cell::text(&*member.role),
        Cell::text(because),
        Cell::text(steps.join("\n")),
        Cell::text(obstacle),
    ]
}
