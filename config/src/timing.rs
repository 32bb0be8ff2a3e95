//! Whether `ttl`, `loop_wait` and `retry_timeout` fit together. What does not
//! is adjusted in memory with a warning; the document is left as it is.

use std::time::Duration;

use crate::ClusterConfig;
use crate::problem::{Place, Problem};
use crate::tree::Node;

/// Patroni's smallest ttl; from here on its own rules apply, digit for digit.
const PATRONI: Duration = Duration::from_secs(20);
const SECOND: Duration = Duration::from_secs(1);

/// Fits the three to each other (patroni-compat 3.1 item 7; below 20 s each keeps about a third).
pub(crate) fn adjust(config: &mut ClusterConfig, tree: &Node, prefix: &str, problems: &mut Vec<Problem>) {
    let (place, path) = (tree.place_of("ttl"), format!("{prefix}ttl"));
    let written = (config.loop_wait, config.retry_timeout);
    let patroni = config.ttl >= PATRONI;
    config.loop_wait = config.loop_wait.max(SECOND);
    config.retry_timeout = config.retry_timeout.max(if patroni { 3 * SECOND } else { SECOND / 2 });
    if patroni {
        fit_as_patroni(config);
    } else {
        fit_short(config);
    }
    let adjusted = (config.loop_wait, config.retry_timeout);
    // Defaults that shrink with a short ttl surprise nobody.
    if adjusted != written && (tree.get("loop_wait").is_some() || tree.get("retry_timeout").is_some()) {
        problems.push(Problem::warning(
            &place,
            &path,
            format!(
                "of {} is too short for loop_wait {} and retry_timeout {}; loop_wait {} and retry_timeout {} are used",
                shown(config.ttl),
                shown(written.0),
                shown(written.1),
                shown(adjusted.0),
                shown(adjusted.1)
            ),
            "keep loop_wait + 2 × retry_timeout within ttl, retry_timeout at least 3 s and loop_wait at least 1 s",
        ));
    }
}

fn fit_as_patroni(config: &mut ClusterConfig) {
    let ttl = config.ttl;
    if SECOND + 2 * config.retry_timeout > ttl {
        config.loop_wait = SECOND;
        config.retry_timeout = Duration::from_secs((ttl - SECOND).as_secs() / 2);
    } else if config.loop_wait + 2 * config.retry_timeout > ttl {
        config.loop_wait = ttl - 2 * config.retry_timeout;
    }
}

fn fit_short(config: &mut ClusterConfig) {
    let ttl = config.ttl;
    if config.loop_wait + 2 * config.retry_timeout <= ttl {
        return;
    }
    config.retry_timeout = config.retry_timeout.min(ttl / 3).min((ttl - SECOND) / 2);
    config.loop_wait = config.loop_wait.min(ttl - 2 * config.retry_timeout);
}

/// What a short ttl costs on this store, if anything.
pub(crate) fn short_ttl(ttl: Duration, embedded: bool, place: &Place, path: &str) -> Option<Problem> {
    let cannot = match ttl.as_secs() {
        10.. => return None,
        // An election of the embedded store takes less than its max_timeout twice.
        2.. if embedded => return None,
        5..10 => "a change of etcd's leader that takes longer than about 2.5 s",
        3..5 => "a change of etcd's leader at its default election timeout of 1 s",
        _ => "any hiccup of the store",
    };
    let advice = match embedded {
        true => "write at least 2",
        false => {
            "write at least 10 to ride out a change of etcd's leader; a Patroni member of the cluster counts with 20 s"
        }
    };
    let found = format!("is {}: the leader is demoted by {cannot}", shown(ttl));
    Some(Problem::warning(place, path, found, advice))
}

fn shown(duration: Duration) -> String {
    format!("{} s", (duration.as_secs_f64() * 1000.0).round() / 1000.0)
}
