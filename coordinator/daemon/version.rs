//! Which Postgres is installed.

use std::time::Duration;

use anyhow::Context as _;

use crate::command::Program;
use crate::postgres::Paths;

/// `server_version_num` of the installed `postgres`.
///
/// # Errors
/// If the program is missing or prints something else.
pub async fn of_programs(paths: &Paths) -> anyhow::Result<u32> {
    let program = paths.program("postgres");
    let output =
        Program::new(&program).arg("--version").succeed(Duration::from_secs(5)).await.with_context(|| {
            format!(
                "{} does not run: install PostgreSQL 13 or later, or set postgresql.bin_dir to where it is",
                program.display()
            )
        })?;
    parse(&output.text())
        .with_context(|| format!("{} --version printed {:?}", program.display(), output.text()))
}

/// Reads `postgres (PostgreSQL) 15.20 (Debian …)`; betas count as minor 0.
fn parse(text: &str) -> Option<u32> {
    let version = text.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    let digits =
        |part: &str| part.chars().take_while(char::is_ascii_digit).collect::<String>().parse::<u32>().ok();
    let (major, minor) = version.split_once('.').unwrap_or((version, "0"));
    Some(digits(major)? * 10_000 + digits(minor).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn versions_are_read() {
        assert_eq!(parse("postgres (PostgreSQL) 15.20 (Debian 15.20-0+deb12u1)\n"), Some(150_020));
        assert_eq!(parse("postgres (PostgreSQL) 18beta1"), Some(180_000));
        assert_eq!(parse("nonsense"), None);
    }
}
