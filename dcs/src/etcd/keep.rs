//! Renewing a lease over one stream that stays open, one request at a time.
//! A stream whose answer did not come is thrown away: a late answer must never be
//! taken for the answer to a newer request.

use std::sync::Arc;

use etcd_client::{LeaseKeepAliveStream, LeaseKeeper};
use tokio::sync::Mutex;

use super::attempts::Attempts;
use super::outcome::{Outcome, outcome};
use super::pool::{Endpoint, Pool};
use crate::store::{Patience, StoreError};

/// The open stream, if there is one.
#[derive(Default)]
pub(super) struct Keeping(Mutex<Option<Open>>);

struct Open {
    lease: i64,
    endpoint: Arc<Endpoint>,
    keeper: LeaseKeeper,
    answers: LeaseKeepAliveStream,
}

impl Keeping {
    pub async fn keep(&self, pool: &Pool, lease: i64, patience: Patience) -> Result<(), StoreError> {
        let slot = tokio::time::timeout(patience.total, self.0.lock()).await;
        let mut slot =
            slot.map_err(|_| StoreError::Unreachable("another renewal is under way".to_owned()))?;
        let mut attempts = Attempts::new(patience);
        while let Some(each) = attempts.next().await {
            // Taken out, so that whatever ends this attempt early ends the stream as well.
            let usable = slot.take().filter(|open| open.lease == lease && pool.uses(&open.endpoint));
            let endpoint = match &usable {
                Some(open) => Arc::clone(&open.endpoint),
                None => match pool.current().await {
                    Ok(endpoint) => endpoint,
                    Err(error) => {
                        attempts.failed(1, error.to_string());
                        continue;
                    }
                },
            };
            let renewed = tokio::time::timeout(each, Box::pin(renew(pool, &endpoint, usable, lease))).await;
            let silent = || Outcome::silent(&endpoint.url, each, true);
            match renewed.unwrap_or_else(|_| Err(silent())) {
                Ok(open) => {
                    *slot = Some(open);
                    return Ok(());
                }
                Err(outcome) => {
                    if let Some(error) = pool.judge(&endpoint, outcome, true, &mut attempts) {
                        return Err(error);
                    }
                }
            }
        }
        Err(attempts.given_up())
    }
}

async fn renew(
    pool: &Pool,
    endpoint: &Arc<Endpoint>,
    open: Option<Open>,
    lease: i64,
) -> Result<Open, Outcome> {
    let failed = |error: etcd_client::Error| outcome(&error);
    let Some(mut open) = open else {
        let mut client = pool.client(endpoint).await?;
        // Opening the stream sends the first request and waits for its answer.
        let (keeper, answers) = client.lease_keep_alive(lease).await.map_err(failed)?;
        return Ok(Open { lease, endpoint: Arc::clone(endpoint), keeper, answers });
    };
    open.keeper.keep_alive().await.map_err(failed)?;
    let ended = || Outcome::Doubtful("the keepalive stream ended".to_owned());
    let answer = open.answers.message().await.map_err(failed)?.ok_or_else(ended)?;
    pool.known().check(answer.header().into(), None).map_err(|error| Outcome::NotSent(error.to_string()))?;
    if answer.id() != lease {
        return Err(Outcome::Doubtful("the keepalive's answer is for another lease".to_owned()));
    }
    if answer.ttl() <= 0 {
        return Err(Outcome::Final(StoreError::LeaseGone));
    }
    Ok(open)
}
