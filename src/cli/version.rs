//! `linkspan version`.

use serde::Serialize;

use super::args::{CheckOutput, VersionArgs};
use super::exit::{Exit, Failure};
use super::output;

#[derive(Serialize)]
struct Document {
    schema: &'static str,
    version: &'static str,
    os: &'static str,
    arch: &'static str,
}

/// Prints the version.
///
/// # Errors
/// As [`output::print()`].
pub(crate) fn run(args: &VersionArgs) -> Result<Exit, Failure> {
    let version = env!("CARGO_PKG_VERSION");
    match args.output {
        CheckOutput::Human => output::print(&format!("linkspan {version}\n"))?,
        CheckOutput::Json => output::print_json(&Document {
            schema: "linkspan/v1/Version",
            version,
            os: std::env::consts::OS,
            arch: std::env::consts::ARCH,
        })?,
    }
    Ok(Exit::Ok)
}
