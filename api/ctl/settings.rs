//! Where the store and the members are, from the configuration file, the
//! environment and the command line.

use std::path::PathBuf;

use anyhow::anyhow;
use api::client::ClientSettings;
use api::tls::{ClientFiles, VerifyServer};
use config::{CtlConfig, StoreConfig};

use crate::args::Arguments;

/// What matriarchctl was told.
#[derive(Debug)]
pub struct Settings {
    /// The cluster, if one is named.
    pub scope: Option<String>,
    /// The path above the cluster's keys.
    pub namespace: String,
    /// The store.
    pub store: StoreConfig,
    /// A second store, to or from which the cluster moves.
    pub second_store: Option<StoreConfig>,
    /// How members are asked: login, certificates.
    pub client: ClientSettings,
    /// REST interfaces of members that are known without the store.
    pub urls: Vec<String>,
    /// What the operator should know of the configuration if something goes wrong.
    pub warnings: Vec<String>,
}

impl Settings {
    /// The store of a section, if the configuration has it.
    #[must_use]
    pub fn store_of(&self, section: &str) -> Option<&StoreConfig> {
        [Some(&self.store), self.second_store.as_ref()].into_iter().flatten().find(|s| s.section() == section)
    }

    /// Reads the configuration and lays the command line over it.
    ///
    /// # Errors
    /// Every problem of the configuration, each with its place and what to write instead.
    pub fn read(arguments: &Arguments) -> anyhow::Result<Self> {
        // Ours first: on a machine with both programs, each may have its own file.
        let own = std::env::var_os("MATRIARCHCTL_CONFIG_FILE").filter(|value| !value.is_empty());
        let file = arguments.config_file.clone().or_else(|| own.map(PathBuf::from));
        let environment = std::env::vars_os().filter_map(|(name, value)| {
            let name = name.into_string().ok().filter(|name| name != "DCS_URL")?;
            Some((name, value.into_string().ok()?))
        });
        let mut config = config::load_ctl(file.as_deref(), environment)
            .map_err(|problems| anyhow!("the configuration cannot be used:\n{problems}"))?;
        if let Some(url) = &arguments.dcs_url {
            config.use_url(url).map_err(|problem| anyhow!("{problem}"))?;
        }
        let client = client(&config, arguments.insecure);
        Ok(Self {
            urls: arguments.url.iter().chain(&config.own_api).cloned().collect(),
            warnings: config.warnings.iter().map(ToString::to_string).collect(),
            scope: config.scope,
            namespace: config.namespace,
            store: config.store,
            second_store: config.second_store,
            client,
        })
    }
}

fn client(config: &CtlConfig, insecure: bool) -> ClientSettings {
    let ctl = &config.ctl;
    let verify = if insecure || ctl.insecure { VerifyServer::Nothing } else { VerifyServer::Name };
    ClientSettings {
        authentication: ctl
            .authentication
            .as_ref()
            .map(|login| (login.username.clone(), login.password.clone())),
        tls: ClientFiles {
            cacert: ctl.cacert.clone(),
            certfile: ctl.certfile.clone().map(|cert| (cert, ctl.keyfile.clone())),
            verify,
        },
    }
}
