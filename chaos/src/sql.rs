//! One connection to one Postgres, with limits on everything.
//!
//! Never retries and never chooses a server: callers say where, and see what happened.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use tokio::task::JoinSet;
use tokio_postgres::{AsyncMessage, Client, NoTls, SimpleQueryMessage};

use crate::spec::SUPERUSER_PASSWORD;

/// An open session; dropping it closes the connection.
#[derive(Debug)]
pub struct Session {
    /// The connection's client side.
    pub client: Client,
    warned: Arc<AtomicBool>,
    _driver: JoinSet<()>,
}

impl Session {
    /// Connects as the superuser to the database `postgres`.
    ///
    /// # Errors
    /// When the server refuses or does not answer within `limit`.
    pub async fn open(server: SocketAddr, limit: Duration) -> anyhow::Result<Self> {
        let mut config = tokio_postgres::Config::new();
        config.host(server.ip().to_string()).port(server.port()).user("postgres").dbname("postgres");
        config.password(SUPERUSER_PASSWORD).application_name("matriarch-chaos").tcp_user_timeout(limit);
        let connected = tokio::time::timeout(limit, config.connect(NoTls)).await;
        let connected = connected.with_context(|| format!("{server} did not answer within {limit:?}"))?;
        let (client, mut connection) = connected.with_context(|| format!("connect to {server}"))?;
        let warned = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&warned);
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            while let Some(Ok(message)) = std::future::poll_fn(|cx| connection.poll_message(cx)).await {
                if let AsyncMessage::Notice(notice) = message
                    && notice.code().code().starts_with("01")
                {
                    flag.store(true, Ordering::SeqCst);
                }
            }
        });
        Ok(Self { client, warned, _driver: driver })
    }

    /// Whether the server has warned since the last time this was asked. A commit that was not waited for
    /// (cancelled synchronous replication) is reported as a warning only.
    #[must_use]
    pub fn take_warning(&self) -> bool {
        self.warned.swap(false, Ordering::SeqCst)
    }

    /// Runs statements and returns every row as text; NULL becomes an empty string.
    ///
    /// # Errors
    /// When a statement fails or takes longer than `limit`.
    pub async fn rows(&self, sql: &str, limit: Duration) -> anyhow::Result<Vec<Vec<String>>> {
        let answered = tokio::time::timeout(limit, self.client.simple_query(sql)).await;
        let answered = answered.with_context(|| format!("{sql:?} took longer than {limit:?}"))?;
        let messages = answered.with_context(|| format!("run {sql:?}"))?;
        let rows = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                let cells = (0..row.len()).map(|n| row.get(n).unwrap_or_default().to_owned());
                Some(cells.collect())
            }
            _ => None,
        });
        Ok(rows.collect())
    }
}
