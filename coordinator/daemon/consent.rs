//! Whether the local copy may go, asked of custody before whoever wants a new one is told that it has
//! begun. It moves nothing; the evidence is gathered again when the copy really goes.

use std::time::Duration;

use config::NodeName;
use coordinator::Consent;
use tokio::task::JoinSet;

use crate::task::{self, Context};

/// How long gathering evidence may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The questions that are open.
#[derive(Debug, Default)]
pub struct Consents(JoinSet<(u64, Consent)>);

impl Consents {
    /// Asks for the request of this number, while `leader` leads.
    pub fn seek(&mut self, id: u64, leader: NodeName, context: Context) {
        self.0.spawn(async move {
            let said = match tokio::time::timeout(PATIENCE, task::consent(&context, &leader)).await {
                Ok(Ok(())) => Consent::Given,
                Ok(Err(error)) => Consent::Refused(format!("{error:#}")),
                Err(_) => Consent::Refused(format!(
                    "whether this copy may go could not be told within {} s; ask again",
                    PATIENCE.as_secs()
                )),
            };
            (id, said)
        });
    }

    /// The next answer, and the request that it is for; pends while no question is open.
    pub async fn next(&mut self) -> (u64, Consent) {
        loop {
            match self.0.join_next().await {
                Some(Ok(answer)) => return answer,
                // A panic: the request ends with its connection.
                Some(Err(error)) => tracing::error!(%error, "asking custody did not end well"),
                None => std::future::pending().await,
            }
        }
    }
}
