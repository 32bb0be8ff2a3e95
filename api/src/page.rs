//! Responses: JSON, plain text, and the error pages that Patroni's web server
//! generates, with the headers that an operator chose.

use axum::body::{Body, Bytes};
use axum::response::IntoResponse;
use http::header::{CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, SERVER, WWW_AUTHENTICATE};
use http::{Response, StatusCode};
use hyper::ext::ReasonPhrase;

use crate::access::Denied;
use crate::command::{self, Reply};
use crate::document::spaced;

/// A response, whole in memory.
pub(crate) type Answer = axum::response::Response;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const PLAIN: HeaderValue = HeaderValue::from_static("text/plain");
const HTML: HeaderValue = HeaderValue::from_static("text/html");
const PAGE: HeaderValue = HeaderValue::from_static("text/html;charset=utf-8");

/// The headers that every answer carries.
#[derive(Debug, Clone)]
pub(crate) struct Letterhead {
    /// `Server`.
    pub(crate) server: HeaderValue,
    /// `http_extra_headers`, and over TLS `https_extra_headers` after them.
    pub(crate) extra: Vec<(HeaderName, HeaderValue)>,
}

impl Letterhead {
    /// Puts the headers on an answer.
    pub(crate) fn print(&self, answer: &mut Answer) {
        let headers = answer.headers_mut();
        headers.insert(SERVER, self.server.clone());
        for (name, value) in &self.extra {
            headers.insert(name.clone(), value.clone());
        }
    }
}

fn answer(code: u16, kind: HeaderValue, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Body::from(body.into()));
    *answer.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer
}

/// A code with headers and no body: HEAD, OPTIONS, and checks that say no more.
pub(crate) fn bare(code: u16) -> Answer {
    answer(code, JSON, Bytes::new())
}

pub(crate) fn json(code: u16, body: impl Into<Bytes>) -> Answer {
    answer(code, JSON, body)
}

pub(crate) fn text(code: u16, text: &'static str) -> Answer {
    answer(code, PLAIN, text)
}

pub(crate) fn metrics(body: String) -> Answer {
    answer(200, PLAIN, body)
}

/// A generated error page; the connection closes behind it, since its body may be unread.
pub(crate) fn error(code: u16, message: Option<&str>) -> Answer {
    let status = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let phrase = message.unwrap_or(phrase(status)).to_owned();
    let escaped = phrase.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let explanation = explanation(code);
    let body = format!(
        "<!DOCTYPE HTML>\n<html lang=\"en\">\n    <head>\n        <meta charset=\"utf-8\">\n        \
         <title>Error response</title>\n    </head>\n    <body>\n        <h1>Error response</h1>\n        \
         <p>Error code: {code}</p>\n        <p>Message: {escaped}.</p>\n        \
         <p>Error code explanation: {code} - {explanation}.</p>\n    </body>\n</html>\n"
    );
    let mut answer = answer(code, PAGE, body);
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    if let Ok(phrase) = ReasonPhrase::try_from(Bytes::from(phrase)) {
        answer.extensions_mut().insert(phrase);
    }
    answer
}

/// A node's reply; a refusal without words becomes an error page.
impl IntoResponse for Reply {
    fn into_response(self) -> Answer {
        let mut answer = match self.body {
            command::Body::Text(text) if text.is_empty() && self.code >= 400 => {
                return error(self.code, None);
            }
            command::Body::Text(text) => answer(self.code, HTML, text),
            command::Body::Json(value) => json(self.code, spaced(&value)),
        };
        if let Some(lsn) = self.lsn {
            answer.headers_mut().insert(HeaderName::from_static("lsn"), HeaderValue::from(lsn.0));
        }
        if let Some(promise) = self.promise.and_then(|words| HeaderValue::try_from(words).ok()) {
            answer.headers_mut().insert(HeaderName::from_static(crate::PROMISE), promise);
        }
        answer
    }
}

/// 403, or 401 with the realm that Patroni names.
impl IntoResponse for Denied {
    fn into_response(self) -> Answer {
        match self {
            Self::Address | Self::Certificate => answer(403, HTML, self.to_string()),
            Self::NoPassword | Self::WrongPassword => {
                let mut answer = answer(401, HTML, self.to_string());
                let realm = HeaderValue::from_static("Basic realm=\"Patroni\"");
                answer.headers_mut().insert(WWW_AUTHENTICATE, realm);
                answer
            }
        }
    }
}

fn phrase(status: StatusCode) -> &'static str {
    match status.as_u16() {
        413 => "Request Entity Too Large",
        408 => "Request Timeout",
        _ => status.canonical_reason().unwrap_or("Error"),
    }
}

fn explanation(code: u16) -> &'static str {
    match code {
        400 => "Bad request syntax or unsupported method",
        408 => "Request timed out; try again later",
        409 => "Request conflict",
        411 => "Client must specify Content-Length",
        413 => "Entity is too large",
        501 => "Server does not support this operation",
        502 => "Invalid responses from another server/proxy",
        503 => "The server cannot process the request due to a high load",
        _ => "Server got itself in trouble",
    }
}
