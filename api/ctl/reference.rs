//! The page docs/src/reference/cli.md, made from the definition of the command line.

use std::fmt::Write as _;
use std::path::Path;

use clap::{Arg, Command, CommandFactory};

use crate::args::Arguments;

const HEAD: &str = "\
# matriarchctl

<!-- Generated from api/ctl/args.rs: MATRIARCH_BLESS=1 cargo test -p api --bin matriarchctl -->

`matriarchctl` looks at a cluster and steers it. It takes the configuration file of a node, or one with the
store's section only, and the commands, options and output of `patronictl`; it works with clusters of
matriarch, of Patroni, and of both.

It reads the store. If the store cannot be reached, it shows what a member knows whose address it has (`--url`,
or `restapi.connect_address` of a node's file). Changes go to the member concerned over REST; a switchover that
cannot go there is written into the store.

Results are on standard output; questions and progress on standard error. The exit status is 0 if what was asked
for happened, 1 if it did not (the last line says why and what to do), 2 if the command line makes no sense.
";

fn page() -> String {
    let command = Arguments::command();
    let mut page = format!("{HEAD}\n## Options before the command\n\n");
    options(&command, &mut page);
    for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
        match inner.has_subcommands() {
            false => section(inner, inner.get_name(), &mut page),
            true => inner.get_subcommands().filter(|verb| verb.get_name() != "help").for_each(|verb| {
                section(verb, &format!("{} {}", inner.get_name(), verb.get_name()), &mut page);
            }),
        }
    }
    page
}

fn section(command: &Command, name: &str, page: &mut String) {
    let mut usage = command.clone().bin_name(format!("matriarchctl {name}"));
    let usage = usage.render_usage().to_string().replace("Usage: ", "");
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let _ = write!(page, "\n## {name}\n\n{about}.\n\n```text\n{usage}\n```\n\n");
    options(command, page);
}

fn options(command: &Command, page: &mut String) {
    page.push_str("| option | meaning |\n|---|---|\n");
    let shown = |arg: &&Arg| !arg.is_hide_set() && !matches!(arg.get_id().as_str(), "help" | "version");
    for arg in command.get_arguments().filter(shown) {
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default().replace('\n', " ");
        let mut notes = Vec::new();
        let values = arg.get_possible_values();
        if arg.get_action().takes_values() && !values.is_empty() {
            let names: Vec<String> = values.iter().map(|value| format!("`{}`", value.get_name())).collect();
            notes.push(format!("one of {}", names.join(", ")));
        }
        if let Some(default) = arg.get_default_values().first().filter(|_| arg.get_action().takes_values()) {
            let default = default.to_string_lossy().replace('\t', "tab");
            notes.push(format!("default `{default}`"));
        }
        if let Some(variable) = arg.get_env() {
            notes.push(format!("or variable `{}`", variable.to_string_lossy()));
        }
        let notes = if notes.is_empty() { String::new() } else { format!(" ({})", notes.join("; ")) };
        let _ = writeln!(page, "| {} | {}{} |", label(arg), cell(&help), cell(&notes));
    }
}

fn label(arg: &Arg) -> String {
    let value = arg.get_value_names().and_then(|names| names.first()).map(ToString::to_string);
    let value = value.unwrap_or_else(|| arg.get_id().to_string().to_uppercase());
    if arg.is_positional() {
        return format!("`{}`", cell(&value));
    }
    let mut names: Vec<String> = arg.get_short().iter().map(|short| format!("-{short}")).collect();
    names.extend(arg.get_long().map(|long| format!("--{long}")));
    names.extend(arg.get_visible_aliases().unwrap_or_default().iter().map(|long| format!("--{long}")));
    let value = if arg.get_action().takes_values() { format!(" {}", cell(&value)) } else { String::new() };
    format!("`{}{value}`", names.join(", "))
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

#[test]
fn the_reference_page_is_up_to_date() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/src/reference/cli.md");
    if std::env::var_os("MATRIARCH_BLESS").is_some() {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, page()).unwrap();
    }
    let written = std::fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(written, page(), "run MATRIARCH_BLESS=1 cargo test -p api --bin matriarchctl");
}

#[test]
fn the_command_line_is_consistent() {
    Arguments::command().debug_assert();
}
