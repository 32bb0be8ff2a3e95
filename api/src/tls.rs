//! TLS for the server and for calls to peers, from the files that the
//! configuration names. It reads files and builds rustls configurations; it opens no socket.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use config::{Ctl, VerifyClient};
use dcs::belief::{Clients, Servers};
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// Why TLS could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file could not be read, or holds no PEM of the kind wanted.
    #[error("cannot read {what} from {path}: {source}; check the path, its permissions, and that it is PEM")]
    Read {
        /// What was looked for.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why it failed.
        source: rustls::pki_types::pem::Error,
    },
    /// The key is encrypted.
    #[error(
        "the key in {0} is encrypted, which is not supported; store it decrypted, readable by this user only"
    )]
    EncryptedKey(PathBuf),
    /// Clients are to be verified, but nothing says who vouches for them.
    #[error(
        "restapi.verify_client needs restapi.cafile, the authority that signed the clients' certificates"
    )]
    NoAuthority,
    /// Certificate and key are not usable together, or an authority is invalid.
    #[error("cannot use {path} for TLS: {source}")]
    Unusable {
        /// The certificate's file.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// The authorities cannot serve to verify.
    #[error("cannot verify certificates with {path}: {source}")]
    Authority {
        /// The authority's file.
        path: PathBuf,
        /// Why.
        source: rustls::client::VerifierBuilderError,
    },
}

/// The server's files.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerFiles {
    /// The certificate, followed by its chain (`restapi.certfile`).
    pub certfile: PathBuf,
    /// The key; in `certfile` if absent (`restapi.keyfile`).
    pub keyfile: Option<PathBuf>,
    /// Who vouches for clients (`restapi.cafile`).
    pub cafile: Option<PathBuf>,
    /// Whether clients must show a certificate.
    pub verify_client: VerifyClient,
}

/// How a client treats servers (section `ctl`, else `restapi`).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ClientFiles {
    /// The authority that must have signed the server's certificate (`ctl.cacert`, else `restapi.cafile`).
    pub cacert: Option<PathBuf>,
    /// The client's own certificate and key (`ctl.certfile`, `ctl.keyfile`).
    pub certfile: Option<(PathBuf, Option<PathBuf>)>,
    /// How much of the server's certificate is checked.
    pub verify: VerifyServer,
}

/// How much of a server's certificate is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum VerifyServer {
    /// Nothing (`ctl.insecure`; peers where `ctl.certfile` is absent).
    Nothing,
    /// The chain, whatever name it was issued for (peers, with `ctl.certfile`).
    Chain,
    /// The chain and the name.
    #[default]
    Name,
}

/// As members call each other: see [`crate::client::ClientSettings::for_peers`].
impl From<&Ctl> for ClientFiles {
    fn from(ctl: &Ctl) -> Self {
        let verify = if ctl.certfile.is_some() { VerifyServer::Chain } else { VerifyServer::Nothing };
        let certfile = ctl.certfile.clone().map(|certfile| (certfile, ctl.keyfile.clone()));
        Self { cacert: ctl.cacert.clone(), certfile, verify }
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Builds the server's side.
///
/// # Errors
/// [`TlsError`] names the file at fault.
pub fn server(files: &ServerFiles) -> Result<ServerConfig, TlsError> {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|source| TlsError::Unusable { path: files.certfile.clone(), source })?;
    let builder = match files.verify_client {
        VerifyClient::None => builder.with_no_client_auth(),
        mode => {
            let path = files.cafile.clone().ok_or(TlsError::NoAuthority)?;
            let trusted = certificates(&path)?;
            let verifier = WebPkiClientVerifier::builder_with_provider(roots(&path, &trusted)?, provider());
            let verifier = match mode {
                VerifyClient::Optional => verifier.allow_unauthenticated(),
                _ => verifier,
            };
            let verifier = verifier.build().map_err(|source| TlsError::Authority { path, source })?;
            builder.with_client_cert_verifier(Arc::new(Clients { chain: verifier, trusted }))
        }
    };
    let (chain, key) = identity(&files.certfile, files.keyfile.as_deref())?;
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|source| TlsError::Unusable { path: files.certfile.clone(), source })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Builds the client's side.
///
/// # Errors
/// [`TlsError`] names the file at fault.
pub fn client(files: &ClientFiles) -> Result<ClientConfig, TlsError> {
    let own = files.certfile.as_ref().map_or_else(PathBuf::new, |(path, _)| path.clone());
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|source| TlsError::Unusable { path: own.clone(), source })?;
    let believed = believed(files)?;
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(believed));
    match &files.certfile {
        None => Ok(builder.with_no_client_auth()),
        Some((certfile, keyfile)) => {
            let (chain, key) = identity(certfile, keyfile.as_deref())?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|source| TlsError::Unusable { path: own, source })
        }
    }
}

/// Which servers a client believes.
fn believed(files: &ClientFiles) -> Result<Servers, TlsError> {
    let path = files.cacert.clone().unwrap_or_default();
    let (roots, trusted) = match (files.verify, &files.cacert) {
        (VerifyServer::Nothing, _) | (VerifyServer::Chain, None) => (None, Vec::new()),
        (VerifyServer::Name, None) => (Some(system_roots()), Vec::new()),
        (_, Some(path)) => {
            let trusted = certificates(path)?;
            (Some(roots(path, &trusted)?), trusted)
        }
    };
    let chain = roots.map(|roots| WebPkiServerVerifier::builder_with_provider(roots, provider()).build());
    let chain = chain.transpose().map_err(|source| TlsError::Authority { path, source })?;
    Ok(Servers { chain, trusted, is_name_checked: files.verify == VerifyServer::Name, provider: provider() })
}

fn identity(
    certfile: &Path,
    keyfile: Option<&Path>,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
    let chain = certificates(certfile)?;
    let keyfile = keyfile.unwrap_or(certfile);
    let key = PrivateKeyDer::from_pem_file(keyfile).map_err(|source| {
        let text = std::fs::read_to_string(keyfile).unwrap_or_default();
        if text.contains("ENCRYPTED") {
            TlsError::EncryptedKey(keyfile.to_owned())
        } else {
            TlsError::Read { what: "a private key", path: keyfile.to_owned(), source }
        }
    })?;
    Ok((chain, key))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |source| TlsError::Read { what: "certificates", path: path.to_owned(), source };
    CertificateDer::pem_file_iter(path).map_err(failed)?.collect::<Result<Vec<_>, _>>().map_err(failed)
}

fn roots(path: &Path, trusted: &[CertificateDer<'static>]) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in trusted {
        roots
            .add(certificate.clone())
            .map_err(|source| TlsError::Unusable { path: path.to_owned(), source })?;
    }
    Ok(Arc::new(roots))
}

/// The authorities that the machine trusts; none if it keeps them somewhere unusual.
fn system_roots() -> Arc<RootCertStore> {
    const BUNDLES: [&str; 4] = [
        "/etc/ssl/certs/ca-certificates.crt",
        "/etc/pki/tls/certs/ca-bundle.crt",
        "/etc/ssl/ca-bundle.pem",
        "/etc/ssl/cert.pem",
    ];
    let found = BUNDLES.iter().find_map(|path| certificates(Path::new(path)).ok());
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.into_iter().flatten());
    Arc::new(roots)
}
