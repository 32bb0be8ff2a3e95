//! Where each record of a cluster lives in the store (patroni-compat 1.1, 1.2).
//!
//! The layout is Patroni's, byte for byte; what is matriarch's own lives below
//! `<base>/matriarch/`. This file never looks at values.

use config::NodeName;

/// The keys of one cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    base: String,
}

/// One record's place below the base path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// `leader`: the holder's bare name, under its lease.
    Leader,
    /// `members/<name>`: what one member says of itself, under its lease.
    Member(NodeName),
    /// `initialize`: empty while somebody bootstraps, then the system identifier.
    Initialize,
    /// `config`: the dynamic configuration.
    Config,
    /// `status`: the leader's position and slots.
    Status,
    /// `history`: past promotions.
    History,
    /// `failover`: a requested switchover or failover.
    Failover,
    /// `sync`: which commits wait for whom.
    Sync,
    /// `failsafe`: with whom the leader may outlive the store.
    Failsafe,
    /// `optime/leader`: the position as members older than 2.1.0 read it.
    OptimeLeader,
    /// `matriarch/bootstrap`: who wrote the empty `initialize` (ours, not Patroni's).
    Bootstrap,
    /// `matriarch/generation`: how many stores the cluster has lived in, if more than one (ours).
    Generation,
    /// `matriarch/reign`: who took the lead last; written together with the leader key (ours).
    Reign,
    /// `matriarch/claim`: the last timeline that a leader has claimed, and which leader (ours).
    Claim,
}

impl Keys {
    /// The keys of cluster `scope` in `namespace`: `/namespace/scope`, every run of slashes one.
    #[must_use]
    pub fn new(namespace: &str, scope: &str) -> Self {
        let mut base = String::from("/");
        for part in namespace.split('/').chain(scope.split('/')).filter(|part| !part.is_empty()) {
            if base.len() > 1 {
                base.push('/');
            }
            base.push_str(part);
        }
        Self { base }
    }

    /// The base path, without a slash at its end.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.base
    }

    /// What every key of the cluster starts with.
    #[must_use]
    pub fn prefix(&self) -> String {
        format!("{}/", self.base)
    }

    /// The full key of a place.
    #[must_use]
    pub fn path(&self, place: &Place) -> String {
        let base = &self.base;
        match place {
            Place::Member(name) => format!("{base}/members/{name}"),
            Place::Leader => format!("{base}/leader"),
            Place::Initialize => format!("{base}/initialize"),
            Place::Config => format!("{base}/config"),
            Place::Status => format!("{base}/status"),
            Place::History => format!("{base}/history"),
            Place::Failover => format!("{base}/failover"),
            Place::Sync => format!("{base}/sync"),
            Place::Failsafe => format!("{base}/failsafe"),
            Place::OptimeLeader => format!("{base}/optime/leader"),
            Place::Bootstrap => format!("{base}/matriarch/bootstrap"),
            Place::Generation => format!("{base}/matriarch/generation"),
            Place::Reign => format!("{base}/matriarch/reign"),
            Place::Claim => format!("{base}/matriarch/claim"),
        }
    }

    /// What lives at `path`; `None` if nothing we know does.
    #[must_use]
    pub fn place(&self, path: &str) -> Option<Place> {
        let rest = path.strip_prefix(self.base.as_str())?.strip_prefix('/')?;
        Some(match rest {
            "leader" => Place::Leader,
            "initialize" => Place::Initialize,
            "config" => Place::Config,
            "status" => Place::Status,
            "history" => Place::History,
            "failover" => Place::Failover,
            "sync" => Place::Sync,
            "failsafe" => Place::Failsafe,
            "optime/leader" => Place::OptimeLeader,
            "matriarch/bootstrap" => Place::Bootstrap,
            "matriarch/generation" => Place::Generation,
            "matriarch/reign" => Place::Reign,
            "matriarch/claim" => Place::Claim,
            other => Place::Member(NodeName::new(other.strip_prefix("members/")?).ok()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> NodeName {
        NodeName::new(text).unwrap()
    }

    #[test]
    fn slashes_collapse() {
        // P001, P002
        assert_eq!(Keys::new("service", "batman").base(), "/service/batman");
        assert_eq!(Keys::new("/service/", "batman").base(), "/service/batman");
        assert_eq!(Keys::new("/x//", "batman").path(&Place::Leader), "/x/batman/leader");
        assert_eq!(Keys::new("a//b", "c").prefix(), "/a/b/c/");
        assert_eq!(Keys::new("", "c").prefix(), "/c/");
    }

    #[test]
    fn every_place_is_found_again() {
        let keys = Keys::new("service", "batman");
        for place in [
            Place::Leader,
            Place::Member(name("node1")),
            Place::Initialize,
            Place::Config,
            Place::Status,
            Place::History,
            Place::Failover,
            Place::Sync,
            Place::Failsafe,
            Place::OptimeLeader,
            Place::Bootstrap,
            Place::Generation,
            Place::Reign,
            Place::Claim,
        ] {
            assert_eq!(keys.place(&keys.path(&place)), Some(place));
        }
    }

    #[test]
    fn foreign_keys_have_no_place() {
        // P035
        let keys = Keys::new("service", "batman");
        for path in [
            "/service/batman/foo",
            "/service/batman2/leader",
            "/service/batman",
            "/service/batman/0/leader",
            "/service/batman/members/a/b",
            "/service/batman/members/",
            "leader",
            "",
        ] {
            assert_eq!(keys.place(path), None, "{path}");
        }
    }

    proptest! {
        #[test]
        fn no_path_panics(path in ".*", namespace in ".*", scope in ".*") {
            let keys = Keys::new(&namespace, &scope);
            let _ = keys.place(&path);
            prop_assert!(!keys.base().contains("//"));
        }
    }
}
