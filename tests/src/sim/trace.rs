//! What happened, as text: one line for each event about healing.

use std::fmt;

use homeostat_common::anomaly::Symptom;
use homeostat_common::units::Micros;
use homeostat_common::wire::body::{Body, Phase, Severity};

/// The story of a run, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trace {
    lines: Vec<(Micros, &'static str, String)>,
}

impl Trace {
    /// The lines of one kind (`detect`, `execute`, ...), without their times.
    pub fn of(&self, kind: &str) -> Vec<&str> {
        let matching = self.lines.iter().filter(|(_, found, _)| *found == kind);
        matching.map(|(_, _, text)| text.as_str()).collect()
    }

    /// When the first line of a kind that contains `part` was written.
    #[must_use]
    pub fn when(&self, kind: &str, part: &str) -> Option<Micros> {
        let matching = |(_, found, text): &&(Micros, &'static str, String)| {
            *found == kind && text.contains(part)
        };
        self.lines.iter().find(matching).map(|(at, _, _)| *at)
    }

    pub(super) fn say(&mut self, at: Micros, kind: &'static str, text: String) {
        self.lines.push((at, kind, text));
    }

    pub(super) fn event(&mut self, at: Micros, body: &Body) {
        match body {
            Body::IncidentOpened(body) => {
                self.say(
                    at,
                    "detect",
                    format!(
                        "{} {} ({}), {} after the first sign",
                        body.service, body.symptom, body.fault, body.detected_after
                    ),
                );
                let told = body.evidence.iter().filter(|text| {
                    text.contains("for memory") || text.starts_with("unusual before")
                });
                for text in told {
                    self.say(at, "because", text.clone());
                }
                if body.symptom == Symptom::Foreseen {
                    for text in &body.evidence {
                        self.say(at, "because", text.clone());
                    }
                }
            }
            Body::Decided(body) => {
                for one in &body.considered {
                    match &one.refusal {
                        Some(refusal) if refusal.rule == "tried" => {}
                        Some(refusal) => {
                            let text = format!("{}: {}", one.plan, refusal.rule);
                            self.say(at, "refuse", text);
                        }
                        None => {
                            let source = format!("{:?}", one.source).to_lowercase();
                            self.say(at, "decide", format!("{} ({source})", one.plan));
                        }
                    }
                }
            }
            Body::Step(body) => match &body.phase {
                Phase::Started => self.say(at, "execute", body.primitive.clone()),
                Phase::Done => self.say(at, "done", body.primitive.clone()),
                Phase::Failed(why) => self.say(at, "failed", format!("{}: {why}", body.primitive)),
                Phase::Undone => self.say(at, "undone", body.primitive.clone()),
            },
            Body::IncidentClosed(body) => {
                let text = format!("{}: {}", body.outcome, body.summary);
                self.say(at, "close", text);
            }
            Body::Alarm(alarm) if alarm.raised => {
                let severity = match alarm.severity {
                    Severity::Notice => "notice",
                    Severity::Warning => "warning",
                    Severity::Critical => "critical",
                };
                let text = format!("{} ({severity}): {}", alarm.alarm, alarm.text);
                self.say(at, "alarm", text);
            }
            Body::Alarm(alarm) => self.say(at, "clear", alarm.alarm.clone()),
            Body::Diagnosed(body) => {
                let first = body
                    .suspects
                    .first()
                    .filter(|one| one.explained_by.is_none());
                if let Some(first) = first.filter(|first| first.component != body.alarmed) {
                    let sure = first.confidence.get();
                    let text = format!("{} behind {} ({sure:.2})", first.component, body.alarmed);
                    self.say(at, "suspect", text);
                }
            }
            Body::Joined(joined) => {
                let text = format!(
                    "{} is {}: {}",
                    joined.service, joined.symptom, joined.because
                );
                self.say(at, "join", text);
            }
            Body::Note(note) => self.say(at, "note", note.text.clone()),
            Body::Control(control) => {
                let by = match control.by.as_str() {
                    "" => String::new(),
                    by => format!(", by {by}"),
                };
                self.say(at, "person", format!("{}{by}", control.text));
            }
            // States and aggregates are not part of the story.
            _ => {}
        }
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, kind, text) in &self.lines {
            writeln!(f, "{at} {kind:<8} {text}")?;
        }
        Ok(())
    }
}
