//! The process whose writes are recorded: the agent's store thread and its slots, on real
//! files, given orders as the loop gives them.
//!
//! It says in a file of its own ([`Mark`]) what it orders, before it does, and what it was
//! told is safe, after it was; both stand in the trace between the writes they are about.

use std::ffi::OsString;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use fastrand::Rng;
use homeostat_agent::config::Config;
use homeostat_agent::control::{Class, Event, HealRecord, Loop, Resumed, Saved};
use homeostat_agent::io::keeper::{self, Keeper, Order};
use homeostat_agent::io::link::{self, Backlog};
use homeostat_agent::io::slots::{Candidate, Name, Slot, thread as slots};
use homeostat_agent::learn::Experience;
use homeostat_agent::plan::Recipe;
use homeostat_common::anomaly::{Fault, Symptom};
use homeostat_common::ids::{BootId, IncidentId, ModelVersion, PlanId, ServiceId, Token};
use homeostat_common::outcome::Outcome;
use homeostat_common::units::{Bytes, Micros, Millis};
use homeostat_common::wire::Envelope;
use homeostat_common::wire::body::{Body, IncidentClosed, IncidentOpened, Note};
use homeostat_models::{Manifest, sha256_hex};
use rustix::process::{Signal, getpid, kill_process, set_parent_process_death_signal};
use tokio::sync::{mpsc, oneshot};

use super::marks::{Mark, Slotted};
use crate::stage::{MANIFEST, MODEL};

/// The hidden first argument; then folder, seed, number of orders, and the first free number.
pub(crate) const WRITER_ARG: &str = "__store";

/// Orders between two waits for the store: fewer than its queue holds.
const BATCH: u32 = 64;
/// Asked for at once, as the link does.
const FETCH_BYTES: usize = 16 << 10;
/// Longest wait for an answer, under strace on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// The slots' answers name it; nothing here asks twice.
const TOKEN: Token = Token {
    plan: PlanId(1),
    step: 0,
    undo: false,
};
/// What the configuration of the service is called.
const CONFIG_FILE: &str = "a.txt";

/// A small store on `disk/data`, so that it is full soon, and two slots beside it.
pub(super) fn config(disk: &Path) -> Result<Config> {
    let shown = disk.display();
    let text = format!(
        "[node]\nid = \"n\"\ndata_dir = \"{shown}/data\"\nrun_dir = \"{shown}/data\"\n\
         [store]\nballast = \"128KiB\"\n\
         [[service]]\nid = \"infer\"\ncommand = [\"/x\"]\n\
         [service.model]\nslot = \"{shown}/model\"\n\
         [service.config]\nslot = \"{shown}/config\"\nfile = \"{CONFIG_FILE}\"\n"
    );
    let mut config = Config::parse(&text, Path::new("a.toml"))?;
    // Below what a file may ask for: what is to be seen is what happens at the bound.
    config.store.quota = Bytes::mib(4);
    Ok(config)
}

pub(super) fn service() -> ServiceId {
    ServiceId::new("infer").expect("a name")
}

/// Plays the part; `Err` is told on stderr.
pub(crate) fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    let args: Vec<String> = args.filter_map(|arg| arg.into_string().ok()).collect();
    match work(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{WRITER_ARG}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn work(args: &[String]) -> Result<()> {
    let [dir, seed, orders, first] = args else {
        bail!("expected a folder, a seed, a number of orders and a first number");
    };
    let (seed, orders, first) = (seed.parse::<u64>()?, orders.parse::<u32>()?, first.parse()?);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    runtime.block_on(async {
        let mut writer = Writer::open(Path::new(dir), seed, first)?;
        for done in 0..orders {
            writer.order_any().await?;
            if done % BATCH == 0 {
                writer.idle().await?;
            }
        }
        writer.idle().await?;
        if writer.rng.bool() {
            // Whatever is in the kernel stays there; nothing is closed.
            kill_process(getpid(), Signal::KILL)?;
        }
        writer.close()
    })
}

struct Writer {
    dir: PathBuf,
    rng: Rng,
    marks: File,
    keeper: Keeper,
    told: mpsc::Receiver<Event>,
    backlog: Backlog,
    thread: std::thread::JoinHandle<()>,
    saved: Saved,
    experience: Experience,
    slots: std::sync::mpsc::SyncSender<slots::Order>,
    reports: mpsc::Receiver<slots::Report>,
    found: Vec<(Name, Slot, Vec<ModelVersion>)>,
    next: u64,
    ticket: u64,
    /// The last event that was handed out.
    left: u64,
}

impl Writer {
    fn open(dir: &Path, seed: u64, next: u64) -> Result<Self> {
        let config = config(&dir.join("disk"))?;
        let marks = File::options()
            .append(true)
            .create(true)
            .open(dir.join("marks"))?;
        let (opened, thread) = keeper::open(&config, BootId([1; 16]), keeper::trial)?;
        let experience = opened.resumed.experience.clone();
        let boot = BootId([2; 16]);
        let saved = Loop::new(&config, boot, Resumed::default(), Micros(0)).saved(Micros(0));
        let (events, told) = mpsc::channel(1024);
        let (backlog, fetches) = link::backlog();
        let (keeper, thread) = thread.start(events, fetches, None)?;
        let (sender, reports) = mpsc::channel(64);
        let slots = slots::start(sender)?;
        let found = Name::ALL
            .into_iter()
            .filter_map(|name| {
                let slot = Slot::of(config.services.first()?, name, &config.node.data_dir)?;
                Some((name, slot, Vec::new()))
            })
            .collect();
        let mut this = Self {
            dir: dir.to_owned(),
            rng: Rng::with_seed(seed),
            marks,
            keeper,
            told,
            backlog,
            thread,
            saved,
            experience,
            slots,
            reports,
            found,
            next,
            ticket: 0,
            left: opened.acked,
        };
        this.say(&Mark::Opened(opened.last))?;
        Ok(this)
    }

    fn say(&mut self, mark: &Mark) -> Result<()> {
        // One write, so that it is one call.
        self.marks.write_all(format!("{mark}\n").as_bytes())?;
        Ok(())
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// The store's queue is empty.
    async fn idle(&mut self) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        self.send(Order::Explain(Some(IncidentId(0)), reply))?;
        tokio::time::timeout(PATIENCE, answer).await??;
        while self.told.try_recv().is_ok() {}
        Ok(())
    }

    fn send(&self, order: Order) -> Result<()> {
        match self.keeper.order(order) {
            true => Ok(()),
            false => bail!("the store's queue is full"),
        }
    }

    async fn order_any(&mut self) -> Result<()> {
        match self.rng.u8(..100) {
            0..=57 => self.event(),
            58..=69 => {
                let number = self.number();
                self.say(&Mark::Heal(number))?;
                let incident = IncidentId(number);
                let record = if self.rng.bool() {
                    HealRecord::Closed(incident)
                } else {
                    HealRecord::Opened {
                        incident,
                        service: service(),
                        symptom: Symptom::Dead,
                        fault: Fault::Crash,
                        since: Micros(number),
                    }
                };
                self.send(Order::Journal(record))
            }
            70..=73 => {
                let number = self.number();
                self.say(&Mark::Saved(number))?;
                self.saved.at = Micros(number);
                self.send(Order::Remember(Box::new(self.saved.clone())))
            }
            74..=75 => {
                self.say(&Mark::Quiet)?;
                self.send(Order::Quiet)
            }
            76..=83 => self.sync().await,
            84..=89 => self.fetch().await,
            90..=91 => {
                let acked = self.rng.u64(..=self.left);
                self.say(&Mark::Acked(acked))?;
                self.send(Order::Acked(acked))
            }
            92..=94 => self.learn().await,
            _ => self.slot().await,
        }
    }

    fn event(&mut self) -> Result<()> {
        let (number, class) = (self.number(), self.rng.u8(..3));
        let class = [Class::Telemetry, Class::State, Class::Heal][usize::from(class)];
        let padding = "x".repeat(self.rng.usize(..1600));
        let incident = IncidentId(number);
        let body = match (class, self.rng.u8(..4)) {
            (Class::Heal, 0) => Body::IncidentClosed(IncidentClosed {
                incident,
                outcome: Outcome::Healed,
                lasted: Millis(1),
                cost: 0.0,
                summary: padding,
            }),
            (Class::Heal, _) => Body::IncidentOpened(IncidentOpened {
                incident,
                service: service(),
                symptom: Symptom::Dead,
                fault: Fault::Crash,
                confidence: 1.0,
                detected_after: Millis(1),
                evidence: vec![padding],
                connected: false,
            }),
            _ => Body::Note(Note {
                service: None,
                text: format!("{number} {padding}"),
            }),
        };
        self.say(&Mark::Event(class, number))?;
        self.send(Order::Event {
            mark: number,
            class,
            causes: Vec::new(),
            body: Box::new(body),
        })
    }

    async fn sync(&mut self) -> Result<()> {
        self.ticket += 1;
        let asked = self.ticket;
        self.say(&Mark::Sync)?;
        self.send(Order::Sync(asked))?;
        loop {
            match tokio::time::timeout(PATIENCE, self.told.recv()).await? {
                Some(Event::Synced(ticket)) if ticket == asked => break,
                Some(Event::StoreTrouble(Some(why))) => bail!("the store refuses: {why}"),
                Some(_) => {}
                None => bail!("the store has ended"),
            }
        }
        self.say(&Mark::Synced)
    }

    /// As the link does before it publishes them.
    async fn fetch(&mut self) -> Result<()> {
        let next = self.backlog.next(self.left, FETCH_BYTES);
        let records = tokio::time::timeout(PATIENCE, next).await?;
        for (seq, bytes) in records.context("the store has ended")? {
            let number = number_of(&bytes);
            self.left = seq;
            self.say(&Mark::Left(seq, number))?;
        }
        Ok(())
    }

    async fn learn(&mut self) -> Result<()> {
        self.experience
            .tried(Fault::Crash, Recipe::RestartAtOnce, true);
        let count = learnt(&self.experience);
        self.send(Order::Learn(self.experience.clone()))?;
        self.idle().await?;
        self.say(&Mark::Learnt(count))
    }

    /// A new version that proves itself, or damage that is mended.
    async fn slot(&mut self) -> Result<()> {
        let place = self.rng.usize(..self.found.len());
        let (name, slot, good) = self.found[place].clone();
        let next = self.number();
        if let (true, Some(newest)) = (self.rng.bool(), good.first()) {
            let payload = slot.path().join("current").join(match name {
                Name::Model => "model.onnx",
                Name::Config => CONFIG_FILE,
            });
            std::fs::write(payload, vec![7; self.rng.usize(1..3000)])?;
            self.slot_order(name, &slot, slots::What::Switch(TOKEN, *newest))
                .await?;
            if self.rng.bool() {
                self.slot_order(name, &slot, slots::What::Restore(TOKEN))
                    .await?;
                self.slot_order(name, &slot, slots::What::Switch(TOKEN, *newest))
                    .await?;
            }
        } else {
            let candidate = self.candidate(name, next)?;
            let (answer, staged) = oneshot::channel();
            let order = if slot.installed() {
                slots::What::Stage(candidate, answer)
            } else {
                slots::What::Install(candidate, answer)
            };
            self.slot_order(name, &slot, order).await?;
            let version = staged.await?.map_err(anyhow::Error::msg)?;
            self.slot_order(name, &slot, slots::What::Switch(TOKEN, version))
                .await?;
            let found = self
                .slot_order(name, &slot, slots::What::Keep(version))
                .await?;
            if found.first() != Some(&version) {
                bail!("{version} was not kept: {found:?}");
            }
            self.say(&Mark::Good(Slotted(name), version))?;
            self.found[place].2 = found;
        }
        // Answered by nothing; the look after it is.
        let settle = slots::Order {
            service: service(),
            slot: slot.clone(),
            what: slots::What::Settle,
        };
        self.slots.send(settle).context("the slots have ended")?;
        self.found[place].2 = self.slot_order(name, &slot, slots::What::Check).await?;
        Ok(())
    }

    /// The good versions that the answer tells, if it tells them.
    async fn slot_order(
        &mut self,
        name: Name,
        slot: &Slot,
        what: slots::What,
    ) -> Result<Vec<ModelVersion>> {
        let order = slots::Order {
            service: service(),
            slot: slot.clone(),
            what,
        };
        self.slots.send(order).context("the slots have ended")?;
        loop {
            let report = tokio::time::timeout(PATIENCE, self.reports.recv()).await?;
            match report.context("the slots have ended")? {
                slots::Report::Goldens(..) => {}
                slots::Report::Event(event) => match *event {
                    Event::SlotChecked { found, .. } => return Ok(found.good),
                    Event::Acted { result: Ok(()), .. } => return Ok(Vec::new()),
                    other => bail!("{name}: {other:?}"),
                },
            }
        }
    }

    fn candidate(&self, name: Name, number: u64) -> Result<Candidate> {
        let folder = self.dir.join("candidate");
        std::fs::create_dir_all(&folder)?;
        let file = match name {
            Name::Model => {
                let file = folder.join("model.onnx");
                let bytes = [MODEL, &unknown_field(number)].concat();
                let mut manifest = Manifest::parse(MANIFEST, &file)?;
                manifest.sha256 = sha256_hex(&bytes);
                std::fs::write(&file, bytes)?;
                std::fs::write(folder.join("manifest.toml"), manifest.to_toml()?)?;
                file
            }
            Name::Config => {
                let file = folder.join(CONFIG_FILE);
                std::fs::write(&file, format!("version = {number}\n").repeat(60))?;
                file
            }
        };
        Ok(Candidate {
            file,
            manifest: None,
        })
    }

    fn close(mut self) -> Result<()> {
        self.say(&Mark::Closing)?;
        self.send(Order::Close)?;
        let ended = self.thread.join();
        self.ticket = 0;
        match ended {
            Ok(()) => Ok(()),
            Err(_) => bail!("the store's thread has panicked"),
        }
    }
}

/// A number that makes another version of a model and that every reader of ONNX skips: field
/// 1000 of its outermost message, a varint.
fn unknown_field(mut number: u64) -> Vec<u8> {
    let mut bytes = vec![0xC0, 0x3E];
    loop {
        let low = u8::try_from(number & 0x7F).unwrap_or_default();
        number >>= 7;
        if number == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

/// The number that an event was given here; `None` of a gap.
pub(super) fn number_of(envelope: &[u8]) -> Option<u64> {
    match Envelope::decode(envelope).ok()?.body {
        Body::IncidentOpened(opened) => Some(opened.incident.0),
        Body::IncidentClosed(closed) => Some(closed.incident.0),
        Body::Note(note) => note.text.split(' ').next()?.parse().ok(),
        _ => None,
    }
}

/// How much was learnt.
pub(super) fn learnt(experience: &Experience) -> u32 {
    experience
        .record(Fault::Crash, Recipe::RestartAtOnce)
        .healed
}
