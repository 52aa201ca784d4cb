//! How hot the node is, by the thermal zones of the kernel.
//!
//! In goes a folder like `/sys/class/thermal` (a parameter, so that tests ship their own);
//! out comes the zone that is closest to its limit. The limit of a zone is the lowest of its
//! trip points at which the kernel slows the node down or turns it off (`passive`, `hot`,
//! `critical`; `active` only starts a fan), or that of the configuration. A node without such
//! zones has no temperature: it is missing, never 0. Judges nothing.

use std::fs;
use std::path::{Path, PathBuf};

use homeostat_common::observation::Reading;
use homeostat_common::units::{Micros, Millis};

use crate::config::Foresee;
use crate::control::Heat;

/// Zones that are looked at; a large server board has some 40.
const ZONES_MAX: usize = 64;

/// Trip points of a zone; the kernel allows 32.
const TRIPS_MAX: usize = 32;

/// A node without zones is asked for them again after this: a driver may be loaded late.
const LOOK_AGAIN: Millis = Millis::secs(60);

/// What no silicon survives, or a sensor that is not there says.
const SENSIBLE: std::ops::RangeInclusive<f32> = -40.0..=150.0;

/// The zones of a node.
#[derive(Debug)]
pub struct Thermal {
    root: PathBuf,
    limit: Option<f32>,
    zones: Vec<Zone>,
    looked: Option<Micros>,
    last: Option<(Heat, Micros)>,
}

#[derive(Debug)]
struct Zone {
    path: PathBuf,
    limit: f32,
}

impl Thermal {
    /// The zones of this configuration's folder.
    #[must_use]
    pub fn new(foresee: &Foresee) -> Self {
        Self {
            root: foresee.thermal.clone(),
            limit: foresee.heat_limit,
            zones: Vec::new(),
            looked: None,
            last: None,
        }
    }

    /// The zone that is closest to its limit.
    pub fn sample(&mut self, now: Micros) -> Reading<Heat> {
        let again = |looked: Micros| now.since(looked) >= LOOK_AGAIN;
        if self.zones.is_empty() && self.looked.is_none_or(again) {
            self.looked = Some(now);
            self.zones = zones(&self.root, self.limit);
        }
        let each = self.zones.iter().filter_map(|zone| {
            let degrees = degrees(&zone.path.join("temp"))?;
            let limit = zone.limit;
            Some(Heat { degrees, limit })
        });
        let left = |heat: &Heat| heat.limit - heat.degrees;
        let closest = each.min_by(|a, b| left(a).total_cmp(&left(b)));
        match (closest, self.last) {
            (Some(heat), _) => {
                self.last = Some((heat, now));
                Reading::Fresh(heat)
            }
            (None, Some((last, at))) => Reading::Stale {
                last,
                age: now.since(at),
            },
            (None, None) => Reading::Missing,
        }
    }
}

fn zones(root: &Path, limit: Option<f32>) -> Vec<Zone> {
    let Ok(entries) = fs::read_dir(root) else {
        return Vec::new();
    };
    let paths = entries.flatten().map(|entry| entry.path()).filter(|path| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with("thermal_zone"))
    });
    let zones = paths.take(ZONES_MAX).filter_map(|path| {
        let limit = limit.or_else(|| trip(&path))?;
        degrees(&path.join("temp"))?;
        Some(Zone { path, limit })
    });
    zones.collect()
}

/// The lowest trip point of a zone that hurts.
fn trip(zone: &Path) -> Option<f32> {
    let trips = (0..TRIPS_MAX).map_while(|number| {
        let kind = fs::read_to_string(zone.join(format!("trip_point_{number}_type"))).ok()?;
        Some((number, kind))
    });
    let hurting = trips.filter(|(_, kind)| matches!(kind.trim(), "passive" | "hot" | "critical"));
    hurting
        .filter_map(|(number, _)| degrees(&zone.join(format!("trip_point_{number}_temp"))))
        .filter(|degrees| *degrees > 0.0)
        .min_by(f32::total_cmp)
}

/// Thousandths of a degree, as the kernel writes them.
fn degrees(file: &Path) -> Option<f32> {
    let text = fs::read_to_string(file).ok()?;
    let thousandths: f32 = text.trim().parse().ok()?;
    Some(thousandths / 1000.0).filter(|degrees| SENSIBLE.contains(degrees))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(root: &Path, number: u8, temp: &str, trips: &[(&str, &str)]) {
        let path = root.join(format!("thermal_zone{number}"));
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("temp"), temp).unwrap();
        for (place, (kind, at)) in trips.iter().enumerate() {
            fs::write(path.join(format!("trip_point_{place}_type")), kind).unwrap();
            fs::write(path.join(format!("trip_point_{place}_temp")), at).unwrap();
        }
    }

    fn thermal(root: &Path, limit: Option<f32>) -> Thermal {
        Thermal::new(&Foresee {
            thermal: root.to_owned(),
            heat_limit: limit,
            ..Foresee::default()
        })
    }

    #[test]
    fn the_zone_closest_to_the_trip_point_that_hurts_counts() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let cpu = [
            ("active\n", "50000\n"),
            ("passive\n", "80000\n"),
            ("critical\n", "95000\n"),
        ];
        zone(root, 0, "61500\n", &cpu);
        zone(
            root,
            1,
            "70000\n",
            &[("critical\n", "120000\n"), ("hot\n", "-274000\n")],
        );
        zone(root, 2, "99000\n", &[("active\n", "60000\n")]);
        zone(root, 3, "N/A\n", &[("passive\n", "60000\n")]);
        fs::create_dir_all(root.join("cooling_device0")).unwrap();
        let mut by_trips = thermal(root, None);
        let found = Heat {
            degrees: 61.5,
            limit: 80.0,
        };
        assert_eq!(by_trips.sample(Micros(1)), Reading::Fresh(found));
        let hottest = Heat {
            degrees: 99.0,
            limit: 85.0,
        };
        let mut by_limit = thermal(root, Some(85.0));
        assert_eq!(by_limit.sample(Micros(1)), Reading::Fresh(hottest));
        for number in 0..3 {
            fs::remove_file(root.join(format!("thermal_zone{number}/temp"))).unwrap();
        }
        let stale = Reading::Stale {
            last: found,
            age: Millis(2),
        };
        assert_eq!(by_trips.sample(Micros(2001)), stale);
    }

    #[test]
    fn a_node_without_zones_has_no_temperature_until_it_has_some() {
        let dir = tempfile::tempdir().unwrap();
        let mut thermal = thermal(&dir.path().join("later"), Some(85.0));
        assert_eq!(thermal.sample(Micros(1)), Reading::Missing);
        zone(&dir.path().join("later"), 0, "40000\n", &[]);
        assert_eq!(thermal.sample(Micros(2)), Reading::Missing);
        let found = thermal.sample(Micros(61_000_000)).fresh().unwrap();
        assert_eq!((found.degrees, found.limit), (40.0, 85.0));
    }
}
