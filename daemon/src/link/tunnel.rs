//! Tunnels: connections that central asks for and the node opens, each an
//! HTTP/2 connection of its own with central as the client of `NodeApi`.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use roost_proto::id::TunnelId;
use roost_proto::node::TunnelData;
use roost_proto::node::node_link_client::NodeLinkClient;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::io::StreamReader;
use tokio_util::sync::{CancellationToken, PollSender};
use tonic::Status;
use tonic::transport::Channel;
use tracing::Instrument;

use crate::api::Api;

/// Tunnels of one connection at once. Central multiplexes all its calls over
/// one or two; each may have [`OUT_QUEUE`] pieces under way.
const TUNNELS_MAX: usize = 16;
/// Pieces that wait for the connection: with [`CHUNK_BYTES`], 256 KiB.
const OUT_QUEUE: usize = 4;
/// Largest piece.
const CHUNK_BYTES: usize = 64 << 10;
/// Time for central to accept what it has asked for itself.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// The tunnels of one connection; they end with it.
pub(super) struct Tunnels {
    client: NodeLinkClient<Channel>,
    api: Api,
    shutdown: CancellationToken,
    running: JoinSet<()>,
}

impl Tunnels {
    pub(super) fn new(client: NodeLinkClient<Channel>, api: Api, shutdown: CancellationToken) -> Self {
        Self { client, api, shutdown, running: JoinSet::new() }
    }

    /// Opens one in the background; beyond the bound, central's wait for it
    /// runs out and the log says why.
    pub(super) fn open(&mut self, id: TunnelId) {
        if self.running.len() >= TUNNELS_MAX {
            tracing::warn!(tunnel = %id, max = TUNNELS_MAX, "tunnel refused: too many are open");
            return;
        }
        let span = tracing::info_span!("tunnel", %id);
        let serve = serve(self.client.clone(), self.api.clone(), id, self.shutdown.clone());
        self.running.spawn(serve.instrument(span));
    }

    /// Waits until a tunnel has ended; for ever if there is none.
    pub(super) async fn reap(&mut self) {
        match self.running.join_next().await {
            Some(Ok(())) => {}
            Some(Err(error)) => tracing::error!(%error, "tunnel broke"),
            None => std::future::pending().await,
        }
    }
}

async fn serve(mut client: NodeLinkClient<Channel>, api: Api, id: TunnelId, shutdown: CancellationToken) {
    match tokio::time::timeout(OPEN_TIMEOUT, connect(&mut client, &id)).await {
        Ok(Ok(io)) => {
            tracing::debug!("tunnel open");
            api.serve_tunnel(io, shutdown).await;
            tracing::debug!("tunnel closed");
        }
        Ok(Err(status)) => tracing::warn!(error = status.message(), "tunnel cannot be opened"),
        Err(_) => tracing::warn!("tunnel cannot be opened: central does not answer"),
    }
}

async fn connect(client: &mut NodeLinkClient<Channel>, id: &TunnelId) -> Result<TunnelIo, Status> {
    let (outbound, outbound_rx) = mpsc::channel(OUT_QUEUE);
    let hello = TunnelData { tunnel_id: id.to_string(), data: Vec::new() };
    // The queue is new and empty.
    outbound.try_send(hello).map_err(|_| Status::internal("a new queue is full"))?;
    let inbound = client.tunnel(ReceiverStream::new(outbound_rx)).await?.into_inner();
    let pieces = inbound.map(|piece| piece.map(|piece| Bytes::from(piece.data)).map_err(io::Error::other));
    Ok(TunnelIo { reader: StreamReader::new(Box::pin(pieces)), writer: PollSender::new(outbound) })
}

type Pieces = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// The bytes of a tunnel. Back-pressure is that of HTTP/2: nothing is read
/// ahead, and writing waits while the queue is full.
struct TunnelIo {
    reader: StreamReader<Pieces, Bytes>,
    writer: PollSender<TunnelData>,
}

impl AsyncRead for TunnelIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.reader).poll_read(cx, buf)
    }
}

impl AsyncWrite for TunnelIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let closed = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        ready!(self.writer.poll_reserve(cx)).map_err(closed)?;
        let piece = &buf[..buf.len().min(CHUNK_BYTES)];
        let message = TunnelData { tunnel_id: String::new(), data: piece.to_vec() };
        self.writer.send_item(message).map_err(closed)?;
        Poll::Ready(Ok(piece.len()))
    }

    /// What is written is in the connection's hands already.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writer.close();
        Poll::Ready(Ok(()))
    }
}
