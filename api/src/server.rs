//! The REST server: axum's router behind an accept loop over hyper's HTTP/1.1, with
//! TLS, keep-alive, deadlines and limits, on a thread and a runtime of its own, so that a storm of health checks
//! cannot delay the node's turns and a busy node cannot delay a health check.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener as Listener};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use axum::Router;
use config::{RestApi, Secret, ServerTokens, VerifyClient};
use dcs::Seen;
use http::Request;
use http::header::{HeaderName, HeaderValue};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tower::Service as _;

use crate::PATRONI_VERSION;
use crate::access::Access;
use crate::command::Asked;
use crate::listen::listen;
use crate::page::Letterhead;
use crate::recording::Recollection;
use crate::respondent::{Caller, Policy, Respondent};
use crate::router::router;
use crate::status::NodeStatus;
use crate::tls::{self, ServerFiles, TlsError};

/// How long a request's head may take, and how long a connection may idle.
const HEAD_DEADLINE: Duration = Duration::from_secs(10);
/// How long a TLS handshake may take.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);
/// How long open requests may take after the server was told to stop.
const STOP_DEADLINE: Duration = Duration::from_secs(5);
/// Open connections; one more closes the one that has been open longest,
/// so that a crowd of slow clients cannot lock out a health check.
const CONNECTIONS: usize = 512;

/// The server's settings (section `restapi`).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Settings {
    /// `host:port`; an empty host or `*` means every address.
    pub listen: String,
    /// TLS, if a certificate is configured.
    pub tls: Option<ServerFiles>,
    /// User and password of protected calls.
    pub authentication: Option<(String, Secret)>,
    /// Addresses, networks and host names that may make protected calls; empty: everybody.
    pub allowlist: Vec<String>,
    /// Members may make protected calls.
    pub allowlist_include_members: bool,
    /// Headers of every answer.
    pub http_extra_headers: BTreeMap<String, String>,
    /// Further headers over TLS.
    pub https_extra_headers: BTreeMap<String, String>,
    /// The `Server` header.
    pub server_tokens: ServerTokens,
}

impl From<&RestApi> for Settings {
    fn from(section: &RestApi) -> Self {
        let tls = section.certfile.clone().map(|certfile| ServerFiles {
            certfile,
            keyfile: section.keyfile.clone(),
            cafile: section.cafile.clone(),
            verify_client: section.verify_client,
        });
        let login = section.authentication.clone();
        Self {
            listen: section.listen.to_string(),
            tls,
            authentication: login.map(|login| (login.username, login.password)),
            allowlist: section.allowlist.clone(),
            allowlist_include_members: section.allowlist_include_members,
            http_extra_headers: section.http_extra_headers.clone(),
            https_extra_headers: section.https_extra_headers.clone(),
            server_tokens: section.server_tokens,
        }
    }
}

/// What the server answers from, and whom it asks.
pub struct Inputs {
    /// What the node knows of itself.
    pub status: watch::Receiver<Arc<NodeStatus>>,
    /// What the store says.
    pub seen: watch::Receiver<Seen>,
    /// Where commands go.
    pub node: mpsc::Sender<Asked>,
    /// Told when somebody reads `/patroni` and the last look at Postgres is not fresh:
    /// the node should look now and publish. Absent: `/patroni` never waits.
    pub look: Option<Arc<Notify>>,
    /// The last decisions of the node.
    pub recollection: Recollection,
}

/// Why the server could not start, or keep its new settings.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The address has no port, or the host does not resolve.
    #[error("restapi.listen {listen:?} is not usable: {source}; write host:port, such as 0.0.0.0:8008")]
    Address {
        /// As configured.
        listen: String,
        /// Why.
        source: io::Error,
    },
    /// The port is taken, or may not be opened.
    #[error(
        "cannot listen on {listen}: {source}; another program has the port, or the address is not of \
         this machine: change restapi.listen, or stop the other program"
    )]
    Bind {
        /// As configured.
        listen: String,
        /// Why.
        source: io::Error,
    },
    /// TLS files are not usable.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A header that HTTP does not allow.
    #[error("restapi extra header {0:?} is not a valid HTTP header; correct its name or value")]
    Header(String),
    /// The thread or its runtime could not be started.
    #[error("cannot start the REST server's thread: {0}; the machine is out of resources")]
    Thread(io::Error),
}

/// A bound server, not yet answering.
pub struct Server {
    listener: Listener,
    reload: Reload,
    moved: mpsc::UnboundedReceiver<Listener>,
}

/// Changes a running server's settings.
#[derive(Clone)]
pub struct Reload {
    respondent: Arc<Respondent>,
    tls: Arc<ArcSwapOption<ServerConfig>>,
    listen: Arc<std::sync::Mutex<String>>,
    move_to: mpsc::UnboundedSender<Listener>,
}

impl Server {
    /// Reads the TLS files and opens the port.
    ///
    /// # Errors
    /// [`ServerError`] names the setting at fault.
    pub fn bind(settings: &Settings, inputs: Inputs) -> Result<Self, ServerError> {
        let tls = settings.tls.as_ref().map(tls::server).transpose()?.map(Arc::new);
        let policy = policy(settings)?;
        let listener = listen(&settings.listen)?;
        let respondent = Respondent::new(inputs, policy);
        let (move_to, moved) = mpsc::unbounded_channel();
        let reload = Reload {
            respondent: Arc::new(respondent),
            tls: Arc::new(ArcSwapOption::from(tls)),
            listen: Arc::new(std::sync::Mutex::new(settings.listen.clone())),
            move_to,
        };
        Ok(Self { listener, reload, moved })
    }

    /// The address in use, with the real port if 0 was asked for.
    ///
    /// # Errors
    /// The socket's.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The handle that takes new settings and re-reads certificates.
    #[must_use]
    pub fn reloader(&self) -> Reload {
        self.reload.clone()
    }

    /// Answers on a thread of its own until `shutdown` becomes true or its sender is dropped.
    ///
    /// # Errors
    /// [`ServerError::Thread`].
    pub fn start(self, shutdown: watch::Receiver<bool>) -> Result<std::thread::JoinHandle<()>, ServerError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(ServerError::Thread)?;
        std::thread::Builder::new()
            .name("rest".to_owned())
            .spawn(move || runtime.block_on(self.run(shutdown)))
            .map_err(ServerError::Thread)
    }

    /// Answers until `shutdown` becomes true or its sender is dropped; then lets open requests end.
    pub async fn run(self, mut shutdown: watch::Receiver<bool>) {
        let Self { listener, reload, mut moved } = self;
        let Ok(mut listener) = TcpListener::from_std(listener) else {
            tracing::error!("the REST server's socket cannot be watched; restart the daemon");
            return;
        };
        let router = router(&reload.respondent);
        let mut crowd = Crowd::default();
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((socket, peer)) => {
                        let (tls, stop) = (reload.tls.load_full(), shutdown.clone());
                        crowd.admit(connection(socket, peer, router.clone(), tls, stop));
                    }
                    Err(error) => {
                        // Out of file descriptors: accepting again at once would spin.
                        tracing::warn!("cannot accept a REST connection: {error}");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                },
                Some(next) = moved.recv() => match TcpListener::from_std(next) {
                    Ok(next) => listener = next,
                    Err(error) => tracing::error!("the REST server stays on its old address: {error}"),
                },
                Some(_) = crowd.tasks.join_next() => {}
                () = stopped(&mut shutdown) => break,
            }
        }
        drop(listener);
        let rest = async { while crowd.tasks.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(STOP_DEADLINE, rest).await;
    }
}

impl Reload {
    /// Puts new settings in force: certificates, passwords, lists, headers, and the address.
    /// On an error everything stays as it was.
    ///
    /// # Errors
    /// [`ServerError`] names the setting at fault.
    pub fn reload(&self, settings: &Settings) -> Result<(), ServerError> {
        let tls = settings.tls.as_ref().map(tls::server).transpose()?.map(Arc::new);
        let policy = policy(settings)?;
        let mut current = self.listen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if *current != settings.listen {
            let _ = self.move_to.send(listen(&settings.listen)?);
            current.clone_from(&settings.listen);
        }
        self.respondent.policy.store(Arc::new(policy));
        self.tls.store(tls);
        Ok(())
    }
}

/// The open connections, oldest first.
#[derive(Default)]
struct Crowd {
    tasks: JoinSet<()>,
    open: BTreeMap<u64, AbortHandle>,
    next: u64,
}

impl Crowd {
    fn admit(&mut self, connection: impl Future<Output = ()> + Send + 'static) {
        if self.open.len() >= CONNECTIONS {
            self.open.retain(|_, task| !task.is_finished());
        }
        if self.open.len() >= CONNECTIONS
            && let Some((_, oldest)) = self.open.pop_first()
        {
            oldest.abort();
        }
        self.next += 1;
        self.open.insert(self.next, self.tasks.spawn(connection));
    }
}

async fn connection(
    socket: TcpStream,
    peer: SocketAddr,
    router: Router,
    tls: Option<Arc<ServerConfig>>,
    stop: watch::Receiver<bool>,
) {
    let _ = socket.set_nodelay(true);
    let _ = rustix::net::sockopt::set_socket_keepalive(&socket, true);
    let Some(tls) = tls else {
        let caller = Caller { address: peer.ip(), has_certificate: false };
        return serve(socket, caller, router, stop).await;
    };
    let handshake = tokio_rustls::TlsAcceptor::from(tls).accept(socket);
    match tokio::time::timeout(HANDSHAKE_DEADLINE, handshake).await {
        Ok(Ok(stream)) => {
            let has_certificate =
                stream.get_ref().1.peer_certificates().is_some_and(|chain| !chain.is_empty());
            serve(stream, Caller { address: peer.ip(), has_certificate }, router, stop).await;
        }
        Ok(Err(error)) => tracing::debug!("TLS handshake with {peer} failed: {error}"),
        Err(_) => tracing::debug!("TLS handshake with {peer} took too long"),
    }
}

async fn serve<S>(stream: S, caller: Caller, router: Router, mut stop: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(|mut request: Request<Incoming>| {
        request.extensions_mut().insert(caller);
        router.clone().call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .max_headers(64)
        .max_buf_size(64 * 1024)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => ended,
        () = stopped(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!("REST connection from {}: {error}", caller.address);
    }
}

/// Until the flag is up or its owner is gone.
async fn stopped(flag: &mut watch::Receiver<bool>) {
    drop(flag.wait_for(|stop| *stop).await);
}

fn policy(settings: &Settings) -> Result<Policy, ServerError> {
    let needs_certificate = settings.tls.as_ref().is_some_and(|tls| tls.verify_client != VerifyClient::None);
    let access = Access::new(
        &settings.allowlist,
        settings.allowlist_include_members,
        needs_certificate,
        settings.authentication.as_ref(),
    );
    let https = settings.https_extra_headers.iter().filter(|_| settings.tls.is_some());
    let mut extra = Vec::new();
    for (name, value) in settings.http_extra_headers.iter().chain(https) {
        let bad = || ServerError::Header(name.clone());
        let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad())?;
        extra.push((header, HeaderValue::from_str(value).map_err(|_| bad())?));
    }
    let server = match settings.server_tokens {
        ServerTokens::Original => "BaseHTTP/0.6 Python/3.11.2".to_owned(),
        ServerTokens::Minimal => format!("Patroni/{PATRONI_VERSION}"),
        ServerTokens::ProductOnly => "Patroni".to_owned(),
    };
    let server = HeaderValue::from_str(&server).map_err(|_| ServerError::Header("Server".to_owned()))?;
    Ok(Policy { access, letterhead: Letterhead { server, extra } })
}
