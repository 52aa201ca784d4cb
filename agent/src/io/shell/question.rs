//! Questions on the control socket: what may be asked, and how it is answered.
//!
//! A number, or nothing, asks for an incident in words, the name of a plan across nodes for
//! this node's part of it, `readings` for what was measured last. `do PLAN` asks for a plan, of this node or across nodes,
//! `reload` for the configuration file to be read again, `order` and JSON for what
//! people control, `chaos FAULT SERVICE MS` for a fault on purpose and `mend` for its
//! end, JSON alone for a change of a slot; their answers are JSON. Answers are made
//! beside the loop, so that nobody who asks slowly holds it up. Who may connect is up
//! to the socket's permissions: the agent's user and root.

use std::sync::Arc;
use std::time::Duration;

use homeostat_common::ids::{IncidentId, NodeId, ServiceId};
use homeostat_common::plan::PlanError;
use homeostat_common::saga::FleetPlanError;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::{Asked, Form, Question, Shell};
use crate::chaos;
use crate::config::Config;
use crate::control::{Command, Event};
use crate::io::clock;
use crate::io::keeper::{self, Keeper};
use crate::io::slots::thread::{self as slots, What};
use crate::io::slots::{Candidate, Name, Slot, Version};
use crate::io::spawner::client::Client;
use crate::io::stop_file;
use crate::sense::page;

/// Longest question: two paths of the kernel's length, escaped, and names.
const QUESTION_MAX: u64 = 32 * 1024;

/// How long a client of the control socket may take to ask.
const QUESTION_TIME: Duration = Duration::from_secs(2);

/// How long a candidate may take: copying and hashing a large model on a slow
/// card, and its turn behind others.
pub const ANSWER_TIME: Duration = Duration::from_secs(120);

/// A change of a slot.
#[derive(Debug, Serialize, Deserialize)]
pub struct SlotQuestion {
    /// What is wanted.
    pub wish: Wish,
    /// Whose slot.
    pub service: ServiceId,
    /// Which.
    pub slot: Name,
    /// Absolute paths, which the agent must be able to read.
    pub candidate: Candidate,
}

/// What is wanted with a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wish {
    /// To have it verified and at hand.
    Stage,
    /// To have it in place, where nothing is yet.
    Install,
}

impl Shell {
    /// Answers a question on the control socket, beside the loop.
    pub(super) fn answer(&self, mut stream: UnixStream) {
        let keeper = self.keeper.clone();
        let files = self.files.clone();
        let config = Arc::clone(&self.config);
        let questions = self.questions.0.clone();
        let reloads = self.reloads.0.clone();
        tokio::spawn(async move {
            let mut question = String::new();
            let uid = stream.peer_cred().ok().map(|peer| peer.uid());
            let (reader, mut writer) = stream.split();
            let mut reader = reader.take(QUESTION_MAX);
            let read = timeout(QUESTION_TIME, reader.read_to_string(&mut question));
            let Ok(Ok(_)) = read.await else {
                return;
            };
            let answer = if question.trim() == "reload" {
                let (reply, answer) = oneshot::channel();
                let asked = reloads.try_send(Some(reply));
                let answer = match asked {
                    Ok(()) => answer
                        .await
                        .unwrap_or_else(|_| Err("the agent is ending".into())),
                    Err(_) => Err("too many questions at once".to_owned()),
                };
                serde_json::to_string(&answer).ok()
            } else if let Some(plan) = question.trim().strip_prefix("do ") {
                let answer = match wish(plan) {
                    Ok(wish) => ask(&questions, wish).await,
                    Err(why) => Err(why),
                };
                serde_json::to_string(&answer).ok()
            } else if let Some(order) = question.trim().strip_prefix("order ") {
                let answer = obey(&questions, order, uid, &config).await;
                serde_json::to_string(&answer).ok()
            } else if question.trim() == PARTS {
                ask(&questions, Asked::Parts).await.ok()
            } else if question.trim() == READINGS {
                ask(&questions, Asked::Readings(Form::Table)).await.ok()
            } else if question.trim() == READINGS_JSON {
                ask(&questions, Asked::Readings(Form::Json)).await.ok()
            } else if let Some(wish) = question.trim().strip_prefix("chaos ") {
                let answer = match chaos::Wish::parse(wish, person(uid)) {
                    Ok(wish) => ask(&questions, Asked::Chaos(wish)).await,
                    Err(why) => Err(why),
                };
                serde_json::to_string(&answer).ok()
            } else if question.trim() == "mend" {
                let answer = ask(&questions, Asked::Mend).await;
                serde_json::to_string(&answer).ok()
            } else if question.starts_with('{') {
                let answer = change(&question, &files, &config).await;
                serde_json::to_string(&answer).ok()
            } else {
                explain(&question, &keeper, &questions).await
            };
            if let Some(text) = answer {
                let _ = timeout(QUESTION_TIME, writer.write_all(text.as_bytes())).await;
            }
        });
    }
}

/// Asks for the parts of plans across nodes, and for those that are led here.
pub const PARTS: &str = "parts";

/// Asks for the last readings, for people.
pub const READINGS: &str = "readings";

/// The same as JSON.
pub const READINGS_JSON: &str = "readings json";

/// Whether a plan's steps name nodes, by its first one.
#[must_use]
pub fn is_across(text: &str) -> bool {
    let first = text.trim_start_matches(['(', ' ']).split_once(':');
    first.is_some_and(|(label, _)| NodeId::new(label.trim()).is_ok())
}

/// A plan of this node, or one across nodes.
fn wish(text: &str) -> Result<Asked, String> {
    if is_across(text) {
        let plan = text.parse().map(Asked::Across);
        plan.map_err(|error| FleetPlanError::to_string(&error))
    } else {
        let plan = text.parse().map(Asked::Plan);
        plan.map_err(|error| PlanError::to_string(&error))
    }
}

impl Shell {
    /// What a person asks for, as an event of the loop.
    pub(super) async fn take_question(
        &mut self,
        asked: Asked,
        reply: oneshot::Sender<Result<String, String>>,
        spawner: &Option<Client>,
    ) -> Option<Event> {
        if let Asked::Mend = asked {
            let answer = match spawner {
                None => Err("the spawner is lost; it ends the fault by itself".to_owned()),
                Some(client) => match client.mend().await {
                    Ok(()) => Ok("what is in force of faults on purpose is ended".to_owned()),
                    Err(error) => Err(error.to_string()),
                },
            };
            let _ = reply.send(answer);
            return None;
        }
        if let Asked::Readings(form) = asked {
            let readings = self.core.readings(clock::now());
            let text = match form {
                Form::Prometheus => Ok(page::prometheus(&readings)),
                Form::Table => Ok(page::table(&readings)),
                Form::Json => serde_json::to_string(&readings).map_err(|error| error.to_string()),
            };
            let _ = reply.send(text);
            return None;
        }
        self.next_ticket += 1;
        let ticket = self.next_ticket;
        self.asked.insert(ticket, reply);
        Some(match asked {
            Asked::Plan(plan) => Event::Asked { ticket, plan },
            Asked::Across(plan) => Event::AskedAcross { ticket, plan },
            Asked::Parts => Event::AskedParts(ticket),
            Asked::Part(name) => Event::AskedPart(ticket, name),
            Asked::Order(by, command) => Event::Ordered {
                ticket,
                by,
                command,
            },
            Asked::Chaos(wish) => Event::Wished { ticket, wish },
            Asked::Mend | Asked::Readings(_) => return None,
        })
    }
}

/// An order of a person.
#[derive(Debug, Serialize, Deserialize)]
pub struct Order {
    /// Who gives it, by their own account; the kernel's is added to it.
    pub by: Option<String>,
    /// What.
    pub command: Command,
}

/// Longest name of a person.
const NAME_MAX: usize = 64;

/// Hands an order to the loop; a stop is a file as well, which outlives all else.
async fn obey(
    questions: &mpsc::Sender<Question>,
    order: &str,
    uid: Option<u32>,
    config: &Config,
) -> Result<String, String> {
    let order: Order = serde_json::from_str(order).map_err(|error| error.to_string())?;
    let uid = person(uid);
    let by = match order.by {
        Some(name)
            if name.trim().is_empty()
                || name.len() > NAME_MAX
                || name.chars().any(char::is_control) =>
        {
            return Err(format!("expected a name of 1 to {NAME_MAX} bytes"));
        }
        Some(name) => format!("{name} ({uid})"),
        None => uid,
    };
    let data_dir = config.node.data_dir.clone();
    let command = order.command;
    let stop = match &command {
        Command::Stop { why } => Some(format!("{why} ({by})")),
        _ => None,
    };
    if command == Command::Resume {
        // First the file: while that is there, nothing goes on.
        let file = stop_file::path(&data_dir);
        let removed = tokio::task::spawn_blocking(move || stop_file::remove(&data_dir)).await;
        match removed {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                return Err(format!(
                    "healing stays stopped: cannot remove {}: {error}",
                    file.display()
                ));
            }
            Err(_) => return Err("the agent is ending".into()),
        }
        return ask(questions, Asked::Order(by, command)).await;
    }
    let text = ask(questions, Asked::Order(by, command)).await?;
    let Some(why) = stop else {
        return Ok(text);
    };
    let file = stop_file::path(&data_dir);
    let written = tokio::task::spawn_blocking(move || stop_file::write(&data_dir, &why)).await;
    Ok(match written {
        Ok(Ok(())) => format!("{text}, as long as {} is there", file.display()),
        _ => format!(
            "{text} until the agent ends, and no longer: {} could not be written",
            file.display()
        ),
    })
}

/// Who asks, by the kernel's account.
fn person(uid: Option<u32>) -> String {
    uid.map_or_else(|| "uid unknown".to_owned(), |uid| format!("uid {uid}"))
}

/// Hands a question to the loop and waits for its answer.
pub(super) async fn ask(
    questions: &mpsc::Sender<Question>,
    asked: Asked,
) -> Result<String, String> {
    let (reply, answer) = oneshot::channel();
    let busy = || "too many questions at once".to_owned();
    questions.try_send((asked, reply)).map_err(|_| busy())?;
    answer
        .await
        .unwrap_or_else(|_| Err("the agent is ending".into()))
}

async fn explain(
    question: &str,
    keeper: &Keeper,
    questions: &mpsc::Sender<Question>,
) -> Option<String> {
    let question = question.trim();
    let incident = question.parse().ok().map(IncidentId);
    if incident.is_none() && !question.is_empty() {
        let told = ask(questions, Asked::Part(question.to_owned())).await;
        return Some(told.unwrap_or_else(|why| why + "\n"));
    }
    let (reply, answer) = oneshot::channel();
    if !keeper.order(keeper::Order::Explain(incident, reply)) {
        return None;
    }
    let mut text = timeout(QUESTION_TIME, answer).await.ok()?.ok()?;
    // The initiator's number of a plan may be asked for as well.
    if incident.is_some()
        && text.starts_with("no incident")
        && let Ok(told) = ask(questions, Asked::Part(question.to_owned())).await
    {
        return Some(told);
    }
    // Parts of plans across nodes belong to no incident of this node.
    if incident.is_none()
        && let Ok(parts) = ask(questions, Asked::Parts).await
    {
        text.push_str(&parts);
    }
    Some(text)
}

async fn change(
    question: &str,
    files: &std::sync::mpsc::SyncSender<slots::Order>,
    config: &Config,
) -> Result<Version, String> {
    let question: SlotQuestion =
        serde_json::from_str(question).map_err(|error| error.to_string())?;
    let SlotQuestion {
        wish,
        service,
        slot: name,
        candidate,
    } = question;
    let slot = config
        .service(&service)
        .and_then(|service| Slot::of(service, name, &config.node.data_dir))
        .ok_or_else(|| format!("there is no {name} slot of {service} in its configuration"))?;
    let (reply, answer) = oneshot::channel();
    let what = match wish {
        Wish::Stage => What::Stage(candidate, reply),
        Wish::Install => What::Install(candidate, reply),
    };
    let order = slots::Order {
        service,
        slot,
        what,
    };
    files
        .try_send(order)
        .map_err(|_| "too much waits for the disk".to_owned())?;
    match timeout(ANSWER_TIME, answer).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => Err("it ends".into()),
        Err(_) => Err("the disk does not answer".into()),
    }
}
