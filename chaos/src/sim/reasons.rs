//! The reasons that decisions give, as their source declares them, and those that no life by chance can show, with why and
//! the scenario that shows each.

use std::collections::BTreeSet;

/// Reasons that lives by chance do not give, why, and the scenario that gives them.
pub const ELSEWHERE: [(&str, &str, &str); 1] =
    [("Moving", "a world by chance has one store (F93)", "moving-leader-in-time")];

/// Every reason that the source declares, with what it says about each.
#[must_use]
pub fn declared() -> Vec<(String, String)> {
    let source = include_str!("../../../coordinator/src/reason.rs");
    let body = source.split_once("pub enum Reason {").map_or("", |(_, body)| body);
    let body = body.split_once("\n}\n").map_or("", |(body, _)| body);
    let mut found = Vec::new();
    let mut about = String::new();
    for line in body.lines().filter(|line| line.starts_with("    ") && !line.starts_with("     ")) {
        let line = line.trim();
        if let Some(text) = line.strip_prefix("/// ") {
            about = [about.as_str(), text].join(" ").trim().to_owned();
        } else if line.starts_with(|first: char| first.is_ascii_uppercase()) {
            let name = line.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
            found.push((name.to_owned(), std::mem::take(&mut about)));
        }
    }
    found
}

/// The reasons that lives by chance can give and these did not.
#[must_use]
pub fn missed(shown: &BTreeSet<String>) -> Vec<String> {
    let elsewhere = |name: &String| ELSEWHERE.iter().any(|(other, ..)| other == name);
    let names = declared().into_iter().map(|(name, _)| name);
    names.filter(|name| !shown.contains(name) && !elsewhere(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_is_read_as_it_is_written() {
        let declared = declared();
        assert!(declared.len() > 70, "{}", declared.len());
        assert!(declared.iter().all(|(name, about)| !name.is_empty() && !about.is_empty()));
    }

    #[test]
    fn a_reason_that_was_not_given_is_named() {
        let mut shown: BTreeSet<String> = declared().into_iter().map(|(name, _)| name).collect();
        assert!(missed(&shown).is_empty());
        shown.remove("BestCandidate");
        assert_eq!(missed(&shown), ["BestCandidate"]);
    }

    #[test]
    fn what_is_shown_elsewhere_exists() {
        let declared = declared();
        for (name, why, _) in ELSEWHERE {
            assert!(declared.iter().any(|(other, _)| other == name) && !why.is_empty(), "{name}");
        }
    }
}
