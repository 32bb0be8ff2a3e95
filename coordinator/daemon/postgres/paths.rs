//! Where the local Postgres has its programs and files. Plain names, nothing is opened here.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Where everything of one instance is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// `postgresql.data_dir`, absolute, without a trailing slash.
    pub data_dir: PathBuf,
    /// `postgresql.bin_dir`; without it programs are found in `PATH`.
    pub bin_dir: Option<PathBuf>,
    /// `postgresql.bin_name`: a program's own name → the name to use (P132).
    pub bin_names: BTreeMap<String, String>,
    /// `postgresql.config_dir`; without it the data directory (P131).
    pub config_dir: Option<PathBuf>,
    /// `postgresql.config_base_name`, normally `postgresql`.
    pub config_base_name: String,
    /// `postgresql.pgpass`: where passwords for Postgres's own programs are written (P133).
    pub pgpass: PathBuf,
    /// Where the server's standard output and error go.
    pub log: PathBuf,
}

impl Paths {
    /// The defaults for a data directory: everything else beside it.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        // Components drop a trailing slash, which would put siblings inside the directory.
        let data_dir: PathBuf = data_dir.into().components().collect();
        Self {
            bin_dir: None,
            bin_names: BTreeMap::new(),
            config_dir: None,
            config_base_name: "postgresql".to_owned(),
            pgpass: beside(&data_dir, ".pgpass"),
            log: beside(&data_dir, ".log"),
            data_dir,
        }
    }

    /// A program of Postgres by its own name, such as `pg_rewind`.
    pub fn program(&self, name: &str) -> PathBuf {
        let name = self.bin_names.get(name).map_or(name, String::as_str);
        match &self.bin_dir {
            Some(dir) => dir.join(name),
            None => PathBuf::from(name),
        }
    }

    /// The file name by which the server's processes are recognised.
    pub fn server_name(&self) -> &str {
        self.bin_names.get("postgres").map_or("postgres", String::as_str)
    }

    /// The directory of the configuration files.
    pub fn config_dir(&self) -> &Path {
        self.config_dir.as_deref().unwrap_or(&self.data_dir)
    }

    /// The configuration file that the server is started with.
    pub fn conf(&self) -> PathBuf {
        self.config_dir().join(format!("{}.conf", self.config_base_name))
    }

    /// The configuration as it was before anybody managed it (P144).
    pub fn base_conf(&self) -> PathBuf {
        self.config_dir().join(self.base_conf_name())
    }

    /// The name under which `base_conf` is included.
    pub fn base_conf_name(&self) -> String {
        format!("{}.base.conf", self.config_base_name)
    }

    /// `pg_hba.conf`.
    pub fn hba(&self) -> PathBuf {
        self.config_dir().join("pg_hba.conf")
    }

    /// What takes the place of `pg_hba.conf` while clients are not let in.
    pub fn closed_hba(&self) -> PathBuf {
        self.beside(CLOSED_HBA)
    }

    /// `pg_ident.conf`.
    pub fn ident(&self) -> PathBuf {
        self.config_dir().join("pg_ident.conf")
    }

    /// The lock file of a running server.
    pub fn pid_file(&self) -> PathBuf {
        self.data_dir.join("postmaster.pid")
    }

    /// The file that makes a server start as a standby (Postgres 12 and later).
    pub fn standby_signal(&self) -> PathBuf {
        self.data_dir.join("standby.signal")
    }

    /// A path beside the data directory: its name with `suffix` appended.
    pub fn beside(&self, suffix: &str) -> PathBuf {
        beside(&self.data_dir, suffix)
    }
}

/// How the name of the file ends by which a server is known to let no clients in.
pub const CLOSED_HBA: &str = ".closed-hba";

fn beside(dir: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(dir);
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn siblings_are_beside_the_directory_even_with_a_trailing_slash() {
        assert_eq!(Paths::new("/srv/pg/").beside(".vault"), Path::new("/srv/pg.vault"));
    }

    /// P131, P132.
    #[test]
    fn programs_and_files_have_their_configured_places() {
        let mut paths = Paths::new("/srv/pg");
        paths.bin_dir = Some("/opt/bin".into());
        paths.bin_names.insert("postgres".into(), "postgres15".into());
        paths.config_dir = Some("/etc/pg".into());
        paths.config_base_name = "main".into();
        assert_eq!(paths.program("postgres"), Path::new("/opt/bin/postgres15"));
        assert_eq!(paths.program("initdb"), Path::new("/opt/bin/initdb"));
        assert_eq!(paths.conf(), Path::new("/etc/pg/main.conf"));
        assert_eq!(paths.base_conf(), Path::new("/etc/pg/main.base.conf"));
    }
}
