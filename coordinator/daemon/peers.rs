//! Asking the other members how they are, all at once, each with a deadline.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use api::client::Client;
use api::peer::PeerAnswer;
use config::NodeName;
use coordinator::{Asked, Peer};
use dcs::{ClusterView, Moment};
use tokio::task::JoinSet;

/// How long a member may take to answer. A dead host does not refuse, it is silent,
/// and an election waits for everybody: so this is on the way of a failover.
const PATIENCE: Duration = Duration::from_millis(500);

/// Questions under way and answers received.
pub struct Peers {
    client: Client,
    answers: BTreeMap<NodeName, Peer>,
    open: JoinSet<(NodeName, Moment, Option<PeerAnswer>)>,
}

impl Peers {
    /// Nobody was asked yet.
    pub fn new(client: Client) -> Self {
        Self { client, answers: BTreeMap::new(), open: JoinSet::new() }
    }

    /// What is known of whom.
    pub fn answers(&self) -> &BTreeMap<NodeName, Peer> {
        &self.answers
    }

    /// Asks these members for their status as it is now.
    pub fn ask(&mut self, names: &BTreeSet<NodeName>, view: &ClusterView) {
        for name in names {
            if self.answers.get(name).is_some_and(|peer| peer.answer == Asked::Waiting) {
                continue;
            }
            let asked = Moment::now();
            let url = view.members.get(name).and_then(|member| member.api_url.clone());
            let Some(url) = url else {
                self.answers.insert(name.clone(), Peer { asked, answer: Asked::Nothing });
                continue;
            };
            self.answers.insert(name.clone(), Peer { asked, answer: Asked::Waiting });
            let (client, name) = (self.client.clone(), name.clone());
            self.open.spawn(async move {
                // Patroni ignores the query; matriarch looks at its Postgres before it answers.
                let answer = client.ask("GET", &format!("{url}?fresh"), None, PATIENCE).await.ok();
                let document = answer.and_then(|answer| serde_json::from_slice(&answer.body).ok());
                (name, asked, document.as_ref().and_then(PeerAnswer::read))
            });
        }
    }

    /// Takes in the next answer; pends while no question is open.
    pub async fn next(&mut self) {
        match self.open.join_next().await {
            Some(Ok((name, asked, answer))) => {
                let answer = match answer {
                    Some(answer) => Asked::Answered(Moment::now(), answer),
                    None => Asked::Nothing,
                };
                self.answers.insert(name, Peer { asked, answer });
            }
            Some(Err(error)) => tracing::error!(%error, "a question to a member panicked"),
            None => std::future::pending().await,
        }
    }

    /// Forgets members that are no more.
    pub fn keep_only(&mut self, view: &ClusterView) {
        self.answers.retain(|name, _| view.members.contains_key(name));
    }
}
