//! A session with a Postgres server: one connection, every wait under a deadline.
//!
//! Owns connecting and asking, to the local server and to the leader's. After an error a session
//! may be useless: `is_usable` tells. Passwords are never part of an error or a log.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dcs::SystemId;
use tokio::task::JoinSet;
use tokio_postgres::config::ChannelBinding;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Config, NoTls, Row, SimpleQueryMessage, Statement};

use super::Target;
use super::tls::{self, Attempts};

/// A question that was not answered.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// No session could be opened.
    #[error("no connection to Postgres at {place}: {reason}")]
    Connect {
        /// Host and port.
        place: String,
        /// Why, in the server's or the system's words.
        reason: String,
        /// The server's error code, if it was the server that refused.
        code: Option<String>,
    },
    /// The server refused the statement.
    #[error("Postgres refused: {reason}")]
    Refused {
        /// The server's message.
        reason: String,
        /// Its SQLSTATE.
        code: String,
    },
    /// The connection broke.
    #[error("the connection to Postgres broke: {0}")]
    Broken(String),
    /// No answer in time. The statement may still be running, and may have succeeded.
    #[error("Postgres did not answer within {0:?}")]
    TimedOut(Duration),
    /// The answer was not of the expected form.
    #[error("Postgres answered without a usable {0}")]
    Answer(&'static str),
}

impl QueryError {
    /// The SQLSTATE, when the server itself refused.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Refused { code, .. } => Some(code),
            Self::Connect { code, .. } => code.as_deref(),
            _ => None,
        }
    }

    fn from(error: &tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(refusal) => {
                Self::Refused { reason: refusal.message().to_owned(), code: refusal.code().code().to_owned() }
            }
            None => Self::Broken(cause(error)),
        }
    }
}

/// The innermost reason of an error; the outer ones of this library only say "connection error".
fn cause(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// What a session is for.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// How long connecting, and each question, may take.
    pub deadline: Duration,
    /// The server's `statement_timeout`; zero for none.
    pub statement_timeout: Duration,
}

impl Default for Terms {
    fn default() -> Self {
        Self { deadline: Duration::from_secs(3), statement_timeout: Duration::from_secs(2) }
    }
}

/// One connection to one server.
pub struct Session {
    client: Client,
    /// Drives the connection; aborted when the session is dropped.
    _driver: JoinSet<()>,
    deadline: Duration,
    broken: AtomicBool,
    version: u32,
    system_id: SystemId,
    /// Seconds since the epoch at which the postmaster started.
    postmaster_start: f64,
    hba_file: Option<String>,
    looking: tokio::sync::OnceCell<Statement>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Session(version {}, usable {})", self.version, self.is_usable())
    }
}

impl Session {
    /// Connects, and learns what does not change while the session lives.
    pub async fn open(target: &Target, terms: Terms) -> Result<Self, QueryError> {
        let place = format!("{}:{}", target.host, target.port);
        let opened = async {
            let mut driver = JoinSet::new();
            let client =
                connect_to(target, terms, &mut driver).await.map_err(|error| error.at(place.clone()))?;
            let first = client.query_one(FIRST, &[]).await.map_err(|error| QueryError::from(&error))?;
            let version = u32::try_from(first.get::<_, i32>(0)).unwrap_or_default();
            Ok(Self {
                client,
                _driver: driver,
                deadline: terms.deadline,
                broken: AtomicBool::new(false),
                version,
                // Postgres shows the unsigned identifier as a signed number.
                system_id: SystemId(first.get::<_, i64>(1).cast_unsigned()),
                postmaster_start: first.get(2),
                hba_file: first.get(3),
                looking: tokio::sync::OnceCell::new(),
            })
        };
        match tokio::time::timeout(terms.deadline, opened).await {
            Ok(opened) => opened,
            Err(_) => Err(QueryError::Connect {
                place,
                reason: format!("no answer within {:?}", terms.deadline),
                code: None,
            }),
        }
    }

    /// Whether further questions can be answered: the connection stands and no question hangs in it.
    pub fn is_usable(&self) -> bool {
        !self.client.is_closed() && !self.broken.load(Ordering::Relaxed)
    }

    /// `server_version_num`.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The identity of the database cluster behind this session.
    pub fn system_id(&self) -> SystemId {
        self.system_id
    }

    /// When the postmaster behind this session started, in seconds since the epoch.
    pub fn postmaster_start(&self) -> f64 {
        self.postmaster_start
    }

    /// The file of host-based authentication that the server was started with; only who may see it is told.
    pub fn hba_file(&self) -> Option<&str> {
        self.hba_file.as_deref()
    }

    /// Whether the server is in recovery, that is read-only.
    pub async fn is_in_recovery(&self) -> Result<bool, QueryError> {
        let rows = self.simple("SELECT pg_catalog.pg_is_in_recovery()").await?;
        rows.first()
            .and_then(|row| row.first().cloned().flatten())
            .map(|value| value == "t")
            .ok_or(QueryError::Answer("state"))
    }

    /// Writes a checkpoint. The deadline is the caller's: it can take minutes.
    pub async fn checkpoint(&self, deadline: Duration) -> Result<(), QueryError> {
        // One message would be one transaction, and a checkpoint cannot be in one.
        self.simple("SET statement_timeout = 0").await?;
        let done = self.simple_within("CHECKPOINT", deadline).await;
        self.simple("RESET statement_timeout").await?;
        done.map(drop)
    }

    /// Runs statements without parameters and returns their rows as text.
    pub async fn simple(&self, sql: &str) -> Result<Vec<Vec<Option<String>>>, QueryError> {
        self.simple_within(sql, self.deadline).await
    }

    /// As `simple`, with a deadline of its own.
    pub async fn simple_within(
        &self,
        sql: &str,
        deadline: Duration,
    ) -> Result<Vec<Vec<Option<String>>>, QueryError> {
        let messages = self.within(deadline, self.client.simple_query(sql)).await?;
        let texts = |row: &tokio_postgres::SimpleQueryRow| {
            (0..row.len()).map(|at| row.try_get(at).ok().flatten().map(str::to_owned)).collect()
        };
        Ok(messages
            .iter()
            .filter_map(|message| match message {
                SimpleQueryMessage::Row(row) => Some(texts(row)),
                _ => None,
            })
            .collect())
    }

    /// Asks with parameters.
    pub async fn query(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, QueryError> {
        self.within(self.deadline, self.client.query(sql, values)).await
    }

    pub(super) async fn look_row(&self) -> Result<Row, QueryError> {
        let sql = super::look::statement(self.version);
        let ask = async {
            let statement = self.looking.get_or_try_init(|| self.client.prepare(&sql)).await?;
            self.client.query_one(statement, &[]).await
        };
        self.within(self.deadline, ask).await
    }

    async fn within<T>(
        &self,
        deadline: Duration,
        work: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, QueryError> {
        match tokio::time::timeout(deadline, work).await {
            Ok(answer) => answer.map_err(|error| QueryError::from(&error)),
            Err(_) => {
                // The question still occupies the connection: the next one would wait behind it.
                self.broken.store(true, Ordering::Relaxed);
                Err(QueryError::TimedOut(deadline))
            }
        }
    }
}

const FIRST: &str = "SELECT pg_catalog.current_setting('server_version_num')::pg_catalog.int4, \
     (SELECT system_identifier FROM pg_catalog.pg_control_system()), \
     pg_catalog.date_part('epoch', pg_catalog.pg_postmaster_start_time()), \
     (SELECT setting FROM pg_catalog.pg_settings WHERE name = 'hba_file')";

fn config(target: &Target, terms: Terms) -> Config {
    let mut config = Config::new();
    config.port(target.port).dbname(&target.database).application_name("matriarch");
    if target.host.starts_with('/') {
        config.host_path(&target.host);
    } else {
        config.host(&target.host).connect_timeout(terms.deadline);
    }
    if !target.login.user.is_empty() {
        config.user(&target.login.user);
    }
    if let Some(password) = &target.login.password {
        config.password(password.reveal());
    }
    config.channel_binding(match target.login.options.get("channel_binding").map(String::as_str) {
        Some("require") => ChannelBinding::Require,
        Some("disable") => ChannelBinding::Disable,
        _ => ChannelBinding::Prefer,
    });
    let timeout = terms.statement_timeout.as_millis();
    config.options(format!(
        "-c search_path=pg_catalog -c statement_timeout={timeout} -c synchronous_commit=local \
         -c lock_timeout={timeout}"
    ));
    config
}

/// Connects as `sslmode` says, one attempt after the other.
async fn connect_to(target: &Target, terms: Terms, driver: &mut JoinSet<()>) -> Result<Client, ConnectError> {
    let (mut config, options) = (config(target, terms), &target.login.options);
    let attempts = tls::attempts(&target.host, options);
    let order: &[bool] = match attempts {
        Attempts::Plain => &[false],
        Attempts::PlainFirst => &[false, true],
        Attempts::TlsFirst => &[true, false],
        Attempts::Tls => &[true],
    };
    let mut refused = None;
    for encrypted in order.iter().copied() {
        config.ssl_mode(tls::mode(encrypted, attempts));
        let outcome = if encrypted {
            let connected = config.connect(tls::connector(options)?).await;
            connected.map(|(client, connection)| (client, drive(driver, connection)))
        } else {
            let connected = config.connect(NoTls).await;
            connected.map(|(client, connection)| (client, drive(driver, connection)))
        };
        match outcome {
            Ok((client, ())) => return Ok(client),
            // Only a server that answered, but not to this, may like the other way better.
            Err(error) if error.code() == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION) => {
                // The first refusal is what the operator asked for; keep it if the second way fails too.
                refused.get_or_insert(error);
            }
            Err(error) if encrypted && attempts == Attempts::TlsFirst && error.as_db_error().is_none() => {
                refused.get_or_insert(error);
            }
            Err(error) => return Err(refused.unwrap_or(error).into()),
        }
    }
    refused.map_or(Err(ConnectError::Nothing), |error| Err(error.into()))
}

/// Lets a connection be driven until the session is dropped. Its end is noticed by `is_closed`; the
/// error itself reaches whoever asks next.
fn drive<S>(driver: &mut JoinSet<()>, connection: tokio_postgres::Connection<tokio_postgres::Socket, S>)
where
    S: tokio_postgres::tls::TlsStream + Unpin + Send + 'static,
{
    driver.spawn(async move {
        _ = connection.await;
    });
}

/// Why there is no connection.
enum ConnectError {
    Postgres(tokio_postgres::Error),
    Tls(api::tls::TlsError),
    Nothing,
}

impl From<tokio_postgres::Error> for ConnectError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Postgres(error)
    }
}

impl From<api::tls::TlsError> for ConnectError {
    fn from(error: api::tls::TlsError) -> Self {
        Self::Tls(error)
    }
}

impl ConnectError {
    fn at(self, place: String) -> QueryError {
        let (reason, code) = match self {
            Self::Postgres(error) => {
                let refusal = error.as_db_error().map(|refusal| refusal.message().to_owned());
                (refusal.unwrap_or_else(|| cause(&error)), error.code().map(|code| code.code().to_owned()))
            }
            Self::Tls(error) => (error.to_string(), None),
            Self::Nothing => ("no way to connect was tried".to_owned(), None),
        };
        QueryError::Connect { place, reason, code }
    }
}
