//! A node put together for one measurement: any services of the testbed, any routes.
//!
//! It can be left to its agent, or only be laid out, with its slots filled, for a plain
//! supervisor to run the same services in the same folders.

use std::fmt::Write as _;
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use homeostat_testbed::{Kind, Port, ServiceSpec};

use super::fleet::quoted;
use super::node::{Layout, Node, Served, Settings};
use super::role::{self, FORWARD_ARG};

/// What a node consists of.
#[derive(Debug)]
pub struct Parts {
    /// Its id. Nodes with the same one would share the groups of their services.
    pub node: &'static str,
    pub services: Vec<Part>,
    pub routes: Vec<Route>,
    /// What configuration slots hold at first.
    pub service_config: &'static str,
}

/// One service.
#[derive(Debug)]
pub struct Part {
    pub name: &'static str,
    pub kind: Kind,
    pub port: Port,
    /// Keys of its block beyond those that all services share.
    pub keys: String,
    /// Tables of its block but for a probe of its health. `PROBE` stands for the keys of
    /// all probes, and so does `GOLDEN`.
    pub tables: String,
}

/// One route, to services of the node.
#[derive(Clone, Debug)]
pub struct Route {
    pub id: &'static str,
    pub listen: SocketAddrV4,
    /// Its keys, and its tables but for the backends.
    pub keys: String,
    pub to: Vec<&'static str>,
}

impl Node {
    /// The folder that [`Node::lay_out`] makes in `dir`, for what services keep there.
    #[must_use]
    pub fn home(dir: &Path) -> PathBuf {
        dir.join("node")
    }

    /// Writes the configuration and fills the slots; starts nothing.
    ///
    /// # Errors
    /// When something cannot be written, or the configuration is wrong.
    pub fn lay_out(dir: &Path, settings: &Settings, parts: Parts) -> Result<Self> {
        Self::lay_out_with(dir, settings, parts, None)
    }

    /// The same for an agent's binary, if one is named, in place of the one built in here.
    ///
    /// # Errors
    /// As for [`Node::lay_out`].
    pub fn lay_out_with(
        dir: &Path,
        settings: &Settings,
        parts: Parts,
        program: Option<PathBuf>,
    ) -> Result<Self> {
        let dir = Self::home(dir);
        let mut text = format!(
            "[node]\nid = \"{}\"\ndata_dir = {}\nrun_dir = {}\n\n[mqtt]\n{}\n",
            parts.node,
            quoted(dir.join("data"))?,
            quoted(dir.join("run"))?,
            settings.sections
        );
        let own = quoted(role::program().context("cannot find the own program")?)?;
        if !parts.routes.is_empty() {
            let config = quoted(dir.join("agent.toml"))?;
            let command = match &program {
                None => format!("{own}, \"{FORWARD_ARG}\""),
                Some(program) => format!("{}, \"forward\"", quoted(program)?),
            };
            let _ = writeln!(
                text,
                "\n[forwarder]\ncommand = [{command}, \"--config\", {config}]"
            );
        }
        let mut served = Vec::with_capacity(parts.services.len());
        for part in parts.services {
            let spec = ServiceSpec {
                kind: part.kind,
                port: part.port.number(),
                control: Some(dir.join("run").join(format!("{}.control", part.name))),
                die_with_parent: true,
            };
            let mut command = vec![own.clone()];
            for arg in spec.args() {
                command.push(quoted(arg)?);
            }
            let _ = writeln!(
                text,
                "\n[[service]]\nid = \"{}\"\ncommand = [{}]\nports = [{}]\n{}\n{}\n{}\n\
                 [[service.probe]]\nkind = \"http\"\npath = \"/healthz\"\n{}",
                part.name,
                command.join(", "),
                spec.port,
                settings.service,
                part.keys,
                part.tables
                    .replace("GOLDEN", &settings.probe)
                    .replace("PROBE", &settings.probe),
                settings.probe,
            );
            served.push(Served {
                name: part.name,
                spec,
                port: part.port,
                standby: false,
            });
        }
        for route in &parts.routes {
            let _ = writeln!(
                text,
                "\n[[forward]]\nid = \"{}\"\nlisten = {}\n{}",
                route.id,
                route.listen.port(),
                route.keys
            );
            for service in &route.to {
                let _ = writeln!(text, "[[forward.backend]]\nservice = \"{service}\"");
            }
        }
        let layout = Layout {
            id: parts.node,
            dir,
            served,
            text,
            service_config: parts.service_config,
        };
        Self::prepare(layout, program)
    }

    /// Starts spawner and agent of a node that was laid out.
    ///
    /// # Errors
    /// When something cannot be started, or the services do not come up.
    pub fn launch(&mut self) -> Result<()> {
        self.start_spawner()?;
        self.start_agent()?;
        self.wait_up()
    }

    /// The same, with one of its processes (`agent`, `spawner`) behind other words: a program
    /// that looks at it, and its arguments.
    ///
    /// # Errors
    /// When something cannot be started, or the services do not come up.
    pub fn launch_under(&mut self, process: &str, words: Vec<String>) -> Result<()> {
        self.put_under(process, words);
        self.launch()
    }

    /// What starts the forwarder, less the program.
    #[must_use]
    pub fn forwarder_args(&self) -> Vec<std::ffi::OsString> {
        vec![FORWARD_ARG.into(), "--config".into(), self.config().into()]
    }
}
