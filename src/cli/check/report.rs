//! The result of a check: rows in categories, as JSON and for people.

use std::fmt::Write as _;

use clap::ValueEnum;
use serde::Serialize;

use crate::cli::output::{Paint, Style, clean};
use crate::control::Code;

/// Name and version of the document.
pub(crate) const SCHEMA: &str = "linkspan/v1/Check";

/// What is looked at, in the order of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Category {
    /// The configuration file, the secret, and whether the endpoint runs.
    Config,
    /// Names that this host must resolve.
    Names,
    /// Ports that this host must open.
    Ports,
    /// The way to the peer.
    Tunnel,
    /// The cluster beside this process.
    Local,
    /// The cluster at the other end, through the tunnel.
    Peer,
    /// Proxy, exit and replication, as the running endpoint sees them.
    Link,
}

impl Category {
    /// All, in order.
    pub(crate) const ALL: [Self; 7] =
        [Self::Config, Self::Names, Self::Ports, Self::Tunnel, Self::Local, Self::Peer, Self::Link];

    const fn heading(self) -> &'static str {
        match self {
            Self::Config => "configuration",
            Self::Names => "names",
            Self::Ports => "ports",
            Self::Tunnel => "tunnel",
            Self::Local => "local cluster",
            Self::Peer => "peer cluster (through the tunnel)",
            Self::Link => "running link",
        }
    }
}

/// How one check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    /// As it should be.
    Passed,
    /// Doubtful, but the link works.
    Warning,
    /// The link does not work, or not all of it.
    Failed,
    /// Not looked at; the detail says why.
    Skipped,
}

impl Outcome {
    const fn sign(self) -> (&'static str, Paint) {
        match self {
            Self::Passed => ("√", Paint::Good),
            Self::Warning => ("‼", Paint::Doubtful),
            Self::Failed => ("×", Paint::Bad),
            Self::Skipped => ("-", Paint::Faint),
        }
    }
}

/// One line of a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Row {
    /// Where it belongs.
    #[serde(skip)]
    pub(crate) category: Category,
    /// The failure's name.
    pub(crate) code: Code,
    /// What holds when all is well.
    pub(crate) title: String,
    /// How it went.
    pub(crate) result: Outcome,
    /// What was seen.
    pub(crate) detail: String,
    /// What was seen, where one line is too little.
    pub(crate) lines: Vec<String>,
    /// The likely cause, where it did not pass.
    pub(crate) cause: Option<String>,
    /// What to do, where it did not pass.
    pub(crate) fix: Option<String>,
}

impl Row {
    /// A row with the title of its code and, unless it passed or was skipped, the usual cause and fix.
    pub(crate) fn new(category: Category, code: Code, result: Outcome, detail: impl Into<String>) -> Self {
        let told = matches!(result, Outcome::Failed | Outcome::Warning);
        Self {
            category,
            code,
            title: code.title().to_owned(),
            result,
            detail: detail.into(),
            lines: Vec::new(),
            cause: told.then(|| code.cause().to_owned()),
            fix: told.then(|| code.fix().to_owned()),
        }
    }

    /// Adds lines of detail.
    #[must_use]
    pub(crate) fn with_lines(self, lines: Vec<String>) -> Self {
        Self { lines, ..self }
    }

    /// Replaces the usual cause by the known one.
    #[must_use]
    pub(crate) fn because(self, cause: impl Into<String>) -> Self {
        Self { cause: Some(cause.into()), ..self }
    }

    /// Replaces the usual fix by a better one.
    #[must_use]
    pub(crate) fn fixed_by(self, fix: impl Into<String>) -> Self {
        Self { fix: Some(fix.into()), ..self }
    }
}

/// Everything that was found, judged.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Report {
    /// [`SCHEMA`].
    pub(crate) schema: &'static str,
    /// The link's name; `None` where the configuration does not load.
    pub(crate) link: Option<String>,
    /// Version of this program.
    pub(crate) version: String,
    /// Whether nothing failed.
    pub(crate) success: bool,
    /// Rows that failed.
    pub(crate) failed: usize,
    /// Rows with a warning.
    pub(crate) warnings: usize,
    /// Rows that passed.
    pub(crate) passed: usize,
    /// Rows that were skipped.
    pub(crate) skipped: usize,
    /// How long looking took.
    pub(crate) seconds: f64,
    /// The rows.
    pub(crate) categories: Vec<Section>,
}

/// The rows of one category.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Section {
    /// Which.
    pub(crate) name: Category,
    /// Its rows.
    pub(crate) checks: Vec<Row>,
}

impl Report {
    /// Sorts rows into categories and counts them.
    #[must_use]
    pub(crate) fn new(link: Option<String>, rows: Vec<Row>, seconds: f64) -> Self {
        let count = |outcome| rows.iter().filter(|row| row.result == outcome).count();
        let (failed, warnings, passed, skipped) =
            (count(Outcome::Failed), count(Outcome::Warning), count(Outcome::Passed), count(Outcome::Skipped));
        let categories = Category::ALL
            .into_iter()
            .map(|name| Section { name, checks: rows.iter().filter(|row| row.category == name).cloned().collect() })
            .filter(|section| !section.checks.is_empty())
            .collect();
        Self {
            schema: SCHEMA,
            link,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            success: failed == 0,
            failed,
            warnings,
            passed,
            skipped,
            seconds: (seconds * 1000.0).round() / 1000.0,
            categories,
        }
    }

    /// The text for people; the verdict comes last.
    #[must_use]
    pub(crate) fn render(&self, style: Style) -> String {
        let mut text = String::new();
        if let Some(link) = &self.link {
            let _ = writeln!(text, "link {link}  (linkspan {})\n", self.version);
        }
        for section in &self.categories {
            let heading = section.name.heading();
            let _ = writeln!(text, "{}\n{}", style.paint(Paint::Strong, heading), "-".repeat(heading.chars().count()));
            for row in &section.checks {
                row.render(&mut text, style);
            }
            text.push('\n');
        }
        let mut counts = Vec::new();
        for (count, name) in
            [(self.failed, "failed"), (self.warnings, "warning"), (self.passed, "passed"), (self.skipped, "skipped")]
        {
            if count > 0 {
                let plural = if name == "warning" && count > 1 { "s" } else { "" };
                counts.push(format!("{count} {name}{plural}"));
            }
        }
        if self.failed + self.warnings > 0 {
            text.push_str("Each code has a section in docs/errors.md.\n");
        }
        let (sign, paint) = if self.success { Outcome::Passed.sign() } else { Outcome::Failed.sign() };
        let _ = writeln!(
            text,
            "{} in {:.1} s.   Check results are {}",
            counts.join(", "),
            self.seconds,
            style.paint(paint, sign)
        );
        text
    }
}

impl Row {
    fn render(&self, text: &mut String, style: Style) {
        let (sign, paint) = self.result.sign();
        let line = format!("{} {} {:<40}  {}", style.paint(paint, sign), self.code, self.title, clean(&self.detail));
        let _ = writeln!(text, "{}", line.trim_end());
        for line in &self.lines {
            let _ = writeln!(text, "    {}", clean(line));
        }
        for (name, value) in [("cause: ", &self.cause), ("fix:   ", &self.fix)] {
            if let Some(value) = value {
                let _ = writeln!(text, "    {}{}", style.paint(Paint::Faint, name), clean(value));
            }
        }
    }
}
