//! Commands that only look: list, topology, history, version, dsn, remove's first half.

use std::io::IsTerminal;
use std::time::Duration;

use anyhow::{Context, bail};
use http::Method;
use serde_json::Value;

use crate::args::{List, Role, Watch, Whom};
use crate::ask::{note, say};
use crate::members::{self, Shape};
use crate::output::{Cell, Format, Sheet};
use crate::reach::Reach;
use crate::select;
use crate::settings::Settings;
use crate::when;

/// How long a member may take to answer.
const MEMBER: Duration = Duration::from_secs(10);

impl Watch {
    /// How long to wait before showing again, if at all.
    ///
    /// # Errors
    /// If it is no time.
    pub fn interval(self) -> anyhow::Result<Option<Duration>> {
        match (self.every, self.every_two) {
            (Some(seconds), _) if seconds > 0.0 => {
                let every = Duration::try_from_secs_f64(seconds);
                every.map(Some).with_context(|| format!("{seconds} seconds is no time to wait"))
            }
            (Some(seconds), _) => bail!("--watch wants a number of seconds above 0, not {seconds}"),
            (None, true) => Ok(Some(Duration::from_secs(2))),
            (None, false) => Ok(None),
        }
    }
}

/// `list` and `topology`.
///
/// # Errors
/// If a cluster cannot be looked at.
pub async fn list(settings: &Settings, wanted: &List, tree: bool) -> anyhow::Result<()> {
    let shape = if tree { Shape::Tree } else { Shape::Rows(wanted.format) };
    let interval = wanted.watch.interval()?;
    let mut reaches = Vec::new();
    for cluster in &wanted.clusters {
        reaches.push(Reach::open(settings, Some(cluster)).await?);
    }
    if reaches.is_empty() {
        reaches.push(Reach::open(settings, None).await?);
    }
    loop {
        if interval.is_some() && std::io::stdout().is_terminal() {
            say("\u{1b}[2J\u{1b}[1;1H")?;
        }
        if wanted.timestamp {
            say(when::stamp(false))?;
        }
        for reach in &reaches {
            match reach.look().await {
                Ok(seen) => say(members::write(&seen.roster, reach.cluster(), wanted.extended, shape))?,
                // Whoever watches wants to see it come back.
                Err(error) if interval.is_some() => note(format!("{error:#}")),
                Err(error) => return Err(error),
            }
        }
        let Some(interval) = interval else { return Ok(()) };
        tokio::time::sleep(interval).await;
    }
}

/// `history`.
///
/// # Errors
/// If the cluster cannot be looked at.
pub async fn history(reach: &Reach, format: Format) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    match reach.view().await {
        Ok(view) => {
            for row in view.history.unwrap_or_default() {
                rows.push(vec![
                    Cell::Number(i64::from(row.timeline.0)),
                    Cell::Number(i64::try_from(row.lsn.0).unwrap_or(i64::MAX)),
                    Cell::Text(row.reason),
                    Cell::Text(row.timestamp.unwrap_or_default()),
                    Cell::Text(row.leader.unwrap_or_default()),
                ]);
            }
        }
        Err(failed) => {
            let body = reach.of_any_member("history").await;
            let Some(Value::Array(lines)) = body else { return Err(failed) };
            for line in lines {
                let line = line.as_array().cloned().unwrap_or_default();
                let cells = line.into_iter().map(|value| match value {
                    Value::String(text) => Cell::Text(text),
                    other => Cell::Tree(other),
                });
                rows.push(cells.chain(std::iter::repeat(Cell::Text(String::new()))).take(5).collect());
            }
        }
    }
    let columns = ["TL", "LSN", "Reason", "Timestamp", "New Leader"].map(str::to_owned).to_vec();
    let sheet = Sheet { title: String::new(), columns, rows, sparse: false };
    say(sheet.write(format, "\t"))
}

/// `dsn`.
///
/// # Errors
/// If there is no such member, or it publishes no address.
pub async fn dsn(reach: &Reach, whom: &Whom) -> anyhow::Result<()> {
    let seen = reach.look().await?;
    let member = select::one(&seen.roster, reach.cluster(), whom.role, whom.member.as_deref())?;
    let Some(host) = &member.host else {
        bail!("{} publishes no address of its Postgres yet: look at its log", member.name);
    };
    say(format!("host={host} port={}", member.port.unwrap_or(5432)))
}

/// `version`.
///
/// # Errors
/// If the cluster cannot be looked at, or a member does not answer.
pub async fn version(settings: &Settings, cluster: Option<&str>, names: &[String]) -> anyhow::Result<()> {
    say(concat!("matriarchctl version ", env!("CARGO_PKG_VERSION")))?;
    let Some(cluster) = cluster else { return Ok(()) };
    say("")?;
    let reach = Reach::open(settings, Some(cluster)).await?;
    let seen = reach.look().await?;
    let mut silent = 0;
    for member in select::named(&seen.roster, cluster, names, Role::Any)? {
        match ask(&reach, member, "patroni").await {
            Ok(body) => say(format!("{}: {}", member.name, versions(&body)))?,
            Err(error) => {
                silent += 1;
                say(format!("{}: failed to get version: {error:#}", member.name))?;
            }
        }
    }
    if silent > 0 {
        bail!("{silent} members did not answer, see above");
    }
    Ok(())
}

/// Asks a member.
///
/// # Errors
/// If it does not answer, or not with JSON.
pub async fn ask(reach: &Reach, member: &crate::roster::Entry, endpoint: &str) -> anyhow::Result<Value> {
    let answer = reach.rest().ask(select::api_url(member)?, Method::GET, endpoint, None, MEMBER).await?;
    serde_json::from_str(&answer.body).context("it answered no JSON")
}

fn versions(body: &Value) -> String {
    let patroni = body.pointer("/patroni/version").and_then(Value::as_str).unwrap_or("unknown");
    let postgres = body.get("server_version").and_then(Value::as_u64).map(|version| {
        let (major, minor, patch) = (version / 10_000, version / 100 % 100, version % 100);
        if version < 100_000 {
            format!(" PostgreSQL {major}.{minor}.{patch}")
        } else {
            format!(" PostgreSQL {major}.{}", version % 10_000)
        }
    });
    let own = body.pointer("/patroni/matriarch").and_then(Value::as_str);
    let own = own.map(|version| format!("matriarch {version}, as ")).unwrap_or_default();
    format!("{own}Patroni {patroni}{}", postgres.unwrap_or_default())
}
