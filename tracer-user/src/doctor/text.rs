//! A report for people: short, aligned, nothing raw.

use std::fmt::Write as _;

use tracer_core::snapshot::{Mode, ProbeState};

use super::Report;
use crate::ui::escape;
use crate::ui::style::{Colour, paint};

/// Width of the left column.
const LABEL: usize = 14;

/// The whole report.
#[must_use]
pub fn render(report: &Report, colour: bool) -> String {
    let host = &report.host;
    let mut out = String::new();
    row(
        &mut out,
        "socklife",
        &format!("{} on Linux {} {}", report.socklife_version, host.kernel.release, host.kernel.arch),
    );
    row(&mut out, "kernel types", if host.kernel.btf { "published" } else { "missing" });
    row(&mut out, "lockdown", host.kernel.lockdown.as_deref().unwrap_or("none"));
    row(&mut out, "privileges", &privileges(report));
    row(
        &mut out,
        "locked memory",
        &host.memlock_bytes.map_or_else(|| "unlimited".to_owned(), |n| format!("{n} bytes")),
    );
    row(&mut out, "network ns", &host.netns.map_or_else(|| "unknown".to_owned(), |inode| inode.to_string()));
    row(&mut out, "pids", if host.host_pids { "the host's" } else { "another namespace's" });
    row(&mut out, "clock", &clock(report));
    row(
        &mut out,
        "daemon",
        &format!(
            "{} on {}: {}",
            if report.daemon.running { "running" } else { "not running" },
            report.daemon.socket,
            report.daemon.detail
        ),
    );
    hooks(&mut out, report, colour);
    out.push_str("settings\n");
    let width = host.sysctls.keys().map(String::len).max().unwrap_or(0);
    for (name, value) in &host.sysctls {
        line(&mut out, &format!("  {name:<width$}  {}", escape(value.as_deref().unwrap_or("-"))));
    }
    problems(&mut out, report, colour);
    out
}

fn row(out: &mut String, label: &str, value: &str) {
    line(out, &format!("{label:<LABEL$} {}", escape(value)));
}

fn line(out: &mut String, text: &str) {
    out.push_str(text.trim_end());
    out.push('\n');
}

fn privileges(report: &Report) -> String {
    let privileges = &report.host.privileges;
    let mut text = format!("uid {}", privileges.euid);
    for (name, effective) in &privileges.capabilities {
        let word = effective.map_or("unknown", |effective| if effective { "yes" } else { "no" });
        let _infallible = write!(text, ", {} {word}", name.trim_start_matches("CAP_").to_lowercase());
    }
    text
}

fn clock(report: &Report) -> String {
    let clock = report.host.clock;
    format!("{}, up {} s, of which {} s suspended", clock.wall, clock.boottime_s, clock.suspended_s)
}

fn hooks(out: &mut String, report: &Report, colour: bool) {
    if report.probes.is_empty() {
        return row(out, "hooks", "none");
    }
    out.push_str("hooks\n");
    let width = report.probes.iter().map(|probe| probe.fact.len()).max().unwrap_or(0);
    for probe in &report.probes {
        let (word, shade) = match probe.state {
            ProbeState::Attached => ("attached", Colour::Green),
            ProbeState::Degraded => ("degraded", Colour::Yellow),
            ProbeState::Missing => ("missing ", Colour::Red),
        };
        let word = paint(word, shade, colour);
        let (fact, via, reason) = (escape(&probe.fact), escape(&probe.via), escape(&probe.reason));
        line(out, &format!("  {fact:<width$}  {word}  {via}  {reason}"));
    }
}

fn problems(out: &mut String, report: &Report, colour: bool) {
    if !report.problems.is_empty() {
        out.push_str("problems\n");
    }
    for problem in &report.problems {
        let (word, shade) = if problem.fatal { ("fatal", Colour::Red) } else { ("minor", Colour::Yellow) };
        let (fact, reason, next) = (escape(&problem.fact), escape(&problem.reason), escape(&problem.next_step));
        line(out, &format!("  {}  {fact}: {reason}; {next}", paint(word, shade, colour)));
    }
    let (verdict, shade) = if report.works {
        match report.mode {
            Some(Mode::Ebpf) => ("socklife can work here", Colour::Green),
            _ => ("socklife can only poll the socket table here", Colour::Yellow),
        }
    } else {
        ("socklife cannot work here", Colour::Red)
    };
    line(out, &format!("{:<LABEL$} {}", "verdict", paint(verdict, shade, colour)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::tests::{absent, host, probe};

    #[test]
    fn a_report() {
        let probes = vec![
            probe("state_change", ProbeState::Attached, ""),
            probe("accept", ProbeState::Degraded, "no fexit\u{1b}[2J here"),
            probe("path_trouble", ProbeState::Missing, "not there"),
        ];
        insta::assert_snapshot!(render(&Report::new(host(), Ok(probes), absent()), false), @r"
        socklife       0.1.0 on Linux 6.18.0 x86_64
        kernel types   published
        lockdown       none
        privileges     uid 0, bpf yes, dac_read_search yes, net_admin yes, perfmon yes, sys_admin yes, sys_ptrace yes
        locked memory  unlimited
        network ns     4026531840
        pids           the host's
        clock          2026-11-21T20:41:07.000Z, up 7200 s, of which 60 s suspended
        daemon         not running on /run/s.sock: no daemon answers
        hooks
          state_change  attached  raw_tp something
          accept        degraded  raw_tp something  no fexit\u{1b}[2J here
          path_trouble  missing   raw_tp something  not there
        settings
          net.core.bpf_jit_enable  -
          net.ipv4.tcp_retries2    15
        problems
          minor  no hook delivers path_trouble: not there; another kernel may offer one
        verdict        socklife can work here
        ");
    }

    #[test]
    fn colours_are_only_where_wanted() {
        let report = Report::new(host(), Err("refused".to_owned()), absent());
        assert!(!render(&report, false).contains('\u{1b}'));
        assert!(render(&report, true).contains("socklife can only poll the socket table here\u{1b}[0m"));
        assert!(render(&report, false).contains("minor  the eBPF programs do not load: refused; "));
    }
}
