//! `linkspan firewall`: the rules of this link, from the value that opens the socket.

use super::args::{FirewallArgs, FirewallOutput};
use super::exit::{Exit, Failure};
use super::{output, source};
use crate::config::firewall;

/// Prints the rules.
///
/// # Errors
/// [`Exit::Usage`] with every mistake of the configuration. Secrets need not be readable.
pub(crate) fn run(args: &FirewallArgs) -> Result<Exit, Failure> {
    let config = source::load_without_secrets(&args.config)?;
    let plan = firewall::rules(&config);
    output::print(&match args.output {
        FirewallOutput::Table => plan.table(),
        FirewallOutput::Json => plan.json(),
        FirewallOutput::Nft => plan.nft(),
    })?;
    Ok(Exit::Ok)
}
