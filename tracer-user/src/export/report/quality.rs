//! What the numbers are worth: what was lost, what could not be seen, and where facts came from.

use tracer_core::snapshot::{Capture, Completeness, Mode, ProbeState, Snapshot};

use super::format::{count, many, moment, name};
use super::model::{Cell, Table};

/// Probes shown; there are some ten.
const PROBES_MAX: usize = 40;
/// Ports shown among those that were recognized; at most 64 are.
const PORTS_MAX: usize = 64;

/// What stands above the verdicts, because it bears on all of them.
pub fn caveats(capture: &Capture) -> Vec<String> {
    let mut caveats = Vec::new();
    match capture.completeness {
        Completeness::Exact => {}
        Completeness::LowerBound => caveats.push("Not everything was seen: counts of what is open may be short."),
        Completeness::Unknown => {
            caveats.push("The first look at the socket table was not done: what was open before is not here.");
        }
    }
    if capture.totals != Completeness::Exact {
        caveats.push("Events were lost: totals and courses over time may be short.");
    }
    if capture.holders != Completeness::Exact {
        caveats.push("Some processes could not be read: who holds which connection may be incomplete.");
    }
    if capture.mode == Mode::Poll {
        caveats.push("This was a look without kernel events: there is no history, and ages are lower bounds.");
    }
    caveats.into_iter().map(str::to_owned).collect()
}

/// One sentence for each thing that is or is not complete.
pub fn sentences(capture: &Capture) -> Vec<String> {
    let worth = |what: &str, completeness: Completeness| {
        let is = match completeness {
            Completeness::Exact => "exact",
            Completeness::LowerBound => "a lower bound",
            Completeness::Unknown => "not known yet",
        };
        format!("{what}: {is}.")
    };
    let mut sentences = vec![
        worth("Counts of what is open", capture.completeness),
        worth("Totals and courses over time", capture.totals),
        worth("Who holds which connection", capture.holders),
    ];
    let mut some = |number: u64, what: &str| {
        if number > 0 {
            sentences.push(format!("{} {what}.", count(number)));
        }
    };
    some(capture.unreadable_processes.into(), "processes could not be read at the last look");
    some(capture.unreachable_namespaces.into(), "network namespaces could not be entered or read");
    some(capture.recognized_without_room.into(), "recognized database servers found no room among the watched ports");
    some(capture.drops_untold, "thrown away packets came too fast to be told one by one");
    some(capture.findings_ignored.into(), "findings are not shown: the configuration has [[ignore]] rules for them");
    some(capture.findings_without_room, "verdicts found no room among the open findings");
    some(
        capture.accounts_without_history,
        "accounts of a process at a database have no history: no trend is seen there",
    );
    some(capture.closers_without_room, "closes are kept without who did them");
    if capture.hidden_processes {
        sentences
            .push("This host hides the processes of others (hidepid): nobody knows how many hold what.".to_owned());
    }
    if !capture.host_pids {
        sentences.push("Process ids are those of the namespace that the snapshot was taken in.".to_owned());
    }
    sentences
}

/// What was lost, by stage; nothing if nothing was.
pub fn lost(capture: &Capture) -> Option<Table> {
    let loss = &capture.loss;
    let stages = [
        (loss.ring_full, "ring_full", "records found the ring buffer full"),
        (loss.ends, "ends", "of these were ends of connections"),
        (loss.read_failed, "read_failed", "reads of kernel memory failed"),
        (loss.map_full, "map_full", "sockets found the kernel's map full"),
        (loss.process_map_full, "process_map_full", "processes found the kernel's map full"),
        (loss.accept_map_full, "accept_map_full", "accepts found the kernel's map full"),
        (loss.program_skipped, "program_skipped", "times the kernel skipped a program"),
        (loss.queue_full, "queue_full", "events found the tracker's queue full"),
        (loss.decode_errors, "decode_errors", "records could not be read"),
        (loss.resyncs, "resyncs", "looks at the socket table repaired something"),
        (loss.missed_opens, "missed_opens", "sockets were found that no event had announced"),
        (loss.missed_closes, "missed_closes", "sockets were gone that no event had ended"),
        (loss.tracker_full, "tracker_full", "connections found the tracker at its bound"),
    ];
    let mut table = Table::new("lost", "What was lost", &["#Count", "What", "Stage"]);
    table.rows = stages
        .iter()
        .filter(|(number, ..)| *number > 0)
        .map(|(number, stage, what)| vec![Cell::number(count(*number)), Cell::text(what), Cell::text(stage)])
        .collect();
    (!table.rows.is_empty()).then_some(table)
}

/// Which hook delivers which fact.
pub fn probes(capture: &Capture) -> Table {
    let mut table = Table::new("probes", "Where facts came from", &["Fact", "State", "By", "Why not better"]);
    let rows = capture.probes.iter().take(PROBES_MAX).map(|probe| {
        let (state, class) = match probe.state {
            ProbeState::Attached => ("attached", ""),
            ProbeState::Degraded => ("degraded", "warning"),
            ProbeState::Missing => ("missing", "critical"),
        };
        let state = Cell { class, ..Cell::text(state) };
        vec![Cell::text(&probe.fact), state, Cell::text(&probe.via), Cell::text(&probe.reason)]
    });
    table.rows = rows.collect();
    table.of_all(capture.probes.len())
}

/// The host, the capture, and how much the snapshot holds.
pub fn about(snapshot: &Snapshot) -> Vec<(&'static str, String)> {
    let (host, capture) = (&snapshot.host, &snapshot.capture);
    let mode = match capture.mode {
        Mode::Ebpf => "kernel events and the socket table",
        Mode::Poll => "the socket table alone",
    };
    let size = format!(
        "{} databases, {} launcher groups, {} processes, {} connections, {} findings",
        many(snapshot.endpoints.len()),
        many(snapshot.launcher_groups.len()),
        many(snapshot.processes.len()),
        many(snapshot.connections.len()),
        many(snapshot.findings.len())
    );
    let mut about = vec![
        ("Host", name(&host.hostname)),
        ("Kernel", format!("{} {}", name(&host.kernel), name(&host.arch))),
        ("Boot", name(&host.boot_id)),
        ("socklife", name(&host.socklife_version)),
        ("Traced by", mode.to_owned()),
        ("Tracing began", format!("{} UTC", moment(capture.started_at))),
        ("Snapshot taken", format!("{} UTC", moment(snapshot.captured_at))),
        ("Network namespaces", count(capture.namespaces)),
        ("In the snapshot", size),
    ];
    let ports = capture.recognized_ports.iter().take(PORTS_MAX);
    let ports: Vec<String> =
        ports.map(|it| format!("{} {} ({} {})", it.port, name(&it.database), name(&it.program), it.pid)).collect();
    if !ports.is_empty() {
        about.push(("Recognized servers", ports.join(", ")));
    }
    about
}
