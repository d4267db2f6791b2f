//! Whatever is pressed, however large the screen is, whatever the daemon says: it draws, and nothing lies outside.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Key(KeyEvent),
    Size(u16, u16),
    Answer(usize),
    Failure,
    Time(u64),
}

fn keys() -> impl Strategy<Value = KeyEvent> {
    let named = prop_oneof![
        Just(KeyCode::Enter),
        Just(KeyCode::Esc),
        Just(KeyCode::Tab),
        Just(KeyCode::BackTab),
        Just(KeyCode::Backspace),
        Just(KeyCode::Up),
        Just(KeyCode::Down),
        Just(KeyCode::PageUp),
        Just(KeyCode::PageDown),
        Just(KeyCode::Home),
        Just(KeyCode::End),
        Just(KeyCode::F(3)),
        "[1-5sSr/pzjkgGh?<> ]".prop_map(|key| KeyCode::Char(key.chars().next().unwrap_or(' '))),
        any::<char>().prop_map(KeyCode::Char),
    ];
    (named, prop::bool::weighted(0.02)).prop_map(|(code, control)| {
        KeyEvent::new(code, if control { KeyModifiers::CONTROL } else { KeyModifiers::NONE })
    })
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => keys().prop_map(Step::Key),
        2 => (0u16..140, 0u16..50).prop_map(|(width, height)| Step::Size(width, height)),
        3 => (0usize..4).prop_map(Step::Answer),
        1 => Just(Step::Failure),
        1 => (0u64..100_000).prop_map(Step::Time),
    ]
}

/// An answer in which something is missing that was there before.
fn answer(which: usize) -> Overview {
    let mut overview = fixture::overview();
    match which {
        0 => {}
        1 => overview.processes.clear(),
        2 => {
            overview.endpoints.truncate(1);
            overview.findings.truncate(1);
        }
        _ => {
            overview.endpoints.clear();
            overview.launcher_groups.clear();
            overview.findings.clear();
        }
    }
    overview
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_panics_and_nothing_is_drawn_that_could_move_a_cursor(all in prop::collection::vec(steps(), 1..60)) {
        let mut seat = Seat::new(80, 24);
        for step in all {
            match step {
                Step::Key(key) => drop(seat.model.press(&key)),
                Step::Size(width, height) => seat.resize(width, height),
                Step::Answer(which) => seat.tell(answer(which)),
                Step::Failure => {
                    let failed = Some(Err("\u{1b}[2Jgone".to_owned()));
                    seat.model.answer(Answer { overview: failed, ..Answer::default() }, after(3));
                }
                Step::Time(s) => seat.model.tick(after(s)),
            }
            for cell in seat.draw().content() {
                prop_assert!(!cell.symbol().chars().any(char::is_control), "{:?}", cell.symbol());
            }
            let page = seat.model.page();
            prop_assert!(page.order.is_empty() || page.at < page.order.len());
        }
    }
}
