//! Whatever is written, loading answers: it never panics and never hangs.

use config::{ClusterConfig, Effective, load};
use proptest::prelude::*;
use serde_json::Value;

fn fragment() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("postgresql".to_owned()),
        Just("parameters".to_owned()),
        Just("bootstrap".to_owned()),
        Just("dcs".to_owned()),
        Just("etcd".to_owned()),
        Just("tags".to_owned()),
        Just("listen".to_owned()),
        Just("ttl".to_owned()),
        Just(": ".to_owned()),
        Just(":\n".to_owned()),
        Just("\n  ".to_owned()),
        Just("\n- ".to_owned()),
        Just("&a ".to_owned()),
        Just("*a".to_owned()),
        Just("<<: ".to_owned()),
        Just("{".to_owned()),
        Just("}".to_owned()),
        Just("[".to_owned()),
        Just("'".to_owned()),
        Just("|\n".to_owned()),
        "[0-9.:,é/]{1,9}",
        "\\PC{0,6}",
    ]
}

fn json() -> impl Strategy<Value = Value> {
    let key = prop_oneof![
        Just("ttl".to_owned()),
        Just("loop_wait".to_owned()),
        Just("retry_timeout".to_owned()),
        Just("maximum_lag_on_failover".to_owned()),
        Just("postgresql".to_owned()),
        Just("parameters".to_owned()),
        Just("wal_keep_segments".to_owned()),
        Just("wal_keep_size".to_owned()),
        Just("basebackup".to_owned()),
        Just("standby_cluster".to_owned()),
        "[a-z._]{0,8}",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[-0-9a-zA-Z.:]{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(key.clone(), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_text_is_answered(text in "\\PC{0,200}") {
        let _ = load(None, [("PATRONI_CONFIGURATION".to_owned(), text)].into_iter());
    }

    #[test]
    fn anything_that_looks_like_a_configuration_is_answered(parts in prop::collection::vec(fragment(), 0..40)) {
        let _ = load(None, [("PATRONI_CONFIGURATION".to_owned(), parts.concat())].into_iter());
    }

    #[test]
    fn any_variable_is_answered(value in "\\PC{0,30}", name in "[A-Z_]{0,20}") {
        let variables = [
            ("PATRONI_RESTAPI_ALLOWLIST".to_owned(), value.clone()),
            ("PATRONI_LOG_STATIC_FIELDS".to_owned(), value.clone()),
            ("PATRONI_POSTGRESQL_LISTEN".to_owned(), value.clone()),
            (format!("PATRONI_{name}"), value),
        ];
        let _ = load(None, variables.into_iter());
    }

    #[test]
    fn any_document_leaves_settings_that_fit_together(first in json(), second in json()) {
        let (good, _) = ClusterConfig::from_document(&first);
        let (after, _) = ClusterConfig::from_document_after(&second, &good);
        for config in [&good, &after] {
            prop_assert!(config.ttl.as_secs() >= 2);
            prop_assert!(config.loop_wait.as_secs() >= 1);
            prop_assert!(config.loop_wait + 2 * config.retry_timeout <= config.ttl);
        }
        let text = include_str!("fixtures/simple.yml").to_owned();
        let loaded = load(None, [("PATRONI_CONFIGURATION".to_owned(), text)].into_iter());
        prop_assert!(loaded.is_ok());
        if let Ok(loaded) = loaded {
            let effective = Effective::of(&loaded.node, &after, 15);
            prop_assert_eq!(effective.parameters.get("hot_standby").map(String::as_str), Some("on"));
            prop_assert_eq!(effective.parameters.get("port").map(String::as_str), Some("5432"));
        }
    }
}
