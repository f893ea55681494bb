//! The log against a model, on a file system that loses, tears and refuses.
//!
//! A seed decides everything: what is sent, when it is synced, read, resolved, saved, when the process ends and how, what
//! the disk does. The same acts go to the log and to a plain list; after each step the two are compared, by invariants
//! that have names ([`invariant::Invariant`]). A failure prints the invariant, the seed and the steps that led there;
//! `SPILLWAY_LOG_SEED=<seed>` runs that one alone.

mod invariant;
mod model;
mod subject;
mod world;

use std::hash::{BuildHasher, RandomState};

use spillway_delivery::filesystem::SplitMix64;
use spillway_delivery::settings::Durability;

use crate::invariant::{Checked, Violation};
use crate::model::End;
use crate::world::{Weather, World};

const STEPS: u64 = 40;
const FIXED_SEEDS: u64 = 50;
const FRESH_SEEDS: u64 = 10;

const FAIR: Weather = Weather { faults: false, damage: false };
const FAULTS: Weather = Weather { faults: true, damage: false };
const DAMAGE: Weather = Weather { faults: false, damage: true };
const ALL: Weather = Weather { faults: true, damage: true };

/// Runs a scenario under a paused clock and tells what led to a failure.
fn play<S>(seed: u64, level: Durability, scenario: S)
where
    S: AsyncFnOnce(&mut World) -> Checked,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let failed: Option<(Violation, Vec<String>)> = runtime.block_on(async {
        let mut world = match World::new(seed, level).await {
            Ok(world) => world,
            Err(violation) => return Some((violation, Vec::new())),
        };
        let result = scenario(&mut world).await;
        result.err().map(|violation| (violation, world.trace))
    });
    if let Some((violation, trace)) = failed {
        let from = trace.len().saturating_sub(40);
        panic!("seed {seed}, {level:?}: {violation}\n  {}", trace[from..].join("\n  "));
    }
}

fn run(seed: u64, weather: Weather) {
    let level = if seed % 3 == 0 { Durability::Process } else { Durability::Disk };
    play(seed, level, async |world| {
        world.run(STEPS, weather).await?;
        world.drain().await
    });
}

/// Runs the fixed seeds of one kind of weather, or the one that was asked for.
fn run_fixed(first: u64, weather: Weather) {
    if let Some(seed) = std::env::var("SPILLWAY_LOG_SEED").ok().and_then(|seed| seed.parse().ok()) {
        return run(seed, weather);
    }
    (first..first + FIXED_SEEDS).for_each(|seed| run(seed, weather));
}

#[test]
fn in_fair_weather_ends_of_all_kinds_lose_nothing() {
    run_fixed(1_000, FAIR);
}

#[test]
fn a_failing_disk_loses_nothing_acknowledged() {
    run_fixed(2_000, FAULTS);
}

#[test]
fn damage_costs_what_was_damaged_and_nothing_else() {
    run_fixed(3_000, DAMAGE);
}

#[test]
fn faults_and_damage_together_lose_nothing_else() {
    run_fixed(4_000, ALL);
}

#[test]
fn fresh_seeds_hold_too() {
    let mut seeds = SplitMix64::new(RandomState::new().hash_one(0));
    for _ in 0..FRESH_SEEDS {
        let seed = seeds.draw();
        println!("seed {seed}");
        run(seed, FAULTS);
    }
}

/// A fixed short story; the machine stops at every single change of the disk, and what is left is opened.
fn stop_everywhere(level: Durability, end: End, worlds: u64) {
    for changes in 0.. {
        let mut over = false;
        for seed in 0..worlds {
            play(seed << 32 | changes, level, async |world| {
                world.stop_after(changes);
                over = world.story().await?;
                world.end(end).await?;
                world.append().await?;
                world.end(End::PowerLoss).await
            });
        }
        if over {
            assert!(changes > 20, "the story is too short: {changes} changes");
            return;
        }
    }
}

#[test]
fn power_loss_at_every_change_of_the_disk_loses_nothing_acknowledged() {
    stop_everywhere(Durability::Disk, End::PowerLoss, 8);
}

#[test]
fn power_loss_at_every_change_keeps_a_log_at_level_process_consistent() {
    stop_everywhere(Durability::Process, End::PowerLoss, 8);
}

#[test]
fn sigkill_at_every_change_of_the_disk_loses_nothing_acknowledged() {
    stop_everywhere(Durability::Process, End::Kill, 2);
    stop_everywhere(Durability::Disk, End::Kill, 2);
}
