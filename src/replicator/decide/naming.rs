//! Names of target topics: a template over the source's name.

use std::collections::{BTreeMap, BTreeSet};

/// A template: text, `${topic}` for the source's name, `${1}` to `${9}` for what the include expression's groups captured.
///
/// `${topic}` is identity, `a.${topic}` a prefix, `${topic}.copy` a suffix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Naming {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Topic,
    Group(usize),
}

/// A template that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NamingError {
    /// `${` without `}`.
    #[error("`{0}` opens `${{` and does not close it")]
    Unclosed(String),
    /// Something else between `${` and `}`.
    #[error("`${{{0}}}` is unknown; there are ${{topic}} and ${{1}} to ${{9}}")]
    Unknown(String),
    /// All topics would get one name.
    #[error("`{0}` has no ${{topic}} and no group, so that all topics would have one name")]
    Constant(String),
}

/// Why a name cannot be that of a topic.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// Nothing is left.
    #[error("the name is empty")]
    Empty,
    /// `.` and `..` are directories.
    #[error("`{0}` cannot be the name of a topic")]
    Dots(String),
    /// Kafka's limit.
    #[error("the name has {length} characters, Kafka takes {MOST}")]
    TooLong {
        /// Characters of the name.
        length: usize,
    },
    /// Other than letters, digits, `.`, `_` and `-`.
    #[error("`{character}` cannot stand in the name of a topic")]
    Character {
        /// The first such character.
        character: char,
    },
    /// Names that begin with two underscores are for Kafka and linkspan themselves.
    #[error("`{0}` begins with two underscores, as internal topics do")]
    Internal(String),
}

/// Kafka's limit for topic names.
pub const MOST: usize = 249;

impl Naming {
    /// Reads a template.
    ///
    /// # Errors
    /// [`NamingError`].
    pub fn new(template: &str) -> Result<Self, NamingError> {
        let mut parts = Vec::new();
        let mut rest = template;
        while let Some((text, after)) = rest.split_once("${") {
            let (name, after) = after.split_once('}').ok_or_else(|| NamingError::Unclosed(template.to_owned()))?;
            if !text.is_empty() {
                parts.push(Part::Text(text.to_owned()));
            }
            parts.push(match name.as_bytes() {
                b"topic" => Part::Topic,
                [digit @ b'1'..=b'9'] => Part::Group(usize::from(digit - b'0')),
                _ => return Err(NamingError::Unknown(name.to_owned())),
            });
            rest = after;
        }
        if parts.iter().all(|part| matches!(part, Part::Text(_))) {
            return Err(NamingError::Constant(template.to_owned()));
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Self { parts })
    }

    /// What a prefix of source names is at the target, where every copy of a topic with that prefix begins with it.
    #[must_use]
    pub fn prefix(&self, prefix: &str) -> Option<String> {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Text(one) => text.push_str(one),
                Part::Topic => return Some(text + prefix),
                Part::Group(_) => return None,
            }
        }
        None
    }

    /// The target's name of a source topic; `captures` are those of the include expression, the whole first.
    ///
    /// # Errors
    /// [`NameError`] where Kafka would not take it, or it is a name for internal topics.
    pub fn target(&self, topic: &str, captures: &[String]) -> Result<String, NameError> {
        let mut name = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => name.push_str(text),
                Part::Topic => name.push_str(topic),
                Part::Group(group) => name.push_str(captures.get(*group).map_or("", String::as_str)),
            }
        }
        check(&name)?;
        if name.starts_with("__") {
            return Err(NameError::Internal(name));
        }
        Ok(name)
    }
}

/// Whether Kafka takes this as the name of a topic.
///
/// # Errors
/// [`NameError`], the first rule that is broken.
pub fn check(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name == "." || name == ".." {
        return Err(NameError::Dots(name.to_owned()));
    }
    if let Some(character) = name.chars().find(|&c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))) {
        return Err(NameError::Character { character });
    }
    if name.len() > MOST {
        return Err(NameError::TooLong { length: name.len() });
    }
    Ok(())
}

/// Targets that more than one source would write to: each source with the others of its target.
#[must_use]
pub fn conflicts(targets: &BTreeMap<String, String>) -> BTreeMap<String, Vec<String>> {
    let mut by_target: BTreeMap<&str, Vec<&String>> = BTreeMap::new();
    for (source, target) in targets {
        by_target.entry(target).or_default().push(source);
    }
    let mut out = BTreeMap::new();
    for sources in by_target.into_values().filter(|sources| sources.len() > 1) {
        for &source in &sources {
            let others = sources.iter().filter(|&&other| other != source).map(|&other| other.clone());
            out.insert(source.clone(), others.collect());
        }
    }
    out
}

/// Names whose metrics Kafka cannot tell from this one's: it writes `.` as `_` there.
#[must_use]
pub fn metric_collisions<'a>(name: &str, others: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
    let flat = |name: &str| name.replace('.', "_");
    let mine = flat(name);
    others.filter(|&other| other != name && flat(other) == mine).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(template: &str, topic: &str, captures: &[&str]) -> Result<String, NameError> {
        let captures: Vec<_> = captures.iter().map(|&text| text.to_owned()).collect();
        Naming::new(template).expect(template).target(topic, &captures)
    }

    #[test]
    fn prefix_suffix_identity_and_groups() {
        assert_eq!(target("${topic}", "a.b", &[]), Ok("a.b".to_owned()));
        assert_eq!(target("${topic}.copy", "a", &[]), Ok("a.copy".to_owned()));
        assert_eq!(target("eu.${topic}", "a", &[]), Ok("eu.a".to_owned()));
        assert_eq!(target("${2}-${1}", "x-y", &["x-y", "x", "y"]), Ok("y-x".to_owned()));
        assert_eq!(target("${1}", "a", &["a"]), Err(NameError::Empty));
    }

    #[test]
    fn what_is_no_template_is_refused() {
        assert_eq!(Naming::new("${topic"), Err(NamingError::Unclosed("${topic".to_owned())));
        assert_eq!(Naming::new("${Topic}"), Err(NamingError::Unknown("Topic".to_owned())));
        assert_eq!(Naming::new("${0}"), Err(NamingError::Unknown("0".to_owned())));
        assert_eq!(Naming::new("copy"), Err(NamingError::Constant("copy".to_owned())));
        assert_eq!(
            Naming::new("copy").expect_err("constant").to_string(),
            "`copy` has no ${topic} and no group, so that all topics would have one name"
        );
        assert_eq!(
            NamingError::Unknown("x".to_owned()).to_string(),
            "`${x}` is unknown; there are ${topic} and ${1} to ${9}"
        );
    }

    #[test]
    fn names_are_those_that_kafka_takes() {
        let long = "a".repeat(249);
        for name in ["a", "A-1_b.c", "...", &long] {
            assert_eq!(check(name), Ok(()), "{name}");
        }
        assert_eq!(check("."), Err(NameError::Dots(".".to_owned())));
        assert_eq!(check(".."), Err(NameError::Dots("..".to_owned())));
        assert_eq!(check("a b"), Err(NameError::Character { character: ' ' }));
        assert_eq!(check("ä"), Err(NameError::Character { character: 'ä' }));
        assert_eq!(target("${topic}x", &long, &[]), Err(NameError::TooLong { length: 250 }));
        assert_eq!(target("__${topic}", "a", &[]), Err(NameError::Internal("__a".to_owned())));
    }

    #[test]
    fn two_sources_of_one_target_name_each_other() {
        let targets = [("a", "x"), ("b", "x"), ("c", "y")].map(|(s, t)| (s.to_owned(), t.to_owned())).into();
        let found = conflicts(&targets);
        assert_eq!(
            found.into_iter().collect::<Vec<_>>(),
            [("a".to_owned(), vec!["b".to_owned()]), ("b".to_owned(), vec!["a".to_owned()]),]
        );
        let names = ["a.b", "a_b", "a-b", "a.c"];
        assert_eq!(metric_collisions("a.b", names.into_iter()), ["a_b".to_owned()].into());
    }
}
