//! The ends of certificates.
//!
//! In goes what the shell has read of them, out come alarms with the time that is left, and
//! for a service whose certificate somebody can renew something that is foreseen. Without a
//! wall clock that can be believed nothing is known. What a certificate says besides its end,
//! and whom it is shown to, is nobody's business here.

use std::time::Duration;

use homeostat_common::anomaly::Fault;
use homeostat_common::ids::{CertificateId, ServiceId, WebhookId};
use homeostat_common::units::{Micros, Millis};
use homeostat_common::wire::body::Severity;

use super::Loop;
use super::foreseeing::Ahead;
use super::message::Effect;
use crate::config::{Certificate, Config};

/// Certificates are looked at this often.
const LOOK_PERIOD: Millis = Millis::secs(3600);

/// ... and this often when one cannot be read.
const UNREAD_PERIOD: Millis = Millis::secs(300);

/// Whoever renews one is asked this often, at most.
const RENEW_PERIOD: Millis = Millis::secs(86_400);

/// The alarm about a certificate.
pub(super) fn certificate_alarm(id: &CertificateId) -> String {
    format!("certificate-{id}")
}

#[derive(Debug)]
struct Watched {
    certificate: Certificate,
    /// Its end, in milliseconds since 1970, or why that is not known.
    until: Option<Result<u64, String>>,
    /// It ends soon, and nobody was asked lately to renew it.
    due: bool,
    /// Nobody is asked before this.
    ask_at: Micros,
}

/// All that are watched.
#[derive(Debug)]
pub(super) struct Certificates {
    all: Vec<Watched>,
    look_at: Micros,
}

impl Certificates {
    pub(super) fn new(config: &Config) -> Self {
        let all = config.certificates.iter().map(|certificate| Watched {
            certificate: certificate.clone(),
            until: None,
            due: false,
            ask_at: Micros(0),
        });
        Self {
            all: all.collect(),
            look_at: Micros(0),
        }
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = &CertificateId> {
        self.all.iter().map(|one| &one.certificate.id)
    }

    /// One was looked at.
    pub(super) fn read(&mut self, id: &CertificateId, until: Result<u64, String>, now: Micros) {
        if until.is_err() {
            self.look_at = self.look_at.min(now + UNREAD_PERIOD);
        }
        let mut all = self.all.iter_mut();
        if let Some(one) = all.find(|one| one.certificate.id == *id) {
            one.until = Some(until);
        }
    }

    /// The first of a service that is due.
    fn due(&self, service: &ServiceId) -> Option<usize> {
        let of = |one: &Watched| {
            let renew = one.certificate.renew.as_ref();
            one.due && renew.is_some_and(|(of, _)| of == service)
        };
        self.all.iter().position(of)
    }

    /// Who renews the certificate of a service that is due.
    pub(super) fn renewer(&self, service: &ServiceId) -> Option<WebhookId> {
        let one = self.all.get(self.due(service)?)?;
        let (_, webhook) = one.certificate.renew.as_ref()?;
        Some(webhook.clone())
    }

    /// Whoever renews it was asked to.
    pub(super) fn asked(&mut self, service: &ServiceId, now: Micros) {
        if let Some(place) = self.due(service)
            && let Some(one) = self.all.get_mut(place)
        {
            one.due = false;
            one.ask_at = now + RENEW_PERIOD;
        }
        self.look_at = self.look_at.min(now + UNREAD_PERIOD);
    }
}

impl Loop {
    pub(super) fn foresee_certificates(&mut self, now: Micros, effects: &mut Vec<Effect>) {
        let certificates = &mut self.foresight.certificates;
        if now >= certificates.look_at {
            certificates.look_at = now + LOOK_PERIOD;
            for one in &certificates.all {
                let Certificate { id, path, .. } = &one.certificate;
                effects.push(Effect::ReadCertificate(id.clone(), path.clone()));
            }
        }
        let wall = self.host.wall.fresh();
        let mut alarms = Vec::new();
        let mut expected = Vec::new();
        for one in &mut certificates.all {
            one.due = false;
            let Certificate { id, path, .. } = &one.certificate;
            let path = path.display();
            let left = match (&one.until, wall) {
                (Some(Ok(until)), Some(wall)) => Millis(until.saturating_sub(wall)),
                (Some(Err(why)), _) => {
                    let text = format!("the certificate {id} in {path} is not known: {why}");
                    alarms.push((certificate_alarm(id), Some((Severity::Warning, text))));
                    continue;
                }
                _ => continue,
            };
            if left > one.certificate.before {
                alarms.push((certificate_alarm(id), None));
                continue;
            }
            let (days, hours) = (left.0 / 86_400_000, left.0 % 86_400_000 / 3_600_000);
            let (severity, words) = match left {
                Millis(0) => (Severity::Critical, "is not valid any more".to_owned()),
                _ => {
                    let words = format!("is valid for {days} days and {hours} hours more");
                    (Severity::Warning, words)
                }
            };
            let text = format!("the certificate {id} in {path} {words}");
            if let Some((service, _)) = &one.certificate.renew
                && now >= one.ask_at
            {
                one.due = true;
                expected.push((service.clone(), text.clone()));
            }
            alarms.push((certificate_alarm(id), Some((severity, text))));
        }
        for (service, words) in expected {
            let ahead = Ahead {
                fault: Fault::CertificateExpiry,
                // It is time when the operator says that it is.
                earliest: Duration::ZERO,
                expected: Duration::ZERO,
                words,
            };
            self.foresight.expect(&service, ahead);
        }
        for (name, alarm) in alarms {
            match alarm {
                Some((severity, text)) => self.raise(&name, None, severity, text, effects),
                None => self.clear(&name, effects),
            }
        }
    }
}
