//! Whether what the node depends on elsewhere can be reached, and how fast.
//!
//! In go `[[dependency]]` blocks; out come, for each sample, the share of the last questions
//! that were answered rightly, the time to a connection, and for a third party's status page
//! how bad it says it is, and who has fallen silent. A question is one new connection, so it
//! costs the other side next to nothing; bandwidth is never measured by filling a link. After
//! one that was not answered rightly, and when a service here is in doubt, the next comes soon.
//! Each dependency has a task of its own on the agent's runtime, so that one that hangs delays
//! none. Decides nothing.
//!
//! Addresses only, since a question to a name server may hang by itself. No https, as
//! everywhere in the agent: a relay on the node speaks it.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use homeostat_common::observation::{Metric, MetricReading, Part, Reading};
use homeostat_common::units::Micros;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::clock;
use super::link::Counters;
use crate::config::{Asked, Dependency};
use crate::control::{Elsewhere, Sourced};

/// Questions that the share of right answers reaches back: one lost of 20 is 5 %.
const QUESTIONS: usize = 20;

/// So many questions in a row without a right answer are more than a lost packet.
const SILENT: usize = 2;

/// The next question comes so soon after one that found what was not before.
const SOON: Duration = Duration::from_millis(250);

/// Longest answer that is looked at. What a status page says of itself stands in front.
const ANSWER_MAX: usize = 16 * 1024;

/// Most headers of an answer.
const HEADERS_MAX: usize = 64;

/// A page that says how a third party does, in the form of Statuspage and others that do as
/// it does: `{"status": {"indicator": "none" | "minor" | "major" | "critical"}}`.
const LEVELS: [&str; 4] = ["none", "minor", "major", "critical"];

/// What one question found.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Found {
    /// Time to a connection.
    connected: Option<Duration>,
    /// Answered as it should be.
    right: bool,
    /// How bad it says it is.
    trouble: Option<u8>,
}

/// What is known of a dependency.
#[derive(Debug, Default)]
struct Known {
    right: VecDeque<bool>,
    /// When the last question was asked that was answered rightly.
    answered: Option<Micros>,
    latency_ms: Option<(f64, Micros)>,
    trouble: Option<(f64, Micros)>,
    /// The last question found these.
    last: Found,
    new: bool,
}

impl Known {
    /// Nothing is known of what it answers now.
    fn silent(&self) -> bool {
        let last = self.right.iter().rev().take(SILENT);
        self.right.len() >= SILENT && !last.clone().any(|right| *right)
    }

    fn note(&mut self, found: Found, asked: Micros, now: Micros) {
        if self.right.len() >= QUESTIONS {
            self.right.pop_front();
        }
        self.right.push_back(found.right);
        if found.right {
            self.answered = Some(asked);
        }
        if let Some(connected) = found.connected {
            self.latency_ms = Some((connected.as_secs_f64() * 1e3, now));
        }
        if let Some(trouble) = found.trouble {
            self.trouble = Some((f64::from(trouble), now));
        }
        self.last = found;
        self.new = true;
    }
}

/// All dependencies; those who ask end with it.
#[derive(Debug)]
pub struct Dependencies {
    known: Vec<(Part, bool, Arc<Mutex<Known>>)>,
    doubted: Arc<Notify>,
    _tasks: JoinSet<()>,
}

impl Dependencies {
    /// Begins to ask. Within a runtime.
    #[must_use]
    pub fn start(dependencies: &[Dependency]) -> Self {
        let mut tasks = JoinSet::new();
        let doubted = Arc::new(Notify::new());
        let known = dependencies.iter().map(|dependency| {
            let known = Arc::new(Mutex::new(Known::default()));
            let doubted = Arc::clone(&doubted);
            tasks.spawn(watch(dependency.clone(), Arc::clone(&known), doubted));
            let page = matches!(dependency.asked, Asked::StatusPage { .. });
            (dependency.name.clone(), page, known)
        });
        Self {
            known: known.collect(),
            doubted,
            _tasks: tasks,
        }
    }

    /// A service here did not answer as it should: what it needs is asked soon.
    pub fn doubt(&self) {
        self.doubted.notify_waiters();
    }

    /// Which of them answer.
    #[must_use]
    pub fn elsewhere(&self) -> Vec<Elsewhere> {
        let each = self.known.iter().map(|(name, _, known)| {
            let known = lock(known);
            Elsewhere {
                name: name.clone(),
                silent: known.silent(),
                right: known.answered,
            }
        });
        each.collect()
    }

    /// What is known now.
    pub fn sample(&self, now: Micros, to: &mut Vec<Sourced>) {
        for (name, page, known) in &self.known {
            let mut known = lock(known);
            let new = std::mem::take(&mut known.new);
            let asked = known.right.len();
            let right = known.right.iter().filter(|right| **right).count();
            let share = (asked > 0).then(|| right as f64 / asked as f64);
            let aged = |value: Option<(f64, Micros)>, found: bool| match value {
                Some((last, _)) if found => Reading::Fresh(last),
                Some((last, at)) => Reading::Stale {
                    last,
                    age: now.since(at),
                },
                None => Reading::Missing,
            };
            let latency = aged(known.latency_ms, known.last.connected.is_some());
            let trouble = page.then(|| aged(known.trouble, known.last.trouble.is_some()));
            let all = [
                Some((Metric::Availability, Reading::from(share))),
                Some((Metric::ConnectLatency, latency)),
                trouble.map(|trouble| (Metric::ThirdPartyTrouble, trouble)),
            ];
            to.extend(all.into_iter().flatten().map(|(metric, reading)| Sourced {
                reading: MetricReading::part(metric, name.clone(), reading),
                new: new && reading.fresh().is_some(),
            }));
        }
    }
}

/// How fast the broker acknowledges what is sent to it anyway; nothing is sent for this.
#[derive(Debug, Default)]
pub struct Broker {
    acknowledged: u64,
    last: Option<(f64, Micros)>,
}

impl Broker {
    /// Fresh if something was acknowledged since the last sample.
    pub fn sample(&mut self, now: Micros, counters: Counters) -> Sourced {
        let new = counters.acknowledged != self.acknowledged;
        self.acknowledged = counters.acknowledged;
        if new {
            self.last = Some((counters.round_trip.as_secs_f64() * 1e3, now));
        }
        let reading = match self.last {
            Some((last, _)) if new => Reading::Fresh(last),
            Some((last, at)) => Reading::Stale {
                last,
                age: now.since(at),
            },
            None => Reading::Missing,
        };
        let reading = MetricReading::node(Metric::BrokerRtt, reading);
        Sourced { reading, new }
    }
}

/// Each critical section leaves it whole.
fn lock(known: &Mutex<Known>) -> MutexGuard<'_, Known> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn watch(dependency: Dependency, known: Arc<Mutex<Known>>, doubted: Arc<Notify>) {
    let every = crate::service::span(dependency.every);
    let soon = SOON.min(every);
    // Nodes that start together must not ask together.
    let mut asked = Instant::now();
    let mut next = asked + every.mul_f32(fastrand::f32());
    // A fleet in doubt must not add much to what whoever it doubts has to bear.
    let mut hurry = asked;
    loop {
        tokio::select! {
            () = sleep_until(next) => {}
            () = doubted.notified() => {
                if asked >= hurry {
                    hurry = asked + every;
                    next = next.min(asked + soon);
                }
                continue;
            }
        }
        asked = Instant::now();
        let begun = clock::now();
        let found = ask(&dependency).await;
        let mut known = lock(&known);
        known.note(found, begun, clock::now());
        let sure = found.right || known.silent();
        next = asked + if sure { every } else { soon };
    }
}

/// Asks once, with all of it within the timeout.
async fn ask(dependency: &Dependency) -> Found {
    let mut found = Found::default();
    let limit = crate::service::span(dependency.timeout);
    // What was found until the time was over counts.
    let _ = timeout(limit, question(dependency, &mut found)).await;
    found
}

async fn question(dependency: &Dependency, found: &mut Found) -> io::Result<()> {
    let begun = Instant::now();
    let mut stream = TcpStream::connect(dependency.address).await?;
    found.connected = Some(begun.elapsed());
    let (path, wanted, page) = match &dependency.asked {
        Asked::Tcp => {
            found.right = true;
            return Ok(());
        }
        Asked::Http { path, status } => (path, *status, false),
        Asked::StatusPage { path } => (path, 200, true),
    };
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: {}\r\naccept: */*\r\nuser-agent: homeostat-agent\r\n\
         connection: close\r\n\r\n",
        dependency.address
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    let mut stream = stream.take(ANSWER_MAX as u64);
    loop {
        let more = stream.read_buf(&mut answer).await?;
        let Some((status, body)) = head(&answer) else {
            if more == 0 {
                return Ok(());
            }
            continue;
        };
        if status != wanted {
            return Ok(());
        }
        if !page {
            found.right = true;
            return Ok(());
        }
        found.trouble = answer.get(body..).and_then(trouble);
        if found.trouble.is_some() || more == 0 {
            // A page that does not say how it is, is no right answer.
            found.right = found.trouble.is_some();
            return Ok(());
        }
    }
}

/// Status, and where the body begins, once all of the head is there.
fn head(answer: &[u8]) -> Option<(u16, usize)> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    match response.parse(answer) {
        Ok(httparse::Status::Complete(body)) => Some((response.code?, body)),
        _ => None,
    }
}

/// How bad the page says it is: the first `"indicator": "WORD"`, wherever it stands, so that
/// a body that came in part, or in chunks, will do.
fn trouble(body: &[u8]) -> Option<u8> {
    let text = String::from_utf8_lossy(body);
    let (_, rest) = text.split_once("\"indicator\"")?;
    let (_, rest) = rest.split_once(':')?;
    let (word, _) = rest.trim_start().strip_prefix('"')?.split_once('"')?;
    let level = LEVELS.iter().position(|level| *level == word)?;
    u8::try_from(level).ok()
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{SocketAddr, TcpListener};

    use homeostat_common::units::Millis;

    use super::*;

    fn dependency(address: SocketAddr, asked: Asked) -> Dependency {
        Dependency {
            name: Part::new("peer").unwrap(),
            address,
            asked,
            every: Millis(20),
            timeout: Millis(300),
        }
    }

    /// A server that answers each connection with this.
    fn serve(answer: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut request = [0; 1024];
                let _ = stream.read(&mut request);
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        address
    }

    fn once(address: SocketAddr, asked: Asked) -> Found {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(ask(&dependency(address, asked)))
    }

    fn http(status: u16) -> Asked {
        let path = "/".to_owned();
        Asked::Http { path, status }
    }

    fn page() -> Asked {
        let path = "/api/v2/status.json".to_owned();
        Asked::StatusPage { path }
    }

    #[test]
    fn a_right_answer_is_told_from_a_wrong_one_and_from_none() {
        let ok = serve("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        let found = once(ok, http(200));
        assert!(found.right && found.connected.is_some());
        assert!(!once(ok, http(204)).right);
        assert!(once(ok, Asked::Tcp).right);
        let garbage = once(serve("\u{1}\u{2}nonsense\r\n\r\n"), http(200));
        assert!(!garbage.right && garbage.connected.is_some());
        // Nobody listens.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        assert_eq!(once(address, Asked::Tcp), Found::default());
        // Somebody accepts and never answers.
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let found = once(silent.local_addr().unwrap(), http(200));
        assert!(!found.right && found.connected.is_some());
    }

    #[test]
    fn the_brokers_round_trip_is_fresh_only_when_something_was_acknowledged() {
        let mut broker = Broker::default();
        let counters = |acknowledged| Counters {
            acknowledged,
            round_trip: Duration::from_millis(4),
            ..Counters::default()
        };
        let mut told = |at, n| broker.sample(Micros(at), counters(n)).reading.reading;
        assert_eq!(told(0, 0), Reading::Missing);
        assert_eq!(told(1, 2), Reading::Fresh(4.0));
        let age = Millis(1);
        assert_eq!(told(1001, 2), Reading::Stale { last: 4.0, age });
    }

    #[test]
    fn a_status_page_tells_how_bad_it_is() {
        let minor = "HTTP/1.1 200 OK\r\n\r\n{\"page\":{\"name\":\"x\"},\"status\":{\"indicator\": \"minor\"}}";
        let found = once(serve(minor), page());
        assert_eq!((found.right, found.trouble), (true, Some(1)));
        let other = once(
            serve("HTTP/1.1 200 OK\r\n\r\n{\"status\":{\"indicator\":\"bad\"}}"),
            page(),
        );
        assert_eq!((other.right, other.trouble), (false, None));
        assert_eq!(trouble(b"\xff\"indicator\":\"critical\""), Some(3));
        assert_eq!(trouble(b"\"indicator\":critical"), None);
    }

    #[test]
    fn one_that_is_doubted_is_asked_soon_and_its_silence_is_sure_after_two_questions() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let mut peer = dependency(listener.local_addr().unwrap(), Asked::Tcp);
            drop(listener);
            peer.every = Millis::secs(1_000_000);
            let all = Dependencies::start(std::slice::from_ref(&peer));
            let asked = || lock(&all.known[0].2).right.len();
            tokio::time::sleep(Duration::from_millis(10)).await;
            let silent = || all.elsewhere().remove(0).silent;
            assert!(!silent());
            for _ in 0..100 {
                all.doubt();
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            assert_eq!((asked(), silent()), (2, true));
        });
    }

    #[test]
    fn a_peer_that_goes_away_is_silent_and_its_latency_grows_old() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let peer = dependency(listener.local_addr().unwrap(), Asked::Tcp);
            let all = Dependencies::start(std::slice::from_ref(&peer));
            let readings = |all: &Dependencies| {
                let mut to = Vec::new();
                all.sample(clock::now(), &mut to);
                let readings: Vec<_> = to.iter().map(|one| one.reading.reading).collect();
                [readings[0], readings[1]]
            };
            assert_eq!(readings(&all), [Reading::Missing; 2]);
            let until = Instant::now() + Duration::from_secs(5);
            let wait = async |wanted: fn([Reading<f64>; 2]) -> bool| {
                while !wanted(readings(&all)) {
                    assert!(Instant::now() < until, "{:?}", readings(&all));
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            wait(|[share, latency]| share == Reading::Fresh(1.0) && latency.fresh().is_some())
                .await;
            drop(listener);
            wait(|[share, latency]| {
                let old = matches!(latency, Reading::Stale { last, .. } if last > 0.0);
                share.fresh().is_some_and(|share| share < 0.5) && old
            })
            .await;
        });
    }
}
