//! Events of several nodes in one order, and what was left alone.

use super::*;

#[test]
fn nodes_whose_clocks_are_an_hour_apart_interleave_as_it_happened() {
    let folder = tempfile::tempdir().unwrap();
    wait(async {
        let db = Db::open(folder.path()).await.unwrap();
        // Each record with when it happened and, by its place, when it came:
        // the clock of b is an hour ahead, and what c says was held back.
        let hour = 3_600_000;
        let moved = |mut envelope: Envelope, ms: u64| {
            envelope.hlc = Hlc::new(1_790_000_000_000 + ms, 0);
            envelope
        };
        let mut story = story("a", 1);
        for (place, record) in (0..).zip(&mut story) {
            record.hlc = Hlc::new(1_790_000_000_000 + 1_000 * place, 0);
        }
        let at = |ms: u64| 1_790_000_000_000 + ms;
        let mut came: Vec<(u64, Envelope)> = (0..)
            .zip(story)
            .map(|(place, record)| (at(1_000 * place + 20), record))
            .collect();
        came.push((at(3_510), moved(ring("b", 1, true), hour + 3_500)));
        came.push((at(5_510), moved(ring("b", 2, false), hour + 5_500)));
        came.push((at(900), moved(note("c", 1), 890)));
        came.push((at(400_000), moved(ring("c", 2, true), 4_500)));
        // Long over, and long before: not in the same while.
        came.push((at(500_000), moved(ring("c", 3, false), 499_000)));
        came.sort_by_key(|(at, _)| *at);
        for (at, record) in &came {
            db.store(&[record], &[], &[], *at).await.unwrap();
        }
        let (_, events, _) = db.incident(1).await.unwrap().unwrap();
        let order: Vec<_> = causal_order(events)
            .iter()
            .map(|e| format!("{}{}{}", if e.meanwhile { "~" } else { "" }, e.node, e.seq))
            .collect();
        assert_eq!(
            order,
            [
                "a1", "a2", "a3", "a4", "~b1", "a5", "~c2", "a6", "~b2", "a7", "a8", "a9"
            ]
        );
        let all = causal_order(db.timeline(None, 100).await.unwrap());
        let kinds: Vec<_> = all.iter().map(|e| format!("{}{}", e.node, e.seq)).collect();
        assert_eq!(
            kinds,
            [
                "c1", "a2", "a3", "a4", "b1", "a5", "c2", "a6", "b2", "a8", "a9", "c3"
            ]
        );
        let newest = db.timeline(Some(all[3].cursor), 1).await.unwrap();
        assert_eq!(newest[0].cursor, all[2].cursor);
        assert_eq!(all[1].incident, Some(1));
    });
}

#[test]
fn what_was_left_alone_is_listed_once_with_how_often() {
    let folder = tempfile::tempdir().unwrap();
    wait(async {
        let db = Db::open(folder.path()).await.unwrap();
        let frozen = |seq, raised| {
            let mut record = ring("b", seq, raised);
            if let Body::Alarm(alarm) = &mut record.body {
                alarm.alarm = "forwarder-frozen".into();
            }
            record
        };
        let mut refused = story("a", 1)[..4].to_vec();
        if let Body::Decided(decided) = &mut refused[3].body {
            decided.plan = None;
            decided.considered.pop();
        }
        store(&db, &refused).await;
        let rest = [
            frozen(1, true),
            frozen(2, true),
            ring("b", 3, true),
            note("b", 4),
        ];
        store(&db, &rest).await;
        // A plan that ran is no matter of this list.
        store(&db, &story("c", 1)).await;
        let told = |all: Vec<crate::fleet::view::LeftAlone>| -> Vec<String> {
            let line = |one: crate::fleet::view::LeftAlone| {
                let name = one.name.unwrap_or_default();
                let service = one.service.unwrap_or_default();
                format!("{} {service} {name} {} {}", one.node, one.times, one.stands)
            };
            all.into_iter().map(line).collect()
        };
        assert_eq!(
            told(db.left_alone().await.unwrap()),
            [
                "b   1 false",
                "b  forwarder-frozen 2 true",
                "a web hold 1 true"
            ]
        );
        store(&db, &[frozen(5, false)]).await;
        assert_eq!(
            told(db.left_alone().await.unwrap())[1],
            "b  forwarder-frozen 2 false"
        );
    });
}
