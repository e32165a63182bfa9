//! Everything is killed, again and again, while people are busy: nothing that
//! was acknowledged is lost, nothing is given twice, nothing is left behind.
//!
//! `ROOST_TORTURE_KILLS`: how many kills (100). `ROOST_TORTURE_SEED`: the
//! choices of an earlier run, as it printed them.

mod book;
mod check;
mod faults;
mod hardship;
mod kills;
mod people;
mod upgrade;

use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use roost_tests::{Result, TestNode};

use book::World;
use kills::Tally;

/// Kills without further notice.
const KILLS: u32 = 100;
/// Kills between two looks at everything.
const KILLS_PER_ROUND: u32 = 6;
/// People who make, claim, stop, start and delete at the same time.
const PEOPLE: u32 = 3;

/// A number from the environment.
fn number<T: std::str::FromStr>(name: &str) -> Result<Option<T>> {
    let Some(text) = std::env::var_os(name) else { return Ok(None) };
    let number = text.to_str().and_then(|text| text.parse().ok());
    number.map(Some).ok_or_else(|| format!("{name}={}: must be a number", text.display()).into())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_killed_nothing_is_lost_given_twice_or_left_behind() -> Result<()> {
    let kills = number("ROOST_TORTURE_KILLS")?.unwrap_or(KILLS);
    let seed: u64 = number("ROOST_TORTURE_SEED")?.unwrap_or_else(rand::random);
    println!("{kills} kills; the same choices again: ROOST_TORTURE_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut node = TestNode::start().await?;
    let before = check::Traces::take(&node);
    let world = World::new(node.client.clone());
    check::fill_pool(&world).await?;
    let mut people: Vec<_> = (0..PEOPLE)
        .map(|number| {
            tokio::spawn(people::live(world.clone(), number, StdRng::seed_from_u64(seed ^ u64::from(number))))
        })
        .collect();

    let mut tally = Tally::default();
    while tally.kills < kills {
        world.resume();
        for _ in 0..KILLS_PER_ROUND.min(kills - tally.kills) {
            kills::once(&mut node, &world, &mut rng, &mut tally).await.map_err(|e| format!("seed {seed}: {e}"))?;
        }
        let looked = check::round(&node, &world, &mut tally).await;
        if let Some(gone) = people.iter().position(tokio::task::JoinHandle::is_finished) {
            people.swap_remove(gone).await?.map_err(|e| format!("seed {seed}, after {} kills: {e}", tally.kills))?;
        }
        if let Err(error) = looked {
            print!("{}", tally.report());
            node.keep_logs(&std::env::temp_dir().join(format!("roost-torture-{seed}")))?;
            return Err(format!("seed {seed}, after {} kills: {error}", tally.kills).into());
        }
    }
    world.end();
    for person in people {
        person.await??;
    }
    print!("{}", tally.report());
    println!("{}", world.book().summary());
    node.clear().await?;
    check::nothing_is_left(&node, &before).await?;
    assert!(world.book().created > kills / 10, "hardly anything happened meanwhile");
    Ok(())
}

/// How long a pool may take to fill.
const FILL_LIMIT: Duration = Duration::from_secs(60);
