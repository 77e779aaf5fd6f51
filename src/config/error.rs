//! What is wrong with a file, where, and what would be right, rendered the way a compiler does.
//!
//! Rules kept here: a source line that is shown has the values of its secrets masked; the order is that of the file.

use std::fmt;
use std::ops::Range;

use serde::Serialize;

/// The kind of a finding; stable, printed, and the name of its page in the documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ErrorCode {
    /// LS001: the file cannot be read, is no UTF-8, or is over 1 MiB.
    Unreadable,
    /// LS002: not the syntax of this kind of file.
    Syntax,
    /// LS003: a key that nobody reads.
    UnknownKey,
    /// LS004: a value of another type.
    WrongType,
    /// LS005: a key that must be there.
    Missing,
    /// LS006: a value that cannot be.
    Invalid,
    /// LS007: two keys that exclude each other, or none where one is needed.
    Conflict,
    /// LS008: a value that would have no effect.
    Unused,
    /// LS009: a secret or a key file that is missing, unreadable or empty.
    SecretUnread,
    /// LS010: the same name twice.
    Duplicate,
    /// LS011: a placeholder or published value that must be replaced.
    Placeholder,
    /// LS051: a warning: a secret that others on this host can read.
    OpenSecret,
    /// LS052: a warning: a check or a bound that the operator switched off.
    Weakened,
    /// LS053: a warning: a value that is allowed but has no effect.
    NoEffect,
}

impl ErrorCode {
    /// The printed form, for example `LS003`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unreadable => "LS001",
            Self::Syntax => "LS002",
            Self::UnknownKey => "LS003",
            Self::WrongType => "LS004",
            Self::Missing => "LS005",
            Self::Invalid => "LS006",
            Self::Conflict => "LS007",
            Self::Unused => "LS008",
            Self::SecretUnread => "LS009",
            Self::Duplicate => "LS010",
            Self::Placeholder => "LS011",
            Self::OpenSecret => "LS051",
            Self::Weakened => "LS052",
            Self::NoEffect => "LS053",
        }
    }

    /// Whether findings of this kind let the program start.
    #[must_use]
    pub const fn is_warning(self) -> bool {
        matches!(self, Self::OpenSecret | Self::Weakened | Self::NoEffect)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for ErrorCode {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// One mistake or warning, with its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The kind.
    pub code: ErrorCode,
    /// The file, as the operator named it.
    pub file: String,
    /// Line from 1; 0 where the file as a whole is meant.
    pub line: usize,
    /// Column in characters from 1; 0 where the file as a whole is meant.
    pub column: usize,
    /// Dotted path of the key, for example `local.security.protocol`; empty where no key is meant.
    pub path: String,
    /// What was seen.
    pub problem: String,
    /// What is allowed, or what to do; may be empty.
    pub allowed: String,
    /// The nearest valid name, where one is near.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nearest: Option<String>,
    /// The line of the file with secrets masked; empty where the file as a whole is meant.
    #[serde(skip)]
    excerpt: String,
    /// Column of the caret in `excerpt`, from 0, and its width.
    #[serde(skip)]
    caret: (usize, usize),
}

impl Finding {
    /// A finding about a file as a whole.
    #[must_use]
    pub fn of_file(code: ErrorCode, file: &str, problem: String, allowed: String) -> Self {
        Self {
            code,
            file: file.to_owned(),
            line: 0,
            column: 0,
            path: String::new(),
            problem,
            allowed,
            nearest: None,
            excerpt: String::new(),
            caret: (0, 0),
        }
    }

    /// A finding at a place of `source`.
    #[must_use]
    pub fn at(
        code: ErrorCode,
        source: &Source<'_>,
        span: Range<usize>,
        path: &str,
        problem: String,
        allowed: String,
    ) -> Self {
        let (line, column) = source.line_column(span.start);
        let (excerpt, caret) = source.excerpt(&span);
        Self {
            line,
            column,
            path: path.to_owned(),
            excerpt,
            caret,
            ..Self::of_file(code, source.name, problem, allowed)
        }
    }

    /// The same with the nearest valid name.
    #[must_use]
    pub fn with_nearest(mut self, nearest: Option<String>) -> Self {
        self.nearest = nearest;
        self
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.code.is_warning() { "warning" } else { "error" };
        write!(f, "{kind}[{}]: ", self.code)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        write!(f, "{}", self.problem)?;
        let gutter = self.line.to_string().len();
        if self.line == 0 {
            write!(f, "\n --> {}", self.file)?;
        } else {
            write!(f, "\n{:gutter$}--> {}:{}:{}", "", self.file, self.line, self.column)?;
            write!(f, "\n{:gutter$} |\n{} | {}", "", self.line, self.excerpt)?;
            write!(f, "\n{:gutter$} | {:pad$}{}", "", "", "^".repeat(self.caret.1), pad = self.caret.0)?;
        }
        if let Some(nearest) = &self.nearest {
            write!(f, "\n{:gutter$} = did you mean `{nearest}`?", "")?;
        }
        if !self.allowed.is_empty() {
            write!(f, "\n{:gutter$} = {}", "", self.allowed)?;
        }
        Ok(())
    }
}

/// Every mistake of a file, in the order of the file; never empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConfigErrors {
    /// The mistakes.
    pub errors: Vec<Finding>,
}

impl ConfigErrors {
    /// Sorts the mistakes into the order of the file; the same mistake is told once.
    #[must_use]
    pub fn new(mut errors: Vec<Finding>) -> Self {
        drop_echoes(&mut errors);
        sort(&mut errors);
        Self { errors }
    }
}

/// One mistake is told once: a key is not missing where it stands misspelt, and a line that cannot be read has no wrong values.
fn drop_echoes(errors: &mut Vec<Finding>) {
    let misspelt: Vec<(String, String)> = errors
        .iter()
        .filter(|e| e.code == ErrorCode::UnknownKey)
        .filter_map(|e| {
            let section = e.path.rsplit_once('.').map_or("", |(section, _)| section);
            Some((section.to_owned(), e.nearest.clone()?))
        })
        .collect();
    let broken: Vec<usize> = errors.iter().filter(|e| e.code == ErrorCode::Syntax).map(|e| e.line).collect();
    errors.retain(|e| match e.code {
        ErrorCode::Missing => !misspelt.iter().any(|(section, key)| {
            let there = if section.is_empty() { key.clone() } else { format!("{section}.{key}") };
            e.path == there || (e.path == *section && e.problem.contains(&format!("`{key}`")))
        }),
        ErrorCode::Syntax | ErrorCode::UnknownKey => true,
        _ => e.line == 0 || !broken.contains(&e.line),
    });
}

/// The order in which findings are shown.
pub(crate) fn sort(findings: &mut Vec<Finding>) {
    findings.sort_by(|a, b| {
        (a.line, a.column, a.code, &a.path, &a.problem).cmp(&(b.line, b.column, b.code, &b.path, &b.problem))
    });
    findings.dedup();
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for error in &self.errors {
            write!(f, "{error}\n\n")?;
        }
        let file = self.errors.first().map_or("", |e| e.file.as_str());
        match self.errors.len() {
            1 => write!(f, "1 mistake in {file}"),
            n => write!(f, "{n} mistakes in {file}"),
        }
    }
}

impl std::error::Error for ConfigErrors {}

/// A file's name and text, and where its lines begin.
#[derive(Debug)]
pub struct Source<'a> {
    /// The name shown to the operator.
    pub name: &'a str,
    /// The whole text.
    pub text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Source<'a> {
    /// Finds the lines.
    #[must_use]
    pub fn new(name: &'a str, text: &'a str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { name, text, starts }
    }

    /// Line and column, both from 1, of a byte offset; offsets past the end mean the end.
    #[must_use]
    pub fn line_column(&self, offset: usize) -> (usize, usize) {
        let offset = self.floor(offset);
        let line = self.starts.partition_point(|start| *start <= offset).saturating_sub(1);
        let start = self.starts[line];
        (line + 1, self.text[start..offset].chars().count() + 1)
    }

    /// The byte offset of a line and a column, both from 1; places past the end mean the end.
    #[must_use]
    pub fn offset(&self, line: usize, column: usize) -> usize {
        let Some(start) = self.starts.get(line.saturating_sub(1)) else {
            return self.text.len();
        };
        let rest = &self.text[*start..];
        start + rest.char_indices().nth(column.saturating_sub(1)).map_or(rest.len(), |(at, _)| at)
    }

    fn floor(&self, offset: usize) -> usize {
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        offset
    }

    /// The line of a span with its secrets masked, and where the caret stands: column from 0 and width.
    fn excerpt(&self, span: &Range<usize>) -> (String, (usize, usize)) {
        let from = self.floor(span.start);
        let line = self.starts.partition_point(|start| *start <= from).saturating_sub(1);
        let start = self.starts[line];
        let text = self.text[start..].split(['\n', '\r']).next().unwrap_or_default();
        let from = (from - start).min(text.len());
        let to = (self.floor(span.end).max(start) - start).clamp(from, text.len());
        // Tabs are shown as one blank, so that the caret stands below what it means.
        let (mut shown, mut column, mut end) = (String::new(), None, 0);
        let mut done = 0;
        for hidden in secret_values(text) {
            for (at, c) in text[done..hidden.start].char_indices() {
                mark(done + at, from, to, &shown, &mut column, &mut end);
                shown.push(if c == '\t' { ' ' } else { c });
            }
            mark(hidden.start, from, to, &shown, &mut column, &mut end);
            if (hidden.start..hidden.end).contains(&from) {
                column = Some(shown.chars().count());
            }
            shown.push_str(MASK);
            if to > hidden.start {
                end = shown.chars().count();
            }
            done = hidden.end;
        }
        for (at, c) in text[done..].char_indices() {
            mark(done + at, from, to, &shown, &mut column, &mut end);
            shown.push(if c == '\t' { ' ' } else { c });
        }
        let width = shown.chars().count();
        let column = column.unwrap_or(width);
        let end = if to >= text.len() { width } else { end };
        (shown, (column, end.saturating_sub(column).max(1)))
    }
}

fn mark(at: usize, from: usize, to: usize, shown: &str, column: &mut Option<usize>, end: &mut usize) {
    if at == from {
        *column = Some(shown.chars().count());
    }
    if at < to {
        *end = shown.chars().count() + 1;
    }
}

/// What stands for a secret; its length says nothing.
const MASK: &str = "***";

/// Where in a line the values of secrets stand: everything after `password =`, `SHARED_SECRET=` and the like, as far as a
/// closing quote, a comma or the end. Keys that only name a place (`password_file`, `secret_env`) are no secrets, but a value of
/// `password_env` that does not look like a variable may be the password itself.
fn secret_values(line: &str) -> Vec<Range<usize>> {
    let lower = line.to_ascii_lowercase();
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(equals) = line[from..].find('=').map(|at| from + at) {
        from = equals + 1;
        let key = lower[..equals].trim_end().trim_end_matches(['"', '\'']);
        let key = key.rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or_default();
        let named = key.ends_with("password_env") || key.ends_with("secret_env");
        if !named && !["password", "secret", "passwd", "token"].iter().any(|word| key.ends_with(word)) {
            continue;
        }
        let value = from + (line[from..].len() - line[from..].trim_start().len());
        let rest = &line[value..];
        let end = match rest.chars().next() {
            None => continue,
            // A quoted value may hold the other quote, and an unclosed one runs to the end.
            Some(quote @ ('"' | '\'')) => {
                let close = rest[1..].find(quote).map_or(rest.len(), |at| at + 2);
                // What is glued to the quote belongs to the value of a shell file.
                close + rest[close..].find([' ', ',', '}']).unwrap_or(rest.len() - close)
            }
            Some(_) => rest.find([',', '}']).unwrap_or(rest.len()),
        };
        if !(named && looks_like_variable(rest[..end].trim_matches(['"', '\'']))) {
            found.push(value..value + end);
        }
        from = value + end;
    }
    found
}

/// Whether a text looks like the name of an environment variable: `[A-Z_][A-Z0-9_]*`.
pub(crate) fn looks_like_variable(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_uppercase() || c == '_')
        && text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
}

/// The nearest of `names` to what was written, if one is near enough to be meant.
#[must_use]
pub(crate) fn nearest<'a>(written: &str, names: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let fold = |text: &str| text.to_ascii_lowercase().replace(['-', '.'], "_");
    let written = fold(written);
    let mut best: Option<(f64, &str)> = None;
    for name in names {
        let score = strsim::jaro_winkler(&written, &fold(name));
        if score >= NEAR && best.is_none_or(|(top, _)| score > top) {
            best = Some((score, name));
        }
    }
    best.map(|(_, name)| name.to_owned())
}

/// Jaro-Winkler similarity from which a name counts as meant: `heartbaet` and `heartbeat` are 0.98, `listen` and `local` 0.68.
const NEAR: f64 = 0.8;

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(line: &str) -> String {
        Source::new("f", line).excerpt(&(0..1)).0
    }

    #[test]
    fn secrets_in_a_shown_line_are_masked() {
        for (line, shown) in [
            (r#"password = "hunter2""#, "password = ***"),
            (
                r#"security = { password = "hun,ter2", protocol = "SSL" }"#,
                r#"security = { password = ***, protocol = "SSL" }"#,
            ),
            (r#"export SHARED_SECRET="abc"def"#, "export SHARED_SECRET=***"),
            ("SOURCE_API_SECRET='a", "SOURCE_API_SECRET=***"),
            ("SOURCE_API_SECRET=a b c", "SOURCE_API_SECRET=***"),
            (r#"password_file = "secrets/orange""#, r#"password_file = "secrets/orange""#),
            (r#"password_env = "hunter2""#, "password_env = ***"),
            (r#"password_env = "ORANGE_PW""#, r#"password_env = "ORANGE_PW""#),
            (r#"link = "a""#, r#"link = "a""#),
        ] {
            assert_eq!(masked(line), shown);
        }
    }

    #[test]
    fn a_caret_stands_below_what_it_means_even_after_a_mask() {
        let text = "a = 1\nsecurity = { password = \"hunter2-long\", protocol = \"X\" }\n";
        let at = text.find("\"X\"").expect("there");
        let source = Source::new("f.toml", text);
        let finding = Finding::at(ErrorCode::Invalid, &source, at..at + 3, "p", "seen".into(), "allowed".into());
        assert_eq!(
            finding.to_string(),
            "error[LS006]: p: seen\n --> f.toml:2:52\n  |\n2 | security = { password = ***, protocol = \"X\" }\n  |                                         ^^^\n  = allowed"
        );
    }

    #[test]
    fn columns_count_characters_and_offsets_past_the_end_are_the_end() {
        let source = Source::new("f", "é = 1\nü");
        assert_eq!(source.line_column(3), (1, 3));
        assert_eq!(source.line_column(999), (2, 2));
    }
}
