//! The operator's words, one file a command.
//!
//! Rules kept here: stdout carries data and stderr messages; every failure names what happened, why, and what to do, and has
//! one of the exit codes of `exit::Exit`; nothing asks questions; no secret is an argument or is printed, except by `secret new`.

mod admin;
mod args;
mod certs;
mod check;
mod config;
mod exit;
mod firewall;
mod init;
mod log;
mod operate;
mod output;
mod run;
mod secret;
mod source;
mod status;
mod users;
mod verify;
mod version;
mod watch;

use std::panic;
use std::process::ExitCode;

use clap::Parser as _;

use self::args::{Cli, Command, ConfigCommand, SecretCommand, UsersCommand};
use self::exit::{Exit, Failure};
use self::output::Style;

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are printed here too, to stdout and with code 0.
            let usage = error.use_stderr();
            let _ = error.print();
            return if usage { Exit::Usage.into() } else { Exit::Ok.into() };
        }
    };
    let ended = panic::catch_unwind(|| dispatch(cli.command)).unwrap_or_else(|_| {
        Err(Failure::coded(Exit::Internal, crate::control::Code::INTERNAL, "the command ended with the panic above"))
    });
    match ended {
        Ok(exit) => exit.into(),
        Err(failure) => {
            output::note(&failure.render(Style::stderr()));
            failure.exit.into()
        }
    }
}

fn dispatch(command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Run(args) => {
            crate::net::files::raise_limit();
            run::run(&args)
        }
        Command::Init(args) => init::run(&args),
        Command::Firewall(args) => firewall::run(&args),
        Command::Secret(SecretCommand::New) => secret::new(),
        Command::Users(UsersCommand::Add(args)) => users::add(&args),
        Command::Certs(args) => certs::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Plan(args) => operate::plan(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Pause(args) => operate::pause(&args, true),
        Command::Resume(args) => operate::pause(&args, false),
        Command::Config(ConfigCommand::Validate(args)) => config::validate(&args),
        Command::Config(ConfigCommand::Show(args)) => config::show(&args),
        Command::Healthcheck(args) => status::healthcheck(&args),
        Command::Version(args) => version::run(&args),
    }
}

/// A small runtime for commands that ask something once.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(no_runtime)
}

fn no_runtime(error: std::io::Error) -> Failure {
    Failure::new(Exit::Internal, format!("the runtime cannot be started: {error}"))
}

#[cfg(test)]
mod testing {
    use std::path::Path;

    /// Compares `text` with the file `path` of this package; with LINKSPAN_WRITE_GOLDEN set, writes it instead.
    pub(crate) fn golden(path: &str, text: &str) {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        if std::env::var_os("LINKSPAN_WRITE_GOLDEN").is_some() {
            std::fs::create_dir_all(file.parent().expect("a directory")).expect("the directory is made");
            std::fs::write(&file, text).expect("the file is written");
        }
        let stored = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(stored == text, "{path} differs; LINKSPAN_WRITE_GOLDEN=1 writes it anew. Now:\n{text}");
    }
}
