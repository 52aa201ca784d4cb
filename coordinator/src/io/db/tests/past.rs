//! Which plans were run for an incident, in what order and how long.

use super::*;

const BEGIN: u64 = 1_790_000_000_000;
const RESTART: &str = "restart(web, grace=0ms)";
const OTHER: &str = "rollback-config(web)";

/// One record of the incident, so many seconds after its opening.
fn at(seq: u64, second: u64, body: Body) -> Envelope {
    let mut envelope = envelope("a", seq, body);
    envelope.hlc = Hlc::new(BEGIN + second * 1_000, 0);
    envelope
}

fn decided(number: u64, plan: Option<u64>, options: &[(&str, Source, bool)]) -> Body {
    let considered = options.iter().map(|(plan, source, refused)| Considered {
        plan: (*plan).into(),
        source: *source,
        refusal: refused.then(|| Refusal {
            rule: "tried".into(),
            reason: "it did not help".into(),
        }),
    });
    Body::Decided(Decided {
        incident: IncidentId(number),
        plan: plan.map(PlanId),
        considered: considered.collect(),
        cost: 0.5,
        balance: 80.0,
        health: 0.5,
        predicted: 1.0,
    })
}

fn step(number: u64, plan: u64, primitive: &str, phase: Phase) -> Body {
    Body::Step(Step {
        incident: IncidentId(number),
        plan: PlanId(plan),
        step: 0,
        primitive: primitive.into(),
        phase,
        predicted: 1.0,
        health: 0.5,
    })
}

fn opened(number: u64) -> Body {
    Body::IncidentOpened(IncidentOpened {
        incident: IncidentId(number),
        service: ServiceId::new("web").unwrap(),
        symptom: Symptom::Dead,
        fault: Fault::Crash,
        confidence: 0.9,
        detected_after: Millis(1_000),
        evidence: Vec::new(),
        connected: true,
    })
}

fn closed(number: u64, outcome: Outcome, seconds: u64) -> Body {
    Body::IncidentClosed(IncidentClosed {
        incident: IncidentId(number),
        outcome,
        lasted: Millis::secs(seconds + 1),
        cost: 0.1,
        summary: String::new(),
    })
}

#[test]
fn every_plan_that_was_run_is_on_record_with_its_own_time() {
    let folder = tempfile::tempdir().unwrap();
    wait(async {
        let db = Db::open(folder.path()).await.unwrap();
        let (playbook, resumed) = (Source::Playbook, Source::Resumed);
        let failed = || Phase::Failed("it did not come up".into());
        let all = [
            at(1, 0, opened(1)),
            at(2, 1, decided(1, Some(7), &[(RESTART, playbook, false)])),
            at(3, 2, step(1, 7, RESTART, Phase::Started)),
            // The agent was restarted meanwhile: that is the same run.
            at(4, 5, decided(1, Some(7), &[(RESTART, resumed, false)])),
            at(5, 6, step(1, 7, RESTART, Phase::Started)),
            at(6, 30, step(1, 7, RESTART, failed())),
            // Revised under way, in the same run.
            at(
                7,
                31,
                decided(
                    1,
                    Some(7),
                    &[(RESTART, playbook, true), (OTHER, playbook, false)],
                ),
            ),
            at(8, 32, step(1, 7, OTHER, Phase::Started)),
            at(9, 50, closed(1, Outcome::Healed, 50)),
            // A restart that fails, and then nothing may be done.
            at(10, 100, opened(2)),
            at(11, 101, decided(2, Some(8), &[(RESTART, playbook, false)])),
            at(12, 102, step(2, 8, RESTART, Phase::Started)),
            at(13, 130, step(2, 8, RESTART, failed())),
            at(14, 131, decided(2, None, &[(RESTART, playbook, true)])),
            at(15, 200, closed(2, Outcome::Escalated, 100)),
        ];
        // In any order of arrival.
        for record in all.iter().rev() {
            store(&db, std::slice::from_ref(record)).await;
        }
        let fault = Fault::Crash.to_string();
        let mut past = db.past(&fault, 0, BEGIN).await.unwrap();
        past.sort_by_key(|one| one.lasted_ms);
        let tried = |at: usize| -> Vec<(&str, u64, bool)> {
            let tried = past[at].tried.iter();
            tried
                .map(|one| (one.plan.as_str(), one.after_ms, one.first))
                .collect()
        };
        assert_eq!(tried(0), [(RESTART, 3_000, true), (OTHER, 33_000, false)]);
        assert_eq!(tried(1), [(RESTART, 3_000, true)]);
        assert_eq!(past[0].acted_after_ms, Some(3_000));
        let all = IncidentQuery {
            limit: 10,
            ..IncidentQuery::default()
        };
        for incident in db.incidents(&all).await.unwrap() {
            let wanted = if incident.number == 1 { OTHER } else { RESTART };
            assert_eq!(incident.plan.as_deref(), Some(wanted));
        }
    });
}

#[test]
fn one_that_is_tried_again_and_again_is_read_within_a_bound() {
    let folder = tempfile::tempdir().unwrap();
    wait(async {
        let db = Db::open(folder.path()).await.unwrap();
        let mut all = vec![at(1, 0, opened(1))];
        for nth in 1..=100 {
            let second = nth * 60;
            let run = decided(1, Some(nth), &[(RESTART, Source::Playbook, false)]);
            all.push(at(2 * nth, second, run));
            all.push(at(
                2 * nth + 1,
                second + 1,
                step(1, nth, RESTART, Phase::Started),
            ));
        }
        store(&db, &all).await;
        let past = db.past(&Fault::Crash.to_string(), 0, BEGIN).await.unwrap();
        assert_eq!(past[0].acted_after_ms, Some(62_000));
        let tried = &past[0].tried;
        assert_eq!(tried.len(), 16);
        assert!(tried.iter().all(|one| !one.first));
        assert_eq!(tried.last().unwrap().after_ms, 1_000 + 100 * 60_000 + 1_000);
    });
}

#[test]
fn an_incident_that_is_told_again_is_what_was_told_last_and_began_when_it_did() {
    let again = |fault, confidence, evidence: &str| {
        let Body::IncidentOpened(body) = opened(1) else {
            unreachable!()
        };
        Body::IncidentOpened(IncidentOpened {
            fault,
            confidence,
            detected_after: Millis(9_000),
            evidence: vec![evidence.into()],
            ..body
        })
    };
    let first = at(2, 0, again(Fault::Crash, 0.5, "it died"));
    let last = at(
        5,
        8,
        again(Fault::BadConfig, 0.75, "its configuration is new"),
    );
    // In whatever order they arrive.
    for all in [[&first, &last], [&last, &first]] {
        let folder = tempfile::tempdir().unwrap();
        wait(async {
            let db = Db::open(folder.path()).await.unwrap();
            for one in all {
                db.store(&[one], &[], &[], BEGIN + 10_000).await.unwrap();
            }
            let (incident, ..) = db.incident(1).await.unwrap().unwrap();
            assert_eq!(incident.fault.as_deref(), Some("bad-config"));
            assert_eq!(incident.confidence, Some(0.75));
            assert_eq!(incident.opened_ms, BEGIN);
            let cases = db.cases(&[1]).await.unwrap();
            assert_eq!(cases[0].fault.as_deref(), Some("bad_config"));
            assert_eq!(cases[0].evidence, ["it died", "its configuration is new"]);
        });
    }
}
