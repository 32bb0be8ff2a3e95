//! How to connect to one etcd server: timeouts, certificates, user.
//! Certificate files are read for every new connection, so a renewed one is used
//! as soon as the old connection ends (F84).

use std::path::{Path, PathBuf};
use std::time::Duration;

use config::{EtcdConfig, Secret};
use etcd_client::{Certificate, Client, ConnectOptions, Error, Identity, TlsOptions};

use super::outcome::wants_no_login;
use crate::store::StoreError;

/// Longest wait for a connection to one server.
const CONNECT: Duration = Duration::from_secs(1);
/// etcd ends connections that ping more often than every 5 s (`--grpc-keepalive-min-time`).
const PING_EVERY: Duration = Duration::from_secs(6);
const PING_WAIT: Duration = Duration::from_millis(1500);

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
        let mut options = ConnectOptions::new()
            .with_connect_timeout(CONNECT)
            .with_keep_alive(PING_EVERY, PING_WAIT)
            .with_keep_alive_while_idle(false)
            .with_require_leader(true);
        if url.starts_with("https://") {
            options = options.with_tls(self.tls().await.map_err(Failed::Settings)?);
        }
        let Some((name, password)) = &self.user else {
            return Client::connect([url], Some(options)).await.map_err(Failed::Etcd);
        };
        let with_user = options.clone().with_user(name, password.reveal()).with_auto_token_refresh(true);
        match Client::connect([url], Some(with_user)).await {
            Err(error) if wants_no_login(&error) => {
                tracing::warn!(
                    "etcd at {url} has authentication disabled: our user and password are not used"
                );
                Client::connect([url], Some(options)).await.map_err(Failed::Etcd)
            }
            done => done.map_err(Failed::Etcd),
        }
    }

    async fn tls(&self) -> Result<TlsOptions, StoreError> {
        let mut tls = TlsOptions::new();
        let authority = match &self.cacert {
            Some(path) => Some(path.as_path()),
            None => SYSTEM_AUTHORITIES.iter().map(Path::new).find(|path| path.exists()),
        };
        if let Some(path) = authority {
            tls = tls.ca_certificate(Certificate::from_pem(pem(path).await?));
        }
        if let Some((cert, key)) = &self.identity {
            tls = tls.identity(Identity::from_pem(pem(cert).await?, pem(key).await?));
        }
        Ok(tls)
    }
}

/// Why a client could not be made.
pub(super) enum Failed {
    Settings(StoreError),
    Etcd(Error),
}

async fn pem(path: &Path) -> Result<Vec<u8>, StoreError> {
    let read = tokio::fs::read(path).await;
    read.map_err(|error| StoreError::Settings(format!("cannot read {}: {error}", path.display())))
}
