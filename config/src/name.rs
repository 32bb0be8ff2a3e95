//! The name of a node. It travels into keys, file names, SQL and metrics,
//! so it is checked once, here, and never again.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} cannot be used as a name: {why}")]
pub struct BadName {
    found: String,
    why: &'static str,
}

/// Longest accepted name in bytes; it keeps every derived key and slot name short.
pub const LONGEST: usize = 255;

/// The name of one node (Patroni's `name`), unique in its cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeName(Arc<str>);

impl NodeName {
    /// Checks `text` and makes it a name.
    ///
    /// # Errors
    /// [`BadName`] if it is empty, too long, or holds a '/' or a control character.
    pub fn new(text: &str) -> Result<Self, BadName> {
        let why = if text.is_empty() {
            "it is empty"
        } else if text.len() > LONGEST {
            "it is longer than 255 bytes"
        } else if text.contains('/') {
            "it contains '/', which separates keys in the store"
        } else if text.chars().any(char::is_control) {
            "it contains a control character"
        } else {
            return Ok(Self(text.into()));
        };
        Err(BadName { found: text.to_owned(), why })
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for NodeName {
    type Error = BadName;
    fn try_from(text: String) -> Result<Self, BadName> {
        Self::new(&text)
    }
}

impl From<NodeName> for String {
    fn from(name: NodeName) -> String {
        name.0.as_ref().to_owned()
    }
}
