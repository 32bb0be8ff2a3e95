//! What reading answers: health checks, documents and metrics, one function per
//! endpoint, from what is watched. Nothing here changes anything.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::{FromRequestParts, State};
use dcs::{ClusterView, Moment};
use http::request::Parts;
use http::{Method, Uri};

use crate::page::{self, Answer};
use crate::respondent::Respondent;
use crate::status::NodeStatus;
use crate::{health, metrics, read, routes, wall};

type Node = State<Arc<Respondent>>;

/// What is known at the moment of the question.
pub(crate) struct Known {
    status: Arc<NodeStatus>,
    view: Option<Arc<ClusterView>>,
    now: Moment,
}

impl FromRequestParts<Arc<Respondent>> for Known {
    type Rejection = Infallible;

    async fn from_request_parts(_: &mut Parts, node: &Arc<Respondent>) -> Result<Self, Infallible> {
        node.renew_claim().await;
        Ok(Self { status: node.status.borrow().clone(), view: node.view(), now: Moment::now() })
    }
}

fn query(uri: &Uri) -> &str {
    uri.query().unwrap_or_default()
}

/// A document, or the error page of `code` where there is none.
fn document(code: u16, text: Option<String>) -> Answer {
    text.map_or_else(|| page::error(code, None), |text| page::json(200, text))
}

pub(crate) async fn health(State(node): Node, uri: Uri) -> Answer {
    node.renew_claim().await;
    let (status, now) = (node.status.borrow().clone(), Moment::now());
    let code = health::check(uri.path(), query(&uri), &status, now);
    page::json(code, node.document(status, now))
}

pub(crate) async fn liveness(known: Known) -> Answer {
    page::bare(health::liveness(&known.status, known.now))
}

pub(crate) async fn readiness(known: Known, uri: Uri) -> Answer {
    page::bare(health::readiness(query(&uri), &known.status, known.now))
}

pub(crate) async fn patroni(State(node): Node, method: Method) -> Answer {
    if method == Method::GET {
        node.look().await;
    }
    let status = node.status.borrow().clone();
    page::json(200, node.document(status, Moment::now()))
}

pub(crate) async fn cluster(known: Known) -> Answer {
    document(503, known.view.map(|view| read::cluster(&view, &known.status.scope)))
}

pub(crate) async fn members(known: Known) -> Answer {
    document(503, known.view.as_deref().map(read::members))
}

pub(crate) async fn history(known: Known) -> Answer {
    page::json(200, known.view.as_deref().map_or_else(|| "[]".to_owned(), read::history))
}

pub(crate) async fn config(known: Known) -> Answer {
    document(502, known.view.as_deref().and_then(read::config))
}

pub(crate) async fn failsafe(known: Known) -> Answer {
    document(502, known.view.as_deref().and_then(read::failsafe))
}

pub(crate) async fn metrics(State(node): Node, known: Known) -> Answer {
    let requests = node.requests.load(Ordering::Relaxed);
    page::metrics(metrics::page(&known.status, known.view.as_deref(), requests, known.now))
}

pub(crate) async fn role(State(node): Node, known: Known) -> Answer {
    let time = wall::epoch(wall::now());
    page::json(200, read::role_document(&known.status, &node.hostname, time, known.now))
}

/// With `?last=` or `?since=`, the decisions that led there too.
pub(crate) async fn why(State(node): Node, known: Known, uri: Uri) -> Answer {
    let asked = |key: &str| health::first(query(&uri), key);
    let last = asked("last").map(|text| text.parse::<usize>().ok().filter(|last| *last > 0));
    let since = asked("since").map(|text| wall::schedule(&text).ok().map(|(since, _)| since));
    let history = match (last, since) {
        (None, None) => None,
        (Some(None), _) => return page::text(400, "last must be a number from 1, such as ?last=20"),
        (_, Some(None)) => {
            return page::text(
                400,
                "since must be a time with its zone, such as ?since=2026-11-20T09:04:00Z",
            );
        }
        (last, since) => Some(node.recollection.tell(last.flatten(), since.flatten())),
    };
    page::json(200, read::why(&known.status, history.as_deref()))
}

pub(crate) async fn openapi() -> Answer {
    page::json(200, routes::openapi())
}
