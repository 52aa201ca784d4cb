//! `[[log]]`: files that are read besides the services' own.

use std::path::PathBuf;

use homeostat_common::ids::ServiceId;

use super::fields::{Fields, parsed};
use super::problems::Problems;
use super::sections::absolute;
use super::{Config, Process};

/// Most such files of one node: each is looked at with every sample.
pub const LOGS_MAX: usize = 64;

/// A file that other programs append to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// `path`, required. It need not exist yet.
    pub path: PathBuf,
    /// `service` that its lines concern, default none: the node.
    pub service: Option<ServiceId>,
}

pub(super) fn log(mut at: Fields<'_, '_>) -> Option<Log> {
    let path = at.required("path", absolute);
    let service = at.optional("service", parsed(ServiceId::new));
    at.finish();
    Some(Log {
        path: path?,
        service,
    })
}

/// A service that a file's lines concern is one that exists.
pub(super) fn across(config: &Config, problems: &mut Problems<'_>) {
    for (n, log) in config.logs.iter().enumerate() {
        if let Some(id) = &log.service
            && config.service(id).is_none()
        {
            problems.at(
                &format!("log[{n}].service"),
                format!("there is no service {id}"),
            );
        }
    }
}

impl Config {
    /// Whether the journal of systemd is read.
    #[must_use]
    pub fn reads_journal(&self) -> bool {
        let mut services = self.services.iter();
        let unit = || services.any(|service| matches!(service.process, Process::Unit(_)));
        self.sample.journal.unwrap_or_else(unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn a_file_has_a_path_and_concerns_a_service_that_exists() {
        let parse = |more: &str| {
            let text = format!(
                "[node]\nid = \"n\"\n[[service]]\nid = \"cam\"\nunit = \"cam.service\"\n{more}"
            );
            Config::parse(&text, Path::new("a.toml")).map_err(|error| error.to_string())
        };
        let config = parse("[[log]]\npath = \"/var/log/a\"\nservice = \"cam\"\n").unwrap();
        assert_eq!(config.logs[0].path, Path::new("/var/log/a"));
        assert_eq!(config.logs[0].service, ServiceId::new("cam").ok());
        // A service of systemd writes to the journal, unless somebody does not want it read.
        assert!(config.reads_journal());
        assert!(
            !parse("[sample]\njournal = false\n")
                .unwrap()
                .reads_journal()
        );
        for (more, says) in [
            ("[[log]]\n", "log[0].path: is required"),
            ("[[log]]\npath = \"a\"\n", "log[0].path"),
            (
                "[[log]]\npath = \"/a\"\nservice = \"web\"\n",
                "there is no service web",
            ),
        ] {
            let error = parse(more).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}
