//! `[foresee]` and `[[certificate]]`: what is looked out for before it happens, and who is
//! told how long before.
//!
//! When something is *done* before it happens does not stand here: it follows from how long
//! the plan takes. Does not look at the machine: whether a certificate can be read is found
//! out where it is used.

use std::path::PathBuf;

use homeostat_common::ids::{CertificateId, ServiceId, WebhookId};
use homeostat_common::units::Millis;
use toml::de::DeValue;

use super::Config;
use super::fields::{Fields, Wanted, flag, number, parsed, span};
use super::problems::Problems;
use super::sections::absolute;

/// Most certificates; each is an alarm of its own.
pub const CERTIFICATES_MAX: usize = 32;

/// What is looked out for.
#[derive(Debug, Clone, PartialEq)]
pub struct Foresee {
    /// `act`, default true: plans may run before anything is broken, as far as the mode of
    /// the service goes; false only tells.
    pub act: bool,
    /// `tell`, default 1 h: people are told so long before something that nothing can be
    /// done about here.
    pub tell: Millis,
    /// `thermal`, default `/sys/class/thermal`: where the kernel shows temperatures.
    pub thermal: PathBuf,
    /// `heat_limit`, in degrees Celsius, default the lowest trip point of each zone.
    pub heat_limit: Option<f32>,
}

impl Default for Foresee {
    fn default() -> Self {
        Self {
            act: true,
            tell: Millis::secs(3600),
            thermal: "/sys/class/thermal".into(),
            heat_limit: None,
        }
    }
}

/// A certificate that must not run out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// `id`, required.
    pub id: CertificateId,
    /// `path`, required: PEM or DER; of a chain the first.
    pub path: PathBuf,
    /// `before`, default 14 days: so long before its end it is a matter.
    pub before: Millis,
    /// `service` that shows it, and `renew`, the webhook that has it renewed. Without them
    /// people are told, and nothing is done.
    pub renew: Option<(ServiceId, WebhookId)>,
}

pub(super) fn foresee(mut at: Fields<'_, '_>) -> Foresee {
    let usual = Foresee::default();
    let foresee = Foresee {
        act: at.or("act", usual.act, flag),
        tell: at.or(
            "tell",
            usual.tell,
            span(Millis::secs(60)..=Millis::secs(86_400)),
        ),
        thermal: at.or("thermal", usual.thermal, absolute),
        heat_limit: at.optional("heat_limit", degrees),
    };
    at.finish();
    foresee
}

pub(super) fn certificate(mut at: Fields<'_, '_>) -> Option<Certificate> {
    let id = at.required("id", parsed(CertificateId::new));
    let path = at.required("path", absolute);
    let before = at.or(
        "before",
        Millis::secs(14 * 86_400),
        span(Millis::secs(60)..=Millis::secs(366 * 86_400)),
    );
    let service = at.optional("service", |value| parsed(ServiceId::new)(value));
    let renew = at.optional("renew", |value| parsed(WebhookId::new)(value));
    if service.is_some() != renew.is_some() {
        let (key, other) = if service.is_some() {
            ("service", "renew")
        } else {
            ("renew", "service")
        };
        at.wrong(key, format!("needs {other} as well"));
    }
    at.finish();
    Some(Certificate {
        id: id?,
        path: path?,
        before,
        renew: service.zip(renew),
    })
}

pub(super) fn across(config: &Config, problems: &mut Problems<'_>) {
    for (n, certificate) in config.certificates.iter().enumerate() {
        let same = |other: &Certificate| other.id == certificate.id;
        if config.certificates.iter().take(n).any(same) {
            let id = &certificate.id;
            problems.at(
                &format!("certificate[{n}].id"),
                format!("{id} is already the id of another one"),
            );
        }
        let Some((service, webhook)) = &certificate.renew else {
            continue;
        };
        if config.service(service).is_none() {
            problems.at(
                &format!("certificate[{n}].service"),
                format!("there is no service {service}"),
            );
        }
        if !config.webhooks.iter().any(|one| one.name == *webhook) {
            problems.at(
                &format!("certificate[{n}].renew"),
                format!("there is no webhook {webhook}"),
            );
        }
    }
}

fn degrees(value: &DeValue<'_>) -> Result<f32, Wanted> {
    let degrees = number(value)?;
    if (20.0..=150.0).contains(&degrees) {
        Ok(degrees)
    } else {
        Err("expected degrees Celsius from 20 to 150".into())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn wrong(text: &str) -> String {
        let text = format!("[node]\nid = \"n\"\n{text}");
        match Config::parse(&text, Path::new("/a.toml")) {
            Ok(config) => format!("{:?} {:?}", config.foresee, config.certificates),
            Err(errors) => errors.to_string(),
        }
    }

    #[test]
    fn what_is_looked_out_for_is_read_and_mistakes_are_named() {
        let text = "[foresee]\nact = false\ntell = \"2h\"\nthermal = \"/t\"\nheat_limit = 80.0\n\
                    [[certificate]]\nid = \"api\"\npath = \"/c.pem\"\nbefore = \"7d\"\n";
        let config = Config::parse(&format!("[node]\nid = \"n\"\n{text}"), Path::new("/a"));
        let config = config.unwrap();
        let foresee = Foresee {
            act: false,
            tell: Millis::secs(7200),
            thermal: "/t".into(),
            heat_limit: Some(80.0),
        };
        assert_eq!(config.foresee, foresee);
        assert_eq!(config.certificates[0].before, Millis::secs(7 * 86_400));
        assert_eq!(config.certificates[0].renew, None);
        let cold = wrong("[foresee]\nheat_limit = 2\n");
        assert!(cold.contains("20 to 150"), "{cold}");
        let certificate = "[[certificate]]\nid = \"api\"\npath = \"/c.pem\"\n";
        let alone = wrong(&format!("{certificate}renew = \"ca\"\n"));
        assert!(alone.contains("needs service as well"), "{alone}");
        let nobody = wrong(&format!("{certificate}renew = \"ca\"\nservice = \"web\"\n"));
        assert!(nobody.contains("there is no service web"), "{nobody}");
        assert!(nobody.contains("there is no webhook ca"), "{nobody}");
        let twice = wrong(&format!("{certificate}{certificate}"));
        assert!(twice.contains("already the id"), "{twice}");
    }
}
