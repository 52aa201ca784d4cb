//! Interfaces and what goes through them, radio links, retransmits, sockets.
//!
//! One text holds the counters of all interfaces; carrier and speed are files of each below
//! `/sys/class/net`. Loopback and interfaces that exist on this node alone are left out.
//! Bandwidth is never measured by filling a link: what passes is compared to what the link
//! says that it carries.

use std::path::{Path, PathBuf};

use homeostat_common::observation::{Metric, Part};
use homeostat_common::units::Micros;

use super::board::{Board, Slot, Tier};
use super::deltas::Deltas;
use super::source::Source;
use super::{Texts, parse};

/// Interfaces that are looked at, in the order in which they are found.
const INTERFACES_MAX: usize = 8;

/// Samples in a row without it until an interface counts as gone.
const ABSENT_MAX: u16 = 600;

/// Nothing leaves the node through it. Not the beginning of a name: `lowpan0` is a radio.
const LOOPBACK: &str = "lo";

/// What connects nothing but parts of this node, by the beginning of its name.
const INNER: [&str; 13] = [
    "veth", "ifb", "docker", "br-", "virbr", "cali", "flannel", "cni", "dummy", "tunl", "sit",
    "ip6tnl", "gre",
];

/// A megabit in bytes; `speed` counts those.
const MEGABIT: f64 = 125_000.0;

/// All of it.
#[derive(Debug)]
pub(super) struct Network {
    class: PathBuf,
    counters: Source,
    wireless: Source,
    snmp: Source,
    sockstat: Source,
    tracked: [Source; 2],
    segments: Deltas<2>,
    slow: Tier,
    interfaces: Vec<Interface>,
    slots: [Slot; 3],
}

#[derive(Debug)]
struct Interface {
    part: Part,
    carrier: Source,
    speed: Source,
    /// Bytes per second, as last known.
    limit: Option<f64>,
    /// Bytes, packets, errors, drops received; the same sent.
    deltas: Deltas<8>,
    absent: u16,
    slots: Slots,
}

#[derive(Debug, Clone, Copy)]
struct Slots {
    received: Slot,
    sent: Slot,
    packets: Slot,
    errors: Slot,
    drops: Slot,
    carrier: Slot,
    speed: Slot,
    load: Slot,
    /// Of a radio link: signal and noise.
    radio: Option<[Slot; 2]>,
}

impl Network {
    pub(super) fn new(proc: &Path, sys: &Path, board: &mut Board) -> Self {
        let source = |name: &str| Source::new(&proc.join(name));
        let metrics = [
            Metric::TcpRetransmits,
            Metric::Sockets,
            Metric::ConntrackUsed,
        ];
        Self {
            class: sys.join("class/net"),
            counters: source("net/dev"),
            wireless: source("net/wireless"),
            snmp: source("net/snmp"),
            sockstat: source("net/sockstat"),
            tracked: ["count", "max"]
                .map(|name| source(&format!("sys/net/netfilter/nf_conntrack_{name}"))),
            segments: Deltas::default(),
            slow: Tier::SLOW,
            interfaces: Vec::new(),
            slots: metrics.map(|metric| board.node(metric)),
        }
    }

    pub(super) fn sample(&mut self, now: Micros, texts: &mut Texts, board: &mut Board) {
        let (interfaces, class) = (&mut self.interfaces, &self.class);
        for interface in &mut *interfaces {
            interface.absent = interface.absent.saturating_add(1);
        }
        let mut broken = 0;
        let _ = texts.parse(&mut self.counters, |text| {
            for line in parse::net_dev(text)? {
                let Some((name, counts)) = line else {
                    broken += 1;
                    continue;
                };
                if name == LOOPBACK || INNER.iter().any(|inner| name.starts_with(inner)) {
                    continue;
                }
                let known = interfaces.iter().position(|it| it.part.as_str() == name);
                if let Some(known) = known.and_then(|at| interfaces.get_mut(at)) {
                    known.sample(now, &counts, board);
                } else if interfaces.len() < INTERFACES_MAX
                    && let Some(part) = Part::new(name)
                {
                    let mut new = Interface::new(class, part, board);
                    new.sample(now, &counts, board);
                    interfaces.push(new);
                }
            }
            Some(())
        });
        texts.garbage += broken;
        // Who is not in the text is silent; whoever stays away is gone.
        for interface in interfaces.iter_mut().filter(|it| it.absent > 0) {
            interface.silent(now, board);
        }
        interfaces.retain(|interface| {
            let stays = interface.absent < ABSENT_MAX;
            if !stays {
                interface.leave(board);
            }
            stays
        });
        let [retransmits, sockets, tracked] = self.slots;
        let segments = texts.parse(&mut self.snmp, parse::tcp_segments);
        let growth = self.segments.grown(now, segments);
        let again = growth.map(|growth| growth.by).filter(|[sent, _]| *sent > 0);
        // What is sent again is counted apart from what is sent.
        let share = again.map(|[sent, again]| again as f64 / (sent.saturating_add(again)) as f64);
        board.put(now, retransmits, share);
        if !self.slow.due(now) {
            return;
        }
        let used = texts.parse(&mut self.sockstat, parse::sockets);
        board.put(now, sockets, used.map(|used| used as f64));
        let [count, max] = &mut self.tracked;
        let count = texts.parse(count, parse::count);
        let max = texts.parse(max, parse::count).filter(|max| *max > 0);
        let used = count.zip(max).map(|(count, max)| count as f64 / max as f64);
        board.put(now, tracked, used);
        for interface in &mut self.interfaces {
            interface.look(now, texts, board);
        }
        let interfaces = &mut self.interfaces;
        let radio = texts.parse(&mut self.wireless, |text| {
            let radio = parse::wireless(text).filter_map(|(name, signal, noise)| {
                let mut known = interfaces.iter();
                let at = known.position(|it| it.part.as_str() == name)?;
                Some((at, signal, noise))
            });
            Some(radio.collect::<Vec<_>>())
        });
        for (at, interface) in interfaces.iter_mut().enumerate() {
            let mut lines = radio.iter().flatten();
            let line = lines.find(|(place, ..)| *place == at);
            let levels = line.map_or([None; 2], |(_, signal, noise)| [*signal, *noise]);
            interface.hear(now, levels, board);
        }
    }
}

impl Interface {
    fn new(class: &Path, part: Part, board: &mut Board) -> Self {
        let folder = class.join(part.as_str());
        let mut slot = |metric| board.part(metric, &part);
        Self {
            carrier: Source::new(&folder.join("carrier")),
            speed: Source::new(&folder.join("speed")),
            limit: None,
            deltas: Deltas::default(),
            absent: 0,
            slots: Slots {
                received: slot(Metric::NetReceived),
                sent: slot(Metric::NetSent),
                packets: slot(Metric::NetPackets),
                errors: slot(Metric::NetErrors),
                drops: slot(Metric::NetDrops),
                carrier: slot(Metric::NetCarrier),
                speed: slot(Metric::NetSpeed),
                load: slot(Metric::NetLoad),
                radio: None,
            },
            part,
        }
    }

    fn sample(&mut self, now: Micros, counts: &[u64; 16], board: &mut Board) {
        self.absent = 0;
        let [bytes, packets, errors, drops, _, _, _, _, rest @ ..] = *counts;
        let [sent, sent_packets, sent_errors, sent_drops, ..] = rest;
        let counters = [
            bytes,
            packets,
            errors,
            drops,
            sent,
            sent_packets,
            sent_errors,
            sent_drops,
        ];
        self.put(now, Some(counters), board);
    }

    fn silent(&mut self, now: Micros, board: &mut Board) {
        self.put(now, None, board);
    }

    fn put(&mut self, now: Micros, counters: Option<[u64; 8]>, board: &mut Board) {
        let growth = self.deltas.grown(now, counters);
        let rate = |place| growth.map(|growth| growth.rate(place));
        let both = |place| Some(rate(place)? + rate(place + 4)?);
        board.put(now, self.slots.received, rate(0));
        board.put(now, self.slots.sent, rate(4));
        board.put(now, self.slots.packets, both(1));
        board.put(now, self.slots.errors, both(2));
        board.put(now, self.slots.drops, both(3));
        let busier = rate(0).zip(rate(4)).map(|(one, other)| one.max(other));
        let load = busier.zip(self.limit).map(|(bytes, limit)| bytes / limit);
        board.put(now, self.slots.load, load.map(|load| load.min(1.0)));
    }

    /// Carrier and speed. Of an interface that is switched off the kernel tells neither, and
    /// no speed of a virtual or wireless one.
    fn look(&mut self, now: Micros, texts: &mut Texts, board: &mut Board) {
        let carrier = texts.parse(&mut self.carrier, parse::flag);
        let carrier = carrier.map(|carrier| f64::from(u8::from(carrier)));
        board.put(now, self.slots.carrier, carrier);
        let speed = texts.parse(&mut self.speed, parse::whole);
        // Some drivers say -1 or its 32 bits for "unknown".
        let known = |speed: &f64| (1.0..f64::from(i32::MAX)).contains(speed);
        self.limit = speed.filter(known).map(|megabits| megabits * MEGABIT);
        board.put(now, self.slots.speed, self.limit);
    }

    fn hear(&mut self, now: Micros, levels: [Option<f64>; 2], board: &mut Board) {
        if self.slots.radio.is_none() && levels.iter().any(Option::is_some) {
            let metrics = [Metric::RadioSignal, Metric::RadioNoise];
            self.slots.radio = Some(metrics.map(|metric| board.part(metric, &self.part)));
        }
        for (slot, level) in self.slots.radio.into_iter().flatten().zip(levels) {
            board.put(now, slot, level);
        }
    }

    fn leave(&self, board: &mut Board) {
        let slots = self.slots;
        let all = [
            slots.received,
            slots.sent,
            slots.packets,
            slots.errors,
            slots.drops,
            slots.carrier,
            slots.speed,
            slots.load,
        ];
        for slot in all.into_iter().chain(slots.radio.into_iter().flatten()) {
            board.drop_row(slot);
        }
    }
}
