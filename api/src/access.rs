//! Who may change something: the allowlist, then the client certificate, then the
//! password (patroni-compat 2.8). Reading is never asked for any of it.

use std::net::{IpAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{Request, State};
use axum::middleware::Next;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use config::Secret;
use dcs::ClusterView;
use http::header::AUTHORIZATION;

use crate::page::Answer;
use crate::respondent::{Caller, Respondent};

/// How long the addresses of members may take to resolve.
const RESOLVE: Duration = Duration::from_secs(2);

/// Why a call was refused, with Patroni's codes and texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// 403: the caller's address is not on the list.
    #[error("Access is denied")]
    Address,
    /// 403: the caller showed no certificate.
    #[error("client certificate required")]
    Certificate,
    /// 401: no password.
    #[error("no auth header received")]
    NoPassword,
    /// 401: a wrong password.
    #[error("not authenticated")]
    WrongPassword,
}

/// An address range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    bits: u32,
}

impl Network {
    fn read(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address.parse::<IpAddr>().ok()?, bits.parse().ok()?),
            None => return text.parse::<IpAddr>().ok().map(Self::host),
        };
        let widest = if address.is_ipv4() { 32 } else { 128 };
        (bits <= widest).then_some(Self { address, bits })
    }

    fn host(address: IpAddr) -> Self {
        Self { address, bits: if address.is_ipv4() { 32 } else { 128 } }
    }

    fn contains(self, other: IpAddr) -> bool {
        match (self.address, other) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let mask = u32::MAX.checked_shl(32 - self.bits).unwrap_or(0);
                own.to_bits() & mask == other.to_bits() & mask
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let mask = u128::MAX.checked_shl(128 - self.bits).unwrap_or(0);
                own.to_bits() & mask == other.to_bits() & mask
            }
            _ => false,
        }
    }
}

/// The rules in force.
#[derive(Debug, Clone)]
pub(crate) struct Access {
    allowed: Vec<Network>,
    include_members: bool,
    needs_certificate: bool,
    /// What the `Authorization` header must hold after `Basic `.
    password: Option<String>,
}

impl Access {
    /// Reads the rules; host names are resolved now, and again at every reload.
    pub(crate) fn new(
        allowlist: &[String],
        include_members: bool,
        needs_certificate: bool,
        authentication: Option<&(String, Secret)>,
    ) -> Self {
        let mut allowed = Vec::new();
        for entry in allowlist {
            if let Some(network) = Network::read(entry) {
                allowed.push(network);
                continue;
            }
            match (entry.as_str(), 0).to_socket_addrs() {
                Ok(addresses) => allowed.extend(addresses.map(|address| Network::host(address.ip()))),
                Err(error) => tracing::warn!(
                    "restapi.allowlist: {entry:?} is no address, no network, and does not resolve ({error}); \
                     calls from it are refused until it does and the configuration is reloaded"
                ),
            }
        }
        // A list that names only unresolvable hosts must not mean that everybody may call.
        if allowed.is_empty() && !allowlist.is_empty() {
            allowed.push(Network::host(IpAddr::from([255, 255, 255, 255])));
        }
        let password =
            authentication.map(|(user, password)| STANDARD.encode(format!("{user}:{}", password.reveal())));
        Self { allowed, include_members, needs_certificate, password }
    }

    /// Decides on a protected call.
    pub(crate) async fn check(
        &self,
        caller: IpAddr,
        has_certificate: bool,
        authorization: Option<&[u8]>,
        view: Option<&ClusterView>,
    ) -> Result<(), Denied> {
        let caller = caller.to_canonical();
        let restricted = !self.allowed.is_empty() || self.include_members;
        let listed = self.allowed.iter().any(|network| network.contains(caller));
        if restricted && !listed && !(self.include_members && is_member(caller, view).await) {
            return Err(Denied::Address);
        }
        if self.needs_certificate && !has_certificate {
            return Err(Denied::Certificate);
        }
        match (&self.password, authorization) {
            (None, _) => Ok(()),
            (Some(_), None) => Err(Denied::NoPassword),
            (Some(password), Some(given)) => match given.strip_prefix(b"Basic ") {
                Some(given) if same(password.as_bytes(), given) => Ok(()),
                _ => Err(Denied::WrongPassword),
            },
        }
    }
}

/// Lets a protected call pass, or answers it.
///
/// # Errors
/// Why the caller was refused.
pub(crate) async fn guard(
    State(node): State<Arc<Respondent>>,
    Extension(caller): Extension<Caller>,
    request: Request,
    next: Next,
) -> Result<Answer, Denied> {
    let (policy, view) = (node.policy.load_full(), node.view());
    let authorization = request.headers().get(AUTHORIZATION).map(http::HeaderValue::as_bytes);
    policy.access.check(caller.address, caller.has_certificate, authorization, view.as_deref()).await?;
    Ok(next.run(request).await)
}

async fn is_member(caller: IpAddr, view: Option<&ClusterView>) -> bool {
    let Some(view) = view else { return false };
    for url in view.members.values().filter_map(|member| member.api_url.as_deref()) {
        let Some((host, port)) = crate::read::host_and_port(url) else { continue };
        if let Ok(address) = host.parse::<IpAddr>() {
            if address.to_canonical() == caller {
                return true;
            }
            continue;
        }
        let resolved = tokio::time::timeout(RESOLVE, tokio::net::lookup_host((host.as_str(), port))).await;
        if let Ok(Ok(mut addresses)) = resolved
            && addresses.any(|address| address.ip().to_canonical() == caller)
        {
            return true;
        }
    }
    false
}

/// Compares in a time that depends on the lengths only.
fn same(left: &[u8], right: &[u8]) -> bool {
    let differences = left.iter().zip(right).fold(0u8, |all, (a, b)| all | (a ^ b));
    std::hint::black_box(differences) == 0 && left.len() == right.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_contain_their_addresses() {
        let network = |text: &str| Network::read(text).unwrap();
        assert!(network("10.0.0.0/8").contains("10.9.8.7".parse().unwrap()));
        assert!(!network("10.0.0.0/8").contains("11.0.0.1".parse().unwrap()));
        assert!(network("10.1.2.3/0").contains("192.168.0.1".parse().unwrap()));
        assert!(network("fd00::/8").contains("fd12::1".parse().unwrap()));
        assert!(!network("::1").contains("::2".parse().unwrap()));
        assert_eq!(Network::read("10.0.0.0/33"), None);
        assert_eq!(Network::read("a host"), None);
    }

    #[test]
    fn passwords_compare_whole() {
        assert!(same(b"abc", b"abc"));
        assert!(!same(b"abc", b"abcd"));
        assert!(!same(b"abc", b"abd"));
        assert!(!same(b"", b"a"));
    }
}
