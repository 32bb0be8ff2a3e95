//! What a script aims at without knowing its name: whoever leads (`@leader`), whoever is at some job (`@rewind`); and waiting
//! for such a moment, for the faults that must come just then. Decides nothing.

use std::time::Duration;

use config::NodeName;

use super::World;
use super::jobs::word;
use super::script::duration;
use super::verbs::Done;

/// How often a wait looks.
const LOOKS: Duration = Duration::from_millis(100);

impl World {
    /// The words of a line with names in the place of what was aimed at.
    pub(super) fn aim(&self, words: &[&str]) -> Result<Vec<String>, String> {
        let named = |word: &&str| match word.strip_prefix('@') {
            Some(aim) => self.aimed(aim).map(|name| name.to_string()).ok_or(format!("there is no {word}")),
            None => Ok((*word).to_owned()),
        };
        words.iter().map(named).collect()
    }

    fn aimed(&self, aim: &str) -> Option<NodeName> {
        if aim == "leader" {
            return self.store.leader.as_ref().map(|leader| leader.name.clone());
        }
        let works = |node: &&super::node::Node| {
            let job = node.daemon.as_ref().and_then(|daemon| daemon.job.as_ref());
            job.is_some_and(|(job, _)| word(&job.task) == aim)
        };
        self.nodes.values().find(works).map(|node| node.name.clone())
    }

    /// `await JOB SPAN`: until somebody is at this job, at most so long.
    pub(super) fn await_job(&mut self, job: &str, span: &str) -> Done {
        let end = self.now + duration(span)?;
        while self.aimed(job).is_none() && self.now < end {
            self.run(LOOKS);
        }
        Ok(())
    }

    /// `flap NODE SPAN TIMES`: it is cut off from everybody and comes back, again and again.
    pub(super) fn flap(&mut self, name: &str, span: &str, times: &str) -> Done {
        let span = duration(span)?;
        let times: u32 = times.parse().map_err(|_| "how often?".to_owned())?;
        for _ in 0..times {
            self.verb(&["partition", name])?;
            self.run(span);
            self.verb(&["heal"])?;
            self.run(span);
        }
        Ok(())
    }
}
