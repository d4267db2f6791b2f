//! What keys and answers do.

use tracer_core::snapshot::Connection;

use super::super::columns;
use super::super::page::{Rows, Subject};
use super::*;

#[test]
fn drilling_down_leads_from_an_endpoint_to_one_connections_life_and_back() {
    let mut seat = Seat::new(140, 24);
    let mut subjects = Vec::new();
    for key in ["Enter", "Enter", "Enter", "Enter"] {
        seat.press(&[key]);
        subjects.push(seat.model.page().subject.clone());
    }
    let orders = Subject::Endpoint { id: fixture::ORDERS.to_owned(), role: tracer_core::event::Role::Client };
    let launcher = Subject::Process { pid: 412, started: fixture::before(7_200) };
    // From a connection it goes on to its process.
    assert_eq!(subjects, [orders, launcher.clone(), Subject::Connection("c0000".to_owned()), launcher]);
    assert!(seat.screen().contains("endpoints > orders-db > route_builder_launcher.py[412] > "), "{}", seat.screen());
    seat.press(&["Esc", "Backspace", "Esc", "Backspace"]);
    assert_eq!(seat.model.page().subject, Subject::Everything);
    seat.press(&["Backspace", "Esc"]);
    assert_eq!(seat.model.page().rows, Some(Rows::Endpoints), "there is nothing behind a view");
}

#[test]
fn only_what_a_page_shows_is_asked_for() {
    let mut seat = Seat::new(80, 24);
    assert_eq!(seat.model.wanted(), Wanted { overview: true, connections: None });
    seat.press(&["4"]);
    assert_eq!(seat.model.wanted().connections.unwrap().target(), "/v1/connections?fresh=false");
    seat.press(&["3", "Enter"]);
    assert_eq!(seat.model.wanted().connections.unwrap().target(), "/v1/connections?fresh=false&pid=412");
    seat.press(&["Enter"]);
    assert_eq!(seat.model.wanted().connections.unwrap().pid, Some(412), "a connection's page lives on the list below");
    seat.press(&["1", "Down", "Enter", "Tab", "Tab"]);
    let target = seat.model.wanted().connections.unwrap().target();
    assert_eq!(target, "/v1/connections?fresh=false&endpoint=127.0.0.1%3A6379%40netns%3A4026532281");
}

#[test]
fn a_pause_asks_for_nothing_but_what_was_never_fetched() {
    let mut seat = Seat::new(80, 24);
    seat.press(&["p"]);
    assert_eq!(seat.model.wanted(), Wanted { overview: false, connections: None });
    let mut other = fixture::overview();
    other.endpoints.clear();
    seat.tell(other);
    assert!(seat.screen().contains("orders-db"), "a late answer does not move a frozen picture:\n{}", seat.screen());
    seat.press(&["4"]);
    let wanted = seat.model.wanted();
    assert!(!wanted.overview && wanted.connections.is_some());
    seat.tell(fixture::overview());
    assert_eq!(seat.model.wanted(), Wanted::default());
    assert_eq!(seat.model.page().order.len(), 99);
    seat.press(&[" "]);
    assert!(seat.model.wanted().overview && !seat.screen().contains("PAUSED"));
}

#[test]
fn what_the_configuration_says_not_to_tell_is_listed_and_does_not_count() {
    let mut seat = Seat::new(120, 24);
    seat.press(&["5"]);
    let mut overview = fixture::overview();
    for finding in &mut overview.findings {
        finding.ignored = Some(tracer_core::finding::Ignored { reason: "known".to_owned(), until: None });
    }
    seat.tell(overview);
    let screen = seat.screen();
    assert!(screen.contains("ignored") && screen.contains("connection_leak"), "{screen}");
    assert!(!screen.contains("CRITICAL") && !screen.contains(" C 1 "), "{screen}");
}

#[test]
fn the_chosen_row_is_chosen_wherever_it_moves() {
    let mut seat = Seat::new(80, 24);
    seat.press(&["3", "Down"]);
    let chosen = |seat: &Seat| seat.model.page().chosen.clone();
    let second = Some(Subject::Process { pid: 433, started: fixture::before(7_200) });
    assert_eq!(chosen(&seat), second);
    seat.press(&["r"]);
    assert_eq!((chosen(&seat), seat.model.page().at), (second.clone(), 1));
    let mut overview = fixture::overview();
    overview.processes[1].connections[0].open = 500;
    seat.tell(overview);
    assert_eq!((chosen(&seat), seat.model.page().at), (second, 2), "the order has turned round around it");
    let mut overview = fixture::overview();
    overview.processes.truncate(1);
    seat.tell(overview);
    assert_eq!(seat.model.page().at, 0, "what is gone leaves the choice to a neighbour");
}

#[test]
fn filters_are_typed_kept_and_cleared() {
    let mut seat = Seat::new(80, 24);
    seat.press(&["3", "/", "4", "3", "3"]);
    assert_eq!((seat.model.page().order.len(), seat.model.typing), (1, true));
    assert_eq!(seat.press(&["q"]), Outcome::Stay, "a letter is a letter while typing");
    seat.press(&["Backspace", "Enter"]);
    assert_eq!((seat.model.page().filter.as_str(), seat.model.typing), ("433", false));
    seat.press(&["2", "3"]);
    assert_eq!(seat.model.page().order.len(), 1, "a view keeps its filter");
    seat.press(&["Esc"]);
    assert_eq!(seat.model.page().order.len(), 3);
    seat.press(&["/"]);
    seat.press(&["a"; 500]);
    assert!(seat.model.page().filter.len() < 100, "it has a bound");
}

#[test]
fn each_column_sorts_both_ways() {
    for rows in Rows::ALL {
        let mut seat = Seat::new(120, 40);
        seat.press(&[(rows.place() + 1).to_string().as_str()]);
        for column in 0..columns::of(rows).len() {
            let order = |seat: &Seat| {
                let page = seat.model.page();
                let context = seat.model.context().unwrap();
                let rank = |item: &usize| (columns::of(rows)[page.sort].rank)(&context, *item);
                page.order.iter().map(rank).collect::<Vec<_>>()
            };
            let sorted = order(&seat);
            assert!(sorted.is_sorted() || sorted.is_sorted_by(|a, b| a >= b), "{rows:?} {column}: {sorted:?}");
            seat.press(&["r"]);
            let mut turned = order(&seat);
            turned.reverse();
            assert_eq!(turned, sorted, "{rows:?} {column}");
            seat.press(&["s"]);
        }
    }
}

#[test]
fn a_title_has_room_for_its_arrow() {
    for rows in Rows::ALL {
        for column in columns::of(rows).iter().filter(|column| column.title != "!") {
            assert!(column.title.len() < usize::from(column.width), "{rows:?}: {}", column.title);
        }
    }
}

#[test]
fn the_order_in_which_columns_go_is_the_documented_one() {
    let page = include_str!("../../../../../docs/top.md");
    for rows in Rows::ALL {
        let mut going: Vec<_> = columns::of(rows).iter().filter(|column| column.drop > 0).collect();
        going.sort_by_key(|column| std::cmp::Reverse(column.drop));
        let titles: Vec<&str> = going.iter().map(|column| column.title).collect();
        let line = format!("| {} | {} |", rows.name(), titles.join(", "));
        assert!(page.contains(&line), "docs/top.md lacks: {line}");
    }
}

#[test]
fn quitting_and_suspending_work_everywhere() {
    for way in [&["?"][..], &["/", "x"], &["p"], &["5", "Enter"]] {
        let mut seat = Seat::new(80, 24);
        seat.press(way);
        assert_eq!(seat.press(&["C-z"]), Outcome::Suspend, "{way:?}");
        assert_eq!(seat.press(&["C-c"]), Outcome::Quit, "{way:?}");
    }
    assert_eq!(Seat::new(80, 24).press(&["q"]), Outcome::Quit);
}

#[test]
fn any_key_closes_the_help_and_arrows_scroll_it() {
    let mut seat = Seat::new(40, 8);
    seat.press(&["?", "Down", "Down"]);
    assert_eq!(seat.model.help, Some(2));
    seat.model.press(&KeyEvent::new(KeyCode::F(7), KeyModifiers::NONE));
    assert_eq!(seat.model.help, None);
}

#[test]
fn a_finding_leads_to_whom_it_is_about() {
    let mut seat = Seat::new(80, 24);
    seat.press(&["5", "Enter", "Enter"]);
    assert_eq!(seat.model.page().subject, Subject::Process { pid: 412, started: fixture::before(7_200) });
    seat.press(&["Tab", "Tab"]);
    assert_eq!((seat.model.page().rows, seat.model.page().order.len()), (Some(Rows::Findings), 2));
}

#[test]
fn pages_above_one_another_have_a_bound() {
    let mut seat = Seat::new(80, 24);
    seat.press(&["3"]);
    for _ in 0..200 {
        seat.press(&["Enter"]);
    }
    assert_eq!(seat.model.trail().count(), 33);
}

/// Ten thousand of them, for the processes there are.
fn many() -> Vec<Connection> {
    (0..10_000).map(|n| fixture::connection(n, 412, "python3", fixture::ORDERS)).collect()
}

#[test]
fn of_ten_thousand_connections_only_those_in_sight_are_drawn() {
    let mut seat = Seat::new(80, 24);
    seat.press(&["4"]);
    let query = seat.model.wanted().connections.unwrap();
    let connections = Some((query, Ok(Connections { captured_at: AT, connections: many() })));
    let answer = Answer { overview: None, connections, next_in: Duration::from_secs(1) };
    seat.model.answer(answer, after(0));
    assert_eq!(seat.model.page().order.len(), 10_000);
    // 24 lines but for title, tabs, trail, heading and hints.
    let drawn = seat.screen().lines().filter(|line| line.contains("orders-db")).count();
    assert_eq!(drawn, 19, "{}", seat.screen());
    seat.model.press(&key_of("End"));
    assert!(seat.screen().contains("10000/10000"), "{}", seat.screen());
    for key in ["/", "4", "9", "9", "9", "9"] {
        seat.model.press(&key_of(key));
    }
    assert_eq!(seat.model.page().order.len(), 1, "one has port 49999:\n{}", seat.screen());
}
