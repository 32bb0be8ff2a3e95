//! A watch on the embedded store, at the member in this process or at another one.

use super::client::RemoteWatch;
use super::ring::Watching;
use crate::store::{Batch, StoreError};

/// A watch on the embedded store.
pub(crate) enum RaftWatch {
    Local(Box<Watching>),
    Remote(RemoteWatch),
}

impl RaftWatch {
    pub async fn next(&mut self) -> Result<Batch, StoreError> {
        match self {
            Self::Local(watching) => watching.next().await,
            Self::Remote(watch) => watch.next().await,
        }
    }
}
