//! How to connect to one etcd server: timeouts, certificates, user.
//! Certificate files are read for every new connection, so a renewed one is used
//! as soon as the old connection ends (F84).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use config::{EtcdConfig, Secret};
use etcd_client::{Client, ConnectOptions, Error};
use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::channel;
use super::outcome::wants_no_login;
use crate::belief::Servers;
use crate::store::StoreError;

/// Longest wait for a connection to one server.
pub(super) const CONNECT: Duration = Duration::from_secs(1);
/// etcd ends connections that ping more often than every 5 s (`--grpc-keepalive-min-time`).
pub(super) const PING_EVERY: Duration = Duration::from_secs(6);
pub(super) const PING_WAIT: Duration = Duration::from_millis(1500);

/// Where distributions keep the authorities that everybody trusts.
const SYSTEM_AUTHORITIES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// Credentials and certificates.
pub(super) struct Access {
    user: Option<(String, Secret)>,
    cacert: Option<PathBuf>,
    identity: Option<(PathBuf, PathBuf)>,
}

impl Access {
    pub fn new(config: &EtcdConfig) -> Result<Self, StoreError> {
        let identity = match (&config.cert, &config.key) {
            (Some(cert), Some(key)) => Some((cert.clone(), key.clone())),
            // Patroni accepts a certificate file that holds its key as well.
            (Some(cert), None) => Some((cert.clone(), cert.clone())),
            (None, Some(_)) => {
                return Err(StoreError::Settings(
                    "etcd has a key but no cert: name the client's certificate".into(),
                ));
            }
            (None, None) => None,
        };
        Ok(Self { user: config.user.clone(), cacert: config.cacert.clone(), identity })
    }

    pub fn has_user(&self) -> bool {
        self.user.is_some()
    }

    /// A client for one server. Without a user nothing is sent yet.
    pub async fn connect(&self, url: &str) -> Result<Client, Failed> {
        let options = ConnectOptions::new().with_require_leader(true);
        let Some((name, password)) = &self.user else {
            return self.open(url, options).await;
        };
        let with_user = options.clone().with_user(name, password.reveal()).with_auto_token_refresh(true);
        match self.open(url, with_user).await {
            Err(Failed::Etcd(error)) if wants_no_login(&error) => {
                tracing::warn!(
                    "etcd at {url} has authentication disabled: our user and password are not used"
                );
                self.open(url, options).await
            }
            done => done,
        }
    }

    async fn open(&self, url: &str, options: ConnectOptions) -> Result<Client, Failed> {
        let settings = |why| Failed::Settings(StoreError::Settings(why));
        let channel = match url.starts_with("https://") {
            true => channel::over_tls(url, self.tls().map_err(settings)?),
            false => channel::plain(url),
        };
        let channel = channel.map_err(settings)?;
        Client::from_channel(channel, Some(options)).await.map_err(Failed::Etcd)
    }

    fn tls(&self) -> Result<ClientConfig, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let authority = match &self.cacert {
            Some(path) => Some(path.as_path()),
            None => SYSTEM_AUTHORITIES.iter().map(Path::new).find(|path| path.exists()),
        };
        let trusted = authority.map(certificates).transpose()?.unwrap_or_default();
        let mut roots = RootCertStore::empty();
        let (known, _) = roots.add_parsable_certificates(trusted.iter().cloned());
        if known == 0 {
            return Err(match &self.cacert {
                Some(path) => format!("{} holds no certificate that could sign etcd's", path.display()),
                None => {
                    "this host trusts no authority: name the one that signed etcd's certificate as cacert"
                        .into()
                }
            });
        }
        let chain = WebPkiServerVerifier::builder_with_provider(roots.into(), provider.clone()).build();
        let believed = Servers {
            chain: Some(chain.map_err(|error| error.to_string())?),
            trusted,
            is_name_checked: true,
            provider: provider.clone(),
        };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(believed));
        let Some((cert, key)) = &self.identity else { return Ok(builder.with_no_client_auth()) };
        let private = PrivateKeyDer::from_pem_file(key)
            .map_err(|error| format!("cannot read {}: {error}", key.display()))?;
        builder
            .with_client_auth_cert(certificates(cert)?, private)
            .map_err(|error| format!("{} and its key cannot be used: {error}", cert.display()))
    }
}

/// Why a client could not be made.
pub(super) enum Failed {
    Settings(StoreError),
    Etcd(Error),
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| format!("cannot read {}: {error}", path.display()))
}
