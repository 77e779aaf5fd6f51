//! `linkspan check`: looks at everything the link needs, and says what is wrong and what to do.
//!
//! Two halves: `gather` looks and never judges, `evaluate` judges and never looks.

mod evaluate;
mod gather;
mod report;

use std::time::{Duration, Instant};

use evaluate::evaluate;
pub(crate) use report::Category;
use report::Report;

use super::args::{CheckArgs, CheckOutput};
use super::exit::{Exit, Failure};
use super::output::{self, Style};
use super::{runtime, source};

/// Pause between two tries of `--wait`.
const PAUSE: Duration = Duration::from_secs(2);

/// Prints the report. [`Exit::Usage`] where the configuration does not load, [`Exit::Timeout`] where something still fails after
/// `--wait`, [`Exit::Unhealthy`] where something fails, [`Exit::Unreachable`] where nothing of what was asked for can be looked at.
///
/// # Errors
/// Where it cannot begin: no configuration file at all.
pub(crate) fn run(args: &CheckArgs) -> Result<Exit, Failure> {
    let runtime = runtime()?;
    let begun = Instant::now();
    let report = loop {
        let report = runtime.block_on(once(args))?;
        match args.wait {
            Some(wait) if !report.success && begun.elapsed() + PAUSE < wait => std::thread::sleep(PAUSE),
            _ => break report,
        }
    };
    match args.output {
        CheckOutput::Human => output::print(&report.render(Style::stdout()))?,
        CheckOutput::Json => output::print_json(&report)?,
    }
    Ok(verdict(&report, args.wait.is_some()))
}

async fn once(args: &CheckArgs) -> Result<Report, Failure> {
    let begun = Instant::now();
    let wanted = |category| args.only.is_empty() || args.only.contains(&category);
    let found = source::look(&args.config)?;
    let link = found.config.as_ref().map(|config| config.link.clone());
    let facts = gather::gather(&found, args.admin.as_deref(), &wanted).await?;
    let mut rows = evaluate(&facts);
    // A configuration that does not load is why there is nothing else, whatever was asked for.
    rows.retain(|row| wanted(row.category) || (link.is_none() && row.category == Category::Config));
    Ok(Report::new(link, rows, begun.elapsed().as_secs_f64()))
}

fn verdict(report: &Report, waited: bool) -> Exit {
    // Nothing but skipped rows is no success: what was asked for could not be looked at.
    let blind = report.passed + report.failed + report.warnings == 0;
    match (report.success, report.link.is_none(), waited) {
        (true, _, _) if blind => Exit::Unreachable,
        (true, _, _) => Exit::Ok,
        (false, true, _) => Exit::Usage,
        (false, false, true) => Exit::Timeout,
        (false, false, false) => Exit::Unhealthy,
    }
}
