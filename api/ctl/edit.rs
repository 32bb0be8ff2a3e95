//! `show-config` and `edit-config`: the settings that the cluster shares, read
//! and written in the store, never over what somebody else wrote meanwhile.

use std::io::{IsTerminal, Read, Write};
use std::path::Path;

use anyhow::{Context, bail};
use serde_json::{Map, Value};

use crate::args::EditConfig;
use crate::ask::{self, say};
use crate::reach::Reach;
use crate::yaml;

/// `show-config`.
///
/// # Errors
/// If the store cannot be read.
pub async fn show(reach: &Reach) -> anyhow::Result<()> {
    match reach.settings_document().await? {
        Some(document) => say(yaml::block(&document)),
        None => bail!(
            "cluster {} has no settings in the store: it was never bootstrapped, or its name is wrong",
            reach.cluster()
        ),
    }
}

/// `edit-config`.
///
/// # Errors
/// If nothing was written although something was wanted.
pub async fn edit(reach: &Reach, wanted: &EditConfig) -> anyhow::Result<()> {
    let view = reach.view().await?;
    let Some(config) = view.config else {
        bail!(
            "The config key does not exist in the cluster {}: it was never bootstrapped, or its name is wrong",
            reach.cluster()
        );
    };
    let before = config.value;
    let after = match changed(&before, wanted)? {
        Some(after) => after,
        None => in_editor(&before, reach.cluster())?,
    };
    if !after.is_object() {
        bail!("settings are a YAML mapping such as \"ttl: 30\": nothing was changed");
    }
    if before == after {
        return if wanted.quiet { Ok(()) } else { say("Not changed") };
    }
    if !wanted.quiet {
        show_difference(&yaml::block(&before), &yaml::block(&after))?;
    }
    let from_input = [&wanted.apply, &wanted.replace].into_iter().flatten().any(|file| file == "-");
    if from_input && !wanted.force.force {
        bail!("Use --force option to apply changes: standard input is used up, so nobody can be asked");
    }
    if !wanted.force.force && !ask::confirm("Apply these changes?")? {
        bail!("nothing was changed");
    }
    if !reach.write_settings(&after, config.revision).await? {
        bail!("Config modification aborted due to concurrent changes: look at show-config and try again");
    }
    say("Configuration changed")
}

/// What the options make of the settings; nothing if there are no such options.
fn changed(before: &Value, wanted: &EditConfig) -> anyhow::Result<Option<Value>> {
    let mut after = None;
    if let Some(file) = &wanted.replace {
        let mut empty = Value::Object(Map::new());
        patch(&mut empty, read_file(file)?);
        after = Some(empty);
    }
    if let Some(file) = &wanted.apply {
        let mut document = after.unwrap_or_else(|| before.clone());
        patch(&mut document, read_file(file)?);
        after = Some(document);
    }
    let parameters = wanted.pg.iter().map(|pair| format!("postgresql.parameters.{}", pair.trim_start()));
    for pair in wanted.set.iter().cloned().chain(parameters) {
        let Some((path, text)) = pair.split_once('=') else {
            bail!("Invalid parameter setting {pair}: write it as key=value");
        };
        let value = parse(text).with_context(|| format!("the value of {} is not YAML", path.trim()))?;
        let keys: Vec<&str> = path.trim().split('.').collect();
        let document = after.get_or_insert_with(|| before.clone());
        put(document, &keys, value, &[]);
    }
    Ok(after)
}

/// Sets the value at a path; null removes it, and with it the sections that become empty.
fn put(section: &mut Value, path: &[&str], value: Value, above: &[&str]) {
    // Names of Postgres parameters may contain dots.
    let joined = (above == ["postgresql", "parameters"]).then(|| path.join("."));
    let (key, rest) = match (&joined, path) {
        (Some(name), _) => (name.as_str(), [].as_slice()),
        (None, [key, rest @ ..]) => (*key, rest),
        (None, []) => return,
    };
    if !section.is_object() {
        *section = Value::Object(Map::new());
    }
    let Some(fields) = section.as_object_mut() else { return };
    if rest.is_empty() {
        if value.is_null() {
            fields.remove(key);
        } else {
            fields.insert(key.to_owned(), value);
        }
        return;
    }
    let inner = fields.entry(key).or_insert_with(|| Value::Object(Map::new()));
    let below: Vec<&str> = above.iter().copied().chain([key]).collect();
    put(inner, rest, value, &below);
    if inner.as_object().is_some_and(Map::is_empty) {
        fields.remove(key);
    }
}

/// Merges as `PATCH /config` does: null removes, sections merge, anything else replaces.
fn patch(target: &mut Value, change: Value) {
    let (Some(fields), Value::Object(changes)) = (target.as_object_mut(), change) else { return };
    for (key, value) in changes {
        match (fields.get_mut(&key), value) {
            (_, Value::Null) => {
                fields.remove(&key);
            }
            (Some(old @ Value::Object(_)), value @ Value::Object(_)) => patch(old, value),
            (_, value) => {
                fields.insert(key, value);
            }
        }
    }
}

fn read_file(file: &str) -> anyhow::Result<Value> {
    let text = if file == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("standard input cannot be read")?;
        text
    } else {
        std::fs::read_to_string(file).with_context(|| format!("{file} cannot be read"))?
    };
    let value = parse(&text).with_context(|| format!("{file} is not YAML"))?;
    if !value.is_object() {
        bail!("{file} holds no settings: they are a YAML mapping such as \"ttl: 30\"");
    }
    Ok(value)
}

/// One YAML value; nothing at all is null.
fn parse(text: &str) -> anyhow::Result<Value> {
    if text.trim().is_empty() {
        return Ok(Value::Null);
    }
    let options = serde_saphyr::options! { with_snippet: false };
    Ok(serde_saphyr::from_str_with_options(text, options)?)
}

fn in_editor(before: &Value, cluster: &str) -> anyhow::Result<Value> {
    let editor = std::env::var("EDITOR").ok().filter(|editor| !editor.is_empty());
    let choices = editor.into_iter().chain(["editor".to_owned(), "vi".to_owned()]);
    let path = std::env::temp_dir().join(format!(
        "{}-config-{}.yaml",
        cluster.replace('/', "_"),
        dcs::Moment::now().0
    ));
    let mut file = std::fs::File::options()
        .write(true)
        .create_new(true)
        .open(&path)
        .with_context(|| format!("{} cannot be written", path.display()))?;
    file.write_all(yaml::block(before).as_bytes())
        .with_context(|| format!("{} cannot be written", path.display()))?;
    drop(file);
    let edited = choices.into_iter().find_map(|editor| run_editor(&editor, &path));
    let text = std::fs::read_to_string(&path);
    let _ = std::fs::remove_file(&path);
    match edited {
        None => bail!("no editor was found: set EDITOR, or use --set, --pg, --apply or --replace"),
        Some(Ok(())) => {}
        Some(Err(error)) => return Err(error.context("nothing was changed")),
    }
    parse(&text.with_context(|| format!("{} cannot be read back", path.display()))?)
        .context("what was written is not YAML, so nothing was changed")
}

/// Runs the editor; nothing if there is none of that name.
fn run_editor(editor: &str, path: &Path) -> Option<anyhow::Result<()>> {
    let mut words = editor.split_whitespace();
    let mut command = std::process::Command::new(words.next()?);
    match command.args(words).arg(path).status() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => Some(Err(error).with_context(|| format!("{editor} cannot be started"))),
        Ok(status) if status.success() => Some(Ok(())),
        Ok(status) => Some(Err(anyhow::anyhow!("Editor exited with {status}"))),
    }
}

fn show_difference(before: &str, after: &str) -> anyhow::Result<()> {
    let difference = similar::TextDiff::from_lines(before, after);
    let unified = difference.unified_diff().context_radius(3).header("", "").to_string();
    let coloured = std::io::stdout().is_terminal();
    for line in unified.lines() {
        let line = match line {
            "---" | "--- " => "--- ",
            "+++" | "+++ " => "+++ ",
            line => line,
        };
        let colour = match line.as_bytes().first() {
            Some(b'+') => "32",
            Some(b'-') => "31",
            Some(b'@') => "36",
            _ => "",
        };
        if coloured && !colour.is_empty() {
            say(format!("\u{1b}[{colour}m{line}\u{1b}[0m"))?;
        } else {
            say(line)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// P175: dotted paths make sections, null removes them, names of parameters keep their dots.
    #[test]
    fn values_are_put_at_paths() {
        let mut document = json!({"ttl": 30, "postgresql": {"parameters": {"a.b": 1}}, "x": {"y": {"z": 1}}});
        put(&mut document, &["ttl"], json!(20), &[]);
        put(&mut document, &["postgresql", "parameters", "c", "d"], json!("on"), &[]);
        put(&mut document, &["postgresql", "parameters", "a", "b"], Value::Null, &[]);
        put(&mut document, &["x", "y", "z"], Value::Null, &[]);
        put(&mut document, &["new", "deep"], json!([1]), &[]);
        assert_eq!(
            document,
            json!({"ttl": 20, "postgresql": {"parameters": {"c.d": "on"}}, "new": {"deep": [1]}})
        );
    }

    /// P175: --apply merges like PATCH.
    #[test]
    fn files_are_merged() {
        let mut document = json!({"ttl": 30, "a": {"b": 1, "c": 2}, "d": {"e": 1}});
        patch(&mut document, json!({"ttl": null, "a": {"b": null, "f": 3}, "d": 4}));
        assert_eq!(document, json!({"a": {"c": 2, "f": 3}, "d": 4}));
    }
}
