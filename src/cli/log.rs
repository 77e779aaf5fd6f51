//! Where log lines go: stderr, as text on a terminal and as JSON otherwise.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use super::exit::{Exit, Failure};
use super::output::Style;
use crate::control::Code;

/// Levels unless LINKSPAN_LOG or RUST_LOG say otherwise.
const DEFAULT: &str = "info";

/// Installs the log for this process; a panic becomes one of its lines, with the code of a bug.
///
/// # Errors
/// [`Exit::Usage`] where the filter cannot be read.
pub(crate) fn install() -> Result<(), Failure> {
    let filter = filter(|name| std::env::var(name).ok())?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() {
        lines.with_ansi(Style::stderr().colours()).with_target(false).init();
    } else {
        lines.json().flatten_event(true).with_current_span(true).with_span_list(false).init();
    }
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let payload = panic.payload();
        let text = payload.downcast_ref::<&str>().copied();
        let said = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
        tracing::error!(code = %Code::INTERNAL, place, fix = Code::INTERNAL.fix(), "panic: {said}");
    }));
    Ok(())
}

/// LINKSPAN_LOG, then RUST_LOG, then the default; empty counts as not set.
fn filter(variable: impl Fn(&str) -> Option<String>) -> Result<EnvFilter, Failure> {
    let set = |name: &'static str| variable(name).filter(|text| !text.trim().is_empty()).map(|text| (name, text));
    let Some((name, text)) = set("LINKSPAN_LOG").or_else(|| set("RUST_LOG")) else {
        return Ok(EnvFilter::new(DEFAULT));
    };
    EnvFilter::try_new(&text).map_err(|error| {
        Failure::new(Exit::Usage, format!("{name}={text}: {error}"))
            .fixed_by(format!("{name}=info, or by part: {name}=info,linkspan::tunnel=debug"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_products_own_variable_comes_first() {
        let with = |own: Option<&str>, rust: Option<&str>| {
            let (own, rust) = (own.map(str::to_owned), rust.map(str::to_owned));
            filter(move |name| if name == "LINKSPAN_LOG" { own.clone() } else { rust.clone() }).map(|f| f.to_string())
        };
        assert_eq!(with(Some("debug"), Some("warn")), Ok("debug".to_owned()));
        assert_eq!(with(None, Some("warn")), Ok("warn".to_owned()));
        assert_eq!(with(Some(" "), None), Ok("info".to_owned()));
        let failure = with(Some("linkspan=loud"), None).expect_err("no such level");
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.what.starts_with("LINKSPAN_LOG=linkspan=loud: "), "{}", failure.what);
    }
}
