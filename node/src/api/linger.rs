//! A stream that is not dropped over what its peer still sends.
//!
//! Closing a socket with unread bytes in it makes the kernel answer with a reset, and a reset takes
//! with it what the peer has not read yet: here the very answer that says what was wrong with a
//! message that is too large (RFC 9112, section 9.6, asks servers to close in two steps for that
//! reason).

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    sync::Semaphore,
};

/// A peer that goes on sending is heard so long.
const LINGER: Duration = Duration::from_secs(1);
/// Streams that linger at once; one beyond that is closed as it is, for clients that come and go by
/// the thousand must not pile up.
const MAX_LINGERING: usize = 32;
const CHUNK_BYTES: usize = 4 * 1024;

/// Places for streams that linger. Cheap to clone; clones share the places.
#[derive(Clone)]
pub(super) struct Lingering(Arc<Semaphore>);

impl Lingering {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(MAX_LINGERING)))
    }

    /// The stream, which will linger when it is dropped.
    pub(super) fn stream<S>(&self, stream: S) -> LingeringStream<S>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        LingeringStream { stream: Some(stream), places: self.clone() }
    }
}

/// See [`Lingering::stream`].
pub(super) struct LingeringStream<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> {
    /// There until it is dropped.
    stream: Option<S>,
    places: Lingering,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> LingeringStream<S> {
    fn inner(&mut self) -> io::Result<Pin<&mut S>> {
        self.stream.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Drop for LingeringStream<S> {
    fn drop(&mut self) {
        let Some(stream) = self.stream.take() else { return };
        let Ok(place) = Arc::clone(&self.places.0).try_acquire_owned() else { return };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                // Whoever takes longer misses nothing.
                let _ = tokio::time::timeout(LINGER, hear_out(stream)).await;
                drop(place);
            });
        }
    }
}

/// Says that nothing more comes, then reads until the peer says so too.
async fn hear_out(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    stream.shutdown().await?;
    let mut chunk = [0; CHUNK_BYTES];
    while stream.read(&mut chunk).await? > 0 {}
    Ok(())
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> AsyncRead for LingeringStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.get_mut().inner()?.poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> AsyncWrite for LingeringStream<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().inner()?.poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().inner()?.poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().inner()?.poll_shutdown(context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().inner()?.poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use tokio::net::UnixStream;

    use super::*;

    /// A peer that still sends when it is answered, and reads afterwards; what it reads.
    async fn talk(places: &Lingering) -> io::Result<String> {
        let (server, mut client) = UnixStream::pair().unwrap();
        let mut server = places.stream(server);
        client.write_all(&[b'x'; 70_000]).await?;
        server.read_exact(&mut [0; 10]).await?;
        server.write_all(b"too large").await?;
        drop(server);
        client.write_all(&[b'x'; 200_000]).await?;
        client.shutdown().await?;
        let mut answer = String::new();
        client.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    #[tokio::test]
    async fn a_peer_that_still_sends_reads_the_answer() {
        assert_eq!(talk(&Lingering::new()).await.unwrap(), "too large");
    }

    #[tokio::test]
    async fn streams_that_linger_are_few_and_give_their_place_back() {
        let places = Lingering::new();
        let open = || {
            let (server, client) = UnixStream::pair().unwrap();
            drop(places.stream(server));
            client
        };
        let clients: Vec<_> = (0..MAX_LINGERING).map(|_| open()).collect();
        assert_eq!(places.0.available_permits(), 0);
        assert!(talk(&places).await.is_err(), "it was closed over what was sent");
        drop(clients);
        let freed = tokio::time::timeout(Duration::from_secs(20), async {
            Arc::clone(&places.0).acquire_many_owned(u32::try_from(MAX_LINGERING).unwrap()).await
        });
        drop(freed.await.unwrap());
        assert_eq!(talk(&places).await.unwrap(), "too large");
    }
}
