//! Central is killed again and again while people and nodes are busy.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{Method, StatusCode};
use rand::RngExt;
use roost_tests::fleet::SimFleet;
use roost_tests::{Result, eventually};
use serde_json::{Value, json};

use super::postgres::Server;
use super::{done, options};

/// How often central is killed; every fifth time its server too.
const KILLS: u32 = 32;
/// People who create and delete at once; two of them want the same names.
const PEOPLE: u32 = 4;
/// Pause before an unanswered request is repeated.
const PAUSE: Duration = Duration::from_millis(20);
/// How long the fleet may take to come to rest.
const LIMIT: Duration = Duration::from_secs(120);

/// What was acknowledged.
#[derive(Debug, Default)]
struct Acknowledged {
    /// Id and name of what was created.
    created: BTreeMap<String, String>,
    deleted: BTreeSet<String>,
    /// Requests that were answered with a conflict of names.
    taken: u32,
}

/// One who sends requests until each has an answer that says what became of it.
struct Person {
    client: reqwest::Client,
    server: String,
    token: String,
    number: u32,
    acknowledged: Arc<Mutex<Acknowledged>>,
    end: Arc<AtomicBool>,
}

impl Person {
    /// Repeats a request until it was carried out or refused for good.
    async fn insist(&self, method: Method, path: &str, key: &str, body: Option<Value>) -> Result<(StatusCode, Value)> {
        loop {
            let url = format!("{}/api/v1{path}", self.server);
            let mut request = self.client.request(method.clone(), url).bearer_auth(&self.token);
            if let Some(body) = &body {
                request = request.header("idempotency-key", key).header("content-type", "application/json");
                request = request.body(body.to_string());
            }
            // Without an answer nobody knows what became of it.
            if let Ok(answer) = request.send().await {
                let status = StatusCode::from_u16(answer.status().as_u16())?;
                if let Ok(bytes) = answer.bytes().await {
                    let value: Value = serde_json::from_slice(&bytes).unwrap_or_default();
                    let is_for_later = status.is_server_error() || value["code"] == "nothing-fits";
                    if !is_for_later {
                        return Ok((status, value));
                    }
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn run(self) -> Result<()> {
        for round in 0.. {
            if self.end.load(Ordering::Relaxed) {
                return Ok(());
            }
            // Two people at a time want a name, each with a key of its own.
            let name = format!("box-{}-{round}", self.number / 2);
            let key = format!("storm-{}-{round}", self.number);
            let body = json!({ "template": "fluxbox", "name": name });
            let (status, answer) = self.insist(Method::POST, "/sandboxes", &key, Some(body)).await?;
            match (status, answer["code"].as_str()) {
                (StatusCode::CREATED, _) => {
                    let id = answer["id"].as_str().ok_or("a sandbox without id")?.to_owned();
                    self.note().created.insert(id.clone(), name);
                    // Later than the other one's creation at most by chance:
                    // names become free again.
                    if round % 3 != 0 {
                        self.delete(&id).await?;
                    }
                }
                (StatusCode::CONFLICT, Some("name-taken")) => self.note().taken += 1,
                _ => return Err(format!("{status}: {answer}").into()),
            }
        }
        Ok(())
    }

    async fn delete(&self, id: &str) -> Result<()> {
        let (status, answer) = self.insist(Method::DELETE, &format!("/sandboxes/{id}"), "", None).await?;
        // Gone already: an attempt without an answer was carried out.
        if status != StatusCode::ACCEPTED && status != StatusCode::NOT_FOUND {
            return Err(format!("{status}: {answer}").into());
        }
        self.note().deleted.insert(id.to_owned());
        Ok(())
    }

    fn note(&self) -> std::sync::MutexGuard<'_, Acknowledged> {
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn storm(fleet: &mut SimFleet, server: Option<&Server>) -> Result<Acknowledged> {
    // Another provider can only be installed if a test did it before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (acknowledged, end) = (Arc::new(Mutex::default()), Arc::new(AtomicBool::new(false)));
    let token = std::fs::read_to_string(fleet.root.join("admin-token"))?.trim().to_owned();
    let people: Vec<_> = (0..PEOPLE)
        .map(|number| {
            let person = Person {
                client: reqwest::Client::new(),
                server: fleet.server(),
                token: token.clone(),
                number,
                acknowledged: Arc::clone(&acknowledged),
                end: end.clone(),
            };
            tokio::spawn(person.run())
        })
        .collect();
    for kill in 1..=KILLS {
        let life = Duration::from_millis(rand::rng().random_range(50..600));
        tokio::time::sleep(life).await;
        fleet.central.kill();
        if let Some(server) = server.filter(|_| kill % 5 == 0) {
            server.tell("kill");
            server.tell("start");
        }
        fleet.restart_central().await?;
    }
    end.store(true, Ordering::Relaxed);
    for person in people {
        person.await??;
    }
    let acknowledged = Arc::into_inner(acknowledged).ok_or("somebody still writes")?;
    Ok(acknowledged.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// What central shows at the end is what it has acknowledged, and adds up.
async fn assert_nothing_is_lost(fleet: &mut SimFleet, acknowledged: &Acknowledged) -> Result<()> {
    fleet.all_connected().await?;
    let wanted: BTreeMap<&String, &String> =
        acknowledged.created.iter().filter(|(id, _)| !acknowledged.deleted.contains(*id)).collect();
    let at_rest = eventually("every node has done what it was told", LIMIT, || async {
        let list = fleet.rest().await?.list("/api/v1/sandboxes").await?;
        let is_at_rest = list.iter().all(|sandbox| sandbox["observed"]["phase"] == "Ready");
        Ok((is_at_rest && list.len() == wanted.len()).then_some(list))
    });
    let list = at_rest.await.map_err(|error| format!("{error}: {} are wanted", wanted.len()))?;
    for sandbox in &list {
        let (id, name) = (sandbox["id"].as_str().unwrap_or_default(), sandbox["name"].as_str());
        assert_eq!(wanted.get(&id.to_owned()).map(|name| name.as_str()), name, "{id} was never acknowledged");
    }
    let names: BTreeSet<_> = list.iter().map(|sandbox| sandbox["name"].as_str()).collect();
    assert_eq!(names.len(), list.len(), "a name is there twice");

    for node in fleet.rest().await?.list("/api/v1/nodes").await? {
        let here: Vec<_> = list.iter().filter(|sandbox| sandbox["node_id"] == node["id"]).collect();
        let cpu: u64 = here.iter().filter_map(|s| s["spec"]["resources"]["cpu_request_millis"].as_u64()).sum();
        assert_eq!(node["sandboxes"].as_u64(), Some(here.len() as u64), "{node}");
        assert_eq!(node["cpu_requested_millis"].as_u64(), Some(cpu), "{node}");
    }
    assert_eq!(fleet.sim.obey("status")?["ready"].as_u64(), Some(list.len() as u64), "a node holds something else");
    done(fleet, &["store", "check"])?;
    Ok(())
}

async fn weather(store: &str, server: Option<&Server>) -> Result<()> {
    let mut fleet = SimFleet::start(options(10, 200, store)).await?;
    let acknowledged = storm(&mut fleet, server).await?;
    let Acknowledged { created, deleted, taken } = &acknowledged;
    eprintln!("{KILLS} kills: {} created, {} deleted, {taken} names taken", created.len(), deleted.len());
    assert!(created.len() > 20 && !deleted.is_empty(), "nothing happened meanwhile: {acknowledged:?}");
    assert_nothing_is_lost(&mut fleet, &acknowledged).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_central_that_is_killed_again_and_again_keeps_every_word_over_sqlite() -> Result<()> {
    weather("", None).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_central_that_is_killed_with_its_server_keeps_every_word_over_postgresql() -> Result<()> {
    let server = Server::start();
    let store = format!("[store]\nurl = \"{}\"\npool_size = 4\n", server.database());
    weather(&store, Some(&server)).await
}
