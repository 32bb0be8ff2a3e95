//! Scenario files: a script above `----`, the expected transcript below. One verb
//! per line; `#` begins a comment that says why the scenario exists.

use std::time::Duration;

use super::World;

/// Runs a script from the beginning; returns the world as it is at the end.
///
/// # Errors
/// The line that cannot be understood.
pub fn run(script: &str, world: &mut World) -> Result<(), String> {
    for (number, line) in script.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        if !matches!(words.first(), Some(&("cluster" | "expect"))) {
            world.say(">", line);
        }
        world.verb(&words).map_err(|why| format!("line {}: {line:?}: {why}", number + 1))?;
    }
    Ok(())
}

/// The script and the expected transcript of a scenario file.
pub fn split(text: &str) -> (&str, &str) {
    text.split_once("----\n").unwrap_or((text, ""))
}

/// `30s`, `500ms`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration such as 30s or 500ms");
    let number = |digits: &str| digits.parse::<u64>().map_err(|_| wrong());
    if let Some(digits) = text.strip_suffix("ms") {
        return number(digits).map(Duration::from_millis);
    }
    number(text.strip_suffix('s').ok_or_else(wrong)?).map(Duration::from_secs)
}

/// A hexadecimal position, as Postgres writes them.
pub fn position(text: &str) -> Result<u64, String> {
    u64::from_str_radix(text, 16).map_err(|_| format!("{text:?} is no hexadecimal position"))
}
