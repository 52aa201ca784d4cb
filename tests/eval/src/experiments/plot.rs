//! Pictures of what policies recover, as SVG, from the rows of a report.
//!
//! In goes a report with rows `policies.POLICY.recovered`, `policies.POLICY.STRATUM.recovered`
//! and `policies.POLICY.by_60s.recovered`; out come files in a folder, one for each sort of
//! row that is there. Everything is black on white or told apart by dashes and labels, so
//! grey is enough. Nothing is computed here: what a picture shows stands in the table.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use plotters::coord::Shift;
use plotters::element::{CoordMapper, DashedPathElement, Drawable, PointCollection};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::result::{Report, Row};

/// Height of one policy's line.
const LINE: i32 = 26;
/// Width of one panel.
const PANEL: i32 = 210;
/// Between panels.
const GAP: i32 = 26;
/// Room for names of policies: the longest has 18 letters.
const NAMES: i32 = 150;
/// Room above panels, for title and heads.
const TOP: i32 = 84;
/// Room below, for the axis.
const BOTTOM: i32 = 58;
/// Text of names and heads, and of axes.
const TEXT: i32 = 14;
const SMALL: i32 = 12;

const GREY: RGBColor = RGBColor(120, 120, 120);
const PALE: RGBColor = RGBColor(222, 222, 222);
/// Dark enough on white, and apart in grey as well.
static INKS: [RGBColor; 5] = [
    RGBColor(0, 0, 0),
    RGBColor(0, 84, 147),
    RGBColor(178, 24, 43),
    RGBColor(27, 120, 55),
    RGBColor(118, 42, 131),
];

/// A share of one policy.
struct Share<'r> {
    policy: String,
    row: &'r Row,
}

/// The shares of a key, in the order of the report.
fn shares<'r>(report: &'r Report, key: &str) -> Vec<Share<'r>> {
    let end = if key.is_empty() {
        ".recovered".to_owned()
    } else {
        format!(".{key}.recovered")
    };
    let all = report.rows.iter().filter_map(|row| {
        let policy = row.id.strip_prefix("policies.")?.strip_suffix(&end)?;
        (!policy.contains('.')).then(|| Share {
            policy: policy.replace('_', "-"),
            row,
        })
    });
    all.collect()
}

/// All keys of a report, as they come.
fn keys(report: &Report) -> Vec<String> {
    let mut keys: Vec<String> = Vec::new();
    for row in &report.rows {
        let parts: Vec<&str> = row.id.split('.').collect();
        if let ["policies", _, key, "recovered"] = parts.as_slice()
            && !keys.iter().any(|known| known == key)
        {
            keys.push((*key).to_owned());
        }
    }
    keys
}

/// Draws what there is into a folder; the files that were written.
///
/// # Errors
/// When the folder cannot be written.
pub fn policies(report: &Report, dir: &Path) -> Result<Vec<PathBuf>> {
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let keys = keys(report);
    let among = |starts: &[&str]| -> Vec<(String, String)> {
        let mut found: Vec<(usize, &String)> = keys
            .iter()
            .filter_map(|key| {
                let at = starts.iter().position(|start| key.starts_with(start))?;
                Some((at, key))
            })
            .collect();
        found.sort();
        let head = |(_, key): (usize, &String)| (key.clone(), head(key));
        found.into_iter().map(head).collect()
    };
    let mut files = Vec::new();
    let mut draw = |name: &str, title: &str, mut panels: Vec<(String, String)>, whole: bool| {
        if panels.is_empty() && !whole {
            return Ok(());
        }
        if whole {
            panels.insert(0, (String::new(), "all incidents".to_owned()));
        }
        let file = dir.join(name);
        if dots(report, title, &panels, &file)? {
            files.push(file);
        }
        Ok::<(), anyhow::Error>(())
    };
    draw(
        "recovered-by-steps.svg",
        "Share of incidents recovered, by the least number of steps that end them",
        among(&["steps_1", "steps_2", "steps_3", "steps_over", "hard"]),
        true,
    )?;
    draw(
        "recovered-by-novelty.svg",
        "Share of incidents recovered, by their distance from all training incidents",
        among(&["novelty_low", "novelty_mid", "novelty_high", "new"]),
        false,
    )?;
    let file = dir.join("recovered-over-time.svg");
    if course(report, &keys, &file)? {
        files.push(file);
    }
    Ok(files)
}

/// What a stratum is called above its panel.
fn head(key: &str) -> String {
    match key {
        "hard" => "hard".to_owned(),
        "new" => "unlike all of training".to_owned(),
        "novelty_low" => "near".to_owned(),
        "novelty_mid" => "farther".to_owned(),
        "novelty_high" => "far".to_owned(),
        _ => {
            let steps = key.trim_start_matches("steps_");
            match steps.strip_prefix("over_") {
                Some(most) => format!("more than {most} steps"),
                None if steps == "1" => "1 step".to_owned(),
                None => format!("{steps} steps"),
            }
        }
    }
}

/// A white picture with its title, and the file that it goes to.
struct Sheet<'f> {
    root: DrawingArea<SVGBackend<'f>, Shift>,
    file: &'f Path,
}

impl<'f> Sheet<'f> {
    fn new(file: &'f Path, (width, height): (i32, i32), title: &str) -> Result<Self> {
        let size = (u32::try_from(width)?, u32::try_from(height)?);
        let root = SVGBackend::new(file, size).into_drawing_area();
        let sheet = Self { root, file };
        let filled = sheet.root.fill(&WHITE);
        filled.map_err(|why| sheet.failed(&why))?;
        let bold = ("sans-serif", 16, FontStyle::Bold).into_font();
        let style = at(&bold.color(&BLACK), HPos::Left, VPos::Top);
        sheet.text(title, (12, 12), style)?;
        Ok(sheet)
    }

    fn draw<E, B: CoordMapper>(&self, element: &E) -> Result<()>
    where
        for<'e> &'e E: PointCollection<'e, (i32, i32), B>,
        E: Drawable<SVGBackend<'f>, B>,
    {
        let drawn = self.root.draw(element);
        drawn.map_err(|why| self.failed(&why))
    }

    fn line(&self, points: Vec<(i32, i32)>, style: impl Into<ShapeStyle>) -> Result<()> {
        self.draw(&PathElement::new(points, style))
    }

    fn text(&self, words: &str, place: (i32, i32), style: TextStyle<'static>) -> Result<()> {
        self.draw(&Text::new(words.to_owned(), place, style))
    }

    fn finish(self) -> Result<()> {
        self.root.present().map_err(|why| self.failed(&why))
    }

    fn failed(&self, why: &dyn std::fmt::Display) -> anyhow::Error {
        anyhow!("cannot draw {}: {why}", self.file.display())
    }
}

fn font(size: i32) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&BLACK)
}

fn at(style: &TextStyle<'static>, h: HPos, v: VPos) -> TextStyle<'static> {
    style.clone().pos(Pos::new(h, v))
}

/// Policies from top to bottom, a panel for each stratum, a dot with its interval for each
/// share. False when there is nothing to draw.
fn dots(report: &Report, title: &str, panels: &[(String, String)], file: &Path) -> Result<bool> {
    let mut order = shares(report, "");
    order.sort_by(|a, b| b.row.ours.total_cmp(&a.row.ours));
    if order.is_empty() {
        return Ok(false);
    }
    let count = i32::try_from(panels.len())?;
    let height = i32::try_from(order.len())? * LINE;
    let width = NAMES + count * (PANEL + GAP) + GAP;
    let sheet = Sheet::new(file, (width.max(560), TOP + height + BOTTOM), title)?;
    for (line, share) in order.iter().enumerate() {
        let y = TOP + LINE * i32::try_from(line)? + LINE / 2;
        let style = at(&font(TEXT), HPos::Right, VPos::Center);
        sheet.text(&share.policy, (NAMES - 10, y), style)?;
    }
    for (place, (key, name)) in panels.iter().enumerate() {
        let left = NAMES + i32::try_from(place)? * (PANEL + GAP);
        let shares = shares(report, key);
        let n = shares.iter().map(|share| share.row.n).max().unwrap_or(0);
        let middle = left + PANEL / 2;
        let style = at(&font(TEXT), HPos::Center, VPos::Top);
        sheet.text(name, (middle, TOP - 40), style)?;
        let style = at(&font(SMALL).color(&GREY), HPos::Center, VPos::Top);
        sheet.text(&format!("{n} episodes"), (middle, TOP - 22), style)?;
        frame(&sheet, (left, TOP), (PANEL, height))?;
        for (line, known) in order.iter().enumerate() {
            let Some(share) = shares.iter().find(|one| one.policy == known.policy) else {
                continue;
            };
            let y = TOP + LINE * i32::try_from(line)? + LINE / 2;
            dot(&sheet, share.row, (left, y))?;
        }
    }
    let words = "dot: share; line: 95 % interval over incidents and their seeds";
    let foot = at(&font(SMALL).color(&GREY), HPos::Left, VPos::Top);
    sheet.text(words, (12, TOP + height + 34), foot)?;
    sheet.finish()?;
    Ok(true)
}

/// Where a share lies in a panel.
fn x_of(share: f64, left: i32) -> i32 {
    #[allow(clippy::cast_possible_truncation)] // Within a panel.
    let x = (share.clamp(0.0, 1.0) * f64::from(PANEL)).round() as i32;
    left + x
}

/// A panel with its axis from 0 to 1.
fn frame(sheet: &Sheet<'_>, (left, top): (i32, i32), (width, height): (i32, i32)) -> Result<()> {
    for quarter in 0..=4 {
        let x = left + width * quarter / 4;
        let ink = if quarter % 4 == 0 { GREY } else { PALE };
        sheet.line(vec![(x, top), (x, top + height)], ink)?;
        if quarter % 2 == 0 {
            let label = ["0", "", "0.5", "", "1"][usize::try_from(quarter)?];
            let style = at(&font(SMALL), HPos::Center, VPos::Top);
            sheet.text(label, (x, top + height + 6), style)?;
        }
    }
    let (y, right) = (top + height, left + width);
    sheet.line(vec![(left, y), (right, y)], GREY)
}

fn dot(sheet: &Sheet<'_>, row: &Row, (left, y): (i32, i32)) -> Result<()> {
    let (low, high) = (x_of(row.low, left), x_of(row.high, left));
    sheet.line(vec![(low, y), (high, y)], BLACK.stroke_width(2))?;
    let middle = x_of(row.ours, left);
    sheet.draw(&Circle::new((middle, y), 5, BLACK.filled()))
}

/// Share recovered within so many seconds, a line for each policy with its name at the end.
fn course(report: &Report, keys: &[String], file: &Path) -> Result<bool> {
    const SIZE: (i32, i32) = (900, 560);
    const LEFT: i32 = 64;
    const RIGHT: i32 = 190;
    const HEAD: i32 = 56;
    const FOOT: i32 = 64;
    let mut times: Vec<(u32, &String)> = keys
        .iter()
        .filter_map(|key| {
            let seconds = key.strip_prefix("by_")?.strip_suffix('s')?;
            Some((seconds.parse().ok()?, key))
        })
        .collect();
    times.sort();
    let (Some((most, _)), true) = (times.last().copied(), times.len() > 1) else {
        return Ok(false);
    };
    let (width, height) = (SIZE.0 - LEFT - RIGHT, SIZE.1 - HEAD - FOOT);
    #[allow(clippy::cast_possible_truncation)] // Within the picture.
    let place = |seconds: u32, share: f64| {
        let x = f64::from(width) * f64::from(seconds) / f64::from(most);
        let y = f64::from(height) * (1.0 - share.clamp(0.0, 1.0));
        (LEFT + x.round() as i32, HEAD + y.round() as i32)
    };
    let mut lines: Vec<(String, Vec<(i32, i32)>)> = Vec::new();
    for (seconds, key) in &times {
        for share in shares(report, key) {
            let point = place(*seconds, share.row.ours);
            match lines.iter_mut().find(|(name, _)| *name == share.policy) {
                Some((_, points)) => points.push(point),
                None => lines.push((share.policy, vec![place(0, 0.0), point])),
            }
        }
    }
    // From top to bottom, as their names stand.
    lines.sort_by_key(|(_, points)| points.last().map_or(0, |point| point.1));
    let title = "Share of incidents recovered within so many seconds of their begin";
    let sheet = Sheet::new(file, SIZE, title)?;
    for quarter in 0..=4 {
        let share = f64::from(quarter) / 4.0;
        let (left, y) = place(0, share);
        sheet.line(vec![(left, y), (left + width, y)], PALE)?;
        let style = at(&font(SMALL), HPos::Right, VPos::Center);
        sheet.text(&format!("{share:.2}"), (left - 8, y), style)?;
    }
    for (seconds, _) in &times {
        let (x, y) = place(*seconds, 0.0);
        sheet.line(vec![(x, y), (x, y + 5)], GREY)?;
        let style = at(&font(SMALL), HPos::Center, VPos::Top);
        sheet.text(&seconds.to_string(), (x, y + 9), style)?;
    }
    let style = at(&font(SMALL), HPos::Center, VPos::Top);
    sheet.text("seconds", (LEFT + width / 2, SIZE.1 - 28), style)?;
    let ends: Vec<i32> = lines
        .iter()
        .map(|(_, points)| points.last().map_or(0, |point| point.1))
        .collect();
    let labels = apart(&ends, 17, HEAD, HEAD + height + 12);
    for (number, ((name, points), label)) in lines.iter().zip(labels).enumerate() {
        let ink = &INKS[number % INKS.len()];
        let style = ink.stroke_width(2);
        // Neighbours differ in colour, and each round of colours in its dashes.
        let dash = [0, 7, 2][number / INKS.len() % 3];
        if dash == 0 {
            sheet.line(points.clone(), style)?;
        } else {
            sheet.draw(&DashedPathElement::new(points.clone(), dash, 4, style))?;
        }
        let end = points.last().copied().unwrap_or((LEFT, HEAD));
        let lead = vec![(end.0 + 3, end.1), (end.0 + 18, label)];
        sheet.line(lead, GREY)?;
        let style = at(&font(TEXT).color(ink), HPos::Left, VPos::Center);
        sheet.text(name, (end.0 + 22, label), style)?;
    }
    sheet.finish()?;
    Ok(true)
}

/// Places near the wanted ones, which are sorted, at least `step` apart and within bounds
/// as far as there is room.
fn apart(wanted: &[i32], step: i32, top: i32, bottom: i32) -> Vec<i32> {
    let mut places = wanted.to_vec();
    let mut least = top;
    for place in &mut places {
        *place = (*place).max(least);
        least = *place + step;
    }
    let mut most = bottom;
    for place in places.iter_mut().rev() {
        *place = (*place).min(most);
        most = *place - step;
    }
    places
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::stats::Estimate;

    fn report() -> Report {
        let mut report = Report::new("policies", "test");
        let mut add = |id: &str, value: f64| {
            let estimate = Estimate {
                value,
                low: (value - 0.08).max(0.0),
                high: (value + 0.08).min(1.0),
                n: 206,
            };
            report
                .rows
                .push(Row::new(id, id, "ratio", estimate).higher());
        };
        let policies = [
            ("no_op", 0.01),
            ("random", 0.03),
            ("supervisor", 0.17),
            ("worst", 0.21),
            ("tolerance", 0.22),
            ("trial", 0.48),
            ("verified", 0.5),
            ("relevant", 0.52),
            ("search", 0.79),
            ("expert", 0.83),
            ("expert_left_out", 0.55),
            ("belief", 0.86),
            ("oracle", 1.0),
        ];
        for (policy, share) in policies {
            add(&format!("policies.{policy}.recovered"), share);
            for (key, factor) in [
                ("steps_1", 1.0),
                ("steps_2", 0.9),
                ("steps_over_2", 0.6),
                ("hard", 0.6),
                ("new", 0.5),
                ("novelty_low", 1.0),
                ("novelty_mid", 0.9),
                ("novelty_high", 0.7),
            ] {
                add(
                    &format!("policies.{policy}.{key}.recovered"),
                    share * factor,
                );
            }
            for seconds in [60, 120, 180, 240, 300, 420, 600] {
                let part = (f64::from(seconds) / 600.0).sqrt();
                add(
                    &format!("policies.{policy}.by_{seconds}s.recovered"),
                    share * part,
                );
            }
            add(&format!("policies.{policy}.spent"), 3.0);
        }
        report
    }

    #[test]
    fn each_sort_of_row_has_its_picture_with_every_policy_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let files = policies(&report(), dir.path()).unwrap();
        assert_eq!(files.len(), 3);
        for file in &files {
            let text = fs::read_to_string(file).unwrap();
            assert!(text.starts_with("<svg") && text.trim_end().ends_with("</svg>"));
            for name in ["no-op", "expert-left-out", "oracle"] {
                assert!(text.contains(name), "{} {name}", file.display());
            }
        }
        let steps = fs::read_to_string(&files[0]).unwrap();
        for head in [
            "all incidents",
            "1 step",
            "2 steps",
            "more than 2 steps",
            "hard",
        ] {
            assert!(steps.contains(head), "{head}");
        }
        // A dot for each policy in each panel.
        assert_eq!(steps.matches("<circle").count(), 13 * 5);
    }

    #[test]
    fn a_report_without_such_rows_has_no_picture() {
        let dir = tempfile::tempdir().unwrap();
        let empty = Report::new("policies", "test");
        assert_eq!(policies(&empty, dir.path()).unwrap(), Vec::<PathBuf>::new());
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(policies(&report(), &file).is_err());
    }

    #[test]
    fn labels_keep_apart_and_within_bounds() {
        assert_eq!(apart(&[10, 10, 50], 17, 0, 100), [10, 27, 50]);
        assert_eq!(apart(&[90, 95, 99], 17, 0, 100), [66, 83, 100]);
        let many = apart(&[100; 5], 17, 0, 100);
        assert!(many.windows(2).all(|pair| pair[1] - pair[0] >= 17));
    }
}
