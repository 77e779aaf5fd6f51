//! argv to command to exit code; the only place that ends the process.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    linkspan::cli::main()
}
