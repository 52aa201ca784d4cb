//! Alarms of other systems.

use super::*;
use crate::io::db::outside::{Said, Taken, Word};

fn alert(key: &str, since: Option<&str>) -> Word {
    Word::Alarm(Said {
        key: key.into(),
        name: "Hot".into(),
        nodes: Vec::new(),
        services: Vec::new(),
        severity: Severity::Warning,
        text: "92 C".into(),
        raised: true,
        since: since.map(str::to_owned),
    })
}

#[test]
fn a_time_that_cannot_be_is_no_reason_to_hide_all_alarms() {
    let folder = tempfile::tempdir().unwrap();
    wait(async {
        let db = Db::open(folder.path()).await.unwrap();
        let now = 1_790_000_000_000;
        let words = [
            alert("zero", Some("0001-01-01T00:00:00Z")),
            alert("never", Some("2026-13-45T99:99:99Z")),
            alert("later", Some("9999-12-31T23:59:59Z")),
            alert("real", Some("2026-09-21T14:13:20.5+02:00")),
            alert("none", None),
        ];
        db.take_outside("alertmanager", &words, now).await.unwrap();
        let mut since: Vec<u64> = db
            .alarms(None)
            .await
            .unwrap()
            .iter()
            .map(|alarm| alarm.since_ms)
            .collect();
        since.sort_unstable();
        assert_eq!(since, [0, 1_789_992_800_500, now, now, now]);
    });
}

#[test]
fn what_nobody_repeats_is_over_and_few_that_are_over_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    wait(async {
        let db = Db::open(folder.path()).await.unwrap();
        let lot = |round: u64| -> Vec<Word> {
            (0..8000)
                .map(|n| alert(&format!("{round} {n}"), None))
                .collect()
        };
        for round in 0..2 {
            let taken = db.take_outside("a", &lot(round), round).await.unwrap();
            assert_eq!(taken.standing, 8000);
            let ended = db.end_unheard("a", round + 1, round + 1).await.unwrap();
            let expected = Taken {
                resolved: 8000,
                ..Taken::default()
            };
            assert_eq!(ended, expected);
        }
        let kept = sqlx::query_scalar("SELECT COUNT(*) FROM outside_alarm WHERE NOT raised");
        let kept: i64 = kept.fetch_one(&db.read).await.unwrap();
        assert_eq!(kept, 10_000);
        assert_eq!(db.end_unheard("a", 9, 9).await.unwrap(), Taken::default());
    });
}
