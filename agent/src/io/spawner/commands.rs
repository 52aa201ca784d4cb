//! What a look at this machine says about the commands of a configuration.
//!
//! In go services, out come doubts in words. They are no errors: a file is often checked
//! where it is written, and not on the node that has the programs and the users.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::users;
use crate::config::{Config, Process, Service};

/// Looks at each command that is to be run here.
#[must_use]
pub(crate) fn doubts(config: &Config) -> Vec<String> {
    let of = |service: &Service| {
        let Process::Command(words) = &service.process else {
            return Vec::new();
        };
        let user = service.user.as_deref();
        [
            words.first().and_then(|word| program(Path::new(word))),
            folder(&service.cwd),
            user.and_then(unknown),
        ]
        .into_iter()
        .flatten()
        .map(|doubt| format!("{}: {doubt}", service.id))
        .collect::<Vec<_>>()
    };
    let services = config.services.iter().flat_map(of);
    let agent = config.node.agent_user.as_deref().and_then(unknown);
    let agent = agent.map(|doubt| format!("node.agent_user: {doubt}"));
    services.chain(agent).collect()
}

fn program(path: &Path) -> Option<String> {
    let shown = path.display();
    match std::fs::metadata(path) {
        Err(error) => Some(format!("{shown} cannot be run: {error}")),
        Ok(meta) if meta.is_dir() => Some(format!("{shown} cannot be run: it is a folder")),
        Ok(meta) if meta.mode() & 0o111 == 0 => Some(format!(
            "{shown} cannot be run: nobody may execute it (mode {:o})",
            meta.mode() & 0o7777
        )),
        Ok(_) => None,
    }
}

fn folder(path: &Path) -> Option<String> {
    let shown = path.display();
    match std::fs::metadata(path) {
        Err(error) => Some(format!("it cannot be run in {shown}: {error}")),
        Ok(meta) if !meta.is_dir() => Some(format!("it cannot be run in {shown}: no folder")),
        Ok(_) => None,
    }
}

fn unknown(user: &str) -> Option<String> {
    users::find(user).err().map(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_run_here_is_told_and_what_can_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("plain");
        std::fs::write(&file, "").unwrap();
        let text = format!(
            "[node]\nid = \"n\"\n\
             [[service]]\nid = \"good\"\ncommand = [\"/bin/sh\"]\nuser = \"root\"\n\
             [[service]]\nid = \"absent\"\ncommand = [\"/no/such/program\"]\n\
             [[service]]\nid = \"folder\"\ncommand = [\"/tmp\"]\n\
             [[service]]\nid = \"plain\"\ncommand = [\"{}\"]\n\
             [[service]]\nid = \"lost\"\ncommand = [\"/bin/sh\"]\nuser = \"nobody-here\"\n\
             cwd = \"/no/such/folder\"\n",
            file.display()
        );
        let config = Config::parse(&text, Path::new("a.toml")).unwrap();
        let told = doubts(&config);
        let begins = [
            "absent: /no/such/program cannot be run: ",
            "folder: /tmp cannot be run: it is a folder",
            "plain: ",
            "lost: it cannot be run in /no/such/folder: ",
            "lost: no user nobody-here",
        ];
        assert_eq!(told.len(), begins.len(), "{told:?}");
        for (told, begin) in told.iter().zip(begins) {
            assert!(told.starts_with(begin), "{told}");
        }
    }
}
