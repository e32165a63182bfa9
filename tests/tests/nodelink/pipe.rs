//! A pair of message streams as one byte stream, for tunnels of any version.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures::{Stream, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tonic::Streaming;
use tonic::transport::server::Connected;

/// Bytes under way inside of a test.
const BUFFER_BYTES: usize = 64 << 10;

/// Copies between a tunnel's messages and the byte stream that is returned.
pub(crate) fn bytes<M: Send + 'static, O: Send + 'static>(
    mut inbound: Streaming<M>,
    outbound: mpsc::Sender<O>,
    data_of: fn(M) -> Vec<u8>,
    message_of: fn(Vec<u8>) -> O,
) -> DuplexStream {
    let (ours, theirs) = tokio::io::duplex(BUFFER_BYTES);
    let (mut read, mut write) = tokio::io::split(ours);
    tokio::spawn(async move {
        while let Some(Ok(message)) = inbound.next().await {
            if write.write_all(&data_of(message)).await.is_err() {
                break;
            }
        }
    });
    tokio::spawn(async move {
        let mut buffer = vec![0; 16 << 10];
        while let Ok(length @ 1..) = read.read(&mut buffer).await {
            if outbound.send(message_of(buffer[..length].to_vec())).await.is_err() {
                break;
            }
        }
    });
    theirs
}

/// One connection for a server, which then waits for ever for the next.
pub(crate) struct Once<T>(pub(crate) Option<T>);

impl<T: Connected + Unpin> Stream for Once<T> {
    type Item = std::io::Result<T>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.take().map_or(Poll::Pending, |io| Poll::Ready(Some(Ok(io))))
    }
}
