use std::sync::Arc;

use homeostat_sim::episode::Rules;
use homeostat_sim::policy::Baseline;
use homeostat_sim::topology::Topology;
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::*;

/// An episode after so many seconds, drawn.
fn frame(incident: &str, topology: &str, seconds: f64, size: (u16, u16)) -> (Screen, String) {
    let topology = Arc::new(Topology::named(topology).unwrap());
    let incident = match incident {
        "" => Incident::none(),
        name => Incident::named(name).unwrap(),
    };
    let rules = Rules {
        budget: Some(20.0),
        ..Rules::default()
    };
    let mut episode = Episode::new(&topology, &incident, 7, rules).unwrap();
    let mut healer = Baseline::Expert.healer(7);
    episode.watch();
    let mut screen = Screen::new(&episode, &healer, &incident, 7, 20);
    while episode.world().now() < seconds && screen.over.is_none() {
        screen.tick(&mut episode, &mut healer);
    }
    screen.note(&episode);
    let text = drawn(&screen, size);
    (screen, text)
}

fn drawn(screen: &Screen, (width, height): (u16, u16)) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw::draw(frame, screen)).unwrap();
    let buffer = terminal.backend().buffer();
    let mut text = String::new();
    for y in 0..height {
        for x in 0..width {
            text.push_str(buffer[(x, y)].symbol());
        }
        text.push('\n');
    }
    text
}

#[test]
fn before_the_incident_all_is_well_and_nothing_is_marked() {
    let (screen, text) = frame("deadlock", "reference", 50.0, (120, 40));
    assert!(
        text.contains("deadlock on reference, seed 7, healed by expert"),
        "{text}"
    );
    assert!(text.contains("served    ") && text.contains("nothing has gone wrong yet"));
    assert!(
        text.contains("now  nothing") && text.contains("50 of "),
        "{text}"
    );
    assert!(!text.contains("! edge") && !text.contains(":hung"));
    assert!(screen.looked.is_some());
}

#[test]
fn in_the_incident_one_reads_who_hangs_what_is_seen_what_is_done_and_why() {
    let (_, text) = frame("deadlock", "reference", 100.0, (120, 40));
    assert!(text.contains("NOT SERVED"), "{text}");
    assert!(text.contains("! edge-"), "{text}");
    assert!(text.contains(":hung"), "{text}");
    assert!(text.contains("alarms "), "{text}");
    let (screen, text) = frame("deadlock", "reference", 140.0, (120, 40));
    assert!(screen.orders > 0 && !screen.why.is_empty());
    assert!(text.contains("why  ") && text.contains("order 0"), "{text}");
    assert!(text.contains("of 20.0"), "{text}");
}

#[test]
fn the_end_is_told_and_stays() {
    let (screen, text) = frame("deadlock", "reference", 1e9, (120, 40));
    assert!(screen.over.is_some());
    assert!(
        text.contains("recovered after") && text.contains("over"),
        "{text}"
    );
}

#[test]
fn sixty_nodes_and_small_terminals_are_drawn_and_say_what_is_left_out() {
    let (_, text) = frame("", "city", 20.0, (80, 24));
    assert!(text.contains("more, 0 of them ill"), "{text}");
    for size in [(1, 1), (10, 3), (40, 12), (80, 24), (300, 100)] {
        let (_, text) = frame("deadlock", "reference", 110.0, size);
        assert_eq!(text.lines().count(), usize::from(size.1));
    }
}

#[test]
fn keys_do_what_the_last_line_says() {
    let topology = Arc::new(Topology::reference());
    let episode = Episode::new(&topology, &Incident::none(), 1, Rules::default()).unwrap();
    let healer = Baseline::NoOp.healer(1);
    let mut screen = Screen::new(&episode, &healer, &Incident::none(), 1, 20);
    let key = |code| Wish::of(KeyEvent::new(code, KeyModifiers::NONE));
    assert_eq!(key(KeyCode::Char('q')), Some(Wish::Quit));
    assert_eq!(key(KeyCode::Char('x')), None);
    let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(Wish::of(interrupt), Some(Wish::Quit));
    assert_eq!(screen.wish(key(KeyCode::Char(' ')).unwrap(), &episode), 0.0);
    assert!(screen.paused);
    assert_eq!(screen.wish(key(KeyCode::Char('n')).unwrap(), &episode), 5.0);
    for _ in 0..20 {
        screen.wish(Wish::Faster, &episode);
    }
    assert_eq!(i64::from(screen.speed), SPEED_MAX);
    for _ in 0..20 {
        screen.wish(Wish::Slower, &episode);
    }
    assert_eq!(screen.speed, 1);
    assert_eq!(screen.wish(Wish::End, &episode), episode.end());
}
