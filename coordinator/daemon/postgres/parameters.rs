//! Parameters against the server that is really there: which of them it knows and takes, and
//! which of those it runs with differ from those it should run with.
//!
//! The rules come from the server itself, never from a table of versions. It changes nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Paths;
use super::query::{QueryError, Session};
use crate::command::{CommandError, Program};

/// How long the server's program may take to tell.
const DEADLINE: Duration = Duration::from_secs(10);

/// A parameter as the server's program describes it.
#[derive(Debug, Clone, PartialEq)]
struct Rule {
    is_number: bool,
    least: f64,
    most: f64,
}

/// What the installed server knows (`postgres --describe-config`).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Catalog(BTreeMap<String, Rule>);

impl Catalog {
    /// Asks the installed server.
    pub async fn read(paths: &Paths) -> Result<Self, CommandError> {
        let program = Program::new(paths.program("postgres")).arg("--describe-config").in_c_locale();
        Ok(Self::parse(&program.succeed(DEADLINE).await?.text()))
    }

    fn parse(text: &str) -> Self {
        let rule = |line: &str| {
            let fields: Vec<&str> = line.split('\t').collect();
            let number = |at: usize| fields.get(at).and_then(|text| text.parse().ok());
            let rule = Rule {
                is_number: matches!(fields.get(3), Some(&("INTEGER" | "REAL"))),
                least: number(5).unwrap_or(f64::MIN),
                most: number(6).unwrap_or(f64::MAX),
            };
            fields.first().map(|name| (name.to_lowercase(), rule))
        };
        Self(text.lines().filter_map(rule).collect())
    }

    /// Removes what the server does not know (P142) and brings numbers into its range (P143). Returns
    /// one sentence for each change.
    ///
    /// The catalog leaves some developers' parameters out, so each unknown name is asked for
    /// singly. Names with a dot belong to extensions and pass. Numbers with a unit pass too: the catalog does not tell units.
    pub async fn fit(
        &self,
        paths: &Paths,
        parameters: &mut BTreeMap<String, String>,
    ) -> Result<Vec<String>, CommandError> {
        let mut changes = Vec::new();
        for name in self.unlisted(parameters) {
            if !is_known(paths, &name).await? {
                parameters.remove(&name);
                changes.push(format!("this version of Postgres has no parameter {name}; it is left out"));
            }
        }
        for (name, value) in parameters.iter_mut() {
            if let Some(near) = self.clamped(name, value) {
                changes.push(format!("{name} cannot be {value} in this version of Postgres; {near} is used"));
                *value = near;
            }
        }
        Ok(changes)
    }

    fn unlisted(&self, parameters: &BTreeMap<String, String>) -> Vec<String> {
        let unlisted = parameters.keys().filter(|name| !name.contains('.') && !self.0.contains_key(*name));
        unlisted.cloned().collect()
    }

    fn clamped(&self, name: &str, value: &str) -> Option<String> {
        let rule = self.0.get(name).filter(|rule| rule.is_number)?;
        let number: f64 = value.trim().parse().ok()?;
        // Zero and minus one often mean something of their own, and are then within the range.
        let near = number.clamp(rule.least, rule.most);
        (near != number).then(|| near.to_string())
    }
}

/// Whether the server knows a parameter. It needs a data directory to tell; without one it is believed.
async fn is_known(paths: &Paths, name: &str) -> Result<bool, CommandError> {
    let ask = Program::new(paths.program("postgres"))
        .args(["-C", name])
        .arg("-D")
        .arg(&paths.data_dir)
        .arg(format!("--config-file={}", paths.conf().display()))
        .in_c_locale();
    let answer = ask.run(DEADLINE).await?;
    Ok(!answer.errors().contains("unrecognized configuration parameter"))
}

/// A parameter that waits for a restart: the value in force, and the one that will be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// As the server shows it.
    pub old: String,
    /// As it was asked for.
    pub new: String,
}

/// Which parameters wait for a restart (P150): those that only a start reads and whose value in force is not the wanted
/// one, and those that the server itself says so of.
///
/// The server cannot tell alone: what is on its command line hides what the files say. What only steers recovery
/// is left out: it is gone from the files after a promotion and means nothing to a primary.
pub async fn pending_restart(
    session: &Session,
    wanted: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, Waiting>, QueryError> {
    let rows = session
        .simple(
            "SELECT lower(name), setting, unit, vartype, current_setting(name), pending_restart \
             FROM pg_settings WHERE context = 'postmaster' \
             AND name NOT LIKE 'recovery\\_target%' \
             AND name NOT IN ('restore_command', 'primary_conninfo', 'primary_slot_name')",
        )
        .await?;
    let mut waiting = BTreeMap::new();
    for row in rows {
        let field = |at: usize| row.get(at).cloned().flatten().unwrap_or_default();
        let (name, setting, unit, kind, shown) = (field(0), field(1), field(2), field(3), field(4));
        let Some(new) = wanted.get(&name) else {
            if field(5) == "t" {
                waiting.insert(name, Waiting { old: shown, new: "(see the configuration files)".into() });
            }
            continue;
        };
        // It prints its addresses and paths as it was given them.
        if !is_same(&kind, &unit, &setting, new) {
            waiting.insert(name, Waiting { old: shown, new: new.clone() });
        }
    }
    Ok(waiting)
}

/// Whether a written value means the value in force, which is in `unit`.
fn is_same(kind: &str, unit: &str, in_force: &str, written: &str) -> bool {
    let written = written.trim();
    match kind {
        "bool" => match (truth(in_force), truth(written)) {
            (Some(a), Some(b)) => a == b,
            _ => false,
        },
        "integer" | "real" => match (in_force.parse::<f64>(), in_unit(written, unit)) {
            (Ok(a), Some(b)) if kind == "integer" => a == b.round(),
            (Ok(a), Some(b)) => (a - b).abs() < 1e-9,
            _ => false,
        },
        "enum" => in_force.eq_ignore_ascii_case(written),
        _ => in_force == written,
    }
}

fn truth(text: &str) -> Option<bool> {
    match text.to_lowercase().as_str() {
        "on" | "true" | "yes" | "1" | "t" | "y" => Some(true),
        "off" | "false" | "no" | "0" | "f" | "n" => Some(false),
        _ => None,
    }
}

/// A number with or without a unit, in another unit (`8kB` and such are units as well).
fn in_unit(text: &str, unit: &str) -> Option<f64> {
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, given) = (text.get(..split)?.trim(), text.get(split..)?.trim());
    let number = match number.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).ok().map(f64::from)?,
        None => number.parse::<f64>().ok()?,
    };
    if given.is_empty() {
        return Some(number);
    }
    let factor = unit.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(0);
    let blocks = unit.get(..factor)?.parse::<f64>().unwrap_or(1.0);
    Some(number * base(given)? / (blocks * base(unit.get(factor..)?)?))
}

/// A unit in bytes or microseconds (the two never meet: no parameter has both).
fn base(unit: &str) -> Option<f64> {
    Some(match unit {
        "B" | "us" => 1.0,
        "kB" => 1024.0,
        "MB" => 1024.0 * 1024.0,
        "GB" => 1024.0 * 1024.0 * 1024.0,
        "TB" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        "ms" => 1e3,
        "s" => 1e6,
        "min" => 60e6,
        "h" => 3600e6,
        "d" => 86_400e6,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DESCRIBED: &str = "autovacuum_naptime\tsighup\tAutovacuum\tINTEGER\t0\t1\t2147483\tTime\t\n\
        max_connections\tpostmaster\tx\tINTEGER\t0\t1\t262143\tSets\t\njit\tuser\tx\tBOOLEAN\tFALSE\t\t\tAllow\t\n";

    /// P143.
    #[test]
    fn numbers_are_brought_into_the_servers_range() {
        let catalog = Catalog::parse(DESCRIBED);
        assert_eq!(catalog.clamped("autovacuum_naptime", "0").as_deref(), Some("1"));
        assert_eq!(catalog.clamped("max_connections", "1000000").as_deref(), Some("262143"));
        assert_eq!(catalog.clamped("autovacuum_naptime", "10min"), None);
        assert_eq!(catalog.clamped("jit", "2"), None);
        let given = ["jit", "no_such_thing", "my.extension"].map(|name| (name.to_owned(), "1".to_owned()));
        assert_eq!(catalog.unlisted(&BTreeMap::from(given)), ["no_such_thing"]);
    }

    #[test]
    fn values_are_compared_as_the_server_means_them() {
        assert!(is_same("integer", "8kB", "16384", "128MB"));
        assert!(!is_same("integer", "8kB", "16384", "256MB"));
        assert!(is_same("integer", "8kB", "2048", "2048"));
        assert!(is_same("integer", "", "100", " 100 "));
        assert!(is_same("integer", "s", "300", "5min"));
        assert!(is_same("integer", "ms", "1000", "1s"));
        assert!(is_same("bool", "", "on", "TRUE") && !is_same("bool", "", "on", "off"));
        assert!(is_same("enum", "", "replica", "Replica"));
        assert!(is_same("string", "", "a, b", "a, b") && !is_same("string", "", "a", "b"));
        assert!(!is_same("integer", "kB", "4", "four"));
    }
}
