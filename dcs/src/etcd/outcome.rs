//! What a failed request to etcd means: whether it may have happened, and
//! whether another server might do better.

use std::time::Duration;

use etcd_client::Error;

use crate::store::StoreError;

/// What to make of a failure.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It did not happen here; another server may do it.
    NotSent(String),
    /// It may have happened.
    Doubtful(String),
    /// Nobody answered in time, so it may have happened if it was sent at all.
    Silent { was_sent: bool, why: String },
    /// Our token or user is not accepted; a new login may help, once.
    Auth(String),
    /// It did not happen, and would not anywhere else.
    Final(StoreError),
}

// gRPC status codes, by number: tonic's type is not ours to name.
const UNAUTHENTICATED: i32 = 16;
const UNAVAILABLE: i32 = 14;
const DATA_LOSS: i32 = 15;
const NOT_FOUND: i32 = 5;
const PERMISSION_DENIED: i32 = 7;
const RESOURCE_EXHAUSTED: i32 = 8;
const OUT_OF_RANGE: i32 = 11;
const INVALID_ARGUMENT: i32 = 3;
const ALREADY_EXISTS: i32 = 6;
const FAILED_PRECONDITION: i32 = 9;
const UNIMPLEMENTED: i32 = 12;

impl Outcome {
    /// No answer within an attempt's time.
    pub fn silent(url: &str, each: Duration, was_sent: bool) -> Self {
        Self::Silent { was_sent, why: format!("{url} did not answer within {each:?}") }
    }
}

/// Judges an error of etcd-client.
pub(super) fn outcome(error: &Error) -> Outcome {
    match error {
        Error::GRpcStatus(status) => by_status(status.code() as i32, &with_causes(status.message(), status)),
        Error::LeaseKeepAliveError(why) if why.contains("not found") => Outcome::Final(StoreError::LeaseGone),
        Error::InvalidArgs(why) => Outcome::Final(StoreError::Settings(why.clone())),
        Error::InvalidUri(why) => Outcome::Final(StoreError::Settings(why.to_string())),
        Error::EndpointError(why) => Outcome::NotSent(why.clone()),
        Error::TransportError(why) => Outcome::Doubtful(with_causes(&why.to_string(), why)),
        other => Outcome::Doubtful(other.to_string()),
    }
}

/// The causes of a failed connection (refused, a certificate, a name) are what a person needs to read.
fn with_causes(first: &str, error: &dyn std::error::Error) -> String {
    let mut text = first.to_owned();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

fn by_status(code: i32, message: &str) -> Outcome {
    let text = message.to_owned();
    match code {
        UNAUTHENTICATED | PERMISSION_DENIED => Outcome::Auth(text),
        INVALID_ARGUMENT if is_about_login(message) => Outcome::Auth(text),
        NOT_FOUND if message.contains("lease not found") => Outcome::Final(StoreError::LeaseGone),
        RESOURCE_EXHAUSTED if message.contains("space exceeded") => Outcome::Final(StoreError::NoSpace),
        OUT_OF_RANGE if message.contains("compacted") => Outcome::Final(StoreError::Gap(text)),
        // A member that knows itself corrupt, or is too busy, does not do anything; others may.
        DATA_LOSS => Outcome::NotSent(text),
        RESOURCE_EXHAUSTED if message.contains("too many requests") => Outcome::NotSent(text),
        UNAVAILABLE if never_left(message) => Outcome::NotSent(text),
        INVALID_ARGUMENT | NOT_FOUND | ALREADY_EXISTS | FAILED_PRECONDITION | OUT_OF_RANGE
        | RESOURCE_EXHAUSTED | UNIMPLEMENTED => Outcome::Final(StoreError::Refused(text)),
        _ => Outcome::Doubtful(text),
    }
}

/// Refusals to connect, and the answers etcd gives before it looks at a request.
fn never_left(message: &str) -> bool {
    ["connect error", "no leader", "not capable", "dns error", "error trying to connect"]
        .iter()
        .any(|known| message.contains(known))
}

fn is_about_login(message: &str) -> bool {
    ["user name is empty", "authentication failed", "auth store is old", "user name not found"]
        .iter()
        .any(|known| message.contains(known))
}

/// Whether etcd says that it wants no login.
pub(super) fn wants_no_login(error: &Error) -> bool {
    matches!(error, Error::GRpcStatus(status) if status.message().contains("authentication is not enabled"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_never_left_counts_as_not_sent() {
        assert!(matches!(by_status(14, "tcp connect error"), Outcome::NotSent(_)));
        assert!(matches!(by_status(14, "etcdserver: no leader"), Outcome::NotSent(_)));
        for message in ["etcdserver: request timed out", "etcdserver: leader changed", "transport is closing"]
        {
            assert!(matches!(by_status(14, message), Outcome::Doubtful(_)), "{message}");
        }
        assert!(matches!(by_status(1, "Timeout expired"), Outcome::Doubtful(_)));
        assert!(matches!(by_status(2, "transport error"), Outcome::Doubtful(_)));
    }

    #[test]
    fn refusals_are_told_apart() {
        // F85, P040
        assert_eq!(
            by_status(8, "etcdserver: mvcc: database space exceeded"),
            Outcome::Final(StoreError::NoSpace)
        );
        assert_eq!(
            by_status(5, "etcdserver: requested lease not found"),
            Outcome::Final(StoreError::LeaseGone)
        );
        assert!(matches!(by_status(16, "etcdserver: invalid auth token"), Outcome::Auth(_)));
        assert!(matches!(by_status(3, "etcdserver: user name is empty"), Outcome::Auth(_)));
        assert!(matches!(
            by_status(3, "etcdserver: request is too large"),
            Outcome::Final(StoreError::Refused(_))
        ));
    }
}
