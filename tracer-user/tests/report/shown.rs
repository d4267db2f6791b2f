//! What Chromium shows: on a desk, on a phone, in the dark and on paper. The pictures are kept below `target/tmp/report`
//! for people to look at.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tracer_core::snapshot::Snapshot;
use tracer_user::export::report::html;

use super::browser::Browser;
use super::fixture::{hostile, incident, large};

/// A phone, a desk, and what is left of A4 between its margins at 96 pixels an inch.
const PHONE: (u32, u32) = (390, 844);
const DESK: (u32, u32) = (1280, 900);
const PAPER: (u32, u32) = (703, 1000);

/// Elements that stick out to the right, but for those in a box that scrolls by itself.
const STICKING_OUT: &str = "[...document.querySelectorAll('body *')]
    .filter(it => !it.closest('.scroll table') && it.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5)
    .slice(0, 5).map(it => it.outerHTML.slice(0, 200))";

fn place(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("report");
    std::fs::create_dir_all(&dir).unwrap();
    dir.join(name)
}

fn written(name: &str, snapshot: &Snapshot) -> PathBuf {
    let file = place(&format!("{name}.html"));
    std::fs::write(&file, html(snapshot).unwrap()).unwrap();
    file
}

/// The page is as wide as the screen, asks for nothing, and has nothing to complain of.
#[track_caller]
fn check_quiet(browser: &mut Browser, file: &Path, shown: &str) {
    assert_eq!(browser.value(STICKING_OUT), json!([]), "{shown}");
    let widths = browser.value("[document.documentElement.scrollWidth, document.documentElement.clientWidth]");
    assert_eq!(widths[0], widths[1], "{shown}");
    let own = format!("file://{}", file.display());
    for event in &browser.events {
        match event["method"].as_str().unwrap() {
            "Network.requestWillBeSent" => {
                let url = event["params"]["request"]["url"].as_str().unwrap();
                assert!(url == own || url.starts_with("data:"), "{shown}: asked for {url}");
            }
            "Log.entryAdded" | "Runtime.consoleAPICalled" | "Runtime.exceptionThrown" => panic!("{shown}: {event}"),
            _ => {}
        }
    }
}

#[test]
fn an_incident_on_every_screen() {
    let mut browser = Browser::start();
    let file = written("incident", &incident());
    for (size, scheme, media, name) in [
        (PHONE, "light", "screen", "phone-light"),
        (PHONE, "dark", "screen", "phone-dark"),
        (DESK, "light", "screen", "desk-light"),
        (DESK, "dark", "screen", "desk-dark"),
        (PAPER, "dark", "print", "paper"),
    ] {
        browser.open(&file, size, scheme, media);
        check_quiet(&mut browser, &file, name);
        let text = |of: &str| format!("document.querySelector('{of}').innerText");
        let said = browser.value(&text("#verdicts .problem .sentence"));
        assert_eq!(said, "route_builder_launcher.py 24 copies 1", "{name}");
        let brings = browser.value(&text("#verdicts .consequences li"));
        assert!(brings.as_str().unwrap().contains("orders-db 96 of 100 open, +4/min"), "{name}: {brings}");
        let colours = browser.value(
            "[...document.querySelectorAll('.chart svg')].filter(it => it.getBoundingClientRect().width > 0)
                .map(it => getComputedStyle(it.querySelector('text')).fill)",
        );
        let ink = if scheme == "dark" && media == "screen" { "rgb(145, 152, 161)" } else { "rgb(89, 99, 110)" };
        assert_eq!(colours, Value::from(vec![ink; 4]), "{name}");
        let picture = browser.screenshot();
        assert!(picture.starts_with(b"\x89PNG"), "{name}");
        std::fs::write(place(&format!("{name}.png")), picture).unwrap();
    }
    let pdf = browser.pdf();
    assert!(pdf.starts_with(b"%PDF-") && pdf.len() > 20_000, "{} bytes", pdf.len());
    std::fs::write(place("paper.pdf"), pdf).unwrap();
}

#[test]
fn the_largest_page_and_the_most_hostile_one() {
    let mut browser = Browser::start();
    let mut many = large(100_000, 5_000);
    many.findings = incident().findings;
    for (name, snapshot) in [
        ("large", many),
        ("hostile", hostile("</style><img src=//evil.example/x onerror=\"console.log(1)\"><script>throw 1</script>")),
        ("long", hostile(&"x".repeat(10_000))),
        ("wide", hostile(&"漢字".repeat(5_000))),
    ] {
        let file = written(name, &snapshot);
        for size in [PHONE, DESK] {
            browser.open(&file, size, "light", "screen");
            check_quiet(&mut browser, &file, name);
            let foreign = browser.value("document.querySelectorAll('script, img, iframe').length");
            assert_eq!(foreign, 0, "{name}");
            assert_eq!(browser.value("document.querySelectorAll('.verdict').length"), 3, "{name}");
        }
    }
}
