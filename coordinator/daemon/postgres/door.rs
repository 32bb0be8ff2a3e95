//! Whether a server still lets anybody in: one question that its postmaster must answer
//! with a new process. Sessions that are open already cannot tell that (F38).

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use super::Target;

/// `SSLRequest`: its length, and 1234.5679 as the protocol's version.
const ASK: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// Returns once the server has answered a new connection. It needs no login, no free connection
/// slot, and leaves no line in the server's log.
pub async fn knock(target: &Target, deadline: Duration) -> io::Result<()> {
    let knocking = async {
        if target.host.starts_with('/') {
            let socket = format!("{}/.s.PGSQL.{}", target.host, target.port);
            ask(UnixStream::connect(socket).await?).await
        } else {
            ask(TcpStream::connect((target.host.as_str(), target.port)).await?).await
        }
    };
    tokio::time::timeout(deadline, knocking).await?
}

async fn ask(mut door: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    door.write_all(&ASK).await?;
    // `S`, `N`, or an error message: any answer is one.
    door.read_u8().await.map(drop)
}
