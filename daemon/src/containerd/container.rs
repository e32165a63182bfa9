//! Containers: containerd's metadata objects.
//!
//! Labels say which sandbox and which of its two containers; an extension
//! holds the sandbox's ledger record, so that a lost ledger loses history and
//! not sandboxes.

use std::collections::HashMap;
use std::fmt;

use containerd_client::services::v1::container::Runtime;
use containerd_client::services::v1::{
    Container, CreateContainerRequest, DeleteContainerRequest, GetContainerRequest, ListContainersRequest,
};
use prost::Message;
use prost_types::Any;
use roost_proto::id::SandboxId;

use super::client::Client;
use super::error::{Error, Idempotent};
use super::spec::{ContainerSpec, Program, Role};

/// Label: id of the sandbox.
const SANDBOX_LABEL: &str = "roost.io/sandbox";
/// Label: `display` or `workload`.
const ROLE_LABEL: &str = "roost.io/role";
/// Label: the highest layer that it runs on, which must stay while it exists.
const CHAIN_LABEL: &str = "roost.io/chain";
/// Extension: the ledger's record, as JSON.
const RECORD_EXTENSION: &str = "roost.io/record";
/// The only runtime shim that every supported containerd has.
const RUNTIME: &str = "io.containerd.runc.v2";
/// How containerd names the JSON of an OCI spec.
const SPEC_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";
/// How containerd names the JSON of an OCI process.
pub(super) const PROCESS_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";

/// One container of one sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ContainerId {
    /// Whose.
    pub sandbox: SandboxId,
    /// Which of the two.
    pub role: Role,
}

impl ContainerId {
    /// Names a container.
    #[must_use]
    pub fn new(sandbox: &SandboxId, role: Role) -> Self {
        Self { sandbox: sandbox.clone(), role }
    }

    /// Reads containerd's id; none if the container is not of this daemon.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (sandbox, role) = text.rsplit_once('-')?;
        let role = Role::ALL.into_iter().find(|r| r.as_str() == role)?;
        Some(Self { sandbox: sandbox.parse().ok()?, role })
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.sandbox, self.role.as_str())
    }
}

/// Options of the runc shim, `containerd.runc.v1.Options`. Only what is set
/// here; the crate does not compile this message.
#[derive(Clone, PartialEq, Message)]
struct RuncOptions {
    /// Cgroup of the shim process.
    #[prost(string, tag = "3")]
    shim_cgroup: String,
    /// The runtime's program; without it the shim takes `runc`.
    #[prost(string, tag = "6")]
    binary_name: String,
    /// runc's state directory.
    #[prost(string, tag = "7")]
    root: String,
}

/// Where the runtime keeps what is not the sandbox's.
#[derive(Debug, Clone)]
pub struct RuntimeOptions {
    /// Cgroup that holds the shims, outside the daemon's own.
    pub shim_cgroup: String,
    /// runc's state directory, of this daemon alone.
    pub runc_root: String,
    /// The OCI runtime's program: a name in containerd's search path, or an
    /// absolute path.
    pub binary: String,
}

/// A container of this daemon as containerd lists it.
#[derive(Debug, Clone)]
pub struct ContainerRecord {
    /// Which container.
    pub id: ContainerId,
    /// The ledger's record as of its creation, JSON.
    pub record_json: Option<Vec<u8>>,
    /// The highest layer that it runs on; none of an older daemon's.
    pub chain_id: Option<String>,
}

/// What a container is made from.
#[derive(Debug, Clone, Copy)]
pub struct ContainerImage<'a> {
    /// Name of the image.
    pub name: &'a str,
    /// Its highest layer.
    pub chain_id: &'a str,
}

impl Client {
    /// Makes a container; an older one of the same id is replaced.
    ///
    /// # Errors
    /// containerd's refusal, or that it is unavailable.
    pub async fn create_container(
        &self,
        image: ContainerImage<'_>,
        spec: &ContainerSpec<'_>,
        runtime: &RuntimeOptions,
        record_json: &[u8],
    ) -> Result<(), Error> {
        let id = ContainerId::new(spec.sandbox_id, spec.role);
        let options = RuncOptions {
            shim_cgroup: runtime.shim_cgroup.clone(),
            binary_name: runtime.binary.clone(),
            root: runtime.runc_root.clone(),
        };
        let labels = [
            (SANDBOX_LABEL, spec.sandbox_id.as_str()),
            (ROLE_LABEL, spec.role.as_str()),
            (CHAIN_LABEL, image.chain_id),
        ];
        let container = Container {
            id: id.to_string(),
            labels: labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            image: image.name.to_owned(),
            runtime: Some(Runtime {
                name: RUNTIME.into(),
                options: Some(Any { type_url: "containerd.runc.v1.Options".into(), value: options.encode_to_vec() }),
            }),
            spec: Some(Any { type_url: SPEC_TYPE.into(), value: spec.to_json().to_string().into_bytes() }),
            extensions: HashMap::from([(
                RECORD_EXTENSION.to_owned(),
                Any { type_url: RECORD_EXTENSION.into(), value: record_json.to_vec() },
            )]),
            ..Container::default()
        };
        let create = || self.request(CreateContainerRequest { container: Some(container.clone()) });
        match self.containers().create(create()).await.map_err(Error::of("create container", id.to_string())) {
            Err(error) if error.is_already_exists() => {
                self.delete_container(&id).await?;
                let answer = self.containers().create(create()).await;
                answer.map(drop).map_err(Error::of("create container", id.to_string()))
            }
            result => result.map(drop),
        }
    }

    /// Removes a container's record; one that is gone is success.
    ///
    /// # Errors
    /// containerd's refusal (its task runs), or that it is unavailable.
    pub async fn delete_container(&self, id: &ContainerId) -> Result<(), Error> {
        let request = self.request(DeleteContainerRequest { id: id.to_string() });
        self.containers().delete(request).await.map_err(Error::of("delete container", id.to_string())).or_gone()
    }

    /// The program that a container was made with, whatever its image says by
    /// now.
    ///
    /// # Errors
    /// That the container is gone, its spec cannot be read, or containerd is
    /// unavailable.
    pub async fn container_program(&self, id: &ContainerId) -> Result<Program, Error> {
        let object = || format!("container {id}");
        let request = self.request(GetContainerRequest { id: id.to_string() });
        let answer = self.containers().get(request).await.map_err(Error::of("get container", object()))?;
        let spec = answer.into_inner().container.and_then(|container| container.spec);
        let program = spec.and_then(|spec| Program::from_spec(&spec.value));
        program.ok_or_else(|| Error::Answer { operation: "get container", object: object(), missing: "its program" })
    }

    /// Every container of this daemon.
    ///
    /// # Errors
    /// That containerd is unavailable.
    pub async fn list_containers(&self) -> Result<Vec<ContainerRecord>, Error> {
        let request = self.request(ListContainersRequest { filters: vec![format!("labels.\"{SANDBOX_LABEL}\"")] });
        let answer = self.containers().list(request).await.map_err(Error::of("list", "containers"))?;
        let records = answer.into_inner().containers.into_iter().filter_map(|mut container| {
            let id = ContainerId::parse(&container.id)?;
            let record_json = container.extensions.remove(RECORD_EXTENSION).map(|any| any.value);
            let chain_id = container.labels.remove(CHAIN_LABEL);
            Some(ContainerRecord { id, record_json, chain_id })
        });
        Ok(records.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_parse_back_and_foreign_ones_do_not() {
        let id = ContainerId::new(&SandboxId::random(), Role::Workload);
        assert_eq!(ContainerId::parse(&id.to_string()), Some(id.clone()));
        assert_eq!(ContainerId::parse(id.sandbox.as_str()), None);
        assert_eq!(ContainerId::parse("k8s-pod-display"), None);
    }
}
