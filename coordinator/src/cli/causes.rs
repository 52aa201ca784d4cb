//! `incident why`, and the parts of `incident show` that say why: the causal graph as text, the
//! suspects, what belongs together, whom it reached, and what would have been otherwise.
//! [`super::discover`] proposes links from stored measurements.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::client::{AskError, decode, get};
use super::table::{duration, or_dash, plain, table, utc};
use crate::fleet::diagnosis::{
    Basis, Causes, Coincident, Group, Impact, Link, Place, Role, Suspected, WhatIf, Why,
};

/// `incident why`
pub(super) fn why(
    url: &str,
    json: bool,
    name: &str,
    node: Option<&str>,
) -> Result<String, AskError> {
    let mut path = format!("/api/v1/why?service={}", escaped(name));
    // A checked name: nothing in it needs escaping.
    if let Some(node) = node {
        let _ = write!(path, "&node={node}");
    }
    let text = get(url, &path)?;
    if json {
        return Ok(text + "\n");
    }
    let all: Vec<Why> = decode(url, &text)?;
    let mut out = String::new();
    for (place, one) in all.iter().enumerate() {
        if place > 0 {
            out.push('\n');
        }
        let _ = writeln!(out, "{}", plain(&one.text));
        if let Some(incident) = one.incident {
            let state = if one.open { "open" } else { "over" };
            let _ = writeln!(out, "by incident {incident}, {state}");
        }
        for fault in &one.on_purpose {
            let _ = writeln!(out, "on purpose {}", plain(fault));
        }
        for link in &one.chain {
            let what = match link.role {
                Role::Alarmed => "alarmed",
                Role::Between => "on the way",
                Role::Root => "ROOT",
                Role::Below => "below it, no trouble seen",
            };
            let _ = writeln!(
                out,
                "{:<15}{:<40}{what}",
                link.place.level.to_string(),
                plain(&link.place.to_string())
            );
            for line in &link.evidence {
                let _ = writeln!(out, "{:<17}{}", "", plain(line));
            }
        }
    }
    if let Some(more) = all.last().map(|one| one.left_out).filter(|more| *more > 0) {
        let _ = writeln!(
            out,
            "\n{more} more of that name; --node NODE asks about one"
        );
    }
    Ok(out)
}

/// As a query takes it. A mount point or a link has other characters than a service.
fn escaped(name: &str) -> String {
    let mut out = String::new();
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                out.push(char::from(byte));
            }
            other => {
                let _ = write!(out, "%{other:02X}");
            }
        }
    }
    out
}

/// Who may be behind it, with the graph.
pub(super) fn causes(causes: &Causes) -> String {
    let mut out = String::from("\nwhy\n");
    let root = causes.suspects.first();
    let root = root.filter(|one| Some(&one.place) == causes.root.as_ref());
    match root {
        Some(root) => {
            let _ = writeln!(
                out,
                "likeliest    {}, {} sure",
                plain(&root.place.to_string()),
                percent(root.confidence)
            );
        }
        None => {
            let _ = writeln!(out, "likeliest    nobody is suspected: {}", causes.nobody());
        }
    }
    let rest = 1.0
        - causes
            .suspects
            .iter()
            .map(|one| one.confidence)
            .sum::<f64>();
    if rest > 0.005 && !causes.suspects.is_empty() {
        let _ = writeln!(out, "none of them {}", percent(rest));
    }
    if let Some(spared) = &causes.spared {
        let _ = writeln!(out, "waits        {}", plain(spared));
    }
    out.push_str(
        "graph        who needs whom; trouble comes from the right and below, ROOT is the \
         likeliest cause,\n             (explained away) has its trouble from another one, \
         - - - joins two that both need a third one\n",
    );
    draw(causes, &causes.alarmed, 0, &mut BTreeSet::new(), &mut out);
    for link in &causes.links {
        if let Some(by) = &link.confounded_by {
            let _ = writeln!(
                out,
                "  {} - - - {}: confounded, both need {}",
                plain(&link.from.to_string()),
                plain(&link.to.to_string()),
                plain(&by.to_string())
            );
        }
    }
    let rows = causes.suspects.iter().map(|one| {
        vec![
            one.place.to_string(),
            one.place.level.to_string(),
            percent(one.confidence),
            percent(one.share),
            or_dash(one.began_ms.map(since)),
            match &one.explained_by {
                Some(by) => format!("explained away by {by}"),
                None => one.evidence.first().cloned().unwrap_or_default(),
            },
        ]
    });
    let header = ["SUSPECT", "LEVEL", "SURE", "ITS PART", "SINCE", "EVIDENCE"];
    if !causes.suspects.is_empty() {
        out.push_str(&table(&header, &rows.collect::<Vec<_>>()));
    }
    for one in &causes.suspects {
        for line in one
            .evidence
            .iter()
            .skip(usize::from(one.explained_by.is_none()))
        {
            let _ = writeln!(out, "  {}: {}", plain(&one.place.to_string()), plain(line));
        }
    }
    if let Some(probe) = &causes.tell_apart {
        let between: Vec<String> = probe.between.iter().map(Place::to_string).collect();
        let _ = writeln!(
            out,
            "tell apart   {}: look at {}: {}",
            plain(&between.join(" and ")),
            plain(&probe.look_at.to_string()),
            plain(&probe.text)
        );
    }
    out
}

/// The graph as a tree: what is needed stands indented below who needs it, and once.
fn draw(
    causes: &Causes,
    place: &Place,
    depth: usize,
    seen: &mut BTreeSet<Place>,
    out: &mut String,
) {
    let suspect = causes.suspects.iter().find(|one| one.place == *place);
    let again = !seen.insert(place.clone());
    let line = format!(
        "{:indent$}{}{place}{}{}",
        "",
        if depth == 0 { "" } else { "needs " },
        mark(causes, place, suspect),
        if again { " (see above)" } else { "" },
        indent = 2 + 2 * depth
    );
    let _ = writeln!(out, "{}", plain(&line));
    if again {
        return;
    }
    let own = |link: &&Link| link.from == *place && link.confounded_by.is_none();
    for link in causes.links.iter().filter(own) {
        draw(causes, &link.to, depth + 1, seen, out);
    }
}

fn mark(causes: &Causes, place: &Place, suspect: Option<&Suspected>) -> String {
    let mut mark = String::new();
    if causes.root.as_ref() == Some(place) {
        mark.push_str("  <== ROOT");
    }
    match suspect {
        Some(one) if one.explained_by.is_some() => mark.push_str("  (explained away)"),
        Some(one) => {
            let _ = write!(mark, "  {}", percent(one.confidence));
        }
        None => {}
    }
    mark
}

/// What has the same cause.
pub(super) fn group(group: &Group, own: u64) -> String {
    let cause = group
        .cause
        .as_ref()
        .map_or("one cause".into(), Place::to_string);
    let mut out = format!(
        "\ngroup {}: {} incidents, from {}; it began with incident {}\n",
        group.id,
        group.members.len(),
        plain(&cause),
        group.root
    );
    let rows = group.members.iter().map(|member| {
        vec![
            format!(
                "{}{}",
                member.incident,
                if member.incident == own {
                    " (this)"
                } else {
                    ""
                }
            ),
            member.alarmed.to_string(),
            match (
                group.cause.as_ref() == Some(&member.alarmed),
                member.consequence,
            ) {
                (true, _) => "root",
                (false, true) => "consequence",
                (false, false) => "nearest to it",
            }
            .into(),
            member.because.clone().unwrap_or_default(),
        ]
    });
    out.push_str(&table(
        &["INCIDENT", "ALARMED", "IS", "BECAUSE"],
        &rows.collect::<Vec<_>>(),
    ));
    out
}

/// What only happened in the same while.
pub(super) fn coincident(all: &[Coincident]) -> String {
    let mut out = String::new();
    for one in all {
        let _ = writeln!(
            out,
            "coincidence  incident {}, {}: it began within {}; neither needs the other, and no cause \
             of both is known",
            one.incident,
            plain(&one.alarmed.to_string()),
            duration(one.away_ms.max(1_000))
        );
    }
    if !out.is_empty() {
        out.insert(0, '\n');
    }
    out
}

/// Whom it reached.
pub(super) fn impact(impact: &Impact) -> String {
    let mut out = String::from("\nimpact\n");
    let count = |value: Option<f64>| or_dash(value.map(|value| format!("{value:.0}")));
    match (impact.users, impact.failed) {
        (Some(users), _) => {
            let worst = impact.users_worst.filter(|worst| *worst > users);
            let worst = worst.map_or_else(String::new, |worst| {
                format!(", {worst} at the worst moment")
            });
            let _ = writeln!(
                out,
                "affected     {users} users over the worst five minutes{worst}"
            );
        }
        (None, Some(_)) => {
            out.push_str("affected     how many users a route has is not configured; in requests\n")
        }
        (None, None) => {}
    }
    let usual = if impact.usual_unknown {
        ", those that always fail among them: what is usual is not known"
    } else {
        ""
    };
    match (impact.failed, impact.seen_failed) {
        (Some(_), _) => {
            let _ = writeln!(out, "failed       {} requests{usual}", count(impact.failed));
        }
        (None, Some(seen)) => {
            let seen = percent(seen);
            let _ = writeln!(
                out,
                "failed       not known yet; seen at opening: {seen} of new connections failed"
            );
        }
        (None, None) => out.push_str("failed       not known: no route told of that time\n"),
    }
    if impact.asked_while_wrong.is_some() {
        let _ = writeln!(
            out,
            "wrong        some of about {} requests: so many came while health checks had wrong \
             answers",
            count(impact.asked_while_wrong)
        );
    }
    if !impact.routes.is_empty() {
        out.push_str(
            "counted      connections that were refused or broke; a forwarder sees no answers, \
             wrong ones are not among them\n",
        );
    }
    if impact.slow.is_some() {
        let _ = writeln!(
            out,
            "too slow     about {} requests, beyond the usual",
            count(impact.slow)
        );
    }
    if impact.unknown > 0 {
        let _ = writeln!(
            out,
            "unknown      {} routes where users come in",
            impact.unknown
        );
    }
    let rows = impact.routes.iter().map(|route| {
        let burns: Vec<String> = route
            .burns
            .iter()
            .map(|burn| {
                format!(
                    "{} in {}: {}{:.1} times too fast, {} of it spent",
                    burn.objective,
                    duration(burn.window_ms),
                    if burn.estimate { "about " } else { "" },
                    burn.rate,
                    percent(burn.spent)
                )
            })
            .collect();
        vec![
            format!("{} on {}", route.route, route.node),
            if route.entry { "yes" } else { "no" }.into(),
            match route.basis {
                Basis::Means => "means",
                Basis::Look => "one look",
            }
            .into(),
            match route.basis {
                Basis::Means => duration(route.to_ms.saturating_sub(route.from_ms)),
                Basis::Look => "-".into(),
            },
            count(route.asked),
            count(route.failed),
            or_dash(route.worst_failed.map(percent)),
            match (burns.is_empty(), route.basis) {
                (true, Basis::Means) => "no objective is configured".into(),
                (true, Basis::Look) => "not known yet".into(),
                (false, _) => burns.join("; "),
            },
        ]
    });
    if !impact.routes.is_empty() {
        let header = [
            "ROUTE",
            "ENTRY",
            "BY",
            "OVER",
            "REQUESTS",
            "FAILED",
            "WORST",
            "OBJECTIVE",
        ];
        out.push_str(&table(&header, &rows.collect::<Vec<_>>()));
    }
    out
}

/// What would have been otherwise.
pub(super) fn what_if(all: &[WhatIf]) -> String {
    if all.is_empty() {
        return String::new();
    }
    let mut out = String::from("\nwhat if\n");
    for one in all {
        let answer = one.estimate.map_or_else(
            || "not known".to_owned(),
            |found| {
                format!(
                    "{} ({} to {}) within {}",
                    percent(found.share),
                    percent(found.low),
                    percent(found.high),
                    duration(one.within_ms)
                )
            },
        );
        let _ = writeln!(out, "{} {answer}", plain(&one.question));
        let _ = writeln!(out, "  {}", plain(&one.rests_on));
        if let Some(by) = &one.by {
            if !one.identified {
                let hidden = plain(&one.not_adjusted_for.join(", "));
                let _ = writeln!(
                    out,
                    "  only what went along with it: not adjusted for {hidden}"
                );
            }
            let _ = writeln!(out, "  {}", plain(by));
        }
    }
    out
}

/// To the second: it comes from means over seconds.
fn since(began_ms: u64) -> String {
    let utc = utc(began_ms);
    utc.split_once('.')
        .map_or(utc.clone(), |(whole, _)| format!("{whole}Z"))
}

fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent > 0.0 && percent < 0.95 {
        return format!("{percent:.1} %");
    }
    format!("{percent:.0} %")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::diagnosis::{ChainLink, Estimate, Kind, Probe};

    fn place(kind: Kind, at: &str, name: &str) -> Place {
        Place::of(kind, at, name)
    }

    fn suspect(place: &Place, confidence: f64, explained_by: Option<&Place>) -> Suspected {
        Suspected {
            place: place.clone(),
            confidence,
            share: confidence,
            began_ms: None,
            evidence: vec![format!("{place} is \u{1b}[31mhot")],
            explained_by: explained_by.cloned(),
            incident: Some(1),
        }
    }

    fn known() -> Causes {
        let [gateway, infer, disk] = [
            place(Kind::Service, "west", "gateway"),
            place(Kind::Service, "east", "infer-1"),
            place(Kind::Part, "east", "sda"),
        ];
        let camera = place(Kind::Service, "east", "camera");
        let link = |from: &Place, to: &Place, by: Option<&Place>| Link {
            from: from.clone(),
            to: to.clone(),
            confounded_by: by.cloned(),
        };
        Causes {
            alarmed: gateway.clone(),
            root: Some(disk.clone()),
            suspects: vec![suspect(&disk, 0.6, None), suspect(&infer, 0.1, Some(&disk))],
            links: vec![
                link(&gateway, &infer, None),
                link(&infer, &disk, None),
                link(&disk, &gateway, None),
                link(&camera, &gateway, Some(&place(Kind::Node, "east", ""))),
            ],
            chain: vec![ChainLink {
                place: disk.clone(),
                role: Role::Root,
                evidence: Vec::new(),
            }],
            tell_apart: Some(Probe {
                between: vec![disk.clone(), infer],
                look_at: disk,
                text: "its time to answer".into(),
            }),
            grade: None,
            spared: None,
            affected: Vec::new(),
        }
    }

    #[test]
    fn the_graph_is_drawn_with_its_root_marked_and_ends_in_a_circle() {
        let text = causes(&known());
        for line in [
            "likeliest    sda of east, 60 % sure",
            "none of them 30 %",
            "  gateway on west\n",
            "    needs infer-1 on east  (explained away)\n",
            "      needs sda of east  <== ROOT  60 %\n",
            "        needs gateway on west (see above)\n",
            "  camera on east - - - gateway on west: confounded, both need node east\n",
            "explained away by sda of east",
            "tell apart   sda of east and infer-1 on east: look at sda of east: its time to answer",
        ] {
            assert!(text.contains(line), "{line:?} is not in\n{text}");
        }
        assert!(!text.contains('\u{1b}'), "a terminal obeys these");
    }

    #[test]
    fn what_is_not_known_is_said_to_be_so() {
        let text = impact(&Impact {
            unknown: 2,
            ..Impact::default()
        });
        assert!(text.contains("failed       not known"), "{text}");
        assert!(text.contains("unknown      2 routes"), "{text}");
        let text = impact(&Impact {
            seen_failed: Some(0.25),
            ..Impact::default()
        });
        let wanted = "not known yet; seen at opening: 25 % of new connections failed";
        assert!(text.contains(wanted), "{text}");
        let text = impact(&Impact {
            failed: Some(30.0),
            usual_unknown: true,
            asked_while_wrong: Some(1800.0),
            users: Some(4),
            users_worst: Some(40),
            ..Impact::default()
        });
        assert!(
            text.contains("30 requests, those that always fail among them"),
            "{text}"
        );
        assert!(
            text.contains("wrong        some of about 1800 requests"),
            "{text}"
        );
        let wanted = "4 users over the worst five minutes, 40 at the worst moment";
        assert!(text.contains(wanted), "{text}");
        let mut one = WhatIf {
            question: "Would it have healed by itself?".into(),
            action: None,
            within_ms: 60_000,
            estimate: None,
            identified: false,
            by: None,
            likes: 1,
            rests_on: "not known: 1".into(),
            adjusted_for: Vec::new(),
            not_adjusted_for: vec!["service".into()],
        };
        assert!(what_if(&[one.clone()]).contains("itself? not known\n"));
        one.estimate = Some(Estimate {
            share: 0.25,
            low: 0.005,
            high: 0.5,
        });
        one.by = Some("hidden".into());
        let text = what_if(&[one]);
        assert!(text.contains("25 % (0.5 % to 50 %) within 1m00s"), "{text}");
        assert!(
            text.contains("not adjusted for service\n  hidden\n"),
            "{text}"
        );
        assert_eq!(what_if(&[]), "");
    }
}
