//! The bodies of changing requests, as extractors: JSON objects of a limited size
//! that arrive in time. Their content type does not matter, as with Patroni.

use std::time::Duration;

use axum::extract::{FromRequest, Request};
use http::header::CONTENT_LENGTH;
use serde_json::{Map, Value};

use crate::command::Reply;

/// Largest accepted body in bytes.
const LIMIT: usize = 1024 * 1024;
/// How long a body may take to arrive.
const DEADLINE: Duration = Duration::from_secs(5);

/// A JSON object with something in it.
pub(crate) struct Needed(pub(crate) Map<String, Value>);

/// A JSON object, empty where nothing was sent.
pub(crate) struct Optional(pub(crate) Map<String, Value>);

impl<S: Sync> FromRequest<S> for Needed {
    type Rejection = Reply;

    async fn from_request(request: Request, _: &S) -> Result<Self, Reply> {
        object(request, false).await.map(Self)
    }
}

impl<S: Sync> FromRequest<S> for Optional {
    type Rejection = Reply;

    async fn from_request(request: Request, _: &S) -> Result<Self, Reply> {
        object(request, true).await.map(Self)
    }
}

/// The rules of patroni-compat 2.2: a missing length is 411, anything else that is no object,
/// or an empty one where something is needed, is 400.
async fn object(request: Request, optional: bool) -> Result<Map<String, Value>, Reply> {
    let refuse = |code: u16| Err(Reply::text(code, ""));
    let length = match request.headers().get(CONTENT_LENGTH) {
        None if optional => return Ok(Map::new()),
        None => return refuse(411),
        Some(length) => length.to_str().ok().and_then(|length| length.trim().parse::<usize>().ok()),
    };
    match length {
        None => return refuse(400),
        Some(0) if optional => return Ok(Map::new()),
        Some(length) if length > LIMIT => return refuse(413),
        Some(_) => {}
    }
    let whole = axum::body::to_bytes(request.into_body(), LIMIT);
    let bytes = match tokio::time::timeout(DEADLINE, whole).await {
        Err(_) => return refuse(408),
        Ok(Err(_)) => return refuse(400),
        Ok(Ok(bytes)) => bytes,
    };
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(object)) if optional || !object.is_empty() => Ok(object),
        _ => refuse(400),
    }
}
