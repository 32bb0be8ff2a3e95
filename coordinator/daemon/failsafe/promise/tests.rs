//! Whom this node promises what, and that a restart does not forget it.

use dcs::{Leader, Member, Revision};
use serde_json::json;

use super::*;

const TTL: Duration = Duration::from_secs(10);

fn name(text: &str) -> NodeName {
    NodeName::new(text).unwrap()
}

fn wish(leader: &str, epoch: i64, nonce: u64, millis: u64) -> Wish {
    let terms = json!({"epoch": epoch, "nonce": nonce, "millis": millis});
    Wish::read(&json!({"name": leader, "matriarch": terms})).unwrap()
}

/// n1 leads in the reign 7; the record names n1 and n2.
fn view() -> ClusterView {
    let record = ["n1", "n2"].map(|member| (name(member), format!("http://{member}")));
    let leader = Leader { name: name("n1"), epoch: Epoch(7), revision: Revision(7), lease: 1 };
    let ours = Member { matriarch: Some("1".into()), ..Member::default() };
    ClusterView {
        failsafe: Some(record.into()),
        leader: Some(leader),
        members: [(name("n1"), ours)].into(),
        ..ClusterView::default()
    }
}

fn open(dir: &std::path::Path) -> Promises {
    Promises::load(&Paths::new(dir.join("pg")), &name("n2"), TTL)
}

#[tokio::test]
async fn a_promise_is_kept_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let promises = open(dir.path());
    assert_eq!(promises.binding(), None);
    let before = Moment::now();
    let said = promises.give(&wish("n1", 7, 5, 10_000), &view(), TTL, || false).await;
    assert_eq!(said, Ok(Some("7 5 10000".to_owned())));
    let given = promises.binding().unwrap();
    assert!(given.leader == name("n1") && given.until >= before + TTL, "{given:?}");
    assert_eq!(open(dir.path()).binding(), Some(given.clone()), "the same, by the same clock");
    // A reboot: the clock has begun anew.
    let file = dir.path().join("pg.promise");
    let text = std::fs::read_to_string(&file).unwrap();
    let mut written: Value = serde_json::from_str(&text).unwrap();
    (written["boot_id"], written["until_ns"]) = ("another".into(), 1.into());
    std::fs::write(&file, written.to_string()).unwrap();
    assert!(open(dir.path()).binding().unwrap().until >= Moment::now() + TTL / 2, "it counts anew");
    // Damage is not freedom.
    std::fs::write(&file, "{").unwrap();
    assert!(open(dir.path()).binding().is_some());
    // What was given back is free, for the next daemon too.
    std::fs::write(&file, text).unwrap();
    let promises = open(dir.path());
    assert_eq!(promises.give(&wish("n1", 7, 6, 0), &view(), TTL, || false).await, Ok(None));
    assert_eq!((promises.binding(), open(dir.path()).binding()), (None, None));
}

/// F171: what was asked before, or in the name of an earlier reign, prolongs nothing.
#[tokio::test]
async fn what_is_replayed_or_outdated_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let promises = open(dir.path());
    let ask = async |wish: Wish| promises.give(&wish, &view(), TTL, || false).await;
    assert!(ask(wish("n1", 7, 5, 1000)).await.is_ok());
    let given = promises.binding();
    assert_eq!(ask(wish("n1", 7, 5, 10_000)).await, Err(Refusal::Replayed));
    assert_eq!(ask(wish("n1", 7, 4, 10_000)).await, Err(Refusal::Replayed));
    assert_eq!(ask(wish("n1", 6, 9, 10_000)).await, Err(Refusal::Old));
    assert_eq!(ask(wish("n2", 7, 9, 10_000)).await, Err(Refusal::Old), "another one leads in that reign");
    assert_eq!(ask(wish("n9", 8, 9, 10_000)).await, Err(Refusal::Unknown));
    assert_eq!(ask(wish("n1", 7, 9, 20_001)).await, Err(Refusal::Long));
    // Patroni's form in the name of a leader that could prove more.
    let plain = Wish::read(&json!({"name": "n1"})).unwrap();
    assert_eq!(ask(plain).await, Ok(None));
    assert_eq!(promises.binding(), given, "nothing has changed it");
    assert!(ask(wish("n1", 7, 6, 1000)).await.is_ok());
    assert!(promises.binding().unwrap().until > given.unwrap().until);
}

#[tokio::test]
async fn patroni_is_promised_what_it_expects() {
    let dir = tempfile::tempdir().unwrap();
    let promises = open(dir.path());
    let mut view = view();
    view.members.insert(name("n1"), Member::default());
    let now = Moment::now();
    let asked = promises.give(&Wish::read(&json!({"name": "n1"})).unwrap(), &view, TTL, || false).await;
    assert_eq!(asked, Ok(None));
    assert!(promises.binding().unwrap().until >= now + TTL);
}

#[tokio::test]
async fn whoever_leads_promises_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let promises = open(dir.path());
    assert_eq!(promises.give(&wish("n1", 7, 5, 1000), &view(), TTL, || true).await, Err(Refusal::Leads));
    assert_eq!(promises.binding(), None);
}

#[tokio::test]
async fn what_cannot_be_written_down_is_not_said() {
    let dir = tempfile::tempdir().unwrap();
    let promises = open(&dir.path().join("no/such/folder"));
    assert_eq!(promises.give(&wish("n1", 7, 5, 1000), &view(), TTL, || false).await, Err(Refusal::Disk));
    assert!(promises.binding().is_some(), "it is kept all the same");
}

#[test]
fn bad_questions_are_refused_with_a_reason() {
    for body in [
        json!({}),
        json!({"name": 5}),
        json!({"name": ""}),
        json!({"name": "n1", "matriarch": 5}),
        json!({"name": "n1", "matriarch": {"epoch": 1, "nonce": -1, "millis": 5}}),
        json!({"name": "n1", "matriarch": {"epoch": 1, "nonce": 1, "millis": 600_001}}),
    ] {
        assert!(Wish::read(&body).is_err(), "{body}");
    }
}
