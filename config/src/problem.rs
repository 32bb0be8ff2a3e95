//! What is wrong with a configuration: where it stands, what was found, and
//! what to write instead. Problems are collected, never thrown one at a time,
//! and never show the value of a secret.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// How much a problem matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The node can run; the operator should know.
    Warning,
    /// The node cannot run with this.
    Error,
}

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A file, with line and column counted from 1.
    File {
        /// The file as it was named.
        file: Arc<PathBuf>,
        /// The line, from 1.
        line: u64,
        /// The column in characters, from 1.
        column: u64,
    },
    /// A file as a whole.
    Whole(Arc<PathBuf>),
    /// An environment variable.
    Variable(Arc<str>),
    /// An environment variable that holds a whole document, with line and column counted from 1.
    InVariable {
        /// The variable.
        name: Arc<str>,
        /// The line, from 1.
        line: u64,
        /// The column in characters, from 1.
        column: u64,
    },
    /// The cluster's dynamic configuration in the store.
    Document,
    /// Nowhere: the value is missing everywhere.
    Missing,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { file, line, column } => write!(f, "{}:{line}:{column}", file.display()),
            Self::Whole(file) => write!(f, "{}", file.display()),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::InVariable { name, line, column } => {
                write!(f, "environment variable {name}:{line}:{column}")
            }
            Self::Document => f.write_str("dynamic configuration"),
            Self::Missing => f.write_str("configuration"),
        }
    }
}

/// One thing an operator should know or change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Whether the node can run in spite of it.
    pub severity: Severity,
    /// Where it was written.
    pub place: Place,
    /// The key, as a dotted path such as `postgresql.listen`; empty for a whole file.
    pub path: String,
    /// What was found, as the rest of a sentence that begins with the path.
    pub found: String,
    /// What to write or do instead; empty if nothing needs to be done.
    pub advice: String,
}

impl Problem {
    /// An error at `place` about the key `path`.
    #[must_use]
    pub fn error(place: &Place, path: &str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            place: place.clone(),
            path: path.to_owned(),
            found: found.into(),
            advice: advice.into(),
        }
    }

    /// A warning at `place` about the key `path`.
    #[must_use]
    pub fn warning(place: &Place, path: &str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(place, path, found, advice) }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{}: {severity}: ", self.place)?;
        if !self.path.is_empty() {
            write!(f, "{} ", self.path)?;
        }
        f.write_str(&self.found)?;
        if !self.advice.is_empty() {
            write!(f, "; {}", self.advice)?;
        }
        Ok(())
    }
}

/// Every problem of a configuration that cannot be used, errors and warnings together.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    /// Whether any of them is an error.
    #[must_use]
    pub fn any_error(&self) -> bool {
        self.0.iter().any(|problem| problem.severity == Severity::Error)
    }
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}
