//! One connection: TCP, TLS if there are certificates, and the handshake in which both sides say who they are
//! and, under a password, prove that they know it. Only then is anything else read.

use std::sync::Arc;
use std::time::Duration;

use config::RaftConfig;
use ring::rand::{SecureRandom, SystemRandom};
use ring::{hmac, pbkdf2};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::frame::{self, Frame, FrameError, LONGEST, LONGEST_HELLO, Seals, Word};
use crate::store::StoreError;

/// The protocol that this program speaks.
const VERSION: u32 = 1;
/// How long a handshake may take.
pub(super) const HANDSHAKE: Duration = Duration::from_secs(3);
/// How long written bytes may stay unacknowledged, or a write may take.
pub(super) const STUCK: Duration = Duration::from_secs(2);
/// How often guessing a password must be paid for.
const ROUNDS: u32 = 20_000;

/// Why a connection did not come about.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error(
        "the certificates do not fit ({0}): raft.cacert, raft.cert and raft.key must be of one authority on every member, and \
         each cert must name its member's host"
    )]
    Certificate(String),
    #[error("no answer within {0:?}")]
    Silent(Duration),
    #[error("it does not know the password of the embedded store (raft.password), or it is no member")]
    Password,
    #[error(
        "it has a password of the embedded store (raft.password) and this program has none: write the same for all"
    )]
    Open,
    #[error(
        "it has no password of the embedded store (raft.password) and this member has one: write the same for all"
    )]
    Sealed,
    #[error(
        "it speaks version {0} of the embedded store's protocol, and this program speaks version {VERSION}"
    )]
    Version(u32),
    #[error(
        "it belongs to another embedded store ({theirs:x}) than this member ({ours:x}); the two were founded apart and are never \
         joined: if one is a mistake, stop its members and move their data_dir away"
    )]
    Cluster { ours: u64, theirs: u64 },
    #[error("it refused: {0}")]
    Refused(String),
}

impl LinkError {
    /// What TLS has to complain of is a matter of certificates; it shows as an error of the stream, at the first read
    /// if the other side did not like ours.
    fn judged(self) -> Self {
        let (Self::Io(error) | Self::Frame(FrameError::Io(error))) = &self else { return self };
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(complaint) => Self::Certificate(complaint.to_string()),
            None => self,
        }
    }
}

/// What each side says first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hello {
    matriarch: u32,
    /// 0: none yet, or a client.
    pub cluster: u64,
    /// 0: a client.
    pub member: u64,
    /// Where members reach the one who speaks.
    pub address: String,
    /// Whether there is a password.
    sealed: bool,
    nonce: Vec<u8>,
}

/// What makes connections secure.
#[derive(Clone)]
pub(super) struct Security {
    secret: Option<hmac::Key>,
    tls: Option<(TlsConnector, TlsAcceptor)>,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// An established connection.
pub(super) struct Link {
    pub them: Hello,
    pub receiver: Receiver,
    pub sender: Sender,
}

/// The half that reads.
pub(super) struct Receiver {
    stream: ReadHalf<Box<dyn Stream>>,
    seals: Seals,
}

/// The half that writes.
pub(super) struct Sender {
    stream: WriteHalf<Box<dyn Stream>>,
    seals: Seals,
}

impl Receiver {
    /// Reads one frame. Not to be dropped half way.
    pub async fn read(&mut self) -> Result<Frame, FrameError> {
        Frame::decode(&frame::read(&mut self.stream, &mut self.seals, LONGEST).await?)
    }
}

impl Sender {
    /// Writes one frame, within two seconds.
    pub async fn write(&mut self, frame: &Frame) -> Result<(), FrameError> {
        let bytes = frame.encode();
        let writing = frame::write(&mut self.stream, &mut self.seals, &bytes);
        let late = || std::io::Error::new(std::io::ErrorKind::TimedOut, "a write took too long");
        tokio::time::timeout(STUCK, writing).await.map_err(|_| late())?
    }
}

impl Security {
    /// Reads certificates and stretches the password.
    pub fn new(config: &RaftConfig) -> Result<Self, StoreError> {
        let settings = |what: &str, error: String| StoreError::Settings(format!("{what}: {error}"));
        let secret = config.password.as_ref().map(|password| {
            let mut key = [0; 32];
            let rounds = std::num::NonZeroU32::new(ROUNDS).unwrap_or(std::num::NonZeroU32::MIN);
            let salt = b"matriarch embedded store 1";
            pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, salt, password.reveal().as_bytes(), &mut key);
            hmac::Key::new(hmac::HMAC_SHA256, &key)
        });
        let Some(tls) = &config.tls else { return Ok(Self { secret, tls: None }) };
        let chain = || {
            let read =
                CertificateDer::pem_file_iter(&tls.cert).and_then(Iterator::collect::<Result<Vec<_>, _>>);
            read.map_err(|error| settings("raft.cert", error.to_string()))
        };
        let key = || {
            PrivateKeyDer::from_pem_file(&tls.key).map_err(|error| settings("raft.key", error.to_string()))
        };
        let mut roots = rustls::RootCertStore::empty();
        let cacert = |error: String| settings("raft.cacert", error);
        for root in CertificateDer::pem_file_iter(&tls.cacert).map_err(|error| cacert(error.to_string()))? {
            let root = root.map_err(|error| cacert(error.to_string()))?;
            roots.add(root).map_err(|error| cacert(error.to_string()))?;
        }
        let roots = Arc::new(roots);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider));
        let verifier = verifier.build().map_err(|error| cacert(error.to_string()))?;
        let versions = |error: rustls::Error| settings("raft.cert", error.to_string());
        let client = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(versions)?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain()?, key()?)
            .map_err(versions)?;
        let server = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(versions)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain()?, key()?)
            .map_err(versions)?;
        let tls = (TlsConnector::from(Arc::new(client)), TlsAcceptor::from(Arc::new(server)));
        Ok(Self { secret, tls: Some(tls) })
    }

    /// Whether anybody who reaches the port is let in.
    pub fn is_open(&self) -> bool {
        self.secret.is_none() && self.tls.is_none()
    }

    /// Connects to `host:port`.
    pub async fn connect(&self, address: &str, us: Hello) -> Result<Link, LinkError> {
        let connecting = async {
            let tcp = TcpStream::connect(address).await?;
            prepare(&tcp)?;
            let stream: Box<dyn Stream> = match &self.tls {
                None => Box::new(tcp),
                Some((connector, _)) => {
                    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
                    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
                    let name = ServerName::try_from(host);
                    let name = name.map_err(|error| std::io::Error::other(error.to_string()))?;
                    Box::new(connector.connect(name, tcp).await?)
                }
            };
            self.shake(stream, us, true).await
        };
        let connected = tokio::time::timeout(HANDSHAKE, connecting).await;
        connected.map_err(|_| LinkError::Silent(HANDSHAKE))?.map_err(LinkError::judged)
    }

    /// Takes a connection that somebody made.
    pub async fn accept(&self, tcp: TcpStream, us: Hello) -> Result<Link, LinkError> {
        let accepting = async {
            prepare(&tcp)?;
            let stream: Box<dyn Stream> = match &self.tls {
                None => Box::new(tcp),
                Some((_, acceptor)) => Box::new(acceptor.accept(tcp).await?),
            };
            self.shake(stream, us, false).await
        };
        let accepted = tokio::time::timeout(HANDSHAKE, accepting).await;
        accepted.map_err(|_| LinkError::Silent(HANDSHAKE))?.map_err(LinkError::judged)
    }

    /// Both say hello; then, under a password, the one who connected proves that it knows it, then the other.
    /// The proofs and the keys of the connection depend on both hellos, so that none fits anywhere else.
    async fn shake(&self, mut stream: Box<dyn Stream>, us: Hello, first: bool) -> Result<Link, LinkError> {
        let us = Hello { sealed: self.secret.is_some(), ..us };
        let ours = serde_json::to_vec(&us).unwrap_or_default();
        let mut plain = Seals::default();
        frame::write(&mut stream, &mut plain, &ours).await?;
        let theirs = frame::read(&mut stream, &mut plain, LONGEST_HELLO).await?;
        let them: Hello = serde_json::from_slice(&theirs)
            .map_err(|_| FrameError::Garbage("it does not begin as a member or client would".to_owned()))?;
        if them.matriarch != VERSION {
            return Err(LinkError::Version(them.matriarch));
        }
        match (us.sealed, them.sealed) {
            (false, true) => return Err(LinkError::Open),
            (true, false) => return Err(LinkError::Sealed),
            (true, true) | (false, false) => {}
        }
        let (one, other) = if first { (&ours, &theirs) } else { (&theirs, &ours) };
        let keys = self.secret.as_ref().map(|secret| Keys::new(secret, one, other));
        if let Some(keys) = &keys {
            let prove = async |stream: &mut Box<dyn Stream>, key: &hmac::Key| {
                frame::write(stream, &mut Seals::default(), hmac::sign(key, b"proof").as_ref()).await
            };
            let verify = async |stream: &mut Box<dyn Stream>, key: &hmac::Key| {
                let proof = frame::read(stream, &mut Seals::default(), LONGEST_HELLO).await;
                // Who does not know the password hangs up, or shows something else.
                let proof = proof.map_err(|_| LinkError::Password)?;
                hmac::verify(key, b"proof", &proof).map_err(|_| LinkError::Password)
            };
            if first {
                prove(&mut stream, &keys.one).await?;
                verify(&mut stream, &keys.other).await?;
            } else {
                verify(&mut stream, &keys.one).await?;
                prove(&mut stream, &keys.other).await?;
            }
        }
        let (ours, theirs) = match keys {
            Some(keys) if first => (Some(keys.one), Some(keys.other)),
            Some(keys) => (Some(keys.other), Some(keys.one)),
            None => (None, None),
        };
        let (reader, writer) = tokio::io::split(stream);
        let receiver = Receiver { stream: reader, seals: Seals::with(theirs) };
        let mut sender = Sender { stream: writer, seals: Seals::with(ours) };
        if us.cluster != 0 && them.cluster != 0 && us.cluster != them.cluster {
            let why = LinkError::Cluster { ours: us.cluster, theirs: them.cluster };
            let said = LinkError::Cluster { ours: them.cluster, theirs: us.cluster };
            sender.write(&Frame::Word(Word::Refuse(said.to_string()))).await?;
            return Err(why);
        }
        Ok(Link { them, receiver, sender })
    }
}

/// The keys of one connection, one for each direction.
struct Keys {
    one: hmac::Key,
    other: hmac::Key,
}

impl Keys {
    fn new(secret: &hmac::Key, one: &[u8], other: &[u8]) -> Self {
        let key = |label: &[u8]| {
            let mut context = hmac::Context::with_key(secret);
            for part in [label, one, other] {
                context.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
                context.update(part);
            }
            hmac::Key::new(hmac::HMAC_SHA256, context.sign().as_ref())
        };
        Self { one: key(b"from the one who connects"), other: key(b"from the one who listens") }
    }
}

impl Hello {
    /// What to say on a new connection.
    pub fn new(cluster: u64, member: u64, address: String) -> Result<Self, LinkError> {
        let mut nonce = vec![0; 32];
        let random = SystemRandom::new().fill(&mut nonce);
        random.map_err(|_| std::io::Error::other("the system gives no random numbers"))?;
        Ok(Self { matriarch: VERSION, cluster, member, address, sealed: false, nonce })
    }
}

/// Small frames go at once, and a peer that is silently gone is noticed.
fn prepare(tcp: &TcpStream) -> std::io::Result<()> {
    tcp.set_nodelay(true)?;
    let stuck = u32::try_from(STUCK.as_millis()).unwrap_or(u32::MAX);
    rustix::net::sockopt::set_tcp_user_timeout(tcp, stuck)?;
    Ok(())
}
