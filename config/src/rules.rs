//! Rules across fields of a node's file: what contradicts itself, and what is
//! left out for which a default serves.

use crate::address::{Address, Listen};
use crate::options::{Arguments, Tool};
use crate::parameters;
use crate::problem::{Place, Problem, Severity};
use crate::quantity;
use crate::read;
use crate::tree::Node;
use crate::{ClusterConfig, timing};

/// Adds what is wrong between the keys of `tree`.
pub(crate) fn check(tree: &Node, problems: &mut Vec<Problem>) {
    logins(tree, problems);
    authentication(tree, problems);
    certificates(tree, problems);
    tags(tree, problems);
    ports(tree, problems);
    programs(tree, problems);
    parameters_of_ours(tree, problems);
    first_settings(tree, problems);
    recorder(tree, problems);
    if let Some(place) = tree.at("citus").map(|node| &node.place) {
        problems.push(Problem::error(
            place,
            "citus",
            "makes this node part of a Citus cluster, which matriarch does not support",
            "remove the section if this is a plain cluster",
        ));
    }
}

fn logins(tree: &Node, problems: &mut Vec<Problem>) {
    for path in ["restapi.authentication", "ctl.authentication"] {
        let has = |key: &str| read::text(tree, &format!("{path}.{key}")).is_some();
        let missing = match (has("username"), has("password")) {
            (true, false) => "password",
            (false, true) => "username",
            _ => continue,
        };
        problems.push(Problem::error(
            &tree.place_of(path),
            path,
            format!("has no {missing}"),
            "write both username and password, or neither",
        ));
    }
}

fn authentication(tree: &Node, problems: &mut Vec<Problem>) {
    for (whose, default) in [("superuser", "postgres"), ("replication", "replicator")] {
        let path = format!("postgresql.authentication.{whose}");
        let section = tree.at(&path);
        let username = read::text(tree, &format!("{path}.username"));
        let place = tree.place_of(&path);
        if section.is_some_and(Node::is_section) && username.is_none() {
            let advice = format!("write username: {default}");
            problems.push(Problem::error(&place, &path, "has no username", advice));
        } else if section.is_none() {
            problems.push(Problem::warning(
                &place,
                &path,
                format!("is missing; the role {default} is used without a password"),
                "write its username and password, or let pg_hba trust it",
            ));
        }
    }
    let rewind = "postgresql.authentication.rewind";
    if tree.at(rewind).is_some_and(Node::is_section)
        && read::text(tree, &format!("{rewind}.username")).is_none()
    {
        let advice = "write its username, or remove the section: the superuser is used then";
        problems.push(Problem::error(&tree.place_of(rewind), rewind, "has no username", advice));
    }
    let known = ["superuser", "replication", "rewind"];
    let section = tree.at("postgresql.authentication").map(Node::entries).unwrap_or_default();
    for entry in section.iter().filter(|e| !known.contains(&e.key.as_str())) {
        problems.push(Problem::warning(
            &entry.place,
            &format!("postgresql.authentication.{}", entry.key),
            "is ignored",
            "only superuser, replication and rewind have a meaning here",
        ));
    }
}

fn certificates(tree: &Node, problems: &mut Vec<Problem>) {
    let has = |path: &str| read::text(tree, path).is_some();
    if has("restapi.keyfile") && !has("restapi.certfile") {
        problems.push(Problem::error(
            &tree.place_of("restapi.keyfile"),
            "restapi.keyfile",
            "is given without restapi.certfile",
            "write certfile too, or remove keyfile to serve plain HTTP",
        ));
    }
    let verifies = read::text(tree, "restapi.verify_client").is_some_and(|v| v != "none");
    if verifies && !has("restapi.certfile") {
        problems.push(Problem::warning(
            &tree.place_of("restapi.verify_client"),
            "restapi.verify_client",
            "has no effect without restapi.certfile, because the interface speaks plain HTTP",
            "write certfile, keyfile and cafile",
        ));
    }
    if verifies && has("restapi.certfile") && !has("restapi.cafile") {
        problems.push(Problem::error(
            &tree.place_of("restapi.verify_client"),
            "restapi.verify_client",
            "asks for client certificates, and no restapi.cafile says whose",
            "write cafile",
        ));
    }
    for section in ["etcd3", "etcd"] {
        let (cert, key) = (format!("{section}.cert"), format!("{section}.key"));
        if has(&key) && !has(&cert) {
            let place = tree.place_of(&key);
            problems.push(Problem::error(&place, &key, format!("is given without {cert}"), "write both"));
        }
    }
}

fn tags(tree: &Node, problems: &mut Vec<Problem>) {
    for (flag, rank) in [("nofailover", "failover_priority"), ("nosync", "sync_priority")] {
        let (flag, rank) = (format!("tags.{flag}"), format!("tags.{rank}"));
        let on = tree.at(&flag).and_then(Node::as_text).and_then(quantity::boolean);
        let (Some(on), Some(priority)) = (on, read::integer(tree, &rank)) else { continue };
        if on == (priority > 0) {
            // Operators search their logs for Patroni's sentence, so it stands in ours.
            let short = |path: &str| path.trim_start_matches("tags.").to_owned();
            let (name, value) = (short(&flag), if on { "True" } else { "False" });
            let found = format!(
                "wins over {rank}. Conflicting configuration between {name}: {value} and {}: {priority}. \
                 Defaulting to {name}: {value}",
                short(&rank)
            );
            let advice = format!("keep one of the two: {rank} 0 means the same as {flag} on");
            problems.push(Problem::warning(&tree.place_of(&flag), &flag, found, advice));
        }
    }
    if let Some(from) = read::text(tree, "tags.replicatefrom")
        && read::text(tree, "name").as_deref() == Some(&from)
    {
        problems.push(Problem::error(
            &tree.place_of("tags.replicatefrom"),
            "tags.replicatefrom",
            "names this node itself",
            "name another member, or remove the tag",
        ));
    }
}

fn ports(tree: &Node, problems: &mut Vec<Problem>) {
    let rest = read::text(tree, "restapi.listen").and_then(|t| Address::parse(&t));
    let postgres = read::text(tree, "postgresql.listen").and_then(|t| Listen::parse(&t));
    let (Some(rest), Some(postgres)) = (rest, postgres) else { return };
    let any = |host: &str| matches!(host, "0.0.0.0" | "*" | "::");
    let overlap = any(&rest.host) || postgres.addresses.iter().any(|a| any(a) || *a == rest.host);
    if rest.port == postgres.port && overlap {
        problems.push(Problem::error(
            &tree.place_of("restapi.listen"),
            "restapi.listen",
            format!("uses port {}, on which Postgres is to listen too", rest.port),
            "give them different ports: 8008 and 5432 are usual",
        ));
    }
}

/// Options of the programs are left out where matriarch decides; that must not stop a node.
fn programs(tree: &Node, problems: &mut Vec<Problem>) {
    for base in ["", "bootstrap.dcs."] {
        for (key, tool) in [("basebackup", Tool::Basebackup), ("rewind", Tool::Rewind)] {
            let path = format!("{base}postgresql.{key}");
            let Some(node) = tree.at(&path) else { continue };
            let (_, refused) = Arguments::read(node, &path, tool);
            problems.extend(refused.into_iter().map(|p| Problem { severity: Severity::Warning, ..p }));
        }
    }
    let methods = ["postgresql", "bootstrap.dcs.postgresql"]
        .map(|base| format!("{base}.create_replica_methods"))
        .into_iter()
        .find(|path| tree.at(path).is_some());
    if let Some(path) = methods {
        let names = read::names(tree, &path);
        for name in names.iter().filter(|name| *name != "basebackup") {
            let defined = ["postgresql", "bootstrap.dcs.postgresql"]
                .iter()
                .any(|base| tree.at(&format!("{base}.{name}")).is_some());
            let undefined = if defined { "" } else { ", and no section says how it works" };
            problems.push(Problem::warning(
                &tree.place_of(&path),
                &path,
                format!("names {name:?}, which matriarch does not act on yet{undefined}"),
                "replicas are made by pg_basebackup",
            ));
        }
    }
    let place = tree.place_of("postgresql.custom_conf");
    if place != Place::Missing && read::path(tree, "postgresql.custom_conf").is_some_and(|p| p.is_relative())
    {
        problems.push(Problem::warning(
            &place,
            "postgresql.custom_conf",
            "is relative to the directory of postgresql.conf",
            "write an absolute path if that is not meant",
        ));
    }
}

fn parameters_of_ours(tree: &Node, problems: &mut Vec<Problem>) {
    for entry in tree.at("postgresql.parameters").map(Node::entries).unwrap_or_default() {
        let name = entry.key.to_ascii_lowercase();
        let path = format!("postgresql.parameters.{name}");
        match parameters::find(&name) {
            Some(owned) if owned.default.is_empty() => {
                problems.push(owned.refusal(&entry.place, &path, ""));
            }
            Some(_) => problems.push(Problem::warning(
                &entry.place,
                &path,
                "must be the same on every member, so it is ignored in a node's file",
                format!("set it with matriarchctl edit-config, or for a new cluster as bootstrap.dcs.{path}"),
            )),
            None => {}
        }
    }
    let base = "bootstrap.dcs.postgresql.parameters";
    for entry in tree.at(base).map(Node::entries).unwrap_or_default() {
        let name = entry.key.to_ascii_lowercase();
        let Some(value) = entry.node.as_text() else { continue };
        if let Some(owned) = parameters::find(&name).filter(|owned| !owned.accepts.accepts(value)) {
            problems.push(owned.refusal(&entry.node.place, &format!("{base}.{name}"), value));
        }
    }
}

/// What is in the data directory moves with it, is cloned, and counts as Postgres's.
fn recorder(tree: &Node, problems: &mut Vec<Problem>) {
    let key = "matriarch.recorder.dir";
    let (Some(dir), Some(data)) = (read::path(tree, key), read::path(tree, "postgresql.data_dir")) else {
        return;
    };
    if dir.starts_with(&data) {
        problems.push(Problem::error(
            &tree.place_of(key),
            key,
            "is within the data directory, which a clone replaces as a whole",
            "name a directory outside, or leave it out: <data_dir>.turns is used then",
        ));
    }
}

/// How the settings that a cluster begins with fit together; a default ttl needs no comment.
fn first_settings(tree: &Node, problems: &mut Vec<Problem>) {
    let Some(dcs) = tree.at("bootstrap.dcs").filter(|dcs| dcs.get("ttl").is_some()) else { return };
    let mut first = ClusterConfig::read(dcs);
    timing::adjust(&mut first, dcs, "bootstrap.dcs.", problems);
    let embedded = ["etcd3", "etcd"].iter().all(|key| tree.get(key).is_none());
    problems.extend(timing::short_ttl(first.ttl, embedded, &dcs.place_of("ttl"), "bootstrap.dcs.ttl"));
}
