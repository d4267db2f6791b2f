//! Writes a recording of a made-up host to stdout: `cargo run --release -p tracer-core --example recorded_day -- HOURS
//! CONNECTIONS > day.rec`, to see how long `socklife replay` takes for it.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a tool for developers")]

#[path = "../tests/recording/host.rs"]
mod host;

use std::io::Write as _;

use host::Recorded;
use tracer_core::recording::{Frame, encode, preamble};

fn main() {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse::<u16>().expect("a number"));
    let (hours, connections) = (numbers.next().unwrap_or(24), numbers.next().unwrap_or(300));
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    out.write_all(&preamble()).unwrap();
    let mut write = |frame: Frame<'static>| out.write_all(&encode(&frame).unwrap()).unwrap();
    let mut host = Recorded::begin(10, connections / 10, &mut write);
    let half = u64::from(hours) * 1_800;
    host.pass(half, 3_600, &mut write);
    host.exit(9, &mut write);
    host.pass(half, 3_600, &mut write);
    write(Frame::End { at: host.now });
    out.flush().unwrap();
}
