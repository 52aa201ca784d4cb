//! Who is behind a trouble: the causal model of this node, with bounded memory.
//!
//! In go who needs whom, and the readings that the loop takes anyway, a row each second; they
//! are kept as means over [`ROWS`] of them. When something is wrong, the present row is added
//! and [`homeostat_causes`] says who shows more than what it needs explains. Out comes a
//! [`Verdict`] in the words of the wire. Knows nothing of what is done about it.
//!
//! What of a component is handed up to those who need it: the time of its answers, and the
//! share of them that fail. Everything else is its own: what it uses, what is odd about a
//! model, how busy the node and its disks are. Who runs on something that is busier than ever
//! is explained by it. Memory has a bound, [`BYTES_MAX`].

use core::time::Duration;
use std::collections::BTreeMap;

use homeostat_causes as causes;
use homeostat_causes::{Alarm, Kind, Signals};
use homeostat_common::observation::Series;
use homeostat_common::suspect::{
    Component, Edge, Grade, REASON_MAX, REASONS_MAX, SUSPECTS_MAX, Suspect, TellApart,
};
use homeostat_common::units::{Micros, Millis, Ratio};
use homeostat_common::wire::bounded;

use super::meaning::{Meaning, meaning, reason};

/// Rows of which one sample of the history is the mean: at one a second it reaches back
/// eight minutes.
const ROWS: u8 = 4;

/// Samples of each series; one less than a power of two, as one more is held for a moment.
const SAMPLES: usize = 127;

/// Means from which on a trouble is compared with those before it alone: 24 s of them.
const KNOWN_ROWS: usize = 6;

/// Most series: fifty components have five each.
pub const SERIES_MAX: usize = 256;

/// Most components; a node of 64 services behind routes, with models, has fewer.
const COMPONENTS_MAX: usize = 320;

/// What makes a diagnosis less sure is told with the likeliest suspect: so much of it.
const DOUBTS_MAX: usize = 2;

/// What the history takes at most, in bytes; what a diagnosis takes besides, for as long as it
/// lasts, is less than a quarter of it for each of its rows.
pub const BYTES_MAX: usize = 768 * 1024;

/// One series on its way into the history.
#[derive(Debug, Clone)]
struct Track {
    id: causes::SeriesId,
    meaning: Meaning,
    sum: f64,
    count: u32,
    /// Samples that the last look put into the history.
    looked: u8,
}

impl Track {
    fn drain(&mut self) -> (f64, u32) {
        (
            std::mem::take(&mut self.sum),
            std::mem::take(&mut self.count),
        )
    }
}

/// The model of one node.
#[derive(Debug, Clone)]
pub struct Causal {
    graph: causes::Graph,
    signals: Signals,
    /// By their places in the graph.
    components: Vec<Component>,
    edges: Vec<Edge>,
    tracks: BTreeMap<Series, Track>,
    /// Of the sample that is not full yet, and when it began.
    rows: u8,
    begun: Option<Micros>,
    closed: usize,
    left_out: usize,
}

/// Who is suspected, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// The likeliest first, those that others explain last.
    pub suspects: Vec<Suspect>,
    /// What would tell the first two apart.
    pub tell_apart: Option<TellApart>,
    /// What it rests on.
    pub grade: Grade,
    /// Who is beyond the usual too, but nothing that the alarmed one needs: coincidence.
    pub coincident: Vec<Component>,
}

impl Verdict {
    /// What was `seen` happened to `of` itself, for all that is `sure`: measurements of others
    /// are left what is not.
    pub fn befell(&mut self, of: &Component, sure: Ratio, seen: &[String]) {
        let left = 1.0 - sure.get();
        let known = self.suspects.iter().position(|one| one.component == *of);
        let known = known.map(|place| self.suspects.remove(place));
        for one in &mut self.suspects {
            one.confidence = Ratio::saturating(one.confidence.get() * left);
            one.share = Ratio::saturating(one.share.get() * left);
        }
        let doubted = |one: &Suspect| one.confidence > Ratio::ZERO || one.explained_by.is_some();
        self.suspects.retain(doubted);
        let part = |known: Option<Ratio>| {
            let known = known.map_or(0.0, Ratio::get);
            Ratio::saturating(sure.get() + left * known)
        };
        // That somebody else explains what was measured of it says nothing of what was seen.
        let measured = known.iter().filter(|one| one.explained_by.is_none());
        let measured = measured.flat_map(|one| &one.evidence);
        let evidence = seen.iter().chain(measured).take(REASONS_MAX);
        let own = Suspect {
            component: of.clone(),
            confidence: part(known.as_ref().map(|one| one.confidence)),
            share: part(known.as_ref().map(|one| one.share)),
            began: known.as_ref().and_then(|one| one.began),
            evidence: evidence.map(|one| bounded(one, REASON_MAX)).collect(),
            explained_by: None,
        };
        self.suspects.insert(0, own);
        self.suspects.truncate(SUSPECTS_MAX);
        let suspects = &self.suspects;
        let first = |of: &Component| suspects.iter().take(2).any(|one| one.component == *of);
        let both = |apart: &TellApart| first(&apart.between.0) && first(&apart.between.1);
        if !self.tell_apart.as_ref().is_some_and(both) {
            self.tell_apart = None;
        }
    }
}

impl Causal {
    /// A model of which only is known who needs whom.
    #[must_use]
    pub fn new(edges: impl IntoIterator<Item = Edge>) -> Self {
        let mut this = Self {
            graph: causes::Graph::default(),
            signals: Signals::keeping(SAMPLES).of_one_clock(),
            components: Vec::new(),
            edges: Vec::new(),
            tracks: BTreeMap::new(),
            rows: 0,
            begun: None,
            closed: 0,
            left_out: 0,
        };
        for edge in edges {
            this.join(edge);
        }
        this
    }

    /// Who needs whom.
    #[must_use]
    pub fn edges(&self) -> &[Edge] {
        &self.edges
    }

    /// Series that had no room.
    #[must_use]
    pub fn left_out(&self) -> usize {
        self.left_out
    }

    /// Bytes on the heap, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        // A node of a tree is at least half full.
        let tracks = 2 * self.tracks.len() * size_of::<(Series, Track)>();
        let named = self.components.len() * (size_of::<Component>() + 2 * 64);
        self.signals.bytes() + tracks + named + self.edges.len() * size_of::<Edge>()
    }

    /// Takes the readings of a sample in.
    pub fn observe<'s>(&mut self, now: Micros, row: impl Iterator<Item = (&'s Series, f64)>) {
        self.left_out = 0;
        self.forget_look();
        for (series, value) in row {
            self.take(series, value);
        }
        let begun = *self.begun.get_or_insert(now);
        self.rows += 1;
        if self.rows >= ROWS {
            // Ends a sample of the history.
            (self.rows, self.begun) = (0, None);
            self.closed = self.closed.saturating_add(1);
            self.push(begun, 0);
        }
    }

    /// Takes the present in, as it is: what is wrong has just begun. It is held until the next
    /// look or sample and no longer: a look each second would push what was usual out of the
    /// history within a minute.
    pub fn look<'s>(&mut self, now: Micros, row: impl Iterator<Item = (&'s Series, f64)>) {
        self.forget_look();
        // A row that is not full yet, partly of the time before, would blur it.
        let begun: Vec<(f64, u32)> = self.tracks.values_mut().map(Track::drain).collect();
        let known: Vec<Series> = self.tracks.keys().cloned().collect();
        for (series, value) in row {
            self.take(series, value);
        }
        self.push(now, 1);
        for (series, begun) in known.iter().zip(begun) {
            if let Some(track) = self.tracks.get_mut(series) {
                (track.sum, track.count) = begun;
            }
        }
    }

    /// Takes back what the last look put in.
    fn forget_look(&mut self) {
        for track in self.tracks.values_mut() {
            for _ in 0..std::mem::take(&mut track.looked) {
                self.signals.pop(track.id);
            }
        }
    }

    fn take(&mut self, series: &Series, value: f64) {
        if !value.is_finite() {
            return;
        }
        if !self.tracks.contains_key(series) && !self.open(series) {
            return;
        }
        if let Some(track) = self.tracks.get_mut(series) {
            track.sum += track.meaning.value(value);
            track.count += 1;
        }
    }

    /// Whether enough of what is usual was seen to go by. Little of it is better than what
    /// has a trouble in it.
    #[must_use]
    pub fn knows(&self) -> bool {
        self.closed >= KNOWN_ROWS
    }

    fn push(&mut self, now: Micros, looked: u8) {
        let at = Duration::from_micros(now.0);
        for track in self.tracks.values_mut().filter(|track| track.count > 0) {
            let (sum, count) = track.drain();
            let mean = homeostat_common::units::narrow(sum / f64::from(count));
            if self.signals.push(track.id, at, mean, f32::NAN) {
                track.looked += looked;
            }
        }
    }

    /// A series that was not seen before; whether it counts.
    fn open(&mut self, series: &Series) -> bool {
        let Some((component, meaning)) = meaning(series, &self.components) else {
            return false;
        };
        if self.tracks.len() >= SERIES_MAX {
            self.left_out += 1;
            return false;
        }
        if let Component::Part(_) = component {
            // Which of the services use it is not known; one that is busy may hold up any.
            let on_node = self
                .edges
                .iter()
                .filter(|edge| edge.needs == Component::Node);
            let users: Vec<Component> = on_node.map(|edge| edge.from.clone()).collect();
            for from in users.into_iter().chain([Component::Node]) {
                let needs = component.clone();
                self.join(Edge { from, needs });
            }
        }
        let Some(place) = self.add(&component) else {
            return false;
        };
        let name = series.metric.name();
        let Ok(id) = self.signals.series(place, meaning.kind, name) else {
            return false;
        };
        let wanders = homeostat_common::units::narrow(series.metric.wanders());
        self.signals.wanders(id, wanders);
        let track = Track {
            id,
            meaning,
            sum: 0.0,
            count: 0,
            looked: 0,
        };
        self.tracks.insert(series.clone(), track);
        true
    }

    fn add(&mut self, component: &Component) -> Option<causes::Component> {
        let name = component.to_string();
        if let Some(known) = self.graph.find(&name) {
            return Some(known);
        }
        if self.components.len() >= COMPONENTS_MAX {
            return None;
        }
        let place = self.graph.add(&name).ok()?;
        self.components.push(component.clone());
        Some(place)
    }

    /// One needs another, from now on.
    pub fn join(&mut self, edge: Edge) {
        if self.edges.contains(&edge) {
            return;
        }
        let ends = self.add(&edge.from).zip(self.add(&edge.needs));
        if let Some((from, needs)) = ends
            && self.graph.calls(from, needs, None).is_ok()
        {
            self.edges.push(edge);
        }
    }

    fn component(&self, place: causes::Component) -> Option<&Component> {
        self.components.get(usize::from(place.0))
    }

    /// Who is behind what is wrong with a component since then.
    #[must_use]
    pub fn diagnose(&self, alarmed: &Component, kind: Kind, since: Micros, now: Micros) -> Verdict {
        let at = Duration::from_micros(since.0);
        let alarm = match self.graph.find(&alarmed.to_string()) {
            Some(component) => Alarm::of(component, kind, at),
            None => Alarm::at(at),
        };
        let found = causes::diagnose(&self.graph, &self.signals, &alarm);
        let by = |of: causes::Component| {
            let mut explained = found.explained_away.iter();
            let one = explained.find(|one| one.component == of)?;
            self.component(one.by).cloned()
        };
        let began = |onset: Option<Duration>| {
            let onset = u64::try_from(onset?.as_micros()).unwrap_or(u64::MAX);
            // Of means over seconds nobody knows the milliseconds.
            let ago = now.since(Micros(onset));
            Some(Millis(ago.0.next_multiple_of(1000)))
        };
        let mut suspects: Vec<Suspect> = found
            .suspects
            .iter()
            .filter_map(|one| {
                let reasons = one.evidence.iter().take(REASONS_MAX);
                Some(Suspect {
                    component: self.component(one.component)?.clone(),
                    confidence: Ratio::saturating(one.confidence),
                    share: Ratio::saturating(one.share),
                    began: began(one.onset),
                    evidence: reasons.map(|one| reason(one, &self.graph)).collect(),
                    explained_by: by(one.component),
                })
            })
            .collect();
        for one in &found.explained_away {
            let Some((component, by)) = self.component(one.component).zip(self.component(one.by))
            else {
                continue;
            };
            if suspects.iter().all(|known| known.component != *component) {
                suspects.push(Suspect {
                    component: component.clone(),
                    confidence: Ratio::ZERO,
                    share: Ratio::ZERO,
                    began: None,
                    evidence: vec![format!("{by} explains {:.0} % of it", one.share * 100.0)],
                    explained_by: Some(by.clone()),
                });
            }
        }
        suspects.sort_by_key(|one| one.explained_by.is_some());
        if let Some(first) = suspects.first_mut() {
            let doubts = found.doubts.iter().filter(|doubt| doubt.of_all());
            let words = |one: &causes::Doubt| format!("less sure, as {}", one.words(&self.graph));
            let doubts: Vec<String> = doubts.take(DOUBTS_MAX).map(words).collect();
            first.evidence.truncate(REASONS_MAX - doubts.len());
            first
                .evidence
                .extend(doubts.iter().map(|one| bounded(one, REASON_MAX)));
        }
        suspects.truncate(SUSPECTS_MAX);
        let cold = found.doubts.iter().find_map(|doubt| match doubt {
            causes::Doubt::Cold { rows } => Some(*rows),
            _ => None,
        });
        Verdict {
            tell_apart: found.probe.and_then(|probe| self.apart(probe, &suspects)),
            suspects,
            coincident: found
                .coincident
                .iter()
                .filter_map(|of| self.component(*of).cloned())
                .collect(),
            grade: match (found.grade, cold) {
                (causes::Grade::Full, _) => Grade::Full,
                (causes::Grade::Cold, Some(0)) => Grade::Blank,
                (causes::Grade::Cold, _) => Grade::Short,
            },
        }
    }

    /// What tells the two likeliest apart, if both are still among the suspects.
    fn apart(&self, probe: causes::Probe, suspects: &[Suspect]) -> Option<TellApart> {
        let (look_at, other) = match probe {
            causes::Probe::Ask { ask, other } => (ask, other),
            causes::Probe::Resources { of, other }
            | causes::Probe::Log { of, other, .. }
            | causes::Probe::Look { of, other, .. } => (of, other),
        };
        let (look_at, other) = self.component(look_at).zip(self.component(other))?;
        let known = |of: &Component| suspects.iter().any(|one| one.component == *of);
        (known(look_at) && known(other)).then(|| TellApart {
            between: (look_at.clone(), other.clone()),
            look_at: look_at.clone(),
            text: bounded(&probe.words(&self.graph).to_string(), REASON_MAX),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::diagnose::topology::{between, chain};
    use homeostat_common::ids::ServiceId;
    use homeostat_common::observation::{Metric, Part};

    fn service(name: &str) -> Component {
        Component::Service(ServiceId::new(name).unwrap())
    }

    fn edge(from: &Component, needs: &Component) -> Edge {
        Edge {
            from: from.clone(),
            needs: needs.clone(),
        }
    }

    fn series(metric: Metric, name: &str) -> Series {
        Series {
            metric,
            service: ServiceId::new(name).ok(),
            part: None,
        }
    }

    fn at(second: u64) -> Micros {
        Micros(second * 1_000_000)
    }

    /// Noise that repeats itself only after 251 samples.
    fn noise(second: u64) -> f64 {
        (second * 97 % 251) as f64 / 251.0
    }

    /// A front needs a store, which needs nobody but the node; all was well for `seconds`.
    fn learnt(seconds: u64) -> Causal {
        let (front, store) = (service("front"), service("store"));
        let mut causal = Causal::new([
            edge(&front, &store),
            edge(&front, &Component::Node),
            edge(&store, &Component::Node),
        ]);
        for second in 0..seconds {
            let row = row(second, [0.0; 3]);
            causal.observe(
                at(second),
                row.iter().map(|(series, value)| (series, *value)),
            );
        }
        causal
    }

    /// Time of front and store, and how busy the node is.
    fn row(second: u64, more: [f64; 3]) -> Vec<(Series, f64)> {
        let busy = Series {
            metric: Metric::CpuPressure,
            service: None,
            part: None,
        };
        vec![
            (
                series(Metric::LatencyP95, "front"),
                9.0 + noise(second) + more[0],
            ),
            (
                series(Metric::LatencyP95, "store"),
                4.0 + noise(second + 9) + more[1],
            ),
            (series(Metric::Availability, "front"), 1.0),
            (series(Metric::Availability, "store"), 1.0),
            (
                series(Metric::CpuUsed, "store"),
                0.1 + noise(second) / 100.0,
            ),
            (busy, 0.02 + more[2]),
        ]
    }

    fn look(causal: &mut Causal, second: u64, more: [f64; 3]) -> Verdict {
        let row = row(second, more);
        causal.look(
            at(second),
            row.iter().map(|(series, value)| (series, *value)),
        );
        causal.diagnose(&service("front"), Kind::Latency, at(second), at(second))
    }

    #[test]
    fn a_death_is_not_put_down_to_whoever_is_a_little_busier() {
        let mut verdict = look(&mut learnt(520), 520, [0.0, 0.0, 0.3]);
        assert_eq!(verdict.suspects[0].component, Component::Node);
        let seen = ["the kernel says that process i1 is gone".to_owned()];
        let sure = |verdict: &Verdict| {
            let all = verdict.suspects.iter().map(|one| one.confidence.get());
            (all.clone().next().unwrap(), all.sum::<f32>())
        };
        verdict.befell(&service("front"), Ratio::saturating(0.9), &seen);
        let first = &verdict.suspects[0];
        assert_eq!(
            (&first.component, &first.evidence[0]),
            (&service("front"), &seen[0])
        );
        let (front, all) = sure(&verdict);
        assert!((0.9..1.0).contains(&front) && all <= 1.0, "{verdict:?}");
        assert!(verdict.suspects.len() > 1, "{verdict:?}");
        verdict.befell(&service("front"), Ratio::ONE, &seen);
        assert_eq!(sure(&verdict), (1.0, 1.0), "{verdict:?}");
        assert_eq!((verdict.suspects.len(), verdict.tell_apart), (1, None));
    }

    #[test]
    fn who_is_odd_too_and_is_not_needed_is_no_suspect_but_a_coincidence() {
        let mut causal = learnt(520);
        let row = row(520, [60.0, 20.0, 0.0]);
        let each = || row.iter().map(|(series, value)| (series, *value));
        causal.look(at(520), each());
        let of =
            |alarmed: &str| causal.diagnose(&service(alarmed), Kind::Latency, at(520), at(520));
        let verdict = of("store");
        assert_eq!(verdict.coincident, [service("front")], "{verdict:?}");
        let named = |one: &Suspect| one.component == service("front");
        assert!(!verdict.suspects.iter().any(named), "{verdict:?}");
        assert!(of("front").coincident.is_empty());
    }

    #[test]
    fn what_is_wrong_now_is_not_blurred_by_the_seconds_before() {
        // Whatever part of a row is there when the look is taken.
        for seconds in 240..244 {
            let mut causal = learnt(seconds);
            let mut now = row(seconds, [0.0; 3]);
            (now[2].1, now[3].1) = (0.0, 0.0);
            let row = now.iter().map(|(series, value)| (series, *value));
            causal.look(at(seconds), row);
            let (alarmed, since) = (service("front"), Micros(at(seconds).0 - 1_500_000));
            let verdict = causal.diagnose(&alarmed, Kind::Errors, since, at(seconds));
            let first = verdict.suspects.first().map(|one| &one.component);
            assert_eq!(first, Some(&service("store")), "{seconds}: {verdict:?}");
        }
    }

    #[test]
    fn looks_each_second_leave_what_was_usual_in_place() {
        let mut causal = learnt(520);
        let since = at(520);
        let ill = |second| row(second, [30.0, 30.0, 0.0]);
        for second in 520..700 {
            let now = ill(second);
            causal.look(
                at(second),
                now.iter().map(|(series, value)| (series, *value)),
            );
            let verdict = causal.diagnose(&service("front"), Kind::Latency, since, at(second));
            let first = verdict.suspects.first().map(|one| &one.component);
            assert_eq!(first, Some(&service("store")), "{second}: {verdict:?}");
            causal.observe(
                at(second),
                now.iter().map(|(series, value)| (series, *value)),
            );
        }
    }

    #[test]
    fn the_one_whose_trouble_nobody_explains_is_suspected() {
        for (more, root) in [
            ([30.0, 30.0, 0.0], service("store")),
            ([30.0, 0.0, 0.0], service("front")),
            ([30.0, 30.0, 0.6], Component::Node),
        ] {
            let verdict = look(&mut learnt(400), 400, more);
            let first = &verdict.suspects[0];
            assert_eq!(first.component, root, "{verdict:?}");
            assert!(first.confidence.get() > 0.5, "{verdict:?}");
            assert_eq!(
                (verdict.grade, first.explained_by.is_none()),
                (Grade::Full, true)
            );
            for other in &verdict.suspects[1..] {
                assert!(other.explained_by.is_some(), "{verdict:?}");
            }
        }
    }

    #[test]
    fn reasons_have_the_units_of_what_was_measured() {
        let verdict = look(&mut learnt(400), 400, [30.0, 30.0, 0.0]);
        let reason = &verdict.suspects[0].evidence[0];
        assert!(reason.starts_with("its answers take 34."), "{reason}");
        assert!(reason.contains(" ms, 4."), "{reason}");
    }

    #[test]
    fn what_is_as_usual_has_no_suspects() {
        assert_eq!(look(&mut learnt(400), 400, [0.0; 3]).suspects, []);
        assert_eq!(look(&mut learnt(0), 0, [0.0; 3]).grade, Grade::Blank);
        let nobody = learnt(400).diagnose(&service("gone"), Kind::Errors, at(9), at(400));
        assert_eq!(nobody.suspects, []);
    }

    #[test]
    fn whatever_comes_in_it_holds_and_has_a_bound() {
        let names: Vec<String> = (0..COMPONENTS_MAX + 20).map(|n| format!("s{n}")).collect();
        let around = names.iter().zip(names.iter().cycle().skip(1));
        // A circle of more than there may be.
        let mut causal = Causal::new(around.map(|(a, b)| edge(&service(a), &service(b))));
        let all: Vec<Series> = names
            .iter()
            .flat_map(|name| {
                [
                    series(Metric::LatencyP95, name),
                    series(Metric::CpuUsed, name),
                ]
            })
            .collect();
        let wild = [1.0, f64::NAN, f64::INFINITY, -1e300, 1e300];
        for (second, shift) in (0..700).zip((0..5).cycle()) {
            // A clock that jumps.
            let now = at(if second % 50 == 0 { 0 } else { second });
            let row = all.iter().zip(wild.into_iter().cycle().skip(shift));
            causal.observe(now, row);
        }
        assert!(causal.left_out() > 0);
        assert!(causal.bytes() <= BYTES_MAX, "{}", causal.bytes());
        causal.look(at(u64::MAX / 2_000_000), std::iter::empty());
        let verdict = causal.diagnose(&service("s1"), Kind::Latency, at(600), at(5));
        assert!(verdict.suspects.len() <= SUSPECTS_MAX);
    }

    #[test]
    fn a_part_is_needed_by_who_runs_there_once_it_is_measured() {
        let mut causal = learnt(8);
        let part = Part::new("mmcblk0").unwrap();
        let busy = Series {
            metric: Metric::DiskBusy,
            service: None,
            part: Some(part.clone()),
        };
        causal.observe(at(8), [(&busy, 0.5)].into_iter());
        let disk = Component::Part(part);
        let way = chain(causal.edges(), &service("front"), &disk);
        assert_eq!(way, [service("front"), disk.clone()]);
        let ways = between(
            causal.edges(),
            &service("front"),
            [&disk, &disk].into_iter(),
            1,
        );
        assert_eq!(ways, [edge(&service("front"), &disk)]);
        assert!(chain(causal.edges(), &disk, &service("front")).is_empty());
    }
}
