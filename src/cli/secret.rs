//! `linkspan secret new`: the only command that prints a secret.

use super::exit::{Exit, Failure};
use super::output;
use crate::tunnel::secret;

/// Prints a new shared secret and nothing else, so that it can go straight into a file.
///
/// # Errors
/// As [`output::print()`].
pub(crate) fn new() -> Result<Exit, Failure> {
    output::print(&format!("{}\n", secret::generate().expose()))?;
    output::note(
        "Put this value on both sides: SHARED_SECRET in setenv.sh, or the file of [tunnel] secret_file (chmod 600).\n",
    );
    Ok(Exit::Ok)
}
