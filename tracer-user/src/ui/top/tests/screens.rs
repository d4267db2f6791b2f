//! What is drawn, whole.

use tracer_core::finding::Kind;
use tracer_core::snapshot::{Completeness, Loss};

use super::*;

/// The way to each screen worth looking at.
const WAYS: &[(&str, &[&str])] = &[
    ("endpoints", &[]),
    ("groups", &["2"]),
    ("processes", &["3"]),
    ("connections", &["4"]),
    ("findings", &["5"]),
    ("endpoint", &["Down", "Up", "s", "S", "End", "Home", "<", ">", "Enter"]),
    ("process", &["Enter", "Enter"]),
    ("connection", &["Enter", "Enter", "Down", "Enter"]),
    ("finding", &["5", "Enter"]),
    ("group", &["2", "Enter"]),
    ("hostile_process", &["3", "End", "Enter"]),
    ("hostile_finding", &["5", "End", "Enter"]),
    ("filter", &["4", "/", "c", "l", "o", "s", "e"]),
    ("filter_without_match", &["3", "/", "%"]),
    ("sorted", &["3", "<", "<", "r"]),
    ("help", &["?"]),
    ("paused", &["p", "Down"]),
];

#[test]
fn every_screen_in_three_sizes() {
    for (name, way) in WAYS {
        for (width, height) in [(80, 24), (120, 40), (40, 20)] {
            let mut seat = Seat::new(width, height);
            seat.press(way);
            insta::assert_snapshot!(format!("{name}_{width}x{height}"), seat.screen());
        }
    }
}

#[test]
fn without_unicode_there_is_nothing_but_ascii() {
    let ascii = Look { glyphs: Glyphs::Ascii, ..look(false) };
    for (name, way) in WAYS.iter().filter(|(name, _)| !name.contains("hostile")) {
        let mut seat = Seat::with(80, 24, ascii.clone(), Only::default());
        seat.press(way);
        let screen = seat.screen();
        // What processes are called is their own matter.
        let foreign = |c: &char| !c.is_ascii() && !fixture::HOSTILE.contains(*c);
        assert_eq!(screen.chars().find(foreign), None, "{name}:\n{screen}");
    }
}

#[test]
fn no_color_means_no_colour_and_the_same_text() {
    for (name, way) in WAYS {
        let mut plain = Seat::with(80, 24, look(false), Only::default());
        let mut coloured = Seat::new(80, 24);
        plain.press(way);
        coloured.press(way);
        assert_eq!(plain.screen(), coloured.screen(), "{name}");
        for cell in plain.draw().content() {
            assert_eq!((cell.fg, cell.bg), (ratatui::style::Color::Reset, ratatui::style::Color::Reset), "{name}");
        }
    }
    // With colour there is some: the test above looks at something.
    assert!(Seat::new(80, 24).draw().content().iter().any(|cell| cell.bg != ratatui::style::Color::Reset));
}

#[test]
fn hostile_names_reach_no_cell() {
    for (name, way) in WAYS {
        let mut seat = Seat::new(120, 40);
        seat.press(way);
        for cell in seat.draw().content() {
            let bad = |c: char| c.is_control() || c == '\u{202e}';
            assert!(!cell.symbol().contains(bad), "{name}: {:?}", cell.symbol());
        }
    }
}

#[test]
fn what_was_lost_is_said_in_the_banner() {
    let mut overview = fixture::overview();
    overview.capture.completeness = Completeness::LowerBound;
    overview.capture.totals = Completeness::LowerBound;
    overview.capture.loss = Loss { ring_full: 312, ends: 40, ..Loss::default() };
    let mut seat = Seat::new(80, 24);
    seat.tell(overview);
    insta::assert_snapshot!("lost_events_80x24", seat.screen());
}

#[test]
fn a_daemon_that_is_gone_leaves_the_last_picture() {
    let mut seat = Seat::new(80, 24);
    let gone = "no daemon answers on /run/s.sock: start one with `socklife run` (as root)".to_owned();
    let answer = Answer { overview: Some(Err(gone)), connections: None, next_in: Duration::from_secs(1) };
    seat.model.answer(answer, after(8));
    seat.model.tick(after(9));
    insta::assert_snapshot!("no_daemon_80x24", seat.screen());
    seat.tell(fixture::overview());
    assert!(!seat.screen().contains("NO ANSWER"), "it came back:\n{}", seat.screen());
}

#[test]
fn before_the_first_answer_and_in_no_room_it_says_so() {
    let model = Model::new(look(true), Only::default(), Duration::from_secs(1), (60, 8), after(0));
    let mut seat = Seat { model, terminal: Terminal::new(TestBackend::new(60, 8)).unwrap() };
    seat.model.tick(after(5));
    insta::assert_snapshot!("no_answer_yet_60x8", seat.screen());
    seat.tell(fixture::overview());
    seat.resize(19, 5);
    insta::assert_snapshot!("too_small_19x5", seat.screen());
    seat.resize(20, 6);
    insta::assert_snapshot!("least_20x6", seat.screen());
}

#[test]
fn starting_filters_hold_in_every_view_and_are_said() {
    let only = Only { pids: vec![412], endpoints: vec![fixture::ORDERS.to_owned()], kinds: vec![Kind::LimitPressure] };
    let mut seat = Seat::with(120, 20, look(true), only);
    insta::assert_snapshot!("only_findings_120x20", seat.screen());
    for (view, rows) in [("1", 1), ("2", 1), ("3", 1), ("4", 90), ("5", 1)] {
        seat.press(&[view]);
        assert_eq!(seat.model.page().order.len(), rows, "view {view}:\n{}", seat.screen());
    }
}
