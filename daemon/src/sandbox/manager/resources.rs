//! Requests that change a wish: decided, made durable, passed on.

use roost_proto::convert::InvalidMessage;
use roost_proto::id::SandboxId;

use super::{Manager, RequestError};
use crate::host::fault;
use crate::reconcile::ledger::{Change, Record};
use crate::sandbox::request_queue::{Decision, DeniedReason};
use crate::sandbox::{Desired, View};

impl Manager {
    /// Makes a decision durable and passes it on.
    pub(super) async fn settle(
        &self,
        id: &SandboxId,
        decide: impl FnOnce(&Desired, &View) -> Result<Decision, InvalidMessage> + Send,
    ) -> Result<View, RequestError> {
        let _lane = self.lane.lock().await;
        let not_found = || RequestError::NotFound(id.clone());
        let view = self.get(id).ok_or_else(not_found)?;
        let record = self.lock().handles.get(id).map(|h| h.record.clone()).ok_or_else(not_found)?;
        match decide(&record.desired, &view).map_err(RequestError::Invalid)? {
            Decision::Ignore => {}
            Decision::Deny(DeniedReason::Deleting) => return Err(RequestError::Deleting(id.clone())),
            Decision::Deny(DeniedReason::NotRunning) => return Err(RequestError::NotRunning(id.clone())),
            Decision::Deny(DeniedReason::OwnedByCentral) => return Err(RequestError::OwnedByCentral(id.clone())),
            Decision::Accept(desired) => {
                let record = Record { desired: desired.into(), ..record };
                self.services.ledger.commit(vec![Change::Put(Box::new(record.clone()))]).await?;
                fault::pass("request.durable");
                self.tell(record);
            }
        }
        self.get(id).ok_or_else(not_found)
    }
}
