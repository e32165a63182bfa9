//! A pair of gRPC streams as one byte stream.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt, Stream, StreamExt};
use roost_proto::convert::parse;
use roost_proto::id::{NodeId, TunnelId};
use roost_proto::node::TunnelData;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_util::io::{CopyToBytes, SinkWriter, StreamReader};
use tokio_util::sync::{CancellationToken, PollSender};
use tonic::{Status, Streaming};

use super::sessions::Sessions;

/// Time until a new tunnel has said which one it is.
const FIRST_MESSAGE_TIMEOUT: Duration = Duration::from_secs(5);

/// Reads and writes of a tunnel.
pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// An open tunnel.
pub(super) type TunnelIo = Box<dyn Io>;

/// Reads which tunnel this is and hands it to whoever asked for it.
pub(super) async fn accept(
    sessions: Arc<Sessions>,
    node: NodeId,
    mut inbound: Streaming<TunnelData>,
    out_tx: mpsc::Sender<Result<TunnelData, Status>>,
) {
    let first = tokio::time::timeout(FIRST_MESSAGE_TIMEOUT, inbound.message()).await;
    let Ok(Ok(Some(first))) = first else {
        tracing::debug!("tunnel ended before it named itself");
        return;
    };
    let id: TunnelId = match parse("tunnel_id", &first.tunnel_id) {
        Ok(id) => id,
        // Fails only when the node is gone, and then it needs no answer.
        Err(error) => return drop(out_tx.send(Err(Status::invalid_argument(error.to_string()))).await),
    };
    let Some(closed) = sessions.closed(&node) else {
        return drop(out_tx.send(Err(Status::unauthenticated("a tunnel needs the session of its node"))).await);
    };
    let tunnel = bytes_of(first.data, inbound, out_tx.clone(), closed);
    if !sessions.deliver(&node, &id, tunnel) {
        tracing::debug!(tunnel = %id, "nobody waits for the tunnel");
        drop(out_tx.send(Err(Status::not_found("nobody waits for this tunnel"))).await);
    }
}

fn bytes_of(
    first: Vec<u8>,
    inbound: Streaming<TunnelData>,
    out_tx: mpsc::Sender<Result<TunnelData, Status>>,
    closed: CancellationToken,
) -> TunnelIo {
    // Whatever is under way ends with the session: the certificate of a
    // removed node is good for nothing from that moment.
    let reader = StreamReader::new(chunks(first, inbound).take_until(Box::pin(closed.cancelled_owned())));
    let sink =
        PollSender::new(out_tx).sink_map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe)).with(|data: Bytes| {
            std::future::ready(io::Result::Ok(Ok(TunnelData { tunnel_id: String::new(), data: data.into() })))
        });
    let writer = SinkWriter::new(CopyToBytes::new(sink));
    Box::new(tokio::io::join(reader, writer))
}

fn chunks(first: Vec<u8>, inbound: Streaming<TunnelData>) -> impl Stream<Item = io::Result<Bytes>> + Send + Unpin {
    let first = futures::stream::iter((!first.is_empty()).then(|| Ok(Bytes::from(first))));
    first.chain(inbound.map(|message| message.map(|m| Bytes::from(m.data)).map_err(io::Error::other)))
}
