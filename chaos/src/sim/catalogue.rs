//! The rows of the catalogue of failures that concern simulation: which a run went through, and which the world does not
//! have, and why.

use std::collections::BTreeMap;

/// All of them, by their numbers in the catalogue of failures (reliability 2, tag s).
pub const ROWS: [&str; 94] = [
    "F01", "F02", "F03", "F04", "F05", "F06", "F07", "F08", "F10", "F11", "F12", "F13", "F15", "F16", "F17",
    "F19", "F20", "F21", "F22", "F23", "F24", "F26", "F27", "F28", "F35", "F36", "F40", "F41", "F43", "F44",
    "F45", "F46", "F47", "F50", "F51", "F52", "F53", "F54", "F55", "F56", "F57", "F58", "F59", "F60", "F62",
    "F64", "F65", "F66", "F67", "F70", "F71", "F72", "F73", "F74", "F75", "F76", "F77", "F78", "F80", "F81",
    "F82", "F83", "F85", "F86", "F87", "F89", "F91", "F92", "F93", "F94", "F96", "F97", "F101", "F102",
    "F103", "F110", "F113", "F115", "F116", "F122", "F132", "F133", "F135", "F137", "F138", "F145", "F148",
    "F150", "F151", "F152", "F159", "F169", "F170", "F171",
];

/// Rows that no life goes through, and why: at most a fifth of all.
pub const UNMODELLED: [(&str, &str); 16] = [
    ("F22", "moving directories is one step in this world; its journal is tested with real directories"),
    ("F23", "the world has no disks that fill"),
    ("F43", "the world has one host for each name"),
    ("F65", "the world has no names to look up"),
    ("F76", "the world's watch tells whole views; the fold of events is tested beside the store"),
    ("F83", "the world's store asks for no passwords"),
    ("F86", "the world's store has no members of its own"),
    ("F91", "the world's store has no members of its own; tested in dcs"),
    ("F92", "the world's store has no log of its own; tested in dcs"),
    ("F93", "the world has one store; tested with real ones"),
    ("F94", "the world's store has no members of its own; tested with real ones"),
    ("F137", "what was acknowledged is on disk in this world"),
    ("F148", "the world has one host for each name"),
    ("F150", "all nodes run the same decisions"),
    ("F170", "members tell the truth about themselves in this world"),
    ("F171", "questions for leave cannot be forged in this world; tested over REST"),
];

/// The rows that the world has and these lives did not go through.
#[must_use]
pub fn missed(marks: &BTreeMap<&'static str, u64>) -> Vec<&'static str> {
    let modelled = |row: &&str| UNMODELLED.iter().all(|(other, _)| other != row);
    ROWS.into_iter().filter(modelled).filter(|row| !marks.contains_key(row)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_most_a_fifth_is_not_modelled() {
        assert!(UNMODELLED.iter().all(|(row, why)| ROWS.contains(row) && !why.is_empty()));
        assert!(UNMODELLED.len() * 5 <= ROWS.len(), "{} of {}", UNMODELLED.len(), ROWS.len());
    }

    #[test]
    fn what_was_not_met_is_named() {
        let mut marks: BTreeMap<&'static str, u64> = ROWS.into_iter().map(|row| (row, 1)).collect();
        assert!(missed(&marks).is_empty());
        marks.remove("F35");
        marks.remove("F22");
        assert_eq!(missed(&marks), ["F35"]);
    }
}
