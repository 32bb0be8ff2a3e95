//! Every key that may be written, in one table: its type, its default, one
//! sentence, and what matriarch does with it. The check for unknown keys and
//! the reference page are both made from this table, so they cannot disagree.

mod local;
mod shared;

use crate::kind::Kind;

/// Where a key may be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// In the node's file only.
    Local,
    /// In the dynamic configuration (and `bootstrap.dcs`) only.
    Dynamic,
    /// In either; the node's file wins.
    Both,
}

/// What happens because a key is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Acts {
    /// What it says.
    Now,
    /// Nothing yet, and one warning.
    Later,
    /// Nothing ever, and one warning with the reason.
    Never(&'static str),
    /// The node only follows until matriarch can act on it, because ignoring it would weaken safety.
    Withholds,
}

/// One key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Key {
    /// Dotted path; `*` stands for any one name.
    pub(crate) path: &'static str,
    pub(crate) kind: Kind,
    /// As an operator would write it; empty if there is none.
    pub(crate) default: &'static str,
    /// One sentence.
    pub(crate) says: &'static str,
    pub(crate) reach: Reach,
    pub(crate) acts: Acts,
}

impl Key {
    const fn new(
        reach: Reach,
        path: &'static str,
        kind: Kind,
        default: &'static str,
        says: &'static str,
    ) -> Self {
        Self { path, kind, default, says, reach, acts: Acts::Now }
    }

    const fn later(self) -> Self {
        Self { acts: Acts::Later, ..self }
    }

    const fn never(self, why: &'static str) -> Self {
        Self { acts: Acts::Never(why), ..self }
    }

    const fn withholds(self) -> Self {
        Self { acts: Acts::Withholds, ..self }
    }

    fn matches(&self, path: &[&str]) -> bool {
        let mut own = self.path.split('.');
        path.iter().all(|part| own.next().is_some_and(|p| p == "*" || p == *part)) && own.next().is_none()
    }

    fn is_below(&self, path: &[&str]) -> bool {
        let mut own = self.path.split('.');
        path.iter().all(|part| own.next().is_some_and(|p| p == "*" || p == *part)) && own.next().is_some()
    }
}

/// The whole table, in the order of the reference page.
pub(crate) fn all() -> impl Iterator<Item = &'static Key> {
    local::KEYS.iter().chain(shared::KEYS)
}

/// The key at a path, exact names before wildcards.
pub(crate) fn find(path: &[&str]) -> Option<&'static Key> {
    let found = |wild: bool| all().find(move |key| key.path.contains('*') == wild && key.matches(path));
    found(false).or_else(|| found(true))
}

/// Whether keys exist below a path, so that it is a section.
pub(crate) fn is_section(path: &[&str]) -> bool {
    all().any(|key| key.is_below(path))
}

/// The known name nearest to the last part of `path`, if one is near enough to be meant.
pub(crate) fn nearest(path: &[&str]) -> Option<String> {
    let (wrong, above) = path.split_last()?;
    let depth = above.len();
    let mut names: Vec<&str> = all()
        .filter(|key| above.is_empty() || key.is_below(above))
        .filter_map(|key| key.path.split('.').nth(depth))
        .filter(|name| *name != "*")
        .collect();
    names.sort_unstable();
    names.dedup();
    names
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(wrong, name), name))
        .filter(|(distance, name)| *distance <= 1 + name.len() / 4)
        .min()
        .map(|(_, name)| above.iter().copied().chain([name]).collect::<Vec<_>>().join("."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_key_stands_in_the_table_twice() {
        let mut seen = BTreeSet::new();
        for key in all() {
            assert!(seen.insert(key.path), "{}", key.path);
        }
    }

    #[test]
    fn every_key_has_one_sentence() {
        for key in all() {
            assert!(key.says.ends_with('.') && key.says.len() > 10, "{}", key.path);
        }
    }

    #[test]
    fn a_misspelt_key_finds_its_neighbour() {
        assert_eq!(nearest(&["postgresql", "lisen"]).as_deref(), Some("postgresql.listen"));
        assert_eq!(nearest(&["restap"]).as_deref(), Some("restapi"));
        assert_eq!(nearest(&["zzzzzzzz"]), None);
    }
}
