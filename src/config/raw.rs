//! A reader over the parsed TOML that remembers places: it collects every mistake instead of stopping at the first, and
//! records where each value came from.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ErrorCode, Finding, Source, nearest};
use super::{Env, Origin, Setting};

/// What is shared while one file is read.
pub(super) struct Reader<'a> {
    pub(super) source: Source<'a>,
    pub(super) env: &'a dyn Env,
    /// Relative paths of the file begin here.
    pub(super) base: PathBuf,
    pub(super) errors: Vec<Finding>,
    pub(super) warnings: Vec<Finding>,
    pub(super) settings: Vec<Setting>,
    /// Every section's keys, to say where a misplaced key belongs.
    pub(super) sections: &'static [(&'static str, &'static [&'static str])],
}

impl Reader<'_> {
    pub(super) fn report(
        &mut self,
        code: ErrorCode,
        at: &Place,
        problem: impl Into<String>,
        allowed: impl Into<String>,
    ) {
        self.report_near(code, at, problem, allowed, None);
    }

    pub(super) fn report_near(
        &mut self,
        code: ErrorCode,
        at: &Place,
        problem: impl Into<String>,
        allowed: impl Into<String>,
        near: Option<String>,
    ) {
        let finding = Finding::at(code, &self.source, at.span.clone(), &at.path, problem.into(), allowed.into());
        let list = if code.is_warning() { &mut self.warnings } else { &mut self.errors };
        list.push(finding.with_nearest(near));
    }

    /// Notes the value that a key has where the file says nothing.
    pub(super) fn default(&mut self, path: impl Into<String>, value: impl Display) {
        self.settings.push(Setting { path: path.into(), value: value.to_string(), origin: Origin::Default });
    }

    pub(super) fn path(&self, text: &str) -> PathBuf {
        self.base.join(Path::new(text))
    }

    fn record(&mut self, at: &Place) {
        let (line, column) = self.source.line_column(at.span.start);
        let value = self.source.text.get(at.span.clone()).unwrap_or_default().to_owned();
        self.settings.push(Setting { path: at.path.clone(), value, origin: Origin::File { line, column } });
    }
}

/// Where something stands in the file.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) span: Range<usize>,
    pub(super) path: String,
}

/// A table, its keys checked against those it may have.
pub(super) struct Section<'t> {
    table: Option<&'t DeTable<'t>>,
    /// The header, or the whole inline table.
    pub(super) at: Place,
    title: String,
}

impl<'t> Section<'t> {
    /// Takes a table; keys outside `keys` are mistakes.
    pub(super) fn new(
        reader: &mut Reader<'_>,
        table: &'t DeTable<'t>,
        at: Place,
        title: String,
        keys: &'static [&'static str],
    ) -> Self {
        for (key, _) in table {
            let name: &str = key.get_ref();
            if keys.contains(&name) {
                continue;
            }
            let mut near = nearest(name, keys.iter().copied());
            let place = Place { span: key.span(), path: join(&at.path, name) };
            let mut allowed = format!("keys of {title}: {}", keys.join(", "));
            let elsewhere = reader.sections.iter().find(|(_, keys)| keys.contains(&name));
            if matches!(name, "password" | "secret") {
                near = keys.iter().find(|key| **key == format!("{name}_file")).map(|&key| key.to_owned());
                allowed = format!("secrets are never written in this file: use {name}_file or {name}_env; {allowed}");
            } else if let (None, Some((section, _))) = (&near, elsewhere) {
                allowed = format!("`{name}` is a key of {section}; {allowed}");
            }
            reader.report_near(
                ErrorCode::UnknownKey,
                &place,
                format!("unknown key `{name}` in {title}"),
                allowed,
                near,
            );
        }
        Self { table: Some(table), at, title }
    }

    /// A section that the file does not have: every key has its default.
    pub(super) fn absent(path: &str, title: &str) -> Self {
        Self { table: None, at: Place { span: 0..0, path: path.to_owned() }, title: title.to_owned() }
    }

    pub(super) fn get(&self, key: &str) -> Option<Node<'t>> {
        let (name, value) = self.table?.iter().find(|(name, _)| name.get_ref() == key)?;
        let at = Place { span: value.span(), path: join(&self.at.path, key) };
        Some(Node { value: value.get_ref(), key: name.span(), at, element: false })
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    pub(super) fn key_path(&self, key: &str) -> String {
        join(&self.at.path, key)
    }

    /// As [`Section::get`], and a mistake where the key is missing.
    pub(super) fn required(&self, reader: &mut Reader<'_>, key: &str, example: &str) -> Option<Node<'t>> {
        let found = self.get(key);
        if found.is_none() {
            let at = Place { span: self.at.span.clone(), path: self.key_path(key) };
            reader.report(
                ErrorCode::Missing,
                &at,
                format!("{} has no `{key}`", self.title),
                format!("for example {key} = {example}"),
            );
        }
        found
    }

    /// Of several keys exactly one may stand; gives it. A mistake otherwise, unless `none_is_fine`.
    pub(super) fn one_of(
        &self,
        reader: &mut Reader<'_>,
        keys: &[&'static str],
        none_is_fine: bool,
    ) -> Option<(&'static str, Node<'t>)> {
        let mut found = keys.iter().filter_map(|key| Some((*key, self.get(key)?)));
        let Some(first) = found.next() else {
            if !none_is_fine {
                let at = Place { span: self.at.span.clone(), path: self.at.path.clone() };
                let problem = format!("{} has none of {}", self.title, list(keys));
                reader.report(ErrorCode::Missing, &at, problem, "exactly one of them must be there");
            }
            return None;
        };
        let mut last = first.clone();
        for (key, node) in found {
            // The later one in the file is shown: the earlier one was there first.
            let (mut later, mut earlier) = ((key, &node), (last.0, &last.1));
            if later.1.key.start < earlier.1.key.start {
                std::mem::swap(&mut later, &mut earlier);
            }
            let at = later.1.key_place();
            let problem = format!("`{}` and `{}` exclude each other", earlier.0, later.0);
            reader.report(ErrorCode::Conflict, &at, problem, format!("keep exactly one of {}", list(keys)));
            last = (key, node);
        }
        Some(first)
    }

    /// A mistake for each of `keys` that stands here although nothing reads it.
    pub(super) fn unused(&self, reader: &mut Reader<'_>, keys: &[&str], why: &str) {
        for node in keys.iter().filter_map(|key| self.get(key)) {
            let at = node.key_place();
            reader.report(ErrorCode::Unused, &at, format!("this has no effect: {why}"), "remove it");
        }
    }

    /// A table below this one; absent where the file has none, `None` where it is no table.
    pub(super) fn table(&self, reader: &mut Reader<'_>, key: &str, keys: &'static [&'static str]) -> Option<Self> {
        let path = self.key_path(key);
        match self.get(key) {
            None => Some(Self::absent(&path, &format!("[{path}]"))),
            Some(node) => node.table(reader, keys),
        }
    }
}

/// A value and where it stands.
#[derive(Clone)]
pub(super) struct Node<'t> {
    value: &'t DeValue<'t>,
    key: Range<usize>,
    pub(super) at: Place,
    element: bool,
}

impl<'t> Node<'t> {
    /// The place of the key instead of that of the value.
    pub(super) fn key_place(&self) -> Place {
        Place { span: self.key.clone(), path: self.at.path.clone() }
    }

    pub(super) fn is_str(&self) -> bool {
        matches!(self.value, DeValue::String(_))
    }

    pub(super) fn is_bool(&self) -> bool {
        matches!(self.value, DeValue::Boolean(_))
    }

    pub(super) fn is_array(&self) -> bool {
        matches!(self.value, DeValue::Array(_))
    }

    fn record(&self, reader: &mut Reader<'_>) {
        if !self.element {
            reader.record(&self.at);
        }
    }

    pub(super) fn wrong_type(&self, reader: &mut Reader<'_>, wanted: &str) {
        let seen = match self.value {
            DeValue::String(_) => "a text",
            DeValue::Integer(_) => "an integer",
            DeValue::Float(_) => "a float",
            DeValue::Boolean(_) => "a boolean",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "an array",
            DeValue::Table(_) => "a table",
        };
        reader.report(ErrorCode::WrongType, &self.at, format!("this is {seen}"), format!("it must be {wanted}"));
    }

    /// A text.
    pub(super) fn text(&self, reader: &mut Reader<'_>, wanted: &str) -> Option<&'t str> {
        if let DeValue::String(text) = self.value {
            self.record(reader);
            return Some(text);
        }
        self.wrong_type(reader, wanted);
        None
    }

    /// A text that means something: `parse` says what is wrong with it.
    pub(super) fn parse<T, E: Display>(
        &self,
        reader: &mut Reader<'_>,
        allowed: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let text = self.text(reader, &format!("a text: {allowed}"))?;
        match parse(text) {
            Ok(value) => Some(value),
            Err(problem) => {
                reader.report(ErrorCode::Invalid, &self.at, problem.to_string(), allowed);
                None
            }
        }
    }

    /// One of a few words; gives its place in `words`.
    pub(super) fn word(&self, reader: &mut Reader<'_>, words: &[&'static str]) -> Option<usize> {
        let allowed = format!("one of {}", words.iter().map(|w| format!("\"{w}\"")).collect::<Vec<_>>().join(", "));
        let text = self.text(reader, &allowed)?;
        let found = words.iter().position(|word| *word == text);
        if found.is_none() {
            let near = nearest(text, words.iter().copied());
            reader.report_near(ErrorCode::Invalid, &self.at, format!("`{text}` is not known"), allowed, near);
        }
        found
    }

    /// A whole number within bounds.
    pub(super) fn int(&self, reader: &mut Reader<'_>, bounds: RangeInclusive<u32>) -> Option<u32> {
        let allowed = format!("a whole number from {} to {}", bounds.start(), bounds.end());
        let DeValue::Integer(number) = self.value else {
            self.wrong_type(reader, &allowed);
            return None;
        };
        self.record(reader);
        let value = i128::from_str_radix(number.as_str(), number.radix()).ok().and_then(|n| u32::try_from(n).ok());
        let value = value.filter(|n| bounds.contains(n));
        if value.is_none() {
            reader.report(ErrorCode::Invalid, &self.at, format!("{number} is out of range"), allowed);
        }
        value
    }

    pub(super) fn bool(&self, reader: &mut Reader<'_>) -> Option<bool> {
        if let DeValue::Boolean(value) = self.value {
            self.record(reader);
            return Some(*value);
        }
        self.wrong_type(reader, "true or false");
        None
    }

    /// The elements of an array.
    pub(super) fn array(&self, reader: &mut Reader<'_>, wanted: &str) -> Option<Vec<Self>> {
        let DeValue::Array(elements) = self.value else {
            self.wrong_type(reader, wanted);
            return None;
        };
        self.record(reader);
        let each = |(index, element): (usize, &'t Spanned<DeValue<'t>>)| Self {
            value: element.get_ref(),
            key: element.span(),
            at: Place { span: element.span(), path: format!("{}[{index}]", self.at.path) },
            element: true,
        };
        Some(elements.iter().enumerate().map(each).collect())
    }

    /// The elements of an array, each parsed; elements that cannot be are reported and left out. An element that stands
    /// twice is a mistake.
    pub(super) fn list<T, E: Display>(
        &self,
        reader: &mut Reader<'_>,
        allowed: &str,
        mut parse: impl FnMut(&str) -> Result<T, E>,
    ) -> Option<Vec<T>> {
        let mut seen = BTreeSet::new();
        let mut values = Vec::new();
        for element in self.array(reader, &format!("a list of texts, each {allowed}"))? {
            if let Some(value) = element.parse(reader, allowed, &mut parse) {
                let text = element.text(reader, "").unwrap_or_default();
                if seen.insert(text) {
                    values.push(value);
                } else {
                    reader.report(ErrorCode::Duplicate, &element.at, format!("`{text}` stands here twice"), "keep one");
                }
            }
        }
        Some(values)
    }

    /// As [`Node::list`], and an empty list is a mistake.
    pub(super) fn full_list<T, E: Display>(
        &self,
        reader: &mut Reader<'_>,
        allowed: &str,
        parse: impl FnMut(&str) -> Result<T, E>,
    ) -> Option<Vec<T>> {
        if matches!(self.value, DeValue::Array(elements) if elements.is_empty()) {
            reader.report(ErrorCode::Invalid, &self.at, "this list is empty", format!("at least one, each {allowed}"));
            return None;
        }
        self.list(reader, allowed, parse)
    }

    /// A table.
    pub(super) fn table(&self, reader: &mut Reader<'_>, keys: &'static [&'static str]) -> Option<Section<'t>> {
        let title = match self.at.path.split_once('[') {
            Some((list, _)) if self.element => format!("[[{list}]]"),
            _ => format!("[{}]", self.at.path),
        };
        let DeValue::Table(table) = self.value else {
            self.wrong_type(reader, &format!("a table with the keys {}", keys.join(", ")));
            return None;
        };
        Some(Section::new(reader, table, self.at.clone(), title, keys))
    }

    /// A table whose keys are data.
    pub(super) fn entries(&self, reader: &mut Reader<'_>, wanted: &str) -> Option<Vec<(&'t str, Self)>> {
        let DeValue::Table(table) = self.value else {
            self.wrong_type(reader, wanted);
            return None;
        };
        let each = |(key, value): (&'t Spanned<toml::de::DeString<'t>>, &'t Spanned<DeValue<'t>>)| {
            let name: &str = key.get_ref();
            let at = Place { span: value.span(), path: format!("{}.\"{name}\"", self.at.path) };
            (name, Self { value: value.get_ref(), key: key.span(), at, element: false })
        };
        Some(table.iter().map(each).collect())
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn list(keys: &[&str]) -> String {
    keys.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ")
}
