//! Asking members for their leave to go on without the store, all at once, each with a deadline. An answer counts from
//! before its question was sent. It decides nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use api::PROMISE;
use api::client::{Answer, AskError, Client};
use config::NodeName;
use coordinator::failsafe::{Given, Leave, Said};
use dcs::{Epoch, Moment};
use serde_json::{Map, Value};
use tokio::task::JoinSet;

use super::terms;

/// The longest that a member may take to answer: it writes its promise to its disk first.
const PATIENCE: Duration = Duration::from_secs(2);

/// Questions under way and answers received.
pub struct Leaves {
    client: Client,
    /// What each member said.
    pub known: BTreeMap<NodeName, Leave>,
    asked_at: BTreeMap<NodeName, String>,
    open: JoinSet<(NodeName, Option<Given>, Said)>,
}

impl Leaves {
    /// Nobody was asked yet.
    pub fn new(client: Client) -> Self {
        Self { client, known: BTreeMap::new(), asked_at: BTreeMap::new(), open: JoinSet::new() }
    }

    /// Asks a member, unless a question to it is open.
    pub fn ask(
        &mut self,
        name: &NodeName,
        url: Option<String>,
        epoch: Epoch,
        span: Duration,
        about: &Map<String, Value>,
    ) {
        let sent = Moment::now();
        let before = self.known.get(name);
        if before.is_some_and(|leave| leave.open) {
            return;
        }
        let given = before.and_then(|leave| leave.given);
        let said = before.map_or(Said::Nothing, |leave| leave.said.clone());
        let Some(url) = url else {
            let said = Said::Refused("it has published no api_url".to_owned());
            self.known.insert(name.clone(), Leave { asked: sent, open: false, said, given });
            return;
        };
        self.known.insert(name.clone(), Leave { asked: sent, open: true, said, given });
        self.asked_at.insert(name.clone(), url.clone());
        let asked = Given { epoch, sent, span };
        // It grows from question to question, also over a restart of this daemon.
        let question = with(about, terms(epoch, sent.0, span));
        let wanted = promise_text(epoch, sent.0, span);
        let (client, name, patience) = (self.client.clone(), name.clone(), PATIENCE.min(span / 5));
        self.open.spawn(async move {
            let said = heard(client.ask("POST", &url, Some(&question), patience).await, &wanted);
            (name, Some(asked), said)
        });
    }

    /// Who has promised in this reign, and where it was asked.
    pub fn promised(&self, epoch: Epoch) -> Vec<(NodeName, String)> {
        let of = |leave: &Leave| leave.given.is_some_and(|given| given.epoch == epoch);
        let promised = self.known.iter().filter(|(_, leave)| of(leave));
        promised.filter_map(|(name, _)| Some((name.clone(), self.asked_at.get(name)?.clone()))).collect()
    }

    /// Gives a promise back; whether that is heard does not matter.
    pub fn let_go(&mut self, name: &NodeName, url: String, epoch: Epoch, about: &Map<String, Value>) {
        self.known.remove(name);
        let word = with(about, terms(epoch, Moment::now().0, Duration::ZERO));
        let (client, name) = (self.client.clone(), name.clone());
        self.open.spawn(async move {
            let _ = client.ask("POST", &url, Some(&word), PATIENCE).await;
            (name, None, Said::Nothing)
        });
    }

    /// Takes in the next answer; pends while no question is open.
    pub async fn next(&mut self) {
        match self.open.join_next().await {
            Some(Ok((name, Some(asked), said))) => {
                if let Some(leave) = self.known.get_mut(&name) {
                    if said == Said::Promised {
                        leave.given = Some(asked);
                    }
                    (leave.said, leave.open) = (said, false);
                }
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                tracing::error!(%error, "a question to a member panicked");
                // Whose it was is not known: everybody is asked again.
                self.known.retain(|_, leave| !leave.open);
            }
            None => std::future::pending().await,
        }
    }
}

fn with(about: &Map<String, Value>, terms: Value) -> Value {
    let mut body = about.clone();
    body.insert("matriarch".to_owned(), terms);
    Value::Object(body)
}

/// What a member that promises writes into the header, so that no answer to another question is taken for this one's.
pub fn promise_text(epoch: Epoch, nonce: u64, span: Duration) -> String {
    format!("{} {nonce} {}", epoch.0, span.as_millis())
}

fn heard(answer: Result<Answer, AskError>, wanted: &str) -> Said {
    let Ok(answer) = answer else { return Said::Nothing };
    let text = answer.text();
    if answer.code != 200 || text != "Accepted" {
        let said: String = text.chars().take(200).collect();
        return Said::Refused(format!("it answers {} {said}", answer.code).trim_end().to_owned());
    }
    match answer.headers.get(PROMISE).and_then(|value| value.to_str().ok()) {
        Some(promised) if promised == wanted => Said::Promised,
        Some(_) => Said::Refused("it promises something else".to_owned()),
        None => Said::Refused("it runs Patroni, whose acknowledgement is no promise that holds".to_owned()),
    }
}
