//! `query`: runs SQL on a member's Postgres and prints the rows.

use std::time::Duration;

use anyhow::{Context, bail};
use api::tls::{ClientFiles, VerifyServer};
use serde_json::Value;
use tokio_postgres::config::SslMode;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::args::{Query, Role};
use crate::ask::{self, say};
use crate::output::{Cell, Sheet};
use crate::reach::Reach;
use crate::select;

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(5);

/// Runs the SQL, once or again and again.
///
/// # Errors
/// If there is no such member, or Postgres refuses.
pub async fn query(reach: &Reach, wanted: &Query) -> anyhow::Result<()> {
    let sql = match (&wanted.command, &wanted.file) {
        (Some(sql), _) => sql.clone(),
        (None, Some(file)) => {
            std::fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))?
        }
        (None, None) => bail!("You need to specify either --command or --file"),
    };
    let password = match wanted.password {
        true => Some(ask::password()?),
        false => variable("PGPASSWORD"),
    };
    let interval = wanted.watch.interval()?;
    let client = Session::open(reach, wanted, password.as_deref()).await?;
    loop {
        let sheet = client.run(&sql).await?;
        if !sheet.columns.is_empty() {
            say(sheet.write(wanted.format, &wanted.delimiter))?;
        }
        let Some(interval) = interval else { return Ok(()) };
        tokio::time::sleep(interval).await;
    }
}

struct Session {
    client: Client,
    member: String,
    // Dropped with the session, which ends the connection.
    _connection: tokio::task::JoinSet<()>,
}

impl Session {
    async fn open(reach: &Reach, wanted: &Query, password: Option<&str>) -> anyhow::Result<Self> {
        let seen = reach.look().await?;
        let role = wanted.whom.role;
        let member = select::one(&seen.roster, reach.cluster(), role, wanted.whom.member.as_deref())?;
        let Some(host) = &member.host else {
            bail!("{} publishes no address of its Postgres yet: look at its log", member.name);
        };
        let user = wanted.username.clone().or_else(|| variable("PGUSER")).or_else(|| variable("USER"));
        let user = user.unwrap_or_else(|| "postgres".to_owned());
        let mut settings = tokio_postgres::Config::new();
        settings
            .host(host)
            .port(member.port.unwrap_or(5432))
            .user(&user)
            .dbname(wanted.dbname.clone().or_else(|| variable("PGDATABASE")).unwrap_or(user))
            .application_name("matriarchctl")
            .connect_timeout(CONNECT);
        let (mode, files) = tls(variable("PGSSLMODE").as_deref())?;
        settings.ssl_mode(mode);
        let tls = MakeRustlsConnect::new(api::tls::client(&files)?);
        if let Some(password) = password {
            settings.password(password);
        }
        let failed = || format!("No connection to member {} is available", member.name);
        let (client, connection) = settings.connect(tls).await.map_err(told).with_context(failed)?;
        let mut task = tokio::task::JoinSet::new();
        task.spawn(async move {
            // The client's own calls report what ends the connection.
            let _ = connection.await;
        });
        let session = Self { client, member: member.name.clone(), _connection: task };
        session.check_role(role).await?;
        Ok(session)
    }

    /// The store may be behind: Postgres itself says whether it is what was asked for.
    async fn check_role(&self, role: Option<Role>) -> anyhow::Result<()> {
        let wants_recovery = match role {
            None | Some(Role::Any | Role::Leader) => return Ok(()),
            Some(Role::Primary) => false,
            Some(Role::Replica | Role::Standby | Role::StandbyLeader) => true,
        };
        let row = self.client.query_one("SELECT pg_catalog.pg_is_in_recovery()", &[]).await.map_err(told)?;
        let recovers: bool = row.try_get(0).map_err(told)?;
        if recovers == wants_recovery {
            return Ok(());
        }
        let is = if recovers { "still a standby" } else { "no standby any more" };
        bail!("{} is {is}: the cluster is changing its leader, try again in a moment", self.member)
    }

    async fn run(&self, sql: &str) -> anyhow::Result<Sheet> {
        // Types are known of a single statement only; of several, the last one's rows are shown as text.
        let types: Vec<Type> = match self.client.prepare(sql).await {
            Ok(statement) => statement.columns().iter().map(|column| column.type_().clone()).collect(),
            Err(_) => Vec::new(),
        };
        let mut sheet = Sheet::default();
        let answers = self.client.simple_query(sql).await.map_err(told);
        for answer in answers.with_context(|| format!("{} refused the SQL", self.member))? {
            match answer {
                SimpleQueryMessage::RowDescription(columns) => {
                    sheet.columns = columns.iter().map(|column| column.name().to_owned()).collect();
                    sheet.rows.clear();
                }
                SimpleQueryMessage::Row(row) => {
                    let cell = |index: usize| match row.try_get(index) {
                        Ok(Some(text)) => cell(text, types.get(index)),
                        _ => Cell::Tree(Value::Null),
                    };
                    sheet.rows.push((0..row.len()).map(cell).collect());
                }
                _ => {}
            }
        }
        Ok(sheet)
    }
}

/// How the connection is encrypted, in libpq's words; without one, if the server can.
fn tls(mode: Option<&str>) -> anyhow::Result<(SslMode, ClientFiles)> {
    let (mode, verify) = match mode {
        Some("disable") => (SslMode::Disable, VerifyServer::Nothing),
        None | Some("allow" | "prefer") => (SslMode::Prefer, VerifyServer::Nothing),
        Some("require") => (SslMode::Require, VerifyServer::Nothing),
        Some("verify-ca") => (SslMode::Require, VerifyServer::Chain),
        Some("verify-full") => (SslMode::Require, VerifyServer::Name),
        Some(other) => {
            bail!("PGSSLMODE is {other:?}: write disable, prefer, require, verify-ca or verify-full")
        }
    };
    let cacert = variable("PGSSLROOTCERT").map(Into::into);
    let certfile = variable("PGSSLCERT").map(|cert| (cert.into(), variable("PGSSLKEY").map(Into::into)));
    Ok((mode, ClientFiles { cacert, certfile, verify }))
}

fn cell(text: &str, kind: Option<&Type>) -> Cell {
    match kind {
        Some(&Type::BOOL) => Cell::Tree(Value::Bool(text == "t")),
        Some(&(Type::INT2 | Type::INT4 | Type::INT8 | Type::OID)) => {
            text.parse().map_or_else(|_| Cell::Text(text.to_owned()), Cell::Number)
        }
        Some(&(Type::FLOAT4 | Type::FLOAT8)) => serde_json::from_str::<serde_json::Number>(text)
            .map_or_else(|_| Cell::Text(text.to_owned()), |number| Cell::Tree(Value::Number(number))),
        Some(&(Type::JSON | Type::JSONB)) => {
            serde_json::from_str(text).map_or_else(|_| Cell::Text(text.to_owned()), Cell::Tree)
        }
        _ => Cell::Text(text.to_owned()),
    }
}

/// What Postgres said, with its code, in one line.
fn told(error: tokio_postgres::Error) -> anyhow::Error {
    match error.as_db_error() {
        Some(answer) => anyhow::anyhow!("{} (SQLSTATE {})", answer.message(), answer.code().code()),
        None => anyhow::Error::new(error),
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
