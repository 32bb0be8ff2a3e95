//! What the daemon and the fencer share: which processes are the local instance's, how they are killed,
//! and the words in which the two speak to each other. Both programs contain this module; it
//! waits for nobody but processes that it has killed, and knows no store.

pub mod deadline;
pub mod kill;
pub mod record;
pub mod scan;
pub mod words;
