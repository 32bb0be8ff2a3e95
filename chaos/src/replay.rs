//! Runs recorded turns through today's judgement and says where it decides otherwise than the node did.
//!
//! It reads files and prints; what is right, the old decision or the new one, is for people to say.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context;
use api::recording::{self, Recording};
use coordinator::{Decision, Turn};
use serde::Deserialize;
use serde_json::Value;

/// The part of a line that is replayed.
#[derive(Deserialize)]
struct Line {
    turn: Turn,
}

/// What came of replaying.
#[derive(Debug, Default)]
pub struct Replayed {
    /// Turns that were decided again.
    pub turns: usize,
    /// Those of them that were decided otherwise.
    pub different: usize,
    /// Lines that were not written to their end.
    pub torn: usize,
    /// The first differences, to read.
    pub shown: String,
}

/// Replays files, or directories of them; shows the first `show` differences.
///
/// # Errors
/// If something cannot be read, in one sentence.
pub fn run(paths: &[impl AsRef<Path>], show: usize) -> anyhow::Result<Replayed> {
    let mut replayed = Replayed::default();
    for path in paths {
        for recording in recording::read(path.as_ref())? {
            replayed.add(&recording, show)?;
        }
    }
    Ok(replayed)
}

impl Replayed {
    fn add(&mut self, recording: &Recording, show: usize) -> anyhow::Result<()> {
        let Recording { file, header, turns, torn } = recording;
        self.torn += torn;
        for (number, entry, line) in turns {
            let Line { turn } = serde_json::from_str(line).with_context(|| {
                format!(
                    "line {number} of {} holds a turn as matriarch {} saw it, which this program ({}) cannot read: \
                     replay it with the matriarch-chaos of that version",
                    file.display(),
                    header.version,
                    api::MATRIARCH_VERSION
                )
            })?;
            self.turns += 1;
            let now = turn.again();
            if now == turn.decided {
                continue;
            }
            self.different += 1;
            if self.different <= show {
                let (name, at) = (&header.name, &entry.at);
                let _infallible =
                    writeln!(self.shown, "{name} at {at} ({}:{number}) differs:", file.display());
                self.shown.push_str(&difference(&turn.decided, &now));
            }
        }
        Ok(())
    }

    /// The count, as one line.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut text = format!("{} turns replayed, {} differences", self.turns, self.different);
        if self.torn > 0 {
            let _infallible = write!(text, "; {} lines were torn and left out", self.torn);
        }
        text
    }
}

/// What is not the same, one thing below the other.
fn difference(then: &Decision, now: &Decision) -> String {
    let mut text = String::new();
    let mut line = |what: &str, then: &str, now: &str| {
        let _infallible = writeln!(text, "  {what:<6} then  {then}\n         now   {now}");
    };
    if then.because != now.because {
        let said = (then.because.to_string(), now.because.to_string());
        match said.0 == said.1 {
            true => line("reason", &format!("{:?}", then.because), &format!("{:?}", now.because)),
            false => line("reason", &said.0, &said.1),
        }
    }
    if then.steps != now.steps {
        let said = (steps(then), steps(now));
        match said.0 == said.1 {
            true => line("steps", &format!("{:?}", then.steps), &format!("{:?}", now.steps)),
            false => line("steps", &said.0, &said.1),
        }
    }
    if then.wake != now.wake {
        line("wake", &then.wake.0.to_string(), &now.wake.0.to_string());
    }
    let fields = |decision: &Decision| serde_json::to_value(&decision.past).unwrap_or_default();
    let (before, after) = (fields(then), fields(now));
    for (name, value) in before.as_object().into_iter().flatten() {
        let today = after.get(name).unwrap_or(&Value::Null);
        if value != today {
            line("past", &format!("{name}: {value}"), &format!("{name}: {today}"));
        }
    }
    text
}

fn steps(decision: &Decision) -> String {
    let steps: Vec<String> = decision.steps.iter().map(ToString::to_string).collect();
    if steps.is_empty() { "none".to_owned() } else { steps.join("; ") }
}
