//! Serves slots on a thread of their own: a hanging disk must not stop the loop.
//!
//! In go [`Order`]s, out come events of the loop, answers to the command line,
//! and the golden vectors of the model in place whenever they may have changed.

use std::io;
use std::sync::mpsc::SyncSender;

use homeostat_common::ids::{ServiceId, Token};
use homeostat_models::Manifest;
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use super::{Candidate, Found, Name, Slot, SlotError, Version};
use crate::config::{GOLDENS_MAX, Golden};
use crate::control::Event;
use crate::io::keeper::chain;

/// Orders on the way; each service has at most a few.
const ORDERS_MAX: usize = 256;

/// What is to be done with the slot of a service.
#[derive(Debug)]
pub struct Order {
    /// Whose slot it is.
    pub service: ServiceId,
    /// Which.
    pub slot: Slot,
    /// What is to be done.
    pub what: What,
}

/// What is to be done with a slot.
#[derive(Debug)]
pub enum What {
    /// Look what is in place.
    Check,
    /// Put a version in place.
    Switch(Token, Version),
    /// Put back what was there before.
    Restore(Token),
    /// Forget what was there before.
    Settle,
    /// This version is good, if it is still the one in place.
    Keep(Version),
    /// Verify and copy a candidate.
    Stage(Candidate, Answer),
    /// The same, and put it in place if nothing is yet.
    Install(Candidate, Answer),
}

/// Where an answer to the command line goes.
pub type Answer = oneshot::Sender<Result<Version, String>>;

/// What the thread tells.
#[derive(Debug)]
pub enum Report {
    /// Something for the loop.
    Event(Box<Event>),
    /// The golden vectors of the model in place; comes before the event of the
    /// change.
    Goldens(ServiceId, Vec<Golden>),
}

/// Starts the thread; it ends when nobody can give it orders any more.
///
/// # Errors
/// When the system gives no thread.
pub fn start(reports: mpsc::Sender<Report>) -> io::Result<SyncSender<Order>> {
    let (orders, queue) = std::sync::mpsc::sync_channel::<Order>(ORDERS_MAX);
    std::thread::Builder::new()
        .name("slots".into())
        .spawn(move || {
            for Order {
                service,
                slot,
                what,
            } in queue
            {
                let goldens = matches!(
                    what,
                    What::Check | What::Switch(..) | What::Restore(_) | What::Install(..)
                ) && slot.name() == Name::Model;
                let event = carry_out(&service, &slot, what);
                let goldens = goldens
                    .then(|| goldens_of(&slot))
                    .flatten()
                    .map(|goldens| Report::Goldens(service, goldens));
                for report in goldens
                    .into_iter()
                    .chain(event.map(Box::new).map(Report::Event))
                {
                    if reports.blocking_send(report).is_err() {
                        return;
                    }
                }
            }
        })?;
    Ok(orders)
}

fn carry_out(service: &ServiceId, slot: &Slot, what: What) -> Option<Event> {
    match what {
        What::Check => Some(found(service, slot)),
        What::Switch(token, to) => done(token, slot.switch(to)),
        What::Restore(token) => done(token, slot.restore()),
        What::Settle => quiet(service, slot.settle()),
        What::Keep(version) => {
            quiet(service, slot.keep(Some(version)).map(|_| ()));
            Some(found(service, slot))
        }
        What::Stage(candidate, answer) => {
            let staged = slot.stage(&candidate).map_err(|error| chain(&error));
            let _ = answer.send(staged);
            // The gate has to know what can be switched to.
            Some(found(service, slot))
        }
        What::Install(candidate, answer) => {
            let installed = if slot.installed() {
                Err(SlotError::Installed {
                    slot: slot.path().to_owned(),
                    service: service.clone(),
                    name: slot.name(),
                })
            } else {
                slot.install(&candidate)
            };
            let _ = answer.send(installed.map_err(|error| chain(&error)));
            Some(found(service, slot))
        }
    }
}

/// What is in place. Where nothing has ever worked, what is there first is all
/// that one could go back to, so it is kept at once.
fn found(service: &ServiceId, slot: &Slot) -> Event {
    let first = |found: &Found| found.good.is_empty() && found.present.is_some();
    let found = match slot.check() {
        Ok(found) if first(&found) => slot.keep(None).and_then(|_| slot.check()),
        other => other,
    };
    Event::SlotChecked {
        service: service.clone(),
        slot: slot.name(),
        found: found.unwrap_or_else(|error| {
            warn!("{service}: {}", chain(&error));
            Found::default()
        }),
    }
}

fn done(token: Token, result: Result<(), SlotError>) -> Option<Event> {
    Some(Event::Acted {
        token,
        result: result.map_err(|error| chain(&error)),
    })
}

fn quiet(service: &ServiceId, result: Result<(), SlotError>) -> Option<Event> {
    if let Err(error) = result {
        warn!("{service}: {}", chain(&error));
    }
    None
}

/// Golden vectors of the model in place; `None` when nothing says them, and then
/// those of before go on.
#[must_use]
pub fn goldens_of(slot: &Slot) -> Option<Vec<Golden>> {
    slot.manifest().ok().map(goldens_in)
}

/// The golden vectors of a manifest, as a probe asks them.
#[must_use]
pub fn goldens_in(manifest: Manifest) -> Vec<Golden> {
    let tolerance = manifest.golden.tolerance;
    let vectors = manifest.golden.vectors.into_iter().take(GOLDENS_MAX);
    vectors
        .map(|vector| Golden {
            inputs: vector.input,
            outputs: vector.output,
            tolerance,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::config::Config;
    use crate::io::slots::MODEL_FILE;

    /// The shipped model, and the same with one golden output of its own and one
    /// more byte, which no reader of ONNX minds.
    fn candidates(dir: &Path) -> [Candidate; 2] {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/vibration");
        let bytes = fs::read(from.join(MODEL_FILE)).unwrap();
        let text = fs::read_to_string(from.join("manifest.toml")).unwrap();
        let manifest = Manifest::parse(&text, Path::new("m.toml")).unwrap();
        [0_u8, 1].map(|number| {
            let folder = dir.join(number.to_string());
            fs::create_dir(&folder).unwrap();
            let mut bytes = bytes.clone();
            bytes.extend(std::iter::repeat_n(0, usize::from(number)));
            let mut manifest = manifest.clone();
            manifest.sha256 = homeostat_models::sha256_hex(&bytes);
            manifest.golden.vectors[0].output[0] += f32::from(number);
            fs::write(folder.join(MODEL_FILE), bytes).unwrap();
            let text = manifest.to_toml().unwrap();
            fs::write(folder.join("manifest.toml"), text).unwrap();
            Candidate {
                file: folder.join(MODEL_FILE),
                manifest: None,
            }
        })
    }

    #[test]
    fn orders_are_answered_and_goldens_come_before_the_event() {
        let dir = tempfile::tempdir().unwrap();
        let text = "[node]\nid = \"n\"\n[[service]]\nid = \"infer\"\ncommand = [\"/x\"]\n\
                    [service.model]\nslot = \"slot\"\n";
        let config = Config::parse(text, &dir.path().join("a.toml")).unwrap();
        let slot = Slot::of(&config.services[0], Name::Model, dir.path()).unwrap();
        let (sender, mut reports) = mpsc::channel(8);
        let orders = start(sender).unwrap();
        let order = |what| {
            orders
                .send(Order {
                    service: "infer".parse().unwrap(),
                    slot: slot.clone(),
                    what,
                })
                .unwrap();
        };
        let candidate = |candidate: &Candidate, wish: fn(Candidate, Answer) -> What| {
            let (answer, result) = oneshot::channel();
            order(wish(candidate.clone(), answer));
            result.blocking_recv().unwrap()
        };
        let mut golden = || match reports.blocking_recv().unwrap() {
            Report::Goldens(_, goldens) => Ok(goldens[0].outputs[0]),
            Report::Event(event) => Err(event),
        };

        let [first, second] = candidates(dir.path());
        let found = |event: Box<Event>| match *event {
            Event::SlotChecked { found, .. } => found,
            other => panic!("{other:?}"),
        };
        let a = candidate(&first, What::Install).unwrap();
        let of_a = golden().unwrap();
        assert_eq!(found(golden().unwrap_err()).good, [a]);
        let b = candidate(&second, What::Stage).unwrap();
        // The gate learns at once what can be switched to.
        assert_eq!(found(golden().unwrap_err()).staged, Some(b));
        let error = candidate(&second, What::Install).unwrap_err();
        assert!(error.contains("slot stage infer model"), "{error}");
        assert_eq!(golden().unwrap(), of_a);
        found(golden().unwrap_err());
        let manifest = slot.manifest_of(b).unwrap();
        assert!(goldens_in(manifest)[0].outputs[0] > of_a + 0.5);

        order(What::Check);
        assert_eq!(golden().unwrap(), of_a);
        let looked = found(golden().unwrap_err());
        assert_eq!((looked.present, looked.good), (Some(a), vec![a]));
        let token = Token {
            plan: homeostat_common::ids::PlanId(1),
            step: 0,
            undo: false,
        };
        order(What::Switch(token, b));
        assert!(golden().unwrap() > of_a + 0.5);
        assert!(matches!(
            *golden().unwrap_err(),
            Event::Acted { result: Ok(()), .. }
        ));
        order(What::Restore(token));
        assert_eq!(golden().unwrap(), of_a);
        assert!(matches!(
            *golden().unwrap_err(),
            Event::Acted { result: Ok(()), .. }
        ));

        fs::write(slot.path().join("current/model.onnx"), "garbage").unwrap();
        order(What::Check);
        assert_eq!(golden().unwrap(), of_a);
        let looked = found(golden().unwrap_err());
        assert!(
            looked.present != Some(a) && looked.good == [a],
            "{looked:?}"
        );
    }
}
