//! The log against a model, on a file system that loses, tears and refuses.
//!
//! A seed decides everything: what is sent, when it is synced, read, resolved, saved, when the process ends and how, what
//! the disk does. The same acts go to the log and to a plain list; after each step the two are compared, by invariants
//! that have names ([`invariant::Invariant`]). A failure prints the invariant, the seed and the steps that led there;
//! `SPILLWAY_LOG_SEED=<seed>` runs that one alone, `SPILLWAY_LOG_FRESH=<count>` so many fresh ones.

mod acts;
mod device;
mod formats;
mod inspecting;
mod invariant;
mod model;
mod reading;
mod subject;
mod world;
mod writer;

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
#[expect(clippy::panic, reason = "this is how a test fails")]
fn play<S>(seed: u64, level: Durability, scenario: S)
where
    S: AsyncFnOnce(&mut World) -> Checked,
{
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build().expect("a runtime without I/O needs nothing");
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
    run_at(if seed.is_multiple_of(3) { Durability::Process } else { Durability::Disk }, seed, weather);
}

fn run_at(level: Durability, seed: u64, weather: Weather) {
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

/// The same at level `Memory`.
fn run_fixed_in_memory(first: u64, weather: Weather) {
    if let Some(seed) = std::env::var("SPILLWAY_LOG_SEED").ok().and_then(|seed| seed.parse().ok()) {
        return run_at(Durability::Memory, seed, weather);
    }
    (first..first + 2 * FIXED_SEEDS).for_each(|seed| run_at(Durability::Memory, seed, weather));
}

#[test]
fn in_memory_only_what_did_not_spill_is_lost_and_only_by_an_end_that_is_not_clean() {
    run_fixed_in_memory(5_000, FAIR);
}

#[test]
fn in_memory_a_failing_disk_loses_nothing_while_the_process_lives() {
    run_fixed_in_memory(6_000, FAULTS);
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
    let count = std::env::var("SPILLWAY_LOG_FRESH").ok().and_then(|count| count.parse().ok()).unwrap_or(FRESH_SEEDS);
    let mut seeds = SplitMix64::new(RandomState::new().hash_one(0));
    for _ in 0..count {
        let seed = seeds.draw();
        println!("seed {seed}, {:?}", weather_of(seed));
        run(seed, weather_of(seed));
        let weather = if seed & 1 == 0 { FAIR } else { FAULTS };
        println!("seed {seed}, in memory, {weather:?}");
        run_at(Durability::Memory, seed, weather);
    }
}

fn weather_of(seed: u64) -> Weather {
    [FAIR, FAULTS, DAMAGE, ALL][(seed >> 8) as usize % 4]
}

/// Fresh seeds that showed a bug of the log, or of the log with a line taken out that must be there.
#[test]
fn seeds_that_once_showed_a_bug_hold() {
    const OF_MEMORY: u64 = 9_530_668_686_447_092_823;
    const SEEDS: [u64; 9] = [
        13_199_565_121_680_713_434,
        17_464_143_506_200_850_415,
        10_196_008_408_584_766_747,
        7_122_312_340_232_162_862,
        10_497_824_999_099_458_981,
        13_111_578_804_782_796_003,
        15_520_921_410_279_264_210,
        3_200_156_688_938_530_129,
        2_690_255_786_874_412_005,
    ];
    SEEDS.into_iter().for_each(|seed| run(seed, weather_of(seed)));
    run_at(Durability::Memory, OF_MEMORY, weather_of(OF_MEMORY));
}

/// A fixed short story; the machine stops at every single change of the disk, what is left is opened, and the machine may
/// stop within that again.
fn stop_everywhere(level: Durability, end: End, worlds: u64) {
    for changes in 0.. {
        let mut over = false;
        for seed in 0..worlds {
            play(seed << 32 | changes, level, async |world| {
                world.stop_after(changes);
                over = world.story().await?;
                world.end(end).await?;
                world.append().await?;
                world.stop_after((seed + changes) % 16);
                world.end(End::Clean).await?;
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
    stop_everywhere(Durability::Memory, End::Kill, 2);
    stop_everywhere(Durability::Memory, End::PowerLoss, 4);
    stop_everywhere(Durability::Process, End::Kill, 2);
    stop_everywhere(Durability::Disk, End::Kill, 2);
}

/// As [`stop_everywhere`], while segments are written over the files of others.
#[test]
fn a_stop_while_segments_are_written_over_others_loses_nothing_acknowledged() {
    for (level, end) in
        [(Durability::Disk, End::PowerLoss), (Durability::Disk, End::Kill), (Durability::Process, End::Kill)]
    {
        for changes in 0.. {
            let mut over = false;
            for seed in 0..4 {
                play(seed << 32 | changes, level, async |world| {
                    world.flow(6).await?;
                    assert!(world.holds(".spare"), "no file waits to be written over");
                    world.stop_after(changes);
                    over = world.flow(4).await?;
                    world.end(end).await?;
                    assert!(!world.holds("quarantine"), "a name stands for another segment's bytes");
                    world.append().await?;
                    world.end(End::PowerLoss).await
                });
            }
            if over {
                assert!(changes > 20, "too short: {changes} changes");
                break;
            }
        }
    }
}

#[test]
fn a_full_disk_does_not_keep_the_log_from_opening() {
    for level in [Durability::Disk, Durability::Process] {
        play(1, level, async |world| {
            world.append().await?;
            world.append().await?;
            world.disk_is_full();
            world.must_open().await?;
            world.deliver_all().await?;
            world.clear().await?;
            world.append_all_taken().await
        });
    }
}

#[test]
fn a_file_that_cannot_be_read_at_a_start_is_not_passed_over() {
    for skip in 0..6 {
        play(skip, Durability::Disk, async |world| {
            world.append().await?;
            world.end(End::Clean).await?;
            world.append().await?;
            world.deliver_all().await?;
            world.append().await?;
            world.compare().await?;
            world.live_with_unreadable(skip).await?;
            world.end(End::Kill).await
        });
    }
}

#[test]
fn a_full_log_takes_more_once_it_is_delivered() {
    for level in [Durability::Disk, Durability::Process, Durability::Memory] {
        play(2, level, async |world| {
            world.model.bulky = true;
            world.fill().await?;
            world.end(End::Kill).await?;
            world.deliver_all().await?;
            world.append_all_taken().await?;
            world.drain().await
        });
    }
}

#[test]
fn a_full_log_takes_more_where_a_delivery_gives_up_its_oldest() {
    for (seed, end) in (20..).zip([End::Clean, End::Kill, End::PowerLoss]) {
        for level in [Durability::Disk, Durability::Process, Durability::Memory] {
            play(seed, level, async |world| {
                world.overflow(end).await?;
                world.drain().await
            });
        }
    }
}

#[test]
fn a_start_reads_by_the_number_of_segments_and_not_by_their_bytes() {
    for end in [End::Clean, End::Kill, End::PowerLoss] {
        play(3, Durability::Disk, async |world| {
            world.model.bulky = true;
            world.fill().await?;
            world.end_counting_reads(end).await
        });
    }
}

#[test]
fn damage_to_one_slot_of_the_journal_gives_an_earlier_truth_or_the_same() {
    for seed in 0..60 {
        play(seed, Durability::Disk, async |world| {
            for _ in 0..3 {
                world.append().await?;
                world.deliver_all().await?;
            }
            world.end_with_journal_damage(if seed % 2 == 0 { "cursors.a" } else { "cursors.b" }, seed * 7).await
        });
    }
}
