//! The flight recorder of real nodes: what happened is told by the living and by the dead, decides the same again, and
//! neither a torn line nor a full disk disturbs the node.

#![allow(clippy::unwrap_used, reason = "a panic is a failed test, in its helpers too")]

use std::path::PathBuf;
use std::time::Duration;

use chaos::process::{self, Ended};
use chaos::{Cluster, Node, Spec, until};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);

fn turns(node: &Node) -> PathBuf {
    node.dir.join("data.turns")
}

fn newest(node: &Node) -> PathBuf {
    turns(node).join("turns.jsonl")
}

async fn replay(cluster: &Cluster, files: &[PathBuf]) -> Ended {
    let mut command = std::process::Command::new(&cluster.tools.chaos);
    command.arg("replay").args(files);
    process::end_of(command, PATIENCE).await.unwrap()
}

/// The decisions that `why` shows with these arguments.
async fn told(cluster: &Cluster, args: &[&str]) -> Vec<Value> {
    let done = cluster.matriarchctl(&[&["why", "-f", "json"], args].concat()).await.unwrap();
    assert_eq!(done.code, Some(0), "{done:?}");
    serde_json::from_str(&done.out).unwrap()
}

fn says(told: &[Value], member: &str, because: &str) -> bool {
    told.iter().any(|row| row["Member"] == member && row["Because"].as_str().unwrap().contains(because))
}

#[tokio::test]
async fn a_failover_is_recorded_told_and_decided_the_same_again() {
    let cluster = Cluster::healthy(Spec::tested(3)).await.unwrap();
    let (leader, _) = cluster.roles().await.unwrap();
    leader.kill();
    let next = cluster.wait_leader(&[&leader.name], PATIENCE).await.unwrap();

    // The living tell over REST, the dead by their files.
    let promoted = until(PATIENCE, "the promotion in what is told", async || {
        let told = told(&cluster, &["--last", "50"]).await;
        Ok(says(&told, &next.name, "no action. I am the leader with the lock").then_some(told))
    });
    let rows = cluster.explain(promoted.await).unwrap();
    let steps: Vec<&str> = rows.iter().filter_map(|row| row["Steps"].as_str()).collect();
    assert!(steps.iter().any(|steps| steps.contains("acquire lease")), "{rows:?}");
    assert!(steps.iter().any(|steps| steps.contains("begin promote")), "{rows:?}");
    let times: Vec<&str> = rows.iter().filter_map(|row| row["Time"].as_str()).collect();
    assert!(times.is_sorted(), "{times:?}");
    assert!(rows.iter().all(|row| row["Member"] != leader.name.as_str()), "{rows:?}");
    assert!(says(&told(&cluster, &["--since", "10min", "-m", &next.name]).await, &next.name, "lease"));
    assert_eq!(told(&cluster, &["--since", "2199-01-01T00:00Z"]).await, Vec::<Value>::new());
    let dead = turns(leader).display().to_string();
    let dead = told(&cluster, &["--file", &dead]).await;
    assert!(says(&dead, &leader.name, "no action. I am the leader with the lock"), "{dead:?}");

    leader.start().unwrap();
    cluster.wait_healthy(PATIENCE).await.unwrap();
    // It remembers its former life.
    let remembered = told(&cluster, &["--last", "200", "-m", &leader.name]).await;
    assert!(says(&remembered, &leader.name, "no action. I am the leader with the lock"), "{remembered:?}");

    let all: Vec<PathBuf> = cluster.nodes.iter().map(turns).collect();
    let replayed = replay(&cluster, &all).await;
    assert_eq!(replayed.code, Some(0), "{replayed:?}");
    assert!(replayed.out.contains("turns replayed, 0 differences"), "{replayed:?}");
    for node in &cluster.nodes {
        let text = std::fs::read_to_string(newest(node)).unwrap();
        assert!(text.lines().count() > 5 && !text.contains(chaos::spec::SUPERUSER_PASSWORD));
    }

    // What was decided otherwise then is shown.
    let text = std::fs::read_to_string(newest(next)).unwrap();
    let planted = cluster.dir().join("planted.jsonl");
    let changed = text.replacen(r#""because":"Leading""#, r#""because":"Paused""#, 1);
    assert_ne!(changed, text);
    std::fs::write(&planted, changed).unwrap();
    let replayed = replay(&cluster, std::slice::from_ref(&planted)).await;
    assert_eq!(replayed.code, Some(1), "{replayed:?}");
    assert!(replayed.out.contains("reason then  PAUSE: no action"), "{replayed:?}");
    assert!(replayed.out.contains("now   no action. I am the leader with the lock"), "{replayed:?}");
    assert!(replayed.out.contains(" 1 differences"), "{replayed:?}");

    // What cannot be read is said in one line.
    for (text, wrong) in [
        (text.replacen(r#"{"matriarch_turns":1,"#, r#"{"matriarch_turns":9,"#, 1), "is in format 9"),
        (text.replacen(r#""seen":"#, r#""saw":"#, 1), "as matriarch 0.1.0 saw it, which this program"),
        ("name: n1\n".to_owned(), "holds no recorded turns"),
    ] {
        std::fs::write(&planted, text).unwrap();
        let replayed = replay(&cluster, std::slice::from_ref(&planted)).await;
        assert_eq!(replayed.code, Some(2), "{replayed:?}");
        assert!(replayed.err.contains(wrong) && replayed.err.lines().count() == 1, "{replayed:?}");
    }
}

#[tokio::test]
async fn nothing_that_the_disk_does_disturbs_a_node() {
    let cluster = Cluster::in_slot(Spec::tested(3)).await.unwrap();
    let [torn, full, idle] = &cluster.nodes[..] else { panic!("three nodes") };
    // A disk without room for a single line, from the start.
    std::fs::create_dir(turns(full)).unwrap();
    std::os::unix::fs::symlink("/dev/full", newest(full)).unwrap();
    cluster.nodes.iter().try_for_each(Node::start).unwrap();
    cluster.wait_healthy(PATIENCE).await.unwrap();
    let complained = until(PATIENCE, "the complaint", async || {
        Ok(full.log().contains("decisions cannot be recorded").then_some(()))
    });
    cluster.explain(complained.await).unwrap();
    assert!(full.log().contains("No space left on device"), "{}", full.log());
    // What is not on the disk is in memory.
    assert!(!told(&cluster, &["--last", "20", "-m", &full.name]).await.is_empty());

    // The daemon is killed in the middle of a line.
    let line = std::fs::read_to_string(newest(torn)).unwrap().lines().last().unwrap().to_owned();
    torn.kill();
    cluster.explain(cluster.wait_leader(&[&torn.name], PATIENCE).await).unwrap();
    let begun = std::fs::read_to_string(newest(torn)).unwrap() + &line[..line.len() / 2];
    std::fs::write(newest(torn), &begun).unwrap();
    torn.start().unwrap();
    cluster.wait_healthy(PATIENCE).await.unwrap();
    let grown = until(PATIENCE, "turns behind the torn one", async || {
        let text = std::fs::read_to_string(newest(torn))?;
        Ok(text.strip_prefix(&begun).is_some_and(|more| more.lines().count() > 2).then_some(()))
    });
    cluster.explain(grown.await).unwrap();
    let replayed = replay(&cluster, &[turns(torn)]).await;
    assert_eq!(replayed.code, Some(0), "{replayed:?}");
    assert!(replayed.out.contains("0 differences; 1 lines were torn and left out"), "{replayed:?}");

    // A node with nothing to do records nothing: several backstops pass without a line.
    let lines = || std::fs::read_to_string(newest(idle)).unwrap().lines().count();
    let (mut before, mut since) = (lines(), dcs::Moment::now());
    let rest = Duration::from_secs(12);
    let rested = until(PATIENCE * 2, "twelve seconds without a line", async || {
        if lines() != before {
            (before, since) = (lines(), dcs::Moment::now());
        }
        Ok((dcs::Moment::now().since(since) > rest).then_some(()))
    });
    cluster.explain(rested.await).unwrap();
    assert_eq!(full.log().matches("decisions cannot be recorded").count(), 1, "{}", full.log());
}
