//! Names to addresses at the exit: the operator's fixed table, `/etc/hosts`, then DNS as the system is configured.
//!
//! IPv4 and IPv6 are asked for at once, and one that has an answer waits only shortly for the other (RFC 8305, section 3): a name of
//! `/etc/hosts` with one address would else wait for DNS to time out, at each dial.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::net::IpAddr;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, ResolveHosts};
use tracing::warn;

/// Most bytes of a resolver's message that are passed on.
const MOST_DETAIL: usize = 200;

/// How long one family's answer waits for the other's: RFC 8305's Resolution Delay.
const RESOLUTION_DELAY: Duration = Duration::from_millis(50);

/// The table and the resolvers.
pub(super) struct Names {
    fixed: RwLock<HashMap<String, Vec<IpAddr>>>,
    /// For IPv4 and IPv6, or why there are none.
    resolvers: Result<[TokioResolver; 2], String>,
}

/// Addresses of one family, or why there are none.
type Found = Result<Vec<IpAddr>, Missing>;

/// Why a name has no address.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Missing {
    /// DNS says so; the other family may have one.
    Said(&'static str),
    /// DNS could not be asked.
    Failed(String),
}

impl Names {
    /// Reads the system's configuration.
    pub(super) fn new(fixed: &BTreeMap<String, Vec<IpAddr>>) -> Self {
        let of = |strategy| {
            let mut builder = TokioResolver::builder_tokio()?;
            builder.options_mut().ip_strategy = strategy;
            builder.options_mut().use_hosts_file = ResolveHosts::Always;
            builder.build()
        };
        let both = of(LookupIpStrategy::Ipv4Only).and_then(|v4| Ok([v4, of(LookupIpStrategy::Ipv6Only)?]));
        let resolvers = both.map_err(|error| {
            warn!(%error, "the system's resolver configuration is of no use: names need [expose.resolve]");
            format!("/etc/resolv.conf is of no use: {error}")
        });
        Self { fixed: RwLock::new(table(fixed)), resolvers }
    }

    /// Puts another table of the operator in the place of the present one.
    pub(super) fn set_fixed(&self, fixed: &BTreeMap<String, Vec<IpAddr>>) {
        *self.fixed.write().unwrap_or_else(PoisonError::into_inner) = table(fixed);
    }

    /// The operator's own addresses of `name`, which is in lower case and without a final dot.
    pub(super) fn fixed(&self, name: &str) -> Option<Vec<IpAddr>> {
        self.fixed.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// Asks `/etc/hosts` and DNS; the error is a text for [`crate::net::DialError::NoSuchName`].
    pub(super) async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, String> {
        let [v4, v6] = self.resolvers.as_ref().map_err(Clone::clone)?;
        // A look-up is large, and every stream's task would have room for it as long as the stream lives.
        let found = Box::pin(first_of(ask(v4, name), ask(v6, name))).await;
        found.map_err(|missing| match missing {
            Missing::Said(why) => why.to_owned(),
            Missing::Failed(why) => why,
        })
    }
}

/// Names in lower case and without a final dot.
fn table(fixed: &BTreeMap<String, Vec<IpAddr>>) -> HashMap<String, Vec<IpAddr>> {
    let plain = |name: &String| name.trim_end_matches('.').to_ascii_lowercase();
    fixed.iter().map(|(name, addresses)| (plain(name), addresses.clone())).collect()
}

async fn ask(resolver: &TokioResolver, name: &str) -> Found {
    match resolver.lookup_ip(name).await {
        Ok(found) => Ok(found.iter().collect()),
        Err(error) if error.is_nx_domain() => Err(Missing::Said("no such name")),
        Err(error) if error.is_no_records_found() => Err(Missing::Said("the name has no address")),
        Err(error) => {
            let mut detail = error.to_string();
            let cut = detail.char_indices().map(|(at, _)| at).find(|at| *at >= MOST_DETAIL);
            detail.truncate(cut.unwrap_or(detail.len()));
            Err(Missing::Failed(detail))
        }
    }
}

/// What both families have, IPv4 first; the second to answer has a short time once the first has addresses.
async fn first_of(v4: impl Future<Output = Found>, v6: impl Future<Output = Found>) -> Found {
    tokio::pin!(v4, v6);
    let late = |_| Err(Missing::Failed("late".to_owned()));
    let (v4, v6) = tokio::select! {
        found = &mut v4 => match found {
            Ok(found) => (Ok(found), tokio::time::timeout(RESOLUTION_DELAY, v6).await.unwrap_or_else(late)),
            missing => (missing, v6.await),
        },
        found = &mut v6 => match found {
            Ok(found) => (tokio::time::timeout(RESOLUTION_DELAY, v4).await.unwrap_or_else(late), Ok(found)),
            missing => (v4.await, missing),
        },
    };
    match (v4, v6) {
        (Ok(mut v4), v6) => {
            v4.extend(v6.unwrap_or_default());
            Ok(v4)
        }
        (Err(_), Ok(v6)) => Ok(v6),
        // That DNS could not be asked weighs more than what it said of the other family.
        (Err(Missing::Failed(why)), _) | (_, Err(Missing::Failed(why))) => Err(Missing::Failed(why)),
        (Err(said), Err(_)) => Err(said),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn after(ms: u64, found: Found) -> Found {
        tokio::time::sleep(Duration::from_millis(ms)).await;
        found
    }

    #[tokio::test(start_paused = true)]
    async fn a_family_that_answers_does_not_wait_for_one_that_times_out() {
        let (v4, v6): (Vec<IpAddr>, Vec<IpAddr>) = (vec![[10, 0, 0, 1].into()], vec!["fd00::1".parse().unwrap()]);
        let failed = || Err(Missing::Failed("timed out".to_owned()));
        let none = || Err(Missing::Said("the name has no address"));
        let begun = tokio::time::Instant::now();
        assert_eq!(first_of(after(0, Ok(v4.clone())), after(3000, failed())).await, Ok(v4.clone()));
        assert_eq!(begun.elapsed(), RESOLUTION_DELAY);
        let both = vec![v4[0], v6[0]];
        assert_eq!(first_of(after(20, Ok(v4.clone())), after(0, Ok(v6.clone()))).await, Ok(both));
        assert_eq!(first_of(after(0, none()), after(200, Ok(v6.clone()))).await, Ok(v6));
        assert_eq!(first_of(after(200, failed()), after(0, none())).await, failed());
        assert_eq!(first_of(after(0, none()), after(0, none())).await, none());
    }
}
