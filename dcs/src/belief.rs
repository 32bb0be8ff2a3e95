//! Which certificates are believed, beyond what rustls decides: a server's name may be unchecked, as
//! between Patroni's members, and a certificate that is itself in the trusted file may be shown, as
//! OpenSSL allows. Used towards etcd here, and for REST. It reads no file and weakens no other check.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

/// Whether this certificate was refused only because it may also sign others, and is one of the trusted.
///
/// A self-signed certificate is often authority and server at once. Whoever holds its key could
/// sign any other, so to believe it itself gives nothing away. The time of validity is checked before
/// this refusal, and the handshake proves the key.
fn is_trusted_itself(
    refused: &Error,
    shown: &CertificateDer<'_>,
    trusted: &[CertificateDer<'static>],
) -> bool {
    let Error::InvalidCertificate(CertificateError::Other(cause)) = refused else { return false };
    let may_sign = cause.0.downcast_ref() == Some(&webpki::Error::CaUsedAsEndEntity);
    may_sign && trusted.iter().any(|certificate| certificate.as_ref() == shown.as_ref())
}

/// How a client judges servers.
#[derive(Debug)]
pub struct Servers {
    /// Checks chain and name; absent, everybody is believed.
    pub chain: Option<Arc<WebPkiServerVerifier>>,
    /// The certificates of the trusted file.
    pub trusted: Vec<CertificateDer<'static>>,
    /// Whether the certificate must have been issued for the server's name.
    pub is_name_checked: bool,
    /// The algorithms.
    pub provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Servers {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        use CertificateError::{NotValidForName, NotValidForNameContext};
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        match chain.verify_server_cert(end_entity, intermediates, name, ocsp, now) {
            // The chain is checked before the name, so a wrong name means a good chain.
            Err(Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. }))
                if !self.is_name_checked =>
            {
                Ok(ServerCertVerified::assertion())
            }
            Err(refused) if is_trusted_itself(&refused, end_entity, &self.trusted) => {
                if self.is_name_checked {
                    verify_server_name(&ParsedCertificate::try_from(end_entity)?, name)?;
                }
                Ok(ServerCertVerified::assertion())
            }
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// How a server judges clients.
#[derive(Debug)]
pub struct Clients {
    /// Checks the chain.
    pub chain: Arc<dyn ClientCertVerifier>,
    /// The certificates of the trusted file.
    pub trusted: Vec<CertificateDer<'static>>,
}

impl ClientCertVerifier for Clients {
    fn offer_client_auth(&self) -> bool {
        self.chain.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.chain.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match self.chain.verify_client_cert(end_entity, intermediates, now) {
            Err(refused) if is_trusted_itself(&refused, end_entity, &self.trusted) => {
                Ok(ClientCertVerified::assertion())
            }
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}
