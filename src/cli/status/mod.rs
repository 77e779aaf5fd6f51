//! `linkspan status`: what the running endpoint does.

mod render;

use std::time::Duration;

use super::admin::Admin;
use super::args::{StatusArgs, StatusOutput};
use super::exit::{Exit, Failure};
use super::output::{self, Style};
use super::{runtime, source};
use crate::control::{State, Status};

/// How long the running endpoint may take to answer.
const DEADLINE: Duration = Duration::from_secs(5);

/// Prints the status; [`Exit::Unhealthy`] unless the link is up.
///
/// # Errors
/// As [`Admin::status`], and a configuration that does not load where it is needed.
pub(crate) fn run(args: &StatusArgs) -> Result<Exit, Failure> {
    let admin = source::admin(args.admin.as_deref(), &args.config)?;
    let status = runtime()?.block_on(admin.status(DEADLINE))?;
    show(&status, args.output, Style::stdout())?;
    Ok(verdict(&status))
}

fn show(status: &Status, form: StatusOutput, style: Style) -> Result<(), Failure> {
    match form {
        StatusOutput::Json => output::print_json(status),
        StatusOutput::Human => output::print(&render::human(status, style)),
        StatusOutput::Wide => output::print(&render::wide(status, style)),
    }
}

const fn verdict(status: &Status) -> Exit {
    match status.state {
        State::Up => Exit::Ok,
        State::Degraded | State::Down | State::Starting => Exit::Unhealthy,
    }
}

/// `linkspan healthcheck`: whether the running endpoint is ready.
///
/// # Errors
/// [`Exit::Unhealthy`] where it is not, or does not answer; containers know no other code.
pub(crate) fn healthcheck(args: &super::args::HealthcheckArgs) -> Result<Exit, Failure> {
    let unhealthy = |mut failure: Failure| {
        failure.exit = Exit::Unhealthy;
        failure
    };
    let admin: Admin = source::admin(args.admin.as_deref(), &args.config).map_err(unhealthy)?;
    let page =
        runtime()?.block_on(admin.get("/readyz?verbose", DEADLINE)).map_err(|error| unhealthy(admin.silent(&error)))?;
    output::print(&page.body.lines().map(|line| output::clean(line) + "\n").collect::<String>())?;
    Ok(if page.status == 200 { Exit::Ok } else { Exit::Unhealthy })
}
