//! How a session is encrypted: libpq's `sslmode` and its files, as far as a session needs them.
//!
//! The files are read for every connection, so renewed certificates need no restart.

use std::collections::BTreeMap;
use std::path::PathBuf;

use api::tls::{ClientFiles, TlsError, VerifyServer};
use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;

/// What to try, in this order, as libpq does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempts {
    /// Unencrypted only.
    Plain,
    /// Unencrypted, and encrypted if the server refuses that.
    PlainFirst,
    /// Encrypted if the server can, and unencrypted if it refuses that.
    TlsFirst,
    /// Encrypted only.
    Tls,
}

/// What `sslmode` means for this host. Unset, it is `prefer`; towards this very machine the unencrypted
/// attempt comes first then, because it is quicker and nobody listens in between.
pub fn attempts(host: &str, options: &BTreeMap<String, String>) -> Attempts {
    if host.starts_with('/') {
        return Attempts::Plain;
    }
    let is_local = host == "localhost" || host == "::1" || host.starts_with("127.");
    match options.get("sslmode").map(String::as_str) {
        Some("disable") => Attempts::Plain,
        Some("allow") => Attempts::PlainFirst,
        Some("require" | "verify-ca" | "verify-full") => Attempts::Tls,
        None if is_local => Attempts::PlainFirst,
        _ => Attempts::TlsFirst,
    }
}

/// The mode of one attempt for the protocol.
pub fn mode(encrypted: bool, attempts: Attempts) -> SslMode {
    match (encrypted, attempts) {
        (false, _) => SslMode::Disable,
        (true, Attempts::Tls) => SslMode::Require,
        (true, _) => SslMode::Prefer,
    }
}

/// What encrypts, by libpq's keywords. With `require` a root certificate is checked if there is one, as libpq does.
pub fn connector(options: &BTreeMap<String, String>) -> Result<MakeRustlsConnect, TlsError> {
    let file = |word: &str| options.get(word).filter(|path| !path.is_empty()).map(PathBuf::from);
    // "system" means the machine's own authorities, which is what no file means to the builder.
    let cacert = file("sslrootcert").filter(|path| path.as_os_str() != "system");
    let verify = match options.get("sslmode").map(String::as_str) {
        Some("verify-full") => VerifyServer::Name,
        Some("verify-ca") => VerifyServer::Chain,
        Some("require") if cacert.is_some() => VerifyServer::Chain,
        _ => VerifyServer::Nothing,
    };
    let certfile = file("sslcert").map(|certificate| (certificate, file("sslkey")));
    api::tls::client(&ClientFiles { cacert, certfile, verify }).map(MakeRustlsConnect::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sslmode_means_what_it_means_to_libpq() {
        let of = |host: &str, mode: Option<&str>| {
            attempts(host, &mode.map(|mode| ("sslmode".to_owned(), mode.to_owned())).into_iter().collect())
        };
        assert_eq!(of("/run/pg", Some("require")), Attempts::Plain);
        assert_eq!(of("db1", None), Attempts::TlsFirst);
        assert_eq!(of("127.0.0.1", None), Attempts::PlainFirst);
        assert_eq!(of("127.0.0.1", Some("prefer")), Attempts::TlsFirst);
        assert_eq!(of("db1", Some("verify-full")), Attempts::Tls);
        assert_eq!(of("db1", Some("disable")), Attempts::Plain);
        assert_eq!(mode(true, Attempts::Tls), SslMode::Require);
        assert_eq!(mode(false, Attempts::PlainFirst), SslMode::Disable);
    }
}
