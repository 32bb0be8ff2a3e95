//! A restart that waits for its time, as the node remembers and publishes it.

use serde_json::Value;

/// A restart that waits for its time.
#[derive(Debug, Clone)]
pub struct ScheduledRestart {
    /// The request as it was made.
    pub request: api::command::RestartRequest,
    /// When the postmaster had started: another restart cancels this one.
    pub postmaster_start: String,
}

impl ScheduledRestart {
    /// As it is published in the member record.
    pub fn document(&self) -> Value {
        let mut document = serde_json::Map::new();
        if let Some(role) = &self.request.role {
            document.insert("role".into(), role.clone().into());
        }
        if let Some((_, text)) = &self.request.postgres_version {
            document.insert("postgres_version".into(), text.clone().into());
        }
        if self.request.restart_pending {
            document.insert("restart_pending".into(), true.into());
        }
        if let Some((_, text)) = &self.request.schedule {
            document.insert("schedule".into(), text.clone().into());
        }
        document.insert("postmaster_start_time".into(), self.postmaster_start.clone().into());
        Value::Object(document)
    }
}
