//! Questions on the control socket: what may be asked, and how it is answered.
//!
//! A number, or nothing, asks for an incident in words. `do PLAN` asks for a plan,
//! `reload` for the configuration file to be read again, JSON for a change of a
//! slot, `chaos FAULT SERVICE MS` for a fault on purpose and `mend` for its end; their
//! answers are JSON. Answers are made beside the loop, so that nobody who asks slowly
//! holds it up. Who may connect is up to the socket's permissions: the agent's user
//! and root.

use std::sync::Arc;
use std::time::Duration;

use homeostat_common::ids::{IncidentId, ServiceId};
use homeostat_common::plan::PlanError;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::{Asked, Question, Shell};
use crate::chaos;
use crate::config::Config;
use crate::control::Event;
use crate::io::keeper::{Keeper, Order};
use crate::io::slots::thread::{self as slots, What};
use crate::io::slots::{Candidate, Name, Slot, Version};
use crate::io::spawner::client::Client;

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
        let who = match stream.peer_cred() {
            Ok(peer) => format!("user {}", peer.uid()),
            Err(_) => "somebody".to_owned(),
        };
        tokio::spawn(async move {
            let mut question = String::new();
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
                let plan = plan.parse().map_err(|error: PlanError| error.to_string());
                let answer = ask(&questions, plan.map(Asked::Plan)).await;
                serde_json::to_string(&answer).ok()
            } else if let Some(wish) = question.trim().strip_prefix("chaos ") {
                let wish = chaos::Wish::parse(wish, who).map(Asked::Chaos);
                serde_json::to_string(&ask(&questions, wish).await).ok()
            } else if question.trim() == "mend" {
                let answer = ask(&questions, Ok(Asked::Mend)).await;
                serde_json::to_string(&answer).ok()
            } else if question.starts_with('{') {
                let answer = change(&question, &files, &config).await;
                serde_json::to_string(&answer).ok()
            } else {
                explain(&question, &keeper).await
            };
            if let Some(text) = answer {
                let _ = timeout(QUESTION_TIME, writer.write_all(text.as_bytes())).await;
            }
        });
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
        self.next_ticket += 1;
        let ticket = self.next_ticket;
        self.asked.insert(ticket, reply);
        Some(match asked {
            Asked::Plan(plan) => Event::Asked { ticket, plan },
            Asked::Chaos(wish) => Event::Wished { ticket, wish },
            Asked::Mend => return None,
        })
    }
}

/// Hands what is asked for to the loop and waits for what it says.
async fn ask(
    questions: &mpsc::Sender<Question>,
    asked: Result<Asked, String>,
) -> Result<String, String> {
    let (reply, answer) = oneshot::channel();
    let busy = || "too many questions at once".to_owned();
    questions.try_send((asked?, reply)).map_err(|_| busy())?;
    answer
        .await
        .unwrap_or_else(|_| Err("the agent is ending".into()))
}

async fn explain(question: &str, keeper: &Keeper) -> Option<String> {
    let incident = question.trim().parse().ok().map(IncidentId);
    let (reply, answer) = oneshot::channel();
    if !keeper.order(Order::Explain(incident, reply)) {
        return None;
    }
    timeout(QUESTION_TIME, answer).await.ok()?.ok()
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
