//! What the tracker and the detectors go by: the configuration, with the names of hosts as they resolve now.

use std::collections::BTreeMap;
use std::net::IpAddr;

use tracer_core::detect::{DetectConfig, Ignore, Of, Scope};
use tracer_core::rules::{EndpointRule, Matcher, Rules};
use tracer_core::snapshot::{Limit, LimitSource};

use crate::config::{Config, Whose};

/// The addresses of hosts, by name; of one that never resolved there are none.
pub type Hosts = BTreeMap<String, Vec<IpAddr>>;

/// What the user said of endpoints.
#[must_use]
pub fn rules(config: &Config, hosts: &Hosts) -> Rules {
    let rules = config.endpoints.iter().flat_map(|rule| {
        let said = EndpointRule {
            name: rule.name.clone(),
            limit: rule.limit.map(|value| Limit { value, source: LimitSource::Config }),
            database: rule.database.clone(),
        };
        matchers(&rule.whose, hosts).into_iter().map(move |matcher| (matcher, said.clone()))
    });
    Rules::new(rules.collect())
}

/// Thresholds, those of endpoints and groups included, and what is not told.
#[must_use]
pub fn detect(config: &Config, hosts: &Hosts) -> DetectConfig {
    let endpoints = config.endpoints.iter().filter(|rule| !rule.detect.is_empty()).flat_map(|rule| {
        let scope = |matcher| Scope { of: Of::Endpoint(matcher), changes: rule.detect.clone() };
        matchers(&rule.whose, hosts).into_iter().map(scope)
    });
    let groups =
        config.groups.iter().map(|rule| Scope { of: Of::Group(rule.label.clone()), changes: rule.detect.clone() });
    let ignores = config
        .ignores
        .iter()
        .map(|rule| Ignore { endpoints: rule.whose.as_ref().map(|whose| matchers(whose, hosts)), ..rule.what.clone() });
    let mut detect = config.detect.clone();
    detect.set_scopes(endpoints.chain(groups).collect());
    detect.ignores = ignores.collect();
    detect
}

fn matchers(whose: &Whose, hosts: &Hosts) -> Vec<Matcher> {
    match whose {
        Whose::Addresses(matcher) => vec![*matcher],
        Whose::Host { name, ports } => {
            let ips = hosts.get(name).into_iter().flatten();
            ips.map(|ip| Matcher { ips: Some((*ip, *ip)), ports: *ports }).collect()
        }
    }
}
