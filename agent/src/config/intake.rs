//! `[[intake]]`: topics on which devices tell of alarms.

use homeostat_common::ids::ServiceId;
use homeostat_common::wire::body::Severity;
use homeostat_notify::intake::{Filter, Form, Source};

use super::Config;
use super::fields::{Fields, choice, parsed};
use super::problems::Problems;

pub(super) fn intake(mut at: Fields<'_, '_>) -> Option<Source> {
    const FORMS: [(&str, Form); 2] = [("alarm", Form::Alarm), ("presence", Form::Presence)];
    const GRAVE: [(&str, Severity); 3] = [
        ("notice", Severity::Notice),
        ("warning", Severity::Warning),
        ("critical", Severity::Critical),
    ];
    let topic = at.required("topic", parsed(str::parse::<Filter>));
    let form = at.or("form", Form::Alarm, choice(&FORMS));
    let severity = at.or("severity", Severity::Warning, choice(&GRAVE));
    let service = at.optional("service", parsed(ServiceId::new));
    at.finish();
    Some(Source {
        topic: topic?,
        form,
        severity,
        service,
    })
}

/// A service that a device's alarms concern is one that exists.
pub(super) fn across(config: &Config, problems: &mut Problems<'_>) {
    for (n, source) in config.intake.iter().enumerate() {
        if let Some(id) = &source.service
            && config.service(id).is_none()
        {
            problems.at(
                &format!("intake[{n}].service"),
                format!("there is no service {id}"),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn a_topic_has_a_form_and_concerns_a_service_that_exists() {
        let parse = |more: &str| {
            let text = format!(
                "[node]\nid = \"n\"\n[[service]]\nid = \"cam\"\ncommand = [\"/c\"]\n[[intake]]\n{more}"
            );
            Config::parse(&text, Path::new("a.toml")).map_err(|error| error.to_string())
        };
        let config = parse(
            "topic = \"devices/+/status\"\nform = \"presence\"\nseverity = \"critical\"\nservice = \"cam\"\n",
        )
        .unwrap();
        let source = &config.intake[0];
        assert_eq!(
            (source.form, source.severity),
            (Form::Presence, Severity::Critical)
        );
        for (more, says) in [
            ("form = \"alarm\"\n", "topic: is required"),
            ("topic = \"hs/v1/#\"\n", "Homeostat's own"),
            (
                "topic = \"a\"\nservice = \"web\"\n",
                "there is no service web",
            ),
            ("topic = \"a\"\nform = \"will\"\n", "intake[0].form"),
        ] {
            let error = parse(more).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}
