//! Installing what is missing through the machine's package manager, or saying the one line that does.
//!
//! Never installs silently: the command is printed before it runs.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::bail;

use crate::process;

/// Something this crate needs from the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// The Postgres server, 13 or newer.
    Postgres,
    /// The etcd server.
    Etcd,
    /// HAProxy.
    Haproxy,
    /// Python with venv, for Patroni.
    Python,
}

/// A package manager: how it installs, and its names for our needs in the order of [`Need`].
struct Packager {
    program: &'static str,
    refresh: &'static [&'static str],
    install: &'static [&'static str],
    names: [&'static str; 4],
}

const PACKAGERS: [Packager; 5] = [
    Packager {
        program: "apt-get",
        refresh: &["update", "-q"],
        install: &["install", "-q", "-y", "--no-install-recommends"],
        names: ["postgresql", "etcd-server", "haproxy", "python3-venv"],
    },
    Packager {
        program: "dnf",
        refresh: &["makecache", "-q"],
        install: &["install", "-q", "-y"],
        names: ["postgresql-server", "etcd", "haproxy", "python3"],
    },
    Packager {
        program: "zypper",
        refresh: &["--non-interactive", "refresh"],
        install: &["--non-interactive", "install"],
        names: ["postgresql-server", "etcd", "haproxy", "python3"],
    },
    Packager {
        program: "apk",
        refresh: &["update"],
        install: &["add"],
        names: ["postgresql", "etcd", "haproxy", "python3"],
    },
    Packager {
        program: "pacman",
        refresh: &["-Sy", "--noconfirm"],
        install: &["-S", "--noconfirm", "--needed"],
        names: ["postgresql", "etcd", "haproxy", "python"],
    },
];

impl Need {
    fn all() -> [Self; 4] {
        [Self::Postgres, Self::Etcd, Self::Haproxy, Self::Python]
    }

    fn in_words(self) -> &'static str {
        match self {
            Self::Postgres => "Postgres 13 or newer",
            Self::Etcd => "etcd",
            Self::Haproxy => "HAProxy",
            Self::Python => "Python 3 with venv",
        }
    }
}

impl Packager {
    fn packages(&self, needs: &[Need]) -> Vec<&'static str> {
        let pairs = Need::all().into_iter().zip(self.names);
        pairs.filter(|(need, _)| needs.contains(need)).map(|(_, name)| name).collect()
    }

    fn line(&self, needs: &[Need]) -> String {
        let Self { program, refresh, install, .. } = self;
        let packages = self.packages(needs).join(" ");
        format!("{program} {} && {program} {} {packages}", refresh.join(" "), install.join(" "))
    }
}

/// The file of a program, from PATH and the places where packages put servers.
#[must_use]
pub fn find(name: &str) -> Option<PathBuf> {
    find_all(name).into_iter().next()
}

/// Every file of that name, in the order in which [`find`] looks.
#[must_use]
pub fn find_all(name: &str) -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/usr/local/sbin", "/usr/local/bin", "/usr/bin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(usual)
        .map(|dir| dir.join(name))
        .filter(|file| file.is_file())
        .collect()
}

/// Installs what is missing, as root or through a sudo that asks nothing.
///
/// # Errors
/// When it may not or the package manager fails; the message is the line to run.
pub async fn install(needs: &[Need]) -> anyhow::Result<()> {
    let wanted: Vec<&str> = needs.iter().map(|need| need.in_words()).collect();
    let wanted = wanted.join(", ");
    let Some((packager, file)) = PACKAGERS.iter().find_map(|known| Some((known, find(known.program)?)))
    else {
        bail!("{wanted} not found, and no package manager I know: install it and run this again");
    };
    let root = rustix::process::geteuid().is_root();
    let sudo = if root { None } else { find("sudo") };
    let line = packager.line(needs);
    if !root && !sudo_asks_nothing(sudo.as_ref()).await {
        bail!("{wanted} not found. Run this as root, then try again:\n\n    {line}\n");
    }
    eprintln!("{wanted} not found: installing by\n    {line}");
    let packages = packager.packages(needs);
    for args in [packager.refresh.to_vec(), [packager.install, packages.as_slice()].concat()] {
        let mut command = match &sudo {
            Some(sudo) => {
                let mut command = Command::new(sudo);
                command.arg("-n").arg(&file);
                command
            }
            None => Command::new(&file),
        };
        command.args(&args).env("DEBIAN_FRONTEND", "noninteractive");
        if let Err(err) = process::run(command, Duration::from_secs(900)).await {
            return Err(
                err.context(format!("could not install {wanted}; run this and try again:\n\n    {line}\n"))
            );
        }
    }
    Ok(())
}

async fn sudo_asks_nothing(sudo: Option<&PathBuf>) -> bool {
    let Some(sudo) = sudo else { return false };
    let mut command = Command::new(sudo);
    command.args(["-n", "true"]);
    process::run(command, Duration::from_secs(10)).await.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_names_only_what_is_missing() {
        let line = PACKAGERS[0].line(&[Need::Etcd, Need::Postgres]);
        assert!(line.ends_with("install -q -y --no-install-recommends postgresql etcd-server"), "{line}");
    }

    #[test]
    fn finds_programs_that_exist_and_no_others() {
        assert!(find("sh").is_some());
        assert_eq!(find("no-such-program-of-matriarch"), None);
    }
}
