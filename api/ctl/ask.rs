//! What matriarchctl says and asks on the terminal. Results go to standard
//! output, questions and progress to standard error, so that pipes stay clean.

use std::io::{self, BufRead, IsTerminal, Write};

use anyhow::{Context, bail};

/// Prints a line of results.
///
/// # Errors
/// If standard output is closed.
pub fn say(text: impl AsRef<str>) -> anyhow::Result<()> {
    writeln!(io::stdout().lock(), "{}", text.as_ref()).context("standard output cannot be written")
}

/// Prints a line of progress.
pub fn note(text: impl AsRef<str>) {
    // Nothing can be done if nobody can be told.
    let _ = writeln!(io::stderr().lock(), "{}", text.as_ref());
}

/// Asks until something is answered; an empty answer means `default` if there is one.
///
/// # Errors
/// If standard input ends.
pub fn prompt(question: &str, default: Option<&str>) -> anyhow::Result<String> {
    loop {
        let shown = default.filter(|text| !text.is_empty()).map(|text| format!(" [{text}]"));
        let answer = line(&format!("{question}{}: ", shown.unwrap_or_default()))?;
        match (answer.is_empty(), default) {
            (false, _) => return Ok(answer),
            (true, Some(default)) => return Ok(default.to_owned()),
            (true, None) => {}
        }
    }
}

/// Asks for yes or no; no is the default.
///
/// # Errors
/// If standard input ends.
pub fn confirm(question: &str) -> anyhow::Result<bool> {
    loop {
        match line(&format!("{question} [y/N]: "))?.to_lowercase().as_str() {
            "y" | "yes" => return Ok(true),
            "" | "n" | "no" => return Ok(false),
            _ => note("Error: invalid input"),
        }
    }
}

/// Asks for a password without showing it.
///
/// # Errors
/// If standard input ends.
pub fn password() -> anyhow::Result<String> {
    let input = io::stdin();
    let before = input.is_terminal().then(|| rustix::termios::tcgetattr(&input).ok()).flatten();
    if let Some(mut quiet) = before.clone() {
        quiet.local_modes.remove(rustix::termios::LocalModes::ECHO);
        let _ = rustix::termios::tcsetattr(&input, rustix::termios::OptionalActions::Now, &quiet);
    }
    let answer = line("Password: ");
    if let Some(before) = before {
        let _ = rustix::termios::tcsetattr(&input, rustix::termios::OptionalActions::Now, &before);
        note("");
    }
    answer
}

fn line(question: &str) -> anyhow::Result<String> {
    let mut error = io::stderr().lock();
    write!(error, "{question}").and_then(|()| error.flush()).context("the question cannot be shown")?;
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer).context("the answer cannot be read")?;
    if read == 0 {
        let _ = writeln!(error);
        bail!("nobody answered, so nothing was done; add --force to go on without questions");
    }
    Ok(answer.trim_end_matches(['\n', '\r']).to_owned())
}
