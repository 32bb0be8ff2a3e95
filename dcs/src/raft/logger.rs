//! Raft's own log, into ours: what it warns about becomes debugging, because this crate says in its own words what matters.

use slog::{Drain, KV, Level, Logger, Never, OwnedKVList, Record, o};

struct ToTracing;

/// A logger for raft.
pub(super) fn logger() -> Logger {
    Logger::root(ToTracing, o!())
}

/// The key-value pairs of a record as text.
struct Pairs(String);

impl slog::Serializer for Pairs {
    fn emit_arguments(&mut self, key: slog::Key, value: &std::fmt::Arguments<'_>) -> slog::Result {
        use std::fmt::Write as _;
        let _ = write!(self.0, " {key}={value}");
        Ok(())
    }
}

impl Drain for ToTracing {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<(), Never> {
        let wanted = match record.level() {
            Level::Critical | Level::Error => tracing::enabled!(tracing::Level::ERROR),
            Level::Warning | Level::Info => tracing::enabled!(tracing::Level::DEBUG),
            Level::Debug | Level::Trace => tracing::enabled!(tracing::Level::TRACE),
        };
        if !wanted {
            return Ok(());
        }
        let mut pairs = Pairs(String::new());
        let _ = record.kv().serialize(record, &mut pairs);
        let _ = values.serialize(record, &mut pairs);
        let (text, pairs) = (record.msg(), pairs.0);
        match record.level() {
            Level::Critical | Level::Error => tracing::error!("raft: {text}{pairs}"),
            Level::Warning | Level::Info => tracing::debug!("raft: {text}{pairs}"),
            Level::Debug | Level::Trace => tracing::trace!("raft: {text}{pairs}"),
        }
        Ok(())
    }
}
