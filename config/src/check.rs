//! A tree against the table of keys: unknown names, values of the wrong kind,
//! and keys that matriarch does not act on. Every problem is reported, and
//! each key at most once.

use crate::keys::{self, Acts, Key, Reach};
use crate::kind::Kind;
use crate::problem::{Problem, Severity};
use crate::quantity;
use crate::tree::{Entry, Node, Shape};

/// Which document is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Document {
    /// A node's own file and environment.
    Local,
    /// The settings of the cluster, in `bootstrap.dcs`.
    Bootstrap,
    /// The settings of the cluster, in the store.
    Store,
}

impl Document {
    fn prefix(self) -> &'static str {
        if self == Self::Bootstrap { "bootstrap.dcs." } else { "" }
    }

    fn holds(self, reach: Reach) -> bool {
        match self {
            Self::Local => reach != Reach::Dynamic,
            Self::Bootstrap | Self::Store => reach != Reach::Local,
        }
    }

    /// In the store a wrong value is passed over, because the cluster must go on.
    fn wrong(self) -> Severity {
        if self == Self::Store { Severity::Warning } else { Severity::Error }
    }
}

/// What a check found.
pub(crate) struct Checked {
    pub(crate) problems: Vec<Problem>,
    /// The paths of values of the wrong kind, part by part.
    pub(crate) wrong: Vec<Vec<String>>,
}

/// Checks all of `tree`; `free` are sections that the configuration itself names (methods).
pub(crate) fn check(tree: &Node, document: Document, free: &[String]) -> Checked {
    let found = Checked { problems: Vec::new(), wrong: Vec::new() };
    let mut walk = Walk { document, free, found };
    walk.section(tree, &mut Vec::new());
    walk.found
}

struct Walk<'a> {
    document: Document,
    free: &'a [String],
    found: Checked,
}

impl<'a> Walk<'a> {
    fn section(&mut self, node: &'a Node, path: &mut Vec<&'a str>) {
        for entry in node.entries() {
            path.push(&entry.key);
            self.entry(entry, path);
            path.pop();
        }
    }

    fn entry(&mut self, entry: &'a Entry, path: &mut Vec<&'a str>) {
        let node = &entry.node;
        let written = format!("{}{}", self.document.prefix(), path.join("."));
        if node.shape == Shape::Null || self.free.contains(&path.join(".")) {
            return;
        }
        let canonical = canonical(path);
        if let Some(key) = keys::find(&canonical) {
            self.known(entry, key, path, &written);
            if key.kind == Kind::Dynamic {
                self.found.problems.extend(check(node, Document::Bootstrap, self.free).problems);
            }
        } else if keys::is_section(&canonical) {
            match &node.shape {
                Shape::Map(_) => self.section(node, path),
                _ => self.wrong_kind(node, path, &written, Kind::Section),
            }
        } else {
            let nearest = keys::nearest(&canonical).map(|name| format!("{}{name}", self.document.prefix()));
            let parameters = format!("{}postgresql.parameters", self.document.prefix());
            let advice = match (nearest, canonical.as_slice()) {
                (Some(name), _) if name != written => format!("did you mean {name}? It is ignored as it is"),
                (_, ["postgresql", name]) if node.as_text().is_some() => {
                    format!(
                        "it is ignored: if it is a parameter of Postgres, write it as {parameters}.{name}"
                    )
                }
                _ => "it is ignored: correct or remove it".to_owned(),
            };
            self.found.problems.push(Problem::warning(
                &entry.place,
                &written,
                "is not a known setting",
                advice,
            ));
        }
    }

    fn known(&mut self, entry: &'a Entry, key: &Key, path: &[&str], written: &str) {
        if !self.document.holds(key.reach) {
            self.found.problems.push(misplaced(entry, key, written));
            return;
        }
        match entry.node.as_text() {
            // Templates leave empty text where nothing is meant.
            Some("") => return,
            Some("#FIXME") => {
                self.placeholder(entry, key, path, written);
                return;
            }
            _ => {}
        }
        if let Some((part, name)) = key.kind.culprit(&entry.node) {
            match name {
                Some(name) => {
                    let path = [path, &[name]].concat();
                    self.wrong_kind(part, &path, &format!("{written}.{name}"), Kind::Text);
                }
                None => self.wrong_kind(part, path, written, key.kind),
            }
            return;
        }
        if says_nothing(&entry.node, key) {
            return;
        }
        let (found, advice) = match key.acts {
            Acts::Now => return,
            Acts::Later => {
                ("is known, but matriarch does not act on it yet", "nothing follows from it on this node")
            }
            Acts::Never(why) => ("has no effect", why),
            Acts::Withholds if self.document == Document::Bootstrap => (
                "asks for a safety promise that matriarch cannot keep yet",
                "a cluster that has this setting gets no leader from matriarch until it can",
            ),
            Acts::Withholds => (
                "asks for a safety promise that matriarch cannot keep yet",
                "until it can, this node only follows and never becomes leader",
            ),
        };
        self.found.problems.push(Problem::warning(&entry.node.place, written, found, advice));
    }

    /// What `patroni --generate-sample-config` writes where an operator must decide.
    fn placeholder(&mut self, entry: &Entry, key: &Key, path: &[&str], written: &str) {
        let advice = format!("write {}", key.kind.wanted());
        let mut problem =
            Problem::error(&entry.node.place, written, "is still the placeholder #FIXME", advice);
        problem.severity = self.document.wrong();
        self.found.problems.push(problem);
        self.found.wrong.push(path.iter().map(|part| (*part).to_owned()).collect());
    }

    fn wrong_kind(&mut self, node: &Node, path: &[&str], written: &str, kind: Kind) {
        let hidden = kind.is_secret() || kind == Kind::Section;
        let found = match (&node.shape, hidden) {
            (Shape::Text { .. }, true) => format!("is text, not {}", kind.article()),
            _ => format!("is {}, not {}", node.shown(), kind.article()),
        };
        let mut advice = format!("write {}", kind.wanted());
        if self.document == Document::Store {
            advice.push_str("; until then its last good value stays in force");
        }
        let mut problem = Problem::error(&node.place, written, found, advice);
        problem.severity = self.document.wrong();
        self.found.problems.push(problem);
        self.found.wrong.push(path.iter().map(|part| (*part).to_owned()).collect());
    }
}

/// Both sections of etcd mean the same keys.
fn canonical<'p>(path: &[&'p str]) -> Vec<&'p str> {
    let mut canonical = path.to_vec();
    if let Some(first) = canonical.first_mut().filter(|first| **first == "etcd") {
        *first = "etcd3";
    }
    canonical
}

fn misplaced(entry: &Entry, key: &Key, written: &str) -> Problem {
    match key.reach {
        Reach::Dynamic => Problem::warning(
            &entry.place,
            written,
            "is a setting of the whole cluster and is ignored in a node's file",
            format!(
                "set it with matriarchctl edit-config, or for a new cluster as bootstrap.dcs.{}",
                key.path
            ),
        ),
        Reach::Local | Reach::Both => Problem::warning(
            &entry.place,
            written,
            "is a setting of each node and is ignored here",
            format!("write {} into the node's file", key.path),
        ),
    }
}

/// Whether a value asks for nothing beyond the default, so that nothing is left undone.
fn says_nothing(node: &Node, key: &Key) -> bool {
    let Some(text) = node.as_text() else {
        return node.as_list().is_some_and(<[Node]>::is_empty)
            || (matches!(node.shape, Shape::Map(_)) && node.entries().is_empty());
    };
    let off = matches!(key.kind, Kind::Bool | Kind::BoolOr(_)) && quantity::boolean(text) == Some(false);
    off || text == key.default || text.is_empty()
}
