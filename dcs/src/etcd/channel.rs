//! A gRPC channel to one etcd server. The channel's own TLS would refuse a certificate that is authority and server
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
use super::gather::Gather;

/// A channel to `http://host:port`. Nothing is connected before the first request.
///
/// # Errors
/// The address cannot be used, and why.
pub(super) fn plain(url: &str) -> Result<Channel, String> {
    let (_, host, port) = parts(url, 80)?;
    let connect = tower::service_fn(move |_: Uri| {
        let host = host.clone();
        async move { Ok::<_, io::Error>(TokioIo::new(Gather::new(open(&host, port).await?))) }
    });
    Ok(Channel::Tonic(endpoint(url)?.connect_with_connector_lazy(connect)))
}

/// A channel to `https://host:port`. Nothing is connected before the first request.
///
/// # Errors
/// The address cannot be used, and why.
pub(super) fn over_tls(url: &str, mut tls: ClientConfig) -> Result<Channel, String> {
    let (uri, host, port) = parts(url, 443)?;
    let name = ServerName::try_from(host.clone()).map_err(|error| bad(url, &error))?;
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let connector = TlsConnector::from(Arc::new(tls));
    let connect = tower::service_fn(move |_: Uri| {
        let (connector, name, host) = (connector.clone(), name.clone(), host.clone());
        async move {
            let stream = connector.connect(name, open(&host, port).await?).await?;
            Ok::<_, io::Error>(TokioIo::new(Gather::new(stream)))
        }
    });
    // The channel speaks plain text to the connector, which encrypts; etcd is told the scheme that it knows.
    let endpoint = endpoint(&url.replacen("https://", "http://", 1))?.origin(uri);
    let connections: Connections = endpoint.connect_with_connector_lazy(connect);
    Ok(Channel::Tonic(connections))
}

fn parts(url: &str, standard: u16) -> Result<(Uri, String, u16), String> {
    let uri: Uri = url.parse().map_err(|error| bad(url, &error))?;
    let host = uri.host().ok_or_else(|| bad(url, &"it names no host"))?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = uri.port_u16().unwrap_or(standard);
    Ok((uri, host, port))
}

fn bad(url: &str, error: &dyn std::fmt::Display) -> String {
    format!("{url} cannot be used: {error}")
}

fn endpoint(url: &str) -> Result<Endpoint, String> {
    let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|error| bad(url, &error))?;
    Ok(endpoint
        .connect_timeout(CONNECT)
        .http2_keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_WAIT)
        .keep_alive_while_idle(false))
}

async fn open(host: &str, port: u16) -> io::Result<TcpStream> {
    let tcp = TcpStream::connect((host, port)).await?;
    tcp.set_nodelay(true)?;
    Ok(tcp)
}
