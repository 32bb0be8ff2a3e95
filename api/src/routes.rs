//! Every endpoint, in one table: it steers the server, the OpenAPI document and
//! the reference page of the book, so none of them can forget one.

use http::Method;

use crate::MATRIARCH_VERSION;
use crate::document::{Object, array, quoted};

/// What an endpoint does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// A health check: the code says it, the body is `/patroni`'s.
    Health,
    /// Whether the node's turns go on.
    Liveness,
    /// Whether the node could serve or take over.
    Readiness,
    /// The node's status.
    Patroni,
    /// The cluster's members and plans.
    Cluster,
    /// The members alone.
    Members,
    /// Past promotions.
    History,
    /// The shared configuration.
    Config,
    /// Prometheus.
    Metrics,
    /// Who may be asked when the store is gone.
    Failsafe,
    /// What Postgres is here.
    Role,
    /// The last decision.
    Why,
    /// The description of all this.
    OpenApi,
    /// Merge into the shared configuration.
    PatchConfig,
    /// Replace the shared configuration.
    PutConfig,
    /// A leader without store asks for leave to go on.
    PostFailsafe,
    /// Hand leadership over as planned.
    Switchover,
    /// Take back a scheduled switchover.
    CancelSwitchover,
    /// Make somebody leader though there is none.
    Failover,
    /// Restart Postgres.
    Restart,
    /// Take back a scheduled restart.
    CancelRestart,
    /// Read the configuration file again.
    Reload,
    /// Clone this replica anew.
    Reinitialize,
    /// Accepted and ignored.
    Sigterm,
    /// Accepted and ignored: sharded clusters are not coordinated.
    Sharding,
    /// End the daemon, leave Postgres running.
    LeaveRunning,
    /// One step of a move to another store.
    MoveStore,
}

/// One line of the table.
#[derive(Debug, Clone)]
pub struct Route {
    /// HTTP method; HEAD and OPTIONS answer like GET, without a body.
    pub method: Method,
    /// Path. Health checks match by substring, everything else by its first segment.
    pub path: &'static str,
    /// What it does.
    pub endpoint: Endpoint,
    /// Whether callers are checked (allowlist, client certificate, password).
    pub protected: bool,
    /// One sentence for the reference.
    pub summary: &'static str,
    /// The codes it answers with.
    pub codes: &'static [u16],
}

const fn open(path: &'static str, endpoint: Endpoint, codes: &'static [u16], summary: &'static str) -> Route {
    Route { method: Method::GET, path, endpoint, protected: false, summary, codes }
}

const fn guarded(
    method: Method,
    path: &'static str,
    endpoint: Endpoint,
    codes: &'static [u16],
    summary: &'static str,
) -> Route {
    Route { method, path, endpoint, protected: true, summary, codes }
}

const CHECK: &[u16] = &[200, 503];

/// The table. Health checks first; a GET that matches nothing is one too, and answers 503.
pub static ROUTES: &[Route] = &[
    open("/", Endpoint::Health, CHECK, "Like /primary."),
    open(
        "/primary",
        Endpoint::Health,
        CHECK,
        "This node is the leader and takes writes. Also /master, /read-write.",
    ),
    open("/leader", Endpoint::Health, CHECK, "This node holds the leader lease, also in a standby cluster."),
    open(
        "/standby-leader",
        Endpoint::Health,
        CHECK,
        "This node leads a standby cluster. Also /standby_leader.",
    ),
    open(
        "/replica",
        Endpoint::Health,
        CHECK,
        "A running replica without the tag noloadbalance. ?lag=1MB limits how far it may lag, ?replication_state=streaming and ?tag_name=value narrow further.",
    ),
    open("/read-only", Endpoint::Health, CHECK, "The leader or a replica."),
    open("/sync", Endpoint::Health, CHECK, "A synchronous standby. Also /synchronous."),
    open(
        "/async",
        Endpoint::Health,
        CHECK,
        "A replica that is no synchronous or quorum standby. Also /asynchronous.",
    ),
    open("/quorum", Endpoint::Health, CHECK, "A quorum standby."),
    open(
        "/read-only-sync",
        Endpoint::Health,
        CHECK,
        "The leader or a synchronous standby. Also /read-only-synchronous.",
    ),
    open("/read-only-quorum", Endpoint::Health, CHECK, "The leader or a quorum standby."),
    open("/health", Endpoint::Health, CHECK, "Postgres runs, whatever its role."),
    open("/liveness", Endpoint::Liveness, CHECK, "The daemon's turns go on."),
    open(
        "/readiness",
        Endpoint::Readiness,
        CHECK,
        "The leader, or a streaming replica within ?lag= (mode=apply or mode=write).",
    ),
    open(
        "/patroni",
        Endpoint::Patroni,
        &[200],
        "What this node knows of itself. Under `patroni` matriarch adds its version and `known_timeline`, the highest timeline that the store told it of.",
    ),
    open("/cluster", Endpoint::Cluster, CHECK, "Members, roles, lag, pause and planned switchovers."),
    open("/members", Endpoint::Members, CHECK, "The members of /cluster alone."),
    open("/history", Endpoint::History, CHECK, "Past promotions, oldest first."),
    open("/config", Endpoint::Config, &[200, 502], "The configuration that the cluster shares."),
    open("/metrics", Endpoint::Metrics, &[200], "Metrics in Prometheus's text format."),
    open(
        "/failsafe",
        Endpoint::Failsafe,
        &[200, 502],
        "Members that the leader asks when the store is gone.",
    ),
    open("/api/role", Endpoint::Role, &[200], "primary, replica or unknown, with host name and time."),
    open(
        "/why",
        Endpoint::Why,
        &[200, 400],
        "The last decision, its reason, and what keeps each member from becoming leader. ?last=20 and ?since=2026-11-20T09:04:00Z add the decisions before it.",
    ),
    open("/openapi.json", Endpoint::OpenApi, &[200], "This interface as an OpenAPI 3.1 document."),
    guarded(
        Method::PATCH,
        "/config",
        Endpoint::PatchConfig,
        &[200, 400, 409, 411, 503],
        "Merges the body into the shared configuration; null removes a key.",
    ),
    guarded(
        Method::PUT,
        "/config",
        Endpoint::PutConfig,
        &[200, 400, 411, 502],
        "Replaces the shared configuration.",
    ),
    guarded(
        Method::POST,
        "/switchover",
        Endpoint::Switchover,
        &[200, 202, 400, 412, 422, 503],
        "Hands leadership over, now or at scheduled_at; answers when it is decided.",
    ),
    guarded(
        Method::DELETE,
        "/switchover",
        Endpoint::CancelSwitchover,
        &[200, 404, 409],
        "Takes back a scheduled switchover.",
    ),
    guarded(
        Method::POST,
        "/failover",
        Endpoint::Failover,
        &[200, 400, 412, 503],
        "Makes the candidate leader although the old one may be gone.",
    ),
    guarded(
        Method::POST,
        "/restart",
        Endpoint::Restart,
        &[200, 202, 400, 409, 422, 500, 503],
        "Restarts Postgres, now or at schedule, if the filters match.",
    ),
    guarded(
        Method::DELETE,
        "/restart",
        Endpoint::CancelRestart,
        &[200, 404],
        "Takes back a scheduled restart.",
    ),
    guarded(Method::POST, "/reload", Endpoint::Reload, &[202], "Reads the configuration file again."),
    guarded(
        Method::POST,
        "/reinitialize",
        Endpoint::Reinitialize,
        &[200, 503],
        "Clones this replica anew (force, from_leader).",
    ),
    guarded(
        Method::POST,
        "/failsafe",
        Endpoint::PostFailsafe,
        &[200, 400, 409, 411, 500, 502],
        "A leader that has lost the store asks for leave to go on.",
    ),
    guarded(
        Method::POST,
        "/sigterm",
        Endpoint::Sigterm,
        &[202],
        "Accepted and ignored, as by Patroni outside its own tests.",
    ),
    guarded(Method::POST, "/citus", Endpoint::Sharding, &[200, 400, 411], "Accepted and ignored."),
    guarded(Method::POST, "/mpp", Endpoint::Sharding, &[200, 400, 411], "Accepted and ignored."),
    guarded(
        Method::POST,
        "/matriarch/handover",
        Endpoint::LeaveRunning,
        &[200, 202, 503],
        "Ends the daemon for an upgrade and leaves Postgres running.",
    ),
    guarded(
        Method::POST,
        "/matriarch/store",
        Endpoint::MoveStore,
        &[200, 400, 409, 411, 412, 503],
        "One step of moving the cluster to the store of the section to (step, seal): for matriarchctl store move.",
    ),
];

/// What a GET, HEAD or OPTIONS of `path` asks.
#[must_use]
pub fn reading(path: &str) -> Endpoint {
    find(&Method::GET, path).map_or(Endpoint::Health, |route| route.endpoint)
}

/// What another method asks of `path`; nothing if it is not supported there.
#[must_use]
pub fn acting(method: &Method, path: &str) -> Option<&'static Route> {
    find(method, path)
}

/// Patroni's rule: the first segment decides (`/config/anything` is `/config`);
/// our paths of two segments must match whole.
fn find(method: &Method, path: &str) -> Option<&'static Route> {
    let path = path.trim_start_matches('/');
    let segment = path.split('/').next().unwrap_or_default();
    ROUTES.iter().find(|route| {
        let known = route.path.get(1..).unwrap_or_default();
        route.method == *method
            && route.endpoint != Endpoint::Health
            && if known.contains('/') { known == path } else { known == segment }
    })
}

/// The OpenAPI document.
#[must_use]
pub fn openapi() -> String {
    let mut info = Object::new();
    info.text("title", "matriarch").text("version", MATRIARCH_VERSION);
    info.text("description", "The REST interface of one node, that of Patroni 4.1 and a little more.");
    let mut paths = Object::new();
    let mut done: Vec<&str> = Vec::new();
    for route in ROUTES {
        if done.contains(&route.path) {
            continue;
        }
        done.push(route.path);
        let mut methods = Object::new();
        for route in ROUTES.iter().filter(|other| other.path == route.path) {
            methods.raw(&route.method.as_str().to_lowercase(), &operation(route));
        }
        paths.raw(route.path, &methods.finish());
    }
    let mut scheme = Object::new();
    scheme.text("type", "http").text("scheme", "basic");
    let mut schemes = Object::new();
    schemes.raw("basic", &scheme.finish());
    let mut components = Object::new();
    components.raw("securitySchemes", &schemes.finish());
    let mut out = Object::new();
    out.text("openapi", "3.1.0").raw("info", &info.finish());
    out.raw("paths", &paths.finish()).raw("components", &components.finish());
    out.finish()
}

fn operation(route: &Route) -> String {
    let mut responses = Object::new();
    for code in codes(route) {
        let status = http::StatusCode::from_u16(code).ok().and_then(|status| status.canonical_reason());
        let mut response = Object::new();
        response.text("description", status.unwrap_or("Answer"));
        responses.raw(&code.to_string(), &response.finish());
    }
    let name = route.path.replace(['/', '-', '.'], "_");
    let name = format!("{}{name}", route.method.as_str().to_lowercase());
    let mut out = Object::new();
    out.text("operationId", name.trim_end_matches('_')).text("summary", route.summary);
    if route.protected {
        out.raw("security", &array([format!("{{{}: []}}", quoted("basic"))]));
    }
    out.raw("responses", &responses.finish());
    out.finish()
}

/// A guarded route also refuses callers.
fn codes(route: &Route) -> Vec<u16> {
    let mut codes = route.codes.to_vec();
    if route.protected {
        codes.extend([401, 403]);
    }
    codes.sort_unstable();
    codes
}

/// The reference page of the book.
#[must_use]
pub fn reference() -> String {
    let mut page = "# REST\n\n\
        <!-- generated from api/src/routes.rs; run the tests with MATRIARCH_BLESS=1 to rewrite -->\n\n\
        Every node answers on `restapi.listen`. HEAD and OPTIONS answer like GET, without a body. Health checks\n\
        match anywhere in the path, so `/primary/x` is `/primary`; a GET that matches nothing answers 503 with the\n\
        status document. Protected calls pass the allowlist, then the client certificate, then the password.\n\n\
        | method | path | protected | codes | what it does |\n|---|---|---|---|---|\n"
        .to_owned();
    for route in ROUTES {
        let codes: Vec<String> = codes(route).iter().map(u16::to_string).collect();
        let protected = if route.protected { "yes" } else { "no" };
        page.push_str(&format!(
            "| {} | `{}` | {protected} | {} | {} |\n",
            route.method,
            route.path,
            codes.join(" "),
            route.summary
        ));
    }
    page
}
