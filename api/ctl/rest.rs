//! Asking a member over REST: one request, one answer, one deadline.

use std::time::Duration;

use api::client::{AskError, Client, ClientSettings};
use api::tls::TlsError;
use http::Method;
use serde_json::Value;

/// What a member answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP status code.
    pub code: u16,
    /// The body as text.
    pub body: String,
}

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub enum RestError {
    /// The member publishes something that is no URL.
    #[error("{0:?} is no URL such as http://10.0.0.1:8008/patroni")]
    Url(String),
    /// Nobody answered.
    #[error(transparent)]
    Ask(#[from] AskError),
}

/// Asks members, with the login and the certificates from the configuration.
pub struct Rest(Client);

impl Rest {
    /// Prepares to ask.
    ///
    /// # Errors
    /// [`TlsError`] names the file at fault.
    pub fn new(settings: &ClientSettings) -> Result<Self, TlsError> {
        Client::new(settings).map(Self)
    }

    /// Sends one request to `endpoint` of the member whose `api_url` is given.
    ///
    /// # Errors
    /// [`RestError`] if there is no answer; an answer that refuses is no error.
    pub async fn ask(
        &self,
        api_url: &str,
        method: Method,
        endpoint: &str,
        body: Option<&Value>,
        deadline: Duration,
    ) -> Result<Answer, RestError> {
        let url = at(api_url, endpoint).ok_or_else(|| RestError::Url(api_url.to_owned()))?;
        let answer = self.0.ask(method.as_str(), &url, body, deadline).await?;
        Ok(Answer { code: answer.code, body: answer.text() })
    }
}

/// The URL of another endpoint of the same member.
fn at(api_url: &str, endpoint: &str) -> Option<String> {
    let (scheme, rest) = api_url.split_once("://")?;
    let authority = rest.split(['/', '?']).next().filter(|authority| !authority.is_empty())?;
    Some(format!("{scheme}://{authority}/{endpoint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_replace_the_path() {
        assert_eq!(at("http://a:8008/patroni", "switchover").as_deref(), Some("http://a:8008/switchover"));
        assert_eq!(at("https://[::1]:1", "why").as_deref(), Some("https://[::1]:1/why"));
        assert_eq!(at("a:8008", "why"), None);
        assert_eq!(at("http:///x", "why"), None);
    }
}
