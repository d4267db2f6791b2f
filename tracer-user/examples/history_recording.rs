//! Writes a recording to measure the history with: `history_recording FILE SECONDS CLOSED_PER_S OPEN`. So many connections
//! are open all the while, and so many are opened and closed each second.

use std::path::PathBuf;

#[path = "../tests/history/recorded.rs"]
#[expect(dead_code, clippy::unwrap_used, reason = "it is the tests'")]
mod recorded;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args_os().skip(1);
    let path = PathBuf::from(args.next().ok_or("which file?")?);
    let mut number = || -> Result<u64, Box<dyn std::error::Error>> {
        let text = args.next().ok_or("which number?")?;
        Ok(text.to_string_lossy().parse()?)
    };
    let (seconds, closed, open) = (number()?, number()?, number()?);
    let mut day = recorded::Day::begin(&path);
    for _ in 0..open {
        day.open(recorded::POOL, 2);
    }
    day.identify(recorded::POOL, "worker.py", 2);
    for at in 3..seconds {
        for _ in 0..closed {
            let port = day.open(recorded::POOL, at);
            day.close(port, at);
        }
    }
    day.end(seconds);
    Ok(())
}
