//! containerd's blobs: written as streams, read whole only when small.

use std::collections::HashMap;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use containerd_client::services::v1::{
    AbortRequest, Info, ReadContentRequest, StatusRequest, UpdateRequest, WriteAction, WriteContentRequest,
};
use futures::{Stream, StreamExt};
use prost_types::FieldMask;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;

use super::client::Client;
use super::error::{Error, Idempotent};
use super::lease::LeaseId;

/// Messages between a blob's source and the connection: one under way, one
/// ready.
const QUEUE_MESSAGES: usize = 2;
/// Longest time that containerd may take no data.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest commit: containerd then flushes the whole blob to the disk.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(300);

/// What is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewContent {
    /// `sha256:…`; containerd checks it, too.
    pub digest: String,
    /// Size, in bytes.
    pub size_bytes: u64,
    /// Where the stream begins, in bytes: what [`written`] says, or 0.
    pub offset_bytes: u64,
    /// Labels of the blob.
    pub labels: HashMap<String, String>,
}

/// Writes a blob, held by a lease. A blob that is there already gets the
/// labels and the lease; of the stream then nothing is read. A
/// stream that fails leaves nothing but a partial write, which ends with the
/// lease. `on_bytes` hears of each piece that was handed over.
///
/// # Errors
/// The stream's own, or containerd's.
pub async fn write<E: From<Error>>(
    client: &Client,
    lease: &LeaseId,
    content: &NewContent,
    stream: impl Stream<Item = Result<Bytes, E>> + Send,
    on_bytes: impl Fn(u64) + Send,
) -> Result<(), E> {
    let (message_tx, message_rx) = mpsc::channel(QUEUE_MESSAGES);
    let (wanted_tx, wanted_rx) = oneshot::channel();
    let feeding = feed(content, lease, stream, Wire { message_tx, wanted_rx }, on_bytes);
    let mut feeding = pin!(feeding);
    let mut calling = pin!(call(client, lease, content, message_rx, wanted_tx));
    let written = tokio::select! {
        // Both are only borrowed: whichever is not done goes on below. The
        // call ends first if containerd refuses or has the blob.
        result = &mut calling => result,
        result = &mut feeding => {
            result?;
            let no_answer = |_| Err(Error::Timeout { operation: "commit content", object: content.digest.clone() });
            timeout(COMMIT_TIMEOUT, calling).await.unwrap_or_else(no_answer)
        }
    };
    match written {
        Err(error) if error.is_already_exists() => Ok(set_labels(client, &content.digest, &content.labels).await?),
        result => Ok(result?),
    }
}

/// Name of a partial write. One for each lease: two imports at once do not
/// lock each other out, and the second to commit finds the blob there.
fn write_ref(lease: &LeaseId, digest: &str) -> String {
    format!("{lease}-{digest}")
}

/// Bytes of a blob that an earlier, broken write under this lease left.
///
/// # Errors
/// That containerd fails.
pub async fn written(client: &Client, lease: &LeaseId, digest: &str) -> Result<u64, Error> {
    let request = client.request_leased(StatusRequest { r#ref: write_ref(lease, digest) }, lease);
    match client.content().status(request).await.map_err(Error::of("look up write", format!("blob {digest}"))) {
        Ok(answer) => {
            Ok(answer.into_inner().status.map_or(0, |status| u64::try_from(status.offset).unwrap_or_default()))
        }
        Err(error) if error.is_not_found() => Ok(0),
        Err(error) => Err(error),
    }
}

/// Throws a partial write away; none is success.
///
/// # Errors
/// That containerd fails.
pub async fn abort(client: &Client, lease: &LeaseId, digest: &str) -> Result<(), Error> {
    let request = client.request_leased(AbortRequest { r#ref: write_ref(lease, digest) }, lease);
    client.content().abort(request).await.map_err(Error::of("abort write", format!("blob {digest}"))).or_gone()
}

/// The feeding end of a write call.
struct Wire {
    message_tx: mpsc::Sender<WriteContentRequest>,
    /// Told once containerd wants the bytes; dropped if it does not.
    wanted_rx: oneshot::Receiver<()>,
}

/// Turns the stream into write messages, the last of them the commit.
async fn feed<E: From<Error>>(
    content: &NewContent,
    lease: &LeaseId,
    stream: impl Stream<Item = Result<Bytes, E>> + Send,
    wire: Wire,
    on_bytes: impl Fn(u64) + Send,
) -> Result<(), E> {
    let Wire { message_tx, wanted_rx } = wire;
    let send = async |message| match timeout(STALL_TIMEOUT, message_tx.send(message)).await {
        // A closed queue: the call is over and says why.
        Ok(sent) => Ok(sent.is_ok()),
        Err(_) => Err(Error::Timeout { operation: "write content", object: content.digest.clone() }),
    };
    // Asks first, without data, whether containerd wants the blob at all.
    let opening = WriteContentRequest {
        action: WriteAction::Stat.into(),
        r#ref: write_ref(lease, &content.digest),
        total: content.size_bytes.cast_signed(),
        expected: content.digest.clone(),
        ..WriteContentRequest::default()
    };
    // Not a byte is asked of the source before that is known.
    if !send(opening).await? || wanted_rx.await.is_err() {
        return Ok(());
    }
    let mut stream = pin!(stream);
    let mut offset = content.offset_bytes;
    while let Some(piece) = stream.next().await {
        let data = Vec::from(piece?);
        let length = data.len() as u64;
        let action = WriteAction::Write.into();
        let message =
            WriteContentRequest { action, offset: offset.cast_signed(), data, ..WriteContentRequest::default() };
        if !send(message).await? {
            return Ok(());
        }
        offset += length;
        on_bytes(length);
    }
    let commit = WriteContentRequest {
        action: WriteAction::Commit.into(),
        offset: offset.cast_signed(),
        total: content.size_bytes.cast_signed(),
        expected: content.digest.clone(),
        labels: content.labels.clone(),
        ..WriteContentRequest::default()
    };
    send(commit).await?;
    Ok(())
}

/// Makes the call and reads its answers until the commit is one of them.
async fn call(
    client: &Client,
    lease: &LeaseId,
    content: &NewContent,
    message_rx: mpsc::Receiver<WriteContentRequest>,
    wanted_tx: oneshot::Sender<()>,
) -> Result<(), Error> {
    let object = || format!("blob {}", content.digest);
    let request = lease.hold(client.request_unbounded(ReceiverStream::new(message_rx)));
    let answers = client.content().write(request).await.map_err(Error::of("write content", object()))?;
    let mut answers = answers.into_inner();
    let mut wanted_tx = Some(wanted_tx);
    while let Some(answer) = answers.message().await.map_err(Error::of("write content", object()))? {
        if answer.action() == WriteAction::Commit {
            return Ok(());
        }
        // A source that is gone says so itself.
        if let Some(wanted_tx) = wanted_tx.take() {
            let _ = wanted_tx.send(());
        }
    }
    Err(Error::Answer { operation: "write content", object: object(), missing: "the commit" })
}

/// Sets labels of a blob; others stay.
///
/// # Errors
/// The blob is gone, or containerd fails.
pub async fn set_labels(client: &Client, digest: &str, labels: &HashMap<String, String>) -> Result<(), Error> {
    if labels.is_empty() {
        return Ok(());
    }
    let paths = labels.keys().map(|key| format!("labels.{key}")).collect();
    let info = Info { digest: digest.to_owned(), labels: labels.clone(), ..Info::default() };
    let message = UpdateRequest { info: Some(info), update_mask: Some(FieldMask { paths }) };
    let answer = client.content().update(client.request(message)).await;
    answer.map_err(Error::of("label content", format!("blob {digest}")))?;
    Ok(())
}

/// The bytes of a blob as containerd sends them. Ends with an error if it
/// breaks off.
///
/// # Errors
/// The blob is gone, or containerd fails.
pub async fn stream(
    client: &Client,
    digest: &str,
) -> Result<impl Stream<Item = Result<Bytes, Error>> + Send + use<>, Error> {
    let object = format!("blob {digest}");
    let message = ReadContentRequest { digest: digest.to_owned(), ..ReadContentRequest::default() };
    let answer = client.content().read(client.request_unbounded(message)).await;
    let pieces = answer.map_err(Error::of("read content", &*object))?.into_inner();
    Ok(pieces.map(move |piece| match piece {
        Ok(piece) => Ok(Bytes::from(piece.data)),
        Err(status) => Err(Error::from_status("read content", &*object, status)),
    }))
}

/// Reads a small blob whole.
///
/// # Errors
/// It is gone, larger than `max_bytes` or of another size than `size_bytes`,
/// or containerd fails.
pub async fn read(client: &Client, digest: &str, max_bytes: u64) -> Result<Vec<u8>, Error> {
    let object = || format!("blob {digest}");
    let failed = |status| Error::from_status("read content", object(), status);
    let message = ReadContentRequest { digest: digest.to_owned(), ..ReadContentRequest::default() };
    let reading = async {
        let mut bytes = Vec::new();
        let mut pieces = client.content().read(client.request(message)).await.map_err(failed)?.into_inner();
        while let Some(piece) = pieces.message().await.map_err(failed)? {
            bytes.extend_from_slice(&piece.data);
            if bytes.len() as u64 > max_bytes {
                return Err(Error::Answer { operation: "read content", object: object(), missing: "a small size" });
            }
        }
        Ok(bytes)
    };
    let no_answer = |_| Err(Error::Timeout { operation: "read content", object: object() });
    timeout(client.timeout(), reading).await.unwrap_or_else(no_answer)
}
