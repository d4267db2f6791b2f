//! Which findings belong together, and which of them is the cause: one problem shows in several ways.
//!
//! Findings are related if they are about the same endpoint and share a process or a launcher group. Of related ones, a
//! kind that can bring the other about is its cause.

use std::collections::{BTreeSet, HashMap};

use crate::finding::{Kind, Subject};

/// Related findings named by one.
const NAMED: usize = 16;
/// Processes of a finding by which it is found.
const PIDS: usize = 256;

/// What brings findings of a kind about, the deepest first.
fn causes(kind: Kind) -> &'static [Kind] {
    match kind {
        Kind::ConnectionLeak | Kind::RestartDrop => &[Kind::ClientPerRequest, Kind::HalfOpenAtDatabase],
        Kind::LimitPressure | Kind::HeadroomForecast => &[
            Kind::ClientPerRequest,
            Kind::ConnectionLeak,
            Kind::DuplicateLaunchers,
            Kind::PoolSprawl,
            Kind::HalfOpenAtDatabase,
        ],
        Kind::ConnectFailures => &[Kind::LimitPressure, Kind::PeerUnreachable],
        Kind::PeerUnreachable => &[Kind::SilentDropRisk],
        Kind::HalfOpenAtDatabase => &[Kind::PeerUnreachable],
        Kind::IdleHold | Kind::UnusedConnection => &[
            Kind::ClientPerRequest,
            Kind::ConnectionLeak,
            Kind::DuplicateLaunchers,
            Kind::PoolSprawl,
            Kind::OversizedPool,
            Kind::PeerUnreachable,
            Kind::HalfOpenAtDatabase,
        ],
        Kind::OversizedPool => &[Kind::DuplicateLaunchers, Kind::PoolSprawl],
        Kind::ClientPerRequest
        | Kind::CloseWaitLeak
        | Kind::DuplicateLaunchers
        | Kind::PoolSprawl
        | Kind::OrphanedConnection
        | Kind::SilentDropRisk => &[],
    }
}

/// A finding as far as it matters here.
#[derive(Clone, Copy, Debug)]
pub(super) struct About<'a> {
    pub kind: Kind,
    pub id: &'a str,
    pub subject: &'a Subject,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Shared<'a> {
    Pid(u32),
    Group(&'a str),
}

/// All open findings, by what they can share.
#[derive(Debug)]
pub(super) struct Relations<'a> {
    all: Vec<About<'a>>,
    sharing: HashMap<(&'a str, Shared<'a>), Vec<usize>>,
}

/// What a finding is related to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Related {
    /// Ids, ascending.
    pub ids: Vec<String>,
    /// The id of its cause.
    pub cause: Option<String>,
}

impl<'a> Relations<'a> {
    pub(super) fn of(findings: impl Iterator<Item = About<'a>>) -> Self {
        let all: Vec<About<'a>> = findings.collect();
        let mut sharing = HashMap::<_, Vec<usize>>::new();
        for (index, about) in all.iter().enumerate() {
            for key in keys(about.subject) {
                sharing.entry(key).or_default().push(index);
            }
        }
        Self { all, sharing }
    }

    /// What this one is related to; it need not be among the open ones itself.
    pub(super) fn related(&self, about: About<'_>) -> Related {
        let mut found = BTreeSet::new();
        for key in keys(about.subject) {
            found.extend(self.sharing.get(&key).into_iter().flatten().copied());
        }
        let others = || found.iter().filter_map(|index| self.all.get(*index)).filter(|other| other.id != about.id);
        let cause = causes(about.kind)
            .iter()
            .find_map(|kind| others().filter(|other| other.kind == *kind).map(|other| other.id).min());
        let mut ids: Vec<String> = others().map(|other| other.id.to_owned()).collect();
        ids.sort_unstable();
        ids.truncate(NAMED);
        Related { ids, cause: cause.map(str::to_owned) }
    }
}

fn keys(subject: &Subject) -> impl Iterator<Item = (&str, Shared<'_>)> {
    let endpoint = subject.endpoint.as_deref();
    let group = subject.launcher_group.as_deref().map(Shared::Group);
    let shared = subject.pids.iter().take(PIDS).map(|pid| Shared::Pid(*pid)).chain(group);
    shared.filter_map(move |shared| endpoint.map(|endpoint| (endpoint, shared)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(endpoint: &str, pids: &[u32], group: Option<&str>) -> Subject {
        let launcher_group = group.map(str::to_owned);
        Subject { endpoint: Some(endpoint.to_owned()), pids: pids.to_vec(), launcher_group }
    }

    #[test]
    fn what_shares_an_endpoint_and_a_process_or_group_is_related() {
        let (leak, pressure) = (subject("db", &[7], None), subject("db", &[7, 8], None));
        let (elsewhere, stranger) = (subject("other", &[7], None), subject("db", &[9], None));
        let (copies, member) = (subject("db", &[1, 2, 3], Some("g")), subject("db", &[], Some("g")));
        let open = [
            About { kind: Kind::ConnectionLeak, id: "leak", subject: &leak },
            About { kind: Kind::LimitPressure, id: "pressure", subject: &pressure },
            About { kind: Kind::IdleHold, id: "elsewhere", subject: &elsewhere },
            About { kind: Kind::IdleHold, id: "stranger", subject: &stranger },
            About { kind: Kind::DuplicateLaunchers, id: "copies", subject: &copies },
            About { kind: Kind::UnusedConnection, id: "member", subject: &member },
        ];
        let relations = Relations::of(open.into_iter());
        let check = |index: usize, ids: &[&str], cause: Option<&str>| {
            let related = relations.related(open[index]);
            assert_eq!(
                (related.ids.iter().map(String::as_str).collect::<Vec<_>>().as_slice(), related.cause.as_deref()),
                (ids, cause)
            );
        };
        check(0, &["pressure"], None);
        check(1, &["leak"], Some("leak"));
        check(2, &[], None);
        check(3, &[], None);
        check(4, &["member"], None);
        check(5, &["copies"], Some("copies"));
    }

    #[test]
    fn no_kind_causes_itself_in_a_circle() {
        for kind in Kind::ALL {
            let mut above = causes(kind).to_vec();
            let mut steps = 0;
            while let Some(next) = above.pop() {
                assert_ne!(next, kind, "{kind:?} is its own cause");
                above.extend(causes(next));
                steps += 1;
                assert!(steps < 1_000, "{kind:?}");
            }
        }
    }
}
