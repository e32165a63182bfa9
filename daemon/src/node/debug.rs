//! The inside of the daemon, for people.

use std::sync::Arc;

use roost_proto::model::NodeStatus;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::api::debug::DebugSource;
use crate::config::Config;
use crate::link::LinkState;
use crate::logging::{LogControl, LoggingError};
use crate::sandbox::{Desired, Manager, Node};

/// Reads the daemon for `roost debug`.
#[derive(Debug, Clone)]
pub struct Inside {
    /// The node.
    pub node: Arc<Node>,
    /// Its sandboxes.
    pub manager: Manager,
    /// The configuration in force; it names files of secrets, never secrets.
    pub config: Config,
    /// What the node says of itself.
    pub status: watch::Receiver<NodeStatus>,
    /// The connection to central, if there is one.
    pub link: watch::Receiver<Option<LinkState>>,
    /// Hold on the log's filter.
    pub log: LogControl,
}

impl Inside {
    /// Everything the daemon holds; `show` says what of a wish is shown.
    pub fn dump(&self, show: impl Fn(&Desired) -> Desired) -> Value {
        let sandboxes: Vec<Value> = self
            .manager
            .changed_since(0)
            .iter()
            .map(|view| {
                let record = self.manager.record(&view.desired.id);
                json!({
                    "desired": show(&view.desired),
                    "observed": view.observed,
                    "change": view.change,
                    "first_id": record.map(|r| r.first_id),
                    "directory": self.node.layout.sandbox(&view.desired.id).dir(),
                })
            })
            .collect();
        json!({
            "config": self.config,
            "node": *self.status.borrow(),
            "link": *self.link.borrow(),
            "central_generation": self.manager.central_generation(),
            "id_ranges_used": self.manager.id_ranges_used(),
            "sandboxes": sandboxes,
        })
    }
}

#[tonic::async_trait]
impl DebugSource for Inside {
    async fn state(&self) -> Value {
        self.dump(Desired::clone)
    }

    fn set_log_filter(&self, filter: &str) -> Result<String, LoggingError> {
        self.log.set_filter(filter)
    }
}
