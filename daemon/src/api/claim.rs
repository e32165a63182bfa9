//! Claims and pools.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use roost_proto::convert::{InvalidMessage, parse, require};
use roost_proto::id::PoolName;
use roost_proto::model::{Binding, Pool, PoolSpec};
use roost_proto::node as wire;
use tonic::Status;

use super::convert;
use super::status::invalid;
use crate::host::inside::NewFile;
use crate::pool::Pools;
use crate::sandbox::claim::{Bound, Parcel};
use crate::sandbox::manager::claim::{Claim, From};
use crate::sandbox::{RequestError, View};

/// Most bytes that files and secrets of one claim may take: half of the
/// largest message.
const CONTENT_MAX_BYTES: usize = 2 << 20;
/// Most files of one claim.
const FILES_MAX: usize = 256;
/// Permission bits of a file that names none.
const DEFAULT_MODE: u32 = 0o600;

/// What the API asks about claims and pools.
#[tonic::async_trait]
pub trait Claims: Send + Sync + 'static {
    /// Gives a desktop to whoever claims it.
    ///
    /// # Errors
    /// See [`RequestError`].
    async fn claim(&self, claim: Claim) -> Result<(View, Bound), RequestError>;

    /// Makes a pool or replaces what it is to be.
    ///
    /// # Errors
    /// See [`RequestError`].
    async fn put(&self, spec: PoolSpec) -> Result<Pool, RequestError>;

    /// Removes a pool.
    ///
    /// # Errors
    /// See [`RequestError`].
    async fn remove(&self, name: &PoolName) -> Result<(), RequestError>;

    /// Every pool.
    fn list(&self) -> Vec<Pool>;
}

#[tonic::async_trait]
impl Claims for Pools {
    async fn claim(&self, claim: Claim) -> Result<(View, Bound), RequestError> {
        Self::claim(self, claim).await
    }

    async fn put(&self, spec: PoolSpec) -> Result<Pool, RequestError> {
        Self::put(self, spec).await
    }

    async fn remove(&self, name: &PoolName) -> Result<(), RequestError> {
        Self::remove(self, name).await
    }

    fn list(&self) -> Vec<Pool> {
        Self::list(self)
    }
}

pub(super) async fn claim(
    claims: &dyn Claims,
    request: wire::ClaimSandboxRequest,
) -> Result<wire::ClaimSandboxResponse, Status> {
    let claim = read(request).map_err(invalid)?;
    let (view, bound) = claims.claim(claim).await?;
    let step = |(name, time): (&str, std::time::Duration)| wire::BindStep {
        name: name.to_owned(),
        duration_us: u64::try_from(time.as_micros()).unwrap_or(u64::MAX),
    };
    let steps = bound.steps.into_iter().map(step).collect();
    Ok(wire::ClaimSandboxResponse { sandbox: Some(convert::sandbox(view)), steps })
}

fn read(request: wire::ClaimSandboxRequest) -> Result<Claim, InvalidMessage> {
    use wire::claim_sandbox_request::From as FromWire;
    let binding: Binding = require("binding", request.binding)?.try_into()?;
    let secrets: BTreeMap<String, Vec<u8>> = request.secrets.into_iter().collect();
    check_secrets(&binding.secrets, &secrets)?;
    let files = request.files.into_iter().map(read_file).collect::<Result<Vec<_>, _>>()?;
    let bytes: usize =
        secrets.values().map(Vec::len).sum::<usize>() + files.iter().map(|f| f.content.len()).sum::<usize>();
    if bytes > CONTENT_MAX_BYTES || files.len() > FILES_MAX {
        let problem = format!(
            "with secrets they take {bytes} bytes: at most {CONTENT_MAX_BYTES} in {FILES_MAX} files are taken, copy more with `roost sandbox cp`"
        );
        return Err(InvalidMessage::field("files", problem));
    }
    let optional = |text: String| (!text.is_empty()).then_some(text);
    Ok(Claim {
        from: match require("from", request.from)? {
            FromWire::Pool(pool) => From::Pool(parse("pool", &pool)?),
            FromWire::SandboxId(id) => From::Sandbox(convert::sandbox_id(&id)?),
        },
        name: optional(request.name).map(|name| parse("name", &name)).transpose()?,
        tenant: optional(request.tenant).map(|tenant| parse("tenant", &tenant)).transpose()?,
        resources: request.resources.map(Into::into),
        lifetime: request.lifetime.map(TryInto::try_into).transpose()?.unwrap_or_default(),
        parcel: Parcel::new(binding.claim_id.clone(), secrets, files),
        binding,
    })
}

/// Every value has a name in the binding. A name without a value is one that
/// an earlier call brought.
fn check_secrets(names: &BTreeSet<String>, values: &BTreeMap<String, Vec<u8>>) -> Result<(), InvalidMessage> {
    match values.keys().find(|name| !names.contains(*name)) {
        Some(name) => Err(InvalidMessage::field(format!("secrets.{name}"), "is not among binding.secrets")),
        None => Ok(()),
    }
}

fn read_file(file: wire::BoundFile) -> Result<NewFile, InvalidMessage> {
    let fault = |problem: &str| Err(InvalidMessage::field(format!("files.{}", file.path), problem));
    let path = Path::new(&file.path);
    let climbs = path.components().any(|part| part == std::path::Component::ParentDir);
    if !path.is_absolute() || climbs || file.path.contains('\0') || file.path.ends_with('/') {
        return fault("must be the absolute path of a file, without \"..\"");
    }
    if file.mode > 0o777 {
        return fault("mode: permission bits alone are taken, e.g. 0644");
    }
    let mode = if file.mode == 0 { DEFAULT_MODE } else { file.mode };
    Ok(NewFile { path: path.to_owned(), content: file.content, mode })
}

pub(super) async fn put_pool(claims: &dyn Claims, request: wire::PutPoolRequest) -> Result<wire::Pool, Status> {
    let spec = require("spec", request.spec).and_then(TryInto::try_into).map_err(invalid)?;
    Ok(claims.put(spec).await?.into())
}

pub(super) async fn remove_pool(
    claims: &dyn Claims,
    request: wire::RemovePoolRequest,
) -> Result<wire::RemovePoolResponse, Status> {
    let name = parse("name", &request.name).map_err(invalid)?;
    claims.remove(&name).await?;
    Ok(wire::RemovePoolResponse {})
}

pub(super) fn list_pools(claims: &dyn Claims) -> wire::ListPoolsResponse {
    wire::ListPoolsResponse { pools: claims.list().into_iter().map(Into::into).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use roost_proto::id::ClaimId;

    fn request() -> wire::ClaimSandboxRequest {
        wire::ClaimSandboxRequest {
            from: Some(wire::claim_sandbox_request::From::Pool("p".into())),
            binding: Some(Binding::new(ClaimId::random()).into()),
            ..wire::ClaimSandboxRequest::default()
        }
    }

    fn field(request: wire::ClaimSandboxRequest) -> String {
        read(request).unwrap_err().0.remove(0).field
    }

    #[test]
    fn a_claim_names_the_field_that_is_wrong() {
        assert_eq!(field(wire::ClaimSandboxRequest { from: None, ..request() }), "from");
        assert_eq!(field(wire::ClaimSandboxRequest { binding: None, ..request() }), "binding");
        let secrets = [("key".to_owned(), vec![1])].into();
        assert_eq!(field(wire::ClaimSandboxRequest { secrets, ..request() }), "secrets.key");
        for path in ["relative", "/a/../b", "/dir/"] {
            let file = wire::BoundFile { path: path.into(), content: vec![], mode: 0 };
            assert_eq!(field(wire::ClaimSandboxRequest { files: vec![file], ..request() }), format!("files.{path}"));
        }
        let large = wire::BoundFile { path: "/a".into(), content: vec![0; CONTENT_MAX_BYTES + 1], mode: 0 };
        assert_eq!(field(wire::ClaimSandboxRequest { files: vec![large], ..request() }), "files");
        let setuid = wire::BoundFile { path: "/a".into(), content: vec![], mode: 0o4755 };
        assert_eq!(field(wire::ClaimSandboxRequest { files: vec![setuid], ..request() }), "files./a");
    }
}
