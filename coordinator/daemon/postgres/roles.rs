//! The roles that the cluster needs: superuser, replication, rewind (P193).
//!
//! Passwords travel in statements whose logging is switched off for the session first.

use config::Secret;

use super::query::{QueryError, Session};

/// What `pg_rewind` must be allowed to call when it does not run as a superuser.
const REWIND_FUNCTIONS: [&str; 4] = [
    "pg_ls_dir(text, boolean, boolean)",
    "pg_stat_file(text, boolean)",
    "pg_read_binary_file(text)",
    "pg_read_binary_file(text, bigint, bigint, boolean)",
];

/// Settings that would write a statement, with the password in it, into a log or a statistics view.
const SILENCE: [&str; 5] = [
    "SET log_statement TO none",
    "SET log_min_duration_statement TO -1",
    "SET log_min_error_statement TO panic",
    "SET pg_stat_statements.track_utility TO off",
    "SET pgaudit.log TO none",
];

/// Creates a role, or alters it if it exists. `attributes` are words such as `SUPERUSER`;
/// `LOGIN` is added.
pub async fn ensure(
    session: &Session,
    name: &str,
    password: Option<&Secret>,
    attributes: &[&str],
) -> Result<(), QueryError> {
    let mut options = attributes.join(" ");
    if !attributes.contains(&"LOGIN") && !attributes.contains(&"NOLOGIN") {
        options.push_str(" LOGIN");
    }
    if let Some(password) = password {
        options.push_str(" PASSWORD ");
        options.push_str(&literal(password.reveal()));
    }
    for silence in SILENCE {
        session.simple(silence).await?;
    }
    let known = session
        .simple(&format!("SELECT 1 FROM pg_catalog.pg_authid WHERE rolname = {}", literal(name)))
        .await?;
    let verb = if known.is_empty() { "CREATE" } else { "ALTER" };
    let done = session.simple(&format!("{verb} ROLE {} WITH {options}", identifier(name))).await;
    for silence in SILENCE {
        let name = silence.split_whitespace().nth(1).unwrap_or_default();
        session.simple(&format!("RESET {name}")).await?;
    }
    done.map(drop)
}

/// Lets a role that is no superuser serve `pg_rewind`.
pub async fn grant_rewind(session: &Session, name: &str) -> Result<(), QueryError> {
    for function in REWIND_FUNCTIONS {
        let grant = format!("GRANT EXECUTE ON FUNCTION pg_catalog.{function} TO {}", identifier(name));
        session.simple(&grant).await?;
    }
    Ok(())
}

/// A name as SQL writes it.
pub fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text as SQL writes it, whatever `standard_conforming_strings` is.
pub fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') {
        format!(" E'{}'", quoted.replace('\\', "\\\\"))
    } else {
        format!("'{quoted}'")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_texts_cannot_break_out() {
        assert_eq!(identifier("a\"; DROP"), "\"a\"\"; DROP\"");
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal("a\\'b"), " E'a\\\\''b'");
    }
}
