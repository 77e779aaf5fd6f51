//! Output rules: data on stdout, messages on stderr; colour only on a terminal that wants it; a closed pipe is no failure.

use std::io::{self, IsTerminal as _, Write as _};

use super::exit::{Exit, Failure};

/// Whether to colour. Signs and words carry the meaning; colour only repeats it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Style {
    colour: bool,
}

/// What a piece of text stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Paint {
    /// As it should be.
    Good,
    /// Doubtful.
    Doubtful,
    /// Failed.
    Bad,
    /// A heading.
    Strong,
    /// Less important.
    Faint,
}

impl Style {
    /// No colour at all.
    #[cfg(test)]
    pub(crate) const PLAIN: Self = Self { colour: false };

    /// The style for stdout of this process.
    #[must_use]
    pub(crate) fn stdout() -> Self {
        Self::of(io::stdout().is_terminal(), |name| std::env::var_os(name).map(|v| v.to_string_lossy().into_owned()))
    }

    /// The style for stderr of this process.
    #[must_use]
    pub(crate) fn stderr() -> Self {
        Self::of(io::stderr().is_terminal(), |name| std::env::var_os(name).map(|v| v.to_string_lossy().into_owned()))
    }

    /// Colour on a terminal, unless NO_COLOR is set and not empty, or TERM is `dumb`.
    fn of(terminal: bool, variable: impl Fn(&str) -> Option<String>) -> Self {
        let refused =
            variable("NO_COLOR").is_some_and(|v| !v.is_empty()) || variable("TERM").as_deref() == Some("dumb");
        Self { colour: terminal && !refused }
    }

    /// Whether colour is used.
    #[must_use]
    pub(crate) const fn colours(self) -> bool {
        self.colour
    }

    /// Colours `text`, or leaves it as it is.
    #[must_use]
    pub(crate) fn paint(self, paint: Paint, text: &str) -> String {
        if !self.colour {
            return text.to_owned();
        }
        let on = match paint {
            Paint::Good => "32",
            Paint::Doubtful => "33",
            Paint::Bad => "31",
            Paint::Strong => "1",
            Paint::Faint => "2",
        };
        format!("\x1b[{on}m{text}\x1b[0m")
    }
}

/// Writes data to stdout.
///
/// # Errors
/// [`Exit::Internal`] where stdout cannot be written; a reader that went away (`| head`) is none.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Exit::Internal, format!("stdout cannot be written: {error}")))
        }
        _ => Ok(()),
    }
}

/// Writes a document to stdout, indented.
///
/// # Errors
/// As [`print()`].
pub(crate) fn print_json(document: &impl serde::Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(document)
        .map_err(|error| Failure::new(Exit::Internal, format!("the document is no JSON: {error}")))?;
    print(&(text + "\n"))
}

/// Writes a message to stderr; a closed stderr is not worth a failure.
pub(crate) fn note(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// Text from elsewhere (a broker, a peer, another version) made fit for a terminal: control characters are shown, not obeyed.
#[must_use]
pub(crate) fn clean(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            let shown: Vec<char> = if c.is_control() { c.escape_default().collect() } else { vec![c] };
            shown
        })
        .collect()
}

/// `1234567` as `1,234,567`.
#[must_use]
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes as people read them: `512 B`, `1.8 MB` (powers of 1000).
#[must_use]
pub(crate) fn bytes(number: f64) -> String {
    let mut value = number.max(0.0);
    for unit in ["B", "kB", "MB", "GB", "TB"] {
        let limit = if unit == "B" { 999.5 } else { 999.95 };
        if value < limit {
            return if unit == "B" { format!("{value:.0} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1000.0;
    }
    format!("{value:.1} PB")
}

/// Seconds as people read them: `0.4 s`, `59 s`, `3m 5s`, `4h 2m`, `6d 2h`.
#[must_use]
pub(crate) fn duration(seconds: f64) -> String {
    let seconds = seconds.max(0.0);
    if seconds < 9.95 {
        return format!("{seconds:.1} s");
    }
    let whole = seconds.round() as u64;
    match whole {
        0..60 => format!("{whole} s"),
        60..3600 => format!("{}m {}s", whole / 60, whole % 60),
        3600..86_400 => format!("{}h {}m", whole / 3600, whole / 60 % 60),
        _ => format!("{}d {}h", whole / 86_400, whole / 3600 % 24),
    }
}

/// A table: columns padded to their widest cell, two spaces between, none at the ends of lines.
#[must_use]
pub(crate) fn table(indent: &str, rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = indent.to_owned();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:<width$}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_people_write_them() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(
            [0.0, 999.0, 999.6, 1000.0, 1_887_436.8, 999_949.0, 999_950.0, 2.5e15, -1.0].map(bytes),
            ["0 B", "999 B", "1.0 kB", "1.0 kB", "1.9 MB", "999.9 kB", "1.0 MB", "2.5 PB", "0 B"]
        );
        assert_eq!(
            [0.0, 0.44, 9.94, 10.0, 59.4, 60.0, 185.0, 14_520.0, 525_605.0].map(duration),
            ["0.0 s", "0.4 s", "9.9 s", "10 s", "59 s", "1m 0s", "3m 5s", "4h 2m", "6d 2h"]
        );
    }

    #[test]
    fn colour_needs_a_terminal_that_wants_it() {
        let with = |terminal, no_color: Option<&str>, term: &str| {
            let (no_color, term) = (no_color.map(str::to_owned), term.to_owned());
            Style::of(terminal, move |name| match name {
                "NO_COLOR" => no_color.clone(),
                _ => Some(term.clone()),
            })
            .colours()
        };
        assert!(with(true, None, "xterm") && with(true, Some(""), "xterm"));
        assert!(!with(false, None, "xterm") && !with(true, Some("1"), "xterm") && !with(true, None, "dumb"));
        assert_eq!(Style { colour: true }.paint(Paint::Bad, "x"), "\x1b[31mx\x1b[0m");
        assert_eq!(Style::PLAIN.paint(Paint::Bad, "x"), "x");
    }

    #[test]
    fn text_from_elsewhere_cannot_drive_the_terminal() {
        assert_eq!(clean("a\x1b[2Jb\nc"), "a\\u{1b}[2Jb\\nc");
        assert_eq!(clean("naïve √"), "naïve √");
    }

    #[test]
    fn tables_line_up_without_trailing_spaces() {
        let rows = vec![vec!["a".to_owned(), "long".to_owned()], vec!["bbb".to_owned(), String::new()]];
        assert_eq!(table("  ", &rows), "  a    long\n  bbb\n");
    }
}
