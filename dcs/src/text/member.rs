//! A member's record ⇄ its text (patroni-compat 1.4).

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::{field, text, unwrapped, whole};
use crate::view::Member;
use crate::{Lsn, Timeline};

/// Patroni's fields in Patroni's order; what is absent is not written.
#[derive(Serialize)]
struct Written<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    conn_url: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    api_url: Option<&'a str>,
    state: &'a str,
    role: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    matriarch: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proxy_url: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    checkpoint_after_promote: Option<bool>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    tags: &'a BTreeMap<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pending_restart: Option<bool>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pending_restart_reason: BTreeMap<&'a str, Change<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    xlog_location: Option<Lsn>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replay_lsn: Option<Lsn>,
    #[serde(skip_serializing_if = "Option::is_none")]
    receive_lsn: Option<Lsn>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replication_state: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeline: Option<Timeline>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scheduled_restart: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pause: Option<bool>,
}

#[derive(Serialize)]
struct Change<'a> {
    old_value: &'a str,
    new_value: &'a str,
}

/// The text of a member's record; the lease is not part of it.
pub(crate) fn member_text(member: &Member) -> String {
    let pending = member.pending_restart_flag || !member.pending_restart.is_empty();
    let written = Written {
        conn_url: member.conn_url.as_deref(),
        api_url: member.api_url.as_deref(),
        state: &member.state,
        role: &member.role,
        version: member.version.as_deref(),
        matriarch: member.matriarch.as_deref(),
        proxy_url: member.proxy_url.as_deref(),
        checkpoint_after_promote: member.checkpoint_pending.then_some(false),
        tags: &member.tags,
        pending_restart: pending.then_some(true),
        pending_restart_reason: member
            .pending_restart
            .iter()
            .map(|(name, (old, new))| (name.as_str(), Change { old_value: old, new_value: new }))
            .collect(),
        xlog_location: member.xlog_location,
        replay_lsn: member.replay_lsn,
        receive_lsn: member.receive_lsn,
        replication_state: member.replication_state.as_deref(),
        timeline: member.timeline,
        scheduled_restart: member.scheduled_restart.as_ref(),
        pause: member.pause.then_some(true),
    };
    super::write::compact(&written)
}

/// Reads a member's record; what cannot be read is left at its default.
pub(super) fn member(value: &str, lease: i64) -> Member {
    if value.starts_with("postgres") {
        return from_url(value, lease);
    }
    let record: Value = serde_json::from_str(value).unwrap_or(Value::Null);
    let lsn = |name| field(&record, name).and_then(whole).map(Lsn);
    let truth = |name| field(&record, name).is_some_and(is_true);
    let role = field(&record, "role").and_then(text).unwrap_or_default();
    Member {
        conn_url: field(&record, "conn_url")
            .and_then(text)
            .or_else(|| from_parts(field(&record, "conn_kwargs")?)),
        api_url: field(&record, "api_url").and_then(text),
        proxy_url: field(&record, "proxy_url").and_then(text),
        state: field(&record, "state").and_then(text).unwrap_or_default(),
        role: if role == "master" { "primary".to_owned() } else { role },
        version: field(&record, "version").and_then(text),
        matriarch: field(&record, "matriarch").and_then(text),
        checkpoint_pending: field(&record, "checkpoint_after_promote").is_some_and(|value| !is_true(value)),
        tags: match field(&record, "tags") {
            Some(Value::Object(tags)) => tags.iter().map(|(name, tag)| (name.clone(), tag.clone())).collect(),
            _ => BTreeMap::new(),
        },
        xlog_location: lsn("xlog_location"),
        receive_lsn: lsn("receive_lsn"),
        replay_lsn: lsn("replay_lsn"),
        replication_state: field(&record, "replication_state").and_then(text),
        timeline: field(&record, "timeline")
            .and_then(whole)
            .and_then(|number| u32::try_from(number).ok())
            .map(Timeline),
        pending_restart: field(&record, "pending_restart_reason").map(changes).unwrap_or_default(),
        pending_restart_flag: truth("pending_restart"),
        scheduled_restart: field(&record, "scheduled_restart").cloned(),
        pause: truth("pause"),
        lease,
    }
}

/// Patroni compares booleans as text, so `"True"` is as good as `true` (1.10, rule 17).
fn is_true(value: &Value) -> bool {
    match value {
        Value::Bool(truth) => *truth,
        Value::String(text) => text.eq_ignore_ascii_case("true"),
        _ => false,
    }
}

fn changes(reason: &Value) -> BTreeMap<String, (String, String)> {
    let Value::Object(parameters) = unwrapped(reason) else { return BTreeMap::new() };
    let shown = |value: Option<&Value>| match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    parameters
        .into_iter()
        .map(|(name, change)| (name, (shown(change.get("old_value")), shown(change.get("new_value")))))
        .collect()
}

/// `conn_kwargs`, written by Patroni 1.x.
fn from_parts(parts: &Value) -> Option<String> {
    let host = field(parts, "host").and_then(text)?;
    let port = field(parts, "port").and_then(whole).unwrap_or(5432);
    Some(if host.contains(':') {
        format!("postgresql://[{host}]:{port}")
    } else {
        format!("postgresql://{host}:{port}")
    })
}

/// The very old form `conn_url?application_name=<api_url>`.
fn from_url(value: &str, lease: i64) -> Member {
    let (conn_url, query) = value.split_once('?').unwrap_or((value, ""));
    let api_url = query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(name, _)| *name == "application_name")
        .map(|(_, value)| percent_decoded(value));
    Member { conn_url: Some(conn_url.to_owned()), api_url, lease, ..Member::default() }
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let code = tail.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        match code.and_then(|two| u8::from_str_radix(two, 16).ok()) {
            Some(byte) if first == b'%' => {
                bytes.push(byte);
                rest = tail.get(2..).unwrap_or_default();
            }
            _ => {
                bytes.push(if first == b'+' { b' ' } else { first });
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_streaming_replica_is_written_as_patroni_writes_it() {
        // P010, P017: the captured record of patroni-compat 1.3.
        let captured = r#"{"conn_url":"postgres://127.0.0.1:30542/postgres","api_url":"http://127.0.0.1:30082/patroni","state":"running","role":"replica","version":"4.1.5","tags":{"datacenter":"dc1"},"xlog_location":50331648,"replay_lsn":50331648,"receive_lsn":50331648,"replication_state":"streaming","timeline":1}"#;
        let read = member(captured, 7);
        assert_eq!(read.receive_lsn, Some(Lsn(50_331_648)));
        assert_eq!(read.lease, 7);
        assert_eq!(member_text(&read), captured);
    }

    #[test]
    fn what_waits_is_published() {
        // P012–P016
        let captured = r#"{"conn_url":"c","api_url":"a","state":"running","role":"promoted","version":"4.1.5","proxy_url":"p","checkpoint_after_promote":false,"pending_restart":true,"pending_restart_reason":{"max_connections":{"old_value":"50","new_value":"60"}},"timeline":2,"scheduled_restart":{"schedule":"2026-11-20T09:04:00+00:00"},"pause":true}"#;
        let read = member(captured, 0);
        assert!(read.checkpoint_pending && read.pause && read.pending_restart_flag);
        assert_eq!(read.pending_restart.get("max_connections"), Some(&("50".to_owned(), "60".to_owned())));
        assert_eq!(member_text(&read), captured);
    }

    #[test]
    fn old_forms_are_read() {
        let old = member(
            "postgres://u:p@10.0.0.1:5432/postgres?application_name=http%3A%2F%2F10.0.0.1:8008/patroni",
            1,
        );
        assert_eq!(old.conn_url.as_deref(), Some("postgres://u:p@10.0.0.1:5432/postgres"));
        assert_eq!(old.api_url.as_deref(), Some("http://10.0.0.1:8008/patroni"));
        assert_eq!(member(r#"{"role":"master"}"#, 0).role, "primary");
        let kwargs = member(r#"{"conn_kwargs":{"host":"::1","port":5433}}"#, 0);
        assert_eq!(kwargs.conn_url.as_deref(), Some("postgresql://[::1]:5433"));
        assert!(member(r#"{"pause":"True"}"#, 0).pause);
    }

    #[test]
    fn what_is_no_record_reads_as_nothing_known() {
        for text in ["", "{", "[]", "3", "null", "\"x\"", r#"{"conn_url":5,"tags":[],"timeline":-1}"#] {
            assert_eq!(member(text, 0), Member::default(), "{text}");
        }
    }
}
