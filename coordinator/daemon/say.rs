//! What a node says of its decisions in the log.

use coordinator::{Decision, Step};
use dcs::Moment;

use crate::logs;
use crate::node::Node;

impl Node {
    /// A reason is logged when it changes, and once per `loop_wait`, as Patroni does (P279).
    pub(crate) fn say(&mut self, decision: &Decision, now: Moment) {
        let changed = self.last.as_ref().is_none_or(|last| last.because != decision.because);
        if changed || now.since(self.said) >= self.settings.cluster.loop_wait {
            let progress = self.jobs.progress();
            let refuses = decision.steps.iter().any(|step| matches!(step, Step::Exit { code } if *code != 0));
            match progress.total {
                _ if refuses => tracing::error!(target: logs::CRITICAL, "{}", decision.because),
                0 => tracing::info!("{}", decision.because),
                total => {
                    tracing::info!("{} ({} of {} MB)", decision.because, progress.done >> 20, total >> 20);
                }
            }
            self.said = now;
        }
    }
}
