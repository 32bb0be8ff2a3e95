//! Physical replication slots of the local server: create, advance, drop (P257, P258). Which
//! ones there should be is decided elsewhere.

use dcs::Lsn;

use super::query::{QueryError, Session};

/// A slot of this name exists.
const EXISTS: &str = "42710";
/// No slot of this name exists.
const MISSING: &str = "42704";

/// Creates a physical slot that keeps WAL from now on. One that exists is left as it is.
pub async fn create(session: &Session, name: &str) -> Result<(), QueryError> {
    let done = session.query("SELECT pg_create_physical_replication_slot($1, true)", &[&name]).await;
    tolerate(done, EXISTS)
}

/// Moves a physical slot forward. It never moves back, nor beyond what this server has.
pub async fn advance(session: &Session, name: &str, to: Lsn) -> Result<(), QueryError> {
    let sql = "SELECT pg_replication_slot_advance(slot_name, $2::text::pg_lsn) FROM pg_replication_slots \
               WHERE slot_name = $1 AND slot_type = 'physical' AND NOT active AND restart_lsn < $2::text::pg_lsn";
    session.query(sql, &[&name, &to.to_string()]).await.map(drop)
}

/// Drops a slot that nobody uses. One that does not exist is no error.
pub async fn drop_slot(session: &Session, name: &str) -> Result<(), QueryError> {
    let done = session.query("SELECT pg_drop_replication_slot($1)", &[&name]).await;
    tolerate(done, MISSING)
}

fn tolerate<T>(done: Result<T, QueryError>, code: &str) -> Result<(), QueryError> {
    match done {
        Err(error) if error.code() == Some(code) => Ok(()),
        other => other.map(drop),
    }
}
