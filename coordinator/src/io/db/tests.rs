//! The database against a model: whatever arrives, in whatever order, however
//! often, and whenever the process ends.

use std::collections::{BTreeMap, BTreeSet};

use homeostat_common::anomaly::{Fault, Symptom};
use homeostat_common::gate::Criticality;
use homeostat_common::hlc::Hlc;
use homeostat_common::ids::{
    BootId, IncidentId, NodeId, PlanId, RouteId, ServiceId, SiteId, StreamId,
};
use homeostat_common::outcome::Outcome;
use homeostat_common::units::{Millis, narrow};
use homeostat_common::wire::body::{
    Alarm, BackendState, Boot, Budgets, Charge, ClassBudget, ClockQuality, Considered, CostParts,
    Decided, Gap, IncidentClosed, IncidentOpened, Note, Phase, Refusal, RouteChange, ServiceChange,
    ServiceState, Severity, Source, Step, StepCost,
};
use homeostat_common::wire::{Body, Envelope, EventRef};
use proptest::prelude::*;

use super::*;
use crate::control::admit::{Reason, Refused};
use crate::fleet::timeline::causal_order;
use crate::fleet::view::{Incident, IncidentState};

mod history;
mod outside;
mod own;
mod past;
mod readings;
pub(crate) mod sent;

use self::sent::{budgets, charge, envelope, note, ring, route, start, story};

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

async fn store(db: &Db, batch: &[Envelope]) -> Stored {
    let batch: Vec<&Envelope> = batch.iter().collect();
    db.store(&batch, &[], &[], 1_790_000_001_000).await.unwrap()
}

fn through(stored: &Stored) -> Vec<u64> {
    stored.acks.iter().map(|ack| ack.through).collect()
}

#[test]
fn an_acknowledgement_covers_only_the_unbroken_run() {
    let folder = tempfile::tempdir().unwrap();
    wait(async {
        let db = Db::open(folder.path()).await.unwrap();
        assert_eq!(
            through(&store(&db, &[note("a", 3), note("a", 2)]).await),
            [0]
        );
        assert_eq!(through(&store(&db, &[note("a", 5)]).await), [0]);
        assert_eq!(through(&store(&db, &[note("a", 1)]).await), [3]);
        let missing = db.nodes().await.unwrap();
        assert_eq!((missing[0].top, missing[0].missing), (5, 1));
        let gap = Body::Gap(Gap {
            from: 4,
            through: 4,
            heal: 0,
        });
        assert_eq!(through(&store(&db, &[envelope("a", 6, gap)]).await), [6]);
        let late = store(&db, &[note("a", 4), note("a", 6)]).await;
        assert_eq!((late.new, late.duplicates, through(&late)), (0, 2, vec![6]));
        assert_eq!(db.nodes().await.unwrap()[0].lost, 1);
        // A gap that stands at the last number it names.
        let gap = Body::Gap(Gap {
            from: 7,
            through: 9,
            heal: 0,
        });
        let next = [note("a", 10), envelope("a", 9, gap)];
        assert_eq!(through(&store(&db, &next).await), [10]);
        let again = store(&db, &[note("a", 8)]).await;
        assert_eq!((again.duplicates, through(&again)), (1, vec![10]));
        assert_eq!(db.acknowledged().await.unwrap(), again.acks);
    });
}

#[test]
fn a_stream_belongs_to_the_node_that_began_it() {
    let folder = tempfile::tempdir().unwrap();
    wait(async {
        let db = Db::open(folder.path()).await.unwrap();
        store(&db, &[note("a", 1)]).await;
        let mut stranger = note("a", 2);
        stranger.node = NodeId::new("b").unwrap();
        let stored = store(&db, &[stranger, note("a", 2)]).await;
        assert_eq!(stored.refused[0].reason, Reason::Owner);
        assert_eq!((stored.new, through(&stored)), (1, vec![2]));
    });
}

async fn forgotten(db: &Db, of: &Envelope, through: u64) -> Stored {
    let word = Forgotten {
        node: of.node.clone(),
        stream: of.stream,
        through,
    };
    db.store(&[], &[], &[word], 1).await.unwrap()
}

#[test]
fn what_a_node_has_forgotten_is_counted_as_lost_and_stops_nothing() {
    let folder = tempfile::tempdir().unwrap();
    wait(async {
        let db = Db::open(folder.path()).await.unwrap();
        // Before the first record there is no stream to speak of.
        assert_eq!(forgotten(&db, &note("a", 1), 9).await, Stored::default());
        assert!(db.nodes().await.unwrap().is_empty());
        // Records on both sides, and a hole that the node itself told of.
        let gap = Body::Gap(Gap {
            from: 5,
            through: 6,
            heal: 0,
        });
        let part = [note("a", 3), envelope("a", 8, gap), note("a", 11)];
        assert_eq!(through(&store(&db, &part).await), [0]);
        let stored = forgotten(&db, &note("a", 1), 9).await;
        // 1, 2, 4, 7 and 9.
        assert_eq!((through(&stored), stored.lost), (vec![9], 5));
        assert_eq!(db.nodes().await.unwrap()[0].lost, 5 + 2);
        assert_eq!(through(&store(&db, &[note("a", 10)]).await), [11]);
        // An old retained word, the same again, and another node's.
        for (of, old) in [("a", 4), ("a", 11), ("b", 50)] {
            assert_eq!(forgotten(&db, &note(of, 1), old).await, Stored::default());
        }
        let mut stranger = note("a", 1);
        stranger.node = NodeId::new("b").unwrap();
        assert_eq!(forgotten(&db, &stranger, 50).await, Stored::default());
        // A stream that is no longer the node's.
        let mut fresh = note("a", 1);
        fresh.stream = StreamId([9; 16]);
        store(&db, std::slice::from_ref(&fresh)).await;
        let old = forgotten(&db, &note("a", 1), 50).await;
        assert_eq!((through(&old), old.lost), (vec![11], 0));
        assert_eq!(through(&forgotten(&db, &fresh, 4).await), [4]);
    });
}

#[test]
fn refused_messages_are_kept_within_a_bound() {
    let folder = tempfile::tempdir().unwrap();
    wait(async {
        let db = Db::open(folder.path()).await.unwrap();
        let storm = vec![Refused::new(Reason::Malformed, b"t", b"xyz", "bad"); 700];
        for _ in 0..3 {
            db.store(&[], &storm, &[], 1).await.unwrap();
        }
        let kept: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM rejected")
            .fetch_one(&db.read)
            .await
            .unwrap();
        assert_eq!(kept, 1000);
    });
}

#[test]
fn two_coordinators_do_not_share_a_database() {
    let folder = tempfile::tempdir().unwrap();
    wait(async {
        let first = Db::open(folder.path()).await.unwrap();
        assert!(matches!(
            Db::open(folder.path()).await,
            Err(DbError::InUse(_))
        ));
        first.close().await;
        drop(first);
        Db::open(folder.path()).await.unwrap();
    });
}

#[test]
fn an_incident_tells_its_story_in_causal_order() {
    let folder = tempfile::tempdir().unwrap();
    wait(async {
        let db = Db::open(folder.path()).await.unwrap();
        let mut all = story("a", 1);
        // Another node saw the consequence, with a clock that is a day behind.
        let mut remote = note("b", 1);
        remote.hlc = Hlc::new(1_789_913_600_000, 0);
        remote.causes = vec![EventRef {
            stream: all[1].stream,
            seq: all[1].seq,
        }];
        all.push(remote);
        all.reverse();
        store(&db, &all).await;
        let (incident, events, cut) = db.incident(1).await.unwrap().unwrap();
        assert!(!cut);
        assert_eq!(incident.state, IncidentState::Closed);
        assert_eq!(incident.outcome.as_deref(), Some("healed"));
        assert_eq!(incident.plan.as_deref(), Some("restart(web, grace=0ms)"));
        assert_eq!(
            (incident.source.as_deref(), incident.refusals),
            (Some("reflex"), 1)
        );
        assert_eq!(
            (incident.connected, incident.lasted_ms),
            (Some(false), Some(7))
        );
        let order: Vec<_> = causal_order(events)
            .iter()
            .map(|event| format!("{}{} {}", event.node, event.seq, event.kind))
            .collect();
        assert_eq!(
            order,
            [
                "a1 service",
                "a2 incident-opened",
                "a3 alarm",
                "a4 decided",
                "a5 step",
                "a6 step",
                "a7 service",
                "a8 incident-closed",
                "a9 alarm",
                // It came with the rest, and a day of its clock says nothing.
                "b1 note"
            ]
        );
        assert_eq!(db.services(Some("a")).await.unwrap()[0].state, "healthy");
        assert!(db.alarms(Some(true)).await.unwrap().is_empty());
    });
}

#[test]
fn an_alarm_stands_since_its_first_raise_until_it_is_cleared_or_the_agent_starts() {
    let folder = tempfile::tempdir().unwrap();
    wait(async {
        let db = Db::open(folder.path()).await.unwrap();
        let told = [
            (ring("a", 1, true), (true, 1)),
            (ring("a", 2, true), (true, 1)),
            (ring("a", 3, false), (false, 3)),
            (ring("a", 4, true), (true, 4)),
            (start("a", 5), (false, 5)),
            (ring("a", 6, true), (true, 6)),
            (ring("a", 7, true), (true, 6)),
        ];
        for (record, (raised, since)) in told {
            store(&db, &[record]).await;
            let alarm = &db.alarms(None).await.unwrap()[0];
            assert_eq!(
                (alarm.raised, alarm.since_ms),
                (raised, 1_790_000_000_000 + since)
            );
        }
    });
}

#[test]
fn a_rebuilt_store_ends_what_the_old_one_said() {
    let folder = tempfile::tempdir().unwrap();
    wait(async {
        let db = Db::open(folder.path()).await.unwrap();
        store(&db, &story("a", 1)[..4]).await;
        assert_eq!(db.gauges().await.unwrap().open_incidents, 1);
        assert_eq!(db.alarms(Some(true)).await.unwrap().len(), 1);
        let mut fresh = note("a", 1);
        fresh.stream = StreamId([9; 16]);
        store(&db, &[fresh]).await;
        let (incident, _, _) = db.incident(1).await.unwrap().unwrap();
        assert_eq!(incident.state, IncidentState::Abandoned);
        assert_eq!(db.gauges().await.unwrap().open_incidents, 0);
        assert!(db.alarms(None).await.unwrap().is_empty());
    });
}

#[test]
fn what_is_forgotten_is_still_known_as_a_duplicate_and_open_incidents_stay() {
    let folder = tempfile::tempdir().unwrap();
    wait(async {
        let db = Db::open(folder.path()).await.unwrap();
        let ended = story("a", 1);
        let open = &story("a", 10)[..4];
        store(&db, &ended).await;
        store(&db, open).await;
        store(&db, &[note("a", 20)]).await;
        // The service change, alarm of the open one; not its own two records,
        // nor what lies behind the hole.
        assert_eq!(db.forget(u64::MAX / 2).await.unwrap(), 9 + 2);
        let again = store(&db, &ended).await;
        assert_eq!((again.new, again.duplicates), (0, 9));
        assert_eq!(through(&again), [13]);
        assert!(db.incident(1).await.unwrap().is_none());
        let (kept, events, _) = db.incident(2).await.unwrap().unwrap();
        assert_eq!((kept.state, events.len()), (IncidentState::Open, 2));
        assert_eq!(db.alarms(Some(true)).await.unwrap().len(), 1);
    });
}

/// What may be asked of both the database and the model.
#[derive(Debug, PartialEq)]
struct Known {
    stored: BTreeSet<(String, u64)>,
    acked: BTreeMap<String, u64>,
    incidents: BTreeMap<(String, u64), Incident>,
    services: Vec<crate::fleet::view::Service>,
    alarms: Vec<crate::fleet::view::Alarm>,
    routes: Vec<crate::fleet::view::Route>,
    budgets: Vec<crate::fleet::view::Budget>,
}

async fn known(db: &Db) -> Known {
    let all = EventQuery {
        limit: 10_000,
        ..EventQuery::default()
    };
    let events = db.events(&all).await.unwrap();
    let incidents = db
        .incidents(&IncidentQuery {
            limit: 10_000,
            ..IncidentQuery::default()
        })
        .await
        .unwrap();
    let stored: BTreeSet<_> = events.iter().map(|e| (e.node.clone(), e.seq)).collect();
    assert_eq!(stored.len(), events.len(), "an event is stored twice");
    Known {
        stored,
        acked: db
            .nodes()
            .await
            .unwrap()
            .into_iter()
            .map(|node| (node.node, node.acked))
            .collect(),
        // The number in the fleet goes by arrival.
        incidents: incidents
            .into_iter()
            .map(|i| ((i.node.clone(), i.number), Incident { id: 0, ..i }))
            .collect(),
        services: db.services(None).await.unwrap(),
        alarms: db.alarms(None).await.unwrap(),
        routes: db.routes(None).await.unwrap(),
        budgets: db.budgets().await.unwrap(),
    }
}

#[derive(Debug, Clone)]
enum Happens {
    /// A batch of records, by place in the list of all that are sent.
    Batch(Vec<usize>),
    /// The process ends and starts again.
    Restart,
}

fn happenings() -> impl Strategy<Value = Vec<Happens>> {
    let one = prop_oneof![
        6 => prop::collection::vec(0usize..64, 1..20).prop_map(Happens::Batch),
        1 => Just(Happens::Restart),
    ];
    prop::collection::vec(one, 0..12)
}

/// Two nodes; the first lost events 10 to 12 and says so in 13.
fn all_that_is_sent() -> Vec<Envelope> {
    let mut all = story("a", 1);
    all.push(envelope(
        "a",
        13,
        Body::Gap(Gap {
            from: 10,
            through: 12,
            heal: 1,
        }),
    ));
    all.extend(story("a", 14));
    all.extend(story("b", 1));
    all.extend((10..14).map(|seq| note("b", seq)));
    let raised = [true, true, false, true, true];
    all.extend(
        (14..)
            .zip(raised)
            .map(|(seq, raised)| ring("b", seq, raised)),
    );
    all.push(start("b", 19));
    all.push(start("b", 20));
    all.extend((21..24).map(|seq| ring("b", seq, true)));
    all.extend([route("b", 24, "infer"), route("b", 25, "store")]);
    all.extend([route("b", 26, "infer"), route("b", 27, "infer")]);
    all.push(budgets(
        "b",
        28,
        [Criticality::BestEffort, Criticality::Mission],
    ));
    all.push(charge("b", 29, Criticality::Mission));
    all.push(budgets(
        "b",
        30,
        [Criticality::BestEffort, Criticality::Business],
    ));
    all.push(charge("b", 31, Criticality::BestEffort));
    all
}

#[test]
fn of_each_class_the_newest_word_stands_and_what_was_paid_is_told() {
    use Criticality::{BestEffort, Business, Mission};
    wait(async {
        let folder = tempfile::tempdir().unwrap();
        let db = Db::open(folder.path()).await.unwrap();
        let newer = [
            charge("a", 3, Mission),
            budgets("a", 2, [Mission, Business]),
        ];
        assert_eq!(store(&db, &newer).await.charged.len(), 1);
        store(&db, &[budgets("a", 1, [Business, BestEffort])]).await;
        let budgets = db.budgets().await.unwrap();
        let told: Vec<_> = budgets
            .iter()
            .map(|one| (one.class.as_str(), one.balance, one.overruns))
            .collect();
        let expected = [
            ("best-effort", 21.0, 1),
            ("business", 22.0, 2),
            ("mission", 23.0, 3),
        ];
        assert_eq!(told, expected);
        assert_eq!(db.nodes().await.unwrap()[0].budgets, budgets);
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever was stored before, every number up to the word is afterwards
    /// either stored or counted as lost, once, and the run goes on behind it.
    #[test]
    fn a_word_of_what_is_gone_closes_exactly_the_holes(
        before in prop::collection::btree_set(1u64..40, 1..20),
        words in prop::collection::vec(0u64..40, 1..4),
    ) {
        let folder = tempfile::tempdir().unwrap();
        wait(async {
            let db = Db::open(folder.path()).await.unwrap();
            let batch: Vec<_> = before.iter().map(|seq| note("a", *seq)).collect();
            store(&db, &batch).await;
            for word in &words {
                forgotten(&db, &note("a", 1), *word).await;
            }
            let most = words.iter().max().copied().unwrap_or(0);
            let run = (most + 1..).take_while(|seq| before.contains(seq)).last().unwrap_or(most);
            let whole = (1..).take_while(|seq| before.contains(seq)).last().unwrap_or(0);
            let node = &db.nodes().await.unwrap()[0];
            assert_eq!(node.acked, run.max(whole));
            let holes = (1..=most).filter(|seq| !before.contains(seq)).count();
            assert_eq!(node.lost, holes as u64);
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Duplicates, any order, batches of any size, restarts: after everything
    /// came at least once, the database says what it says after everything came
    /// once and in order; and on the way it acknowledges exactly the unbroken
    /// run.
    #[test]
    fn ingest_is_idempotent_and_commutes(happenings in happenings(), seed in any::<u64>()) {
        let sent = all_that_is_sent();
        let folder = tempfile::tempdir().unwrap();
        let straight = tempfile::tempdir().unwrap();
        wait(async {
            let mut db = Db::open(folder.path()).await.unwrap();
            let mut model: BTreeMap<NodeId, BTreeSet<u64>> = BTreeMap::new();
            let mut rest: Vec<usize> = (0..sent.len()).collect();
            fastrand::Rng::with_seed(seed).shuffle(&mut rest);
            let end = rest.chunks(7).map(|part| Happens::Batch(part.to_vec()));
            for happening in happenings.into_iter().chain(end) {
                let Happens::Batch(places) = happening else {
                    db.close().await;
                    drop(db);
                    db = Db::open(folder.path()).await.unwrap();
                    continue;
                };
                let batch: Vec<_> = places.iter().filter_map(|at| sent.get(*at)).cloned().collect();
                let stored = store(&db, &batch).await;
                assert_eq!(stored.new + stored.duplicates, batch.len() as u64);
                for envelope in &batch {
                    model.entry(envelope.node.clone()).or_default().insert(envelope.seq);
                }
                for ack in &stored.acks {
                    let mut seen = model[&ack.node].clone();
                    if ack.node.as_str() == "a" && seen.contains(&13) {
                        seen.extend(10..=12);
                    }
                    let run = (1..).take_while(|seq| seen.contains(seq)).last().unwrap_or(0);
                    assert_eq!(ack.through, run, "{seen:?}");
                }
            }
            let once = Db::open(straight.path()).await.unwrap();
            store(&once, &sent).await;
            let end = known(&db).await;
            assert_eq!(end, known(&once).await);
            assert_eq!(end.stored.len(), sent.len());
            assert_eq!(end.incidents.len(), 3);
            let weights: Vec<_> = end.routes.iter().map(|r| r.backends[0].weight).collect();
            assert_eq!(weights, [27, 25], "the newest word of each route");
        });
    }
}
