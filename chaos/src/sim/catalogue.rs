//! The rows of the catalogue of failures that concern simulation (reliability 2): where each is met, or why not.

/// Rows that no life goes through, and why.
pub const UNMODELLED: [(&str, &str); 0] = [];
