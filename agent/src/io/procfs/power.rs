//! Supply and energy: batteries and mains, and what the node draws.
//!
//! Power comes from the first of these that is there: the counters of RAPL below
//! `/sys/class/powercap` (the whole platform if it is counted, else all packages; only root
//! may read them on most systems), the largest sensor of power of `hwmon` (a rail that feeds
//! others draws more than each of them), and the battery while it discharges. Energy is
//! counted from the agent's start. The agent's part of it is an estimate: its share of the
//! processor time that was used meanwhile, which charges what an idle board draws to whoever
//! runs.

use std::path::{Path, PathBuf};

use homeostat_common::observation::Metric;
use homeostat_common::units::{Micros, Millis, Ratio};

use super::board::{Board, Slot, Tier};
use super::processors::below;
use super::source::{Source, small};
use super::{Texts, parse, to_f32};
use crate::control::Battery;

/// Supplies, domains and sensors that are looked at, each.
const FILES_MAX: usize = 16;

/// Between two looks further apart than this nobody knows what was drawn.
const GAP_MAX: Millis = Millis::secs(60);

/// The largest counter of RAPL, if it does not say itself.
const WRAP_UJ: u64 = 1 << 32;

/// More than any edge node draws: a sensor or a counter that is wrong.
const WATTS_MAX: f64 = 10_000.0;

/// All of it.
#[derive(Debug)]
pub(super) struct Power {
    sys: PathBuf,
    slow: Tier,
    parts: Tier,
    supplies: Vec<Supply>,
    domains: Vec<Domain>,
    sensors: Vec<Source>,
    last: Option<Last>,
    joules: Option<f64>,
    own: Option<f64>,
    battery: Option<Battery>,
    slots: [Slot; 5],
}

#[derive(Debug)]
struct Supply {
    battery: bool,
    folder: PathBuf,
}

#[derive(Debug)]
struct Domain {
    energy: Source,
    wrap: u64,
    last: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
struct Last {
    at: Micros,
    watts: Option<f64>,
    ticks: Option<(u64, u64)>,
}

impl Power {
    pub(super) fn new(sys: &Path, board: &mut Board) -> Self {
        let metrics = [
            Metric::BatteryCharge,
            Metric::OnMains,
            Metric::Power,
            Metric::Energy,
            Metric::OwnEnergyEstimate,
        ];
        Self {
            sys: sys.to_owned(),
            slow: Tier::SLOW,
            parts: Tier::PARTS,
            supplies: Vec::new(),
            domains: Vec::new(),
            sensors: Vec::new(),
            last: None,
            joules: None,
            own: None,
            battery: None,
            slots: metrics.map(|metric| board.node(metric)),
        }
    }

    /// How the node is supplied; `None` without a battery.
    pub(super) fn battery(&self) -> Option<Battery> {
        self.battery
    }

    /// `ticks`: of the agent, and busy ticks of all processors, since boot.
    pub(super) fn sample(
        &mut self,
        now: Micros,
        ticks: Option<(u64, u64)>,
        texts: &mut Texts,
        board: &mut Board,
    ) {
        if !self.slow.due(now) {
            return;
        }
        if self.parts.due(now) {
            self.find();
        }
        let [charge, mains, power, energy, own] = self.slots;
        let supply = self.supply();
        board.put(now, charge, supply.charge);
        board.put(now, mains, supply.mains.map(|on| f64::from(u8::from(on))));
        self.battery = supply.charge.map(|charge| Battery {
            charge: Ratio::saturating(to_f32(charge)),
            mains: supply.mains.unwrap_or(false),
        });
        let counted = self.counted(texts);
        let sensed = self.sensors.iter_mut();
        let sensed = sensed.filter_map(|sensor| texts.parse(sensor, parse::whole));
        let sensed = sensed.map(|microwatts| microwatts / 1e6).reduce(f64::max);
        let last = self
            .last
            .filter(|last| now > last.at && now.since(last.at) <= GAP_MAX);
        let seconds = last.map(|last| (now - last.at) as f64 / 1e6);
        let sensible = |watts: &f64| (0.0..=WATTS_MAX).contains(watts);
        let watts = counted
            .zip(seconds)
            .map(|(joules, seconds)| joules / seconds)
            .or(sensed)
            .or(supply.watts)
            .filter(sensible);
        board.put(now, power, watts);
        let before = last.and_then(|last| last.watts).or(watts);
        if let (Some(watts), Some(before), Some(seconds)) = (watts, before, seconds) {
            // Counted over just this span, or sensed at both of its ends.
            let mean = if counted.is_some() {
                watts
            } else {
                (watts + before) / 2.0
            };
            let drawn = mean * seconds;
            self.joules = Some(self.joules.unwrap_or(0.0) + drawn);
            let share = last.and_then(|last| last.ticks).zip(ticks);
            let share = share.and_then(|((own_before, before), (own, all))| {
                let all = all.checked_sub(before).filter(|all| *all > 0)?;
                Some(own.checked_sub(own_before)? as f64 / all as f64)
            });
            if let Some(share) = share {
                self.own = Some(self.own.unwrap_or(0.0) + drawn * share.min(1.0));
            }
        }
        let known = |sum: Option<f64>| sum.filter(|_| watts.is_some());
        board.put(now, energy, known(self.joules));
        board.put(now, own, known(self.own));
        self.last = Some(Last {
            at: now,
            watts,
            ticks,
        });
    }

    /// Joules of all domains since the last look.
    fn counted(&mut self, texts: &mut Texts) -> Option<f64> {
        let mut sum = None;
        for domain in &mut self.domains {
            let energy = texts.parse(&mut domain.energy, parse::count);
            let last = std::mem::replace(&mut domain.last, energy);
            // A domain that cannot be read leaves no whole.
            let (energy, last) = energy.zip(last)?;
            let grown = if energy >= last {
                energy - last
            } else {
                domain.wrap.saturating_sub(last).saturating_add(energy)
            };
            sum = Some(sum.unwrap_or(0.0) + grown as f64 / 1e6);
        }
        sum
    }

    fn find(&mut self) {
        let class = self.sys.join("class");
        let read = |path: PathBuf| small(&path);
        let supplies = below(&class.join("power_supply"), |_| true);
        let supplies = supplies.into_iter().filter_map(|folder| {
            let kind = read(folder.join("type"))?;
            // The battery of a mouse is none of the node's.
            let scope = read(folder.join("scope"));
            let other = scope.is_some_and(|scope| scope.trim() == "Device");
            let battery = kind.trim() == "Battery";
            (!other).then_some(Supply { battery, folder })
        });
        self.supplies = supplies.take(FILES_MAX).collect();
        if self.domains.is_empty() {
            self.domains = domains(&class.join("powercap"));
        }
        if self.sensors.is_empty() {
            let wanted = |name: &str| {
                name.starts_with("power")
                    && (name.ends_with("_input") || name.ends_with("_average"))
            };
            let chips = below(&class.join("hwmon"), |_| true);
            let files = chips.iter().flat_map(|chip| below(chip, wanted));
            self.sensors = files
                .take(FILES_MAX)
                .map(|file| Source::new(&file))
                .collect();
        }
    }

    fn supply(&self) -> Supplied {
        let mut found = Supplied::default();
        let (mut outside, mut discharging) = (None, None);
        for supply in &self.supplies {
            let read = |name: &str| small(&supply.folder.join(name));
            let number = |name: &str| parse::whole(&read(name)?);
            if !supply.battery {
                if let Some(online) = number("online") {
                    outside = Some(outside == Some(true) || online > 0.0);
                }
                continue;
            }
            if number("present") == Some(0.0) {
                continue;
            }
            let share = |now: &str, full: &str| Some(number(now)? / number(full)?);
            let charge = number("capacity")
                .map(|percent| percent / 100.0)
                .or_else(|| share("energy_now", "energy_full"))
                .or_else(|| share("charge_now", "charge_full"));
            if let Some(charge) = charge.filter(|charge| (0.0..=1.1).contains(charge)) {
                let charge = charge.min(1.0);
                found.charge = Some(found.charge.map_or(charge, |least| least.min(charge)));
            }
            let status = read("status");
            let draws = match status.as_deref().map(str::trim) {
                Some("Discharging") => true,
                Some("Charging" | "Full" | "Not charging") => false,
                _ => continue,
            };
            discharging = Some(discharging == Some(true) || draws);
            let volts = || Some(number("voltage_now")? / 1e6);
            let watts = number("power_now").map(|microwatts| microwatts / 1e6);
            let watts = watts.or_else(|| Some(number("current_now")? / 1e6 * volts()?));
            if let Some(watts) = watts.filter(|_| draws) {
                // Some drivers count a current out of the battery below 0.
                found.watts = Some(found.watts.unwrap_or(0.0) + watts.abs());
            }
        }
        found.mains = outside.or(discharging.map(|draws| !draws));
        found
    }
}

#[derive(Debug, Default)]
struct Supplied {
    charge: Option<f64>,
    mains: Option<bool>,
    watts: Option<f64>,
}

/// `intel-rapl:0` is a package, `intel-rapl:0:1` a part of it, and `intel-rapl-mmio:0` the
/// same package by another way.
fn domains(folder: &Path) -> Vec<Domain> {
    let whole = |name: &str| {
        let number = name.strip_prefix("intel-rapl:");
        number.is_some_and(|number| number.parse::<u16>().is_ok())
    };
    let found = below(folder, whole);
    let name = |path: &PathBuf| small(&path.join("name")).unwrap_or_default();
    let platform = found.iter().find(|path| name(path).trim() == "psys");
    let domains = match platform {
        Some(platform) => std::slice::from_ref(platform),
        None => &found[..],
    };
    let domains = domains.iter().take(FILES_MAX).map(|path| {
        let wrap = small(&path.join("max_energy_range_uj"));
        Domain {
            energy: Source::new(&path.join("energy_uj")),
            wrap: wrap.and_then(|wrap| parse::count(&wrap)).unwrap_or(WRAP_UJ),
            last: None,
        }
    });
    domains.collect()
}
