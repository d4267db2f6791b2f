//! Records as the kernel side wrote them, through decode: recorded ones give the story they were recorded from,
//! truncated and corrupt ones give errors.

mod recorded;

use proptest::prelude::*;
use tracer_core::decode::{DecodeError, decode};
use tracer_core::event::{Event, SocketEvent};
use tracer_core::time::BootNs;

use recorded::records;

fn line(event: &Event, names: &mut Vec<u64>) -> String {
    match event {
        Event::Process(event) => format!("{:?} {:?}, {} accepted", event.kind, event.task.comm, event.accepts),
        Event::Accepts(event) => format!("Accepts {}", event.total),
        Event::Drop(event) => format!("Drop {} -> {}", event.source.ip(), event.destination.ip()),
        Event::Socket(event) => socket_line(event, names),
    }
}

/// Addresses in order of appearance, pids as present or not: what a reader can check against the script.
fn socket_line(event: &SocketEvent, names: &mut Vec<u64>) -> String {
    let name = names.iter().position(|sk| *sk == event.sk).unwrap_or_else(|| {
        names.push(event.sk);
        names.len() - 1
    });
    let opener = event.opener.map_or("?".to_owned(), |task| task.comm.to_text().into_owned());
    let mut text = format!(
        "{:?} {:?} #{name} {} -> {} {}>{} by {opener}",
        event.kind,
        event.role,
        event.tuple.local().ip(),
        event.tuple.remote().ip(),
        event.old_state,
        event.new_state
    );
    if event.closer.is_some() {
        text.push_str(", closed by a process");
    }
    if event.error != 0 {
        text.push_str(&format!(", errno {}", event.error));
    }
    if event.totals.bytes_sent + event.totals.bytes_received > 0 {
        text.push_str(&format!(", {} out {} in", event.totals.bytes_sent, event.totals.bytes_received));
    }
    text
}

#[test]
fn recorded_events_tell_the_story() {
    let mut names = Vec::new();
    let lines: Vec<String> = records().iter().map(|record| line(&decode(record).unwrap(), &mut names)).collect();
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn recorded_events_are_consistent() {
    let mut last = BootNs(0);
    for record in records() {
        let Event::Socket(event) = decode(record).unwrap() else { continue };
        assert!(event.at >= last.minus(std::time::Duration::from_millis(1)), "times run backwards");
        last = event.at;
        assert!(event.birth.is_none_or(|birth| birth <= event.at));
        assert!(event.established.is_none_or(|established| established <= event.at));
        assert_ne!(event.tuple.local().port(), 0, "{event:?}");
        assert_ne!(event.tuple.netns(), 0);
    }
}

#[test]
fn every_truncation_is_an_error() {
    for record in records() {
        for length in 0..record.len() {
            assert!(decode(&record[..length]).is_err(), "{length} of {} bytes were accepted", record.len());
        }
        let mut longer = record.to_vec();
        longer.push(0);
        assert_eq!(decode(&longer), Err(DecodeError::Length(record.len() + 1)));
    }
}

#[test]
fn impossible_fields_are_named() {
    let socket = records().into_iter().find(|record| record.len() == 184).unwrap();
    let check = |at: usize, value: u8, error: DecodeError| {
        let mut bytes = socket.to_vec();
        bytes[at] = value;
        assert_eq!(decode(&bytes), Err(error), "byte {at} set to {value}");
    };
    check(0, 0, DecodeError::Kind(0));
    check(0, 99, DecodeError::Kind(99));
    check(1, 77, DecodeError::Version(77));
    check(2, 1, DecodeError::Length(184));
    check(144, 5, DecodeError::Field("address family"));
    check(145, 0, DecodeError::Field("role"));
    check(178, 0, DecodeError::Field("old state"));
    check(179, 13, DecodeError::Field("new state"));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = decode(&bytes);
    }

    #[test]
    fn a_flipped_byte_never_panics(index in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), value: u8) {
        let all = records();
        let mut bytes = index.get(&all).to_vec();
        let at = at.index(bytes.len());
        bytes[at] = value;
        let _ = decode(&bytes);
    }
}
