//! The live table of `cargo demo`: who leads, who follows, how fast writes go, how long they were out.
//!
//! Looks and draws; what the keys do is done by the node.

use std::io::{IsTerminal, Read, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use comfy_table::{Table, presets};
use dcs::Moment;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::cluster::Cluster;
use crate::demo::{self, Stage};
use crate::spec::{Program, Store};
use crate::workload::Workload;

/// Time between two pictures on a terminal.
const FRAME: Duration = Duration::from_millis(250);
/// Time between two pictures in a file or pipe.
const SLOW_FRAME: Duration = Duration::from_secs(5);

/// Runs the demo until `q`, Ctrl-C or SIGTERM.
///
/// # Errors
/// When the cluster cannot be started.
pub async fn watch(program: Program, store: Store) -> anyhow::Result<()> {
    let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let shown = async {
        demo::prepare(program, store).await?;
        let stage = Stage::set(program, store).await?;
        println!("\n{}\n", stage.how_to_connect());
        show(&stage).await
    };
    let ended = tokio::select! {
        ended = shown => ended,
        _ = tokio::signal::ctrl_c() => Ok(()),
        _ = term.recv() => Ok(()),
    };
    println!("stopping everything");
    ended
}

async fn show(stage: &Stage) -> anyhow::Result<()> {
    let terminal = std::io::stdout().is_terminal();
    let _raw = (terminal && std::io::stdin().is_terminal()).then(Keys::on);
    let mut keys = read_keys();
    let mut pictures = Pictures::default();
    let mut frame = tokio::time::interval(if terminal { FRAME } else { SLOW_FRAME });
    let mut actions: JoinSet<Result<crate::http::Answer, anyhow::Error>> = JoinSet::new();
    let mut killed: Option<usize> = None;
    let mut said = String::from("keys: k kill the leader's node, r let it return, s switch over, q quit");
    loop {
        tokio::select! {
            _ = frame.tick() => pictures.draw(stage, &said, terminal).await?,
            Some(done) = actions.join_next() => said = match done? {
                Ok(answer) => answer.body,
                Err(err) => format!("{err:#}"),
            },
            Some(key) = keys.recv() => match key {
                b'q' => return Ok(()),
                b'k' => if let Some(index) = leader_index(&stage.cluster).await
                    && let Some(node) = stage.cluster.nodes.get(index)
                {
                    node.kill();
                    killed = Some(index);
                    said = format!("killed every process of {}; r lets it return", node.name);
                },
                b'r' => if let Some(node) = killed.take().and_then(|index| stage.cluster.nodes.get(index)) {
                    node.start()?;
                    said = format!("{} was started again", node.name);
                },
                b's' => if let Some(leader) = stage.cluster.leader().await {
                    let (rest, body) = (leader.rest, json!({"leader": leader.name}).to_string());
                    let limit = Duration::from_secs(30);
                    actions.spawn(async move {
                        crate::http::request(rest, "POST", "/switchover", Some(&body), limit).await
                    });
                    said = format!("asked {} to hand over", leader.name);
                },
                _ => {}
            },
        }
    }
}

async fn leader_index(cluster: &Cluster) -> Option<usize> {
    let leader = cluster.leader().await?;
    cluster.nodes.iter().position(|node| node.name == leader.name)
}

/// What was drawn last, to draw over it and to tell the rate of writes.
#[derive(Debug, Default)]
struct Pictures {
    lines: usize,
    last: Option<(Moment, usize)>,
    start: Option<Moment>,
}

impl Pictures {
    async fn draw(&mut self, stage: &Stage, said: &str, over: bool) -> anyhow::Result<()> {
        let table = table(&stage.cluster).await;
        let writes = self.writes(&stage.workload);
        let text = format!("{table}\n{writes}\n{said}");
        let mut out = std::io::stdout().lock();
        if over && self.lines > 0 {
            write!(out, "\x1b[{}A\x1b[J", self.lines)?;
        }
        writeln!(out, "{text}")?;
        out.flush()?;
        self.lines = text.lines().count();
        Ok(())
    }

    fn writes(&mut self, workload: &Workload) -> String {
        let (now, acked) = (Moment::now(), workload.acked());
        let start = *self.start.get_or_insert(now);
        let (then, before) = self.last.replace((now, acked)).unwrap_or((now, acked));
        let span = now.since(then).as_secs_f64();
        let rate = if span > 0.0 {
            f64::from(u32::try_from(acked - before).unwrap_or_default()) / span
        } else {
            0.0
        };
        let silent = workload.last_ack().map_or(Duration::ZERO, |ack| now.since(ack));
        let state = if silent > Duration::from_millis(500) {
            format!("OUT for {:.1} s", silent.as_secs_f64())
        } else {
            "going on".to_owned()
        };
        let longest = workload.outage_since(start).as_secs_f64();
        format!("writes: {state}, {rate:.0}/s, {acked} acknowledged, longest outage {longest:.2} s")
    }
}

async fn table(cluster: &Cluster) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_HORIZONTAL_ONLY)
        .set_header(["name", "role", "state", "TL", "lag", "address"]);
    let members = members(cluster).await;
    for node in &cluster.nodes {
        let member =
            members.iter().find(|member| member.get("name").and_then(Value::as_str) == Some(&node.name));
        let field = |name: &str| match member.and_then(|member| member.get(name)) {
            Some(Value::String(text)) => text.clone(),
            Some(value) => value.to_string(),
            None => String::new(),
        };
        let state = if node.pid().is_none() { "dead".to_owned() } else { field("state") };
        let cells = [
            node.name.clone(),
            field("role"),
            state,
            field("timeline"),
            field("lag"),
            node.postgres.to_string(),
        ];
        table.add_row(cells);
    }
    table.to_string()
}

async fn members(cluster: &Cluster) -> Vec<Value> {
    for node in &cluster.nodes {
        let asked =
            crate::http::request(node.rest, "GET", "/cluster", None, Duration::from_millis(300)).await;
        if let Ok(answer) = asked
            && let Some(members) = answer.json().get("members").and_then(Value::as_array)
        {
            return members.clone();
        }
    }
    Vec::new()
}

/// Single keys without Enter, while this lives; the terminal's settings come back with its end.
#[derive(Debug)]
struct Keys {
    saved: String,
}

impl Keys {
    fn on() -> Self {
        let saved = stty(&["-g"]).unwrap_or_default();
        stty(&["-icanon", "-echo", "min", "1"]);
        Self { saved: saved.trim().to_owned() }
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        stty(&[if self.saved.is_empty() { "sane" } else { &self.saved }]);
    }
}

fn stty(args: &[&str]) -> Option<String> {
    let output = Command::new("stty").args(args).stdin(Stdio::inherit()).output().ok()?;
    String::from_utf8(output.stdout).ok()
}

/// A thread, because reading a terminal blocks; it ends with the process.
fn read_keys() -> mpsc::UnboundedReceiver<u8> {
    let (send, receive) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for key in std::io::stdin().lock().bytes().map_while(Result::ok) {
            if send.send(key).is_err() {
                return;
            }
        }
    });
    receive
}
