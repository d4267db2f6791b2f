//! Findings that the user does not want to be told: they are found and counted all the same.

use serde::{Deserialize, Serialize};

use super::whom::Whom;
use crate::finding::{Ignored, Kind};
use crate::glob::Glob;
use crate::identity::Identity;
use crate::rules::Matcher;
use crate::time::WallTime;

/// Which findings. All that is given has to fit; of a finding about several processes each of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ignore {
    /// Of this kind.
    #[serde(with = "kind_name")]
    pub kind: Option<Kind>,
    /// About one of these endpoints.
    pub endpoints: Option<Vec<Matcher>>,
    /// About a launcher group with such a label.
    pub group: Option<Glob>,
    /// About processes with such a program file.
    pub exe: Option<Glob>,
    /// About processes that run such a script.
    pub script: Option<Glob>,
    /// About processes of such a user.
    pub user: Option<Glob>,
    /// About processes of such a systemd unit.
    pub unit: Option<Glob>,
    /// From then on they are told again.
    pub until: Option<WallTime>,
    /// Why.
    pub reason: String,
}

impl Ignore {
    /// Whether it is over.
    #[must_use]
    pub fn is_over(&self, now: WallTime) -> bool {
        self.until.is_some_and(|until| until.unix_ms <= now.unix_ms)
    }

    pub(super) fn takes(&self, kind: Kind, whom: &Whom<'_>, now: WallTime) -> bool {
        let here = |matchers: &Vec<Matcher>| {
            whom.addr.is_some_and(|addr| matchers.iter().any(|matcher| matcher.matches(addr)))
        };
        let fits = |glob: &Option<Glob>, of: fn(&Identity) -> Option<&str>| {
            let each = |glob: &Glob| {
                let mut identities = whom.processes.iter().map(|process| process.identity.as_deref());
                whom.knows_all
                    && !whom.processes.is_empty()
                    && identities.all(|identity| identity.and_then(of).is_some_and(|text| glob.matches(text)))
            };
            glob.as_ref().is_none_or(each)
        };
        !self.is_over(now)
            && self.kind.is_none_or(|wanted| wanted == kind)
            && self.endpoints.as_ref().is_none_or(here)
            && self.group.as_ref().is_none_or(|glob| whom.label.is_some_and(|label| glob.matches(label)))
            && fits(&self.exe, |identity| identity.exe.as_deref())
            && fits(&self.script, |identity| identity.script.as_deref())
            && fits(&self.user, |identity| identity.user.as_deref())
            && fits(&self.unit, |identity| identity.systemd_unit.as_deref())
    }

    pub(super) fn as_said(&self) -> Ignored {
        Ignored { reason: self.reason.clone(), until: self.until }
    }
}

/// A kind by its name: the order of kinds is no promise.
mod kind_name {
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    use crate::finding::Kind;

    pub(super) fn serialize<S: Serializer>(kind: &Option<Kind>, to: S) -> Result<S::Ok, S::Error> {
        kind.map(Kind::name).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Kind>, D::Error> {
        let name = Option::<String>::deserialize(from)?;
        // A kind that this version does not have is of no finding: nothing may be ignored for it.
        name.map(|name| Kind::from_name(&name).ok_or_else(|| serde::de::Error::custom("no kind of finding")))
            .transpose()
    }
}
