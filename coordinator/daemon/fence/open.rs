//! Getting a fencer: that of an earlier daemon, which still guards what that one left running, or a new one.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;

use rustix::net::sockopt::socket_peercred;
use rustix::net::{
    AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, send, socket_with, socketpair,
};

use super::Post;
use crate::command::Program;
use crate::command::pidfd::Pidfd;
use crate::fencing::words::{NONCE, NONCE_FILE, Order, SOCKET};

/// There is no fencer.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its program is missing.
    #[error("there is no {0}: install matriarch-fencer in the same folder as matriarch")]
    NoProgram(String),
    /// Its folder cannot be used.
    #[error("{folder}, where matriarch-fencer works, cannot be used: {source}")]
    Folder {
        /// Which.
        folder: String,
        /// Why.
        source: io::Error,
    },
    /// The system refused.
    #[error("matriarch-fencer could not be started: {0}")]
    Start(#[source] io::Error),
    /// The program could not be started.
    #[error(transparent)]
    Command(#[from] crate::command::CommandError),
}

/// A fencer: the socket to it, and its process.
#[derive(Debug)]
pub struct Link {
    /// Where it is told and speaks.
    pub socket: OwnedFd,
    /// Itself.
    pub process: Pidfd,
}

/// Makes the folder, which only its owner may enter.
pub fn folder(post: &Post) -> Result<(), OpenError> {
    let failed = |source| OpenError::Folder { folder: post.folder.display().to_string(), source };
    match DirBuilder::new().mode(0o700).create(&post.folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
        _ => {}
    }
    let found = fs::symlink_metadata(&post.folder).map_err(failed)?;
    if !found.is_dir() || found.uid() != rustix::process::geteuid().as_raw() {
        return Err(failed(io::Error::other("it is not a folder of this user")));
    }
    if found.mode() & 0o077 != 0 {
        fs::set_permissions(&post.folder, fs::Permissions::from_mode(0o700)).map_err(failed)?;
    }
    Ok(())
}

/// Starts a new one.
pub fn start(post: &Post) -> Result<Link, OpenError> {
    if !post.program.is_file() {
        return Err(OpenError::NoProgram(post.program.display().to_string()));
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None);
    let (ours, theirs) = pair.map_err(|error| OpenError::Start(error.into()))?;
    let program = Program::new(&post.program).in_dir(&post.folder);
    let pid = program.start_companion(theirs)?;
    let process = Pidfd::open(pid).map_err(OpenError::Start)?;
    Ok(Link { socket: ours, process })
}

/// Knocks at the fencer of an earlier daemon; nothing if there is none. It has yet to answer.
pub fn succeed(post: &Post) -> io::Result<Option<Link>> {
    let nonce = match fs::read(post.folder.join(NONCE_FILE)) {
        Ok(nonce) => nonce,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let Ok(nonce) = <[u8; NONCE]>::try_from(nonce) else { return Ok(None) };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    // A socket's own path may be no longer than 107 bytes.
    let folder = fs::File::open(&post.folder)?;
    let address = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(SOCKET);
    match connect(&socket, &SocketAddrUnix::new(&address)?) {
        Ok(()) => {}
        Err(rustix::io::Errno::CONNREFUSED | rustix::io::Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let peer = socket_peercred(&socket)?;
    if peer.uid != rustix::process::geteuid() {
        return Err(io::Error::other("another user listens there"));
    }
    let pid = u32::try_from(peer.pid.as_raw_nonzero().get()).map_err(io::Error::other)?;
    let process = match Pidfd::open(pid) {
        Ok(process) => process,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    send(&socket, &Order::Claim(nonce).encode(), SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?;
    Ok(Some(Link { socket, process }))
}
