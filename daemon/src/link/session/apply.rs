//! Desired state from the stream into the ledger, in its order.

use std::time::Duration;

use roost_proto::convert::InvalidMessage;
use roost_proto::node::node_message::Body as ToCentral;
use roost_proto::node::{DesiredAck, DesiredState, NodeMessage};
use tokio::sync::mpsc;

use super::super::{NodeSandboxes, desired, unix_ms};
use super::error::SessionError;
use super::send;
use crate::sandbox::ApplyError;

/// Pause before central is asked to send again what the ledger refused.
const LEDGER_PAUSE: Duration = Duration::from_secs(1);

/// Applies desired states in their order and acknowledges what is durable;
/// returns only when the stream is over.
pub(super) async fn apply(
    sandboxes: &dyn NodeSandboxes,
    mut states: mpsc::Receiver<DesiredState>,
    outbound: &mpsc::Sender<NodeMessage>,
) -> SessionError {
    while let Some(state) = states.recv().await {
        let ack = match apply_one(sandboxes, state).await {
            Ok(ack) => ack,
            Err(error) => {
                // Not acknowledged: central shows the node as behind, and
                // sends all again with the next stream.
                tracing::error!(%error, "desired state cannot be read");
                continue;
            }
        };
        if let Err(error) = send(outbound, ToCentral::DesiredAck(ack)).await {
            return error;
        }
    }
    SessionError::Closed
}

async fn apply_one(sandboxes: &dyn NodeSandboxes, state: DesiredState) -> Result<DesiredAck, InvalidMessage> {
    let DesiredState { generation, full, base_generation, sandboxes: list } = state;
    let list = desired::read(list, unix_ms())?;
    Ok(match sandboxes.apply_central(generation, full, base_generation, list).await {
        Ok(held) => {
            tracing::debug!(generation, held, full, "desired state applied");
            DesiredAck { generation: held, resync: false }
        }
        Err(ApplyError::Base { base, held }) => {
            tracing::info!(base, held, "desired state builds on another generation: asking for all");
            DesiredAck { generation: held, resync: true }
        }
        Err(error @ ApplyError::Ledger(_)) => {
            let error = crate::api::status::chain(&error);
            tracing::error!(error, "desired state cannot be kept: asking for it again");
            tokio::time::sleep(LEDGER_PAUSE).await;
            DesiredAck { generation: sandboxes.central_generation(), resync: true }
        }
    })
}
