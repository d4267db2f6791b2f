//! What `verify` and `reap` say: the lines of their JSON, and the same as text. Knows the domain's shapes; knows no
//! socket and no clock.

use std::fmt::Write as _;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracer_core::event::Role;
use tracer_core::snapshot::{Connection, HolderFd};
use tracer_core::tcp::TcpState;
use tracer_core::time::WallTime;

/// The `schema` of [`VerifyLine`].
pub const VERIFY_SCHEMA: &str = "socklife.verify/v1";
/// The `schema` of [`ReapLine`].
pub const REAP_SCHEMA: &str = "socklife.reap/v1";

/// Whether the other end of a connection is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The peer's kernel answered for this connection.
    Alive,
    /// It did not, or it does not know the connection.
    Dead,
    /// It could not be asked.
    Unknown,
}

/// What the verdict rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Alive: a probe was answered.
    Answered,
    /// Alive: data or an acknowledgement came before a probe was needed.
    Heard,
    /// Dead: no probe was answered, and nothing else came.
    NoAnswer,
    /// Dead: the FIN was sent again and again, and nothing came.
    Retransmissions,
    /// Dead: the peer answered with a reset, which ended the connection.
    Reset,
    /// Dead: the connection ended while it was asked, and the application took the error, if there was one.
    Ended,
    /// Unknown: no process holds it, so there is no descriptor to ask through.
    NoHolder,
    /// Unknown: no holder has it any more.
    Gone,
    /// Unknown: the application closed it while it was asked.
    Closed,
    /// Unknown: in this state the peer need not answer.
    State,
    /// Unknown: the daemon does not know enough of it to tell it from another.
    NoIdentity,
    /// Unknown: another program has it under repair (TCP_REPAIR), or the kernel would not do it.
    Refused,
}

/// One line of `verify --json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VerifyLine {
    /// [`VERIFY_SCHEMA`].
    pub schema: String,
    /// When the verdict was reached.
    pub at: WallTime,
    /// The connection's id in snapshots.
    pub id: String,
    /// Whether the other end is there.
    pub verdict: Verdict,
    /// What that rests on.
    pub reason: Reason,
    /// The same as a sentence.
    pub detail: String,
    /// Inode number of its network namespace.
    pub netns: u32,
    /// This end.
    pub local: String,
    /// The other end.
    pub remote: String,
    /// Endpoint id.
    pub endpoint: String,
    /// This side.
    pub role: Role,
    /// TCP state, when the verdict was reached if it could be asked.
    pub state: TcpState,
    /// Whose descriptor was used, else the first known holder; null if there is none.
    pub holder: Option<HolderFd>,
    /// Probes sent.
    pub probes: u32,
    /// From the last probe to the look that found its answer: an upper bound of the round trip.
    pub answered_within_us: Option<u64>,
    /// From the first look to the verdict.
    pub waited_ms: u64,
    /// How long ago anything was heard from the peer; null if it could not be asked.
    pub last_heard_ms: Option<u64>,
    /// Retransmission time-outs in a row.
    pub consecutive_rtos: u8,
    /// Segments sent and not acknowledged.
    pub unacked: u32,
}

impl VerifyLine {
    /// What is known of a connection before it is asked.
    pub(super) fn new(connection: &Connection, at: WallTime) -> Self {
        Self {
            schema: VERIFY_SCHEMA.to_owned(),
            at,
            id: connection.id.clone(),
            verdict: Verdict::Unknown,
            reason: Reason::Refused,
            detail: String::new(),
            netns: connection.netns,
            local: connection.local.clone(),
            remote: connection.remote.clone(),
            endpoint: connection.endpoint.clone(),
            role: connection.role,
            state: connection.state,
            holder: connection.holders.first().copied(),
            probes: 0,
            answered_within_us: None,
            waited_ms: 0,
            last_heard_ms: None,
            consecutive_rtos: connection.consecutive_rtos,
            unacked: connection.unacked,
        }
    }

    /// The same with this verdict, and the sentence for it.
    pub(super) fn decided(mut self, verdict: Verdict, reason: Reason) -> Self {
        (self.verdict, self.reason) = (verdict, reason);
        self.detail = self.sentence();
        self
    }

    fn sentence(&self) -> String {
        let silent = self.last_heard_ms.map(Duration::from_millis).unwrap_or_default();
        let (probes, heard) = (counted(u64::from(self.probes), "probe"), shown(silent));
        let waited = shown(Duration::from_millis(self.waited_ms));
        match self.reason {
            Reason::Answered => {
                let within = Duration::from_micros(self.answered_within_us.unwrap_or(0));
                let nth = if self.probes > 1 { format!(" probe {}", self.probes) } else { String::new() };
                format!("answered{nth} within {}", shown(within))
            }
            Reason::Heard => "the peer sends by itself".to_owned(),
            Reason::NoAnswer => {
                let rtos = match self.consecutive_rtos {
                    0 => String::new(),
                    rtos => format!(", {} in a row", counted(u64::from(rtos), "retransmission time-out")),
                };
                format!("no answer to {probes} in {waited}, last heard {heard} ago{rtos}")
            }
            Reason::Retransmissions => {
                let rtos = counted(u64::from(self.consecutive_rtos), "time");
                format!("the FIN was sent again {rtos} without an answer, last heard {heard} ago")
            }
            Reason::Reset => "the peer does not know it any more and answered with a reset, which ended it".to_owned(),
            Reason::Ended => "it ended while it was asked".to_owned(),
            Reason::NoHolder if self.consecutive_rtos > 0 => format!(
                "no process holds it, so it cannot be asked; the kernel counts {} in a row",
                counted(u64::from(self.consecutive_rtos), "retransmission time-out")
            ),
            Reason::NoHolder => "no process is known to hold it, so it cannot be asked".to_owned(),
            Reason::Gone => "no holder has it any more".to_owned(),
            Reason::Closed => "the application closed it while it was asked".to_owned(),
            Reason::State => format!("in {} the peer need not answer", self.state.name()),
            Reason::NoIdentity => "the daemon cannot tell it from another socket yet".to_owned(),
            Reason::Refused => "the kernel would not ask".to_owned(),
        }
    }

    /// For people; not escaped.
    #[must_use]
    pub fn text(&self) -> String {
        let verdict = match self.verdict {
            Verdict::Alive => "alive",
            Verdict::Dead => "dead",
            Verdict::Unknown => "unknown",
        };
        format!("{verdict:<8} {}", self.connection_text())
    }

    fn connection_text(&self) -> String {
        let holder = self.holder.map_or_else(|| "no process".to_owned(), |holder| format!("pid {}", holder.pid));
        format!("{}  {} -> {}  {holder}  {}", self.id, self.local, self.remote, self.detail)
    }
}

/// What `reap` did, or would do, to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Confirmed; `--yes` would close it.
    WouldClose,
    /// Confirmed and closed.
    Closed,
    /// Not confirmed, and left alone.
    Refused,
    /// Confirmed, and the kernel did not close it.
    Failed,
}

/// One line of `reap --json` and of its audit file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReapLine {
    /// [`REAP_SCHEMA`].
    pub schema: String,
    /// What was done.
    pub action: Action,
    /// Why that, as a sentence.
    pub detail: String,
    /// Real user id of who asked.
    pub uid: u32,
    /// The finding that named it; null if it was named itself.
    pub finding: Option<String>,
    /// The errno that its application gets at the next use; null if nothing was closed or no application is left.
    pub application_sees: Option<String>,
    /// The proof, from just before.
    pub evidence: VerifyLine,
}

impl ReapLine {
    /// For people; not escaped.
    #[must_use]
    pub fn text(&self) -> String {
        let action = match self.action {
            Action::WouldClose => "would close",
            Action::Closed => "closed",
            Action::Refused => "refused",
            Action::Failed => "failed",
        };
        let mut text = format!("{action:<11} {}", self.evidence.connection_text());
        if self.detail != self.evidence.detail {
            let _infallible = write!(text, "; {}", self.detail);
        }
        text
    }
}

/// `1 probe`, `2 probes`.
fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// A duration in the unit that fits.
fn shown(duration: Duration) -> String {
    match duration.as_micros() {
        us @ 0..1_000 => format!("{us} us"),
        us @ 1_000..1_000_000 => format!("{}.{} ms", us / 1_000, us / 100 % 10),
        us @ 1_000_000..600_000_000 => format!("{}.{} s", us / 1_000_000, us / 100_000 % 10),
        us => format!("{} min", us / 60_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_verdict_is_a_sentence() {
        let line = VerifyLine {
            schema: VERIFY_SCHEMA.to_owned(),
            at: WallTime { unix_ms: 0 },
            id: "4f".to_owned(),
            verdict: Verdict::Unknown,
            reason: Reason::Gone,
            detail: String::new(),
            netns: 1,
            local: "10.0.0.1:40222".to_owned(),
            remote: "10.0.0.5:5432".to_owned(),
            endpoint: "10.0.0.5:5432".to_owned(),
            role: Role::Client,
            state: TcpState::CloseWait,
            holder: Some(HolderFd { pid: 412, fd: 7 }),
            probes: 5,
            answered_within_us: Some(420),
            waited_ms: 5_021,
            last_heard_ms: Some(73_400),
            consecutive_rtos: 0,
            unacked: 0,
        };
        let check = |line: &VerifyLine, verdict, reason, expected: &str| {
            assert_eq!(line.clone().decided(verdict, reason).text(), expected);
        };
        let whole = |said: &str| format!("4f  10.0.0.1:40222 -> 10.0.0.5:5432  pid 412  {said}");
        let once = VerifyLine { probes: 1, ..line.clone() };
        check(&once, Verdict::Alive, Reason::Answered, &whole("answered within 420 us").replace("4f", "alive    4f"));
        let silent = whole("no answer to 5 probes in 5.0 s, last heard 73.4 s ago");
        check(&line, Verdict::Dead, Reason::NoAnswer, &format!("dead     {silent}"));
        let busy = VerifyLine { consecutive_rtos: 1, ..line.clone() };
        let said = format!("dead     {silent}, 1 retransmission time-out in a row");
        check(&busy, Verdict::Dead, Reason::NoAnswer, &said);
        let said = whole("in CLOSE_WAIT the peer need not answer");
        check(&line, Verdict::Unknown, Reason::State, &format!("unknown  {said}"));

        let evidence =
            VerifyLine { holder: None, consecutive_rtos: 4, ..line }.decided(Verdict::Dead, Reason::Retransmissions);
        let reaped = ReapLine {
            schema: REAP_SCHEMA.to_owned(),
            action: Action::WouldClose,
            detail: evidence.detail.clone(),
            uid: 0,
            finding: None,
            application_sees: None,
            evidence,
        };
        let said = "would close 4f  10.0.0.1:40222 -> 10.0.0.5:5432  no process  the FIN was sent again 4 times \
                    without an answer, last heard 73.4 s ago";
        assert_eq!(reaped.text(), said);
        let failed = ReapLine { action: Action::Failed, detail: "it is gone".to_owned(), ..reaped };
        assert_eq!(failed.text(), format!("{}; it is gone", said.replace("would close", "failed     ")));
    }

    #[test]
    fn durations_have_the_unit_that_fits() {
        for (us, expected) in
            [(0, "0 us"), (999, "999 us"), (1_250, "1.2 ms"), (5_021_000, "5.0 s"), (3_600_000_000, "60 min")]
        {
            assert_eq!(shown(Duration::from_micros(us)), expected);
        }
    }
}
