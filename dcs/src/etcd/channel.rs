//! A gRPC channel over TLS. The channel's own TLS would refuse a certificate that is authority and server
//! at once, which is what many make for their etcd: here `belief` decides. It opens connections and sends nothing.

use std::io;
use std::sync::Arc;

use etcd_client::Channel;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel as Connections, Endpoint, Uri};

use super::access::{CONNECT, PING_EVERY, PING_WAIT};

/// A channel to `https://host:port`. Nothing is connected before the first request.
///
/// # Errors
/// The address cannot be used, and why.
pub(super) fn over_tls(url: &str, mut tls: ClientConfig) -> Result<Channel, String> {
    let bad = |error: &dyn std::fmt::Display| format!("{url} cannot be used: {error}");
    let uri: Uri = url.parse().map_err(|error| bad(&error))?;
    let host = uri.host().ok_or_else(|| bad(&"it names no host"))?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(host.clone()).map_err(|error| bad(&error))?;
    let port = uri.port_u16().unwrap_or(443);
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let connector = TlsConnector::from(Arc::new(tls));
    let connect = tower::service_fn(move |_: Uri| {
        let (connector, name, host) = (connector.clone(), name.clone(), host.clone());
        async move {
            let tcp = TcpStream::connect((host.as_str(), port)).await?;
            tcp.set_nodelay(true)?;
            Ok::<_, io::Error>(TokioIo::new(connector.connect(name, tcp).await?))
        }
    });
    // The channel speaks plain text to the connector, which encrypts; etcd is told the scheme that it knows.
    let plain = url.replacen("https://", "http://", 1);
    let endpoint = Endpoint::from_shared(plain).map_err(|error| bad(&error))?;
    let endpoint = endpoint
        .origin(uri)
        .connect_timeout(CONNECT)
        .http2_keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_WAIT)
        .keep_alive_while_idle(false);
    let connections: Connections = endpoint.connect_with_connector_lazy(connect);
    Ok(Channel::Tonic(connections))
}
