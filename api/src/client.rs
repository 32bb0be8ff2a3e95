//! The one HTTP client: how nodes ask each other and how the command line asks
//! nodes. HTTP/1.1 with keep-alive, TLS and basic authentication; every call has a deadline.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use config::{Ctl, Secret};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use http::{HeaderMap, Method, Request, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::MATRIARCH_VERSION;
use crate::tls::{self, ClientFiles, TlsError, VerifyServer};

/// Largest answer that is read, in bytes.
const ANSWER_LIMIT: usize = 16 * 1024 * 1024;
/// How long a connection may take to come about, however patient the call is.
const CONNECT: Duration = Duration::from_secs(5);
/// Connections kept open per host.
const KEPT: usize = 2;

/// How calls are made.
#[derive(Debug, Clone, Default)]
pub struct ClientSettings {
    /// User and password sent with every call (`ctl.authentication`, else `restapi.authentication`).
    pub authentication: Option<(String, Secret)>,
    /// TLS.
    pub tls: ClientFiles,
}

impl ClientSettings {
    /// How members call each other: the chain is verified only where a client certificate
    /// is configured, the host's name never (patroni-compat 2.8).
    #[must_use]
    pub fn for_peers(ctl: &Ctl) -> Self {
        Self::with(ctl, ClientFiles::from(ctl).verify)
    }

    /// How the command line calls members: chain and name are verified unless `ctl.insecure`
    /// says otherwise; with a client certificate, `insecure` gives up the name only.
    #[must_use]
    pub fn for_command_line(ctl: &Ctl) -> Self {
        let verify = match (ctl.insecure, ctl.certfile.is_some()) {
            (false, _) => VerifyServer::Name,
            (true, true) => VerifyServer::Chain,
            (true, false) => VerifyServer::Nothing,
        };
        Self::with(ctl, verify)
    }

    fn with(ctl: &Ctl, verify: VerifyServer) -> Self {
        let login = ctl.authentication.clone();
        Self {
            authentication: login.map(|login| (login.username, login.password)),
            tls: ClientFiles { verify, ..ClientFiles::from(ctl) },
        }
    }
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The HTTP status code.
    pub code: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON, if it is.
    #[must_use]
    pub fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok()
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The URL cannot be called.
    #[error("{0:?} is no URL such as http://10.0.0.1:8008/patroni")]
    Url(String),
    /// Nobody listens there, or the host cannot be reached.
    #[error("cannot connect to {url}: {source}")]
    Connect {
        /// Who was asked.
        url: String,
        /// Why.
        source: std::io::Error,
    },
    /// The request went wrong on the way; whether it was carried out is unknown.
    #[error("{url} did not answer properly: {source}")]
    Exchange {
        /// Who was asked.
        url: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No answer in time; whether the request was carried out is unknown.
    #[error("{url} did not answer within {deadline:?}")]
    Deadline {
        /// Who was asked.
        url: String,
        /// How long was waited.
        deadline: Duration,
    },
}

/// A client; cheap to clone, and it keeps its connections for the next call.
#[derive(Clone)]
pub struct Client(Arc<Shared>);

struct Shared {
    tls: Arc<ClientConfig>,
    authorization: Option<HeaderValue>,
    idle: Mutex<BTreeMap<String, Vec<Line>>>,
}

/// A connection. `drive` does its input and output whenever it is polled.
struct Line {
    sender: SendRequest<Full<Bytes>>,
    drive: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Client {
    /// Reads the TLS files and prepares the client.
    ///
    /// # Errors
    /// [`TlsError`] names the file at fault.
    pub fn new(settings: &ClientSettings) -> Result<Self, TlsError> {
        let authorization = settings.authentication.as_ref().and_then(|(user, password)| {
            let text = STANDARD.encode(format!("{user}:{}", password.reveal()));
            let mut value = HeaderValue::from_str(&format!("Basic {text}")).ok()?;
            value.set_sensitive(true);
            Some(value)
        });
        let tls = Arc::new(tls::client(&settings.tls)?);
        Ok(Self(Arc::new(Shared { tls, authorization, idle: Mutex::default() })))
    }

    /// Makes one call and waits for its answer, at most `deadline`.
    /// Only a GET is sent again, once, if a kept connection turns out to be dead.
    ///
    /// # Errors
    /// [`AskError`] says how far it came.
    pub async fn ask(
        &self,
        method: &str,
        url: &str,
        body: Option<&Value>,
        deadline: Duration,
    ) -> Result<Answer, AskError> {
        match tokio::time::timeout(deadline, self.0.call(method, url, body)).await {
            Ok(answer) => answer,
            Err(_) => Err(AskError::Deadline { url: url.to_owned(), deadline }),
        }
    }
}

impl Shared {
    async fn call(&self, method: &str, url: &str, body: Option<&Value>) -> Result<Answer, AskError> {
        let bad = || AskError::Url(url.to_owned());
        let method = Method::from_bytes(method.as_bytes()).map_err(|_| bad())?;
        let uri: Uri = url.parse().map_err(|_| bad())?;
        let secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(bad()),
        };
        let (host, authority) = (uri.host().ok_or_else(bad)?, uri.authority().ok_or_else(bad)?.as_str());
        let host = host.trim_matches(['[', ']']);
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let request = || self.request(&uri, authority, &method, body).map_err(|_| bad());
        let origin = format!("{}{authority}", if secure { "s:" } else { "p:" });
        if method == Method::GET
            && let Some(line) = self.kept(&origin)
            && let Ok(answer) = self.exchange(&origin, line, request()?).await
        {
            return Ok(answer);
        }
        let line = self
            .dial(host, port, secure)
            .await
            .map_err(|source| AskError::Connect { url: url.to_owned(), source })?;
        self.exchange(&origin, line, request()?)
            .await
            .map_err(|source| AskError::Exchange { url: url.to_owned(), source })
    }

    fn request(
        &self,
        uri: &Uri,
        authority: &str,
        method: &Method,
        body: Option<&Value>,
    ) -> Result<Request<Full<Bytes>>, http::Error> {
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let mut request = Request::builder()
            .method(method.clone())
            .uri(path)
            .header(HOST, authority.rsplit_once('@').map_or(authority, |(_, host)| host))
            .header(USER_AGENT, format!("matriarch/{MATRIARCH_VERSION}"));
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let body = body.map(ToString::to_string);
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        request.body(Full::new(Bytes::from(body.unwrap_or_default())))
    }

    async fn dial(&self, host: &str, port: u16, secure: bool) -> std::io::Result<Line> {
        let stream = tokio::time::timeout(CONNECT, TcpStream::connect((host, port))).await??;
        stream.set_nodelay(true)?;
        if !secure {
            return open(stream).await;
        }
        let name = ServerName::try_from(host.to_owned()).map_err(std::io::Error::other)?;
        open(tokio_rustls::TlsConnector::from(self.tls.clone()).connect(name, stream).await?).await
    }

    /// Sends and receives, driving the connection meanwhile, and keeps it if it can be used again.
    async fn exchange(
        &self,
        origin: &str,
        mut line: Line,
        request: Request<Full<Bytes>>,
    ) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>> {
        let (answer, alive) = {
            let mut work = std::pin::pin!(roundtrip(&mut line.sender, request));
            tokio::select! {
                biased;
                answer = &mut work => (answer?, true),
                () = &mut line.drive => (work.await?, false),
            }
        };
        if alive && !line.sender.is_closed() {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            let lines = idle.entry(origin.to_owned()).or_default();
            if lines.len() < KEPT {
                lines.push(line);
            }
        }
        Ok(answer)
    }

    fn kept(&self, origin: &str) -> Option<Line> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.get_mut(origin)?.pop()
    }
}

async fn roundtrip(
    sender: &mut SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>> {
    sender.ready().await?;
    let (head, body) = sender.send_request(request).await?.into_parts();
    let body = Limited::new(body, ANSWER_LIMIT).collect().await?.to_bytes();
    Ok(Answer { code: head.status.as_u16(), headers: head.headers, body })
}

async fn open<S>(stream: S) -> std::io::Result<Line>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(std::io::Error::other)?;
    let drive = Box::pin(async move {
        // How a connection ended matters only to the request on it, which hears of it itself.
        let _ = connection.await;
    });
    Ok(Line { sender, drive })
}
