//! From files and environment to a [`NodeConfig`]: what is read, in which
//! order it is merged, and every problem on the way, all at once.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::NodeConfig;
use crate::check::{self, Document};
use crate::environment::{self, Environment};
use crate::legacy;
use crate::node::Machine;
use crate::problem::{Place, Problem, Problems};
use crate::read;
use crate::tree::Node;
use crate::yaml::{self, Source};

/// A configuration that can be used.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The configuration.
    pub node: NodeConfig,
    /// What the operator should know.
    pub warnings: Vec<Problem>,
    /// The environment variables that were understood: child processes must not see them.
    pub consumed: Vec<String>,
}

/// Reads a file or a directory of `*.yml` and `*.yaml`, with the environment on top.
///
/// Without an argument, or where it does not exist, `PATRONI_CONFIGURATION` stands for the file, or
/// the variables stand alone (patroni-compat 3.1).
///
/// # Errors
/// Every problem of the configuration if one of them is an error.
pub fn load(
    argument: Option<&Path>,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<Loaded, Problems> {
    let environment = environment::read(environment);
    let consumed = environment.consumed.clone();
    let machine = machine(&environment);
    let mut problems = Vec::new();
    let mut tree = match gather(argument, environment, &mut problems) {
        Ok(tree) => tree,
        Err(problem) => {
            problems.push(problem);
            return Err(Problems(problems));
        }
    };
    legacy::rename(&mut tree);
    problems.extend(check::check(&tree, Document::Local, &methods(&tree)).problems);
    legacy::one_etcd(&mut tree);
    let node = NodeConfig::from_tree(&tree, &machine, &mut problems);
    let problems = sorted(problems);
    match node {
        Some(node) if !problems.any_error() => Ok(Loaded { node, warnings: problems.0, consumed }),
        _ => Err(problems),
    }
}

fn sorted(mut problems: Vec<Problem>) -> Problems {
    problems.sort_by(|a, b| {
        b.severity.cmp(&a.severity).then_with(|| a.place.cmp(&b.place)).then_with(|| a.path.cmp(&b.path))
    });
    problems.dedup();
    Problems(problems)
}

/// The merged tree of file and environment.
pub(crate) fn gather(
    argument: Option<&Path>,
    environment: Environment,
    problems: &mut Vec<Problem>,
) -> Result<Node, Problem> {
    let Environment { tree: mut variables, whole, problems: found, .. } = environment;
    let files = argument.map(files).transpose()?.unwrap_or_default();
    if files.is_empty() {
        if let Some(text) = whole {
            // The whole configuration is in one variable; the others are ignored then.
            let source = Source::Variable(Arc::from("PATRONI_CONFIGURATION"));
            let (tree, twice) = yaml::parse(&text, &source)?;
            problems.extend(twice);
            return section(tree);
        }
        if let Some(missing) = argument
            && variables.entries().is_empty()
        {
            return Err(Problem::error(
                &Place::Whole(Arc::new(missing.to_owned())),
                "",
                "there is no such file, and no environment variable configures this node",
                "check the path that the daemon was started with",
            ));
        }
    }
    let mut tree = Node::empty();
    for file in files {
        let file = Arc::new(file);
        let text = std::fs::read_to_string(file.as_path()).map_err(|error| {
            let found = format!("the file cannot be read: {error}");
            let advice = "check its owner and permissions, and that it is UTF-8 text";
            Problem::error(&Place::Whole(file.clone()), "", found, advice)
        })?;
        let (next, twice) = yaml::parse(&text, &Source::File(file.clone()))?;
        problems.extend(twice);
        tree.merge(section(next)?);
    }
    problems.extend(found);
    legacy::same_etcd(&tree, &mut variables);
    tree.merge(variables);
    if tree.entries().is_empty() {
        let place = argument.map_or(Place::Missing, |path| Place::Whole(Arc::new(path.to_owned())));
        let advice = "write at least scope, name, restapi, postgresql and the store";
        return Err(Problem::error(&place, "", "is empty", advice));
    }
    Ok(tree)
}

fn section(tree: Node) -> Result<Node, Problem> {
    use crate::tree::Shape;
    match tree.shape {
        Shape::Map(_) => Ok(tree),
        Shape::Null => Ok(Node::empty()),
        _ => {
            let found = "holds text or a list where sections are expected";
            Err(Problem::error(&tree.place, "", found, "begin with scope: and name:"))
        }
    }
}

/// The files of an argument in the order in which they are merged; none if it does not exist.
fn files(argument: &Path) -> Result<Vec<PathBuf>, Problem> {
    if !argument.is_dir() {
        return Ok(if argument.exists() { vec![argument.to_owned()] } else { Vec::new() });
    }
    let place = Place::Whole(Arc::new(argument.to_owned()));
    let unreadable = |error: std::io::Error| {
        let found = format!("the directory cannot be read: {error}");
        Problem::error(&place, "", found, "check its owner and permissions")
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(argument).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|e| e == "yml" || e == "yaml") {
            files.push(path);
        }
    }
    files.sort();
    if files.is_empty() {
        let found = "the directory holds no file that ends in .yml or .yaml";
        return Err(Problem::error(&place, "", found, "put the configuration there"));
    }
    Ok(files)
}

/// Sections whose names the configuration itself chooses: the methods.
pub(crate) fn methods(tree: &Node) -> Vec<String> {
    let mut free = Vec::new();
    if let Some(method) = read::text(tree, "bootstrap.method").filter(|m| m != "initdb") {
        free.push(format!("bootstrap.{method}"));
    }
    for base in ["postgresql", "bootstrap.dcs.postgresql"] {
        for key in ["create_replica_methods", "create_replica_method"] {
            let named = read::names(tree, &format!("{base}.{key}"));
            let own = named.into_iter().filter(|name| name != "basebackup");
            free.extend(own.map(|name| format!("postgresql.{name}")));
        }
    }
    free
}

fn machine(environment: &Environment) -> Machine {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let host = kernel.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    Machine {
        host: host.or_else(|| environment.host.clone()).unwrap_or_else(|| "localhost".to_owned()),
        home: environment.home.as_ref().map(PathBuf::from),
    }
}
