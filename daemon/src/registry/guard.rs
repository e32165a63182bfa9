//! Where an answer of a registry may send the node.
//!
//! Registries name other hosts: they redirect to where their blobs lie, and
//! name the service that gives tokens. Neither may lead to what only this
//! machine reaches: its loopback, its links, the metadata service of its
//! cloud. The same holds for the registry that a user's reference names. Hosts
//! that the configuration names may lie anywhere. What a proxy resolves is the
//! proxy's to judge.

use std::collections::HashSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;

/// Redirects that are followed: registries need one or two.
const MAX_REDIRECTS: usize = 5;
/// Metadata services outside the link-local ranges: Alibaba's, Azure's,
/// Amazon's.
const METADATA: [IpAddr; 3] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];

/// Why the node does not go where it is sent.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Detour {
    /// Only this machine reaches it.
    #[error("it leads to {host}, which only this machine reaches")]
    Inside {
        /// Name or address.
        host: String,
    },
    /// What was asked by TLS would go on without.
    #[error("it leads from TLS to plain HTTP at {host}")]
    Plain {
        /// Name or address.
        host: String,
    },
    /// No registry needs so many.
    #[error("it redirects more than {MAX_REDIRECTS} times")]
    TooMany,
}

/// Knows the hosts that the configuration names; cheap to clone.
#[derive(Clone)]
pub(super) struct Guard(Arc<HashSet<String>>);

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Guard").field(&self.0).finish()
    }
}

impl Guard {
    /// `named`: hosts of the configuration, with or without a port.
    pub(super) fn new<'a>(named: impl IntoIterator<Item = &'a str>) -> Self {
        Self(Arc::new(named.into_iter().map(|host| without_port(host).to_ascii_lowercase()).collect()))
    }

    /// Whether an address that an answer names may be asked.
    ///
    /// # Errors
    /// [`Detour::Inside`].
    pub(super) fn check(&self, url: &Url) -> Result<(), Detour> {
        let host = url.host_str().unwrap_or_default();
        let address = host.trim_start_matches('[').trim_end_matches(']').parse();
        if !self.is_named(host) && address.is_ok_and(is_inside) {
            return Err(Detour::Inside { host: host.to_owned() });
        }
        Ok(())
    }

    /// Which redirects are followed.
    pub(super) fn policy(&self) -> Policy {
        let guard = self.clone();
        Policy::custom(move |attempt| match guard.step(attempt.url(), attempt.previous()) {
            Ok(()) => attempt.follow(),
            Err(detour) => attempt.error(detour),
        })
    }

    fn step(&self, next: &Url, previous: &[Url]) -> Result<(), Detour> {
        if previous.len() > MAX_REDIRECTS {
            return Err(Detour::TooMany);
        }
        if next.scheme() != "https" && previous.last().is_some_and(|url| url.scheme() == "https") {
            return Err(Detour::Plain { host: next.host_str().unwrap_or_default().to_owned() });
        }
        self.check(next)
    }

    fn is_named(&self, host: &str) -> bool {
        self.0.contains(&host.to_ascii_lowercase())
    }
}

/// Names are judged by what they resolve to, at each connection.
impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let (host, is_named) = (name.as_str().to_owned(), self.is_named(name.as_str()));
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((host.as_str(), 0)).await?.collect();
            let mut allowed = found.clone();
            allowed.retain(|address| is_named || !is_inside(address.ip()));
            if allowed.is_empty() && !found.is_empty() {
                return Err(Detour::Inside { host }.into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

fn is_inside(address: IpAddr) -> bool {
    let address = address.to_canonical();
    let is_special = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast() || v4.octets()[0] == 0,
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    is_special
        || address.is_loopback()
        || address.is_unspecified()
        || address.is_multicast()
        || METADATA.contains(&address)
}

/// A host as URLs name it: `[::1]` keeps its brackets.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') && port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    }
}

/// The detour that is at the bottom of a failed request, if there is one.
pub(super) fn detour<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Detour> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(detour) = error.downcast_ref::<Detour>() {
            return Some(detour);
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        text.parse().unwrap()
    }

    #[test]
    fn what_only_this_machine_reaches_is_not_asked_unless_it_is_named() {
        let guard = Guard::new(["registry.example:5000", "127.0.0.1:3128"]);
        for inside in [
            "http://127.0.0.2/",
            "http://169.254.169.254/latest/meta-data",
            "http://2852039166/",
            "http://0.0.0.0:5000/",
            "http://[::1]/",
            "http://[::ffff:169.254.169.254]/",
            "http://[fe80::1]/",
            "http://[fd00:ec2::254]/",
            "http://100.100.100.200/",
        ] {
            assert!(matches!(guard.check(&url(inside)), Err(Detour::Inside { .. })), "{inside}");
        }
        for outside in ["https://127.0.0.1/", "http://10.1.2.3/", "https://[fd00::1]/", "https://blobs.example/"] {
            assert_eq!(guard.check(&url(outside)), Ok(()), "{outside}");
        }
    }

    #[test]
    fn redirects_never_leave_tls_and_come_to_an_end() {
        let guard = Guard::new(["registry.example"]);
        let previous = [url("https://registry.example/v2/")];
        assert!(matches!(guard.step(&url("http://registry.example/v2/"), &previous), Err(Detour::Plain { .. })));
        assert_eq!(guard.step(&url("https://blobs.example/a"), &previous), Ok(()));
        let many: Vec<Url> = (0..=MAX_REDIRECTS).map(|n| url(&format!("https://registry.example/{n}"))).collect();
        assert_eq!(guard.step(&url("https://registry.example/x"), &many), Err(Detour::TooMany));
    }

    #[tokio::test]
    async fn a_name_that_resolves_to_this_machine_is_not_asked_unless_it_is_named() {
        let asked = async |guard: Guard| guard.resolve("localhost".parse().unwrap()).await.map(Iterator::count);
        assert!(asked(Guard::new(["localhost:5000"])).await.unwrap() > 0);
        let error = asked(Guard::new(["registry.example"])).await.unwrap_err();
        assert!(detour(&*error).is_some(), "{error}");
    }
}
