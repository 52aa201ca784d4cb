//! What nodes measure, by their newest telemetry.

use homeostat_common::observation::Metric;
use homeostat_common::wire::body::{Aggregate, Telemetry};

use super::*;
use crate::fleet::readings::text;

fn telemetry(node: &str, seq: u64, busy: f32) -> Envelope {
    let one = |metric: Metric, value| Aggregate {
        metric: metric as u8,
        service: None,
        part: None,
        mean: value,
        max: value,
    };
    let series = vec![one(Metric::CpuBusy, busy), one(Metric::Backlog, 3.0)];
    let span = Millis::secs(300);
    envelope(node, seq, Body::Telemetry(Telemetry { span, series }))
}

#[test]
fn the_newest_that_came_lately_is_told_in_whatever_order_it_came() {
    let folder = tempfile::tempdir().unwrap();
    wait(async {
        let db = Db::open(folder.path()).await.unwrap();
        // As `store` has it.
        let came = 1_790_000_001_000;
        let busy = |of: Vec<(String, crate::fleet::readings::Told)>| -> Vec<String> {
            let text = text(&of);
            let lines = text.lines();
            let mean = lines.filter(|line| line.contains("cpu_busy{") && line.contains("mean"));
            mean.map(str::to_owned).collect()
        };
        assert!(busy(db.readings(0).await.unwrap()).is_empty());
        let batch = [
            telemetry("b", 1, 0.125),
            telemetry("a", 2, 0.5),
            note("a", 3),
            telemetry("a", 1, 0.25),
        ];
        store(&db, &batch).await;
        let expected = [
            "homeostat_node_cpu_busy{node=\"a\",of=\"mean\"} 0.5",
            "homeostat_node_cpu_busy{node=\"b\",of=\"mean\"} 0.125",
        ];
        assert_eq!(busy(db.readings(came).await.unwrap()), expected);
        assert_eq!(db.nodes().await.unwrap()[0].backlog, Some(3));
        assert!(busy(db.readings(came + 1).await.unwrap()).is_empty());
        // A store that began anew has measured nothing yet.
        let mut anew = note("a", 1);
        anew.stream = StreamId([9; 16]);
        store(&db, &[anew]).await;
        assert_eq!(busy(db.readings(came).await.unwrap()), expected[1..]);
    });
}

#[test]
fn what_was_measured_while_a_node_was_cut_off_is_found_by_when_it_was() {
    let folder = tempfile::tempdir().unwrap();
    wait(async {
        let db = Db::open(folder.path()).await.unwrap();
        let at = |minute: u64| 1_790_000_000_000 + minute * 60_000;
        // Its clock is an hour ahead; from the tenth minute to the fortieth it was cut off.
        for nth in 1..=10 {
            let mut one = telemetry("a", nth, 0.5);
            one.hlc = Hlc::new(at(60 + 5 * nth), 0);
            let came = match 5 * nth {
                made if made > 10 && made < 40 => at(40),
                made => at(made),
            };
            db.store(&[&one], &[], &[], came).await.unwrap();
        }
        let found = db.measured(&["a".into()], at(18), at(26)).await.unwrap();
        let mut when: Vec<u64> = found
            .iter()
            .map(|one| (one.at_ms - at(0)) / 60_000)
            .collect();
        when.sort_unstable();
        assert_eq!(when, [20, 25, 30, 35, 40], "and what spans may begin in it");
    });
}
