//! Looks up the names of hosts in the configuration, again and again, on a thread of its own: a name service that hangs
//! holds up nothing but this. A name that does not resolve keeps the addresses it had, is named in the log once, and is
//! tried again.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;

use super::setup::Hosts;
use crate::config::Resolver;

/// How often names are looked up.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// While all is well, and at most.
    pub every: Duration,
    /// After a failure; twice as long after each round with one.
    pub retry: Duration,
}

/// As often as the daemon does: sooner than most names change, and a query a minute and name at most.
pub const PACE: Pace = Pace { every: Duration::from_secs(60), retry: Duration::from_secs(5) };

/// The names that are looked up. The thread ends with this.
#[derive(Debug)]
pub struct Names {
    wanted: Arc<Mutex<Vec<String>>>,
    wake: SyncSender<()>,
}

impl Names {
    /// Looks these up from now on, and at once. Never waits, whatever the name service does.
    pub fn replace(&self, names: Vec<String>) {
        *self.wanted.lock().unwrap_or_else(PoisonError::into_inner) = names;
        // Full: the thread has not seen the last call yet, and will see this one's names.
        let _ = self.wake.try_send(());
    }
}

#[derive(Default)]
struct Known {
    ips: Vec<IpAddr>,
    has_failed: bool,
}

/// Starts the thread; it ends when [`Names`] is dropped or nobody wants to know any more. Addresses are told as soon as all
/// names were asked for once, and whenever one changes.
pub fn spawn(names: Vec<String>, resolver: Box<Resolver>, pace: Pace, found: mpsc::Sender<Hosts>) -> Names {
    let (wake, woken) = sync_channel::<()>(1);
    let wanted = Arc::new(Mutex::new(names));
    let list = Arc::clone(&wanted);
    std::thread::spawn(move || {
        let mut lookup = Lookup { resolver, known: BTreeMap::new() };
        let mut retry = pace.retry;
        loop {
            let names = list.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let (changed, failed) = lookup.round(&names);
            if changed && found.blocking_send(lookup.hosts()).is_err() {
                return;
            }
            let wait = if failed { retry } else { pace.every };
            retry = if failed { (retry * 2).min(pace.every) } else { pace.retry };
            let next = match names.is_empty() {
                true => woken.recv().map_err(|_| RecvTimeoutError::Disconnected),
                false => woken.recv_timeout(wait),
            };
            match next {
                Ok(()) => retry = pace.retry,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    });
    Names { wanted, wake }
}

struct Lookup {
    resolver: Box<Resolver>,
    known: BTreeMap<String, Known>,
}

impl Lookup {
    /// Asks for each name once. Whether an address changed, and whether a name did not resolve.
    fn round(&mut self, names: &[String]) -> (bool, bool) {
        let before = self.known.len();
        self.known.retain(|name, _| names.contains(name));
        let (mut changed, mut failed) = (self.known.len() != before, false);
        for name in names {
            let answer = (self.resolver)(name);
            let known = self.known.entry(name.clone()).or_default();
            match answer {
                Ok(mut ips) => {
                    ips.sort_unstable();
                    ips.dedup();
                    if known.ips != ips {
                        tracing::info!(name, addresses = ?ips, "a name of the configuration resolves");
                        known.ips = ips;
                        changed = true;
                    }
                    known.has_failed = false;
                }
                Err(error) => {
                    failed = true;
                    if !known.has_failed {
                        tracing::warn!(name, %error, kept = ?known.ips, "cannot resolve a name of the configuration: trying again");
                    }
                    known.has_failed = true;
                }
            }
        }
        (changed, failed)
    }

    fn hosts(&self) -> Hosts {
        self.known.iter().map(|(name, known)| (name.clone(), known.ips.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;

    use super::*;

    const SOON: Pace = Pace { every: Duration::from_millis(2), retry: Duration::from_millis(1) };

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn hosts(of: &[(&str, &[&str])]) -> Hosts {
        of.iter().map(|(name, ips)| ((*name).to_owned(), ips.iter().map(|text| ip(text)).collect())).collect()
    }

    /// Answers in turn; the last one for ever.
    fn script(answers: &[Result<&[&str], &str>]) -> Box<Resolver> {
        let owned = answers.iter().map(|answer| match answer {
            Ok(ips) => Ok(ips.iter().map(|text| ip(text)).collect::<Vec<_>>()),
            Err(why) => Err((*why).to_owned()),
        });
        let queue = Mutex::new(owned.collect::<VecDeque<_>>());
        Box::new(move |_| {
            let mut queue = queue.lock().unwrap();
            let next = if queue.len() > 1 { queue.pop_front() } else { queue.front().cloned() };
            next.unwrap().map_err(std::io::Error::other)
        })
    }

    #[tokio::test]
    async fn a_name_that_resolves_later_is_told_then_and_a_failure_changes_nothing() {
        let (found, mut told) = mpsc::channel(1);
        let resolver = script(&[
            Err("no DNS"),
            Err("no DNS"),
            Ok(&["10.0.0.5", "10.0.0.6"]),
            Err("no DNS"),
            // In another order: no news.
            Ok(&["10.0.0.6", "10.0.0.5"]),
            Ok(&["10.0.0.7", "fd00::7"]),
        ]);
        let names = spawn(vec!["db".to_owned()], resolver, SOON, found);
        assert_eq!(told.recv().await.unwrap(), hosts(&[("db", &["10.0.0.5", "10.0.0.6"])]));
        assert_eq!(told.recv().await.unwrap(), hosts(&[("db", &["10.0.0.7", "fd00::7"])]));
        drop(names);
        assert_eq!(told.recv().await, None, "the thread ends with its owner");
    }

    #[tokio::test]
    async fn other_names_are_asked_for_at_once() {
        let (found, mut told) = mpsc::channel(1);
        let never = Pace { every: Duration::from_secs(3_600), retry: Duration::from_secs(3_600) };
        let resolver: Box<Resolver> = Box::new(|name| match name {
            "a" => Ok(vec![ip("10.0.0.1")]),
            "b" => Ok(vec![ip("10.0.0.2")]),
            _ => Err(std::io::Error::other("no such name")),
        });
        let names = spawn(Vec::new(), resolver, never, found);
        names.replace(vec!["a".to_owned(), "c".to_owned()]);
        assert_eq!(told.recv().await.unwrap(), hosts(&[("a", &["10.0.0.1"]), ("c", &[])]));
        names.replace(vec!["b".to_owned()]);
        assert_eq!(told.recv().await.unwrap(), hosts(&[("b", &["10.0.0.2"])]));
    }
}
