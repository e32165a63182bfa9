//! What must hold whenever everybody rests.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use roost_proto::convert::WireEnum;
use roost_proto::id::SandboxId;
use roost_proto::model::{Phase, PoolSpec, PoolUpdate};
use roost_proto::node as wire;
use roost_tests::{Result, TestNode, eventually, traces};
use tokio::time::Instant;

use crate::FILL_LIMIT;
use crate::book::{Entry, World};
use crate::kills::{Tally, disarm, shims};
use crate::people::{POOL, waiting};

/// Desktops that the pool keeps ready.
const POOL_READY: u32 = 2;
/// Within so long everything is as it is wanted, on a machine that has time.
const CONVERGE_MS: u64 = 10_000;
/// And on one that has none: what is waited for at all.
const CONVERGE_LIMIT: Duration = Duration::from_secs(90);
/// How long what ended may take to vanish.
const VANISH_LIMIT: Duration = Duration::from_secs(15);
/// What a sandbox that runs has mounted, below its directory.
const MOUNTS: [&str; 9] =
    ["claim", "display/fb", "ns/ipc", "ns/net", "ns/user", "ns/uts", "rootfs/display", "rootfs/workload", "shm"];

/// Puts the pool, and waits until it is full.
pub(crate) async fn fill_pool(world: &World) -> Result<()> {
    let spec = PoolSpec {
        name: POOL.parse()?,
        spec: waiting()?,
        min_ready: POOL_READY,
        max: POOL_READY + 2,
        starts_at_once: 2,
        demand_window_ms: 0,
        update: PoolUpdate::OnReplenish,
    };
    world.client().api.put_pool(wire::PutPoolRequest { spec: Some(spec.into()) }).await?;
    eventually("the pool is full", FILL_LIMIT, || async {
        let pools = world.client().api.list_pools(wire::ListPoolsRequest {}).await?.into_inner().pools;
        Ok(pools.first().is_some_and(|pool| pool.ready == POOL_READY).then_some(()))
    })
    .await
}

/// What the node shows of its sandboxes.
struct Shown {
    phases: BTreeMap<SandboxId, (Phase, String)>,
    /// Of the pool, and not claimed.
    pooled: BTreeSet<SandboxId>,
}

async fn shown(world: &World) -> Result<Shown> {
    let list = world.client().api.list_sandboxes(wire::ListSandboxesRequest {}).await?.into_inner();
    let mut shown = Shown { phases: BTreeMap::new(), pooled: BTreeSet::new() };
    for sandbox in list.sandboxes {
        let (desired, observed) = (sandbox.desired.ok_or("no wish")?, sandbox.observed.ok_or("no state")?);
        let id: SandboxId = desired.sandbox_id.parse()?;
        let phase = Phase::from_wire(observed.phase)?;
        if phase == Phase::Gone {
            continue;
        }
        if !desired.pool.is_empty() && desired.binding.is_none() {
            shown.pooled.insert(id.clone());
        }
        shown.phases.insert(id, (phase, format!("{} {}", observed.reason, observed.message)));
    }
    Ok(shown)
}

/// What is not yet as it is wanted; none when all is.
async fn unlike(world: &World) -> Result<Option<String>> {
    let shown = shown(world).await?;
    let wanted = world.book().sandboxes.clone();
    for (id, entry) in &wanted {
        let expected = if entry.runs { Phase::Ready } else { Phase::Stopped };
        match shown.phases.get(id) {
            None => return Err(format!("{id} was acknowledged and is not there: {entry:?}").into()),
            Some((phase, _)) if *phase == expected => {}
            Some((phase, why)) => return Ok(Some(format!("{id} is {phase} and not {expected}: {why}"))),
        }
    }
    let ready = shown.pooled.iter().filter(|id| shown.phases[*id].0 == Phase::Ready).count();
    if ready != POOL_READY as usize || shown.pooled.len() != ready {
        return Ok(Some(format!("{ready} of {} in the pool are ready", shown.pooled.len())));
    }
    let stranger = shown.phases.keys().find(|id| !wanted.contains_key(*id) && !shown.pooled.contains(*id));
    Ok(stranger.map(|id| format!("nobody has {id}, {:?}", shown.phases[id])))
}

/// Lets everybody rest and looks at everything.
pub(crate) async fn round(node: &TestNode, world: &World, tally: &mut Tally) -> Result<()> {
    disarm(node, tally)?;
    world.rest().await;
    let begun = Instant::now();
    let mut last = None;
    loop {
        match unlike(world).await? {
            None => break,
            found => last = found,
        }
        if begun.elapsed() > CONVERGE_LIMIT {
            return Err(format!("not within {CONVERGE_LIMIT:?}: {}", last.unwrap_or_default()).into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let took_ms = u64::try_from(begun.elapsed().as_millis())?;
    tally.converged_ms.push(took_ms);
    let load = load_per_core()?;
    // A machine with twice as much to do takes twice as long.
    if took_ms as f64 > CONVERGE_MS as f64 * load.max(1.0) {
        let why = last.unwrap_or_default();
        return Err(format!("converged after {took_ms} ms at a load of {load:.1} a core; last: {why}").into());
    }
    everybody_has_their_own(world).await?;
    let clean = || async { Ok(Traces::take(node).unlike(&Expected::of(node, world).await?).is_none().then_some(())) };
    if eventually("only what lives is there", VANISH_LIMIT, clean).await.is_err() {
        let found = Traces::take(node).unlike(&Expected::of(node, world).await?);
        return Err(format!("left behind: {}", found.unwrap_or_default()).into());
    }
    Ok(())
}

/// Processes that want to run, for each core, over the last minute.
fn load_per_core() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/loadavg")?;
    let load: f64 = text.split(' ').next().unwrap_or_default().parse()?;
    Ok(load / std::thread::available_parallelism()?.get() as f64)
}

/// Files and claims are those of their owner, and the desktop answers.
async fn everybody_has_their_own(world: &World) -> Result<()> {
    let wanted = world.book().sandboxes.clone();
    for (id, entry) in wanted.iter().filter(|(_, entry)| entry.runs) {
        let client = world.client();
        let sh = async |script: String| {
            let result = client.exec(id, &["/bin/sh", "-c", &script]).await.map_err(|e| format!("{id}: {e}"))?;
            Ok::<_, roost_tests::client::Error>(result.stdout.trim().to_owned())
        };
        if entry.is_marked {
            let mark = sh("cat ~/mark".into()).await?;
            assert_eq!(mark, id.as_str(), "a file of {id} is lost or another's");
        } else {
            sh(format!("echo {id} >~/mark; sync ~/mark")).await?;
            if let Some(entry) = world.book().sandboxes.get_mut(id) {
                entry.is_marked = true;
            }
        }
        if let Entry { claim: Some(claim), .. } = entry {
            let told = sh("sort -u ~/tokens; cat /run/roost/claim/secrets/token; cat ~/claim".into()).await?;
            assert_eq!(told, format!("{claim}\n{claim}claimed"), "{id} was not given to {claim} alone");
        }
        let png = client.screenshot(id).await.map_err(|e| format!("{id}: {e}"))?;
        assert!(png.starts_with(b"\x89PNG"), "{id} has no picture");
    }
    Ok(())
}

/// Everything that sandboxes hold on the host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Traces {
    /// With one entry for each mount, also where one covers another.
    mounts: Vec<PathBuf>,
    cgroups: BTreeSet<String>,
    /// `sandboxes`, `logs`, `spool`, runc's and containerd's directories.
    dirs: BTreeSet<String>,
    /// Names of containers in the command lines of shims.
    shims: Vec<String>,
    /// Files behind loop devices.
    loops: Vec<PathBuf>,
    /// Processes of the daemon's program, with this node's configuration.
    daemons: usize,
    /// First ids of what runs.
    first_ids: Vec<u32>,
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// The name of a sandbox in the command line of its shim.
fn shim_of(line: &str) -> String {
    let id = line.split(' ').skip_while(|word| *word != "-id").nth(1).unwrap_or_default();
    id.rsplit_once('-').map_or(id, |(sandbox, _role)| sandbox).to_owned()
}

/// The first id of the user namespace of some process of a sandbox.
fn first_id(node: &TestNode, id: &str) -> Option<u32> {
    let pid = node.cgroup(id).process_ids().into_iter().next()?;
    let map = std::fs::read_to_string(format!("/proc/{pid}/uid_map")).ok()?;
    map.split_whitespace().nth(1)?.parse().ok()
}

impl Traces {
    /// Looks at the host.
    pub(crate) fn take(node: &TestNode) -> Self {
        let mut dirs = BTreeSet::new();
        for dir in ["sandboxes", "logs", "spool"] {
            dirs.extend(names(&node.state().join(dir)).into_iter().map(|name| format!("{dir}/{name}")));
        }
        let bundles = node.root.join("c/state/io.containerd.runtime.v2.task/roost");
        // A containerd that is killed while it makes or removes a bundle leaves it
        // in its own state, without the file of a process that was made, or under
        // a hidden name. It never looks at those again, and nobody else may.
        let is_made = |name: &String| !name.starts_with('.') && bundles.join(name).join("init.pid").exists();
        dirs.extend(names(&bundles).into_iter().filter(is_made).map(|name| format!("bundle/{name}")));
        dirs.extend(names(&node.root.join("runc/roost")).into_iter().map(|name| format!("runc/{name}")));
        let cgroups = traces::cgroups_below(&node.cgroup_parent());
        let ids = cgroups.iter().filter(|name| name.starts_with("sbx-") && !name.contains('/'));
        let mut first_ids: Vec<u32> = ids.filter_map(|id| first_id(node, id)).collect();
        first_ids.sort_unstable();
        let mut shims: Vec<String> = shims(node).iter().map(|(_, line)| shim_of(line)).collect();
        shims.sort();
        let devices = std::fs::read_dir("/sys/block").into_iter().flatten().flatten();
        let files = devices.filter_map(|d| std::fs::read_to_string(d.path().join("loop/backing_file")).ok());
        let mut loops: Vec<PathBuf> = files.map(|file| PathBuf::from(file.trim())).collect();
        loops.retain(|file| file.starts_with(node.state()));
        loops.sort();
        let config = node.root.join("roostd.toml").display().to_string();
        let mut mounts = traces::mounts_under(node.root.path());
        mounts.sort();
        Self { mounts, cgroups, dirs, shims, loops, daemons: traces::processes_with(&config).len(), first_ids }
    }

    /// The first difference, for people.
    fn unlike(&self, expected: &Expected) -> Option<String> {
        let Expected { traces: wanted, count } = expected;
        let list = |what: &str, is: &BTreeSet<String>, should: &BTreeSet<String>| {
            let (more, less): (Vec<_>, Vec<_>) = (is.difference(should).collect(), should.difference(is).collect());
            (is != should).then(|| format!("{what}: too many {more:?}, missing {less:?}"))
        };
        let paths = |paths: &[PathBuf]| -> BTreeSet<String> { paths.iter().map(|p| p.display().to_string()).collect() };
        let twice = |paths: &[PathBuf]| paths.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0].clone());
        list("cgroups", &self.cgroups, &wanted.cgroups)
            .or_else(|| list("directories", &self.dirs, &wanted.dirs))
            .or_else(|| list("mounts", &paths(&self.mounts), &paths(&wanted.mounts)))
            .or_else(|| twice(&self.mounts).map(|path| format!("mounted twice: {}", path.display())))
            .or_else(|| (self.shims != wanted.shims).then(|| format!("shims: {:?} not {:?}", self.shims, wanted.shims)))
            .or_else(|| (self.loops != wanted.loops).then(|| format!("loops: {:?} not {:?}", self.loops, wanted.loops)))
            .or_else(|| (self.daemons != 1).then(|| format!("{} daemons", self.daemons)))
            .or_else(|| {
                let ids: BTreeSet<u32> = self.first_ids.iter().copied().collect();
                (ids.len() != *count).then(|| format!("ids of {count} sandboxes: {:?}", self.first_ids))
            })
    }
}

/// What there should be.
struct Expected {
    traces: Traces,
    /// Sandboxes that run.
    count: usize,
}

impl Expected {
    async fn of(node: &TestNode, world: &World) -> Result<Self> {
        let mut all: BTreeMap<SandboxId, Entry> = world.book().sandboxes.clone();
        let pooled = Entry { runs: true, is_limited: false, claim: None, is_marked: false };
        all.extend(shown(world).await?.pooled.into_iter().map(|id| (id, pooled.clone())));
        let mut traces = Traces { cgroups: BTreeSet::from(["shims".to_owned()]), ..Traces::default() };
        for (id, entry) in &all {
            let dir = node.state().join("sandboxes").join(id.as_str());
            traces.dirs.extend([format!("sandboxes/{id}"), format!("logs/{id}")]);
            if !entry.runs {
                // What a claim brought stays as long as the sandbox.
                traces.mounts.extend(entry.claim.as_ref().map(|_| dir.join("claim")));
                continue;
            }
            traces.cgroups.extend([id.to_string(), format!("{id}/display"), format!("{id}/workload")]);
            for role in ["display", "workload"] {
                traces.dirs.extend([format!("bundle/{id}-{role}"), format!("runc/{id}-{role}")]);
            }
            traces.mounts.extend(MOUNTS.iter().map(|mount| dir.join(mount)));
            traces.shims.push(id.to_string());
            if entry.is_limited {
                traces.mounts.push(dir.join("disk"));
                traces.loops.push(dir.join("disk.img"));
            }
        }
        traces.mounts.sort();
        traces.loops.sort();
        Ok(Self { count: traces.shims.len(), traces })
    }
}

/// After the last sandbox was deleted the host is as before the first one.
pub(crate) async fn nothing_is_left(node: &TestNode, before: &Traces) -> Result<()> {
    let left = || {
        let now = Traces::take(node);
        // Kept by runc and containerd for the next one.
        async move {
            Ok((now.mounts == before.mounts && now.dirs == before.dirs && now.shims.is_empty() && now.loops.is_empty())
                .then_some(()))
        }
    };
    let clean = eventually("nothing is left", VANISH_LIMIT, left).await;
    clean.map_err(|error| format!("{error}: {:?}", Traces::take(node)).into())
}
