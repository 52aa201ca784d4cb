//! What the agent's shell, the spawner and the kernel do, simulated: carries the
//! loop's effects out, late and sometimes never, and tells it what came of them.

use homeostat_agent::config::ProbeKind;
use homeostat_agent::control::{
    Effect, Event, HealRecord, HostSample, Loop, ProbeOutcome, SlotReport, Stranger, Told,
};
use homeostat_agent::execute::Act;
use homeostat_agent::io::keeper::Order;
use homeostat_agent::service::{ProcessSample, SlotName, Version};
use homeostat_common::anomaly::{Exit, Symptom};
use homeostat_common::ids::{Instance, ServiceId, Token};
use homeostat_common::observation::Reading;
use homeostat_common::units::{Bytes, Micros, Millis, Ratio};
use homeostat_common::wire::notice::{News, Notice};

use super::disk::Entry;
use super::store;
use super::world::{DESCRIPTORS_MAX, Life, Reaction};
use super::{Happening, Sim};

/// From the kernel's signal to the end of a process, in microseconds.
const DEATH_US: std::ops::Range<u64> = 500..3000;

/// Cores that a process uses.
fn cores(life: &Life) -> f32 {
    life.hog.unwrap_or(0.05)
}

/// What the spawner is asked to do.
#[derive(Debug, Clone)]
pub(super) enum Request {
    Start(ServiceId),
    Stop(ServiceId, Instance),
    Kill(ServiceId, Instance),
}

/// A probe on its way.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) service: ServiceId,
    pub(super) probe: usize,
    pub(super) number: u64,
    /// The life that was asked.
    pub(super) life: Option<Instance>,
    pub(super) outcome: ProbeOutcome,
    pub(super) late: bool,
}

/// Work on a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileWork {
    Check,
    Switch(Token, Version),
    Restore(Token),
    Settle,
    Keep(Version),
}

impl Sim {
    fn own_now(&self) -> Micros {
        Micros(self.now.0 - self.booted.0)
    }

    /// Moves the loop, and carries out what it wants.
    pub(super) fn tell(&mut self, event: Event) {
        if self.now < self.held {
            self.push_at(self.held, Happening::Tell(self.run, event));
            return;
        }
        let Some(mut agent) = self.agent.take() else {
            return;
        };
        let own_now = self.own_now();
        let effects = agent.step(own_now, event);
        self.audit.stepped(self.now, own_now, &agent);
        self.agent = Some(agent);
        for effect in effects {
            self.carry_out(effect);
            if self.agent.is_none() {
                // Killed on the way: the rest was never done.
                return;
            }
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        let run = self.run;
        match effect {
            Effect::Start(service) => self.request(Request::Start(service)),
            Effect::Stop(service, instance) => self.request(Request::Stop(service, instance)),
            Effect::Kill(service, instance) => self.request(Request::Kill(service, instance)),
            Effect::Retire(service, instance, _) => {
                // It is wanted no more, so ending it harms nobody.
                if self.spawner {
                    let stop = Request::Stop(service, instance);
                    self.push_us(300, Happening::Request(self.connection, stop));
                }
            }
            Effect::Probe(service, probe) => self.ask(service, probe),
            Effect::ForgetProbes(service) => self.queue.retain(|entry| {
                !matches!(&entry.0.what, Happening::ProbeEnds(_, asked) if asked.service == service)
            }),
            // The shell looks at once, before it does anything else.
            Effect::Sample => self.push_us(0, Happening::Sample(run)),
            Effect::CheckSlot(service, name) => self.file(service, name, FileWork::Check),
            Effect::KeepSlot(service, name, version) => {
                self.file(service, name, FileWork::Keep(version));
            }
            Effect::Act(token, act) => self.act(run, token, act),
            Effect::SettleSlot(service, name) => self.file(service, name, FileWork::Settle),
            Effect::Journal(record) => self.journal(record),
            Effect::Sync(ticket) => {
                self.keep(Order::Sync(ticket));
                if !self.disk.full {
                    let after = self.host.slow_sync.0 * 1000;
                    let after = self.rng.u64(after / 4..=after);
                    let end = self.disk.end();
                    self.push_us(after, Happening::SyncEnds(run, ticket, end));
                }
            }
            Effect::Quiet => {
                self.keep(Order::Quiet);
                self.disk.append(Entry::Quiet);
            }
            Effect::Remember => {
                let own_now = self.own_now();
                if let Some(agent) = &self.agent {
                    let state = (agent.saved(own_now), agent.experience().clone());
                    self.keep(Order::Remember(Box::new(state.0.clone())));
                    self.keep(Order::Learn(state.1.clone()));
                    self.disk.append(Entry::State(Box::new(state)));
                }
            }
            Effect::Emit {
                mark,
                class,
                causes,
                body,
            } => {
                self.keep(store::event(mark, class, causes, body.clone()));
                self.audit.emitted(self.now, &body);
                self.trace.event(self.now, &body);
                self.disk.append(Entry::Event(Box::new(body)));
            }
            Effect::Measure(service) => {
                let used = Reading::from(self.world.data(&service, self.now).map(Bytes));
                let measured = Event::Measured {
                    service,
                    used,
                    room: Reading::Missing,
                };
                self.push_us(2000, Happening::Tell(run, measured));
            }
            Effect::ReadCertificate(id, _) => {
                let until = self.host.certificates;
                let until = until.ok_or_else(|| "no such file".to_owned());
                self.push_us(1000, Happening::Tell(run, Event::Certified { id, until }));
            }
            Effect::SetWeight(route, backend, weight) => self.set_weight(route, backend, weight),
            Effect::Drain(route, backend, within) => self.drain(route, backend, within),
            Effect::Order(node, order) => {
                let want = format!("{node}: {}: {:?}", order.saga, order.want);
                self.trace.say(self.now, "order", want);
            }
            Effect::Say(answer) => {
                let stand = format!("{}: {:?}", answer.saga, answer.stand);
                self.trace.say(self.now, "say", stand);
            }
            // No scenario wishes for one: it has its own ways to break things.
            Effect::Break(..) => self.tell(Event::NotBroken("not here".into())),
            Effect::Answer(_, answer) => {
                let words = answer.unwrap_or_else(|why| format!("refused: {why}"));
                self.trace.say(self.now, "answer", words);
            }
            Effect::Notify(notice) => self.notified(&notice),
            Effect::ShowHealth(_) | Effect::ShowAct(..) | Effect::ShowAlarm(..) => {}
        }
    }

    fn act(&mut self, run: u32, token: Token, act: Act) {
        match act {
            Act::SwitchSlot(service, name, to) => {
                return self.file(service, name, FileWork::Switch(token, to));
            }
            Act::RestoreSlot(service, name) => {
                return self.file(service, name, FileWork::Restore(token));
            }
            Act::Prune(service, _) => {
                self.world.prune(&service, self.now);
            }
            // Who is left less heats less.
            Act::LimitCpu(_, _, Some(_)) => {
                let heat = self.host.heat(self.now);
                self.host.heat = heat.map(|heat| (heat.degrees, -2.0, self.now));
            }
            // Of these the world shows nothing but that they were done.
            Act::ClearLocks(_)
            | Act::Snapshot(_)
            | Act::RestoreSnapshot(_)
            | Act::TakeBackSnapshot(_)
            | Act::Freeze(..)
            | Act::LimitCpu(..)
            | Act::LimitRate(..)
            | Act::Block(..)
            | Act::Hook(..)
            | Act::SyncClock
            | Act::Uplink(_)
            | Act::Ports(..)
            | Act::Remount(_)
            | Act::Webhook(..) => {}
        }
        let result = Ok(());
        let done = Event::Acted { token, result };
        self.push_us(5000, Happening::Tell(run, done));
    }

    fn journal(&mut self, record: HealRecord) {
        self.audit.journalled(self.now, &record);
        self.keep(Order::Journal(record.clone()));
        self.disk.append(Entry::Heal(record));
        self.writes += 1;
        if let Some((at, back)) = self.kill_at_write
            && self.writes >= at
        {
            self.kill_at_write = None;
            self.kill_agent(back);
        }
    }

    fn request(&mut self, request: Request) {
        if let (Request::Stop(service, _) | Request::Kill(service, _), Some(agent)) =
            (&request, &self.agent)
        {
            // Pressure excuses a mistake; so does what was injected.
            let pressed = self
                .host
                .pressed
                .is_some_and(|at| self.now.since(at) < Millis::secs(5));
            // Nobody misses a replica that gets no traffic.
            let spared = self.spared(service);
            let asked = agent
                .incidents()
                .any(|one| one.service == *service && one.symptom == Symptom::Requested);
            let life = self.world.life(service);
            let faulty = life.is_none_or(|life| life.faulty) || pressed || spared || asked;
            self.audit.ends(self.now, service, faulty, agent);
        }
        if self.spawner {
            let after = self.rng.u64(100..800);
            self.push_us(after, Happening::Request(self.connection, request));
        }
    }

    fn ask(&mut self, service: ServiceId, probe: usize) {
        self.probe_number += 1;
        let number = self.probe_number;
        let sent = Event::ProbeSent {
            service: service.clone(),
            probe,
            number,
        };
        self.push_us(0, Happening::Tell(self.run, sent));
        let timeout = self
            .config
            .service(&service)
            .and_then(|found| found.probes.get(probe))
            .map_or(0, |probe| probe.timeout.0 * 1000);
        let takes = if self.host.pressure > 0.3 {
            self.probe_rng.u64(10_000..timeout * 6)
        } else {
            self.probe_rng.u64(500..5000)
        };
        let takes = takes + u64::from(self.world.dragged(&service));
        let reaction = self.world.reaction(&service, self.now);
        let (answer, outcome) = match reaction {
            Reaction::Refused => (300, Some(ProbeOutcome::Refused)),
            Reaction::Wrong => (takes, Some(ProbeOutcome::Wrong("7 is not 8".into()))),
            Reaction::Right => (takes, Some(right(takes))),
            Reaction::Silent(until) if until.0 < u64::MAX => {
                let answer = until.0 - self.now.0 + takes;
                (answer, Some(right(answer)))
            }
            Reaction::Silent(_) => (u64::MAX, None),
        };
        let mut asked = Asked {
            life: self.world.life(&service).map(|life| life.instance),
            service,
            probe,
            number,
            outcome: ProbeOutcome::TimedOut,
            late: false,
        };
        if answer > timeout {
            self.push_us(timeout, Happening::ProbeEnds(self.run, asked.clone()));
            asked.late = true;
        }
        if let Some(outcome) = outcome {
            asked.outcome = outcome;
            self.push_us(answer, Happening::ProbeEnds(self.run, asked));
        }
    }

    fn file(&mut self, service: ServiceId, slot: SlotName, work: FileWork) {
        let after = self.file_rng.u64(1000..20_000);
        let ends = Happening::FileEnds(self.run, service, slot, work);
        self.push_us(after, ends);
    }

    pub(super) fn happen(&mut self, what: Happening) {
        match what {
            Happening::Fault(fault) => self.suffer(&fault),
            Happening::Tell(run, event) if run == self.run => self.tell(event),
            Happening::Spawner(connection, event) if connection == self.connection => {
                self.tell(event);
            }
            Happening::Request(connection, request) => self.serve(connection, request),
            Happening::ProbeEnds(run, asked) if run == self.run => self.answer(asked),
            Happening::Ends(service, instance, exit) => self.bury(&service, instance, exit),
            Happening::Sample(run) if run == self.run => self.sample(),
            Happening::Routes(run) if run == self.run => {
                let period = self.config.sample.period;
                self.push(period, Happening::Routes(run));
                if !self.host.frozen {
                    self.report_routes();
                }
            }
            Happening::FileEnds(run, service, slot, work) => self.filed(run, service, slot, work),
            Happening::SyncEnds(run, ticket, end) if run == self.run => {
                if !self.disk.full {
                    self.disk.synced(end);
                    self.tell(Event::Synced(ticket));
                }
            }
            Happening::AgentStarts => self.start_agent(),
            Happening::SpawnerBack => {
                self.spawner = true;
                self.connection += 1;
                self.report_slots();
            }
            // Meant for a run or a connection that is gone.
            Happening::Tell(..)
            | Happening::Spawner(..)
            | Happening::ProbeEnds(..)
            | Happening::Sample(..)
            | Happening::Routes(..)
            | Happening::SyncEnds(..) => {}
        }
    }

    fn serve(&mut self, connection: u32, request: Request) {
        // On a connection that is gone it may or may not have arrived.
        if connection != self.connection && self.rng.bool() {
            return;
        }
        match request {
            Request::Start(service) => {
                let Some(place) = self.world.places.get_mut(&service) else {
                    return;
                };
                let live = place.life.as_ref().map(|life| life.instance);
                if live.is_some() || place.bad_command {
                    let why = if live.is_some() {
                        "occupied"
                    } else {
                        "no such file"
                    };
                    let why = why.to_owned();
                    self.spawner_says(Event::StartRefused { service, live, why });
                    return;
                }
                let short = place.short_lives > 0 || place.config_is_bad() || place.rival;
                place.short_lives = place.short_lives.saturating_sub(1);
                let delay = self.rng.u64(20..120);
                if let Some(instance) = self.world.start(&service, self.now, delay) {
                    self.spawner_says(Event::Started {
                        service: service.clone(),
                        instance,
                    });
                    if short {
                        let after = self.rng.u64(2000..15_000);
                        let ends = Happening::Ends(service, instance, Exit::Code(1));
                        self.push_us(after, ends);
                    }
                }
            }
            Request::Stop(service, instance) => {
                let blocked = self.world.life(&service).and_then(|life| life.blocked);
                let deaf = blocked.is_some_and(|until| until > self.now)
                    || self
                        .world
                        .places
                        .get(&service)
                        .is_some_and(|place| place.stubborn);
                if !deaf {
                    let after = self.rng.u64(5000..100_000);
                    self.push_us(after, Happening::Ends(service, instance, Exit::Signal(15)));
                }
            }
            Request::Kill(service, instance) => {
                let after = self.rng.u64(DEATH_US);
                self.push_us(after, Happening::Ends(service, instance, Exit::Signal(9)));
            }
        }
    }

    fn spawner_says(&mut self, event: Event) {
        if self.spawner {
            let connection = self.connection;
            self.push_us(300, Happening::Spawner(connection, event));
        }
    }

    pub(super) fn bury(&mut self, service: &ServiceId, instance: Instance, exit: Exit) {
        if self.world.end(service, instance, exit) {
            let service = service.clone();
            let died = Event::Died {
                service: service.clone(),
                instance,
            };
            if self.spawner {
                self.spawner_says(died);
            } else if self.holds == Some(self.run) {
                // The kernel's word, by the pidfd.
                self.push_us(300, Happening::Tell(self.run, died));
            }
            self.spawner_says(Event::Exited {
                service,
                instance,
                exit,
            });
        }
    }

    fn answer(&mut self, asked: Asked) {
        let present = self.world.life(&asked.service).map(|life| life.instance);
        let blocked = matches!(
            self.world.reaction(&asked.service, self.now),
            Reaction::Silent(_)
        );
        let outcome = match asked.outcome {
            ProbeOutcome::TimedOut => ProbeOutcome::TimedOut,
            // It died or blocked before it could answer.
            _ if present != asked.life => ProbeOutcome::Refused,
            _ if blocked && asked.late => return,
            _ if blocked => ProbeOutcome::TimedOut,
            outcome => outcome,
        };
        let policy = self.config.service(&asked.service);
        let policy = policy.and_then(|service| service.probes.get(asked.probe));
        let answered = matches!(outcome, ProbeOutcome::Right { .. });
        if let Some(ProbeKind::Metrics { gauges, .. }) = policy.map(|probe| &probe.kind)
            && let Some(life) = self.world.life(&asked.service).filter(|_| answered)
        {
            let (value, moves) = life.gauge;
            let told = Told::Metrics {
                hash: if moves { asked.number } else { 0 },
                gauges: vec![Some(value); gauges.len()],
                page: None,
            };
            self.tell(Event::Told {
                service: asked.service.clone(),
                probe: asked.probe,
                told,
            });
        }
        self.tell(Event::Probed {
            service: asked.service,
            probe: asked.probe,
            number: asked.number,
            outcome,
            late: asked.late,
        });
    }

    fn sample(&mut self) {
        if self.host.frozen {
            return;
        }
        // Shares are between two samples.
        let first = std::mem::replace(&mut self.host.sampled, self.run) != self.run;
        let share = |share: f32| {
            let measured = Some(Ratio::saturating(share)).filter(|_| !first);
            Reading::from(measured)
        };
        self.host.samples += 1;
        // Four processors, of which each process uses what it does.
        let lives = self.world.places.values();
        let each = lives.filter_map(|place| Some(cores(place.life.as_ref()?)));
        let used = (each.sum::<f32>() + self.host.stranger) / 4.0;
        let host = HostSample {
            cpu_pressure: share(self.host.pressure.max(self.host.stranger / 4.0)),
            io_pressure: share(0.0),
            cpu_busy: share(self.host.pressure.max(used)),
            battery: Reading::from(self.host.supply()),
            stranger: (self.host.stranger > 0.0).then_some(Stranger {
                pid: 4711,
                name: *b"stress-ng\0\0\0\0\0\0\0",
                cores: self.host.stranger,
            }),
            wall: Reading::from(self.host.wall.map(|wall| wall + self.now.0 / 1000)),
            heat: Reading::from(self.host.heat(self.now)),
            cores: Reading::Fresh(4),
            ..HostSample::default()
        };
        self.kill_for_memory();
        let mut processes = Vec::new();
        for (id, place) in &self.world.places {
            if let Some(life) = &place.life {
                // A positive number of bytes far below 2^63.
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
                let resident = Bytes(self.world.resident(id, self.now) as u64);
                let mut sample = ProcessSample {
                    resident: Reading::Fresh(resident),
                    descriptors: Reading::Fresh(self.world.descriptors(id, self.now)),
                    descriptor_limit: Reading::Fresh(DESCRIPTORS_MAX),
                    state: Reading::Fresh(match self.world.life(id) {
                        Some(life) if life.stopped => 'T',
                        _ => 'S',
                    }),
                    // Whoever answers nothing sleeps, and waits for no core.
                    run_delay: match self.world.reaction(id, self.now) {
                        Reaction::Silent(_) => share(0.0),
                        _ => share(self.host.pressure / 2.0),
                    },
                    cpu: Reading::Fresh(cores(life)),
                    starved: Reading::Fresh(life.starved.is_some_and(|until| until > self.now)),
                    ..ProcessSample::default()
                };
                self.host.lie(id, &mut sample);
                processes.push((id.clone(), sample));
            }
        }
        self.tell(Event::Sample(Box::new(host), processes));
    }

    /// The kernel ends who takes more than it may.
    fn kill_for_memory(&mut self) {
        let limited = self.config.services.iter();
        let over = limited.filter_map(|service| {
            let most = service.memory_limit?.0 as f64;
            let taken = self.world.resident(&service.id, self.now);
            (taken >= most).then_some(service.id.clone())
        });
        for id in over.collect::<Vec<_>>() {
            if let Some(instance) = self.world.life(&id).map(|life| life.instance) {
                let text = format!("{id} is killed by the kernel for memory");
                self.trace.say(self.now, "kernel", text);
                self.bury(&id, instance, Exit::OutOfMemory);
            }
        }
    }

    fn filed(&mut self, run: u32, service: ServiceId, name: SlotName, work: FileWork) {
        let switches = matches!(work, FileWork::Switch(..));
        let result = if switches && self.host.no_rollback {
            Err("no space left".to_owned())
        } else {
            Ok(())
        };
        // What the agent asked for before it died may or may not be done.
        if run != self.run && self.rng.bool() {
            return;
        }
        let Some(slot) = self.world.slot(&service, name) else {
            return;
        };
        match work {
            FileWork::Check => {}
            FileWork::Switch(_, to) if result.is_ok() => slot.switch(to),
            FileWork::Switch(..) => {}
            FileWork::Restore(_) => slot.restore(),
            FileWork::Settle => slot.before = None,
            FileWork::Keep(version) => slot.keep(version),
        }
        let found = slot.found();
        if switches && result.is_ok() || matches!(work, FileWork::Restore(_)) {
            self.world.noticed(&service);
        }
        if run != self.run {
            return;
        }
        match work {
            FileWork::Check | FileWork::Keep(_) if self.host.no_check => {}
            FileWork::Check | FileWork::Keep(_) => self.tell(Event::SlotChecked {
                service,
                slot: name,
                found,
            }),
            FileWork::Switch(token, _) | FileWork::Restore(token) => {
                self.tell(Event::Acted { token, result });
            }
            FileWork::Settle => {}
        }
    }

    fn start_agent(&mut self) {
        if self.agent.is_some() {
            return;
        }
        self.run += 1;
        let resumed = self.resumed();
        let agent = Loop::new(&self.config, self.boot, resumed, self.own_now());
        self.agent = Some(Box::new(agent));
        if let Some(why) = self.host.stop {
            self.tell(Event::StopFile(Some(why.to_owned())));
        }
        let run = self.run;
        let link = Event::Link(self.host.link);
        self.push_us(150, Happening::Routes(run));
        self.push_us(200, Happening::Tell(run, link));
        if self.spawner {
            self.connection += 1;
            self.report_slots();
        }
    }

    fn report_slots(&mut self) {
        let slots = self
            .world
            .places
            .iter()
            .map(|(service, place)| SlotReport {
                service: service.clone(),
                live: place.life.as_ref().map(|life| life.instance),
                last: place.last,
            })
            .collect();
        self.spawner_says(Event::Slots(slots));
    }
}

impl Sim {
    /// A person who does not look is told.
    fn notified(&mut self, notice: &Notice) {
        let word = match notice.news {
            News::Raised => "raised",
            News::Repeated => "repeated",
            News::Acknowledged => "acknowledged",
            News::Cleared => "cleared",
        };
        let text = format!(
            "{} {} {word} ({})",
            notice.number, notice.alarm, notice.repeat
        );
        self.notices.push((self.now, text));
    }
}

fn right(takes: u64) -> ProbeOutcome {
    ProbeOutcome::Right {
        latency_us: u32::try_from(takes).unwrap_or(u32::MAX),
    }
}
