//! How a command ends: its exit code, and what it says on stderr when it fails.

use std::fmt::Write as _;
use std::process::ExitCode;

use super::output::{Paint, Style};
use crate::control::Code;

/// Exit codes, the same for every command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// All went well.
    Ok = 0,
    /// A check failed, or the endpoint is not healthy.
    Unhealthy = 1,
    /// The command line or the configuration is wrong.
    Usage = 2,
    /// There is something to be done (`plan --detailed-exitcode`).
    Pending = 3,
    /// A proof of identity was refused.
    Authentication = 4,
    /// The endpoint, the peer or a broker cannot be reached.
    Unreachable = 5,
    /// It was not done within the time given.
    Timeout = 6,
    /// It would be unsafe, and was refused.
    Refused = 7,
    /// The program contradicts itself.
    Internal = 70,
    /// Ended by SIGINT.
    Interrupted = 130,
    /// Ended by SIGTERM.
    Terminated = 143,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command failed, as it is told to a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The exit code.
    pub(crate) exit: Exit,
    /// The failure's name, where it has one.
    pub(crate) code: Option<Code>,
    /// What happened: one line, or several for a file's mistakes.
    pub(crate) what: String,
    /// The likely cause.
    pub(crate) cause: Option<String>,
    /// What to do.
    pub(crate) fix: Option<String>,
    /// Whether `what` is printed as it is.
    verbatim: bool,
}

impl Failure {
    /// A failure without a code.
    pub(crate) fn new(exit: Exit, what: impl Into<String>) -> Self {
        Self { exit, code: None, what: what.into(), cause: None, fix: None, verbatim: false }
    }

    /// A failure whose text already has its form, as the mistakes of a configuration file have.
    pub(crate) fn verbatim(exit: Exit, text: impl Into<String>) -> Self {
        Self { verbatim: true, ..Self::new(exit, text) }
    }

    /// A failure with the usual cause and fix of its code.
    pub(crate) fn coded(exit: Exit, code: Code, what: impl Into<String>) -> Self {
        Self {
            code: Some(code),
            cause: Some(code.cause().to_owned()),
            fix: Some(code.fix().to_owned()),
            ..Self::new(exit, what)
        }
    }

    /// Replaces the fix.
    #[must_use]
    pub(crate) fn fixed_by(self, fix: impl Into<String>) -> Self {
        Self { fix: Some(fix.into()), ..self }
    }

    /// Leaves the cause away where what was said is the cause.
    #[must_use]
    pub(crate) fn without_cause(self) -> Self {
        Self { cause: None, ..self }
    }

    /// The text for stderr: what happened, then cause and fix.
    #[must_use]
    pub(crate) fn render(&self, style: Style) -> String {
        if self.verbatim {
            return self.what.trim_end().to_owned() + "\n";
        }
        let mut text = style.paint(Paint::Bad, "error");
        if let Some(code) = self.code {
            let _ = write!(text, "[{code}]");
        }
        let _ = writeln!(text, ": {}", self.what.trim_end());
        for (name, value) in [("cause: ", &self.cause), ("fix:   ", &self.fix)] {
            if let Some(value) = value {
                let _ = writeln!(text, "  {}{value}", style.paint(Paint::Faint, name));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_happened_why_and_what_to_do() {
        let failure = Failure::coded(Exit::Unreachable, Code::ADMIN_ANSWERS, "nothing answers on 127.0.0.1:9464");
        assert_eq!(
            failure.render(Style::PLAIN),
            "error[LS072]: nothing answers on 127.0.0.1:9464\n  \
             cause: the endpoint is not running on this host, or its admin port is another one\n  \
             fix:   linkspan run, or name the port with --admin host:port\n"
        );
        assert_eq!(Failure::new(Exit::Usage, "no").render(Style::PLAIN), "error: no\n");
    }
}
