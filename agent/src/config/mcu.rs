//! `[[mcu]]`: microcontrollers that watch metrics of this node.

use std::collections::BTreeSet;
use std::path::PathBuf;

use homeostat_common::ids::McuId;
use homeostat_common::observation::{Metric, Nature};
use homeostat_serial::message::CHANNELS;

use super::Config;
use super::fields::{Fields, list, parsed, text, whole};
use super::problems::Problems;
use super::sections::absolute;

/// Most microcontrollers of one node: each is a thread and a serial line.
pub const MCUS_MAX: usize = 4;

/// One microcontroller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mcu {
    /// `name`, required; part of the names of its alarms.
    pub name: McuId,
    /// `device`, required: its serial line.
    pub device: PathBuf,
    /// `baud`, default 115200.
    pub baud: u32,
    /// `metrics`, required: 1 to 16 of the node, not of its services or parts.
    pub metrics: Vec<Metric>,
}

pub(super) fn mcu(mut at: Fields<'_, '_>) -> Option<Mcu> {
    let name = at.required("name", parsed(McuId::new));
    let device = at.required("device", absolute);
    let baud = at.or("baud", 115_200, |value| {
        let baud = whole(1200..=4_000_000)(value)?;
        u32::try_from(baud).map_err(|error| error.to_string())
    });
    let metrics = at.required("metrics", |value| {
        let metrics = list(CHANNELS, |item| {
            let name = text(item)?;
            let metric = Metric::from_name(&name).ok_or(format!("{name} is no metric"))?;
            if metric == Metric::OwnLag {
                return Err(format!("{name} is known to the loop alone"));
            }
            match metric.nature() {
                Nature::Total => Err(format!("{name} is a sum that only grows")),
                Nature::Level | Nature::Occasional => Ok(metric),
            }
        })(value)?;
        if metrics.is_empty() {
            return Err(format!("expected 1 to {CHANNELS} metrics"));
        }
        // Each has one alarm.
        let mut before = BTreeSet::new();
        if let Some(twice) = metrics.iter().find(|metric| !before.insert(**metric)) {
            return Err(format!("{} is named twice", twice.name()));
        }
        Ok(metrics)
    });
    at.finish();
    Some(Mcu {
        name: name?,
        device: device?,
        baud,
        metrics: metrics?,
    })
}

/// Names and lines are unique.
pub(super) fn across(config: &Config, problems: &mut Problems<'_>) {
    for (n, mcu) in config.mcus.iter().enumerate() {
        let before = config.mcus.iter().take(n).enumerate();
        for (first, former) in before {
            for (key, same) in [
                ("name", former.name == mcu.name),
                ("device", former.device == mcu.device),
            ] {
                if same {
                    problems.at(
                        &format!("mcu[{n}].{key}"),
                        format!("is already that of mcu[{first}]"),
                    );
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn a_microcontroller_has_a_name_a_line_and_metrics_that_it_can_watch() {
        let parse = |tables: &str| {
            let text = format!("[node]\nid = \"n\"\n{tables}");
            Config::parse(&text, Path::new("a.toml")).map_err(|error| error.to_string())
        };
        let one = "[[mcu]]\nname = \"m4\"\ndevice = \"/dev/ttyUSB0\"\n";
        let config = parse(&format!("{one}metrics = [\"cpu_busy\", \"load\"]\n")).unwrap();
        assert_eq!(
            config.mcus,
            [Mcu {
                name: McuId::new("m4").unwrap(),
                device: "/dev/ttyUSB0".into(),
                baud: 115_200,
                metrics: vec![Metric::CpuBusy, Metric::Load],
            }]
        );
        for (tables, says) in [
            (one.to_owned(), "metrics: is required"),
            (format!("{one}metrics = []\n"), "expected 1 to 16 metrics"),
            (format!("{one}metrics = [\"cpu\"]\n"), "cpu is no metric"),
            (
                format!("{one}metrics = [\"load\", \"load\"]\n"),
                "load is named twice",
            ),
            (
                format!("{one}metrics = [\"load\"]\nbaud = 50\n"),
                "mcu[0].baud",
            ),
            (
                format!("{one}metrics = [\"load\"]\n{one}metrics = [\"load\"]\n"),
                "is already that of mcu[0]",
            ),
        ] {
            let error = parse(&tables).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}
