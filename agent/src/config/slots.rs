//! `[service.model]` and `[service.config]`: folders through which a service reads what can be
//! replaced while it runs.

use std::path::{Path, PathBuf};

use toml::de::DeValue;

use super::fields::{Fields, Wanted, choice, text};
use super::sections::command;

/// Where a service finds its model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelSlot {
    /// `slot`, required: a folder, relative to the configuration file; the
    /// service reads `current/model.onnx` in it.
    pub slot: PathBuf,
    /// `reload`, default `restart`.
    pub reload: Reload,
}

/// Where a service finds its own configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigSlot {
    /// `slot`, required: a folder, relative to the configuration file; the
    /// service reads `current/FILE` in it.
    pub slot: PathBuf,
    /// `file`, required: a plain name.
    pub file: String,
    /// `format`, default `any`: what a candidate must parse as.
    pub format: Format,
    /// `reload`, default `restart`.
    pub reload: Reload,
    /// `check`, default none: a command that gets the candidate's path as its last
    /// word and ends with 0 when the service could use it.
    pub check: Vec<String>,
}

/// How a service comes to use what its slot holds now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reload {
    /// It is restarted.
    Restart,
    /// It notices by itself.
    Watch,
}

/// What the configuration of a service is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// TOML.
    Toml,
    /// JSON.
    Json,
    /// Anything; only `check` can tell.
    Any,
}

const RELOADS: [(&str, Reload); 2] = [("restart", Reload::Restart), ("watch", Reload::Watch)];

pub(super) fn model(mut at: Fields<'_, '_>, folder: &Path) -> Option<ModelSlot> {
    if !at.present() {
        return None;
    }
    let slot = at.required("slot", |value| text(value).map(|path| folder.join(path)));
    let reload = at.or("reload", Reload::Restart, choice(&RELOADS));
    at.finish();
    Some(ModelSlot {
        slot: slot?,
        reload,
    })
}

pub(super) fn config(mut at: Fields<'_, '_>, folder: &Path) -> Option<ConfigSlot> {
    if !at.present() {
        return None;
    }
    let slot = at.required("slot", |value| text(value).map(|path| folder.join(path)));
    let file = at.required("file", plain_name);
    let format = at.or(
        "format",
        Format::Any,
        choice(&[
            ("toml", Format::Toml),
            ("json", Format::Json),
            ("any", Format::Any),
        ]),
    );
    let reload = at.or("reload", Reload::Restart, choice(&RELOADS));
    let check = at.or("check", Vec::new(), command);
    at.finish();
    Some(ConfigSlot {
        slot: slot?,
        file: file?,
        format,
        reload,
        check,
    })
}

/// The name of a file within a version; one that starts with a dot could be
/// taken for what is being written.
fn plain_name(value: &DeValue<'_>) -> Result<String, Wanted> {
    let name = text(value)?;
    if Path::new(&name).file_name() != Some(name.as_ref()) || name.starts_with('.') {
        return Err("expected a plain file name, such as \"config.toml\"".into());
    }
    Ok(name)
}
