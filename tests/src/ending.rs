//! When a demo program ends: on SIGTERM, on SIGINT, and with the program that started it.

use std::io::Read;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// Returns when this program should end. With `until_stdin_ends`, the end of standard input is such a moment too:
/// whoever holds the other end of the pipe takes us along, however it goes.
pub async fn asked_to_end(until_stdin_ends: bool) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (ended, stdin_ended) = oneshot::channel();
    let held = if until_stdin_ends {
        // A thread of its own, which nobody waits for: a runtime would wait for its own blocking reads.
        std::thread::spawn(move || {
            drain(&mut std::io::stdin().lock());
            // The receiver is gone when a signal was first.
            let _ = ended.send(());
        });
        None
    } else {
        Some(ended)
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        _ = stdin_ended => {}
    }
    drop(held);
    Ok(())
}

fn drain(stdin: &mut impl Read) {
    let mut bytes = [0; 512];
    loop {
        match stdin.read(&mut bytes) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}
