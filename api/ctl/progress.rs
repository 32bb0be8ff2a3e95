//! What happens in the cluster while a command waits: one line on standard
//! error for each change of leader, role or state.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use dcs::ClusterView;

use crate::ask::note;
use crate::reach::Reach;
use crate::when;

/// Time between two looks at the store.
const PAUSE: Duration = Duration::from_millis(250);

/// Waits for `work` and tells what changes meanwhile.
pub async fn shown<T>(reach: &Reach, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    let mut before: Option<Picture> = None;
    loop {
        tokio::select! {
            done = &mut work => return done,
            now = look(reach) => {
                let Some(now) = now else { continue };
                if let Some(before) = &before {
                    now.since(before).into_iter().for_each(|line| note(format!("{} {line}", when::stamp(false))));
                }
                before = Some(now);
            }
        }
    }
}

async fn look(reach: &Reach) -> Option<Picture> {
    tokio::time::sleep(PAUSE).await;
    // A store that cannot be read for a moment shows as silence, not as an end.
    reach.view().await.ok().map(|view| Picture::of(&view))
}

#[derive(Debug, PartialEq, Eq)]
struct Picture {
    leader: Option<String>,
    members: BTreeMap<String, (String, String)>,
}

impl Picture {
    fn of(view: &ClusterView) -> Self {
        let members =
            view.members.iter().map(|(name, m)| (name.to_string(), (m.role.clone(), m.state.clone())));
        Self { leader: view.leader.as_ref().map(|l| l.name.to_string()), members: members.collect() }
    }

    fn since(&self, before: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        if self.leader != before.leader {
            lines.push(match &self.leader {
                Some(name) => format!("{name} holds the leader lease"),
                None => "nobody holds the leader lease".to_owned(),
            });
        }
        for (name, now) in &self.members {
            match before.members.get(name) {
                Some(was) if was == now => {}
                _ => lines.push(format!("{name}: {}, {}", now.0, now.1)),
            }
        }
        let gone = before.members.keys().filter(|name| !self.members.contains_key(*name));
        lines.extend(gone.map(|name| format!("{name}: gone from the store")));
        lines
    }
}
