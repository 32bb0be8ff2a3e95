//! How a member without a store finds one: with all others that its configuration names, if all are as
//! fresh as itself; else in the store that one of them belongs to. It never founds a store while anybody is missing,
//! because whoever is missing may belong to one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ring::digest::{Context, SHA256};
use tokio::task::JoinSet;

use super::client;
use super::frame::Word;
use super::request::{Introduction, Reply};
use super::wire::{Input, Wire};
use crate::Moment;

/// How often the others are asked.
const PACE: Duration = Duration::from_millis(150);
/// How often to say what is waited for, if it does not change.
const SAY: Duration = Duration::from_secs(10);

/// What to do, as the others answered.
#[derive(Debug, PartialEq, Eq)]
enum Finding {
    Formed { cluster: u64, founders: BTreeMap<u64, String> },
    Wait(String),
}

/// Runs until this member is part of a store.
pub(super) async fn find(wire: Arc<Wire>, others: Vec<String>) {
    let mut said: Option<(String, Moment)> = None;
    loop {
        let us = wire.introduction.borrow().clone();
        if us.cluster != 0 && us.known.contains(&wire.address) {
            return;
        }
        let answers = ask_all(&wire, &others).await;
        let waits = if us.cluster == 0 {
            match judge(&us, &wire.address, &answers) {
                Finding::Formed { cluster, founders } => {
                    let mut formed = wire.introduction.subscribe();
                    if wire.inputs.try_send(Input::Formed { cluster, founders }).is_ok() {
                        let forming = formed.wait_for(|us| us.cluster != 0);
                        let _ = tokio::time::timeout(SAY, forming).await;
                        continue;
                    }
                    "this member is busy".to_owned()
                }
                Finding::Wait(why) => why,
            }
        } else {
            ask_to_join(&wire, us.cluster, &answers).await
        };
        let now = Moment::now();
        let stale = said.as_ref().is_none_or(|(last, when)| *last != waits || now.since(*when) >= SAY);
        if stale {
            tracing::warn!("the embedded store is not there yet: {waits}");
            said = Some((waits, now));
        }
        tokio::time::sleep(PACE).await;
    }
}

type Answers = BTreeMap<String, Result<Introduction, String>>;

async fn ask_all(wire: &Arc<Wire>, others: &[String]) -> Answers {
    let mut asking = JoinSet::new();
    for address in others.iter().cloned() {
        let wire = Arc::clone(wire);
        asking.spawn(async move {
            let hello = wire.hello().map_err(|error| error.to_string());
            let answer = match hello {
                _ if wire.is_cut(&address) => Err("cut off by a test".to_owned()),
                Ok(hello) => client::introduce(&wire.security, &address, hello).await,
                Err(why) => Err(why),
            };
            let answer = answer.and_then(|reply| match reply {
                Reply::Introduced(them) => Ok(them),
                _ => Err("it did not say who it is".to_owned()),
            });
            (address, answer)
        });
    }
    let mut answers = BTreeMap::new();
    while let Some(asked) = asking.join_next().await {
        if let Ok((address, answer)) = asked {
            answers.insert(address, answer);
        }
    }
    answers
}

/// Founding is deterministic: whoever sees the same fresh members founds the same store. Should two
/// members see different ones (one was emptied and started again in between), their stores have different founders,
/// and as every identity belongs to one store at most, at most one of them ever has a quorum.
fn judge(us: &Introduction, address: &str, answers: &Answers) -> Finding {
    let mut stores = answers.values().flatten().filter(|them| them.cluster != 0);
    if let Some(store) = stores.next() {
        if let Some(other) = stores.find(|other| other.cluster != store.cluster) {
            let (one, other) = (store.cluster, other.cluster);
            return Finding::Wait(format!(
                "partner_addrs names members of two stores ({one:x} and {other:x}), which are never joined"
            ));
        }
        return Finding::Formed { cluster: store.cluster, founders: store.founders.clone() };
    }
    let missing: Vec<String> = answers
        .iter()
        .filter_map(|(address, answer)| Some(format!("{address} ({})", answer.as_ref().err()?)))
        .collect();
    if !missing.is_empty() {
        let missing = missing.join(", ");
        return Finding::Wait(format!(
            "it is founded only when all its members are there; missing: {missing}"
        ));
    }
    for (other, them) in answers {
        if let Ok(them) = them
            && them.list != us.list
        {
            let (ours, theirs) = (us.list.join(", "), them.list.join(", "));
            return Finding::Wait(format!(
                "the configurations name different members: here {ours}, at {other} {theirs}; write the same everywhere"
            ));
        }
    }
    let mut founders: BTreeMap<u64, String> = [(us.member, address.to_owned())].into();
    founders.extend(
        answers.iter().filter_map(|(address, them)| Some((them.as_ref().ok()?.member, address.clone()))),
    );
    let addresses: BTreeSet<&String> = founders.values().collect();
    if founders.len() != answers.len() + 1 || addresses.len() != founders.len() {
        return Finding::Wait("two members have one identity: one data_dir is a copy of another".to_owned());
    }
    let mut context = Context::new(&SHA256);
    for (member, address) in &founders {
        context.update(&member.to_be_bytes());
        context.update(address.as_bytes());
        context.update(&[0]);
    }
    let digest = context.finish();
    let cluster = digest.as_ref().iter().take(8).fold(0, |sum: u64, byte| (sum << 8) | u64::from(*byte));
    Finding::Formed { cluster: cluster.max(1), founders }
}

/// Asks everybody of the store to be let in; returns what is waited for.
async fn ask_to_join(wire: &Arc<Wire>, cluster: u64, answers: &Answers) -> String {
    let mut known = false;
    let mut asked = 0;
    for (address, them) in answers {
        let Ok(them) = them else { continue };
        if them.cluster == cluster && them.known.contains(&wire.address) {
            known = true;
        }
        let Ok(hello) = wire.hello() else { continue };
        let word = Word::Join { member: wire.member, address: wire.address.clone() };
        if them.cluster == cluster && client::tell(&wire.security, address, hello, word).await.is_ok() {
            asked += 1;
        }
    }
    match (asked, known) {
        (0, _) => {
            let why = |(address, answer): (&String, &Result<Introduction, String>)| match answer {
                Ok(_) => format!("{address} belongs to another store"),
                Err(why) => format!("{address} ({why})"),
            };
            format!("nobody of it answers: {}", answers.iter().map(why).collect::<Vec<_>>().join(", "))
        }
        (_, true) => "this member is let in and catches up".to_owned(),
        (_, false) => {
            format!("it does not know this member: let it in with matriarchctl store add {}", wire.address)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn intro(member: u64, cluster: u64) -> Introduction {
        let list = ["a", "b", "c"].map(str::to_owned).to_vec();
        Introduction { member, cluster, founders: BTreeMap::new(), list, known: Vec::new() }
    }

    fn answers(given: &[(&str, Result<Introduction, &str>)]) -> Answers {
        let own = |(address, answer): &(&str, Result<Introduction, &str>)| {
            ((*address).to_owned(), answer.clone().map_err(str::to_owned))
        };
        given.iter().map(own).collect()
    }

    #[test]
    fn everybody_founds_the_same_store() {
        let one = judge(&intro(1, 0), "a", &answers(&[("b", Ok(intro(2, 0))), ("c", Ok(intro(3, 0)))]));
        let other = judge(&intro(3, 0), "c", &answers(&[("a", Ok(intro(1, 0))), ("b", Ok(intro(2, 0)))]));
        assert_eq!(one, other);
        let Finding::Formed { cluster, founders } = one else { panic!("{one:?}") };
        assert!(cluster != 0 && founders.len() == 3);
        // Another identity is another store.
        let changed = judge(&intro(3, 0), "c", &answers(&[("a", Ok(intro(1, 0))), ("b", Ok(intro(4, 0)))]));
        assert!(matches!(changed, Finding::Formed { cluster: new, .. } if new != cluster));
    }

    #[test]
    fn nobody_founds_a_store_while_somebody_is_missing() {
        let missing = judge(&intro(1, 0), "a", &answers(&[("b", Ok(intro(2, 0))), ("c", Err("refused"))]));
        assert!(matches!(missing, Finding::Wait(why) if why.contains("c (refused)")));
        let mut other = intro(3, 0);
        other.list.pop();
        let lists = judge(&intro(1, 0), "a", &answers(&[("b", Ok(intro(2, 0))), ("c", Ok(other))]));
        assert!(matches!(lists, Finding::Wait(why) if why.contains("different members")));
        let copied = judge(&intro(1, 0), "a", &answers(&[("b", Ok(intro(1, 0))), ("c", Ok(intro(3, 0)))]));
        assert!(matches!(copied, Finding::Wait(why) if why.contains("copy")));
    }

    #[test]
    fn a_store_that_exists_is_joined() {
        let found = judge(&intro(1, 0), "a", &answers(&[("b", Ok(intro(2, 7))), ("c", Err("refused"))]));
        assert!(matches!(found, Finding::Formed { cluster: 7, .. }));
        // F93
        let two = judge(&intro(1, 0), "a", &answers(&[("b", Ok(intro(2, 7))), ("c", Ok(intro(3, 8)))]));
        assert!(matches!(two, Finding::Wait(why) if why.contains("two stores")));
    }
}
