//! False restarts: a healthy node on a machine with all cores and the disk loaded must be
//! left alone, and a real hang under the same load must still be healed.
//!
//! Every change of a service's instance counts, whoever caused it, and so does every plan
//! that the agent recorded.

use std::time::{Duration, Instant};

use anyhow::Result;
use homeostat_testbed::stress::{Stress, StressSpec};
use homeostat_testbed::{Expect, Prober, inject};

use super::{eager, healed, life, ms, progress};
use crate::result::{Report, Row};
use crate::stage::{BrokerKind, Cloud, Node, Settings, interrupt};
use crate::stats::{Estimate, share};

/// How often each service is asked who it is.
const LOOK: Duration = Duration::from_millis(250);
/// A hang that takes longer to heal counts with this.
const CAP: Duration = Duration::from_secs(20);
/// More than the hold below, so that no hang waits for the one before.
const REST: Duration = Duration::from_millis(2500);

#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// How long the healthy node is watched under load.
    #[arg(long, default_value_t = 10.0)]
    pub minutes: f64,
    /// Real hangs injected under the load afterwards.
    #[arg(long, default_value_t = 3)]
    pub hangs: u32,
}

fn settings() -> Settings {
    let mut settings = eager(&["web", "worker", "infer"]);
    settings.sections = settings.sections.replace("hold = \"0s\"", "hold = \"2s\"");
    settings
}

/// Runs it.
///
/// # Errors
/// When it could not be measured.
pub fn run(args: &Args, seed: u64) -> Result<Report> {
    let begun = Instant::now();
    let settings = settings();
    let text = format!("{}\n# {args:?}", settings.text());
    let mut report = Report::new("quiet", &text);
    progress(&format!("settings {}:\n{text}\n", report.settings_sha256));
    let dir = tempfile::Builder::new().prefix("hs-quiet").tempdir()?;
    let cloud = Cloud::start(dir.path(), BrokerKind::Embedded)?;
    let mut node = Node::start(dir.path(), &settings, Some(&cloud.broker_url()), None)?;
    for name in node.names() {
        life(&node, name)?;
    }
    interrupt::pause(REST)?;

    let watched = Duration::from_secs_f64(args.minutes.clamp(0.01, 24.0 * 60.0) * 60.0);
    let whole = watched + (CAP + REST) * (args.hangs + 1);
    let stress = Stress::start(&StressSpec::all_cores(dir.path(), whole))?;
    let probers = node
        .names()
        .into_iter()
        .map(|name| node.prober(name, Expect::Healthy))
        .collect::<Result<Vec<Prober>>>()?;
    let mut known = node.lives();
    let (mut changes, mut looks, mut silent) = (0, 0_usize, 0_usize);
    let end = Instant::now() + watched;
    let mut told = Instant::now();
    while Instant::now() < end {
        interrupt::pause(LOOK)?;
        node.check()?;
        for (known, now) in known.iter_mut().zip(node.lives()) {
            looks += 1;
            // Under load an answer may come late; only another instance is a restart.
            let Some(now) = now else {
                silent += 1;
                continue;
            };
            if known
                .as_ref()
                .is_some_and(|known| known.instance != now.instance)
            {
                changes += 1;
                progress(&format!("  a service was restarted: {known:?}"));
            }
            *known = Some(now);
        }
        if told.elapsed() >= Duration::from_secs(60) {
            told = Instant::now();
            let left = end.saturating_duration_since(told).as_secs();
            progress(&format!("  {left} s left, {changes} restarts so far"));
        }
    }
    let (asked, failed) = probers.iter().map(Prober::seen).fold((0, 0), |sum, seen| {
        (sum.0 + seen.requests, sum.1 + seen.failures)
    });
    drop(probers);

    let mut rng = fastrand::Rng::with_seed(seed);
    let mut times = Vec::new();
    let mut unhealed = 0;
    let prober = node.prober("web", Expect::NewInstance)?;
    for _ in 0..args.hangs {
        life(&node, "web")?;
        interrupt::pause(REST + Duration::from_millis(rng.u64(..100)))?;
        prober.arm();
        let at = inject::block(&node.control("web")?)?;
        match healed(&prober, at, CAP)? {
            Some(healed) => times.push(ms(healed.healed_at - at)),
            None => {
                times.push(ms(CAP));
                unhealed += 1;
            }
        }
    }
    drop(prober);
    let syncs = stress.stop();

    // Incidents tell by their plans whether the agent acted; those of the hangs are its job.
    let expected = args.hangs as usize;
    let arrived = || {
        let incidents = cloud.api().incidents().ok()?;
        (incidents.len() >= expected).then_some(incidents)
    };
    let incidents = interrupt::until("the incidents", Duration::from_secs(60), arrived)?;
    let plans = incidents
        .iter()
        .filter(|incident| incident.plan.is_some())
        .count();
    let hours = watched.as_secs_f64() / 3600.0 * known.len() as f64;
    let count = |value: usize| Estimate::exact(value as f64, looks);
    report.rows = vec![
        Row::new(
            "quiet.restarts",
            "restarts of healthy services",
            "count",
            count(changes),
        )
        .goal(0.0),
        Row::new(
            "quiet.plans",
            "plans beyond the injected hangs",
            "count",
            Estimate::exact(plans.saturating_sub(expected) as f64, incidents.len()),
        )
        .goal(0.0),
        Row::new(
            "quiet.service_hours",
            "watched",
            "service-hours",
            Estimate::exact(hours, 1),
        )
        .higher(),
        Row::new(
            "quiet.silent",
            "looks without an answer in 500 ms",
            "count",
            count(silent),
        ),
        Row::new(
            "quiet.prober_failures",
            "answers that an outside user missed",
            "share",
            share(
                usize::try_from(failed).unwrap_or(usize::MAX),
                usize::try_from(asked).unwrap_or(usize::MAX),
            ),
        ),
        Row::new(
            "quiet.syncs",
            "syncs of the disk by the load",
            "count",
            count(usize::try_from(syncs).unwrap_or(usize::MAX)),
        )
        .higher()
        .goal(1.0),
    ];
    for (label, q) in [("median", 0.5), ("worst", 1.0)] {
        if let Some(estimate) = Estimate::quantile(&times, q, seed) {
            let id = format!("quiet.hang.{label}_ms");
            let what = format!("real hang under load: {label}");
            report.rows.push(Row::new(&id, &what, "ms", estimate));
        }
    }
    let healed = times.len() - unhealed;
    let row = Row::new(
        "quiet.hang.recovered",
        "real hangs healed",
        "share",
        share(healed, times.len()),
    );
    report.rows.push(row.higher().goal(1.0));
    report.finish(begun.elapsed());
    Ok(report)
}
