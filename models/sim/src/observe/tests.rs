use homeostat_common::observation::{Metric, Reading};

use super::*;
use crate::fault::Incident;
use crate::topology::Topology;
use crate::world::World;

fn world(name: Option<&str>, seed: u64) -> World {
    let incident = name.map_or_else(Incident::none, |name| Incident::named(name).unwrap());
    World::new(&Topology::reference(), &incident, seed).unwrap()
}

/// Looks each five seconds, until so many seconds after the onset.
fn looks(world: &mut World, observer: &mut Observer, seconds: f64) -> Vec<Seen> {
    let until = world.onset() + seconds;
    let mut seen = Vec::new();
    while world.now() < until {
        world.tick();
        if world.now() % 5.0 < 0.5 {
            seen.push(observer.look(world));
        }
    }
    seen
}

fn values(seen: &Seen, node: usize) -> Vec<Reading<f64>> {
    let observation = seen.nodes[node].as_ref();
    observation.map_or_else(Vec::new, |o| o.metrics.iter().map(|m| m.reading).collect())
}

#[test]
fn looking_changes_nothing_and_the_same_seed_sees_the_same() {
    let (mut one, mut other, mut blind) = (world(None, 3), world(None, 3), world(None, 3));
    let seen = looks(&mut one, &mut Observer::new(3), 120.0);
    assert_eq!(seen, looks(&mut other, &mut Observer::new(3), 120.0));
    assert_ne!(
        seen,
        looks(&mut world(None, 3), &mut Observer::new(4), 120.0)
    );
    while blind.now() < one.now() {
        blind.tick();
    }
    assert_eq!(one.digest(), blind.digest());
}

#[test]
fn some_readings_are_late_or_do_not_come_and_most_are_fresh() {
    let mut observer = Observer::new(5);
    let seen = looks(&mut world(None, 5), &mut observer, 1800.0);
    let all = seen
        .iter()
        .skip(10)
        .flat_map(|seen| (0..5).flat_map(|node| values(seen, node)));
    let (mut fresh, mut stale, mut missing) = (0.0, 0.0, 0.0);
    for reading in all {
        match reading {
            Reading::Fresh(_) => fresh += 1.0,
            Reading::Stale { age, .. } => {
                assert!(age.as_secs_f64() <= 25.0, "{age}");
                stale += 1.0;
            }
            Reading::Missing => missing += 1.0,
        }
    }
    let whole: f64 = fresh + stale + missing;
    // A reading that is more than a second late, or does not come, leaves what came before.
    assert!((0.35..0.65).contains(&(fresh / whole)), "{}", fresh / whole);
    assert!(missing / whole < 0.05, "{}", missing / whole);
}

#[test]
fn one_look_in_twenty_shows_an_alarm_for_nothing() {
    let mut seen = Vec::new();
    for seed in 0..10 {
        seen.extend(looks(
            &mut world(None, seed),
            &mut Observer::new(seed),
            1800.0,
        ));
    }
    let alarmed = seen.iter().filter(|seen| {
        let mut nodes = seen.nodes.iter().flatten();
        nodes.any(|node| !node.alarms.is_empty())
    });
    let share = alarmed.count() as f64 / seen.len() as f64;
    assert!((0.03..0.08).contains(&share), "{share} of {}", seen.len());
}

#[test]
fn telemetry_that_stands_still_stands_still_and_a_node_that_is_off_says_nothing() {
    let mut frozen = world(Some("frozen-telemetry"), 1);
    let mut observer = Observer::new(1);
    let seen = looks(&mut frozen, &mut observer, 60.0);
    let last: Vec<_> = seen
        .iter()
        .rev()
        .take(8)
        .map(|seen| &seen.nodes[1])
        .collect();
    assert!(last.iter().all(|one| one.is_some() && *one == last[0]));
    let others: Vec<_> = seen
        .iter()
        .rev()
        .take(2)
        .map(|seen| &seen.nodes[0])
        .collect();
    assert_ne!(others[0], others[1]);
    let off = looks(
        &mut world(Some("node-down"), 1),
        &mut Observer::new(1),
        20.0,
    );
    let last = off.last().unwrap();
    assert!(last.nodes[1].is_none() && last.nodes[2].is_none() && last.nodes[0].is_some());
}

#[test]
fn a_wrong_clock_stamps_wrongly() {
    let seen = looks(
        &mut world(Some("clock-skew"), 1),
        &mut Observer::new(1),
        30.0,
    );
    let last = seen.last().unwrap();
    let stamp = |node: usize| last.nodes[node].as_ref().unwrap().to.0 as f64 / 1e6;
    assert!((stamp(0) - last.at).abs() < 2.0);
    assert!(stamp(1) - last.at > 60.0);
}

#[test]
fn a_deadlock_shows_in_lines_alarms_and_metrics() {
    let seen = looks(&mut world(Some("deadlock"), 1), &mut Observer::new(1), 60.0);
    let after = &seen[seen.len() - 8..];
    let lines = |template: Template| -> u32 {
        let nodes = after.iter().flat_map(|seen| seen.nodes.iter().flatten());
        let lines = nodes.flat_map(|node| &node.logs);
        lines
            .filter(|line| line.template == template.id())
            .map(|line| line.count)
            .sum()
    };
    assert!(lines(Template::LockWait) >= 10);
    assert!(lines(Template::Timeout) >= 10, "callers complain");
    assert_eq!(lines(Template::AuthExpired), 0);
    let availability = after.iter().flat_map(|seen| {
        let metrics = seen.nodes[0].iter().flat_map(|node| &node.metrics);
        metrics.filter_map(|m| match (m.metric, &m.service, m.reading) {
            (Metric::Availability, Some(id), Reading::Fresh(v)) if id.as_str() == "infer-1" => {
                Some(v)
            }
            _ => None,
        })
    });
    assert!(availability.clone().count() > 0 && availability.into_iter().all(|v| v == 0.0));
}

#[test]
fn a_model_that_is_worse_is_less_sure_but_says_nothing_of_its_quality() {
    let mean = |name: Option<&str>| {
        let seen = looks(&mut world(name, 1), &mut Observer::new(1), 120.0);
        let models = seen.iter().rev().take(10).flat_map(|seen| &seen.models);
        let (sum, n) = models.fold((0.0, 0.0), |(sum, n), m| (sum + m.disagreement, n + 1.0));
        sum / n
    };
    let (well, worse) = (mean(None), mean(Some("bad-model")));
    assert!(well < 0.06 && worse > well + 0.05, "{well} {worse}");
}
