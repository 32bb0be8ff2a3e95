//! What the command line program needs of a configuration: patronictl's file,
//! or a node's own, with the environment on top (patroni-compat 1.11, 3.2).

use std::path::{Path, PathBuf};

use crate::check::{self, Document};
use crate::environment;
use crate::legacy;
use crate::load;
use crate::problem::{Place, Problem, Problems, Severity};
use crate::read;
use crate::rest::Ctl;
use crate::tree::Node;
use crate::{Address, StoreConfig};

/// How the command line program reaches a cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct CtlConfig {
    /// The cluster, if the file names one.
    pub scope: Option<String>,
    /// The path above the clusters' keys in the store.
    pub namespace: String,
    /// The store.
    pub store: StoreConfig,
    /// A second store, to or from which the cluster moves.
    pub second_store: Option<StoreConfig>,
    /// How REST interfaces are called.
    pub ctl: Ctl,
    /// The REST interface of the node whose file this is, as a URL without a path.
    pub own_api: Option<String>,
    /// What the operator should know.
    pub warnings: Vec<Problem>,
}

/// Sections that mean something to the command line program.
const SECTIONS: &[&str] = &["scope", "namespace", "ctl", "restapi", "etcd", "etcd3", "raft"];

/// Reads `path`, or `PATRONICTL_CONFIG_FILE`, or `~/.config/patroni/patronictl.yaml` where it exists;
/// `DCS_URL` in the environment replaces the store.
///
/// # Errors
/// Every problem of what the program needs, if one of them is an error.
pub fn load_ctl(
    path: Option<&Path>,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<CtlConfig, Problems> {
    let environment: Vec<(String, String)> = environment.collect();
    let variable = |name: &str| environment.iter().find(|(n, v)| n == name && !v.is_empty()).map(|(_, v)| v);
    let named = path.map(PathBuf::from).or_else(|| variable("PATRONICTL_CONFIG_FILE").map(PathBuf::from));
    let file = match named {
        Some(file) if file.exists() => Some(file),
        Some(file) => {
            let place = Place::Whole(std::sync::Arc::new(file));
            let advice = "check the path given by -c or PATRONICTL_CONFIG_FILE";
            return Err(Problem::error(&place, "", "there is no such file", advice).into());
        }
        None => default_file(variable("XDG_CONFIG_HOME"), variable("HOME")),
    };
    let url = variable("DCS_URL").cloned();
    let mut problems = Vec::new();
    let found = environment::read(environment.into_iter());
    let tree = load::gather(file.as_deref(), found, &mut problems);
    let mut tree = match tree {
        Ok(tree) => tree,
        // Without any configuration the defaults serve.
        Err(_) if file.is_none() => Node::empty(),
        Err(problem) => return Err(problem.into()),
    };
    legacy::rename(&mut tree);
    problems.extend(check::check(&tree, Document::Local, &load::methods(&tree)).problems);
    problems.retain(|p| p.path.split('.').next().is_some_and(|first| SECTIONS.contains(&first)));
    legacy::one_etcd(&mut tree);
    let mut config = CtlConfig {
        scope: read::text(&tree, "scope"),
        namespace: read::text(&tree, "namespace").unwrap_or_else(|| "service".to_owned()),
        store: StoreConfig::from_tree(&tree, &mut problems)
            .unwrap_or_else(|| StoreConfig::on_this_machine(&mut problems)),
        second_store: StoreConfig::second(&tree, &mut problems),
        ctl: Ctl::from_tree(&tree),
        own_api: own_api(&tree),
        warnings: Vec::new(),
    };
    if let Some(url) = url
        && let Err(problem) = config.use_url(&url)
    {
        problems.push(problem);
    }
    if problems.iter().any(|p| p.severity == Severity::Error) {
        return Err(Problems(problems));
    }
    config.warnings = problems;
    Ok(config)
}

impl CtlConfig {
    /// Replaces the store by a URL such as `etcd3://host:2379/namespace` (`--dcs-url`, `DCS_URL`).
    ///
    /// # Errors
    /// What is wrong with the URL.
    pub fn use_url(&mut self, url: &str) -> Result<(), Problem> {
        let place = Place::Variable("DCS_URL".into());
        let wrong = |found: String| {
            let advice = "write for example etcd3://10.0.0.1:2379 or etcd3://10.0.0.1:2379/service";
            Problem::error(&place, "", found, advice)
        };
        let (scheme, rest) = url.split_once("//").unwrap_or(("", url));
        if !matches!(scheme, "" | "etcd:" | "etcd3:") {
            return Err(wrong(format!(
                "names the store {:?}, which is not etcd",
                scheme.trim_end_matches(':')
            )));
        }
        let (host, namespace) = rest.split_once('/').map_or((rest, ""), |(host, path)| (host, path));
        let (name, port) = host.rsplit_once(':').unwrap_or((host, "2379"));
        let name = if name.is_empty() { "localhost" } else { name };
        let address = Address::parse(&format!("{name}:{port}"))
            .ok_or_else(|| wrong(format!("is {url:?}, and {host:?} is no host and port")))?;
        if !namespace.trim_matches('/').is_empty() {
            self.namespace = format!("/{namespace}");
        }
        self.store = self.store.at(format!("http://{address}"));
        self.second_store = None;
        Ok(())
    }
}

fn default_file(config_home: Option<&String>, home: Option<&String>) -> Option<PathBuf> {
    let base = config_home.map(PathBuf::from).or_else(|| home.map(|home| Path::new(home).join(".config")));
    base.map(|base| base.join("patroni/patronictl.yaml")).filter(|file| file.exists())
}

fn own_api(tree: &Node) -> Option<String> {
    let written =
        read::text(tree, "restapi.connect_address").or_else(|| read::text(tree, "restapi.listen"))?;
    let mut address = Address::parse(&written)?;
    if address.is_any() {
        address.host = "localhost".to_owned();
    }
    let scheme = if read::text(tree, "restapi.certfile").is_some() { "https" } else { "http" };
    Some(format!("{scheme}://{address}"))
}
