//! Metrics that stand still at a bad value: nothing is to be done about what is not of now.
//!
//! Counted are trials in which the service, seen from outside, went on in the same life. A
//! supervisor that does not look at metrics passes this by not looking.

use std::time::Duration;

use anyhow::Result;
use homeostat_testbed::{Expect, inject};

use super::super::progress;
use super::stand::Run;
use super::state;
use crate::result::Row;
use crate::stage::{NODE, Node, Parts, interrupt};
use crate::stats::share;

/// Three times as long as the gauge has to be too high.
const WATCHED: Duration = Duration::from_secs(3);
/// Long enough that the gauge is known to be low again.
const REST: Duration = Duration::from_millis(1000);
const UP_MAX: Duration = Duration::from_secs(30);

pub(super) fn measure(n: u32, seed: u64) -> Result<Vec<Row>> {
    let dir = tempfile::Builder::new().prefix("hs-mttr").tempdir()?;
    progress(&format!("frozen metrics: {n} trials"));
    let start = |name: &str, ours: bool| {
        let dir = dir.path().join(name);
        let parts = Parts {
            node: NODE,
            services: vec![state::infer(&Node::home(&dir), "infer", state::port()?)?],
            routes: Vec::new(),
            service_config: "",
        };
        Run::start(&dir, &state::settings(), parts, ours)
    };
    let mut runs = [start("ours", true)?, start("twin", false)?];
    let mut probers = Vec::new();
    for run in &runs {
        let prober = run.node.prober("infer", Expect::NewInstance)?;
        prober.wait_up(UP_MAX)?;
        probers.push(prober);
    }
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut left_alone = [0, 0];
    for trial in 1..=n {
        interrupt::pause(REST + Duration::from_millis(rng.u64(..100)))?;
        let mut froze = Vec::new();
        for run in &runs {
            froze.push(inject::freeze_metrics(&run.node.control("infer")?)?);
        }
        interrupt::pause(WATCHED)?;
        let sides = runs.iter().zip(&probers).zip(froze).zip(&mut left_alone);
        for (((run, prober), at), left) in sides {
            let touched = prober.healed_since(at).is_some();
            *left += usize::from(!touched);
            if touched {
                let dir = run.node.dir().display();
                progress(&format!(
                    "  frozen metrics: trial {trial}: a new life in {dir}"
                ));
            }
            inject::unfreeze_metrics(&run.node.control("infer")?)?;
        }
        runs.iter_mut().try_for_each(Run::check)?;
    }
    let [ours, twin] = left_alone.map(|left| share(left, n as usize));
    let what = format!("frozen metrics: left alone for {} s", WATCHED.as_secs());
    let row = Row::new("mttr.frozen.left_alone", &what, "share", ours);
    let name = format!("supervisor, which reads none, n {n}");
    Ok(vec![
        row.higher().against(Some(twin.value), &name).goal(1.0),
    ])
}
