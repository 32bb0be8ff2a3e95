//! The rows of `list` and `topology`: Patroni's columns and cells, exactly.

use std::collections::{BTreeMap, BTreeSet};

use crate::output::{Cell, Format, Sheet};
use crate::roster::{Entry, Place, Roster};

/// Whether a member has something to show in a column.
type Has = fn(&Entry) -> bool;

/// Longest text of a changed parameter that a table shows.
const LONGEST_REASON: usize = 50;

/// How members are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// One of the formats.
    Rows(Format),
    /// A table in which a member stands under the one it streams from.
    Tree,
}

/// Everything that `list` prints for one cluster, without a last line break.
#[must_use]
pub fn write(roster: &Roster, cluster: &str, extended: bool, shape: Shape) -> String {
    let table = matches!(shape, Shape::Tree | Shape::Rows(Format::Pretty));
    let sheet = sheet(roster, cluster, extended, shape, table);
    let text = match shape {
        Shape::Tree => sheet.table(false),
        Shape::Rows(format) => sheet.write(format, "\t"),
    };
    if table { format!("{text}{}", notes(roster)) } else { text }
}

fn sheet(roster: &Roster, cluster: &str, extended: bool, shape: Shape, table: bool) -> Sheet {
    let hosts: Vec<&Entry> = roster.members.iter().filter(|member| member.host.is_some()).collect();
    let distinct: BTreeSet<_> = hosts.iter().map(|member| &member.host).collect();
    let ports = hosts.iter().any(|member| member.port.is_some_and(|port| port != 5432))
        || distinct.len() < hosts.len();
    let extra: [(&str, Has); 4] = [
        ("Pending restart", |member| member.pending_restart),
        ("Pending restart reason", |member| !member.pending_reason.is_empty()),
        ("Scheduled restart", |member| member.scheduled_restart.is_some()),
        ("Tags", |member| !member.tags.is_empty()),
    ];
    let shown: Vec<&str> = extra
        .into_iter()
        .filter(|(_, has)| extended || hosts.iter().any(|member| has(member)))
        .map(|(name, _)| name)
        .collect();

    let mut columns: Vec<&str> = if table { Vec::new() } else { vec!["Cluster"] };
    columns.extend(["Member", "Host", "Role", "State", "TL", "Receive LSN"]);
    columns.push(if table { "Lag" } else { "Receive Lag" });
    columns.push("Replay LSN");
    columns.push(if table { "Lag" } else { "Replay Lag" });
    columns.extend(&shown);

    let order = if shape == Shape::Tree { tree(&roster.members) } else { flat(&roster.members) };
    let rows = order.into_iter().map(|(label, member)| {
        let mut row = if table { Vec::new() } else { vec![Cell::text(cluster)] };
        row.extend(cells(&label, member, ports));
        row.extend(shown.iter().map(|column| extra_cell(column, member, table)));
        row
    });
    Sheet {
        title: format!(" Cluster: {cluster} ({}) ", roster.identity),
        columns: columns.iter().map(|name| (*name).to_owned()).collect(),
        rows: rows.collect(),
        sparse: true,
    }
}

fn cells(label: &str, member: &Entry, ports: bool) -> Vec<Cell> {
    let host = match (&member.host, member.port) {
        (Some(host), Some(port)) if ports => format!("{host}:{port}"),
        (Some(host), _) => host.clone(),
        (None, _) => String::new(),
    };
    let (receive, replay) = places(member);
    let (receive_lsn, receive_lag) = place_cells(receive);
    let (replay_lsn, replay_lag) = place_cells(replay);
    vec![
        Cell::text(label),
        Cell::text(host),
        Cell::text(titled(&member.role)),
        Cell::text(&*member.state),
        member.timeline.map_or(Cell::Empty, |timeline| Cell::Number(i64::from(timeline))),
        receive_lsn,
        receive_lag,
        replay_lsn,
        replay_lag,
    ]
}

/// Members of old versions publish one position only; it stands where it means something.
fn places(member: &Entry) -> (Option<&Place>, Option<&Place>) {
    let unknown = Some(&Place(None));
    match &member.position {
        Some(position @ Place(Some(_)))
            if member.receive.as_ref() == unknown && member.replay.as_ref() == unknown =>
        {
            if member.state == "streaming" {
                (Some(position), member.replay.as_ref())
            } else {
                (member.receive.as_ref(), Some(position))
            }
        }
        _ => (member.receive.as_ref(), member.replay.as_ref()),
    }
}

fn place_cells(place: Option<&Place>) -> (Cell, Cell) {
    match place {
        None => (Cell::Empty, Cell::Empty),
        Some(Place(None)) => (Cell::text("unknown"), Cell::Empty),
        Some(Place(Some((lsn, lag)))) => (Cell::text(&**lsn), Cell::Number(megabytes(*lag))),
    }
}

/// Bytes in MiB, halves rounded to the even neighbour as Python does.
fn megabytes(bytes: u64) -> i64 {
    const MIB: u64 = 1024 * 1024;
    let (whole, rest) = (bytes / MIB, bytes % MIB);
    let up = rest * 2 > MIB || rest * 2 == MIB && whole % 2 == 1;
    i64::try_from(whole + u64::from(up)).unwrap_or(i64::MAX)
}

fn titled(role: &str) -> String {
    let word = |word: &str| {
        let mut letters = word.chars();
        letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
    };
    role.split('_').map(word).collect::<Vec<String>>().join(" ")
}

fn extra_cell(column: &str, member: &Entry, table: bool) -> Cell {
    match column {
        "Pending restart" => Cell::text(if member.pending_restart { "*" } else { "" }),
        "Pending restart reason" => {
            let reasons = member.pending_reason.iter().map(|(parameter, old, new)| {
                let change = format!("{parameter}: {old}->{new}");
                if table && change.chars().count() > LONGEST_REASON {
                    format!("{parameter}: [hidden - too long]")
                } else {
                    change
                }
            });
            Cell::text(reasons.collect::<Vec<_>>().join("\n"))
        }
        "Scheduled restart" => member.scheduled_restart.as_ref().map_or(Cell::Empty, |(at, version)| {
            let below = version.as_ref().map(|version| format!(" if version < {version}"));
            Cell::text(format!("{at}{}", below.unwrap_or_default()))
        }),
        _ if member.tags.is_empty() => Cell::Empty,
        _ => Cell::Tree(member.tags.clone().into_iter().collect()),
    }
}

fn flat(members: &[Entry]) -> Vec<(String, &Entry)> {
    members.iter().map(|member| (member.name.clone(), member)).collect()
}

/// The leader, below it who streams from it, below each of these who streams from that one.
fn tree(members: &[Entry]) -> Vec<(String, &Entry)> {
    let leader = members.iter().find(|member| member.leads());
    let replicas: BTreeSet<&str> =
        members.iter().filter(|member| !member.leads()).map(|member| member.name.as_str()).collect();
    let mut below: BTreeMap<Option<&str>, Vec<&Entry>> = BTreeMap::new();
    for member in members.iter().filter(|member| !member.leads()) {
        let source = member.tags.get("replicatefrom").and_then(serde_json::Value::as_str);
        let source = source.filter(|source| *source != member.name && replicas.contains(source));
        below.entry(source.or(leader.map(|leader| leader.name.as_str()))).or_default().push(member);
    }
    let mut rows = Vec::new();
    if let Some(leader) = leader {
        rows.push((leader.name.clone(), leader));
    }
    let top = below.get(&leader.map(|leader| leader.name.as_str()));
    let mut left: Vec<(usize, &Entry)> = top.into_iter().flatten().rev().map(|member| (1, *member)).collect();
    while let Some((level, member)) = left.pop() {
        rows.push((format!("{}+ {}", "  ".repeat(level - 1), member.name), member));
        let lower = below.get(&Some(member.name.as_str()));
        left.extend(lower.into_iter().flatten().rev().map(|member| (level + 1, *member)));
    }
    rows
}

fn notes(roster: &Roster) -> String {
    let mut text = String::new();
    if roster.pause {
        text.push_str("\n Maintenance mode: on");
    }
    if let Some(switchover) = &roster.switchover {
        text.push_str(&format!("\n Switchover scheduled at: {}", switchover.at));
        for (name, who) in [("from", &switchover.from), ("to", &switchover.to)] {
            if let Some(who) = who {
                text.push_str(&format!("\n{name:>24}: {who}"));
            }
        }
    }
    text
}
