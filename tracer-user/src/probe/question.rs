//! When to ask and what an answer, or none, means: a pure course from one reading of a socket to the next. Knows no
//! socket and no clock.

use std::time::Duration;

use tracer_core::tcp::TcpState;

use super::report::{Reason, Verdict};

/// Retransmission time-outs in a row that count as no answer.
pub(super) const RTOS_DEAD: u8 = 3;
/// `struct tcp_info` tells times in the kernel's ticks, of at most 10 ms; the reading's own clock is finer.
const TICK: Duration = Duration::from_millis(20);
/// Least time between two probes. A Linux peer answers no more than one in 500 ms (`tcp_invalid_ratelimit`).
const INTERVAL_LEAST: Duration = Duration::from_secs(1);
/// Most time between two probes.
const INTERVAL_MOST: Duration = Duration::from_secs(5);

/// What a socket says of itself at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    /// When, from any one beginning.
    pub at: Duration,
    pub state: TcpState,
    /// It has a pending error: a reset that the application has not been told of.
    pub failed: bool,
    pub segments_in: u32,
    /// How long ago the last data or acknowledgement came.
    pub silent: Duration,
    pub unacked: u32,
    pub rtos: u8,
    pub srtt: Option<Duration>,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Send a probe.
    Ask,
    /// Look again soon.
    Look,
    /// That is it.
    Done(Verdict, Reason),
}

/// One connection's course.
#[derive(Debug)]
pub(super) struct Question {
    /// Probes that have to go unanswered.
    probes: u32,
    first: Reading,
    interval: Duration,
    /// Since when the last probe, or the data in flight, is waited for.
    since: Option<Duration>,
    pub asked: u32,
}

impl Question {
    pub fn new(probes: u32, first: Reading) -> Self {
        // Four times the round trip is more than the kernel's own first time-out as a rule.
        let interval = first.srtt.map_or(INTERVAL_LEAST, |srtt| 4 * srtt).clamp(INTERVAL_LEAST, INTERVAL_MOST);
        Self { probes, first, interval, since: None, asked: 0 }
    }

    /// How long after the last probe.
    pub fn waited(&self, reading: &Reading) -> Duration {
        reading.at.saturating_sub(self.since.unwrap_or(self.first.at))
    }

    pub fn next(&mut self, reading: &Reading) -> Next {
        if self.first.state == TcpState::Close {
            return Next::Done(Verdict::Unknown, Reason::Gone);
        }
        if reading.state == TcpState::Close {
            return Next::Done(Verdict::Dead, if reading.failed { Reason::Reset } else { Reason::Ended });
        }
        if self.is_heard(reading) {
            return Next::Done(Verdict::Alive, if self.asked > 0 { Reason::Answered } else { Reason::Heard });
        }
        match reading.state {
            TcpState::Established => self.ask(reading),
            // Our FIN is out: its retransmissions ask.
            TcpState::FinWait1 | TcpState::LastAck | TcpState::Closing => self.listen(reading),
            _ => Next::Done(Verdict::Unknown, Reason::State),
        }
    }

    /// Whether a segment came since the first reading that was good for data or an acknowledgement.
    fn is_heard(&self, reading: &Reading) -> bool {
        reading.segments_in != self.first.segments_in
            && reading.at.saturating_sub(reading.silent) + TICK >= self.first.at
    }

    fn ask(&mut self, reading: &Reading) -> Next {
        if self.since.is_some() && self.waited(reading) < self.interval {
            return Next::Look;
        }
        if self.asked == self.probes {
            return Next::Done(Verdict::Dead, Reason::NoAnswer);
        }
        // Data that is on its way is answered by itself: that is waited for once. Once it is sent again and again, the
        // next time may be two minutes off, and a probe does no harm.
        let on_its_way = reading.unacked > 0 && reading.rtos == 0 && self.since.is_none();
        self.since = Some(reading.at);
        if on_its_way {
            return Next::Look;
        }
        self.asked += 1;
        Next::Ask
    }

    fn listen(&mut self, reading: &Reading) -> Next {
        let since = *self.since.get_or_insert(reading.at);
        if reading.at.saturating_sub(since) < self.interval * self.probes {
            Next::Look
        } else if reading.rtos >= RTOS_DEAD {
            Next::Done(Verdict::Dead, Reason::Retransmissions)
        } else {
            Next::Done(Verdict::Unknown, Reason::State)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Reading = Reading {
        at: Duration::from_secs(100),
        state: TcpState::Established,
        failed: false,
        segments_in: 7,
        silent: Duration::from_secs(60),
        unacked: 0,
        rtos: 0,
        srtt: None,
    };

    /// Silence from the first reading on, a reading every 100 ms: what is asked when (ms), and how it ends.
    fn silence(probes: u32, first: Reading) -> (Vec<u64>, u64, Next) {
        let mut question = Question::new(probes, first);
        let mut asked = Vec::new();
        for ms in (0..120_000).step_by(100) {
            let passed = Duration::from_millis(ms);
            match question.next(&Reading { at: first.at + passed, silent: first.silent + passed, ..first }) {
                Next::Ask => asked.push(ms),
                Next::Look => {}
                done @ Next::Done(..) => return (asked, ms, done),
            }
        }
        panic!("no end");
    }

    #[test]
    fn silence_is_dead_after_every_probe_had_its_time() {
        let dead = Next::Done(Verdict::Dead, Reason::NoAnswer);
        assert_eq!(silence(3, FIRST), (vec![0, 1_000, 2_000], 3_000, dead));
        assert_eq!(silence(1, FIRST), (vec![0], 1_000, dead));
        let far = Reading { srtt: Some(Duration::from_millis(500)), ..FIRST };
        assert_eq!(silence(2, far), (vec![0, 2_000], 4_000, dead));
        let farthest = Reading { srtt: Some(Duration::from_secs(9)), ..FIRST };
        assert_eq!(silence(2, farthest), (vec![0, 5_000], 10_000, dead));
        // What is in flight is waited for first, unless it was sent again already.
        assert_eq!(silence(2, Reading { unacked: 1, ..FIRST }), (vec![1_000, 2_000], 3_000, dead));
        assert_eq!(silence(2, Reading { unacked: 1, rtos: 5, ..FIRST }), (vec![0, 1_000], 2_000, dead));
    }

    #[test]
    fn in_other_states_only_what_the_kernel_sends_again_tells() {
        for state in [TcpState::FinWait1, TcpState::LastAck, TcpState::Closing] {
            let quiet = Reading { state, unacked: 1, ..FIRST };
            assert_eq!(silence(3, quiet), (vec![], 3_000, Next::Done(Verdict::Unknown, Reason::State)), "{state:?}");
            let dead = Next::Done(Verdict::Dead, Reason::Retransmissions);
            assert_eq!(silence(3, Reading { rtos: 3, ..quiet }), (vec![], 3_000, dead), "{state:?}");
        }
        for state in [TcpState::CloseWait, TcpState::FinWait2, TcpState::SynSent] {
            let ended = silence(3, Reading { state, ..FIRST });
            assert_eq!(ended, (vec![], 0, Next::Done(Verdict::Unknown, Reason::State)), "{state:?}");
        }
        assert_eq!(
            silence(3, Reading { state: TcpState::Close, ..FIRST }).2,
            Next::Done(Verdict::Unknown, Reason::Gone)
        );
    }

    #[test]
    fn only_a_good_segment_since_the_first_reading_is_an_answer() {
        let after = Duration::from_millis(300);
        let check = |segments_in, silent: u64, state, expected: Next| {
            let mut question = Question::new(3, FIRST);
            assert_eq!(question.next(&FIRST), Next::Ask);
            let silent = Duration::from_millis(silent);
            let reading = Reading { at: FIRST.at + after, segments_in, silent, state, ..FIRST };
            assert_eq!(question.next(&reading), expected, "{reading:?}");
        };
        let alive = Next::Done(Verdict::Alive, Reason::Answered);
        check(8, 0, TcpState::Established, alive);
        check(8, 299, TcpState::Established, alive);
        // The kernel's clock is coarse.
        check(8, 310, TcpState::Established, alive);
        // A segment came that was good for nothing; the time moved without a segment.
        check(8, 60_300, TcpState::Established, Next::Look);
        check(7, 0, TcpState::Established, Next::Look);
        // The peer closed in the meantime: it is there.
        check(8, 0, TcpState::CloseWait, alive);
        check(8, 0, TcpState::Close, Next::Done(Verdict::Dead, Reason::Ended));
        // The count of segments wraps.
        check(0, 0, TcpState::Established, alive);
    }

    #[test]
    fn a_reset_is_no_answer() {
        let mut question = Question::new(3, FIRST);
        assert_eq!(question.next(&FIRST), Next::Ask);
        let reset = Reading { state: TcpState::Close, failed: true, segments_in: 8, silent: Duration::ZERO, ..FIRST };
        assert_eq!(question.next(&reset), Next::Done(Verdict::Dead, Reason::Reset));
    }

    #[test]
    fn traffic_answers_unasked() {
        let first = Reading { unacked: 2, silent: Duration::ZERO, ..FIRST };
        let mut question = Question::new(3, first);
        assert_eq!(question.next(&first), Next::Look);
        let reading = Reading { at: first.at + Duration::from_millis(1), segments_in: 9, unacked: 0, ..first };
        assert_eq!(question.next(&reading), Next::Done(Verdict::Alive, Reason::Heard));
        assert_eq!(question.asked, 0);
    }
}
