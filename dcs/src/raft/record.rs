//! Sealed records: what this member keeps on disk carries a checksum over its place and its content,
//! so that a record that was torn, flipped or put elsewhere is noticed and never read as something else.

use ring::digest::{Context, SHA256};

/// Bytes of the checksum: the first of a SHA-256.
const SEAL: usize = 8;

/// A record is not what was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the record {place} is damaged")]
pub(super) struct Damaged {
    pub place: String,
}

/// The content, sealed for its place.
pub(super) fn seal(place: &str, content: &[u8]) -> Vec<u8> {
    let mut sealed = digest(place, content).to_vec();
    sealed.extend_from_slice(content);
    sealed
}

/// The content, if the seal is whole.
pub(super) fn open<'a>(place: &str, sealed: &'a [u8]) -> Result<&'a [u8], Damaged> {
    let parts = sealed.split_at_checked(SEAL);
    let whole = parts.filter(|(seal, content)| digest(place, content) == **seal);
    whole.map(|(_, content)| content).ok_or_else(|| Damaged { place: place.to_owned() })
}

fn digest(place: &str, content: &[u8]) -> [u8; SEAL] {
    let mut context = Context::new(&SHA256);
    context.update(place.as_bytes());
    context.update(&[0]);
    context.update(content);
    let mut short = [0; SEAL];
    short.iter_mut().zip(context.finish().as_ref()).for_each(|(to, from)| *to = *from);
    short
}
