//! A connection that hands over in one piece what several tasks write one after the other: a renewal is three frames of two
//! requests, and each write over the network costs more than everything before it. It waits for no time and no event:
//! only for the tasks that were to run already. It changes no byte and no order.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How often a flush lets the other tasks of its thread run first: a request passes through this many until it is written.
const TURNS: u8 = 3;
/// From this many bytes on nothing is waited for.
const ENOUGH: usize = 16 << 10;

/// A connection whose writes are gathered until it is flushed.
pub(super) struct Gather<S> {
    stream: S,
    /// What was taken in and not yet handed over.
    held: Vec<u8>,
    /// How often the flush under way has let others run.
    turns: u8,
}

impl<S: AsyncWrite + Unpin> Gather<S> {
    pub fn new(stream: S) -> Self {
        Self { stream, held: Vec::new(), turns: 0 }
    }

    /// Hands over what is held.
    fn hand_over(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.held.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.held))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.held.drain(..written);
        }
        self.turns = 0;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gather<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.held.len() >= ENOUGH {
            ready!(self.hand_over(cx))?;
        }
        self.held.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.held.len() >= ENOUGH {
            ready!(self.hand_over(cx))?;
        }
        let before = self.held.len();
        pieces.iter().for_each(|piece| self.held.extend_from_slice(piece));
        Poll::Ready(Ok(self.held.len() - before))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.held.is_empty() && self.held.len() < ENOUGH && self.turns < TURNS {
            self.turns += 1;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        ready!(self.hand_over(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.hand_over(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gather<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// What two tasks write one after the other arrives in one piece, whole and in order.
    #[tokio::test]
    async fn what_is_written_while_a_flush_waits_goes_along() {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let mut gather = Gather::new(near);
        gather.write_all(b"first ").await.unwrap();
        let mut asked = 0;
        poll_fn(|cx| {
            asked += 1;
            if asked == 2 {
                let pieces = [io::IoSlice::new(b"sec"), io::IoSlice::new(b"ond")];
                assert!(matches!(Pin::new(&mut gather).poll_write_vectored(cx, &pieces), Poll::Ready(Ok(6))));
            }
            Pin::new(&mut gather).poll_flush(cx)
        })
        .await
        .unwrap();
        assert_eq!(asked, usize::from(TURNS) + 1, "it ends by itself");
        let mut arrived = [0; 64];
        let length = far.read(&mut arrived).await.unwrap();
        assert_eq!(&arrived[..length], b"first second");
    }

    /// A reader that is slower than the writer holds it up and loses nothing.
    #[tokio::test]
    async fn more_than_fits_is_held_back_and_not_lost() {
        let (near, mut far) = tokio::io::duplex(1000);
        let mut gather = Gather::new(near);
        let sent: Vec<u8> = (0..200_000_u32).map(|at| (at % 251) as u8).collect();
        let (written, read) = tokio::join!(
            async {
                for piece in sent.chunks(7001) {
                    gather.write_all(piece).await?;
                }
                gather.shutdown().await
            },
            async {
                let mut arrived = Vec::new();
                far.read_to_end(&mut arrived).await.map(|_| arrived)
            }
        );
        written.unwrap();
        assert_eq!(read.unwrap(), sent);
    }
}
