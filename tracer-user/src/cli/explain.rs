//! `socklife explain`: what a kind of finding means, how to check it with other tools, and what to do about it.

use std::fmt::Write as _;

use tracer_core::detect::thresholds;
use tracer_core::finding::Kind;

use super::Verdict;
use super::output::print;
use super::tail::kinds;

/// What a kind of finding means and what to do about it
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Which kind; without one, all are listed
    #[arg(value_name = "KIND", value_parser = kinds())]
    kind: Option<Kind>,
}

pub(super) fn main(args: &Args) -> anyhow::Result<Verdict> {
    let text = args.kind.map_or_else(list, explain);
    print(text.trim_end().as_bytes())
}

/// The page of that kind, as it is in docs/findings.
fn page(kind: Kind) -> &'static str {
    match kind {
        Kind::ConnectionLeak => include_str!("../../../docs/findings/connection_leak.md"),
        Kind::LimitPressure => include_str!("../../../docs/findings/limit_pressure.md"),
        Kind::HeadroomForecast => include_str!("../../../docs/findings/headroom_forecast.md"),
        Kind::RestartDrop => include_str!("../../../docs/findings/restart_drop.md"),
        Kind::ClientPerRequest => include_str!("../../../docs/findings/client_per_request.md"),
        Kind::IdleHold => include_str!("../../../docs/findings/idle_hold.md"),
        Kind::UnusedConnection => include_str!("../../../docs/findings/unused_connection.md"),
        Kind::CloseWaitLeak => include_str!("../../../docs/findings/close_wait_leak.md"),
        Kind::DuplicateLaunchers => include_str!("../../../docs/findings/duplicate_launchers.md"),
        Kind::PoolSprawl => include_str!("../../../docs/findings/pool_sprawl.md"),
        Kind::OversizedPool => include_str!("../../../docs/findings/oversized_pool.md"),
        Kind::OrphanedConnection => include_str!("../../../docs/findings/orphaned_connection.md"),
        Kind::ConnectFailures => include_str!("../../../docs/findings/connect_failures.md"),
        Kind::PeerUnreachable => include_str!("../../../docs/findings/peer_unreachable.md"),
        Kind::HalfOpenAtDatabase => include_str!("../../../docs/findings/half_open_at_database.md"),
        Kind::SilentDropRisk => include_str!("../../../docs/findings/silent_drop_risk.md"),
    }
}

/// The page, and the thresholds as the detector declares them.
fn explain(kind: Kind) -> String {
    let mut text = format!("{}\n\n## Thresholds\n\n", page(kind).trim_end());
    let mut line = |key: &str, default: &str, meaning: &str| {
        let _infallible = writeln!(text, "- `detect.{}.{key}` = {default}: {meaning}", kind.name());
    };
    line("enabled", "true", "Whether findings of this kind are made.");
    for threshold in thresholds(kind) {
        let (min, max) = threshold.bounds;
        line(threshold.key, &format!("{} ({min} to {max})", threshold.default), threshold.meaning);
    }
    text.push_str("\nSet one in the configuration file, or with `socklife run --set KEY=VALUE`.\n");
    text
}

/// Every kind, and the first sentence of its page.
fn list() -> String {
    let width = Kind::ALL.iter().map(|kind| kind.name().len()).max().unwrap_or(0);
    Kind::ALL.iter().fold(String::new(), |mut text, kind| {
        let _infallible = writeln!(text, "{:<width$}  {}", kind.name(), says(*kind));
        text
    })
}

/// What follows the title: one sentence.
fn says(kind: Kind) -> String {
    let lines = page(kind).lines().skip(1).skip_while(|line| line.is_empty());
    lines.take_while(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECTIONS: [&str; 6] = [
        "## What it looks like",
        "## Evidence, and how sure it is",
        "## What it is not",
        "## Verify",
        "## Fix",
        "## Thresholds",
    ];

    #[test]
    fn every_page_is_whole() {
        for kind in Kind::ALL {
            let text = explain(kind);
            assert!(text.starts_with(&format!("# {}\n", kind.name())), "{text}");
            assert!(says(kind).ends_with('.'), "{}: {:?}", kind.name(), says(kind));
            let places = SECTIONS.map(|section| text.find(&format!("\n{section}\n")).expect(section));
            assert!(places.is_sorted(), "{}: {places:?}", kind.name());
            assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{}", kind.name());
            // What is shown as it is printed may be longer.
            let prose = |line: &&str| !line.starts_with("    ") && !line.starts_with("- `detect.");
            for line in text.lines().filter(prose) {
                assert!(line.chars().count() <= 120, "{}: {line}", kind.name());
            }
        }
    }

    #[test]
    fn every_threshold_is_named_with_its_default() {
        for kind in Kind::ALL {
            let text = explain(kind);
            for threshold in thresholds(kind) {
                let wanted = format!("`detect.{}.{}` = {} ", kind.name(), threshold.key, threshold.default);
                assert!(text.contains(&wanted) && text.contains(threshold.meaning), "{wanted}: {text}");
            }
            // A page that says a threshold's number would be wrong when the number changes.
            assert!(!page(kind).contains("## Thresholds"), "{}", kind.name());
        }
    }

    #[test]
    fn a_page_names_no_threshold_that_there_is_not() {
        for kind in Kind::ALL {
            let names = |word: &str| {
                word.strip_prefix("detect.")
                    .and_then(|rest| rest.split_once('.'))
                    .map(|(of, key)| (of.to_owned(), key.to_owned()))
            };
            let words = page(kind).split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '.'));
            for (of, key) in words.filter_map(names) {
                let of = Kind::from_name(&of).expect(&of);
                assert!(key == "enabled" || thresholds(of).iter().any(|known| known.key == key), "{key}");
            }
        }
    }

    #[test]
    fn the_list_has_every_kind_once() {
        let list = list();
        assert_eq!(list.lines().count(), Kind::ALL.len());
        assert!(Kind::ALL.iter().all(|kind| list.contains(kind.name())));
    }
}
