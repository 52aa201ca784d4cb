//! Alarms of the coordinator, with the plans that they are about.

use homeostat_common::saga::Decision;
use homeostat_common::transaction::Ending;

use super::*;
use crate::io::db::own::{Acked, OwnAlarm, Word};
use crate::io::db::saga::{SagaState, Sites};

async fn decide(db: &Db, number: u64, place: u64, decision: Decision) {
    let state = SagaState {
        number,
        phase: "some",
        why: None,
        flag: None,
        steps: &[],
    };
    let (sites, now) = (Sites::new(), 10 + place);
    let stored = db.decide_saga(&state, &sites, place, &decision, now).await;
    stored.unwrap();
}

async fn begin(db: &Db, number: u64) {
    let plan = "n1: wait(1s)".parse().unwrap();
    let begun = Decision::Begun {
        plan,
        confidence: None,
    };
    decide(db, number, 0, begun).await;
}

async fn only(db: &Db) -> OwnAlarm {
    let mut alarms = db.own_alarms().await.unwrap();
    assert_eq!(alarms.len(), 1, "{alarms:?}");
    alarms.pop().unwrap()
}

async fn raised(db: &Db) -> Vec<(String, Option<String>)> {
    let alarms = db.alarms(Some(true)).await.unwrap();
    assert_eq!(db.gauges().await.unwrap().alarms, alarms.len() as u64);
    alarms
        .into_iter()
        .map(|one| (one.alarm, one.acked))
        .collect()
}

#[test]
fn the_alarm_of_a_plan_ends_with_it_and_is_kept_until_people_know() {
    let folder = tempfile::tempdir().unwrap();
    wait(async {
        let db = Db::open(folder.path()).await.unwrap();
        begin(&db, 7).await;
        assert!(db.own_alarms().await.unwrap().is_empty());
        db.flag_saga(7, "not over", false, 20).await.unwrap();
        let first = only(&db).await;
        assert_eq!((first.name.as_str(), first.raised), ("saga-7", true));
        assert_eq!(first.text, "not over (homeostat plan show 7)");
        db.alarm_told(first.number, Word::Raised, 2).await.unwrap();
        assert_eq!(
            db.acknowledge("saga-7", "anna").await.unwrap(),
            Acked::Stands
        );
        assert_eq!(raised(&db).await, [("saga-7".into(), Some("anna".into()))]);
        // The next life finds the same trouble, and anna deals with it.
        db.flag_saga(7, "still not over", false, 30).await.unwrap();
        let same = only(&db).await;
        assert_eq!((same.number, same.repeats), (first.number, 2));
        assert_eq!(
            (same.acked.as_deref(), same.told),
            (Some("anna"), Some(Word::Raised))
        );
        assert!(same.text.starts_with("still"), "{}", same.text);
        db.forget_alarm(same.number).await.unwrap();
        decide(&db, 7, 1, Decision::Ended(Ending::Undone)).await;
        assert!(!only(&db).await.raised);
        assert!(raised(&db).await.is_empty());
        assert_eq!(
            db.acknowledge("saga-7", "bert").await.unwrap(),
            Acked::Unknown
        );
        db.forget_alarm(same.number).await.unwrap();
        assert!(db.own_alarms().await.unwrap().is_empty());
    });
}

#[test]
fn a_plan_that_gets_stuck_calls_anew_whoever_deals_with_it_and_ends_when_heard() {
    let folder = tempfile::tempdir().unwrap();
    wait(async {
        let db = Db::open(folder.path()).await.unwrap();
        begin(&db, 7).await;
        db.flag_saga(7, "not over", false, 20).await.unwrap();
        let first = only(&db).await;
        db.acknowledge("saga-7", "anna").await.unwrap();
        for _ in 0..2 {
            db.flag_saga(7, "stuck", true, 30).await.unwrap();
        }
        let second = only(&db).await;
        assert_ne!(second.number, first.number);
        assert_eq!((second.acked, second.told, second.repeats), (None, None, 0));
        decide(&db, 7, 1, Decision::Ended(Ending::Stuck)).await;
        assert_eq!(raised(&db).await, [("saga-7".into(), None)]);
        // Also when the plan itself is forgotten: nobody has heard of it.
        db.forget(1000).await.unwrap();
        assert!(db.sagas(Some(7)).await.unwrap().is_empty());
        assert_eq!(db.acknowledge("saga-7", "anna").await.unwrap(), Acked::Over);
        let over = only(&db).await;
        assert_eq!((over.raised, over.acked.as_deref()), (false, Some("anna")));
    });
}

#[test]
fn an_alarm_that_comes_back_is_another_one_and_those_of_nodes_are_theirs() {
    let folder = tempfile::tempdir().unwrap();
    wait(async {
        let db = Db::open(folder.path()).await.unwrap();
        let set = |text| db.set_alarm("webhook-pager", Severity::Warning, text, 5);
        set(Some("status 401")).await.unwrap();
        let first = only(&db).await.number;
        set(Some("status 402")).await.unwrap();
        assert_eq!(only(&db).await.number, first);
        assert_eq!(
            db.acknowledge("webhook-pager", "anna").await.unwrap(),
            Acked::Stands
        );
        set(None).await.unwrap();
        set(Some("status 401")).await.unwrap();
        let second = only(&db).await;
        assert!(second.number > first && second.raised && second.acked.is_none());
        db.store(&[&ring("a", 1, true)], &[], &[], 1).await.unwrap();
        let of_node = db.alarms(Some(true)).await.unwrap();
        let of_node = of_node.iter().find(|one| one.node == "a").unwrap();
        assert_eq!(
            db.acknowledge(&of_node.alarm, "anna").await.unwrap(),
            Acked::OfNode
        );
        assert_eq!(
            db.acknowledge("nothing", "anna").await.unwrap(),
            Acked::Unknown
        );
    });
}
