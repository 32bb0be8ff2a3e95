//! Finding, building and installing the programs that a cluster is made of.
//!
//! A missing tool is an error that says what to install, never a silent skip.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::sync::OnceCell;

use crate::packages::{self, Need};
use crate::process;
use crate::user::RunAs;

/// The version of Patroni that matriarch is compatible with.
const PATRONI: &str = "4.1.5";
/// The oldest Postgres that Patroni 4.1 and matriarch support without exceptions.
const OLDEST_POSTGRES: u32 = 13;
/// The workspace's binaries that nodes and people run.
const BINARIES: [&str; 3] = ["matriarch", "matriarchctl", "matriarch-fencer"];

/// Where every program is.
#[derive(Debug, Clone)]
pub struct Tools {
    /// Directory of `postgres`, `initdb`, `pg_basebackup` …
    pub postgres: PathBuf,
    /// HAProxy.
    pub haproxy: PathBuf,
    /// This crate's own binary, which also is the reaper and the load generator.
    pub chaos: PathBuf,
    /// Directory with the workspace's freshly built binaries.
    pub built: PathBuf,
}

static TOOLS: OnceCell<Tools> = OnceCell::const_new();
static PATRONI_FILE: OnceCell<PathBuf> = OnceCell::const_new();

/// Finds everything but etcd and Patroni, installing what is missing and building the workspace, once per process.
///
/// # Errors
/// When something is missing and cannot be installed, or the workspace does not build.
pub async fn tools() -> anyhow::Result<&'static Tools> {
    TOOLS.get_or_try_init(prepare).await
}

/// etcd's program; installed if it is missing.
///
/// # Errors
/// When it cannot be installed.
pub async fn etcd() -> anyhow::Result<PathBuf> {
    if packages::find("etcd").is_none() {
        packages::install(&[Need::Etcd]).await?;
    }
    packages::find("etcd").context("etcd is still missing after its installation")
}

/// Patroni's program: `MATRIARCH_PATRONI`, one on PATH, or one of our own installed from PyPI.
///
/// # Errors
/// When there is none of the right version and it cannot be installed.
pub async fn patroni() -> anyhow::Result<&'static Path> {
    PATRONI_FILE.get_or_try_init(find_patroni).await.map(PathBuf::as_path)
}

/// Copies the workspace's binaries to where the nodes' user can read and run them.
///
/// # Errors
/// When a binary is missing or cannot be copied.
pub fn copy_binaries(tools: &Tools, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to)?;
    for name in BINARIES {
        let file = tools.built.join(name);
        if file.is_file() {
            std::fs::copy(&file, to.join(name)).with_context(|| format!("copy {}", file.display()))?;
        }
    }
    Ok(())
}

async fn prepare() -> anyhow::Result<Tools> {
    let missing = missing();
    if !missing.is_empty() {
        packages::install(&missing).await?;
    }
    let built = target_dir()?;
    build(&built).await?;
    settle_disk().await?;
    Ok(Tools {
        postgres: find_postgres().context("Postgres is still missing after its installation")?,
        haproxy: packages::find("haproxy").context("HAProxy is still missing after its installation")?,
        chaos: built.join("matriarch-chaos"),
        built,
    })
}

fn missing() -> Vec<Need> {
    let found =
        [(Need::Postgres, find_postgres().is_some()), (Need::Haproxy, packages::find("haproxy").is_some())];
    found.into_iter().filter(|(_, there)| !there).map(|(need, _)| need).collect()
}

/// `MATRIARCH_POSTGRES_BIN`, or the newest of Debian's and Red Hat's directories, or the one on PATH.
fn find_postgres() -> Option<PathBuf> {
    if let Some(dir) = std::env::var_os("MATRIARCH_POSTGRES_BIN") {
        return Some(PathBuf::from(dir));
    }
    let debian = versions("/usr/lib/postgresql", |name| name.parse().ok());
    let pgdg = versions("/usr", |name| name.strip_prefix("pgsql-")?.parse().ok());
    let newest = debian.into_iter().chain(pgdg).max();
    let on_path =
        || packages::find("initdb").and_then(|file| Some(file.canonicalize().ok()?.parent()?.to_path_buf()));
    newest.map(|(_, dir)| dir).or_else(on_path)
}

fn versions(root: &str, version: impl Fn(&str) -> Option<u32>) -> Vec<(u32, PathBuf)> {
    let Ok(entries) = std::fs::read_dir(root) else { return Vec::new() };
    let found = entries.flatten().filter_map(|entry| {
        let major = version(entry.file_name().to_str()?)?;
        let bin = entry.path().join("bin");
        (major >= OLDEST_POSTGRES && bin.join("initdb").is_file()).then_some((major, bin))
    });
    found.collect()
}

/// The directory with this build's binaries: tests run from its `deps`.
fn target_dir() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("find this program's own file")?;
    let dir = own.parent().context("this program's file has no directory")?;
    let dir = if dir.ends_with("deps") { dir.parent().unwrap_or(dir) } else { dir };
    Ok(dir.to_path_buf())
}

/// Brings every binary of the workspace up to date in the profile that this program was built with.
async fn build(target: &Path) -> anyhow::Result<()> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    if !workspace.join("Cargo.toml").is_file() || std::env::var_os("MATRIARCH_CHAOS_NO_BUILD").is_some() {
        return Ok(());
    }
    let cargo = std::env::var_os("CARGO").map(PathBuf::from).or_else(|| packages::find("cargo"));
    let mut command = Command::new(cargo.context("cargo not found: install Rust from https://rustup.rs")?);
    command.args(["build", "-q", "--workspace", "--bins"]).current_dir(workspace);
    command.arg("--target-dir").arg(target.parent().unwrap_or(target));
    if target.ends_with("release") {
        command.arg("--release");
    }
    process::run(command, Duration::from_secs(1800)).await.context("build the workspace's binaries")?;
    Ok(())
}

/// Writes out what a build has just left unwritten: gigabytes, behind which the first fsync of a
/// database or of etcd would wait for a minute and look like a dead disk.
async fn settle_disk() -> anyhow::Result<()> {
    tokio::task::spawn_blocking(rustix::fs::sync).await.context("write out what the build left")
}

async fn find_patroni() -> anyhow::Result<PathBuf> {
    let user = RunAs::choose()?;
    if let Some(file) = std::env::var_os("MATRIARCH_PATRONI").map(PathBuf::from) {
        return match is_right_patroni(&file, &user).await {
            true => Ok(file),
            false => bail!("{} is not Patroni {PATRONI}, or the nodes' user may not run it", file.display()),
        };
    }
    if let Some(file) = packages::find("patroni")
        && is_right_patroni(&file, &user).await
    {
        return Ok(file);
    }
    let venv = private_dir()?.join(format!("patroni-{PATRONI}"));
    let lock =
        std::fs::File::create(venv.with_extension("lock")).context("lock the installation of Patroni")?;
    while lock.try_lock().is_err() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let file = venv.join("bin/patroni");
    if !is_right_patroni(&file, &user).await {
        install_patroni(&venv, &user).await?;
    }
    Ok(file)
}

/// Asked as the nodes' user: a Python below somebody's home does not serve.
async fn is_right_patroni(file: &Path, user: &RunAs) -> bool {
    says(file, user).await.is_some_and(|text| text.trim() == format!("patroni {PATRONI}"))
}

async fn says(file: &Path, user: &RunAs) -> Option<String> {
    let mut command = Command::new(file);
    command.arg("--version").current_dir("/");
    user.apply(&mut command);
    process::run(command, Duration::from_secs(20)).await.ok()
}

async fn install_patroni(venv: &Path, user: &RunAs) -> anyhow::Result<()> {
    eprintln!("Patroni {PATRONI} not found: installing it from PyPI into {}", venv.display());
    if make_venv(venv, user).await.is_err() {
        packages::install(&[Need::Python]).await?;
        make_venv(venv, user).await?;
    }
    let mut command = Command::new(venv.join("bin/python"));
    command.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
    command.args([&format!("patroni[etcd3]=={PATRONI}"), "psycopg[binary]"]);
    let installed = process::run(command, Duration::from_secs(600)).await;
    installed.with_context(|| {
        format!(
            "could not install Patroni, which the tests of mixed clusters need; run\n\n    \
             {}/bin/python -m pip install 'patroni[etcd3]=={PATRONI}' 'psycopg[binary]'\n",
            venv.display()
        )
    })?;
    Ok(())
}

async fn make_venv(venv: &Path, user: &RunAs) -> anyhow::Result<()> {
    for python in packages::find_all("python3") {
        if says(&python, user).await.is_none() {
            continue;
        }
        let mut command = Command::new(python);
        command.args(["-m", "venv", "--clear"]).arg(venv);
        return process::run(command, Duration::from_secs(120)).await.map(|_| ());
    }
    bail!("no python3 that the nodes' user may run")
}

/// A directory of this user that others can read but not write, and that outlives a reboot.
fn private_dir() -> anyhow::Result<PathBuf> {
    use std::os::unix::fs::{DirBuilderExt, MetadataExt};
    let uid = rustix::process::geteuid().as_raw();
    let dir = Path::new("/var/tmp").join(format!("matriarch-chaos-{uid}"));
    if !dir.is_dir() {
        std::fs::DirBuilder::new()
            .mode(0o755)
            .create(&dir)
            .with_context(|| format!("make {}", dir.display()))?;
    }
    let found = std::fs::symlink_metadata(&dir)?;
    if found.uid() != uid || found.mode() & 0o022 != 0 {
        bail!(
            "{} belongs to somebody else or others may write to it: remove it and try again",
            dir.display()
        );
    }
    Ok(dir)
}
