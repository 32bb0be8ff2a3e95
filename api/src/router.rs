//! From the table of routes to axum's router: one function per endpoint, access
//! control before everything that changes something, and Patroni's generic rules
//! for paths that are not in the table as they stand.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Router;
use axum::extract::{Request, State};
use axum::handler::Handler as _;
use axum::middleware::{Next, from_fn_with_state};
use axum::routing::{MethodFilter, MethodRouter, any, on};
use http::Method;

use crate::page::{self, Answer};
use crate::respondent::Respondent;
use crate::routes::{self, Endpoint, ROUTES, Route};
use crate::{access, answer, change};

type Node = Arc<Respondent>;
type Methods = MethodRouter<Node>;

/// HEAD and OPTIONS ask what GET asks.
const READING: MethodFilter = MethodFilter::GET.or(MethodFilter::HEAD).or(MethodFilter::OPTIONS);

/// The router of a node.
pub(crate) fn router(node: &Node) -> Router {
    let mut paths: BTreeMap<&str, Methods> = BTreeMap::new();
    for route in ROUTES {
        let methods = paths.remove(route.path).unwrap_or_else(|| any(generic));
        paths.insert(route.path, methods.merge(methods_of(route, node)));
    }
    let table = paths.into_iter().fold(Router::new(), |table, (path, methods)| table.route(path, methods));
    table.fallback(generic).layer(from_fn_with_state(node.clone(), finish)).with_state(node.clone())
}

/// One line of the table, behind access control if it is protected.
fn methods_of(route: &Route, node: &Node) -> Methods {
    let filter = match route.method {
        Method::POST => MethodFilter::POST,
        Method::PUT => MethodFilter::PUT,
        Method::PATCH => MethodFilter::PATCH,
        Method::DELETE => MethodFilter::DELETE,
        _ => READING,
    };
    let methods = function(route.endpoint, filter);
    if route.protected {
        methods.route_layer(from_fn_with_state(node.clone(), access::guard))
    } else {
        methods
    }
}

fn function(endpoint: Endpoint, filter: MethodFilter) -> Methods {
    match endpoint {
        Endpoint::Health => on(filter, answer::health),
        Endpoint::Liveness => on(filter, answer::liveness),
        Endpoint::Readiness => on(filter, answer::readiness),
        Endpoint::Patroni => on(filter, answer::patroni),
        Endpoint::Cluster => on(filter, answer::cluster),
        Endpoint::Members => on(filter, answer::members),
        Endpoint::History => on(filter, answer::history),
        Endpoint::Config => on(filter, answer::config),
        Endpoint::Metrics => on(filter, answer::metrics),
        Endpoint::Failsafe => on(filter, answer::failsafe),
        Endpoint::Role => on(filter, answer::role),
        Endpoint::Why => on(filter, answer::why),
        Endpoint::OpenApi => on(filter, answer::openapi),
        Endpoint::PatchConfig => on(filter, change::patch_config),
        Endpoint::PutConfig => on(filter, change::put_config),
        Endpoint::PostFailsafe => on(filter, change::failsafe),
        Endpoint::Switchover => on(filter, change::switchover),
        Endpoint::CancelSwitchover => on(filter, change::cancel_switchover),
        Endpoint::Failover => on(filter, change::failover),
        Endpoint::Restart => on(filter, change::restart),
        Endpoint::CancelRestart => on(filter, change::cancel_restart),
        Endpoint::Reload => on(filter, change::reload),
        Endpoint::Reinitialize => on(filter, change::reinitialize),
        Endpoint::Sigterm => on(filter, change::sigterm),
        Endpoint::Sharding => on(filter, change::sharding),
        Endpoint::LeaveRunning => on(filter, change::leave_running),
        Endpoint::MoveStore => on(filter, change::move_store),
    }
}

/// Patroni's rules: the first segment picks the endpoint, any other path that is read is
/// a health check, and any other method is not supported (patroni-compat 2.1, 2.2).
async fn generic(State(node): State<Node>, request: Request) -> Answer {
    let (method, path) = (request.method(), request.uri().path());
    let methods = match *method {
        Method::GET | Method::HEAD | Method::OPTIONS => function(routes::reading(path), READING),
        _ => match routes::acting(method, path) {
            Some(route) => methods_of(route, &node),
            None => return page::error(501, Some(&format!("Unsupported method ('{method}')"))),
        },
    };
    methods.call(request, node).await
}

/// Around every answer: counts it, leaves the body of OPTIONS out as axum does that of HEAD,
/// and adds the operator's headers.
async fn finish(State(node): State<Node>, request: Request, next: Next) -> Answer {
    node.requests.fetch_add(1, Ordering::Relaxed);
    let bare = *request.method() == Method::OPTIONS;
    let mut answer = next.run(request).await;
    if bare {
        answer = page::bare(answer.status().as_u16());
    }
    node.policy.load().letterhead.print(&mut answer);
    answer
}
