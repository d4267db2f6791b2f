//! `socklife report`: what the page holds, that nothing in it is live, and what Chromium makes of it. Needs chromium
//! (`cargo xtask setup`); no privilege, no network.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a failed test says so")]

#[path = "report/browser.rs"]
mod browser;
#[path = "report/command.rs"]
mod command;
#[path = "report/fixture.rs"]
mod fixture;
#[path = "report/markup.rs"]
mod markup;
#[path = "report/shown.rs"]
mod shown;

use tracer_core::finding::Ignored;
use tracer_user::export::report::html;
use tracer_user::export::report::model::Page;

use fixture::{incident, incident_of, large};
use markup::Markup;

/// Of a page of a hundred thousand connections.
const PAGE_BYTES_MAX: usize = 5 << 20;

#[test]
fn what_is_shown_of_an_incident() {
    insta::assert_json_snapshot!("incident", Page::of(&incident_of(6, 2)));
}

#[test]
fn the_page_of_nothing() {
    insta::assert_snapshot!("nothing", without_style(&html(&large(0, 0)).unwrap()));
}

fn without_style(page: &str) -> String {
    let (head, rest) = page.split_once("<style>").unwrap();
    let (_, body) = rest.split_once("</style>").unwrap();
    format!("{head}<style></style>{body}")
}

#[test]
fn a_cause_stands_before_what_it_brings_about() {
    let page = Page::of(&incident());
    let problems: Vec<(&str, Vec<&str>)> =
        page.problems.iter().map(|it| (it.sentence.kind, it.consequences.iter().map(|of| of.kind).collect())).collect();
    assert_eq!(problems, [("duplicate_launchers", vec!["limit_pressure"]), ("restart_drop", vec![])]);
    let order: Vec<&str> = page.verdicts.iter().map(|it| it.kind).collect();
    assert_eq!(order, ["duplicate_launchers", "limit_pressure", "restart_drop"]);
}

#[test]
fn what_the_configuration_says_not_to_tell_is_counted_alone() {
    let mut snapshot = incident();
    snapshot.findings[0].ignored = Some(Ignored { reason: "known".to_owned(), until: None });
    snapshot.capture.findings_ignored = 1;
    let page = Page::of(&snapshot);
    assert_eq!(
        (page.verdicts.len(), page.verdicts.iter().any(|it| it.kind == snapshot.findings[0].kind.name())),
        (2, false)
    );
    assert!(page.quality.iter().any(|it| it.starts_with("1 findings are not shown")), "{:?}", page.quality);
}

#[test]
fn causes_that_go_in_a_circle_are_shown_all_the_same() {
    let mut snapshot = incident();
    for (at, cause) in [(0, "copies"), (1, "pressure"), (2, "no such finding")] {
        snapshot.findings[at].cause = Some(cause.to_owned());
    }
    assert_eq!(Page::of(&snapshot).verdicts.len(), 3);
}

#[test]
fn a_page_of_a_hundred_thousand_connections_is_small_and_says_what_it_leaves_out() {
    let mut snapshot = large(100_000, 5_000);
    let one = incident().findings[0].clone();
    snapshot.findings = (0..10_000)
        .map(|at| {
            let mut found = one.clone();
            (found.id, found.cause) = (format!("f{at}"), None);
            found
        })
        .collect();
    let page = html(&snapshot).unwrap();
    assert!(page.len() < PAGE_BYTES_MAX, "{} bytes", page.len());
    let Markup { text, links, ids, .. } = Markup::of(&page);
    let dead = links.iter().filter_map(|link| link.strip_prefix('#')).find(|id| !ids.contains(*id));
    assert_eq!(dead, None, "a link to what is not there");
    for left_out in [
        "9,960 more of 10,000 are in the snapshot, and not shown here.",
        "9,900 more of 10,000 are in the snapshot, and not shown here.",
        "4,900 more of 5,000 are in the snapshot, and not shown here.",
        "99,900 more of 100,000 are in the snapshot, and not shown here.",
    ] {
        assert!(text.contains(left_out), "{left_out}");
    }
}
