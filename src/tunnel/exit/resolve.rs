//! Names to addresses at the exit: the operator's fixed table, `/etc/hosts`, then DNS as the system is configured.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, ResolveHosts};
use tracing::warn;

/// Most bytes of a resolver's message that are passed on.
const MOST_DETAIL: usize = 200;

/// The table and the resolver.
pub(super) struct Names {
    fixed: HashMap<String, Vec<IpAddr>>,
    /// Or why there is none.
    resolver: Result<TokioResolver, String>,
}

impl Names {
    /// Reads the system's configuration.
    pub(super) fn new(fixed: &BTreeMap<String, Vec<IpAddr>>) -> Self {
        let resolver = TokioResolver::builder_tokio().and_then(|mut builder| {
            let options = builder.options_mut();
            options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
            options.use_hosts_file = ResolveHosts::Always;
            builder.build()
        });
        let resolver = resolver.map_err(|error| {
            warn!(%error, "the system's resolver configuration is of no use: names need [expose.resolve]");
            format!("/etc/resolv.conf is of no use: {error}")
        });
        let plain = |name: &String| name.trim_end_matches('.').to_ascii_lowercase();
        let fixed = fixed.iter().map(|(name, addresses)| (plain(name), addresses.clone())).collect();
        Self { fixed, resolver }
    }

    /// The operator's own addresses of `name`, which is in lower case and without a final dot.
    pub(super) fn fixed(&self, name: &str) -> Option<&[IpAddr]> {
        self.fixed.get(name).map(Vec::as_slice)
    }

    /// Asks `/etc/hosts` and DNS; the error is a text for [`crate::net::DialError::NoSuchName`].
    pub(super) async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, String> {
        let resolver = self.resolver.as_ref().map_err(Clone::clone)?;
        match resolver.lookup_ip(name).await {
            Ok(found) => Ok(found.iter().collect()),
            Err(error) if error.is_nx_domain() => Err("no such name".to_owned()),
            Err(error) if error.is_no_records_found() => Err("the name has no address".to_owned()),
            Err(error) => {
                let mut detail = error.to_string();
                let cut = detail.char_indices().map(|(at, _)| at).find(|at| *at >= MOST_DETAIL);
                detail.truncate(cut.unwrap_or(detail.len()));
                Err(detail)
            }
        }
    }
}
