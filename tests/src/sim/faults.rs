//! The faults of a scenario, done to the simulated node.
//!
//! In goes a [`Fault`] when its time has come; it changes the world, the host, the
//! disk or the connection to the spawner, and stands in the trace. What the loop
//! makes of it is none of its business.

use homeostat_agent::control::Event;
use homeostat_agent::service::SlotName;
use homeostat_common::anomaly::Exit;
use homeostat_common::ids::{BootId, ServiceId};
use homeostat_common::observation::Part;
use homeostat_common::units::{Micros, Millis};

use super::world::Life;
use super::{Fault, Happening, Sim};

impl Sim {
    pub(super) fn suffer(&mut self, fault: &Fault) {
        let id = |name: &str| ServiceId::new(name).expect("a scenario names a service");
        let now = self.now;
        match fault.clone() {
            Fault::Crash(name) | Fault::OutOfMemory(name) => {
                let Some(instance) = self.world.life(&id(name)).map(|life| life.instance) else {
                    return;
                };
                let exit = match fault {
                    Fault::OutOfMemory(_) => Exit::OutOfMemory,
                    _ => Exit::Signal(9),
                };
                self.bury(&id(name), instance, exit);
            }
            Fault::Term(name) => {
                let Some(instance) = self.world.life(&id(name)).map(|life| life.instance) else {
                    return;
                };
                self.bury(&id(name), instance, Exit::Signal(15));
            }
            Fault::Rival(name, there) => {
                if let Some(place) = self.world.places.get_mut(&id(name)) {
                    place.rival = there;
                }
            }
            Fault::Weight(name, weight) => {
                self.forwarder.meddle(&id(name), weight);
                self.report_routes();
            }
            Fault::Block(name) => self.break_life(&id(name), |life| {
                life.blocked = Some(Micros(u64::MAX));
            }),
            Fault::Stall(name, span) => {
                self.break_life(&id(name), |life| life.blocked = Some(now + span));
            }
            Fault::Starve(name, span) => {
                let place = self.world.places.get_mut(&id(name));
                if let Some(life) = place.and_then(|place| place.life.as_mut()) {
                    life.blocked = Some(now + span);
                    life.starved = Some(now + span);
                }
            }
            Fault::Leak(name, rate) => {
                self.break_life(&id(name), |life| life.leak = Some((rate, now)));
            }
            Fault::Open(name, rate) => {
                self.break_life(&id(name), |life| life.opens = Some((rate, now)));
            }
            Fault::Stop(name) => self.break_life(&id(name), |life| life.stopped = true),
            Fault::LeakyProgram(name, rate) => {
                if let Some(place) = self.world.places.get_mut(&id(name)) {
                    place.leaks = Some(rate);
                }
                self.break_life(&id(name), |life| life.leak = Some((rate, now)));
            }
            Fault::WarmUp(name, by, over) => {
                let place = self.world.places.get_mut(&id(name));
                if let Some(life) = place.and_then(|place| place.life.as_mut()) {
                    life.warms = Some((by, over.as_secs_f64(), now));
                }
            }
            Fault::Grow(name, rate) => {
                if let Some(place) = self.world.places.get_mut(&id(name)) {
                    place.grows = Some((rate, now));
                }
            }
            Fault::Warm(degrees, rate) => self.host.heat = Some((degrees, rate, now)),
            Fault::CertificatesEnd(at) => self.host.certificates = Some(at),
            Fault::Corrupt(name) => self.world.corrupt(&id(name)),
            Fault::BadModel(name) => self.world.replace(&id(name), SlotName::Model),
            Fault::BadConfig(name) => self.world.replace(&id(name), SlotName::Config),
            Fault::Stage(name) => self.world.stage(&id(name)),
            Fault::Slow(name, takes) => self.break_life(&id(name), |life| {
                life.slow = u32::try_from(takes.0 * 1000).ok();
            }),
            Fault::Drag(name, takes) => self.break_life(&id(name), |life| {
                life.drag = u32::try_from(takes.0 * 1000).unwrap_or(u32::MAX);
            }),
            Fault::Outage(name, refuses) => {
                let name = Part::new(name).expect("a part");
                if refuses {
                    self.world.refusing.insert(name);
                } else {
                    self.world.refusing.remove(&name);
                }
            }
            Fault::Hog(name, cores) => self.break_life(&id(name), |life| life.hog = Some(cores)),
            Fault::Sensor(name, lie) => {
                match lie {
                    Some(lie) => self.host.lies.insert(id(name), lie),
                    None => self.host.lies.remove(&id(name)),
                };
            }
            Fault::Battery(charge) => self.host.battery = charge,
            Fault::Gauge(name, value, moves) => {
                let place = self.world.places.get_mut(&id(name));
                if let Some(life) = place.and_then(|place| place.life.as_mut()) {
                    life.gauge = (value, moves);
                }
            }
            Fault::Stranger(cores) => self.host.stranger = cores,
            Fault::Fill(name, bytes) => {
                if let Some(place) = self.world.places.get_mut(&id(name)) {
                    place.data.1 += bytes;
                }
            }
            Fault::RoutesFrozen(frozen) => self.forwarder.frozen = frozen,
            Fault::Ask(plan) => {
                let plan = plan.parse().expect("a scenario's plan is a plan");
                self.asked += 1;
                let ticket = self.asked;
                self.tell(Event::Asked { ticket, plan });
            }
            Fault::Order(command) => {
                self.asked += 1;
                let (ticket, by) = (self.asked, "anna".to_owned());
                self.tell(Event::Ordered {
                    ticket,
                    by,
                    command,
                });
            }
            Fault::StopFile(why) => {
                self.host.stop = why;
                self.tell(Event::StopFile(why.map(str::to_owned)));
            }
            Fault::Wall(unix_ms) => self.host.wall = Some(unix_ms),
            Fault::SagaAnswer(node, answer) => {
                self.tell(Event::SagaAnswer(node, Box::new(answer)));
            }
            Fault::AskPart(name) => self.tell(Event::AskedPart(0, name.to_owned())),
            Fault::AskAcross(plan) => {
                self.asked += 1;
                let ticket = self.asked;
                // A mistake in the test.
                let plan = plan.parse().expect("a plan across nodes");
                self.tell(Event::AskedAcross { ticket, plan });
            }
            Fault::Heard(topic, heard) => self.tell(Event::Heard(topic, heard)),
            Fault::SagaOrder(order) => self.tell(Event::SagaOrder(Box::new(order))),
            Fault::ShowWeights => {
                let weights = self.weights();
                self.trace.say(self.now, "weights", weights);
            }
            Fault::SpawnerLost(back) => {
                if !self.spawner {
                    return;
                }
                self.spawner = false;
                self.connection += 1;
                self.holds = self.agent.is_some().then_some(self.run);
                self.audit.confused = Some(now);
                self.tell(Event::SpawnerLost);
                self.push(back, Happening::SpawnerBack);
            }
            Fault::AgentHeld(span) => self.held = now + span,
            Fault::Pressure(share) => {
                self.host.pressure = share;
                self.host.pressed = Some(if share > 0.3 { Micros(u64::MAX) } else { now });
            }
            Fault::Frozen(frozen) => self.host.frozen = frozen,
            Fault::DiskFull(true) => {
                self.disk.full = true;
                self.tell(Event::StoreTrouble(Some("no space left".into())));
            }
            Fault::DiskFull(false) => {
                self.disk.recover();
                self.tell(Event::StoreTrouble(None));
            }
            Fault::SlowSync(span) => self.host.slow_sync = span,
            Fault::NoModelCheck(no) => self.host.no_check = no,
            Fault::NoRollback(no) => self.host.no_rollback = no,
            Fault::Link(up) => {
                self.host.link = up;
                self.tell(Event::Link(up));
            }
            Fault::AgentKilled(back) => {
                if self.agent.is_some() {
                    self.kill_agent(back);
                }
                return;
            }
            Fault::AgentKilledAtWrite(nth, back) => {
                self.kill_at_write = Some((nth, back));
                self.writes = 0;
                return;
            }
            Fault::Clock(wrong) => self.set_clock(wrong),
            Fault::Reboot(back) => self.reboot(back),
            _ => self.suffer_at_start(fault),
        }
        self.trace.say(now, "fault", format!("{fault:?}"));
    }

    fn suffer_at_start(&mut self, fault: &Fault) {
        let (Fault::Stubborn(name, _)
        | Fault::BadCommand(name, _)
        | Fault::ShortLives(name, _)
        | Fault::SlowStart(name, _)) = fault
        else {
            return;
        };
        let id = ServiceId::new(name).expect("a scenario names a service");
        let Some(place) = self.world.places.get_mut(&id) else {
            return;
        };
        match fault {
            Fault::Stubborn(_, yes) => place.stubborn = *yes,
            Fault::BadCommand(_, yes) => place.bad_command = *yes,
            Fault::ShortLives(_, lives) => place.short_lives = *lives,
            Fault::SlowStart(_, takes) => place.slow_start = takes.map(|span| span.0),
            _ => {}
        }
    }

    fn break_life(&mut self, id: &ServiceId, how: impl FnOnce(&mut Life)) {
        if let Some(life) = self
            .world
            .places
            .get_mut(id)
            .and_then(|place| place.life.as_mut())
        {
            how(life);
            life.faulty = true;
        }
    }

    pub(super) fn kill_agent(&mut self, back: Millis) {
        self.agent = None;
        self.run += 1;
        self.connection += 1;
        if self.store.is_none() && self.rng.bool() {
            self.disk.crash(&mut self.rng);
        } else {
            self.disk.crash_gently();
        }
        self.audit.crashed(self.now, &self.disk);
        self.trace.say(self.now, "agent", "killed".into());
        self.push(back, Happening::AgentStarts);
    }

    fn reboot(&mut self, back: Millis) {
        self.agent = None;
        self.run += 1;
        self.connection += 1;
        if self.store.is_some() {
            self.disk.crash_gently();
        } else {
            self.disk.crash(&mut self.rng);
        }
        self.audit.crashed(self.now, &self.disk);
        self.world.blackout();
        self.spawner = true;
        // Nothing that was on its way survives; faults to come and the world's
        // own plans do.
        self.queue
            .retain(|entry| matches!(entry.0.what, Happening::Fault(_)));
        self.booted = self.now + back;
        self.boot = BootId([self.boot.0[0].wrapping_add(1); 16]);
        self.push(back, Happening::AgentStarts);
    }
}
