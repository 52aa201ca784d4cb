//! A node that runs: spawner, agent, perhaps a forwarder, and services of the testbed.
//!
//! What it consists of is a [`Layout`]; [`Node::start`] makes the small one of three services
//! that most experiments need, [`super::Fleet`] those of three nodes.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use homeostat_agent::config::Config;
use homeostat_agent::io::slots::{Candidate, Name, Slot};
use homeostat_models::{Golden, Manifest, sha256_hex};
use homeostat_testbed::{Expect, Kind, Moment, Port, Prober, ServiceSpec, ports};
use serde::Deserialize;

use super::api::get;
use super::interrupt;
use super::process::Process;
use super::role::{FORWARD_ARG, OWN_PARENT, Role};

/// The node's name.
pub const NODE: &str = "edge-1";
/// The version of the shipped model as plans name it: the start of its SHA-256.
pub const MODEL_VERSION: &str = "7fbcf863705ca4d4";

// The repository may be elsewhere, or gone, where the program runs.
pub(crate) const MODEL: &[u8] = include_bytes!("../../../../models/vibration/model.onnx");
pub(crate) const MANIFEST: &str = include_str!("../../../../models/vibration/manifest.toml");

const READY_MAX: Duration = Duration::from_secs(30);
/// A service that takes longer to say who it is counts as silent.
const LIFE_MAX: Duration = Duration::from_millis(500);

/// The part of the node's configuration that decides how it heals. No paths and no ports, so
/// that its hash is the same wherever it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Sections of the configuration as they stand in the file.
    pub sections: String,
    /// Keys of each service.
    pub service: String,
    /// Keys of each probe.
    pub probe: String,
    /// Which services, of `web`, `worker`, `infer`.
    pub services: Vec<&'static str>,
}

impl Settings {
    /// Everything, as text to be printed and hashed.
    #[must_use]
    pub fn text(&self) -> String {
        format!(
            "{}\n# each of {}\n{}\n{}",
            self.sections,
            self.services.join(", "),
            self.service,
            self.probe
        )
    }
}

/// One life of a service, as it tells about itself.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Life {
    pub instance: String,
    pub pid: u32,
}

/// What a node consists of, before it runs.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) id: &'static str,
    /// Its folder; `data` and `run` are made in it.
    pub(super) dir: PathBuf,
    pub(super) served: Vec<Served>,
    /// Its configuration file as a whole.
    pub(super) text: String,
    /// What its configuration slots hold at first.
    pub(super) service_config: &'static str,
}

/// A node that runs.
#[derive(Debug)]
pub struct Node {
    id: &'static str,
    dir: PathBuf,
    config: PathBuf,
    served: Vec<Served>,
    program: Option<PathBuf>,
    /// What stands before the command of one of its processes.
    under: Option<(String, Vec<String>)>,
    // Ended in this order.
    agent: Option<Process>,
    spawner: Option<Process>,
}

/// A service and the port that is kept for it.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) name: &'static str,
    pub(super) spec: ServiceSpec,
    pub(super) port: Port,
    /// Not started before a plan says so.
    pub(super) standby: bool,
}

impl Node {
    /// Writes the configuration and starts spawner and agent.
    ///
    /// `program`: an agent's binary; this one's built-in agent if `None`.
    ///
    /// # Errors
    /// When something cannot be started, or the services do not come up.
    pub fn start(
        dir: &Path,
        settings: &Settings,
        broker: Option<&str>,
        program: Option<PathBuf>,
    ) -> Result<Self> {
        let dir = dir.join("node");
        let served: Vec<Served> = settings
            .services
            .iter()
            .zip(ports(settings.services.len())?)
            .map(|(name, port)| Served {
                name,
                spec: ServiceSpec {
                    kind: match *name {
                        "worker" => Kind::Worker,
                        "infer" => Kind::Infer {
                            model: dir.join("slot/current/model.onnx"),
                        },
                        _ => Kind::Web,
                    },
                    port: port.number(),
                    control: Some(dir.join("run").join(format!("{name}.control"))),
                    die_with_parent: true,
                },
                port,
                standby: false,
            })
            .collect();
        let layout = Layout {
            id: NODE,
            text: config_text(&dir, settings, &served, broker)?,
            dir,
            served,
            service_config: "",
        };
        let mut node = Self::prepare(layout, program)?;
        node.start_spawner()?;
        node.start_agent()?;
        node.wait_up()?;
        Ok(node)
    }

    /// Writes configuration, models and all that is read at a start; starts nothing.
    pub(super) fn prepare(layout: Layout, program: Option<PathBuf>) -> Result<Self> {
        let Layout {
            id,
            dir,
            served,
            text,
            service_config,
        } = layout;
        for folder in ["data", "run", "model"] {
            let folder = dir.join(folder);
            fs::create_dir_all(&folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let write = |name: &str, bytes: &[u8]| {
            let file = dir.join(name);
            fs::write(&file, bytes).with_context(|| format!("cannot write {}", file.display()))?;
            Ok::<_, anyhow::Error>(file)
        };
        let model = write("model/model.onnx", MODEL)?;
        write("model/manifest.toml", MANIFEST.as_bytes())?;
        let service_config = write("service.toml", service_config.as_bytes())?;
        let config = write("agent.toml", text.as_bytes())?;
        install(&config, &model, &service_config)?;
        Ok(Self {
            id,
            dir,
            config,
            served,
            program,
            under: None,
            agent: None,
            spawner: None,
        })
    }

    /// The node's name.
    #[must_use]
    pub fn id(&self) -> &'static str {
        self.id
    }

    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The configuration file of agent and spawner.
    #[must_use]
    pub fn config(&self) -> &Path {
        &self.config
    }

    #[must_use]
    pub fn names(&self) -> Vec<&'static str> {
        self.served.iter().map(|served| served.name).collect()
    }

    /// Starts the agent's loop; it adopts the services that run.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_agent(&mut self) -> Result<()> {
        self.agent = Some(self.role(Role::Agent, "agent", "run", &[])?);
        Ok(())
    }

    /// Kills the agent's loop with SIGKILL.
    ///
    /// # Errors
    /// When it did not run any more.
    pub fn kill_agent(&mut self) -> Result<Moment> {
        let agent = self.agent.take().context("no agent runs")?;
        agent.kill9()
    }

    /// Starts the spawner; it adopts the services that run, and ends all when it ends in order.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_spawner(&mut self) -> Result<()> {
        let args = ["--stop-services-on-exit"];
        self.spawner = Some(self.role(Role::Spawner, "spawner", "spawn", &args)?);
        Ok(())
    }

    /// Kills the spawner with SIGKILL, and starts it again after `pause` as an init system
    /// does: without it nobody ends the services.
    ///
    /// # Errors
    /// When it did not run any more, or cannot be started.
    pub fn bounce_spawner(&mut self, pause: Duration) -> Result<Moment> {
        let spawner = self.spawner.take().context("no spawner runs")?;
        let at = spawner.kill9();
        // Not to be interrupted: the services would outlive this program.
        std::thread::sleep(pause);
        self.start_spawner()?;
        at
    }

    /// Ends the agent's loop in order; the services go on without it.
    pub fn stop_agent(&mut self) {
        self.agent = None;
    }

    /// The process that forwards connections, as the kernel lists it.
    #[must_use]
    pub fn forwarder(&self) -> Option<u32> {
        let config = self.config.to_str()?;
        let all = fs::read_dir("/proc").ok()?.flatten();
        let mut pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        pids.find(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let mut words = line.split(|byte| *byte == 0);
            words.any(|word| word == FORWARD_ARG.as_bytes() || word == b"forward")
                && words.any(|word| word == config.as_bytes())
        })
    }

    /// Where a service listens.
    ///
    /// # Errors
    /// When there is no such service.
    pub fn address(&self, name: &str) -> Result<SocketAddrV4> {
        Ok(self.served(name).with_context(|| no(name))?.port.address())
    }

    /// Agent and spawner.
    #[must_use]
    pub fn pids(&self) -> [Option<u32>; 2] {
        [&self.agent, &self.spawner].map(|process| process.as_ref().map(Process::pid))
    }

    /// Fails when one of them ended by itself.
    ///
    /// # Errors
    /// With the end of its log.
    pub fn check(&mut self) -> Result<()> {
        let dir = self.dir.clone();
        for (name, process) in [("agent", &mut self.agent), ("spawner", &mut self.spawner)] {
            if let Some(process) = process
                && !process.alive()
            {
                bail!(
                    "the {name} ended by itself:\n{}",
                    super::process::log_tail(&dir, name)
                );
            }
        }
        Ok(())
    }

    /// Asks a service who it is; `None` when it does not answer.
    #[must_use]
    pub fn life(&self, name: &str) -> Option<Life> {
        Self::life_at(self.served(name)?.port.address())
    }

    /// Asks whatever service of the testbed listens there.
    #[must_use]
    pub fn life_at(address: SocketAddrV4) -> Option<Life> {
        let (status, body) = get(address, "/", LIFE_MAX).ok()?;
        (status == 200)
            .then(|| serde_json::from_str(&body).ok())
            .flatten()
    }

    /// All of them, in their order.
    #[must_use]
    pub fn lives(&self) -> Vec<Option<Life>> {
        self.served
            .iter()
            .map(|served| self.life(served.name))
            .collect()
    }

    /// A service's control socket, which takes faults.
    ///
    /// # Errors
    /// When there is no such service, here and below.
    pub fn control(&self, name: &str) -> Result<PathBuf> {
        let served = self.served(name).with_context(|| no(name))?;
        served.spec.control.clone().with_context(|| no(name))
    }

    /// What starts a service, for another supervisor.
    pub fn spec(&self, name: &str) -> Result<ServiceSpec> {
        Ok(self.served(name).with_context(|| no(name))?.spec.clone())
    }

    /// The model file that `infer` serves.
    #[must_use]
    pub fn model(&self) -> PathBuf {
        self.dir.join("slot/current/model.onnx")
    }

    /// The folder of a service's slot, where a fleet keeps it.
    #[must_use]
    pub fn slot(&self, name: &str) -> PathBuf {
        self.dir.join("slots").join(name)
    }

    /// Whether the model file is the shipped one.
    #[must_use]
    pub fn model_intact(&self) -> bool {
        fs::read(self.model()).is_ok_and(|bytes| sha256_hex(&bytes) == sha256_hex(MODEL))
    }

    /// An outside prober of a service.
    pub fn prober(&self, name: &str, expect: Expect) -> Result<Prober> {
        let served = self.served(name).with_context(|| no(name))?;
        Ok(Prober::start(served.port.address(), expect)?)
    }

    /// What a user of the model expects.
    ///
    /// # Errors
    /// When the shipped manifest is broken.
    pub fn golden() -> Result<Expect> {
        let golden = Self::goldens()?;
        // The second vector is the one that a flipped weight matrix gets most wrong.
        let vector = golden.vectors.get(1).cloned();
        Ok(Expect::Golden {
            vector: vector.context("the manifest has golden vectors")?,
            tolerance: golden.tolerance,
        })
    }

    /// The golden vectors of the shipped model.
    ///
    /// # Errors
    /// When its manifest is broken.
    pub fn goldens() -> Result<Golden> {
        Ok(Manifest::parse(MANIFEST, Path::new("manifest.toml"))?.golden)
    }

    /// Waits until each service that is meant to run answers.
    pub(super) fn wait_up(&mut self) -> Result<()> {
        let names = self.served.iter().filter(|served| !served.standby);
        for name in names.map(|served| served.name).collect::<Vec<_>>() {
            let control = self.control(name)?;
            let end = Instant::now() + READY_MAX;
            while self.life(name).is_none() || !control.exists() {
                // A configuration that is refused ends them at once.
                self.check()?;
                if Instant::now() >= end {
                    let tail = super::process::log_tail(&self.dir, "spawner");
                    bail!("{name} does not come up:\n{tail}");
                }
                interrupt::pause(Duration::from_millis(20))?;
            }
        }
        Ok(())
    }

    pub(super) fn put_under(&mut self, process: &str, words: Vec<String>) {
        self.under = Some((process.to_owned(), words));
    }

    fn served(&self, name: &str) -> Option<&Served> {
        self.served.iter().find(|served| served.name == name)
    }

    fn role(&self, role: Role, name: &str, command: &str, more: &[&str]) -> Result<Process> {
        let mut args = super::cloud::args(&[command, "--config"]);
        args.push(self.config.clone().into());
        args.extend(super::cloud::args(more));
        let under = self.under.as_ref().filter(|(process, _)| process == name);
        match (&self.program, under) {
            (None, None) => return Process::start(role, name, &args, &self.dir),
            (None, Some(_)) => {
                // As the role's own argument and parent: the looking program takes its place.
                let own = super::role::program().context("cannot find the own program")?;
                let head = [own.into(), role.arg().into(), OWN_PARENT.into()];
                args.splice(0..0, head);
            }
            (Some(program), _) => args.insert(0, program.into()),
        }
        if let Some((_, words)) = under {
            args.splice(0..0, words.iter().map(Into::into));
        }
        Process::start(Role::Other, name, &args, &self.dir)
    }
}

/// Fills the slots of all services that have one.
fn install(config: &Path, model: &Path, service_config: &Path) -> Result<()> {
    let config = Config::load(config)?;
    for service in &config.services {
        for (name, file) in [(Name::Model, model), (Name::Config, service_config)] {
            if let Some(slot) = Slot::of(service, name, &config.node.data_dir) {
                slot.install(&Candidate {
                    file: file.to_owned(),
                    manifest: None,
                })?;
            }
        }
    }
    Ok(())
}

fn no(name: &str) -> String {
    format!("there is no service {name}")
}

fn config_text(
    dir: &Path,
    settings: &Settings,
    served: &[Served],
    broker: Option<&str>,
) -> Result<String> {
    // JSON's strings are TOML's basic strings.
    let quoted = |text: &str| serde_json::to_string(text).context("cannot quote a string");
    let path = |path: &Path| -> Result<String> {
        let text = path.to_str();
        quoted(text.with_context(|| format!("{} is not UTF-8", path.display()))?)
    };
    let program = super::role::program().context("cannot find the own program")?;
    let mut text = format!(
        "[node]\nid = \"{NODE}\"\ndata_dir = {}\nrun_dir = {}\n\n",
        path(&dir.join("data"))?,
        path(&dir.join("run"))?
    );
    // The caller's [mqtt] keys follow.
    let _ = writeln!(text, "[mqtt]");
    if let Some(url) = broker {
        let _ = writeln!(text, "broker = {}", quoted(url)?);
    }
    let _ = writeln!(text, "{}", settings.sections);
    for each in served {
        let mut command = vec![path(&program)?];
        for arg in each.spec.args() {
            command.push(path(Path::new(&arg))?);
        }
        let (name, port) = (each.name, each.port.number());
        let kind = if name == "infer" { "inference" } else { "http" };
        let _ = writeln!(
            text,
            "\n[[service]]\nid = \"{name}\"\ncommand = [{}]\nports = [{port}]\n{}",
            command.join(", "),
            settings.service
        );
        if name == "infer" {
            let _ = writeln!(text, "[service.model]\nslot = {}", path(&dir.join("slot"))?);
        }
        let _ = writeln!(
            text,
            "[[service.probe]]\nkind = \"{kind}\"\n{}",
            settings.probe
        );
    }
    Ok(text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_model_has_the_version_that_plans_name() {
        assert!(sha256_hex(MODEL).starts_with(MODEL_VERSION));
        assert!(Node::golden().is_ok());
    }
}
