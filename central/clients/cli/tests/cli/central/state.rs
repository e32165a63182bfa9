//! What the server holds, and how it is told to misbehave.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::Request;
use roost_proto::model::{Node, Profile, Sandbox, Template};

use super::Change;

/// One request that was made.
#[derive(Debug, Clone)]
pub(crate) struct Recorded {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: Vec<(String, String)>,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Bytes,
}

impl Recorded {
    pub(crate) fn of<B>(request: &Request<B>) -> Self {
        let query = request.uri().query().unwrap_or_default();
        Self {
            method: request.method().to_string(),
            path: request.uri().path().trim_start_matches("/api/v1").to_owned(),
            query: form_urlencoded::parse(query.as_bytes()).into_owned().collect(),
            headers: request.headers().clone(),
            body: Bytes::new(),
        }
    }

    pub(crate) fn param(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) sandboxes: BTreeMap<String, Sandbox>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) templates: BTreeMap<String, Template>,
    pub(crate) profiles: BTreeMap<String, Profile>,
    /// First answers by idempotency key.
    pub(crate) answers: BTreeMap<String, Sandbox>,
    pub(crate) requests: Vec<Recorded>,
    pub(crate) changes: Vec<Change>,
    /// So many creates lose their connection after they took effect.
    pub(crate) lost_creates: u32,
    /// Starts end in Failed, with this reason and message.
    pub(crate) start_fails: Option<(&'static str, &'static str)>,
    /// Starts never end.
    pub(crate) start_hangs: bool,
    /// So many watches break after one event.
    pub(crate) broken_watches: u32,
    /// Sandboxes on one page of a list.
    pub(crate) page_size: Option<usize>,
}

impl State {
    pub(crate) fn put(&mut self, sandbox: Sandbox) -> String {
        let id = sandbox.id.to_string();
        self.sandboxes.insert(id.clone(), sandbox);
        id
    }

    pub(crate) fn find(&self, name_or_id: &str) -> Option<&Sandbox> {
        let is_meant = |sandbox: &&Sandbox| {
            sandbox.id.as_str() == name_or_id || sandbox.name.as_ref().is_some_and(|name| name.as_str() == name_or_id)
        };
        self.sandboxes.values().find(is_meant)
    }

    pub(super) fn number(&mut self, id: &str, kind: &'static str, data: String) -> Change {
        let number = u64::try_from(self.changes.len()).unwrap() + 1;
        let change = Change { number, kind, sandbox_id: id.into(), data };
        self.changes.push(change.clone());
        change
    }
}
