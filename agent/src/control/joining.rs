//! What follows from an incident that is known: it gets none of its own.
//!
//! In go the finding of a service and the healings that run or were just over; out comes
//! whether it waits, told as [`Joined`] to the incident that it is put down to. While a
//! recovery runs or settles, those who need the service (by `depends_on`, or through a route
//! that it stands behind) may be silent, wrong or slow because of it, and whoever shares a
//! busy node may be slow. What is still there once that has settled is a trouble of its own.
//! A death is never put down to anybody: a dead service serves nobody whatever it died of.

use homeostat_common::anomaly::Symptom;
use homeostat_common::ids::{IncidentId, RouteId, ServiceId};
use homeostat_common::units::{Micros, Millis, Ratio};
use homeostat_common::wire::body::{Body, Joined};

use super::message::{Class, Effect};
use super::sampling::PRESSED;
use super::{Incident, Loop};
use crate::detect::Finding;
use crate::service::instant;

/// Services that need a mended one are given this long to come back by themselves before
/// their silence counts as a fault of their own.
const SETTLING: Millis = Millis::secs(2);

/// What is measured over a window reaches back into the recovery for as long as the longest
/// window does: three reports of the forwarder, each over five seconds.
const SETTLING_WINDOW: Millis = Millis::secs(10);

/// Nobody is excused for longer by others that answer: what helps them may never come.
const EXCUSED_MAX: Millis = Millis::secs(600);

/// A service that was mended, and whose effects on others may last a moment longer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settling {
    incident: IncidentId,
    mark: u64,
    began: Micros,
    closed: Micros,
}

impl Settling {
    /// When something about it changes.
    pub(super) fn turns(&self) -> [Micros; 2] {
        [self.closed + SETTLING, self.until()]
    }

    pub(super) fn until(&self) -> Micros {
        self.closed + SETTLING_WINDOW
    }
}

/// A service that waits for others.
#[derive(Debug, Clone, Copy)]
pub(super) struct Held {
    since: Micros,
    /// The incident that it was told to belong to; none for what is no incident.
    told: Option<Option<IncidentId>>,
}

/// How a symptom follows from the recovery of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Follows {
    /// It ends with it.
    AtOnce,
    /// Measured over a window, it lasts a while longer.
    InWindow,
    /// What is held up by the recovery piles up; nothing else would excuse it.
    ByRecovery,
}

impl Follows {
    fn of(symptom: Symptom) -> Option<Self> {
        match symptom {
            Symptom::Hung
            | Symptom::WrongAnswers
            | Symptom::NotStarting
            | Symptom::Requested
            | Symptom::Foreseen => Some(Self::AtOnce),
            Symptom::Slow | Symptom::Saturated => Some(Self::InWindow),
            Symptom::Leaking | Symptom::LeakingDescriptors | Symptom::Hogging => {
                Some(Self::ByRecovery)
            }
            Symptom::Dead | Symptom::DataFull => None,
        }
    }

    fn settled(self, settling: &Settling) -> Micros {
        match self {
            Self::AtOnce => settling.closed + SETTLING,
            Self::InWindow | Self::ByRecovery => settling.until(),
        }
    }
}

/// A service that another one needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Need {
    pub(super) service: ServiceId,
    /// The first route on the way to it: there may be others behind that.
    pub(super) route: Option<RouteId>,
}

/// What something is put down to.
struct Root {
    incident: Option<(IncidentId, u64)>,
    /// Without it nothing can work, for as long as that lasts; or it was mended a moment
    /// ago, which is over soon.
    certain: bool,
    because: String,
}

impl Loop {
    /// Whether a finding is put down to something that is known, and waits.
    pub(super) fn held_back(
        &mut self,
        id: &ServiceId,
        finding: &Finding,
        now: Micros,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let Some(follows) = Follows::of(finding.symptom) else {
            return false;
        };
        let held = self.telling.held_back.get(id);
        let long = held.is_some_and(|held| now.since(held.since) >= EXCUSED_MAX);
        let needs = self.needs_of(id);
        if let Some(root) = self.root_of(id, finding, follows, &needs, now) {
            // One that needs another that is silent has its turn after that.
            let silent = |need: &Need| {
                let service = self.services.get(&need.service);
                let silent = service.is_some_and(|one| one.wanted() && !one.answering(now));
                need.route.is_none() && silent
            };
            if long && !root.certain && !needs.iter().any(silent) {
                return false;
            }
            self.tell_held(id, finding, root, now, effects);
            return true;
        }
        let lasting: Vec<ServiceId> = needs
            .into_iter()
            .filter(|need| need.route.is_none())
            .map(|need| need.service)
            .collect();
        if finding.symptom == Symptom::Hung && self.waits_for(id, &lasting, finding.since, now) {
            return true;
        }
        self.telling.held_back.remove(id);
        false
    }

    fn root_of(
        &self,
        id: &ServiceId,
        finding: &Finding,
        follows: Follows,
        needs: &[Need],
        now: Micros,
    ) -> Option<Root> {
        // A call that nobody takes fails here, and is nobody's fault here.
        let closed = self.services.get(id).and_then(|watched| {
            let mut routes = watched.policy.calls.iter();
            routes.find(|id| {
                let route = self.routes.get(*id);
                self.routes_fresh(now) && route.is_some_and(|route| !route.open())
            })
        });
        if let Some(route) = closed.filter(|_| follows != Follows::ByRecovery) {
            return Some(Root {
                incident: None,
                certain: true,
                because: format!("route {route}, which it calls, has no healthy backend"),
            });
        }
        let needed = needs
            .iter()
            .find_map(|need| self.mended(need, follows, now));
        needed.or_else(|| self.crowded_out(id, finding, follows, now))
    }

    /// Whether a need is being mended, or was just now.
    fn mended(&self, need: &Need, follows: Follows, now: Micros) -> Option<Root> {
        let service = &need.service;
        let name = match &need.route {
            None => format!("{service}, which it needs,"),
            Some(route) => format!("{service} behind route {route}, which it calls,"),
        };
        let because = format!("{name} is being mended");
        let answers = self.services.get(service);
        let answers = answers.is_some_and(|one| one.answering(now));
        let certain = need.route.is_none() && !answers;
        if let Some(incident) = self.incidents.get(service)
            && self.excuses(incident, need.route.is_none(), follows, now)
        {
            let incident = Some((incident.id, incident.mark));
            return Some(Root {
                incident,
                certain,
                because,
            });
        }
        if self.part_on(service).is_some() {
            return Some(Root {
                incident: None,
                certain,
                because,
            });
        }
        let settling = self.settling.get(service)?;
        (now < follows.settled(settling)).then(|| Root {
            incident: Some((settling.incident, settling.mark)),
            certain: true,
            because: format!("{name} was mended a moment ago"),
        })
    }

    /// Whether the trouble of a service that is needed excuses others.
    fn excuses(&self, incident: &Incident, lasting: bool, follows: Follows, now: Micros) -> bool {
        let whole = matches!(incident.symptom, Symptom::Requested | Symptom::Foreseen);
        let answers = self
            .services
            .get(&incident.service)
            .is_some_and(|one| one.answering(now));
        // A plan by hand that only looks or waits excuses nobody, nor does what has yet to
        // come.
        if whole && answers {
            return false;
        }
        let recovers = incident.execution.is_some() || incident.cut_short.is_some();
        // Nor does one that is left to somebody else. A route has others to send to.
        let left = !self.rivals.contested(&incident.service, now).is_empty();
        recovers || (lasting && !left && follows != Follows::ByRecovery)
    }

    /// A recovery takes processors and disks too, and who shares them is slower meanwhile.
    fn crowded_out(
        &self,
        id: &ServiceId,
        finding: &Finding,
        follows: Follows,
        now: Micros,
    ) -> Option<Root> {
        let felt = matches!(
            finding.symptom,
            Symptom::Slow | Symptom::Saturated | Symptom::Hogging
        );
        let pressed = [self.host.cpu_pressure, self.host.io_pressure]
            .into_iter()
            .filter_map(|share| share.fresh())
            .any(|share: Ratio| share.get() >= PRESSED);
        if !felt || !pressed {
            return None;
        }
        let runs = self
            .incidents
            .values()
            .filter(|one| one.execution.is_some());
        let runs = runs.map(|one| (&one.service, one.since, one.id, one.mark));
        let settle = self.settling.iter();
        let settle = settle.filter(|(_, one)| now < follows.settled(one));
        let settle = settle.map(|(service, one)| (service, one.began, one.incident, one.mark));
        runs.chain(settle)
            .find(|(service, began, ..)| *service != id && finding.since >= *began)
            .map(|(service, _, incident, mark)| Root {
                incident: Some((incident, mark)),
                certain: false,
                because: format!("the node is busy while {service} is being mended"),
            })
    }

    fn tell_held(
        &mut self,
        id: &ServiceId,
        finding: &Finding,
        root: Root,
        now: Micros,
        effects: &mut Vec<Effect>,
    ) {
        let fresh = Held {
            since: now,
            told: None,
        };
        let held = self.telling.held_back.entry(id.clone()).or_insert(fresh);
        let incident = root.incident.map(|(id, _)| id);
        if held.told == Some(incident) {
            return;
        }
        held.told = Some(incident);
        match root.incident {
            Some((incident, mark)) => {
                let body = Body::Joined(Joined {
                    incident,
                    service: id.clone(),
                    symptom: finding.symptom,
                    because: root.because,
                });
                self.emit(Class::Heal, &[mark], body, effects);
            }
            None => {
                let text = format!(
                    "{id} is {} while {}: waiting",
                    finding.symptom, root.because
                );
                self.note(Some(id), text, effects);
            }
        }
    }

    /// Whether the silence of a service may still turn out to be that of one of its
    /// needs: which of the two is found silent first is chance. So each is asked after
    /// the verdict, and waited for until it has answered or is found silent itself. One
    /// that for ever does a little of both excuses nobody for ever.
    fn waits_for(
        &mut self,
        id: &ServiceId,
        needs: &[ServiceId],
        silent: Micros,
        now: Micros,
    ) -> bool {
        let Some(watched) = self.services.get(id) else {
            return false;
        };
        let Some((since, span)) = watched.judged() else {
            return false;
        };
        if instant(now).saturating_sub(instant(silent)) >= watched.patience() {
            return false;
        }
        let mut waits = false;
        for need in needs {
            if let Some(need) = self.services.get_mut(need)
                && !need.excuses_nobody(since, span, now)
            {
                need.ask_since(since, now);
                waits = true;
            }
        }
        waits
    }

    /// The services of this node that one needs, directly or not, the nearest first.
    pub(super) fn needs_of(&self, id: &ServiceId) -> Vec<Need> {
        let mut found: Vec<Need> = vec![Need {
            service: id.clone(),
            route: None,
        }];
        let mut next = 0;
        while let Some(at) = found.get(next).cloned() {
            next += 1;
            let Some(watched) = self.services.get(&at.service) else {
                continue;
            };
            let direct = watched.policy.depends_on.iter();
            let direct = direct.map(|service| (service.clone(), at.route.clone()));
            let called = watched.policy.calls.iter();
            let called = called
                .filter_map(|id| self.routes.get(id))
                .flat_map(|route| {
                    let name = at.route.clone().or_else(|| Some(route.id.clone()));
                    let services = route.backends.values();
                    let services = services.filter_map(|backend| backend.service.clone());
                    services.map(move |service| (service, name.clone()))
                });
            for (service, route) in direct.chain(called) {
                if found.iter().all(|known| known.service != service) {
                    found.push(Need { service, route });
                }
            }
        }
        found.remove(0);
        found
    }

    /// The services of this node that need one, directly or not.
    pub(super) fn dependents_of(&self, id: &ServiceId) -> Vec<ServiceId> {
        let services = self.services.keys();
        services
            .filter(|one| self.depends(one, id))
            .cloned()
            .collect()
    }

    /// Whether one service needs another, directly or not.
    pub(super) fn depends(&self, id: &ServiceId, on: &ServiceId) -> bool {
        id != on && self.needs_of(id).iter().any(|need| need.service == *on)
    }

    /// An incident is over; what it did to others settles.
    pub(super) fn settle(&mut self, incident: &Incident, now: Micros) {
        let settling = Settling {
            incident: incident.id,
            mark: incident.mark,
            began: incident.since,
            closed: now,
        };
        self.settling.insert(incident.service.clone(), settling);
    }
}
