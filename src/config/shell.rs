//! Reads assignments of a shell file without running anything.
//!
//! Understood: `KEY=value` and `export KEY=value`, one a line; comments; single quotes, double quotes, backslashes, and
//! `$OTHER` or `${OTHER}` for a key that an earlier line has set. All else (commands, `$(…)`, backquotes, `${X:-…}`) is a
//! mistake with its place, because a shell would do something that this reader would not.

use std::collections::BTreeMap;
use std::ops::Range;

use super::error::{ErrorCode, Finding, Source, nearest};

/// One assignment.
pub(super) struct Assignment {
    pub(super) key: String,
    pub(super) key_span: Range<usize>,
    pub(super) value: String,
    /// Place of the value with its quotes; empty, right after the `=`, where there is none.
    pub(super) value_span: Range<usize>,
}

/// All assignments in order, the mistakes beside them.
pub(super) fn assignments(source: &Source<'_>) -> (Vec<Assignment>, Vec<Finding>) {
    let mut found: Vec<Assignment> = Vec::new();
    let mut values = BTreeMap::new();
    let mut errors = Vec::new();
    let mut start = 0;
    for line in source.text.split_inclusive('\n') {
        let text = line.trim_end_matches(['\n', '\r']);
        match (Line { text, at: 0, start, values: &values }).read() {
            Ok(None) => {}
            Ok(Some(assignment)) => {
                values.insert(assignment.key.clone(), assignment.value.clone());
                found.push(assignment);
            }
            Err(Mistake { at, length, problem, allowed, near }) => {
                let span = start + at..start + at + length;
                let finding = Finding::at(ErrorCode::Syntax, source, span, "", problem, allowed);
                errors.push(finding.with_nearest(near));
            }
        }
        start += line.len();
    }
    (found, errors)
}

struct Line<'a> {
    text: &'a str,
    at: usize,
    start: usize,
    values: &'a BTreeMap<String, String>,
}

struct Mistake {
    at: usize,
    length: usize,
    problem: String,
    allowed: String,
    near: Option<String>,
}

fn mistake(at: usize, length: usize, problem: impl Into<String>, allowed: impl Into<String>) -> Mistake {
    Mistake { at, length, problem: problem.into(), allowed: allowed.into(), near: None }
}

const FORM: &str = "lines of this file are KEY=value, export KEY=value, or comments";
const NO_RUN: &str = "nothing is executed here; write the value itself, or put it in single quotes";

impl Line<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn blanks(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start_matches([' ', '\t']).len();
    }

    fn name(&mut self) -> Range<usize> {
        let from = self.at;
        let length =
            self.rest().find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or_else(|| self.rest().len());
        self.at += if self.rest().starts_with(|c: char| c.is_ascii_digit()) { 0 } else { length };
        from..self.at
    }

    fn read(mut self) -> Result<Option<Assignment>, Mistake> {
        self.blanks();
        if matches!(self.peek(), None | Some('#')) {
            return Ok(None);
        }
        let mut key = self.name();
        if &self.text[key.clone()] == "export" && self.rest().starts_with([' ', '\t']) {
            self.blanks();
            key = self.name();
        }
        if key.is_empty() {
            return Err(mistake(self.at, 1, "this is no assignment", FORM));
        }
        if self.peek() != Some('=') {
            if self.rest().trim_start().starts_with('=') {
                return Err(mistake(
                    self.at,
                    1,
                    "a blank before `=`",
                    "a shell takes KEY=value only without blanks around `=`",
                ));
            }
            return Err(mistake(key.start, key.len(), format!("`{}` is no assignment", &self.text[key.clone()]), FORM));
        }
        self.at += 1;
        let value_from = self.at;
        if self.rest().starts_with([' ', '\t']) && !matches!(self.rest().trim_start().chars().next(), None | Some('#'))
        {
            return Err(mistake(
                self.at,
                1,
                "a blank after `=`",
                "a shell takes KEY=value only without blanks around `=`",
            ));
        }
        let value = self.word()?;
        let value_to = self.at;
        self.blanks();
        match self.peek() {
            // A comment begins only after a blank; within a word `#` is itself.
            None => {}
            Some('#') if self.at > value_to => {}
            Some(_) => {
                let hint = "quote a value that has blanks in it; one assignment a line";
                return Err(mistake(self.at, self.rest().len(), "something after the value", hint));
            }
        }
        Ok(Some(Assignment {
            key: self.text[key.clone()].to_owned(),
            key_span: self.start + key.start..self.start + key.end,
            value,
            value_span: self.start + value_from..self.start + value_to,
        }))
    }

    /// What is glued together of plain characters, quotes and references.
    fn word(&mut self) -> Result<String, Mistake> {
        let mut value = String::new();
        while let Some(c) = self.peek() {
            match c {
                ' ' | '\t' => break,
                '\'' => {
                    let Some(length) = self.rest()[1..].find('\'') else {
                        return Err(mistake(self.at, 1, "this quote is not closed on its line", "close it with '"));
                    };
                    value.push_str(&self.rest()[1..=length]);
                    self.at += length + 2;
                }
                '"' => self.double_quoted(&mut value)?,
                '\\' => {
                    let Some(escaped) = self.rest()[1..].chars().next() else {
                        return Err(mistake(
                            self.at,
                            1,
                            "a line cannot be continued",
                            "write the whole value on one line",
                        ));
                    };
                    value.push(escaped);
                    self.at += 1 + escaped.len_utf8();
                }
                '$' => self.reference(&mut value, false)?,
                '`' => return Err(mistake(self.at, 1, "a command in backquotes", NO_RUN)),
                ';' | '&' | '|' | '<' | '>' | '(' | ')' => {
                    return Err(mistake(
                        self.at,
                        1,
                        format!("`{c}` outside quotes means something to a shell"),
                        "quote the value",
                    ));
                }
                '~' if value.is_empty() => {
                    return Err(mistake(
                        self.at,
                        1,
                        "`~` outside quotes means a home directory to a shell",
                        "write the path",
                    ));
                }
                c => {
                    value.push(c);
                    self.at += c.len_utf8();
                }
            }
        }
        Ok(value)
    }

    fn double_quoted(&mut self, value: &mut String) -> Result<(), Mistake> {
        let open = self.at;
        self.at += 1;
        loop {
            match self.peek() {
                None => return Err(mistake(open, 1, "this quote is not closed on its line", "close it with \"")),
                Some('"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some('\\') => {
                    let next = self.rest()[1..].chars().next();
                    self.at += 1;
                    match next {
                        Some(c @ ('"' | '\\' | '$' | '`')) => {
                            value.push(c);
                            self.at += 1;
                        }
                        // As in a shell: before anything else a backslash is itself.
                        _ => value.push('\\'),
                    }
                }
                Some('$') => self.reference(value, true)?,
                Some('`') => return Err(mistake(self.at, 1, "a command in backquotes", NO_RUN)),
                Some(c) => {
                    value.push(c);
                    self.at += c.len_utf8();
                }
            }
        }
    }

    /// `$NAME`, `${NAME}`, or a dollar that a shell leaves alone.
    fn reference(&mut self, value: &mut String, quoted: bool) -> Result<(), Mistake> {
        let from = self.at;
        self.at += 1;
        match self.peek() {
            Some('(') => Err(mistake(from, 2, "a command in `$(…)`", NO_RUN)),
            Some('\'' | '"') if !quoted => {
                Err(mistake(from, 2, "this kind of quotes is not read here", "use '…' or \"…\""))
            }
            Some('{') => {
                self.at += 1;
                let name = self.name();
                if self.peek() != Some('}') || name.is_empty() {
                    let length = self.rest().find('}').map_or(self.text.len(), |at| self.at + at + 1) - from;
                    return Err(mistake(from, length, "only `${KEY}` is read here", NO_RUN));
                }
                self.at += 1;
                self.insert(value, from, &self.text[name])
            }
            Some(c) if c.is_ascii_alphabetic() || c == '_' => {
                let name = self.name();
                self.insert(value, from, &self.text[name])
            }
            Some(c) if c.is_ascii_digit() || "$?!@*#-".contains(c) => {
                let problem = format!("a shell would put something else for `${c}`");
                Err(mistake(from, 2, problem, "write \\$ or single quotes for a dollar"))
            }
            _ => {
                value.push('$');
                Ok(())
            }
        }
    }

    fn insert(&self, value: &mut String, from: usize, name: &str) -> Result<(), Mistake> {
        match self.values.get(name) {
            Some(text) => {
                value.push_str(text);
                Ok(())
            }
            None => {
                let hint = "a reference is to a key that an earlier line sets; write \\$ or single quotes for a dollar";
                let mut wrong = mistake(from, self.at - from, format!("`{name}` is not set above this line"), hint);
                wrong.near = nearest(name, self.values.keys().map(String::as_str));
                Err(wrong)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(String, String)> {
        let (found, errors) = assignments(&Source::new("setenv.sh", text));
        assert_eq!(errors, [], "{text}");
        found.into_iter().map(|a| (a.key, a.value)).collect()
    }

    #[test]
    fn values_are_what_a_shell_would_make_of_them() {
        for (line, value) in [
            ("A=plain", "plain"),
            ("export A=plain", "plain"),
            ("  export\tA=plain  # comment", "plain"),
            ("A=", ""),
            ("A= # comment", ""),
            ("A=''", ""),
            ("A='it'\\''s'", "it's"),
            (r#"A="two words""#, "two words"),
            (r#"A="a\"b\\c\$d\`e\n""#, r#"a"b\c$d`e\n"#),
            (r"A=a\ b\$", "a b$"),
            ("A=one'two'\"three\"", "onetwothree"),
            ("A='$X `y` ${z} \\'", "$X `y` ${z} \\"),
            (r#"A="^orders$""#, "^orders$"),
            ("A=eu[.].*", "eu[.].*"),
            ("A=a#b", "a#b"),
            ("A=b=c", "b=c"),
            ("A=ü", "ü"),
            ("A=crlf\r", "crlf"),
        ] {
            assert_eq!(read(line), [("A".to_owned(), value.to_owned())], "{line}");
        }
        assert_eq!(read("A=x\nB=$A.y\nC=\"${A}${B}\"")[2].1, "xx.y");
        assert_eq!(read("#!/bin/bash\n\n  # nothing\n"), []);
    }

    #[test]
    fn what_a_shell_would_run_is_refused_at_its_place() {
        for (line, column, problem) in [
            ("A=$(id)", 3, "a command in `$(…)`"),
            ("A=`id`", 3, "a command in backquotes"),
            ("A=\"x`id`\"", 5, "a command in backquotes"),
            ("A=\"x$(id)\"", 5, "a command in `$(…)`"),
            ("A=${B:-c}", 3, "only `${KEY}` is read here"),
            ("A=$B", 3, "`B` is not set above this line"),
            ("A=$1", 3, "a shell would put something else for `$1`"),
            ("A=$'x'", 3, "this kind of quotes is not read here"),
            ("A=a;b", 4, "`;` outside quotes means something to a shell"),
            ("A=a|b", 4, "`|` outside quotes means something to a shell"),
            ("A=a b", 5, "something after the value"),
            ("A =a", 2, "a blank before `=`"),
            ("A= a", 3, "a blank after `=`"),
            ("A='a", 3, "this quote is not closed on its line"),
            ("A=\"a", 3, "this quote is not closed on its line"),
            ("A=a\\", 4, "a line cannot be continued"),
            ("A=~/x", 3, "`~` outside quotes means a home directory to a shell"),
            ("set -e", 1, "`set` is no assignment"),
            ("1A=x", 1, "this is no assignment"),
            ("export A", 8, "`A` is no assignment"),
        ] {
            let (found, errors) = assignments(&Source::new("setenv.sh", line));
            assert_eq!((found.len(), errors.len()), (0, 1), "{line}");
            assert_eq!((errors[0].column, errors[0].problem.as_str()), (column, problem), "{line}");
        }
    }
}
