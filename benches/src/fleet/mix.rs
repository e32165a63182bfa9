//! What people ask of central, measured call by call.

use std::collections::BTreeMap;
use std::time::Duration;

use http::Method;
use roost_tests::fleet::SimFleet;
use roost_tests::{Rest, Result};
use serde_json::json;
use tokio::time::Instant;

use super::id_of;
use crate::report::Samples;

/// Path of the sandboxes.
pub(super) const SANDBOXES: &str = "/api/v1/sandboxes";
/// Callers at once.
const CALLERS: usize = 4;
/// Pause of a caller between two rounds: some hundred calls a second in all.
const PAUSE: Duration = Duration::from_millis(50);
/// Sandboxes of one page, and reads of single ones, of each round.
const PAGE: usize = 50;
const GETS: usize = 4;

/// Latencies of a mix of calls.
#[derive(Debug, Default)]
pub(super) struct Mix {
    /// Of every call.
    pub(super) all: Samples,
    calls: BTreeMap<&'static str, Samples>,
}

impl Mix {
    /// What one round of a caller is.
    pub(super) const NOTE: &'static str = "4 callers; each round: a page of 50, four gets, a create, a watch until \
                                           its first event, a delete";

    /// Has all callers ask until the time is over.
    ///
    /// # Errors
    /// The first refusal.
    pub(super) async fn run(fleet: &SimFleet, time: Duration) -> Result<Self> {
        let end = Instant::now() + time;
        let callers = (0..CALLERS).map(|_| caller(fleet, end));
        let parts = futures::future::try_join_all(callers).await?;
        Ok(parts.into_iter().fold(Self::default(), Self::plus))
    }

    /// The samples of each kind of call.
    pub(super) fn by_call(&self) -> impl Iterator<Item = (&'static str, &Samples)> {
        self.calls.iter().map(|(call, samples)| (*call, samples))
    }

    fn push(&mut self, call: &'static str, sample: Duration) {
        self.all.push(sample);
        self.calls.entry(call).or_default().push(sample);
    }

    fn plus(mut self, other: Self) -> Self {
        for (call, samples) in other.calls {
            samples.each(|sample| self.push(call, sample));
        }
        self
    }

    async fn call<T>(&mut self, name: &'static str, call: impl Future<Output = Result<T>>) -> Result<T> {
        let begun = Instant::now();
        let answer = call.await?;
        self.push(name, begun.elapsed());
        Ok(answer)
    }
}

async fn caller(fleet: &SimFleet, end: Instant) -> Result<Mix> {
    let (mut mix, mut rest, mut page) = (Mix::default(), fleet.rest().await?, String::new());
    while Instant::now() < end {
        round(&mut mix, fleet, &mut rest, &mut page).await?;
        tokio::time::sleep(PAUSE).await;
    }
    Ok(mix)
}

/// One round; `page` is where the next page begins.
async fn round(mix: &mut Mix, fleet: &SimFleet, rest: &mut Rest, page: &mut String) -> Result<()> {
    let path = format!("{SANDBOXES}?page_size={PAGE}{page}");
    let list = mix.call("list", rest.good(Method::GET, &path, None)).await?;
    *page = list["next_page_token"].as_str().map(|token| format!("&page_token={token}")).unwrap_or_default();
    for sandbox in list["items"].as_array().into_iter().flatten().take(GETS) {
        let path = format!("{SANDBOXES}/{}", id_of(sandbox)?);
        // One that another caller has just deleted is an answer, too.
        mix.call("get", rest.call(Method::GET, &path, None)).await?;
    }
    let body = json!({ "template": "fluxbox" });
    let made = mix.call("create", rest.good(Method::POST, SANDBOXES, Some(&body))).await?;
    let id = id_of(&made)?;
    let watcher = fleet.rest().await?;
    let first = async { watcher.watch(&id).await?.next().await };
    mix.call("watch", first).await?;
    mix.call("delete", rest.good(Method::DELETE, &format!("{SANDBOXES}/{id}"), None)).await?;
    Ok(())
}
