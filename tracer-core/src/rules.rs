//! What the user said of endpoints: which addresses and ports a rule is for, and which of several counts.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::snapshot::Limit;

/// Addresses and ports of endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Matcher {
    /// First and last address, of one family, v4-mapped IPv6 as IPv4; every address if `None`.
    pub ips: Option<(IpAddr, IpAddr)>,
    /// First and last port.
    pub ports: (u16, u16),
}

impl From<SocketAddr> for Matcher {
    fn from(addr: SocketAddr) -> Self {
        let ip = addr.ip().to_canonical();
        Self { ips: Some((ip, ip)), ports: (addr.port(), addr.port()) }
    }
}

impl Matcher {
    /// Whether it is for this address.
    #[must_use]
    pub fn matches(&self, addr: SocketAddr) -> bool {
        let ip = addr.ip().to_canonical();
        // Addresses of different families are in order, too: a range of one has none of the other in it.
        self.ips.is_none_or(|(first, last)| first <= ip && ip <= last)
            && (self.ports.0..=self.ports.1).contains(&addr.port())
    }

    /// How much it matches: first by addresses, then by ports. The smallest is the most specific.
    #[must_use]
    pub fn breadth(&self) -> (u128, u16) {
        let number = |ip| match ip {
            IpAddr::V4(ip) => u128::from(u32::from(ip)),
            IpAddr::V6(ip) => u128::from(ip),
        };
        let addresses = self.ips.map_or(u128::MAX, |(first, last)| number(last).saturating_sub(number(first)));
        (addresses, self.ports.1.saturating_sub(self.ports.0))
    }
}

/// What the user configured for an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointRule {
    /// Its name.
    pub name: Option<String>,
    /// The most it takes.
    pub limit: Option<Limit>,
    /// Which database it is, whatever the port says.
    pub database: Option<String>,
}

/// Rules for endpoints. Each thing that can be said of an endpoint comes from the most specific rule that says it; of
/// equally specific ones from the later.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// Broadest first.
    rules: Vec<(Matcher, EndpointRule)>,
}

impl From<BTreeMap<SocketAddr, EndpointRule>> for Rules {
    fn from(rules: BTreeMap<SocketAddr, EndpointRule>) -> Self {
        Self::new(rules.into_iter().map(|(addr, rule)| (addr.into(), rule)).collect())
    }
}

impl Rules {
    /// Of rules in the order in which they were said.
    #[must_use]
    pub fn new(mut rules: Vec<(Matcher, EndpointRule)>) -> Self {
        rules.sort_by_key(|(matcher, _)| Reverse(matcher.breadth()));
        Self { rules }
    }

    /// What holds for this address.
    #[must_use]
    pub fn of(&self, addr: SocketAddr) -> EndpointRule {
        let mut all = EndpointRule::default();
        for (_, rule) in self.rules.iter().filter(|(matcher, _)| matcher.matches(addr)) {
            let EndpointRule { name, limit, database } = rule;
            all.name = name.clone().or(all.name);
            all.limit = limit.or(all.limit);
            all.database = database.clone().or(all.database);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::LimitSource;

    fn matcher(first: &str, last: &str, ports: (u16, u16)) -> Matcher {
        Matcher { ips: Some((first.parse().unwrap(), last.parse().unwrap())), ports }
    }

    #[test]
    fn a_matcher_is_for_one_family_and_takes_mapped_addresses_as_what_they_are() {
        let check = |matcher: Matcher, addr: &str, expected: bool| {
            assert_eq!(matcher.matches(addr.parse().unwrap()), expected, "{matcher:?} {addr}");
        };
        let ten = matcher("10.0.0.0", "10.255.255.255", (5432, 5439));
        check(ten, "10.1.2.3:5432", true);
        check(ten, "[::ffff:10.1.2.3]:5439", true);
        check(ten, "10.1.2.3:5440", false);
        check(ten, "11.0.0.0:5432", false);
        check(ten, "[::1]:5432", false);
        check(matcher("fd00::", "fdff::ffff", (1, 65_535)), "[fd12::1]:5432", true);
        check(matcher("::", "ffff::", (1, 65_535)), "10.0.0.1:5432", false);
        check(Matcher { ips: None, ports: (5432, 5432) }, "[::1]:5432", true);
        check("[::ffff:10.0.0.5]:5432".parse::<SocketAddr>().unwrap().into(), "10.0.0.5:5432", true);
    }

    #[test]
    fn the_most_specific_rule_that_says_something_counts_and_then_the_later() {
        let limit = |value| Some(Limit { value, source: LimitSource::Config });
        let rule = |name: Option<&str>, limit, database: Option<&str>| EndpointRule {
            name: name.map(str::to_owned),
            limit,
            database: database.map(str::to_owned),
        };
        let one = matcher("10.0.0.5", "10.0.0.5", (5432, 5432));
        let rules = Rules::new(vec![
            (one, rule(Some("orders"), limit(10), None)),
            (matcher("10.0.0.0", "10.0.0.255", (5432, 5432)), rule(Some("net"), limit(20), None)),
            (Matcher { ips: None, ports: (5432, 5432) }, rule(Some("any"), limit(30), Some("timescale"))),
            (one, rule(None, limit(40), None)),
        ]);
        let check =
            |addr: &str, expected: EndpointRule| assert_eq!(rules.of(addr.parse().unwrap()), expected, "{addr}");
        check("10.0.0.5:5432", rule(Some("orders"), limit(40), Some("timescale")));
        check("10.0.0.6:5432", rule(Some("net"), limit(20), Some("timescale")));
        check("10.0.1.6:5432", rule(Some("any"), limit(30), Some("timescale")));
        check("10.0.0.5:5433", EndpointRule::default());
    }
}
