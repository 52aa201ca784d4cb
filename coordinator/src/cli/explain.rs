//! `mqtt explain`: the topic table, in words.

use std::fmt::Write as _;

use homeostat_common::wire::topic::{ROOT, TABLE, Topic, Writer, find};

use super::table::{duration, table};

fn writer(writer: Writer) -> &'static str {
    match writer {
        Writer::Node => "node",
        Writer::Coordinator => "coordinator",
        Writer::Operator => "operator",
        Writer::Initiator => "initiator",
    }
}

fn expiry(row: &Topic) -> String {
    row.expiry_s
        .map_or_else(|| "-".into(), |s| duration(u64::from(s) * 1000))
}

/// One topic, or all.
pub(super) fn explain(topic: Option<&str>) -> Result<String, String> {
    let Some(topic) = topic else {
        let rows: Vec<Vec<String>> = TABLE
            .iter()
            .map(|row| {
                vec![
                    format!("{ROOT}/{}", row.pattern),
                    writer(row.writer).into(),
                    format!("{}{}", row.qos, if row.retained { "R" } else { "" }),
                    expiry(row),
                    row.payload.into(),
                ]
            })
            .collect();
        return Ok(table(
            &["TOPIC", "WRITER", "QOS", "EXPIRY", "PAYLOAD"],
            &rows,
        ));
    };
    let row = find(topic).ok_or_else(|| {
        format!("{topic}: no such topic; `homeostat mqtt explain` lists them all")
    })?;
    let mut text = String::new();
    let _ = writeln!(text, "topic    {ROOT}/{}", row.pattern);
    let _ = writeln!(text, "writer   {}", writer(row.writer));
    let kept = if row.retained { ", retained" } else { "" };
    let _ = writeln!(text, "qos      {}{kept}", row.qos);
    let _ = writeln!(text, "expiry   {}", expiry(row));
    let _ = writeln!(text, "payload  {}", row.payload);
    let _ = writeln!(text, "why      {}", row.why);
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_explained_and_a_wrong_one_is_refused() {
        let text = explain(Some("hs/v1/plant-7/edge-1/status")).unwrap();
        assert!(text.contains("writer   node"), "{text}");
        assert!(text.contains("qos      1, retained"), "{text}");
        assert!(explain(Some("hs/v1/x")).unwrap_err().starts_with("hs/v1/x"));
        assert_eq!(explain(None).unwrap().lines().count(), TABLE.len() + 1);
    }
}
