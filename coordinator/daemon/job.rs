//! The one job that may run: started, told about, cancelled. What it does is in `task`.

use coordinator::{Job, Task};
use dcs::Moment;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::postgres::clone::Progress;
use crate::task::{self, Context, Gain};

/// The running job, if any.
#[derive(Debug)]
pub struct Jobs {
    set: JoinSet<Done>,
    running: Option<Job>,
    progress: watch::Receiver<Progress>,
    tell: watch::Sender<Progress>,
}

/// A job that ended.
#[derive(Debug)]
pub struct Done {
    /// What it did.
    pub task: Task,
    /// How.
    pub result: anyhow::Result<Gain>,
}

impl Default for Jobs {
    fn default() -> Self {
        let (tell, progress) = watch::channel(Progress::default());
        Self { set: JoinSet::new(), running: None, progress, tell }
    }
}

impl Jobs {
    /// Begins a job in place of the one that runs.
    pub fn begin(&mut self, task: Task, context: Context) {
        self.cancel();
        self.running = Some(Job { task: task.clone(), since: Moment::now() });
        self.tell.send_replace(Progress::default());
        self.set.spawn(async move {
            let result = task::run(&task, &context).await;
            Done { task, result }
        });
    }

    /// Where a job tells how far it is.
    pub fn telling(&self) -> watch::Sender<Progress> {
        self.tell.clone()
    }

    /// Ends the running job at once; programs that it started are killed with it.
    pub fn cancel(&mut self) {
        // An aborted job is dropped before anything spawned later is polled.
        self.set.abort_all();
        self.running = None;
    }

    /// The running job.
    pub fn running(&self) -> Option<Job> {
        self.running.clone()
    }

    /// How far the running clone is; nothing of nothing while none runs.
    pub fn progress(&self) -> Progress {
        if self.running.is_some() { *self.progress.borrow() } else { Progress::default() }
    }

    /// Whether the end of the postmaster is the running job's doing.
    pub fn expects_end(&self) -> bool {
        matches!(
            self.running.as_ref().map(|job| &job.task),
            Some(Task::Stop(_) | Task::Restart { .. } | Task::KillRemnants | Task::RestartInPlace { .. })
        )
    }

    /// The next job that ends; pends while none runs.
    pub async fn next(&mut self) -> Done {
        loop {
            match self.set.join_next().await {
                Some(Ok(done)) => {
                    self.running = None;
                    return done;
                }
                Some(Err(error)) if error.is_panic() => {
                    let Some(job) = self.running.take() else { continue };
                    let result = Err(anyhow::anyhow!("it panicked; this is a bug of matriarch"));
                    return Done { task: job.task, result };
                }
                // Cancelled.
                Some(Err(_)) => {}
                None => std::future::pending().await,
            }
        }
    }
}
