//! `linkspan certs`: a private CA and both endpoints' certificates.

use std::path::Path;

use super::args::CertsArgs;
use super::exit::{Exit, Failure};
use super::output;
use crate::tunnel::certs::{self, CertsError, GoesTo, Written};

/// Writes the files and says where each of them goes.
///
/// # Errors
/// [`Exit::Refused`] where certificates are there already and `--force` is not given; [`Exit::Usage`] where the directory
/// cannot be written.
pub(crate) fn run(args: &CertsArgs) -> Result<Exit, Failure> {
    let written = certs::generate(&args.dir, args.force).map_err(|error| refused(&error))?;
    output::print(&listing(&written))?;
    output::note(&advice(&args.dir));
    Ok(Exit::Ok)
}

fn refused(error: &CertsError) -> Failure {
    match error {
        CertsError::Exists(_) => Failure::new(Exit::Refused, error.to_string())
            .fixed_by("linkspan certs --dir OTHER, or --force to replace them on both sides"),
        CertsError::Io { .. } => Failure::new(Exit::Usage, error.to_string()),
        CertsError::Make(_) => Failure::new(Exit::Internal, error.to_string()),
    }
}

fn listing(written: &[Written]) -> String {
    let rows: Vec<Vec<String>> = written
        .iter()
        .map(|file| {
            let goes_to = match file.goes_to {
                GoesTo::Both => "both hosts",
                GoesTo::Source => "source host only",
                GoesTo::Destination => "destination host only",
                GoesTo::Offline => "neither: keep it offline, for renewals",
            };
            vec![file.path.display().to_string(), file.what.to_owned(), goes_to.to_owned()]
        })
        .collect();
    output::table("", &rows)
}

fn advice(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        "On the source host:       tls = {{ cert = \"{dir}/source.crt\", key = \"{dir}/source.key\", ca = \"{dir}/ca.crt\", peer = \"{}\" }}\n\
         On the destination host:  tls = {{ cert = \"{dir}/destination.crt\", key = \"{dir}/destination.key\", ca = \"{dir}/ca.crt\", peer = \"{}\" }}\n",
        certs::DESTINATION,
        certs::SOURCE
    )
}
