//! A fleet in the terminal while an incident happens to it: users, routes, nodes, what the
//! healer sees, what it does and why.
//!
//! In goes an episode, tick by tick, and keys; out come frames. What is hidden from the
//! healer (phases of processes, the twin's health, roots) is shown to the person and marked.
//! Trouble is told by words and signs and not by colour alone. It decides nothing, and the
//! episode is the same whether anybody looks or not.

mod draw;

use std::io;
use std::time::{Duration, Instant};

use homeostat_common::observation::{Level as LogLevel, Metric, Reading};
use homeostat_sim::episode::{Episode, Look};
use homeostat_sim::fault::Incident;
use homeostat_sim::policy::{Healer, Written};
use homeostat_sim::world::Phase;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

/// Simulated seconds per second, at most: faster, nobody could follow.
pub(in crate::cli) const SPEED_MAX: i64 = 2000;
/// Between two frames.
const FRAME: Duration = Duration::from_millis(50);
/// Readings of health that are kept: one for each column of a wide terminal.
const HISTORY: usize = 400;
/// Log lines of one look that are shown at most.
const LINES: usize = 40;

/// What a person wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Pause,
    Step,
    Faster,
    Slower,
    End,
    Quit,
}

impl Wish {
    fn of(key: KeyEvent) -> Option<Self> {
        if key.kind == KeyEventKind::Release {
            return None;
        }
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        Some(match key.code {
            KeyCode::Char('c') if control => Self::Quit,
            KeyCode::Char('q') | KeyCode::Esc => Self::Quit,
            KeyCode::Char(' ') => Self::Pause,
            KeyCode::Char('n') | KeyCode::Right => Self::Step,
            KeyCode::Char('+' | '=') | KeyCode::Up => Self::Faster,
            KeyCode::Char('-') | KeyCode::Down => Self::Slower,
            KeyCode::Char('e') => Self::End,
            _ => return None,
        })
    }
}

/// Shows an episode until it is over and the person has seen it, or has seen enough.
pub(super) fn watch(
    episode: &mut Episode,
    healer: &mut Healer,
    incident: &Incident,
    seed: u64,
    speed: u32,
) -> io::Result<()> {
    let mut terminal = ratatui::try_init()?;
    let shown = show(&mut terminal, episode, healer, incident, seed, speed);
    // The terminal comes first: an error is told on it.
    ratatui::try_restore()?;
    shown
}

fn show(
    terminal: &mut ratatui::DefaultTerminal,
    episode: &mut Episode,
    healer: &mut Healer,
    incident: &Incident,
    seed: u64,
    speed: u32,
) -> io::Result<()> {
    episode.watch();
    let mut screen = Screen::new(episode, healer, incident, seed, speed);
    let mut due = 0.0;
    let mut last = Instant::now();
    loop {
        screen.note(episode);
        terminal.draw(|frame| draw::draw(frame, &screen))?;
        let rest = FRAME.saturating_sub(last.elapsed());
        while event::poll(rest.saturating_sub(last.elapsed()))? {
            let Event::Key(key) = event::read()? else {
                // Another size: drawn anew at once.
                break;
            };
            match Wish::of(key) {
                Some(Wish::Quit) => return Ok(()),
                Some(wish) => due += screen.wish(wish, episode),
                None => {}
            }
        }
        let passed = last.elapsed().as_secs_f64();
        last = Instant::now();
        if !screen.paused {
            due += passed.min(1.0) * f64::from(screen.speed);
        }
        let dt = episode.world().settings().dt;
        while due >= dt && screen.over.is_none() {
            due -= dt;
            screen.tick(episode, healer);
        }
        if screen.over.is_some() {
            due = 0.0;
        }
    }
}

/// A route as the healer sees it.
#[derive(Debug, Clone, PartialEq)]
struct RouteLine {
    name: String,
    arrival: f64,
    err: f64,
    p95_ms: f64,
    queue: f64,
}

/// A node: what it tells, and what is hidden.
#[derive(Debug, Clone, PartialEq)]
struct NodeLine {
    name: String,
    /// It tells nothing.
    silent: bool,
    busy: Option<f64>,
    heat: Option<f64>,
    services: Vec<(String, Phase)>,
}

impl NodeLine {
    fn ill(&self) -> bool {
        let sick = |phase: &Phase| !matches!(phase, Phase::Running | Phase::Standby);
        self.silent || self.services.iter().any(|(_, phase)| sick(phase))
    }
}

/// All that is shown.
#[derive(Debug, Clone)]
struct Screen {
    title: String,
    about: String,
    speed: u32,
    paused: bool,
    /// How it ended.
    over: Option<String>,
    now: f64,
    onset: f64,
    end: f64,
    served: bool,
    err: f64,
    p95_ms: f64,
    quality: f64,
    shed: f64,
    health: f64,
    alone: f64,
    history: Vec<f64>,
    roots: usize,
    spent: f64,
    budget: Option<f64>,
    orders: u32,
    routes: Vec<RouteLine>,
    nodes: Vec<NodeLine>,
    /// When the healer last looked.
    looked: Option<f64>,
    alarms: Vec<String>,
    /// How bad, how many, whose, and the words.
    lines: Vec<(LogLevel, u32, String, String)>,
    doing: Option<String>,
    why: String,
    trace: Vec<(f64, String)>,
}

impl Screen {
    fn new(episode: &Episode, healer: &Healer, incident: &Incident, seed: u64, speed: u32) -> Self {
        let topology = episode.world().topology();
        let about: Vec<&str> = incident.about.split_whitespace().collect();
        let mut screen = Self {
            title: format!(
                "{} on {}, seed {seed}, healed by {}",
                incident.name,
                topology.name(),
                healer.name()
            ),
            about: about.join(" "),
            speed,
            paused: false,
            over: None,
            now: 0.0,
            onset: episode.onset(),
            end: episode.end(),
            served: true,
            err: 0.0,
            p95_ms: 0.0,
            quality: 0.0,
            shed: 0.0,
            health: 0.0,
            alone: 0.0,
            history: Vec::new(),
            roots: 0,
            spent: 0.0,
            budget: episode.rules().budget,
            orders: 0,
            routes: Vec::new(),
            nodes: Vec::new(),
            looked: None,
            alarms: Vec::new(),
            lines: Vec::new(),
            doing: None,
            why: String::new(),
            trace: Vec::new(),
        };
        screen.note(episode);
        screen
    }

    /// Does what a person wants; how many simulated seconds are due at once for it.
    fn wish(&mut self, wish: Wish, episode: &Episode) -> f64 {
        match wish {
            Wish::Pause => self.paused = !self.paused,
            Wish::Step => {
                self.paused = true;
                return episode.rules().look_s;
            }
            Wish::Faster => {
                let most = u32::try_from(SPEED_MAX).unwrap_or(u32::MAX);
                self.speed = self.speed.saturating_mul(2).min(most);
            }
            Wish::Slower => self.speed = (self.speed / 2).max(1),
            Wish::End => return episode.end(),
            Wish::Quit => {}
        }
        0.0
    }

    /// One step of time.
    fn tick(&mut self, episode: &mut Episode, healer: &mut Healer) {
        if !episode.tick(healer) {
            self.over = Some(ending(episode, healer));
            return;
        }
        if self.history.len() == HISTORY {
            self.history.remove(0);
        }
        self.history.push(episode.levels().0.health());
        if let Some(look) = episode.take_look() {
            self.look(&look);
        }
    }

    /// Takes note of the present.
    fn note(&mut self, episode: &Episode) {
        let world = episode.world();
        let (ours, theirs) = episode.levels();
        self.now = world.now();
        self.served = ours.meets(&episode.rules().target);
        (self.err, self.p95_ms) = (ours.err, ours.p95_ms);
        (self.quality, self.shed) = (ours.quality, ours.shed);
        (self.health, self.alone) = (ours.health(), theirs.health());
        self.roots = world.roots_left();
        self.spent = episode.spent();
        self.orders = episode.orders();
        self.doing = episode.under_way().map(|order| Written(order).to_string());
        let entries = episode.trace().entries();
        self.trace = entries
            .iter()
            .rev()
            .take(HISTORY)
            .map(|entry| (entry.at, entry.what.clone()))
            .collect();
        let topology = world.topology();
        let phases: Vec<Phase> = world.phases().collect();
        self.nodes.resize_with(topology.nodes().len(), || NodeLine {
            name: String::new(),
            silent: false,
            busy: None,
            heat: None,
            services: Vec::new(),
        });
        for (line, node) in self.nodes.iter_mut().zip(topology.nodes()) {
            line.name = node.name.to_string();
            line.services = node
                .replicas
                .iter()
                .map(|no| {
                    (
                        topology.replicas()[no.at()].name.to_string(),
                        phases[no.at()],
                    )
                })
                .collect();
        }
    }

    /// Takes note of what the healer saw, and why it did what it did.
    fn look(&mut self, look: &Look) {
        self.looked = Some(look.seen.at);
        if !look.orders.is_empty() {
            self.why.clone_from(&look.why);
        }
        self.routes = look
            .seen
            .routes
            .iter()
            .map(|route| RouteLine {
                name: route.route.to_string(),
                arrival: route.arrival,
                err: route.err,
                p95_ms: route.p95_ms,
                queue: route.queue,
            })
            .collect();
        self.alarms.clear();
        self.lines.clear();
        let known = self.nodes.iter_mut().zip(&look.seen.nodes);
        for (line, seen) in known {
            line.silent = seen.is_none();
            (line.busy, line.heat) = (None, None);
            let Some(seen) = seen else {
                continue;
            };
            for reading in seen.metrics.iter().filter(|own| own.service.is_none()) {
                match reading.metric {
                    Metric::CpuBusy => line.busy = last(reading.reading),
                    Metric::Temperature => line.heat = last(reading.reading),
                    _ => {}
                }
            }
            for alarm in &seen.alarms {
                self.alarms.push(match alarm.service {
                    Some(_) => alarm.alarm.clone(),
                    None => format!("{}-{}", line.name, alarm.alarm),
                });
            }
            for log in seen
                .logs
                .iter()
                .filter(|log| log.level >= LogLevel::Warning)
            {
                self.lines.push((
                    log.level,
                    log.count,
                    log.service
                        .as_ref()
                        .map_or(line.name.clone(), ToString::to_string),
                    log.text.clone(),
                ));
            }
        }
        self.lines
            .sort_by(|a, b| (b.0, b.1, &a.2).cmp(&(a.0, a.1, &b.2)));
        self.lines.truncate(LINES);
    }
}

/// The newest value that came, however old.
fn last(reading: Reading<f64>) -> Option<f64> {
    match reading {
        Reading::Fresh(value) | Reading::Stale { last: value, .. } => Some(value),
        Reading::Missing => None,
    }
}

/// How it ended, in a line.
fn ending(episode: &Episode, healer: &Healer) -> String {
    let outcome = episode.outcome(healer.name());
    let how = match (outcome.breached, outcome.recovered, outcome.roots_left) {
        (false, _, _) if outcome.was_incident => "prevented: users never noticed".to_owned(),
        (false, ..) => "users noticed nothing, nor would they have".to_owned(),
        (true, true, 0) => format!("recovered after {:.0} s, no root is left", outcome.seconds),
        (true, true, left) => format!(
            "mitigated after {:.0} s, {left} roots are left",
            outcome.seconds
        ),
        (true, false, left) => format!("not recovered, {left} roots are left"),
    };
    format!(
        "{how}; requests lost {:.0}, without a healer {:.0}",
        outcome.lost, outcome.lost_twin
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
