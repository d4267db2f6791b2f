//! The log: to stderr, never stdout, with whatever a process wrote escaped.

use std::fmt;

use tracing::{Event, Level, Subscriber};
use tracing_log::NormalizeEvent as _;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::time::FormatTime as _;
use tracing_subscriber::fmt::{FmtContext, time};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::ui::escape;
use crate::ui::style::{Colour, paint, wanted};

/// Level unless SOCKLIFE_LOG or RUST_LOG says otherwise.
const DEFAULT: &str = "info";

/// Starts the log of this process. What `log` users and the kernel side write comes along. A second start is ignored.
pub fn init() {
    let asked = ["SOCKLIFE_LOG", "RUST_LOG"].iter().find_map(|name| std::env::var(name).ok().filter(|v| !v.is_empty()));
    let asked = asked.unwrap_or_else(|| DEFAULT.to_owned());
    let (filter, bad) = match EnvFilter::try_new(&asked) {
        Ok(filter) => (filter, None),
        Err(error) => (EnvFilter::new(DEFAULT), Some(error)),
    };
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .event_format(Format { colour: wanted(&std::io::stderr()) })
        .finish();
    // Fails if there is a log already, which serves as well.
    if subscriber.try_init().is_ok()
        && let Some(error) = bad
    {
        tracing::warn!("the log filter {asked:?} is not understood, {DEFAULT} is used: {error}");
    }
}

/// `2026-11-21T20:41:07.123456Z  INFO tracer_user::daemon: ready socket=...`
struct Format {
    colour: bool,
}

impl<S, N> FormatEvent<S, N> for Format
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let normalized = event.normalized_metadata();
        let meta = normalized.as_ref().unwrap_or_else(|| event.metadata());
        time::SystemTime.format_time(&mut out)?;
        let (level, colour) = match *meta.level() {
            Level::ERROR => ("ERROR", Some(Colour::Red)),
            Level::WARN => (" WARN", Some(Colour::Yellow)),
            Level::INFO => (" INFO", None),
            Level::DEBUG => ("DEBUG", Some(Colour::Dim)),
            Level::TRACE => ("TRACE", Some(Colour::Dim)),
        };
        let level = colour.map_or_else(|| level.to_owned(), |colour| paint(level, colour, self.colour));
        // Without colours of its own, so that every escape code in it is somebody else's.
        let mut fields = String::new();
        context.format_fields(Writer::new(&mut fields), event)?;
        writeln!(out, " {level} {}: {}", escape(meta.target()), escape(&fields))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_event_is_one_line_whatever_a_process_is_called() {
        let sink = Sink::default();
        let copy = sink.clone();
        let subscriber =
            tracing_subscriber::fmt().with_writer(move || copy.clone()).event_format(Format { colour: false }).finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(pid = 412, comm = %"a\u{1b}[2J\nfake\u{202e}", "cannot read {}", "x\r\ny");
        });
        let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.matches('\n').count(), 1, "{text:?}");
        assert!(!text.contains(['\u{1b}', '\r', '\u{202e}']), "{text:?}");
        assert!(text.contains(" WARN ") && text.contains("pid=412") && text.contains(r"\nfake\u{202e}"), "{text:?}");
    }
}
