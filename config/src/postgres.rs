//! Postgres on this machine: the section `postgresql` of a node's file, as far
//! as only this node can say it. What the cluster also has a say in is in
//! [`Effective`](crate::Effective).

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::Secret;
use crate::address::{Address, Listen};
use crate::read;
use crate::tree::Node;

/// A Postgres role and how to connect as it.
#[derive(Debug, Clone, PartialEq)]
pub struct Credentials {
    /// The role.
    pub username: String,
    /// Its password; without one the connection must be trusted otherwise.
    pub password: Option<Secret>,
    /// libpq's options for it: sslmode, sslcert, sslkey, sslrootcert, sslcrl, sslcrldir,
    /// gssencmode, channel_binding, sslnegotiation, as far as they are given.
    pub options: BTreeMap<String, String>,
    /// The password of sslkey.
    pub sslpassword: Option<Secret>,
}

/// The only connection options that Patroni passes on (patroni-compat 3.2).
const OPTIONS: &[&str] = &[
    "sslmode",
    "sslcert",
    "sslkey",
    "sslrootcert",
    "sslcrl",
    "sslcrldir",
    "gssencmode",
    "channel_binding",
    "sslnegotiation",
];

impl Credentials {
    fn from_tree(tree: &Node, whose: &str) -> Option<Self> {
        let base = format!("postgresql.authentication.{whose}");
        tree.at(&base)?;
        let at = |key: &str| format!("{base}.{key}");
        Some(Self {
            username: read::text(tree, &at("username"))?,
            password: read::secret(tree, &at("password")),
            options: OPTIONS
                .iter()
                .filter_map(|name| Some(((*name).to_owned(), read::text(tree, &at(name))?)))
                .collect(),
            sslpassword: read::secret(tree, &at("sslpassword")),
        })
    }

    fn named(username: &str) -> Self {
        Self { username: username.to_owned(), password: None, options: BTreeMap::new(), sslpassword: None }
    }
}

/// Postgres on this machine.
#[derive(Debug, Clone, PartialEq)]
pub struct LocalPostgres {
    /// Where it listens.
    pub listen: Listen,
    /// How others reach it.
    pub connect_address: Address,
    /// A pooler in front of it, published for clients.
    pub proxy_address: Option<Address>,
    /// The data directory, absolute.
    pub data_dir: PathBuf,
    /// Where postgresql.conf, pg_hba.conf and pg_ident.conf are.
    pub config_dir: PathBuf,
    /// The name of postgresql.conf without its ending.
    pub config_base_name: String,
    /// A file included instead of postgresql.base.conf.
    pub custom_conf: Option<PathBuf>,
    /// Where the programs are; `None`: in PATH.
    pub bin_dir: Option<PathBuf>,
    /// Names of programs that are called otherwise (`pg_ctl` → its name).
    pub bin_name: BTreeMap<String, String>,
    /// The password file to write.
    pub pgpass: PathBuf,
    /// The database for own connections.
    pub database: String,
    /// The superuser.
    pub superuser: Credentials,
    /// The replication role.
    pub replication: Credentials,
    /// The rewind role, if there is one of its own.
    pub rewind: Option<Credentials>,
    /// libpq's krbsrvname for replication.
    pub krbsrvname: Option<String>,
    /// Connect to the own Postgres through its socket.
    pub use_unix_socket: bool,
    /// Replicate from the own Postgres through its socket.
    pub use_unix_socket_repl: bool,
    /// Everything that the dynamic configuration may also say.
    pub(crate) section: Node,
}

/// What was worked out before the section itself is read.
pub(crate) struct Places {
    pub(crate) listen: Listen,
    pub(crate) connect_address: Address,
    pub(crate) data_dir: PathBuf,
    pub(crate) home: Option<PathBuf>,
}

impl LocalPostgres {
    pub(crate) fn from_tree(tree: &Node, places: Places) -> Self {
        let at_data = |path: PathBuf| if path.is_absolute() { path } else { places.data_dir.join(path) };
        let beside = places.data_dir.parent().map(PathBuf::from).unwrap_or_default();
        let home = places.home.clone().unwrap_or(beside);
        let pgpass = read::text(tree, "postgresql.pgpass").unwrap_or_else(|| "~/pgpass".to_owned());
        let pgpass = match pgpass.strip_prefix("~/") {
            Some(rest) => home.join(rest),
            None => PathBuf::from(&pgpass),
        };
        Self {
            listen: places.listen,
            connect_address: places.connect_address,
            proxy_address: read::text(tree, "postgresql.proxy_address").and_then(|t| Address::parse(&t)),
            config_dir: read::path(tree, "postgresql.config_dir")
                .map_or_else(|| places.data_dir.clone(), at_data),
            config_base_name: read::text(tree, "postgresql.config_base_name")
                .unwrap_or_else(|| "postgresql".to_owned()),
            custom_conf: read::path(tree, "postgresql.custom_conf"),
            bin_dir: read::path(tree, "postgresql.bin_dir"),
            bin_name: read::texts(tree, "postgresql.bin_name"),
            pgpass,
            database: read::text(tree, "postgresql.database").unwrap_or_else(|| "postgres".to_owned()),
            superuser: Credentials::from_tree(tree, "superuser")
                .unwrap_or_else(|| Credentials::named("postgres")),
            replication: Credentials::from_tree(tree, "replication")
                .unwrap_or_else(|| Credentials::named("replicator")),
            rewind: Credentials::from_tree(tree, "rewind"),
            krbsrvname: read::text(tree, "postgresql.krbsrvname"),
            use_unix_socket: read::boolean(tree, "postgresql.use_unix_socket", false),
            use_unix_socket_repl: read::boolean(tree, "postgresql.use_unix_socket_repl", false),
            section: tree.at("postgresql").cloned().unwrap_or_else(Node::empty),
            data_dir: places.data_dir,
        }
    }

    /// The role that pg_rewind connects as: its own, else the superuser.
    #[must_use]
    pub fn rewinder(&self) -> &Credentials {
        self.rewind.as_ref().unwrap_or(&self.superuser)
    }

    /// The path of a program such as `pg_ctl`, or its bare name if PATH decides.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        let name = self.bin_name.get(name).map_or(name, String::as_str);
        self.bin_dir.as_ref().map_or_else(|| PathBuf::from(name), |dir| dir.join(name))
    }

    /// What members publish as `conn_url` (patroni-compat 1.4).
    #[must_use]
    pub fn conn_url(&self) -> String {
        format!("postgres://{}/{}", self.connect_address, self.database)
    }

    /// What members publish as `proxy_url`, if there is a pooler.
    #[must_use]
    pub fn proxy_url(&self) -> Option<String> {
        self.proxy_address.as_ref().map(|address| format!("postgres://{address}/{}", self.database))
    }
}
