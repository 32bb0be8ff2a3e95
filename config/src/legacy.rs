//! Names that older Patroni versions used (patroni-compat 3.1 item 10), moved
//! to where they are today before anything is checked.

use crate::tree::{Entry, Node, Shape};

/// Moves old names to new ones; what is written under the new name wins.
pub(crate) fn rename(tree: &mut Node) {
    if tree.get("name").is_none()
        && let Some(name) = tree.at("postgresql.name").cloned()
    {
        tree.put("name", name);
    }
    let has_authentication = tree.at("postgresql.authentication").is_some();
    let Some(postgresql) = section(tree, "postgresql") else { return };
    postgresql.take("name");
    let old: Vec<(&str, Option<Node>)> = ["replication", "superuser", "pg_rewind"]
        .into_iter()
        .map(|whose| {
            let is_login = postgresql.get(whose).is_some_and(|node| node.get("username").is_some());
            (whose, if is_login { postgresql.take(whose) } else { None })
        })
        .collect();
    if has_authentication {
        return;
    }
    for (whose, login) in old {
        let Some(login) = login else { continue };
        if whose == "pg_rewind" {
            // Once it meant both: rewind, and this is the superuser for it.
            let on = Node::text(&login.place, "on");
            if postgresql.get("use_pg_rewind").is_none() {
                postgresql.put("use_pg_rewind", on);
            }
            if postgresql.at("authentication.superuser").is_none() {
                postgresql.put("authentication.superuser", login);
            }
        } else {
            postgresql.put(&format!("authentication.{whose}"), login);
        }
    }
}

/// Gives the store's section in the environment the name that it has in the file.
pub(crate) fn same_etcd(file: &Node, variables: &mut Node) {
    let (from, to) = match (file.get("etcd").is_some(), file.get("etcd3").is_some()) {
        (true, false) => ("etcd3", "etcd"),
        (_, true) => ("etcd", "etcd3"),
        (false, false) => return,
    };
    move_over(variables, from, to);
}

/// Leaves one section for etcd, `etcd3`, which wins where both are written.
pub(crate) fn one_etcd(tree: &mut Node) {
    if let Some(mut old) = tree.take("etcd") {
        if let Some(new) = tree.take("etcd3") {
            old.merge(new);
        }
        tree.put("etcd3", old);
    }
}

fn move_over(tree: &mut Node, from: &str, to: &str) {
    if let Some(mut moved) = tree.take(from) {
        if let Some(own) = tree.take(to) {
            moved.merge(own);
        }
        tree.put(to, moved);
    }
}

fn section<'a>(tree: &'a mut Node, key: &str) -> Option<&'a mut Node> {
    let Shape::Map(entries) = &mut tree.shape else { return None };
    let entry: &mut Entry = entries.iter_mut().find(|e| e.key == key)?;
    Some(&mut entry.node)
}
