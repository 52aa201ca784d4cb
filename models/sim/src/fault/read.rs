//! Reads an incident from TOML.
//!
//! In goes the text of a file and its name, out comes an [`Incident`], or a
//! [`TextError`] with file, line and reason. Whether the things that it names exist
//! in a topology is for `resolve` to say. What can be wrong inside the text alone
//! (ids that are there twice, couplings with faults that are not) is found here.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::Deserialize;
use toml::Spanned;

use super::grammar::{
    COUPLINGS_MAX, CUES_MAX, Cause, Coupling, Cue, FAULTS_MAX, Fault, Incident, Lines, Locus,
    Mechanism, Trigger, Unknown, Visibility,
};
use super::mechanism;
use crate::text::{Source, TextError};

/// Largest file that is read: ten times the longest one here.
pub const FILE_MAX: usize = 64 * 1024;
/// Longest text for people.
const ABOUT_MAX: usize = 600;
/// Longest name.
const NAME_MAX: usize = 64;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawIncident {
    name: Spanned<String>,
    about: Spanned<String>,
    topology: Spanned<String>,
    twin: Option<Spanned<String>>,
    #[serde(default)]
    contain: bool,
    fault: Spanned<Vec<RawFault>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFault {
    id: Spanned<String>,
    mechanism: Spanned<String>,
    locus: Spanned<String>,
    trigger: Option<Spanned<String>>,
    strength: Option<Spanned<f64>>,
    #[serde(default)]
    coupling: Vec<Spanned<String>>,
    visibility: Option<Spanned<String>>,
    #[serde(default)]
    cues: Vec<Spanned<String>>,
}

/// A text with which a part of the grammar is read.
trait Words {
    fn line<T>(&self, at: &Spanned<T>) -> usize;
    fn refuse<T>(&self, at: &Spanned<T>, reason: impl fmt::Display) -> TextError;
    fn parse<T: FromStr<Err = Unknown>>(&self, text: &Spanned<String>) -> Result<T, TextError>;
    fn label(&self, text: &Spanned<String>) -> Result<String, TextError>;
}

impl Words for Source<'_> {
    fn line<T>(&self, at: &Spanned<T>) -> usize {
        self.wrong(&at.span(), "").line
    }

    fn refuse<T>(&self, at: &Spanned<T>, reason: impl fmt::Display) -> TextError {
        self.wrong(&at.span(), reason.to_string())
    }

    fn parse<T: FromStr<Err = Unknown>>(&self, text: &Spanned<String>) -> Result<T, TextError> {
        let read = text.get_ref().parse();
        read.map_err(|error| self.refuse(text, error))
    }

    fn label(&self, text: &Spanned<String>) -> Result<String, TextError> {
        let label = text.get_ref();
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if label.is_empty() || label.len() > NAME_MAX || !label.bytes().all(plain) {
            let reason = format_args!("a name is 1 to {NAME_MAX} characters of a-z, 0-9 and '-'");
            return Err(self.refuse(text, reason));
        }
        Ok(label.clone())
    }
}

impl Incident {
    /// Reads it from the text of a file.
    ///
    /// # Errors
    /// [`TextError`] with file, line and reason.
    pub fn read(file: &str, text: &str) -> Result<Self, TextError> {
        let source = Source::new(file, text, FILE_MAX)?;
        let raw: RawIncident = source.read()?;
        if raw.about.get_ref().len() > ABOUT_MAX {
            let reason = format_args!("'about' has at most {ABOUT_MAX} bytes");
            return Err(source.refuse(&raw.about, reason));
        }
        if !(1..=FAULTS_MAX).contains(&raw.fault.get_ref().len()) {
            let reason = format_args!("an incident has 1 to {FAULTS_MAX} faults");
            return Err(source.refuse(&raw.fault, reason));
        }
        let mut ids = BTreeSet::new();
        for fault in raw.fault.get_ref() {
            if !ids.insert(fault.id.get_ref().as_str()) {
                let reason = format_args!("there is another fault {:?}", fault.id.get_ref());
                return Err(source.refuse(&fault.id, reason));
            }
        }
        let faults = raw.fault.get_ref().iter();
        let faults: Result<Vec<_>, _> = faults.map(|raw| fault(&source, raw, &ids)).collect();
        let incident = Self {
            file: file.to_owned(),
            name: source.label(&raw.name)?,
            about: raw
                .about
                .get_ref()
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" "),
            topology: source.label(&raw.topology)?,
            twin: raw
                .twin
                .as_ref()
                .map(|twin| source.label(twin))
                .transpose()?,
            contain: raw.contain,
            faults: faults?,
        };
        incident.reached()?;
        Ok(incident)
    }

    /// An error at a line of its file.
    pub(super) fn refuse(&self, line: usize, reason: impl fmt::Display) -> TextError {
        TextError {
            file: self.file.clone(),
            line,
            reason: reason.to_string(),
        }
    }

    /// Each fault that waits for a coupling has one, and something happens at all.
    fn reached(&self) -> Result<(), TextError> {
        let brought = |id: &str| {
            let mut couplings = self.faults.iter().flat_map(|fault| &fault.couplings);
            couplings.any(|one| matches!(one, Coupling::Breaks { then, .. } if then == id))
        };
        for fault in &self.faults {
            if fault.trigger.cause == Cause::Coupled && !brought(&fault.id) {
                let reason = format_args!("no coupling brings fault {:?}", fault.id);
                return Err(self.refuse(fault.lines.trigger, reason));
            }
        }
        let waits =
            |fault: &Fault| matches!(fault.trigger.cause, Cause::Coupled | Cause::Cleared(_));
        match self.faults.first() {
            Some(first) if self.faults.iter().all(waits) => {
                Err(self.refuse(first.lines.trigger, "no fault begins by itself"))
            }
            _ => Ok(()),
        }
    }
}

fn fault(source: &Source<'_>, raw: &RawFault, ids: &BTreeSet<&str>) -> Result<Fault, TextError> {
    let mechanism: Mechanism = source.parse(&raw.mechanism)?;
    let locus: Locus = source.parse(&raw.locus)?;
    if !mechanism::sits_at(mechanism, locus.place) {
        let places: Vec<_> = mechanism::places(mechanism)
            .map(|place| place.name())
            .collect();
        let reason = format!(
            "{mechanism:?} cannot be at a {}: only at {}",
            locus.place,
            places.join(", ")
        );
        return Err(source.refuse(&raw.locus, reason));
    }
    let strength = match &raw.strength {
        None => 0.5,
        Some(given) if (0.0..=1.0).contains(given.get_ref()) => *given.get_ref(),
        Some(given) => {
            let reason = "a strength lies in 0.0..=1.0";
            return Err(source.refuse(given, reason));
        }
    };
    let trigger = match &raw.trigger {
        None => Trigger::AT_ONCE,
        Some(text) => source.parse(text)?,
    };
    let visibility = match &raw.visibility {
        None => Visibility::Clear,
        Some(text) => source.parse(text)?,
    };
    let most = [
        ("coupling", &raw.coupling, COUPLINGS_MAX),
        ("cues", &raw.cues, CUES_MAX),
    ];
    for (key, list, max) in most {
        if let Some(first) = list.get(max) {
            let reason = format_args!("{key:?} has at most {max} entries");
            return Err(source.refuse(first, reason));
        }
    }
    let known = |id: &str, at: &Spanned<String>| match ids.contains(id) {
        true if id == raw.id.get_ref() => Err(source.refuse(at, "a fault names itself")),
        true => Ok(()),
        false => Err(source.refuse(at, format_args!("no fault {id:?} in this incident"))),
    };
    let mut couplings = Vec::with_capacity(raw.coupling.len());
    for text in &raw.coupling {
        let coupling: Coupling = source.parse(text)?;
        if let Some(other) = coupling.other() {
            known(other, text)?;
        }
        couplings.push(coupling);
    }
    let lines = Lines {
        locus: source.line(&raw.locus),
        trigger: raw.trigger.as_ref().map_or(0, |at| source.line(at)),
        coupling: raw.coupling.first().map_or(0, |at| source.line(at)),
        cues: raw.cues.first().map_or(0, |at| source.line(at)),
    };
    if let (Cause::Cleared(other), Some(at)) = (&trigger.cause, &raw.trigger) {
        known(other, at)?;
    }
    let cues: Result<Vec<Cue>, _> = raw.cues.iter().map(|text| source.parse(text)).collect();
    Ok(Fault {
        id: source.label(&raw.id)?,
        mechanism,
        locus,
        trigger,
        strength,
        couplings,
        visibility,
        cues: cues?,
        lines,
    })
}

impl fmt::Display for Incident {
    /// As a file that reads back.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quoted = |text: &str| toml::Value::from(text).to_string();
        writeln!(f, "name = {}", quoted(&self.name))?;
        writeln!(f, "about = {}", quoted(&self.about))?;
        writeln!(f, "topology = {}", quoted(&self.topology))?;
        if let Some(twin) = &self.twin {
            writeln!(f, "twin = {}", quoted(twin))?;
        }
        if self.contain {
            writeln!(f, "contain = true")?;
        }
        for fault in &self.faults {
            writeln!(f, "\n[[fault]]")?;
            writeln!(f, "id = {}", quoted(&fault.id))?;
            writeln!(f, "mechanism = \"{}\"", fault.mechanism)?;
            writeln!(f, "locus = \"{}\"", fault.locus)?;
            if fault.trigger != Trigger::AT_ONCE {
                writeln!(f, "trigger = \"{}\"", fault.trigger)?;
            }
            writeln!(f, "strength = {:?}", fault.strength)?;
            if !fault.couplings.is_empty() {
                let texts = fault.couplings.iter().map(|c| format!("\"{c}\""));
                writeln!(f, "coupling = [{}]", texts.collect::<Vec<_>>().join(", "))?;
            }
            if fault.visibility != Visibility::Clear {
                writeln!(f, "visibility = \"{}\"", fault.visibility)?;
            }
            if !fault.cues.is_empty() {
                let texts = fault.cues.iter().map(|c| format!("\"{c}\""));
                writeln!(f, "cues = [{}]", texts.collect::<Vec<_>>().join(", "))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"name = "x"
about = "y"
topology = "reference"

[[fault]]
id = "a"
mechanism = "lock"
locus = "replica infer-1"
coupling = ["re-infects"]

[[fault]]
id = "b"
mechanism = "slow"
locus = "node edge-1"
trigger = "after 90s for 1m"
strength = 0.25
visibility = "misleading as hang"
coupling = ["returns after 20s while a"]
cues = ["gc-pause at 0.2"]
"#;

    #[test]
    fn an_incident_is_printed_so_that_it_reads_back() {
        let incident = Incident::read("f", GOOD).unwrap();
        let printed = incident.to_string();
        let again = Incident::read("f", &printed).unwrap();
        assert_eq!(again.to_string(), printed);
        assert_eq!(again.faults.len(), 2);
        assert_eq!(again.faults[1].trigger.to_string(), "after 90s for 1m");
    }

    #[test]
    fn what_is_refused_says_file_line_and_reason() {
        let cases: &[(&str, &str, usize, &str)] = &[
            ("\"lock\"", "\"explode\"", 7, "no mechanism"),
            ("replica infer-1", "replica", 8, "no locus"),
            ("replica infer-1", "planet infer-1", 8, "no kind of locus"),
            ("replica infer-1", "link infer-1", 8, "cannot be at a link"),
            ("\"re-infects\"", "\"eats\"", 9, "no coupling"),
            ("while a", "while c", 18, "no fault \"c\""),
            ("while a", "while b", 18, "names itself"),
            ("id = \"b\"", "id = \"a\"", 12, "another fault"),
            ("id = \"b\"", "id = \"B\"", 12, "a-z"),
            ("0.25", "1.5", 16, "0.0..=1.0"),
            ("0.25", "nan", 16, "0.0..=1.0"),
            ("0.25", "-inf", 16, "0.0..=1.0"),
            ("0.25", "\"much\"", 16, "f64"),
            ("for 1m", "for ever", 15, "no trigger"),
            ("after 90s for 1m", "coupled", 15, "no coupling brings"),
            ("at 0.2", "at 0.02", 19, "no cue"),
            ("gc-pause", "gc-paws", 19, "no log template"),
            ("misleading as hang", "loud", 17, "no visibility"),
            ("strength", "strenght", 16, "unknown field"),
            ("name = \"x\"", "", 0, "missing field"),
        ];
        for (from, to, line, reason) in cases {
            let text = GOOD.replacen(from, to, 1);
            assert_ne!(text, GOOD, "{from}");
            let refused = Incident::read("some.toml", &text).unwrap_err();
            assert!(refused.reason.contains(reason), "{from} -> {to}: {refused}");
            if *line > 0 {
                assert_eq!(refused.line, *line, "{from} -> {to}: {refused}");
                assert!(
                    refused
                        .to_string()
                        .starts_with(&format!("some.toml:{line}: "))
                );
            }
        }
    }

    #[test]
    fn an_incident_without_faults_or_too_large_is_refused() {
        let none = "name = \"x\"\nabout = \"y\"\ntopology = \"z\"\nfault = []\n";
        assert_eq!(Incident::read("f", none).unwrap_err().line, 4);
        let large = format!("{GOOD}#{}", "x".repeat(FILE_MAX));
        assert!(Incident::read("f", &large).is_err());
        let many = format!(
            "{}{}",
            GOOD,
            "[[fault]]\nid = \"c\"\nmechanism = \"die\"\nlocus = \"replica x\"\n"
                .repeat(FAULTS_MAX)
        );
        assert!(Incident::read("f", &many).is_err());
    }
}
