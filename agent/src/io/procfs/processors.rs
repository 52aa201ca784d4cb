//! What the processors do, and what keeps them from it: shares of time, clocks, heat and
//! a weak supply.
//!
//! Reads `stat` and `loadavg` of `/proc` each time, and slowly below `/sys`: the clocks of
//! `cpufreq`, the throttle counters of Intel processors, what the firmware of a Raspberry Pi
//! says (`get_throttled`), and the alarms for low voltage of `hwmon`.

use std::fs;
use std::path::{Path, PathBuf};

use homeostat_common::observation::Metric;
use homeostat_common::units::{Micros, Ratio};

use super::board::{Board, Slot, Tier};
use super::source::{Source, small};
use super::{Texts, parse, share};

/// Cores that are told apart; the text of `stat` ends somewhere above 100 of them.
const CORES_MAX: usize = 256;

/// Clocks, throttle counters and alarms, each: a file per core on some machines.
const FILES_MAX: usize = 64;

/// Bits of `get_throttled` for now: the supply is too weak, and the clock is capped, the
/// processor throttled, or a soft limit of heat reached. Those above tell of the past.
const UNDER_VOLTAGE: u32 = 1;
const THROTTLED: u32 = 0b1110;

/// All processors of the node.
#[derive(Debug)]
pub(super) struct Processors {
    stat: Source,
    load: Source,
    all: Option<parse::CpuTicks>,
    cores: Vec<Option<parse::CpuTicks>>,
    hardware: Hardware,
    slots: Slots,
}

#[derive(Debug)]
struct Slots {
    iowait: Slot,
    steal: Slot,
    core_max: Slot,
    load: Slot,
    clock: Slot,
    cap: Slot,
    throttled: Slot,
    under_voltage: Slot,
}

impl Processors {
    pub(super) fn new(proc: &Path, sys: &Path, board: &mut Board) -> Self {
        Self {
            stat: Source::new(&proc.join("stat")),
            load: Source::new(&proc.join("loadavg")),
            all: None,
            cores: Vec::new(),
            hardware: Hardware::new(sys),
            slots: Slots {
                iowait: board.node(Metric::CpuIowait),
                steal: board.node(Metric::CpuSteal),
                core_max: board.node(Metric::CpuCoreMax),
                load: board.node(Metric::Load),
                clock: board.node(Metric::CpuFrequency),
                cap: board.node(Metric::CpuFrequencyCap),
                throttled: board.node(Metric::Throttled),
                under_voltage: board.node(Metric::UnderVoltage),
            },
        }
    }

    /// Busy ticks of all cores since boot, as of the last sample.
    pub(super) fn busy_ticks(&self) -> Option<u64> {
        self.all.map(|all| all.busy)
    }

    /// Puts everything on the board but the share that was busy, which is returned.
    pub(super) fn sample(
        &mut self,
        now: Micros,
        texts: &mut Texts,
        board: &mut Board,
    ) -> Option<Ratio> {
        let cores = &mut self.cores;
        let mut most: Option<f64> = None;
        let all = texts.parse(&mut self.stat, |text| {
            let all = parse::cpu_ticks(text.lines().next()?.strip_prefix("cpu ")?)?;
            let lines = text.lines().skip(1).map_while(parse::core_ticks);
            for (core, ticks) in lines.filter(|(core, _)| *core < CORES_MAX) {
                if cores.len() <= core {
                    cores.resize(core + 1, None);
                }
                let Some(last) = cores.get_mut(core) else {
                    continue;
                };
                let grown = last.replace(ticks).and_then(|last| ticks.since(last));
                if let Some(grown) = grown {
                    let busy = grown.share(grown.busy);
                    most = Some(most.map_or(busy, |most| most.max(busy)));
                }
            }
            Some(all)
        });
        let grown = all.zip(self.all).and_then(|(all, last)| all.since(last));
        self.all = all;
        let slots = &self.slots;
        board.put(now, slots.core_max, most);
        let part = |part: fn(&parse::CpuTicks) -> u64| {
            grown.as_ref().map(|grown| grown.share(part(grown)))
        };
        board.put(now, slots.iowait, part(|grown| grown.iowait));
        board.put(now, slots.steal, part(|grown| grown.steal));
        let load = texts.parse(&mut self.load, parse::load);
        board.put(now, slots.load, load.map(f64::from));
        if self.hardware.tier.due(now) {
            let state = self.hardware.look(now, texts);
            let flag = |flag: Option<bool>| flag.map(|flag| f64::from(u8::from(flag)));
            board.put(now, slots.clock, state.clock);
            board.put(now, slots.cap, state.cap);
            board.put(now, slots.throttled, flag(state.throttled));
            board.put(now, slots.under_voltage, flag(state.under_voltage));
        }
        grown.map(|grown| share(grown.share(grown.busy)))
    }
}

/// What slows the processors down.
#[derive(Debug)]
struct Hardware {
    sys: PathBuf,
    tier: Tier,
    parts: Tier,
    policies: Vec<Policy>,
    firmware: Option<Source>,
    counters: Vec<Source>,
    /// How many counters there were, and their sum.
    counted: Option<(usize, u64)>,
    alarms: Vec<Source>,
}

/// Cores that share a clock.
#[derive(Debug)]
struct Policy {
    now: Source,
    cap: Source,
    /// In kHz.
    max: f64,
}

#[derive(Debug, Default)]
struct State {
    clock: Option<f64>,
    cap: Option<f64>,
    throttled: Option<bool>,
    under_voltage: Option<bool>,
}

impl Hardware {
    fn new(sys: &Path) -> Self {
        Self {
            sys: sys.to_owned(),
            tier: Tier::SLOW,
            parts: Tier::PARTS,
            policies: Vec::new(),
            firmware: None,
            counters: Vec::new(),
            counted: None,
            alarms: Vec::new(),
        }
    }

    fn look(&mut self, now: Micros, texts: &mut Texts) -> State {
        let empty = self.policies.is_empty() && self.alarms.is_empty() && self.firmware.is_none();
        // A driver may be loaded late.
        if empty && self.parts.due(now) {
            self.find();
        }
        let (mut clocks, mut caps) = (Vec::new(), Vec::new());
        for policy in &mut self.policies {
            let of_max =
                |khz: f64| Some(khz / policy.max).filter(|part| (0.0..=4.0).contains(part));
            clocks.extend(texts.parse(&mut policy.now, parse::whole).and_then(of_max));
            caps.extend(texts.parse(&mut policy.cap, parse::whole).and_then(of_max));
        }
        let firmware = self.firmware.as_mut();
        let bits = firmware.and_then(|firmware| texts.parse(firmware, parse::throttled_bits));
        let counts = self.counters.iter_mut();
        let counts: Vec<u64> = counts
            .filter_map(|counter| texts.parse(counter, parse::count))
            .collect();
        let sum = counts.iter().copied().reduce(u64::saturating_add);
        let count = sum.map(|sum| (counts.len(), sum));
        // A core that came brings a counter of its own along.
        let same = |((cores, sum), (before, last))| (cores == before).then_some(sum > last);
        let more = count.zip(self.counted).and_then(same);
        self.counted = count;
        let alarms = self.alarms.iter_mut();
        let alarms: Vec<bool> = alarms
            .filter_map(|alarm| texts.parse(alarm, parse::flag))
            .collect();
        let either = |bit: Option<bool>, other: Option<bool>| match (bit, other) {
            (None, None) => None,
            (bit, other) => Some(bit == Some(true) || other == Some(true)),
        };
        let low = (!alarms.is_empty()).then(|| alarms.contains(&true));
        State {
            clock: (!clocks.is_empty()).then(|| clocks.iter().sum::<f64>() / clocks.len() as f64),
            cap: caps.into_iter().reduce(f64::min),
            throttled: either(bits.map(|bits| bits & THROTTLED != 0), more),
            under_voltage: either(bits.map(|bits| bits & UNDER_VOLTAGE != 0), low),
        }
    }

    fn find(&mut self) {
        let cpu = self.sys.join("devices/system/cpu");
        let policies = below(&cpu.join("cpufreq"), |name| name.starts_with("policy"));
        self.policies = policies
            .iter()
            .filter_map(|path| {
                let max = small(&path.join("cpuinfo_max_freq"))?;
                let max = parse::whole(&max).filter(|max| *max > 0.0)?;
                Some(Policy {
                    now: Source::new(&path.join("scaling_cur_freq")),
                    cap: Source::new(&path.join("scaling_max_freq")),
                    max,
                })
            })
            .collect();
        let cores = below(&cpu, |name| name.starts_with("cpu"));
        let counters = cores.iter().flat_map(|path| {
            ["core_throttle_count", "package_throttle_count"]
                .map(|name| path.join("thermal_throttle").join(name))
        });
        self.counters = present(counters);
        let chips = below(&self.sys.join("class/hwmon"), |_| true);
        self.alarms = present(chips.iter().map(|path| path.join("in0_lcrit_alarm")));
        // Of `platform/soc/soc:firmware`, whatever the board's tree calls the first of them.
        let platform = self.sys.join("devices/platform");
        let firmware = below(&platform, |name| name.starts_with("soc"))
            .into_iter()
            .flat_map(|soc| below(&soc, |name| name.contains("firmware")))
            .map(|path| path.join("get_throttled"));
        self.firmware = present(firmware).pop();
    }
}

fn present(paths: impl Iterator<Item = PathBuf>) -> Vec<Source> {
    let found = paths.filter(|path| path.exists()).take(FILES_MAX);
    found.map(|path| Source::new(&path)).collect()
}

/// What is in a folder and has such a name, in order; nothing if the folder is absent.
pub(super) fn below(folder: &Path, wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| wanted(name))
        .take(FILES_MAX)
        .collect();
    names.sort();
    names.into_iter().map(|name| folder.join(name)).collect()
}
