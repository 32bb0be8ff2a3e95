//! The reference page of the book, made from the table of keys.

use std::fmt::Write;

use crate::keys::{self, Acts, Key, Reach};

const HEAD: &str = "\
# Configuration

<!-- Generated from config/src/keys: change it there, then run
     MATRIARCH_BLESS=1 cargo test -p config --test reference -->

matriarch reads the configuration of Patroni 4.1 as it is: one YAML file, or a directory whose `*.yml` and `*.yaml`
files are merged in the order of their names (later wins, `null` removes). Environment variables `PATRONI_…` lie over the file;
`PATRONI_CONFIGURATION` holds a whole file where there is none. matriarch's own keys are in the section `matriarch:`, their
variables are `MATRIARCH_…`.

Settings of the cluster live in the store. A new cluster takes them from `bootstrap.dcs` of the node that begins it, and gets
`ttl: 10` if that names none; afterwards they are changed with `matriarchctl edit-config`, and `bootstrap.dcs` is not looked at again.
Keys of `postgresql` may stand in both; the node's file wins, except for the parameters that must be the same on every member.

A key marked *not yet* is known and does nothing: it gives one warning. A key marked *follows only* asks for a safety promise
that this version cannot keep: a node that finds it set never becomes leader. An unknown key is a warning, a wrong value an error;
`matriarch check FILE` shows all of them at once.

Durations are seconds, or take a unit: `us`, `ms`, `s`, `min`, `h`, `d`. Sizes are bytes, or take `B`, `kB`, `MB`, `GB`, `TB`,
powers of 1024. Booleans are `on`, `off`, `true`, `false`, `yes`, `no`, `1`, `0`.
";

const TIMING: &str = "
## How ttl, loop_wait and retry_timeout fit together

The lease is renewed every tenth of `ttl`, whatever `loop_wait` says. `ttl` may be as short as 2 s (below 10 s there is a warning of
what it cannot ride out; Patroni lifts it to 20 s). `loop_wait + 2 × retry_timeout` must fit into `ttl`; what does not is
adjusted in memory, with a warning if it was written. From 20 s on this is Patroni's rule: `loop_wait` at least 1 s, `retry_timeout`
at least 3 s; if 1 s and two retries do not fit, `loop_wait` is 1 s and `retry_timeout` half of the rest in whole seconds; else
`loop_wait` is what two retries leave. Below 20 s `retry_timeout` is at most a third of `ttl` (and leaves 1 s), `loop_wait` what two of them leave.
";

/// The reference page in Markdown.
#[must_use]
pub fn reference() -> String {
    let mut page = HEAD.to_owned();
    table(&mut page, "The node's file", |key| key.reach == Reach::Local);
    table(&mut page, "The node's file or the cluster's settings", |key| key.reach == Reach::Both);
    table(&mut page, "The cluster's settings", |key| key.reach == Reach::Dynamic);
    page.push_str(TIMING);
    page.push_str(&parameters());
    page.push_str(&variables());
    page
}

fn table(page: &mut String, title: &str, belongs: impl Fn(&Key) -> bool) {
    let _ = write!(page, "\n## {title}\n\n| key | type | default | |\n|---|---|---|---|\n");
    for key in keys::all().filter(|key| belongs(key)) {
        let default = if key.default.is_empty() { String::new() } else { format!("`{}`", key.default) };
        let acts = match key.acts {
            Acts::Now => String::new(),
            Acts::Later => " *Not yet.*".to_owned(),
            Acts::Never(why) => format!(" No effect: {why}."),
            Acts::Withholds => " *Follows only.*".to_owned(),
        };
        let _ = writeln!(page, "| `{}` | {} | {default} | {}{acts} |", key.path, key.kind.name(), key.says);
    }
}

fn parameters() -> String {
    let mut page = "\n## Postgres parameters that must be the same on every member\n
They are taken from the cluster's settings only; a value that is not accepted is replaced by the default, with a warning.
`listen_addresses`, `port` and `cluster_name` come from `postgresql.listen` and `scope`; `restart_after_crash` is kept off.\n
| parameter | default | accepted |\n|---|---|---|\n"
        .to_owned();
    for owned in crate::parameters::OWNED.iter().filter(|owned| !owned.default.is_empty()) {
        let _ = writeln!(page, "| `{}` | `{}` | {} |", owned.name, owned.default, owned.accepts.wanted());
    }
    page
}

fn variables() -> String {
    let mut page = "\n## Environment variables\n
Those that are understood are taken out of the environment of child processes. `PATRONI_ETCD_…` means the same as `PATRONI_ETCD3_…`.
Lists are YAML or text with commas, maps are YAML with or without braces. `PATRONI_LOGLEVEL`, `PATRONI_LOGFORMAT` and
`PATRONI_LOG_DATEFMT` are old names. `matriarchctl` also reads `PATRONICTL_CONFIG_FILE` and `DCS_URL`.\n
| variable | key |\n|---|---|\n"
        .to_owned();
    for (name, path) in crate::environment::variables() {
        let _ = writeln!(page, "| `{name}` | `{path}` |");
    }
    page
}
