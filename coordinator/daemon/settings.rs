//! The configuration in force on this node: its own file, the cluster's settings,
//! and what both together mean for the local Postgres. Replaced as a whole on a
//! reload, never changed in place.

use std::collections::BTreeMap;
use std::sync::Arc;

use config::{ClusterConfig, Credentials, Effective, NodeConfig};
use coordinator::{Bootstrap, Myself, Repair, Upstream};

use crate::postgres::closed::Kept;
use crate::postgres::conf::{self, Conf, STANDBY_NAMES};
use crate::postgres::{Conninfo, Login, Paths, Target};

/// Everything that is configured.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The node's own file.
    pub node: Arc<NodeConfig>,
    /// The cluster's shared settings.
    pub cluster: Arc<ClusterConfig>,
    /// Both laid over each other, for the local Postgres.
    pub postgres: Effective,
    /// Where everything of the instance is.
    pub paths: Paths,
    /// `server_version_num` of the local programs.
    pub version: u32,
}

impl Settings {
    /// Lays the cluster's settings and the node's file over each other.
    pub fn new(node: Arc<NodeConfig>, cluster: Arc<ClusterConfig>, version: u32) -> Self {
        let postgres = Effective::of(&node, &cluster, version / 10_000);
        let paths = paths(&node);
        Self { node, cluster, postgres, paths, version }
    }

    /// What this node is and may be, for the decisions.
    pub fn myself(&self) -> Myself {
        let may_bootstrap =
            self.node.bootstrap.method == config::Method::Initdb && self.node.bootstrap.dcs.is_some();
        Myself {
            name: self.node.name.clone(),
            tags: self.node.tags.clone(),
            withheld: config::withheld(&self.node, &self.cluster),
            bootstrap: if may_bootstrap { Bootstrap::Initdb } else { Bootstrap::Never },
            repair: Repair {
                rewind: self.postgres.use_pg_rewind && self.node.matriarch.rewind == config::Rewind::Capsule,
                after_failed_rewind: self.postgres.remove_data_directory_on_rewind_failure,
                when_diverged: self.postgres.remove_data_directory_on_diverged_timelines,
            },
        }
    }

    /// The local server, as its superuser.
    pub fn local(&self) -> Target {
        let postgresql = &self.node.postgresql;
        let host = if postgresql.use_unix_socket {
            self.socket_directory()
        } else {
            postgresql.listen.local_host().to_owned()
        };
        Target {
            host,
            port: postgresql.listen.port,
            database: postgresql.database.clone(),
            login: login(&postgresql.superuser),
        }
    }

    /// Who is let in where clients are not.
    pub fn kept(&self) -> Kept {
        let postgresql = &self.node.postgresql;
        Kept {
            superuser: postgresql.superuser.username.clone(),
            rewind: postgresql.rewind.as_ref().map(|rewind| rewind.username.clone()),
        }
    }

    /// The first absolute `unix_socket_directories` (P137), or Debian's and Postgres's own default.
    fn socket_directory(&self) -> String {
        let given = self.postgres.parameters.get("unix_socket_directories");
        given
            .and_then(|list| list.split(',').map(str::trim).find(|dir| dir.starts_with('/')))
            .unwrap_or("/var/run/postgresql")
            .to_owned()
    }

    /// Another member's server, as the superuser or rewind role.
    pub fn remote(&self, host: &str, port: u16) -> Target {
        let postgresql = &self.node.postgresql;
        let credentials = postgresql.rewind.as_ref().unwrap_or(&postgresql.superuser);
        Target {
            host: host.to_owned(),
            port,
            database: postgresql.database.clone(),
            login: login(credentials),
        }
    }

    /// Another member's server, as the replication role.
    pub fn source(&self, host: &str, port: u16) -> Target {
        let postgresql = &self.node.postgresql;
        let login = login(&postgresql.replication);
        Target { host: host.to_owned(), port, database: postgresql.database.clone(), login }
    }

    /// For whom the first commits of a standby that is promoted wait; absent: as the operator says.
    fn standby_names(&self) -> Option<String> {
        coordinator::sync::names::of_standby(&self.cluster)
    }

    /// The configuration files of a primary.
    pub fn primary_conf(&self) -> Conf {
        Conf {
            parameters: self.postgres.parameters.clone(),
            kept: self.standby_names().map(|names| (STANDBY_NAMES.to_owned(), names)).into_iter().collect(),
            custom_conf: self.node.postgresql.custom_conf.as_ref().map(|path| path.display().to_string()),
            hba: self.postgres.pg_hba.clone().unwrap_or_default(),
            ident: self.postgres.pg_ident.clone().unwrap_or_default(),
            recovery: None,
        }
    }

    /// The configuration files of a standby: it follows `upstream`, and no parameter is
    /// lower than its last primary's. Also tells which parameters had to be raised.
    pub fn standby_conf(
        &self,
        upstream: Option<&Upstream>,
        limits: &BTreeMap<&'static str, i64>,
    ) -> (Conf, BTreeMap<String, (i64, i64)>) {
        let mut conf = self.primary_conf();
        conf.kept.clear();
        conf.parameters.extend(self.standby_names().map(|names| (STANDBY_NAMES.to_owned(), names)));
        let raised = conf::raise(&mut conf.parameters, limits);
        let source = upstream.map(|upstream| {
            let target = self.source(&upstream.host, upstream.port);
            let krbsrvname = self.node.postgresql.krbsrvname.as_deref();
            let passfile = target.login.password.is_some().then_some(self.paths.pgpass.as_path());
            (
                Conninfo::primary(&target, self.node.name.as_str(), passfile, krbsrvname),
                upstream.slot.as_deref(),
            )
        });
        let followed = source.as_ref().map(|(conninfo, slot)| (conninfo, *slot));
        conf.recovery = Some(conf::recovery(followed, &self.postgres.recovery_conf, self.version));
        (conf, raised)
    }
}

/// Where everything of the instance is, as configured.
pub fn paths(node: &NodeConfig) -> Paths {
    let postgresql = &node.postgresql;
    let mut paths = Paths::new(&postgresql.data_dir);
    paths.bin_dir = postgresql.bin_dir.clone();
    paths.bin_names = postgresql.bin_name.clone();
    if postgresql.config_dir != postgresql.data_dir {
        paths.config_dir = Some(postgresql.config_dir.clone());
    }
    paths.config_base_name = postgresql.config_base_name.clone();
    paths.pgpass = postgresql.pgpass.clone();
    paths
}

/// A role and its connection options, as libpq's keywords.
pub fn login(credentials: &Credentials) -> Login {
    let mut options = credentials.options.clone();
    if let Some(password) = &credentials.sslpassword {
        options.insert("sslpassword".into(), password.reveal().to_owned());
    }
    Login { user: credentials.username.clone(), password: credentials.password.clone(), options }
}
