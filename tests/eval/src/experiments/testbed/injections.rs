//! A fault of the grammar as what is done to real processes.
//!
//! In goes an incident, out comes what is done for it, with the magnitudes that the grammar lays
//! on things at the strength of the file: so both sides are told the same. What has no
//! counterpart is refused, and why: mechanisms that need a machine of its own (heat, a supply,
//! a file system), what only a healer is told, couplings that are no property of real
//! processes, triggers other than the beginning.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use homeostat_sim::fault::{Cause, Coupling, Fault, Incident, Laid, Mechanism};
use homeostat_sim::topology::Topology;
use homeostat_testbed::inject::{self, Corruption};
use homeostat_testbed::proxy::Link;
use homeostat_testbed::users::Users;

use crate::stage::bed::{self, PROCESSOR};
use crate::stage::{Bed, Fleet};

/// Descriptors that a service may have whose descriptors leak.
const DESCRIPTORS_MAX: u64 = 1024;
/// A disk that takes longer to fill is no junk that was written at once.
const FILL_MAX_S: f64 = 5.0;

/// What is done to one thing.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Injection {
    Kill(String),
    /// A command on a replica's control socket.
    Tell(String, String),
    Descriptors(String),
    Config(String),
    BadModel(String),
    CorruptModel(String),
    /// More delay, more loss, or down.
    Link(String, Link),
    /// So many times as many users come.
    Surge(f64),
    /// A stranger burns so many processors of the topology.
    Hog(String, f64),
    /// The credential of a route is not accepted any more.
    Withdraw(String),
    Outside(String),
}

/// What is done, and after how many seconds it ends by itself.
pub(super) type Timed = (Injection, Option<f64>);

/// What is done for an incident.
///
/// # Errors
/// When one of its faults has no counterpart.
pub(super) fn of(topology: &Topology, incident: &Incident) -> Result<Vec<Timed>> {
    let mut all = Vec::new();
    for fault in &incident.faults {
        let what = || format!("{} at {}", fault.mechanism, fault.locus);
        ensure!(
            fault.trigger.cause == Cause::AtOnce,
            "{} begins later",
            what()
        );
        // Whoever starts reads the same file, and meets the same lock.
        let spreads = matches!(fault.mechanism, Mechanism::Lock | Mechanism::CorruptConfig);
        let natural = |it: &Coupling| spreads && *it == Coupling::ReInfects;
        ensure!(
            fault.couplings.iter().all(natural),
            "{} has a coupling that real processes have not",
            what()
        );
        for laid in incident.lays(fault, topology)? {
            let done = on(topology, fault, &laid).with_context(what)?;
            let ends = |it: &Injection| matches!(it, Injection::Link(..) | Injection::Surge(_));
            ensure!(
                fault.trigger.lasts.is_none() || done.iter().all(ends),
                "{} does not end by itself",
                what()
            );
            all.extend(done.into_iter().map(|it| (it, fault.trigger.lasts)));
        }
    }
    Ok(all)
}

fn on(topology: &Topology, fault: &Fault, laid: &Laid) -> Result<Vec<Injection>> {
    use Mechanism as M;
    let percent = |slow: f64| (100.0 * slow).round();
    Ok(match *laid {
        Laid::Replica(no, burden) => {
            let replica = &topology.replicas()[no.at()];
            let route = &topology.routes()[replica.route.at()];
            let name = || replica.name.to_string();
            let tell = |command: String| Injection::Tell(name(), command);
            let pace = || tell(format!("pace {}", percent(burden.slow)));
            match fault.mechanism {
                M::Die => vec![Injection::Kill(name())],
                M::Hang => vec![tell("block".to_owned())],
                M::Slow => vec![pace()],
                M::LeakMemory => {
                    let bytes = (burden.leak_mb * 1000.0).round() * 1024.0;
                    vec![pace(), tell(format!("leak {bytes}"))]
                }
                M::LeakDescriptors => vec![
                    Injection::Descriptors(name()),
                    tell(format!("open {}", burden.leak_fds.round())),
                ],
                M::Spin => vec![pace(), tell(format!("burn {}", permille(burden.spin)))],
                M::Lock if !route.writes => {
                    let (spin, mb) = (permille(burden.spin), burden.ballast_mb.round());
                    vec![tell(format!("lock {spin} {mb}"))]
                }
                M::CorruptConfig if burden.doomed && bed::configured(route) => {
                    vec![Injection::Config(name())]
                }
                M::RegressModel if route.model => vec![Injection::BadModel(name())],
                M::CorruptModel if route.model => vec![Injection::CorruptModel(name())],
                M::CorruptCache if route.hit > 0.0 => vec![tell("poison".to_owned())],
                // Its replicas have one credential, and that is accepted or not.
                M::DenyCredential if route.writes && burden.err >= 1.0 => {
                    match route.replicas.first() {
                        Some(first) if *first == no => {
                            vec![Injection::Withdraw(route.name.to_string())]
                        }
                        _ => Vec::new(),
                    }
                }
                _ => bail!("it cannot be done to a process of the bed"),
            }
        }
        Laid::Route(no, burden) => {
            let route = &topology.routes()[no.at()];
            match fault.mechanism {
                M::Surge => vec![Injection::Surge(burden.surge)],
                M::Die if route.outside_ms.is_some() && burden.err >= 1.0 => {
                    vec![Injection::Outside(route.name.to_string())]
                }
                _ => bail!("it cannot be done to a service of the bed"),
            }
        }
        Laid::Node(no, burden) => {
            let node = &topology.nodes()[no.at()];
            let replicas = node.replicas.iter().map(|no| &topology.replicas()[no.at()]);
            let active = replicas.filter(|replica| !replica.standby);
            match fault.mechanism {
                M::Spin => vec![Injection::Hog(node.name.to_string(), burden.hog)],
                M::Skew => active
                    .map(|replica| {
                        let ahead = format!("ahead {}", burden.clock_ahead.round());
                        Injection::Tell(replica.name.to_string(), ahead)
                    })
                    .collect(),
                M::LeakDisk => {
                    let takes_s = (node.disk_mb - node.disk_used_mb) / burden.fill_mb;
                    ensure!(takes_s <= FILL_MAX_S, "it fills too slowly");
                    let keeps = |no: usize| topology.routes()[no].writes;
                    let fill: Vec<Injection> = active
                        .filter(|replica| keeps(replica.route.at()))
                        .map(|replica| Injection::Tell(replica.name.to_string(), "fill".to_owned()))
                        .collect();
                    ensure!(!fill.is_empty(), "nothing there keeps data");
                    fill
                }
                _ => bail!("it cannot be done to a node of the bed"),
            }
        }
        Laid::Link(no, burden) => {
            let link = Link {
                delay: Duration::from_secs_f64(burden.delay_ms / 1000.0),
                loss: burden.loss,
                down: burden.down,
                ..Link::default()
            };
            let name = topology.links()[no.at()].name.clone();
            ensure!(
                bed::crosses(topology, &name),
                "nothing on the bed goes over it"
            );
            vec![Injection::Link(name, link)]
        }
    })
}

/// So many processors of the topology in thousandths of a real one.
fn permille(cores: f64) -> f64 {
    (1000.0 * cores / PROCESSOR).round()
}

impl Injection {
    /// Does it.
    ///
    /// # Errors
    /// When it cannot be done.
    pub(super) fn hurt(&self, bed: &mut Bed, users: &Users) -> Result<()> {
        match self {
            Self::Kill(replica) => {
                inject::kill9(bed.pid(replica)?)?;
            }
            Self::Tell(replica, command) => {
                inject::order(&bed.control(replica)?, command)?;
            }
            Self::Descriptors(replica) => {
                inject::limit_descriptors(bed.pid(replica)?, DESCRIPTORS_MAX)?;
            }
            Self::Config(replica) => {
                let file = Fleet::config_file(&bed.slot(replica)?);
                inject::bad_config(&file, bed.pid(replica)?)?;
            }
            Self::BadModel(replica) => {
                inject::bad_model(&bed.slot(replica)?, 1)?;
            }
            Self::CorruptModel(replica) => {
                let file = bed.slot(replica)?.join("current/model.onnx");
                inject::corrupt_model(&file, Corruption::Weights)?;
            }
            Self::Link(name, more) => bed.set_link(name, |link| Link {
                delay: link.delay + more.delay,
                loss: 1.0 - (1.0 - link.loss) * (1.0 - more.loss),
                down: more.down,
                ..link
            })?,
            Self::Surge(factor) => users.surge(*factor),
            Self::Hog(node, cores) => bed.hog(node, *cores)?,
            Self::Withdraw(route) => {
                let file = bed.credential(route).join("accepted");
                std::fs::write(&file, "2").context("cannot withdraw the credential")?;
            }
            Self::Outside(route) => bed.end_outside(route),
        }
        Ok(())
    }

    /// Ends what ends by itself.
    ///
    /// # Errors
    /// When it cannot be ended.
    pub(super) fn end(&self, bed: &Bed, users: &Users) -> Result<()> {
        match self {
            Self::Link(name, more) => bed.set_link(name, |link| Link {
                delay: link.delay.saturating_sub(more.delay),
                loss: 0.0,
                down: false,
                ..link
            }),
            Self::Surge(_) => {
                users.surge(1.0);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::TOPOLOGY;
    use super::super::faults::shipped;
    use super::*;

    fn done(name: &str) -> Vec<Timed> {
        let topology = Topology::read("testbed.toml", TOPOLOGY).unwrap();
        let all = shipped().unwrap();
        let fault = all.iter().find(|fault| fault.name == name).unwrap();
        of(&topology, &fault.incident).unwrap()
    }

    fn tell(replica: &str, command: &str) -> Timed {
        (Injection::Tell(replica.into(), command.into()), None)
    }

    #[test]
    fn magnitudes_are_those_of_the_grammar() {
        // 2 + 0.6 * 7 times as long.
        assert_eq!(done("slow-replica"), [tell("preprocess-1", "pace 620")]);
        // 1.1 + 0.8 * 0.5 times as long, 2 + 0.8 * 22 MB/s.
        let leaks = [
            tell("infer-1", "pace 150"),
            tell("infer-1", "leak 20070400"),
        ];
        assert_eq!(done("leak-memory"), leaks);
        // 1.2 + 0.8 * 0.8 times as long, 1 + 0.8 * 3 processors.
        let spins = [tell("infer-2", "pace 184"), tell("infer-2", "burn 170")];
        assert_eq!(done("spin"), spins);
        // 0.5 + 0.02 * 2.5 processors, 50 + 0.02 * 850 MB.
        assert_eq!(done("deadlock"), [tell("infer-1", "lock 28 67")]);
        // 2 + 0.6 * 14 processors.
        let hog = Injection::Hog("edge-3".into(), 10.4);
        assert_eq!(done("hog-node"), [(hog, None)]);
        // 60 + 0.3 * 640 ms each way.
        let slow = Link::after(Duration::from_millis(252));
        let slow = Injection::Link("cloud-1/eth0".into(), slow);
        assert_eq!(done("link-delay"), [(slow, None)]);
        assert_eq!(done("retry-storm"), [(Injection::Surge(3.0), Some(8.0))]);
        assert_eq!(done("disk-full"), [tell("store-1", "fill")]);
        assert_eq!(
            done("credential"),
            [(Injection::Withdraw("store".into()), None)]
        );
        assert_eq!(done("clock-skew").len(), 4);
    }

    #[test]
    fn what_has_no_counterpart_is_refused_by_name() {
        let topology = Topology::read("testbed.toml", TOPOLOGY).unwrap();
        let fault = |rest: &str| {
            let text = format!(
                "name = \"a\"\nabout = \"b\"\ntopology = \"testbed\"\n[[fault]]\nid = \"c\"\n{rest}"
            );
            let incident = Incident::read("a.toml", &text).unwrap();
            format!("{:#}", of(&topology, &incident).unwrap_err())
        };
        for (rest, why) in [
            ("mechanism = \"heat\"\nlocus = \"node edge-1\"", "to a node"),
            (
                "mechanism = \"lock\"\nlocus = \"replica store-1\"",
                "to a process",
            ),
            (
                "mechanism = \"delay\"\nlocus = \"link edge-1/lte0\"",
                "goes over it",
            ),
            (
                "mechanism = \"slow\"\nlocus = \"replica infer-1\"\ntrigger = \"after 5s\"",
                "begins later",
            ),
            (
                "mechanism = \"slow\"\nlocus = \"replica infer-1\"\ntrigger = \"at once for 5s\"",
                "does not end",
            ),
            (
                "mechanism = \"leak disk\"\nlocus = \"node edge-4\"\nstrength = 0.1",
                "too slowly",
            ),
        ] {
            let told = fault(rest);
            assert!(told.contains(why), "{told}");
        }
    }
}
