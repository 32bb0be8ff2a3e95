//! The last accepted dynamic configuration, beside the data it is for.

use serde_json::Value;

use crate::postgres::{Paths, files};

/// The last accepted dynamic configuration, kept for the day the key is lost (P124).
const CACHE: &str = "patroni.dynamic.json";

/// Reads the cached dynamic configuration.
pub fn cached_document(paths: &Paths) -> Option<Value> {
    let text = std::fs::read_to_string(paths.data_dir.join(CACHE)).ok()?;
    serde_json::from_str::<Value>(&text).ok().filter(Value::is_object)
}

/// Caches the dynamic configuration beside the data it is for.
pub fn cache_document(paths: &Paths, document: &Value) {
    if !paths.data_dir.join("PG_VERSION").exists() {
        return;
    }
    let file = paths.data_dir.join(CACHE);
    let text = document.to_string();
    if let Err(error) = files::replace_if_changed(&file, text.as_bytes(), files::mode_for(&paths.data_dir)) {
        tracing::warn!("{} was not written: {error}", file.display());
    }
}
