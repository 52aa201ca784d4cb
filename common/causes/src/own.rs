//! What each component shows beyond what its callees explain.
//!
//! `excess(n)` = sum over the rows of the fault of `volume x (value - baseline)+`, and
//! `own(n) = excess(n) - sum over callees v of share(n, v) x excess(v)`, not below 0. A share is
//! known from traces, or follows from volumes; where neither is known, what the caller showed
//! per unit of its callee in normal times is learnt (Theil-Sen). What a component's own excess
//! reached by itself in spans of the same length before the alarm is usual for it; where there
//! is no such history, what few samples and small volumes let expect is.

use alloc::{rc::Rc, vec, vec::Vec};

use crate::frame::{Column, Frame};
use crate::graph::{Call, Graph};
use crate::robust::{median, quantile, slope};
use crate::settings::Settings;
use crate::signals::Kind;

/// What one kind of signal says of all components.
#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) kind: Kind,
    pub(crate) nodes: Vec<Option<Node>>,
}

/// What one kind of signal says of one component.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// Reference and fault, per request.
    pub(crate) baseline: f32,
    pub(crate) now: f32,
    pub(crate) excess: f32,
    pub(crate) own: f32,
    /// What of its own is usual.
    pub(crate) usual: f32,
    /// What of its excess is usual.
    pub(crate) noise: f32,
    /// Callees with the part of the excess that each explains.
    pub(crate) explained: Vec<(usize, f32)>,
    /// Callees that were never called in the reference.
    pub(crate) unseen: Vec<usize>,
    /// The first row that is beyond noise.
    pub(crate) onset: Option<usize>,
    /// Excess is summed over requests, not over rows.
    pub(crate) counted: bool,
}

impl Node {
    /// Own excess beyond what is usual.
    pub(crate) fn beyond(&self) -> f32 {
        (self.own - self.usual).max(0.0)
    }

    /// How many times what is usual its own excess is.
    pub(crate) fn times(&self) -> f32 {
        if self.usual > 0.0 {
            self.own / self.usual
        } else {
            0.0
        }
    }

    /// How many times what is usual of its own can have reached the alarmed one: nobody hands
    /// up more than that shows. Where either's requests are not counted, that cannot be told.
    pub(crate) fn reaching(&self, alarmed: &Self) -> f32 {
        if self.counted && alarmed.counted && self.usual > 0.0 {
            self.own.min(alarmed.excess) / self.usual
        } else {
            self.times()
        }
    }
}

/// Running sums over rows, so that any span costs the same.
struct Sums {
    excess: Vec<f64>,
    volume: Vec<f64>,
    known: bool,
}

impl Sums {
    fn of(column: &Column, baseline: f32) -> Self {
        let mut sums = Self {
            excess: vec![0.0],
            volume: vec![0.0],
            known: column.volumes.iter().any(|volume| !volume.is_nan()),
        };
        let (mut excess, mut volume) = (0.0, 0.0);
        for (value, served) in column.values.iter().zip(&column.volumes) {
            if !value.is_nan() {
                let weight = if served.is_nan() { 1.0 } else { *served };
                excess += f64::from(weight * deviation(column.kind, *value, baseline).max(0.0));
                volume += f64::from(weight);
            }
            sums.excess.push(excess);
            sums.volume.push(volume);
        }
        sums
    }

    #[allow(clippy::cast_possible_truncation)] // a sum of single precision
    fn excess(&self, from: usize, to: usize) -> f32 {
        (self.excess[to] - self.excess[from]) as f32
    }

    #[allow(clippy::cast_possible_truncation)]
    fn volume(&self, from: usize, to: usize) -> f32 {
        (self.volume[to] - self.volume[from]) as f32
    }
}

/// Positive is worse.
pub(crate) fn deviation(kind: Kind, value: f32, baseline: f32) -> f32 {
    match kind {
        Kind::Latency
        | Kind::Errors
        | Kind::Resource
        | Kind::Absence
        | Kind::Complaints
        | Kind::Volume => value - baseline,
        Kind::Quality => baseline - value,
    }
}

/// The account of one kind that callees hand up; `None` if nobody has it.
pub(crate) fn account(
    graph: &Graph,
    calls: &[Vec<Call>],
    frame: &Frame,
    kind: Kind,
    settings: &Settings,
) -> Option<Account> {
    let (split, rows) = (frame.split, frame.begins.len());
    let columns: Vec<Option<&Column>> = (0..graph.len())
        .map(|component| frame.column(component, kind))
        .collect();
    if columns.iter().all(Option::is_none) {
        return None;
    }
    let baselines: Vec<Option<f32>> = columns
        .iter()
        .map(|column| {
            let q = settings.baseline[usize::from(split < settings.full)];
            let q = if kind == Kind::Quality { 1.0 - q } else { q };
            quantile(column.as_ref()?.values[..split].iter().copied(), q)
        })
        .collect();
    let sums: Vec<Option<Sums>> = columns
        .iter()
        .zip(&baselines)
        .map(|(column, baseline)| Some(Sums::of(column.as_ref()?, (*baseline)?)))
        .collect();
    let cold = usize::from(split < settings.full);
    let wander = Wander {
        floor: settings.floor[cold],
        request: settings.request[cold],
        failures: settings.failures[cold],
        step: settings.baseline[cold],
    };
    let noise = noise(&columns, &baselines, &sums, split, rows, kind, wander);
    let ties = ties(graph, calls, &columns, &sums, &noise, split, rows);
    let own = |component: usize, from: usize, to: usize| {
        let mine = sums[component].as_ref()?;
        let handed = ties[component]
            .iter()
            .map(|tie| tie.of(&sums, component, from, to));
        Some((mine.excess(from, to) - handed.sum::<f32>()).max(0.0))
    };
    let span = rows - split;
    // Rows just before the alarm may hold the fault already.
    let quiet = split.saturating_sub(settings.late);
    let nodes = (0..graph.len()).map(|component| {
        let (column, baseline) = (columns[component]?, baselines[component]?);
        let mine = sums[component].as_ref()?;
        let expected = noise[component] * settings.noise;
        let spans = (span..=quiet).filter_map(|to| own(component, to - span, to));
        let usual = if quiet >= settings.full + span {
            quantile(spans, settings.usual).unwrap_or(0.0)
        } else {
            0.0
        };
        let fault = column.values[split..].iter().copied();
        let tie = |tie: &Tie| (tie.callee, tie.of(&sums, component, split, rows));
        let onset = (quiet..rows).find(|row| {
            let excess = mine.excess(*row, row + 1);
            excess > expected / libm::sqrtf(span.max(1) as f32)
        });
        Some(Node {
            baseline,
            now: median(fault).unwrap_or(baseline),
            excess: mine.excess(split, rows),
            own: own(component, split, rows)?,
            usual: usual.max(expected),
            noise: expected,
            explained: ties[component].iter().map(tie).collect(),
            unseen: unseen(&calls[component], graph, &columns, &baselines),
            onset,
            counted: mine.known,
        })
    });
    Some(Account {
        kind,
        nodes: nodes.collect(),
    })
}

/// A call by which a callee's excess reaches its caller.
struct Tie {
    callee: usize,
    carries: Carries,
}

enum Carries {
    /// A known share of the callee's whole excess.
    Share(f32),
    /// The caller's volume among that of all callers, which is summed up over rows.
    Volume(Rc<Vec<f64>>),
    /// So much of the callee's excess per request.
    Slope(f32),
}

impl Tie {
    fn of(&self, sums: &[Option<Sums>], caller: usize, from: usize, to: usize) -> f32 {
        let Some(callee) = &sums[self.callee] else {
            return 0.0;
        };
        let excess = callee.excess(from, to);
        match &self.carries {
            Carries::Share(share) => excess * share,
            Carries::Slope(slope) => excess * slope,
            Carries::Volume(callers) => {
                let mine = sums[caller]
                    .as_ref()
                    .map_or(0.0, |one| one.volume(from, to));
                #[allow(clippy::cast_possible_truncation)] // a sum of single precision
                let all = (callers[to] - callers[from]) as f32;
                if all > 0.0 { excess * mine / all } else { 0.0 }
            }
        }
    }
}

/// The calls by which excess is handed up. Views of others hand up nothing. Within a cycle the
/// stronger change is the source, so that two that call each other do not explain each other
/// away.
fn ties(
    graph: &Graph,
    calls: &[Vec<Call>],
    columns: &[Option<&Column>],
    sums: &[Option<Sums>],
    noise: &[f32],
    split: usize,
    rows: usize,
) -> Vec<Vec<Tie>> {
    let mut called: Vec<Vec<f64>> = vec![vec![0.0; rows + 1]; graph.len()];
    for (caller, calls) in calls.iter().enumerate() {
        let Some(mine) = sums[caller].as_ref().filter(|_| !graph.is_proxy(caller)) else {
            continue;
        };
        for call in calls {
            for (all, volume) in called[call.callee].iter_mut().zip(&mine.volume) {
                *all += volume;
            }
        }
    }
    let called: Vec<Rc<Vec<f64>>> = called.into_iter().map(Rc::new).collect();
    let strength = |of: usize| {
        let excess = sums[of].as_ref().map_or(0.0, |one| one.excess(split, rows));
        (excess / noise[of].max(f32::MIN_POSITIVE), of)
    };
    let below = |a: (f32, usize), b: (f32, usize)| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)).is_lt();
    let tie = |caller: usize, call: &Call| {
        let (mine, theirs) = (sums[caller].as_ref()?, sums[call.callee].as_ref()?);
        if graph.is_proxy(call.callee) || graph.is_proxy(caller) {
            return None;
        }
        if call.cyclic && !below(strength(caller), strength(call.callee)) {
            return None;
        }
        let carries = match call.share {
            Some(share) => Carries::Share(share),
            None if mine.known && theirs.known => Carries::Volume(called[call.callee].clone()),
            None => {
                let (mine, theirs) = (columns[caller]?, columns[call.callee]?);
                let pairs = theirs.values.iter().zip(&mine.values).take(split);
                let pairs: Vec<(f32, f32)> = pairs
                    .map(|(x, y)| (*x, *y))
                    .filter(|(x, y)| x.is_finite() && y.is_finite())
                    .collect();
                // A caller that waits once shows what it waited for; noise in the callee makes
                // the slope too small, so it only counts where it says more.
                let learnt = slope(&pairs).filter(|_| pairs.len() >= PAIRS_MIN);
                Carries::Slope(learnt.unwrap_or(1.0).clamp(1.0, SLOPE_MAX))
            }
        };
        Some(Tie {
            callee: call.callee,
            carries,
        })
    };
    let of = |(caller, calls): (usize, &Vec<Call>)| {
        calls.iter().filter_map(|call| tie(caller, call)).collect()
    };
    calls.iter().enumerate().map(of).collect()
}

/// Pairs of samples from which a slope is learnt.
const PAIRS_MIN: usize = 16;

/// Calls of one callee for one request of the caller that a slope may stand for.
const SLOPE_MAX: f32 = 4.0;

/// What each component's excess over the rows of the fault is off by without any fault, one
/// standard deviation. An average over `v` requests is off by one over the square root of `v`;
/// how much one request is off comes from the component's own steps in the reference, drawn
/// towards that of all components where they are few.
fn noise(
    columns: &[Option<&Column>],
    baselines: &[Option<f32>],
    sums: &[Option<Sums>],
    split: usize,
    rows: usize,
    kind: Kind,
    wander: Wander,
) -> Vec<f32> {
    let Wander {
        floor,
        request,
        failures,
        step,
    } = wander;
    let known = |of: usize| Some((columns[of]?, baselines[of]?, sums[of].as_ref()?));
    let unit = |baseline: f32| match kind {
        Kind::Latency | Kind::Resource | Kind::Complaints | Kind::Volume => {
            baseline.abs().max(BASELINE_MIN)
        }
        Kind::Errors | Kind::Quality | Kind::Absence => 1.0,
    };
    let steps = |column: &Column, baseline: f32| -> Vec<f32> {
        let reference = column.values[..split].iter().zip(&column.volumes);
        let mut last: Option<(f32, f32)> = None;
        let mut steps = Vec::new();
        for (value, volume) in reference.filter(|(value, _)| !value.is_nan()) {
            let weight = if volume.is_nan() { 1.0 } else { *volume };
            if let Some((before, of)) = last {
                // The variance of a difference of means over `of` and `weight` requests.
                let parts = 1.0 / of.max(1.0) + 1.0 / weight.max(1.0);
                let step = ((value - before) / unit(baseline)).clamp(-STEP_MAX, STEP_MAX);
                steps.push(step * step / parts);
            }
            last = Some((*value, weight));
        }
        steps
    };
    let variances: Vec<Option<(f32, f32)>> = (0..columns.len())
        .map(|of| {
            let (column, baseline, _) = known(of)?;
            let steps = steps(column, baseline);
            // The median of a squared normal is 0.455 of its mean.
            let typical = quantile(steps.iter().copied(), step).map(|one| one / 0.455);
            Some((typical?, steps.len() as f32))
        })
        .collect();
    let pooled = median(variances.iter().flatten().map(|one| one.0)).unwrap_or(0.0);
    let variance = |of: usize| {
        let (mine, count) = variances[of].unwrap_or((pooled, 0.0));
        (mine * count + pooled * POOLED_STEPS) / (count + POOLED_STEPS)
    };
    (0..columns.len())
        .map(|of| {
            let Some((_, baseline, sums)) = known(of) else {
                return 0.0;
            };
            let (now, before) = (sums.volume(split, rows), sums.volume(0, split));
            let spread = now + now * now / before.max(1.0);
            match kind {
                // Failures of so many answers, of which a few may be chance.
                Kind::Errors => {
                    let failed = sums.excess(0, split) + baseline * before;
                    let share = ((failed + 0.5) / (before + 1.0)).clamp(0.0, 1.0);
                    let one = if sums.known { failures } else { 0.0 };
                    let chance = libm::sqrtf(share * (1.0 - share) * spread);
                    chance.max(one).max(floor * now * ERRORS)
                }
                Kind::Latency
                | Kind::Quality
                | Kind::Resource
                | Kind::Absence
                | Kind::Complaints
                | Kind::Volume => {
                    let few = request * request / now.max(1.0);
                    let floor = libm::sqrtf(floor * floor + few) * unit(baseline) * now;
                    (unit(baseline) * libm::sqrtf(variance(of) * spread)).max(floor)
                }
            }
        })
        .collect()
}

/// What averages do for no reason that samples show.
#[derive(Clone, Copy)]
struct Wander {
    floor: f32,
    request: f32,
    failures: f32,
    /// The quantile of a component's steps that is taken for typical; as for the baseline, a low
    /// one where one of few may be the fault.
    step: f32,
}

/// Steps that the noise of all components weighs in that of one.
const POOLED_STEPS: f32 = 4.0;

/// Smallest baseline that a relative noise is taken of, and the largest relative step: beyond
/// both, squares leave single precision.
const BASELINE_MIN: f32 = 1e-9;
const STEP_MAX: f32 = 1e6;

/// A share of failures wanders by so much of what an average does.
const ERRORS: f32 = 0.01;

/// Callees with samples since the fault and none before.
fn unseen(
    calls: &[Call],
    graph: &Graph,
    columns: &[Option<&Column>],
    baselines: &[Option<f32>],
) -> Vec<usize> {
    let callees = calls.iter().map(|call| call.callee);
    callees
        .filter(|of| !graph.is_proxy(*of) && columns[*of].is_some() && baselines[*of].is_none())
        .collect()
}
