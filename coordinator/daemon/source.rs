//! Where this node's configuration comes from: one file or directory, and the
//! environment as it was at the start. The same source is read again on a reload.

use std::path::{Path, PathBuf};

use config::{Loaded, NodeConfig, Problems};

use api::server::Reload;

/// The source of the node's configuration.
pub struct Source {
    path: Option<PathBuf>,
    environment: Vec<(String, String)>,
    server: Option<Reload>,
}

impl Source {
    /// The given file or directory, and the environment of this process.
    pub fn new(path: Option<&Path>) -> Self {
        Self { path: path.map(Path::to_owned), environment: std::env::vars().collect(), server: None }
    }

    /// Reads it.
    ///
    /// # Errors
    /// Every problem, if one of them is an error.
    pub fn load(&self) -> Result<Loaded, Problems> {
        config::load(self.path.as_deref(), self.environment.iter().cloned())
    }

    /// The same source for somebody else, who only reads it.
    pub fn again(&self) -> Self {
        Self { path: self.path.clone(), environment: self.environment.clone(), server: None }
    }

    /// The REST server also follows what is reloaded.
    pub fn serve_with(&mut self, server: Reload) {
        self.server = Some(server);
    }

    /// Hands reloaded settings and certificates to the REST server.
    pub fn reloaded(&self, node: &NodeConfig) {
        if let Some(server) = &self.server
            && let Err(error) = server.reload(&api::server::Settings::from(&node.restapi))
        {
            tracing::error!("the REST interface keeps its old settings: {error}");
        }
    }
}
