//! The door for a later daemon: a socket in the fencer's folder, which only its owner can enter, and a nonce that is good
//! for one successor. Nobody is let in while the daemon is connected.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;

use rustix::net::sockopt::socket_peercred;
use rustix::net::{
    AddressFamily, RecvFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen, recv,
    socket_with,
};

use crate::fencing::words::{LARGEST, NONCE, NONCE_FILE, Order, SOCKET};

/// The door.
pub struct Door {
    /// Where a successor knocks.
    pub listener: OwnedFd,
    nonce: [u8; NONCE],
}

impl Door {
    /// Opens it in the working directory, in place of an earlier fencer's.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub fn open() -> io::Result<Self> {
        let listener = socket_with(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )?;
        match fs::remove_file(SOCKET) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        bind(&listener, &SocketAddrUnix::new(SOCKET)?)?;
        listen(&listener, 4)?;
        Ok(Self { listener, nonce: fresh_nonce()? })
    }

    /// Somebody who knocked and is of the same user.
    pub fn answer(&self) -> Option<OwnedFd> {
        let guest = accept_with(&self.listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK).ok()?;
        let peer = socket_peercred(&guest).ok()?;
        (peer.uid == rustix::process::geteuid()).then_some(guest)
    }

    /// Whether the guest's first word proves that it is the successor; the nonce is spent then. An error is one who
    /// proved the contrary, or has not spoken.
    pub fn admit(&mut self, guest: &OwnedFd) -> bool {
        let mut buffer = [0; LARGEST];
        let Ok((said, _)) = recv(guest, &mut buffer, RecvFlags::DONTWAIT) else { return false };
        let claimed = buffer.get(..said).and_then(Order::decode);
        if claimed != Some(Order::Claim(self.nonce)) {
            return false;
        }
        // Without a new one nobody could succeed the successor; the old one is good for nobody.
        self.nonce = fresh_nonce().unwrap_or_else(|_| random().unwrap_or_default());
        true
    }
}

/// A new nonce, where only the owner of the folder reads it.
#[allow(clippy::disallowed_methods, reason = "a file of the fencer's own, in its folder")]
fn fresh_nonce() -> io::Result<[u8; NONCE]> {
    let nonce = random()?;
    let unready = format!("{NONCE_FILE}.new");
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&unready)?;
    file.write_all(&nonce)?;
    fs::rename(&unready, NONCE_FILE)?;
    Ok(nonce)
}

fn random() -> io::Result<[u8; NONCE]> {
    let mut nonce = [0; NONCE];
    File::open("/dev/urandom")?.read_exact(&mut nonce)?;
    Ok(nonce)
}
