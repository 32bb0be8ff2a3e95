//! The unmodified `patronictl` of Patroni 4.1.5 against a cluster of matriarch, and `matriarchctl` beside it: where both
//! only look, their words must be the same.
//!
//! One cluster serves the tests in turn; each leaves it healthy.

#![allow(clippy::indexing_slicing, reason = "a panic is a failed test, in its helpers too")]

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use chaos::process::Ended;
use chaos::{Cluster, Node, Program, Shared, Spec, setup, until};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const PATIENCE: Duration = Duration::from_secs(60);

static CLUSTER: Shared = Shared::new(|| {
    let trust =
        ["local all all trust", "host all all 127.0.0.0/8 trust", "host replication all 127.0.0.0/8 trust"];
    let patch = json!({"tags": {"datacenter": "dc1"}, "postgresql": {"pg_hba": trust}});
    Spec::new(Program::tested(), 3).local(&patch)
});

/// Runs one of the two, which is to end well.
async fn ctl(cluster: &Cluster, tool: &str, args: &[&str]) -> anyhow::Result<String> {
    let Ended { code, out, err } = match tool {
        "patronictl" => cluster.patronictl(args).await?,
        _ => cluster.matriarchctl(args).await?,
    };
    anyhow::ensure!(
        code == Some(0),
        "{tool} {args:?} ended with {code:?}:\n{out}{err}\n{}",
        cluster.report()
    );
    Ok(out)
}

/// Runs both, and returns their words, which must be the same. Positions may move between the two, so they get a few tries.
async fn both(cluster: &Cluster, args: &[&str]) -> anyhow::Result<String> {
    let mut last = (String::new(), String::new());
    for _ in 0..3 {
        last = (ctl(cluster, "patronictl", args).await?, ctl(cluster, "matriarchctl", args).await?);
        if last.0 == last.1 {
            return Ok(last.0);
        }
    }
    anyhow::bail!("{args:?}: patronictl says\n{}\nmatriarchctl says\n{}", last.0, last.1)
}

async fn config(cluster: &Cluster) -> anyhow::Result<Value> {
    let key = cluster.store.get(&cluster.key("config")).await?;
    Ok(key.map(|key| serde_json::from_str(&key.value)).transpose()?.unwrap_or_default())
}

async fn started(node: &Node) -> anyhow::Result<String> {
    node.cell("select pg_postmaster_start_time()").await
}

/// P168 list and topology, P169 list -e: the same words from both in every format, and the facts in them.
#[tokio::test]
async fn the_lists_are_the_same_in_every_format() {
    let cluster = CLUSTER.lend().await.unwrap();
    let (leader, replicas) = cluster.roles().await.unwrap();
    let id = cluster.store.get(&cluster.key("initialize")).await.unwrap().unwrap().value;
    let pretty = both(&cluster, &["list"]).await.unwrap();
    assert!(pretty.starts_with(&format!("+ Cluster: demo ({id}) -")), "{pretty}");
    let cells = |line: &str| -> Vec<String> { line.split('|').map(|cell| cell.trim().to_owned()).collect() };
    let rows: Vec<Vec<String>> = pretty.lines().filter(|line| line.starts_with('|')).map(cells).collect();
    assert_eq!(
        rows[0][1..],
        ["Member", "Host", "Role", "State", "TL", "Receive LSN", "Lag", "Replay LSN", "Lag", "Tags", ""]
    );
    for (row, node) in rows[1..].iter().zip(&cluster.nodes) {
        let (role, state) =
            if node.name == leader.name { ("Leader", "running") } else { ("Replica", "streaming") };
        assert_eq!(row[1..5], [&node.name, &node.postgres.ip().to_string(), role, state], "{pretty}");
    }
    both(&cluster, &["list", "demo", "-f", "tsv"]).await.unwrap();
    both(&cluster, &["list", "-e", "-f", "yaml"]).await.unwrap();
    let list = both(&cluster, &["list", "-f", "json"]).await.unwrap();
    let list: Vec<Value> = serde_json::from_str(&list).unwrap();
    for member in list {
        let is_leader = member["Member"] == leader.name.as_str();
        assert_eq!(member.get("Receive Lag").is_none(), is_leader, "{member}");
        assert_eq!(member["Tags"], json!({"datacenter": "dc1"}));
        assert!(is_leader || member["Replay Lag"] == 0, "{member}");
    }
    let tree = both(&cluster, &["topology"]).await.unwrap();
    for replica in replicas {
        assert!(tree.contains(&format!("| + {} ", replica.name)), "{tree}");
    }
}

/// P171 version, P172 dsn, P173 query, P174 show-config.
#[tokio::test]
async fn what_they_tell_of_members_and_settings_is_the_same() {
    let cluster = CLUSTER.lend().await.unwrap();
    let (leader, replicas) = cluster.roles().await.unwrap();
    let number: u32 = leader.cell("show server_version_num").await.unwrap().parse().unwrap();
    let postgres = format!("{}.{}", number / 10000, number % 10000);
    let patronictl = ctl(&cluster, "patronictl", &["version", "demo"]).await.unwrap();
    let matriarchctl = ctl(&cluster, "matriarchctl", &["version", "demo"]).await.unwrap();
    for node in &cluster.nodes {
        let line = format!("{}: Patroni 4.1.5 PostgreSQL {postgres}", node.name);
        assert!(patronictl.lines().any(|it| it == line), "{patronictl}");
        let own = matriarchctl.lines().find(|it| it.starts_with(&format!("{}: ", node.name)));
        assert!(
            own.is_some_and(|it| it.ends_with(&format!("Patroni 4.1.5 PostgreSQL {postgres}"))),
            "{matriarchctl}"
        );
    }
    let place = |node: &Node| format!("host={} port={}\n", node.postgres.ip(), node.postgres.port());
    assert_eq!(both(&cluster, &["dsn"]).await.unwrap(), place(leader));
    assert_eq!(both(&cluster, &["dsn", "demo", "-r", "primary"]).await.unwrap(), place(leader));
    assert_eq!(both(&cluster, &["dsn", "-m", &replicas[1].name]).await.unwrap(), place(replicas[1]));
    let any = ctl(&cluster, "patronictl", &["dsn", "-r", "replica"]).await.unwrap();
    assert!(replicas.iter().any(|replica| place(replica) == any), "{any}");

    let sql = "select pg_is_in_recovery() as r, inet_server_addr()::text as a";
    let asked = |role: &'static str, format: &'static str| {
        ["query", "-U", "postgres", "-d", "postgres", "-c", sql, "-r", role, "--format", format]
    };
    let replica = ctl(&cluster, "patronictl", &asked("replica", "tsv")).await.unwrap();
    assert!(replica.starts_with("r\ta\nTrue\t"), "{replica}");
    let primary = both(&cluster, &asked("primary", "json")).await.unwrap();
    let rows: Value = serde_json::from_str(&primary).unwrap();
    assert_eq!(rows, json!([{"r": false, "a": format!("{}/32", leader.postgres.ip())}]), "{primary}");
    both(&cluster, &asked("leader", "tsv")).await.unwrap();

    let shown = both(&cluster, &["show-config"]).await.unwrap();
    let shown: Value = serde_saphyr::from_str(&shown).unwrap();
    assert_eq!(shown, config(&cluster).await.unwrap());
}

/// P175 edit-config: --set, --pg, --apply and --replace, with the same words; what another changed meanwhile is not
/// overwritten.
#[tokio::test]
async fn settings_are_edited_with_the_same_words() {
    let cluster = CLUSTER.lend().await.unwrap();
    let before = config(&cluster).await.unwrap();
    let file = cluster.dir().join("settings.yml");
    let path = file.display().to_string();
    let mut said = Vec::new();
    for tool in ["patronictl", "matriarchctl"] {
        let mut words = Vec::new();
        let set = ["edit-config", "--force", "-s", "maximum_lag_on_failover=2048", "-p", "work_mem=9MB"];
        words.push(ctl(&cluster, tool, &set).await.unwrap());
        let now = config(&cluster).await.unwrap();
        assert_eq!(now["maximum_lag_on_failover"], 2048);
        assert_eq!(now["postgresql"]["parameters"]["work_mem"], "9MB");
        words.push(ctl(&cluster, tool, &set).await.unwrap());

        std::fs::write(
            &file,
            "postgresql:\n  parameters:\n    work_mem: null\nmaximum_lag_on_failover: 4096\n",
        )
        .unwrap();
        words.push(ctl(&cluster, tool, &["edit-config", "--force", "--apply", &path]).await.unwrap());
        let now = config(&cluster).await.unwrap();
        assert_eq!(now["maximum_lag_on_failover"], 4096);
        assert_eq!(now.pointer("/postgresql/parameters/work_mem"), None);

        std::fs::write(&file, before.to_string()).unwrap();
        words.push(ctl(&cluster, tool, &["edit-config", "--force", "--replace", &path]).await.unwrap());
        assert_eq!(config(&cluster).await.unwrap(), before);
        said.push(words);
    }
    assert_eq!(said[0], said[1]);
    assert!(said[0][1].contains("Not changed"), "{:?}", said[0]);

    let patronictl = setup::patroni().await.unwrap().with_file_name("patronictl");
    for tool in [patronictl, cluster.binary("matriarchctl")] {
        let mut other = before.clone();
        other["retry_timeout"] = json!(3);
        let meanwhile = async || cluster.store.put(&cluster.key("config"), &other.to_string()).await;
        let (code, said) = edit_meanwhile(&cluster, &tool, meanwhile).await.unwrap();
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("Config modification aborted due to concurrent changes"), "{said}");
        assert_eq!(config(&cluster).await.unwrap(), other);
        cluster.store.put(&cluster.key("config"), &before.to_string()).await.unwrap();
    }
}

/// Starts an edit, lets something happen while it asks for leave, gives leave, and returns how it ended.
async fn edit_meanwhile(
    cluster: &Cluster,
    tool: &Path,
    meanwhile: impl AsyncFnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<(Option<i32>, String)> {
    let mut command = tokio::process::Command::new(tool);
    command.arg("-c").arg(cluster.nodes[0].file()).args(["edit-config", "-s", "loop_wait=7"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut editor = command.spawn()?;
    let (mut out, mut err) =
        (editor.stdout.take().context("no output")?, editor.stderr.take().context("no output")?);
    let (mut said, mut complained) = (Vec::new(), Vec::new());
    let asked = |text: &[u8]| String::from_utf8_lossy(text).contains("Apply these changes?");
    // patronictl asks on standard output, matriarchctl on standard error.
    while !asked(&said) && !asked(&complained) {
        let byte = tokio::time::timeout(PATIENCE, async {
            tokio::select! {
                byte = out.read_u8() => byte.map(|byte| said.push(byte)),
                byte = err.read_u8() => byte.map(|byte| complained.push(byte)),
            }
        });
        byte.await.context("it did not ask")??;
    }
    meanwhile().await?;
    editor.stdin.take().context("no input")?.write_all(b"y\n").await?;
    out.read_to_end(&mut said).await?;
    err.read_to_end(&mut complained).await?;
    said.extend(complained);
    Ok((editor.wait().await?.code(), String::from_utf8_lossy(&said).into_owned()))
}

/// P176 pause --wait and resume --wait are acknowledged by every member within `loop_wait`; twice is an error.
#[tokio::test]
async fn pause_and_resume_wait_for_every_member() {
    let cluster = CLUSTER.lend().await.unwrap();
    for tool in ["patronictl", "matriarchctl"] {
        let paused = ctl(&cluster, tool, &["pause", "--wait"]).await.unwrap();
        assert!(paused.contains("Success: cluster management is paused"), "{tool}: {paused}");
        let shown = both(&cluster, &["list"]).await.unwrap();
        assert!(shown.ends_with(" Maintenance mode: on\n"), "{shown}");
        let again = match tool {
            "patronictl" => cluster.patronictl(&["pause"]).await.unwrap(),
            _ => cluster.matriarchctl(&["pause"]).await.unwrap(),
        };
        assert_eq!(again.code, Some(1));
        assert!(again.err.contains("Cluster is already paused"), "{tool}: {}", again.err);
        let resumed = ctl(&cluster, tool, &["resume", "--wait"]).await.unwrap();
        assert!(resumed.contains("Success: cluster management is resumed"), "{tool}: {resumed}");
    }
}

/// P177 switchover --candidate --force, P170 history shows it.
#[tokio::test]
async fn a_switchover_by_either_tool() {
    let cluster = CLUSTER.lend().await.unwrap();
    for tool in ["patronictl", "matriarchctl"] {
        let (_, replicas) = cluster.roles().await.unwrap();
        let candidate = replicas[0].name.as_str();
        let said =
            ctl(&cluster, tool, &["switchover", "demo", "--candidate", candidate, "--force"]).await.unwrap();
        assert!(said.contains(&format!("Successfully switched over to \"{candidate}\"")), "{tool}: {said}");
        assert_eq!(cluster.wait_healthy(PATIENCE).await.unwrap().name, candidate);
    }
    let leader = cluster.leader().await.unwrap();
    let rows = until(PATIENCE, "two rows of history", async || {
        let rows = leader.get("/history").await?.json();
        Ok(rows
            .as_array()
            .filter(|rows| rows.len() >= 2 && rows[rows.len() - 1][4] == leader.name.as_str())
            .cloned())
    });
    let rows = cluster.explain(rows.await).unwrap();
    let told: Vec<Value> =
        serde_json::from_str(&both(&cluster, &["history", "-f", "json"]).await.unwrap()).unwrap();
    assert_eq!(told.len(), rows.len());
    for (told, row) in told.iter().zip(&rows) {
        assert_eq!(
            json!([told["TL"], told["LSN"], told["Reason"], told["Timestamp"], told["New Leader"]]),
            *row
        );
    }
    both(&cluster, &["history"]).await.unwrap();
}

/// P178 a scheduled switchover is shown and can be flushed.
#[tokio::test]
async fn a_scheduled_switchover_is_shown_and_flushed() {
    let cluster = CLUSTER.lend().await.unwrap();
    let (leader, replicas) = cluster.roles().await.unwrap();
    let candidate = replicas[0].name.as_str();
    let at = "2099-01-01T10:00:00+00:00";
    for tool in ["patronictl", "matriarchctl"] {
        let schedule = ["switchover", "demo", "--candidate", candidate, "--scheduled", at, "--force"];
        let said = ctl(&cluster, tool, &schedule).await.unwrap();
        assert!(said.contains("Switchover scheduled"), "{tool}: {said}");
        let shown = both(&cluster, &["list"]).await.unwrap();
        let note = format!(
            " Switchover scheduled at: {at}\n                    from: {}\n                      to: {candidate}\n",
            leader.name
        );
        assert!(shown.ends_with(&note), "{shown}");
        let said = ctl(&cluster, tool, &["flush", "demo", "switchover", "--force"]).await.unwrap();
        assert_eq!(said, "Success: scheduled switchover deleted\n", "{tool}");
        let said = ctl(&cluster, tool, &["flush", "demo", "switchover", "--force"]).await.unwrap();
        assert_eq!(said, "No pending scheduled switchover\n", "{tool}");
    }
    assert!(!both(&cluster, &["list"]).await.unwrap().contains("scheduled"));
}

/// P179 failover --candidate, also where nobody leads (P224: in pause nobody takes over by itself).
#[tokio::test]
async fn a_failover_with_and_without_a_leader() {
    let cluster = CLUSTER.lend().await.unwrap();
    let (_, replicas) = cluster.roles().await.unwrap();
    let candidate = replicas[0].name.as_str();
    let said = ctl(&cluster, "patronictl", &["failover", "--candidate", candidate, "--force"]).await.unwrap();
    assert!(said.contains(&format!("Successfully failed over to \"{candidate}\"")), "{said}");
    cluster.wait_healthy(PATIENCE).await.unwrap();

    let (leader, replicas) = cluster.roles().await.unwrap();
    ctl(&cluster, "patronictl", &["pause", "--wait"]).await.unwrap();
    leader.kill();
    let vacant = until(PATIENCE, "the end of the leader's lease", async || {
        Ok(cluster.store.get(&cluster.key("leader")).await?.is_none().then_some(()))
    });
    cluster.explain(vacant.await).unwrap();
    let candidate = replicas[1].name.as_str();
    let said = ctl(&cluster, "patronictl", &["failover", "--candidate", candidate, "--force"]).await.unwrap();
    assert!(
        said.contains(&format!("Successfully failed over to \"{candidate}\"")),
        "{said}\n{}",
        cluster.report()
    );
    cluster.wait_leader(&[], PATIENCE).await.unwrap();
    leader.start().unwrap();
    ctl(&cluster, "patronictl", &["resume", "--wait"]).await.unwrap();
    assert_eq!(cluster.wait_healthy(PATIENCE).await.unwrap().name, candidate);
}

/// P181 restart of all, by role, of one, of any, of those where it is pending; P276 the leader stays the leader.
#[tokio::test]
async fn restarts_reach_exactly_those_that_are_meant() {
    let cluster = CLUSTER.lend().await.unwrap();
    let (leader, replicas) = cluster.roles().await.unwrap();
    let one = replicas[0].name.as_str();
    let all: Vec<&str> = cluster.nodes.iter().map(|node| node.name.as_str()).collect();
    let two: Vec<&str> = replicas.iter().map(|node| node.name.as_str()).collect();
    let cases: [(&[&str], &[&str]); 6] = [
        (&["restart", "demo", one, "--force"], &[one]),
        (&["restart", "demo", "--force"], &all),
        (&["restart", "demo", "--role", "replica", "--force"], &two),
        (&["restart", "demo", "--pending", "--force"], &[]),
        (&["restart", "demo", one, "--force", "--pg-version", "9.5.2"], &[]),
        (&["restart", "demo", one, "--any", "--force"], &[one]),
    ];
    for (at, (args, meant)) in cases.into_iter().enumerate() {
        let tool = if at % 2 == 0 { "patronictl" } else { "matriarchctl" };
        let mut before = Vec::new();
        for node in &cluster.nodes {
            before.push(started(node).await.unwrap());
        }
        let said = match tool {
            "patronictl" => cluster.patronictl(args).await.unwrap(),
            _ => cluster.matriarchctl(args).await.unwrap(),
        };
        for (node, before) in cluster.nodes.iter().zip(before) {
            let name = node.name.as_str();
            let restarted = started(node).await.unwrap() != before;
            assert_eq!(restarted, meant.contains(&name), "{tool} {args:?} on {name}: {said:?}");
            let success = said.out.contains(&format!("Success: restart on member {name}"));
            assert_eq!(success, meant.contains(&name), "{tool} {args:?}: {said:?}");
        }
    }
    assert_eq!(cluster.wait_healthy(PATIENCE).await.unwrap().name, leader.name);
}

/// P014 and P150 a changed parameter that needs a restart is shown with its values, P181 restart --pending reaches those
/// that wait, P278 and then nobody waits any more.
#[tokio::test]
async fn pending_restarts_are_shown_and_done() {
    let cluster = CLUSTER.lend().await.unwrap();
    let change = ["edit-config", "--force", "-p", "max_connections=60"];
    ctl(&cluster, "patronictl", &change).await.unwrap();
    let shown = until(PATIENCE, "three members that wait for a restart", async || {
        let shown = ctl(&cluster, "patronictl", &["list"]).await?;
        Ok((shown.matches("| max_connections: 50->60 |").count() == 3).then_some(()))
    });
    cluster.explain(shown.await).unwrap();
    both(&cluster, &["list"]).await.unwrap();
    both(&cluster, &["list", "-f", "json"]).await.unwrap();
    let said = ctl(&cluster, "patronictl", &["restart", "demo", "--pending", "--force"]).await.unwrap();
    assert_eq!(said.matches("Success: restart on member ").count(), 3, "{said}");
    let done = until(PATIENCE, "nobody who waits for a restart", async || {
        let shown = ctl(&cluster, "patronictl", &["list"]).await?;
        Ok((!shown.contains("Pending restart")).then_some(()))
    });
    cluster.explain(done.await).unwrap();
    for node in &cluster.nodes {
        assert_eq!(node.cell("show max_connections").await.unwrap(), "60");
    }
    cluster.patch_config(&json!({"postgresql": {"parameters": {"max_connections": "50"}}})).await.unwrap();
    for node in [cluster.leader().await.unwrap()].into_iter().chain(cluster.roles().await.unwrap().1) {
        let args = ["restart", "demo", node.name.as_str(), "--force"];
        ctl(&cluster, "matriarchctl", &args).await.unwrap();
    }
}

/// P182 restart --scheduled --pg-version is shown in the list, P185 flush restart takes it back.
#[tokio::test]
async fn a_scheduled_restart_is_shown_and_flushed() {
    let cluster = CLUSTER.lend().await.unwrap();
    let (_, replicas) = cluster.roles().await.unwrap();
    let name = replicas[0].name.as_str();
    let at = "2099-01-01T10:00:00+00:00";
    for tool in ["patronictl", "matriarchctl"] {
        let schedule = ["restart", "demo", name, "--scheduled", at, "--pg-version", "99.1", "--force"];
        let said = ctl(&cluster, tool, &schedule).await.unwrap();
        assert_eq!(
            said.lines().last(),
            Some(format!("Success: restart scheduled on member {name}").as_str()),
            "{said}"
        );
        let shown = until(PATIENCE, "the schedule in the list", async || {
            let shown = both(&cluster, &["list"]).await?;
            Ok(shown.contains(&format!("| {at} if version < 99.1 |")).then_some(()))
        });
        cluster.explain(shown.await).unwrap();
        let said = ctl(&cluster, tool, &["flush", "demo", name, "restart", "--force"]).await.unwrap();
        let wanted = format!("Success: flush scheduled restart for member {name}");
        assert_eq!(said.lines().last(), Some(wanted.as_str()), "{tool}: {said}");
        let gone = until(PATIENCE, "no schedule in the list", async || {
            Ok((!both(&cluster, &["list"]).await?.contains("Scheduled restart")).then_some(()))
        });
        cluster.explain(gone.await).unwrap();
    }
}

/// P183 reload: the text names `loop_wait`, and the node reads its file again (P099, P157 the same by REST and SIGHUP).
#[tokio::test]
async fn reload_reads_the_files_again() {
    let cluster = CLUSTER.lend().await.unwrap();
    let (_, replicas) = cluster.roles().await.unwrap();
    let node = replicas[0];
    for (tool, wanted) in [("patronictl", "dc2"), ("matriarchctl", "dc1")] {
        node.edit(&json!({"tags": {"datacenter": wanted}})).unwrap();
        let said = ctl(&cluster, tool, &["reload", "demo", &node.name, "--force"]).await.unwrap();
        let words = format!(
            "Reload request received for member {} and will be processed within 1 seconds",
            node.name
        );
        assert_eq!(said.lines().last(), Some(words.as_str()), "{tool}: {said}");
        let seen = until(PATIENCE, "the new tag in the list", async || {
            let shown = ctl(&cluster, tool, &["list", "-f", "json"]).await?;
            let shown: Vec<Value> = serde_json::from_str(&shown)?;
            Ok(shown
                .iter()
                .any(|it| it["Member"] == node.name.as_str() && it["Tags"]["datacenter"] == wanted)
                .then_some(()))
        });
        cluster.explain(seen.await).unwrap();
    }
}

/// P184 reinit --wait --from-leader makes a new copy and waits for it; a leader is refused.
#[tokio::test]
async fn reinit_makes_a_new_copy_and_waits_for_it() {
    let cluster = CLUSTER.lend().await.unwrap();
    let (leader, replicas) = cluster.roles().await.unwrap();
    let name = replicas[0].name.as_str();
    let copy = || std::fs::metadata(replicas[0].data()).unwrap().ino();
    for tool in ["patronictl", "matriarchctl"] {
        let old = copy();
        let said = ctl(&cluster, tool, &["reinit", "demo", name, "--force", "--wait", "--from-leader"])
            .await
            .unwrap();
        assert!(said.contains(&format!("Success: reinitialize for member {name}")), "{tool}: {said}");
        assert!(said.contains(&format!("Reinitialize is completed on: {name}")), "{tool}: {said}");
        assert_ne!(copy(), old, "{tool} came back too early: {said}\n{}", cluster.report());
        cluster.wait_healthy(PATIENCE).await.unwrap();
    }
    let refused = cluster.patronictl(&["reinit", "demo", &leader.name, "--force"]).await.unwrap();
    assert_eq!(refused.code, Some(1), "{refused:?}");
}
