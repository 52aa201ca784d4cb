//! Draws a [`Screen`]; the same screen gives the same frame.

use homeostat_common::observation::Level as LogLevel;
use homeostat_sim::world::Phase;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Paragraph, Sparkline};

use super::{NodeLine, Screen};

/// Users wait too long from here on, in milliseconds.
const SLOW_MS: f64 = 400.0;
/// And meet too many errors from here on.
const WRONG: f64 = 0.02;
/// Cells of a bar.
const BAR: usize = 20;

const GOOD: Style = Style::new().fg(Color::Green);
const BAD: Style = Style::new().fg(Color::Red).add_modifier(Modifier::BOLD);
const ODD: Style = Style::new().fg(Color::Yellow);
const DIM: Style = Style::new().fg(Color::DarkGray);
const HEAD: Style = Style::new().add_modifier(Modifier::BOLD);

pub(super) fn draw(frame: &mut Frame<'_>, screen: &Screen) {
    let [title, users, body, keys] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Length(4),
        Constraint::Min(3),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    head(frame, title, screen);
    served(frame, users, screen);
    let [left, right] =
        Layout::horizontal([Constraint::Percentage(50), Constraint::Percentage(50)])
            .spacing(2)
            .areas(body);
    let routes = u16::try_from(screen.routes.len()).unwrap_or(u16::MAX);
    let most = left.height / 2;
    let [above, below] = Layout::vertical([
        Constraint::Length(routes.saturating_add(2).min(most.max(3))),
        Constraint::Min(3),
    ])
    .areas(left);
    paragraph(
        frame,
        above,
        "ROUTES, as the healer sees them",
        route_lines(screen),
    );
    nodes(frame, below, screen);
    let [above, below] =
        Layout::vertical([Constraint::Percentage(45), Constraint::Percentage(55)]).areas(right);
    sees(frame, above, screen);
    does(frame, below, screen);
    let keys_text = "space pause   n next look   + - speed   e to the end   q quit";
    frame.render_widget(Paragraph::new(Line::styled(keys_text, DIM)), keys);
}

fn head(frame: &mut Frame<'_>, area: Rect, screen: &Screen) {
    let state = match (&screen.over, screen.paused) {
        (Some(_), _) => "over".to_owned(),
        (None, true) => "paused".to_owned(),
        (None, false) => format!("x{}", screen.speed),
    };
    let clock = format!("{:.0} of {:.0} s  {state}", screen.now, screen.end);
    let width = usize::from(area.width);
    let gap = width.saturating_sub(screen.title.chars().count() + clock.chars().count());
    let first = Line::from(vec![
        Span::styled(screen.title.clone(), HEAD),
        Span::raw(" ".repeat(gap.max(1))),
        Span::styled(clock, HEAD),
    ]);
    let second = match &screen.over {
        Some(how) => Line::styled(how.clone(), HEAD),
        None => Line::styled(fit(&screen.about, width), DIM),
    };
    frame.render_widget(Paragraph::new(vec![first, second]), area);
}

/// A bar of a share, without colour readable as well.
fn bar(share: f64) -> String {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Within 0 and 1.
    let full = (share.clamp(0.0, 1.0) * BAR as f64).round() as usize;
    format!("{}{}", "█".repeat(full), "░".repeat(BAR - full))
}

fn served(frame: &mut Frame<'_>, area: Rect, screen: &Screen) {
    let block = Block::new()
        .borders(Borders::TOP)
        .title("USERS ")
        .title_style(HEAD);
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let [left, right] = Layout::horizontal([Constraint::Min(76), Constraint::Percentage(40)])
        .spacing(2)
        .areas(inner);
    let word = if screen.served {
        Span::styled("served    ", GOOD)
    } else {
        Span::styled("NOT SERVED", BAD)
    };
    let value = |text: String, wrong: bool| Span::styled(text, if wrong { BAD } else { GOOD });
    let before = screen.now < screen.onset;
    let hidden = if before {
        "nothing has gone wrong yet".to_owned()
    } else {
        format!(
            "hidden: {} roots, {:.2} without a healer",
            screen.roots, screen.alone
        )
    };
    let budget = match screen.budget {
        Some(budget) => format!(
            "{} {:.1} of {budget:.1}",
            bar(screen.spent / budget.max(1e-9)),
            screen.spent
        ),
        None => format!("{:.1}, no limit", screen.spent),
    };
    let lines = vec![
        Line::from(vec![
            word,
            Span::raw("  errors "),
            value(format!("{:5.1} %", 100.0 * screen.err), screen.err >= WRONG),
            Span::raw("  p95 "),
            value(
                format!("{:6.0} ms", screen.p95_ms),
                screen.p95_ms >= SLOW_MS,
            ),
            Span::raw(format!(
                "  quality {:.3}  shed {:4.1} %",
                screen.quality,
                100.0 * screen.shed
            )),
        ]),
        Line::from(vec![
            Span::raw(format!(
                "health {} {:.2}  ",
                bar(screen.health),
                screen.health
            )),
            Span::styled(hidden, DIM),
        ]),
        Line::from(format!("spent  {budget}, {} orders", screen.orders)),
    ];
    frame.render_widget(Paragraph::new(lines), left);
    let width = usize::from(right.width);
    let from = screen.history.len().saturating_sub(width);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Within 0 and 100.
    let data = screen.history[from..]
        .iter()
        .map(|health| (health.clamp(0.0, 1.0) * 100.0) as u64);
    let line = Sparkline::default()
        .data(data)
        .max(100)
        .style(Style::new().fg(Color::Cyan));
    frame.render_widget(line, right);
}

fn paragraph(frame: &mut Frame<'_>, area: Rect, title: &str, lines: Vec<Line<'_>>) {
    let block = Block::new()
        .borders(Borders::TOP)
        .title(format!("{title} "))
        .title_style(HEAD);
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

fn route_lines(screen: &Screen) -> Vec<Line<'static>> {
    let head = format!(
        "{:<16}{:>9}{:>9}{:>9}{:>8}",
        "", "asked/s", "errors", "p95 ms", "waiting"
    );
    let mut lines = vec![Line::styled(head, DIM)];
    let mut routes: Vec<_> = screen.routes.iter().collect();
    // What is wrong comes first, where not all fit.
    routes.sort_by_key(|route| route.err < WRONG && route.p95_ms < SLOW_MS);
    lines.extend(routes.into_iter().map(|route| {
        let (wrong, slow) = (route.err >= WRONG, route.p95_ms >= SLOW_MS);
        let mark = if wrong || slow { "! " } else { "  " };
        let style = |is: bool| if is { BAD } else { Style::new() };
        Line::from(vec![
            Span::styled(mark, BAD),
            Span::raw(format!("{:<14.14}{:>9.1}", route.name, route.arrival)),
            Span::styled(format!("{:>7.1} %", 100.0 * route.err), style(wrong)),
            Span::styled(format!("{:>9.0}", route.p95_ms), style(slow)),
            Span::raw(format!("{:>8.0}", route.queue)),
        ])
    }));
    lines
}

fn nodes(frame: &mut Frame<'_>, area: Rect, screen: &Screen) {
    let mut order: Vec<&NodeLine> = screen.nodes.iter().collect();
    order.sort_by_key(|node| !node.ill());
    let room = usize::from(area.height.saturating_sub(1));
    let mut lines = Vec::new();
    let width = usize::from(area.width);
    for (at, node) in order.iter().enumerate() {
        let own = node_lines(node, width);
        let rest = order.len() - at;
        // The last line says how many more there are.
        if lines.len() + own.len() + usize::from(rest > 1) > room {
            lines.truncate(room.saturating_sub(1));
            let ill = order[at..].iter().filter(|node| node.ill()).count();
            let text = format!("  and {rest} more, {ill} of them ill");
            lines.push(Line::styled(text, DIM));
            break;
        }
        lines.extend(own);
    }
    let title = "NODES; what processes do is hidden from the healer";
    paragraph(frame, area, title, lines);
}

/// A node, on as many lines as its services take.
fn node_lines(node: &NodeLine, width: usize) -> Vec<Line<'static>> {
    const INDENT: usize = 28;
    let mark = if node.ill() { "! " } else { "  " };
    let told = if node.silent {
        "tells nothing".to_owned()
    } else {
        let busy = node.busy.map(|busy| format!("{:3.0} %", 100.0 * busy));
        let heat = node.heat.map(|heat| format!("{heat:3.0} °C"));
        format!(
            "{:>5} {:>6}",
            busy.as_deref().unwrap_or("-"),
            heat.as_deref().unwrap_or("-")
        )
    };
    let told_style = if node.silent { BAD } else { Style::new() };
    let mut spans = vec![
        Span::styled(mark, BAD),
        Span::styled(format!("{:<12.12}", node.name), HEAD),
        Span::styled(format!("{told:<14}"), told_style),
    ];
    let mut used = INDENT;
    let mut lines = Vec::new();
    for (name, phase) in &node.services {
        let (text, style) = match phase {
            Phase::Running => (name.clone(), GOOD),
            Phase::Standby => (format!("({name})"), DIM),
            Phase::Starting { .. } => (format!("{name}:starting"), ODD),
            Phase::Dead | Phase::Hung | Phase::Frozen => (format!("{name}:{}", phase.name()), BAD),
        };
        let takes = text.chars().count() + 1;
        if used + takes > width && used > INDENT {
            lines.push(Line::from(std::mem::take(&mut spans)));
            spans.push(Span::raw(" ".repeat(INDENT)));
            used = INDENT;
        }
        used += takes;
        spans.push(Span::styled(text, style));
        spans.push(Span::raw(" "));
    }
    lines.push(Line::from(spans));
    lines
}

fn sees(frame: &mut Frame<'_>, area: Rect, screen: &Screen) {
    let title = match screen.looked {
        Some(at) => format!("WHAT IT SEES, at {at:.0} s"),
        None => "WHAT IT SEES: nothing yet".to_owned(),
    };
    let mut lines = Vec::new();
    if screen.looked.is_some() && screen.alarms.is_empty() {
        lines.push(Line::styled("no alarm", DIM));
    }
    if !screen.alarms.is_empty() {
        let width = usize::from(area.width);
        lines.push(Line::from(vec![
            Span::styled("alarms ", BAD),
            Span::raw(fit(&screen.alarms.join(", "), width.saturating_sub(7))),
        ]));
    }
    for (level, count, service, text) in &screen.lines {
        let style = if *level >= LogLevel::Error { BAD } else { ODD };
        lines.push(Line::from(vec![
            Span::styled(format!("{count:>4} x "), style),
            Span::styled(format!("{service:<15.15} "), HEAD),
            Span::raw(text.clone()),
        ]));
    }
    paragraph(frame, area, &title, lines);
}

/// A text that ends in `..` where it is too long.
fn fit(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let cut: String = text.chars().take(width.saturating_sub(3)).collect();
    format!("{cut} ..")
}

fn does(frame: &mut Frame<'_>, area: Rect, screen: &Screen) {
    let block = Block::new()
        .borders(Borders::TOP)
        .title("WHAT IT DOES, AND WHAT HAPPENS ")
        .title_style(HEAD);
    let width = usize::from(area.width);
    let mut lines = Vec::new();
    match &screen.doing {
        Some(order) => hang(&mut lines, ("now  ", ODD), (order, Style::new()), width),
        None => lines.push(Line::styled("now  nothing", DIM)),
    }
    if !screen.why.is_empty() {
        hang(
            &mut lines,
            ("why  ", ODD),
            (&screen.why, Style::new()),
            width,
        );
    }
    for (at, what) in &screen.trace {
        let style = if what.starts_with("order") || what.starts_with("refused") {
            HEAD
        } else if what.starts_with("users are not") {
            BAD
        } else if what.starts_with("users are") {
            GOOD
        } else {
            Style::new()
        };
        hang(
            &mut lines,
            (&format!("{at:5.0} s  "), DIM),
            (what, style),
            width,
        );
    }
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

/// A text behind a head, its further lines below its first.
fn hang(
    lines: &mut Vec<Line<'static>>,
    (head, head_style): (&str, Style),
    (text, style): (&str, Style),
    width: usize,
) {
    let indent = head.chars().count();
    let room = width.saturating_sub(indent).max(8);
    let mut rows = vec![String::new()];
    for word in text.split(' ') {
        let used = rows.last().map_or(0, |row| row.chars().count());
        if used > 0 && used + 1 + word.chars().count() > room {
            rows.push(String::new());
        }
        if let Some(row) = rows.last_mut() {
            if !row.is_empty() {
                row.push(' ');
            }
            row.push_str(word);
        }
    }
    for (at, row) in rows.into_iter().enumerate() {
        let first = if at == 0 {
            head.to_owned()
        } else {
            " ".repeat(indent)
        };
        lines.push(Line::from(vec![
            Span::styled(first, head_style),
            Span::styled(row, style),
        ]));
    }
}
