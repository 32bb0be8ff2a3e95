//! The sections `restapi` and `ctl`: where the REST interface is and who may use it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::Secret;
use crate::address::Address;
use crate::read;
use crate::tree::Node;

/// A user and a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// The user.
    pub username: String,
    /// The password.
    pub password: Secret,
}

/// Which requests need a client certificate (`restapi.verify_client`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum VerifyClient {
    /// None.
    #[default]
    None,
    /// Those that change something.
    Optional,
    /// All.
    Required,
}

/// What the `Server` header tells (`restapi.server_tokens`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ServerTokens {
    /// As little as possible.
    Minimal,
    /// The product.
    ProductOnly,
    /// Everything.
    #[default]
    Original,
}

/// The REST interface of this node (`restapi`).
#[derive(Debug, Clone, PartialEq)]
pub struct RestApi {
    /// Where it listens; the host may mean every address.
    pub listen: Address,
    /// How others reach it.
    pub connect_address: Address,
    /// What unsafe requests must give, if anything.
    pub authentication: Option<Login>,
    /// The certificate (PEM); with it the interface speaks HTTPS.
    pub certfile: Option<PathBuf>,
    /// The certificate's key (PEM), if it is not in `certfile`.
    pub keyfile: Option<PathBuf>,
    /// The key's password.
    pub keyfile_password: Option<Secret>,
    /// The authority that signs clients' certificates.
    pub cafile: Option<PathBuf>,
    /// Which requests need a client certificate.
    pub verify_client: VerifyClient,
    /// Addresses and networks that may make unsafe requests; empty: all.
    pub allowlist: Vec<String>,
    /// Whether the cluster's members may make unsafe requests.
    pub allowlist_include_members: bool,
    /// Headers added to every answer.
    pub http_extra_headers: BTreeMap<String, String>,
    /// Headers added to every answer over HTTPS.
    pub https_extra_headers: BTreeMap<String, String>,
    /// What the `Server` header tells.
    pub server_tokens: ServerTokens,
}

impl RestApi {
    /// `https` where there is a certificate, else `http`.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        if self.certfile.is_some() { "https" } else { "http" }
    }

    /// What members publish as `api_url`.
    #[must_use]
    pub fn api_url(&self) -> String {
        format!("{}://{}/patroni", self.scheme(), self.connect_address)
    }

    pub(crate) fn from_tree(tree: &Node, listen: Address, connect_address: Address) -> Self {
        let verify_client = match read::text(tree, "restapi.verify_client").as_deref() {
            Some("optional") => VerifyClient::Optional,
            Some("required") => VerifyClient::Required,
            _ => VerifyClient::None,
        };
        let server_tokens = match read::text(tree, "restapi.server_tokens").as_deref() {
            Some("minimal") => ServerTokens::Minimal,
            Some("productonly") => ServerTokens::ProductOnly,
            _ => ServerTokens::Original,
        };
        Self {
            listen,
            connect_address,
            authentication: login(tree, "restapi.authentication"),
            certfile: read::path(tree, "restapi.certfile"),
            keyfile: read::path(tree, "restapi.keyfile"),
            keyfile_password: read::secret(tree, "restapi.keyfile_password"),
            cafile: read::path(tree, "restapi.cafile"),
            verify_client,
            allowlist: read::names(tree, "restapi.allowlist"),
            allowlist_include_members: read::boolean(tree, "restapi.allowlist_include_members", false),
            http_extra_headers: read::texts(tree, "restapi.http_extra_headers"),
            https_extra_headers: read::texts(tree, "restapi.https_extra_headers"),
            server_tokens,
        }
    }
}

/// How programs of this node call REST interfaces (`ctl`).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Ctl {
    /// Accept any certificate.
    pub insecure: bool,
    /// The authority that signs the servers' certificates.
    pub cacert: Option<PathBuf>,
    /// The client certificate.
    pub certfile: Option<PathBuf>,
    /// The client certificate's key.
    pub keyfile: Option<PathBuf>,
    /// That key's password.
    pub keyfile_password: Option<Secret>,
    /// The login for unsafe requests; `restapi.authentication` if `ctl` gives none.
    pub authentication: Option<Login>,
}

impl Ctl {
    /// Reads `ctl`; the authority and the login that it leaves out are taken from `restapi`, as Patroni
    /// does. A client certificate is not: with one, members verify each other's chains.
    pub(crate) fn from_tree(tree: &Node) -> Self {
        let or_rest = |own: &str, rest: &str| read::path(tree, own).or_else(|| read::path(tree, rest));
        Self {
            insecure: read::boolean(tree, "ctl.insecure", false),
            cacert: or_rest("ctl.cacert", "restapi.cafile"),
            certfile: read::path(tree, "ctl.certfile"),
            keyfile: read::path(tree, "ctl.keyfile"),
            keyfile_password: read::secret(tree, "ctl.keyfile_password"),
            authentication: login(tree, "ctl.authentication")
                .or_else(|| login(tree, "restapi.authentication")),
        }
    }
}

fn login(tree: &Node, path: &str) -> Option<Login> {
    Some(Login {
        username: read::text(tree, &format!("{path}.username"))?,
        password: read::secret(tree, &format!("{path}.password"))?,
    })
}
