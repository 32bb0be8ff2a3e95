//! How to reach a server, in the three languages that need it: libpq's connection strings,
//! its password file, and the session's own settings. Text only, nothing is opened here.

use std::collections::BTreeMap;
use std::path::Path;

use config::Secret;

use super::files;

/// Who logs in, and with which TLS settings (`postgresql.authentication.*`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Login {
    /// The role; empty means the operating system's user.
    pub user: String,
    /// Its password.
    pub password: Option<Secret>,
    /// libpq's keywords as given: `sslmode`, `sslcert`, `sslrootcert`, `channel_binding` … (P134).
    pub options: BTreeMap<String, String>,
}

/// A server, a database in it, and who logs in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// A host name, an address, or the absolute path of a socket directory.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The database.
    pub database: String,
    /// Who logs in.
    pub login: Login,
}

/// A connection string of libpq, as keywords and values.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Conninfo(BTreeMap<String, String>);

/// The order in which keywords are written (patroni-compat 3.5), with the first version of
/// Postgres that knows them.
const KEYWORDS: [(&str, u32); 20] = [
    ("dbname", 0),
    ("user", 0),
    ("passfile", 0),
    ("password", 0),
    ("host", 0),
    ("port", 0),
    ("sslmode", 0),
    ("sslcompression", 0),
    ("sslcert", 0),
    ("sslkey", 0),
    ("sslpassword", 130_000),
    ("sslrootcert", 0),
    ("sslcrl", 0),
    ("sslcrldir", 140_000),
    ("application_name", 0),
    ("krbsrvname", 0),
    ("gssencmode", 120_000),
    ("channel_binding", 130_000),
    ("target_session_attrs", 100_000),
    ("sslnegotiation", 170_000),
];

impl Conninfo {
    /// The string that reaches `target`, without its password: that goes through a file (`passfile`).
    pub fn to(target: &Target, passfile: Option<&Path>) -> Self {
        let mut words = target.login.options.clone();
        words.insert("dbname".into(), target.database.clone());
        words.insert("host".into(), target.host.clone());
        words.insert("port".into(), target.port.to_string());
        if !target.login.user.is_empty() {
            words.insert("user".into(), target.login.user.clone());
        }
        if let (Some(file), Some(_)) = (passfile, &target.login.password) {
            words.insert("passfile".into(), file.display().to_string());
        }
        Self(words)
    }

    /// Patroni's `primary_conninfo` towards `target` for the member `name`: its defaults for TLS
    /// and Kerberos added where the login says nothing.
    pub fn primary(target: &Target, name: &str, passfile: Option<&Path>, krbsrvname: Option<&str>) -> Self {
        let mut info = Self::to(target, passfile).with("application_name", name);
        for (word, value) in [
            ("sslmode", "prefer"),
            ("gssencmode", "prefer"),
            ("channel_binding", "prefer"),
            ("sslnegotiation", "postgres"),
        ] {
            info.0.entry(word.to_owned()).or_insert_with(|| value.to_owned());
        }
        match krbsrvname {
            Some(service) => info.with("krbsrvname", service),
            None => info,
        }
    }

    /// Sets one keyword.
    pub fn with(mut self, word: &str, value: &str) -> Self {
        self.0.insert(word.to_owned(), value.to_owned());
        self
    }

    /// The value of one keyword.
    pub fn get(&self, word: &str) -> Option<&str> {
        self.0.get(word).map(String::as_str)
    }

    /// The text, with the keywords that this version of Postgres (`server_version_num`) knows.
    pub fn text(&self, version: u32) -> String {
        let known = KEYWORDS.iter().filter(|(_, since)| version >= *since);
        let words = known.filter_map(|(word, _)| {
            let value = self.0.get(*word).filter(|value| !value.is_empty())?;
            Some(format!("{word}={}", escape(value)))
        });
        words.collect::<Vec<_>>().join(" ")
    }

    /// Reads the text that Postgres shows, such as `primary_conninfo` of a running standby.
    /// `None` if it is not in keyword form.
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = BTreeMap::new();
        let mut rest = text.trim_start();
        while !rest.is_empty() {
            let (word, after) = rest.split_once('=')?;
            let (value, after) = take_value(after.trim_start())?;
            words.insert(word.trim().to_owned(), value);
            rest = after.trim_start();
        }
        Some(Self(words))
    }
}

/// Splits the first value, quoted or not, from what follows it.
fn take_value(text: &str) -> Option<(String, &str)> {
    let (quoted, body) = match text.strip_prefix('\'') {
        Some(body) => (true, body),
        None => (false, text),
    };
    let mut value = String::new();
    let mut chars = body.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '\\' => value.push(chars.next()?.1),
            '\'' if quoted => return Some((value, body.get(at + 1..)?)),
            ' ' if !quoted => return Some((value, body.get(at..)?)),
            _ => value.push(char),
        }
    }
    (!quoted).then_some((value, ""))
}

fn escape(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for char in value.chars() {
        if matches!(char, '\'' | '\\' | ' ') {
            escaped.push('\\');
        }
        escaped.push(char);
    }
    escaped
}

/// The lines of a password file that let `target` be reached, one per host, and one for
/// `localhost` where the host is a socket's directory (P133). Empty without a password.
pub fn pgpass_lines(target: &Target) -> String {
    let Some(password) = &target.login.password else { return String::new() };
    let escape = |text: &str| text.replace('\\', "\\\\").replace(':', "\\:");
    let mut hosts: Vec<&str> =
        target.host.split(',').map(str::trim).filter(|host| !host.is_empty()).collect();
    if hosts.is_empty() {
        hosts.push("*");
    }
    if hosts.iter().any(|host| host.starts_with('/')) && !hosts.contains(&"localhost") {
        hosts.push("localhost");
    }
    let user = if target.login.user.is_empty() { "*".to_owned() } else { escape(&target.login.user) };
    let line =
        |host: &&str| format!("{}:{}:*:{user}:{}\n", escape(host), target.port, escape(password.reveal()));
    hosts.iter().map(line).collect()
}

/// Writes the password file for these targets, readable by its owner only. Returns whether
/// there was anything to write.
pub fn write_pgpass(path: &Path, targets: &[&Target]) -> std::io::Result<bool> {
    let lines: String = targets.iter().map(|target| pgpass_lines(target)).collect();
    if lines.is_empty() {
        return Ok(false);
    }
    files::replace_if_changed(path, lines.as_bytes(), 0o600)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(host: &str) -> Target {
        let login = Login {
            user: "replicator".into(),
            password: Some(Secret::new("p:a\\s".into())),
            ..Login::default()
        };
        Target { host: host.into(), port: 30542, database: "postgres".into(), login }
    }

    /// The text captured from Patroni (patroni-compat 3.5), P134, P135.
    #[test]
    fn primary_conninfo_is_patronis() {
        let info = Conninfo::primary(&target("127.0.0.1"), "node3", Some(Path::new("/x/pgpass")), None);
        assert_eq!(
            info.text(150_000),
            "dbname=postgres user=replicator passfile=/x/pgpass host=127.0.0.1 port=30542 sslmode=prefer \
             application_name=node3 gssencmode=prefer channel_binding=prefer"
        );
        assert!(info.text(170_000).ends_with("sslnegotiation=postgres"));
        let mut with_tls = target("h");
        with_tls.login.options = BTreeMap::from([
            ("sslmode".into(), "verify-ca".into()),
            ("sslrootcert".into(), "/a b/ca".into()),
        ]);
        let text = Conninfo::primary(&with_tls, "n", None, Some("pg")).text(150_000);
        assert!(
            text.contains("sslmode=verify-ca sslrootcert=/a\\ b/ca application_name=n krbsrvname=pg"),
            "{text}"
        );
        assert!(!text.contains("password"), "{text}");
    }

    #[test]
    fn what_is_written_is_read_back() {
        let info = Conninfo::to(&target("/run/it's here"), None).with("application_name", "a\\b");
        assert_eq!(Conninfo::parse(&info.text(150_000)), Some(info));
        let quoted = Conninfo::parse("host='a b'  port = 5432 user='it\\'s' dbname=''").unwrap();
        assert_eq!((quoted.get("host"), quoted.get("user")), (Some("a b"), Some("it's")));
        assert_eq!((quoted.get("port"), quoted.get("dbname")), (Some("5432"), Some("")));
        assert_eq!(Conninfo::parse("host='open"), None);
    }

    /// P133.
    #[test]
    fn the_password_file_has_one_line_per_host_and_is_private() {
        assert_eq!(
            pgpass_lines(&target("a, b")),
            "a:30542:*:replicator:p\\:a\\\\s\nb:30542:*:replicator:p\\:a\\\\s\n"
        );
        assert!(pgpass_lines(&target("/run/pg")).contains("\nlocalhost:30542:*:"));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pgpass");
        assert!(write_pgpass(&path, &[&target("a")]).unwrap());
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
