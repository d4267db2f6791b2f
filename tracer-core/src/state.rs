//! What outlives a restart of the daemon: the course of endpoints and accounts over time, and the open findings. Shapes and bytes only; who writes them where is the daemon's business.
//!
//! Times are boot-time: a state is good for the boot it was made in.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::detect::Verdict;
use crate::endpoint::{Place, Spell};
use crate::event::{ProcessId, Role, Tuple};
use crate::finding::Kind;
use crate::history::History;
use crate::series::Series;
use crate::time::BootNs;
use crate::tracker::Parting;

/// Version of the bytes. Whatever changes them changes it.
const VERSION: u16 = 3;
const MAGIC: [u8; 8] = *b"socklsta";
/// Magic, version, CRC-32 of the rest.
const HEAD_BYTES: usize = MAGIC.len() + 2 + 4;

/// Everything that is kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// When it was made.
    pub saved_at: BootNs,
    /// Of every endpoint.
    pub endpoints: Vec<EndpointState>,
    /// Of every account that has a history.
    pub accounts: Vec<AccountState>,
    /// Of every open finding.
    pub findings: Vec<FindingState>,
    /// Closes that the peer has not acknowledged, or had not when the socket was gone.
    pub partings: Vec<(Tuple, Parting)>,
}

/// An endpoint's course.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointState {
    /// Which; `None` for the one that gathers the rest.
    pub place: Option<Place>,
    /// Which side.
    pub role: Role,
    /// Most open at once.
    pub open_peak: u32,
    /// Most seen in use at one look.
    pub in_use_peak: u32,
    /// Counts over time.
    pub series: Series,
    /// When the database hung up on clients: a limit is inferred from them.
    pub spells: Vec<Spell>,
}

/// An account's course.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountState {
    /// Whose.
    pub process: ProcessId,
    /// At which endpoint.
    pub place: Option<Place>,
    /// Which side.
    pub role: Role,
    /// Most seen in use at one look.
    pub in_use_peak: u32,
    /// Over time; the tracker's own, as it is now.
    #[serde(serialize_with = "as_it_is", deserialize_with = "shared")]
    pub history: Arc<History>,
}

fn as_it_is<S: Serializer>(history: &Arc<History>, to: S) -> Result<S::Ok, S::Error> {
    history.serialize(to)
}

fn shared<'de, D: Deserializer<'de>>(from: D) -> Result<Arc<History>, D::Error> {
    History::deserialize(from).map(Arc::new)
}

/// An open finding.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FindingState {
    /// Of which kind.
    #[serde(serialize_with = "Kind::serialize_name", deserialize_with = "Kind::deserialize_name")]
    pub kind: Kind,
    /// Since when.
    pub first_seen: BootNs,
    /// When it was last true.
    pub last_seen: BootNs,
    /// What was true then.
    pub verdict: Verdict,
}

/// Why bytes are no state to go on from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// They are not as they were written, or no state at all.
    #[error("it is damaged")]
    Damaged,
    /// Another version wrote them.
    #[error("it has format {0}, and this socklife reads format {VERSION}")]
    Version(u16),
}

impl State {
    /// As bytes that notice damage.
    pub fn encode(&self) -> Result<Vec<u8>, StateError> {
        let payload = postcard::to_stdvec(self).map_err(|_| StateError::Damaged)?;
        let mut bytes = Vec::with_capacity(HEAD_BYTES + payload.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&crc32fast::hash(&payload).to_le_bytes());
        bytes.extend_from_slice(&payload);
        Ok(bytes)
    }

    /// From those bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, StateError> {
        let rest = bytes.strip_prefix(&MAGIC).ok_or(StateError::Damaged)?;
        let (version, rest) = rest.split_first_chunk::<2>().ok_or(StateError::Damaged)?;
        let version = u16::from_le_bytes(*version);
        if version != VERSION {
            return Err(StateError::Version(version));
        }
        let (sum, payload) = rest.split_first_chunk::<4>().ok_or(StateError::Damaged)?;
        if crc32fast::hash(payload) != u32::from_le_bytes(*sum) {
            return Err(StateError::Damaged);
        }
        match postcard::take_from_bytes(payload) {
            Ok((state, [])) => Ok(state),
            _ => Err(StateError::Damaged),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::finding::{Evidence, EvidenceValue, Severity, Subject};

    fn state() -> State {
        let at = BootNs(5_000_000_000);
        let mut series = Series::default();
        series.opened(at, 0);
        let mut history = History::new(Duration::from_secs(10), at);
        history.opened(at, 0);
        let history = Arc::new(history);
        let place = Some(Place { addr: "127.0.0.1:5432".parse().unwrap(), netns: Some(7) });
        let process = ProcessId { pid: 9, start_ticks: 100 };
        State {
            boot_id: "b".to_owned(),
            saved_at: at,
            endpoints: vec![EndpointState {
                place,
                role: Role::Client,
                open_peak: 3,
                in_use_peak: 2,
                series,
                spells: vec![Spell { from: at, until: at, hang_ups: 3, low: 9, fell_to: 1 }],
            }],
            accounts: vec![AccountState { process, place, role: Role::Client, in_use_peak: 2, history }],
            findings: vec![FindingState {
                kind: Kind::LimitPressure,
                first_seen: at,
                last_seen: at,
                verdict: verdict(),
            }],
            partings: vec![(
                Tuple::new(7, "10.0.0.9:1".parse().unwrap(), "10.0.0.5:5432".parse().unwrap()),
                Parting { closer: Some(process), at, severed: None },
            )],
        }
    }

    /// With evidence of every type.
    fn verdict() -> Verdict {
        let fact = |value| Evidence { fact: "f".to_owned(), value, unit: "u".to_owned() };
        Verdict {
            key: "k".to_owned(),
            severity: Severity::Critical,
            confidence: 0.5,
            subject: Subject { endpoint: Some("e".to_owned()), pids: vec![9], launcher_group: None },
            summary: "s".to_owned(),
            news: "n".to_owned(),
            evidence: vec![
                fact(EvidenceValue::Integer(-3)),
                fact(EvidenceValue::Number(1.5)),
                fact(EvidenceValue::Text("3".to_owned())),
                fact(EvidenceValue::List(vec!["5432".to_owned()])),
            ],
            ruled_out: vec!["r".to_owned()],
            remedy: "m".to_owned(),
            verify: "v".to_owned(),
        }
    }

    #[test]
    fn a_state_comes_back_as_it_was() {
        let state = state();
        assert_eq!(State::decode(&state.encode().unwrap()), Ok(state));
    }

    #[test]
    fn damage_anywhere_is_noticed() {
        let bytes = state().encode().unwrap();
        for end in 0..bytes.len() {
            assert!(State::decode(&bytes[..end]).is_err(), "cut off at {end}");
        }
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            assert!(State::decode(&flipped).is_err(), "flipped at {at}");
        }
        assert!(State::decode(&[bytes.as_slice(), &[0]].concat()).is_err());
        let mut newer = bytes;
        newer[8] += 1;
        assert_eq!(State::decode(&newer), Err(StateError::Version(VERSION + 1)));
    }
}
