//! Which node goes by which name. Names break ties in `decide`, so a turn is taken under each order of the others: what
//! is true of every order is true of the one that a cluster has, and states that differ by names alone are one state.

use std::sync::LazyLock;

use config::NodeName;

use super::state::{Id, NODES};

/// An assignment of names to nodes.
#[derive(Debug)]
pub struct Cast {
    names: [NodeName; NODES],
}

impl Cast {
    fn of(order: [&str; NODES]) -> Option<Self> {
        let [one, two, three] = order.map(NodeName::new);
        Some(Self { names: [one.ok()?, two.ok()?, three.ok()?] })
    }

    /// The names in order, or with those of the two others than `node` exchanged. There always are: each is a good name.
    #[must_use]
    pub fn seen_by(node: usize, swapped: bool) -> Option<&'static Self> {
        static CASTS: LazyLock<[Option<Cast>; 4]> = LazyLock::new(|| {
            [
                Cast::of(["n1", "n2", "n3"]),
                Cast::of(["n1", "n3", "n2"]),
                Cast::of(["n3", "n2", "n1"]),
                Cast::of(["n2", "n1", "n3"]),
            ]
        });
        let [plain, first, second, third] = &*CASTS;
        let cast = match (swapped, node) {
            (false, _) => plain,
            (true, 0) => first,
            (true, 1) => second,
            (true, _) => third,
        };
        cast.as_ref()
    }

    /// A node's name.
    #[must_use]
    pub fn name(&self, node: usize) -> &NodeName {
        // Nodes are three, and so are the names.
        self.names.get(node).unwrap_or(&self.names[0])
    }

    /// The node of a name, in whatever case.
    #[must_use]
    pub fn id(&self, name: &str) -> Id {
        let at = self.names.iter().position(|known| known.as_str().eq_ignore_ascii_case(name));
        Id::try_from(at.unwrap_or(NODES)).unwrap_or(Id::MAX)
    }

    /// The nodes of these names, a bit each.
    #[must_use]
    pub fn mask<'a>(&self, names: impl IntoIterator<Item = &'a String>) -> u8 {
        names.into_iter().fold(0, |mask, name| mask | 1_u8.checked_shl(u32::from(self.id(name))).unwrap_or(0))
    }

    /// The names of these nodes.
    pub fn names(&self, mask: u8) -> impl Iterator<Item = String> {
        (0..NODES).filter(move |node| mask & (1 << node) != 0).map(|node| self.name(node).to_string())
    }
}
