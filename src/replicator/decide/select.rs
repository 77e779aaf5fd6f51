//! Which topics a flow copies, and why.

use regex::{Regex, RegexBuilder};

/// The operator's include and exclude lists.
#[derive(Debug, Clone)]
pub struct Selection {
    include: Vec<Pattern>,
    exclude: Vec<Pattern>,
}

#[derive(Debug, Clone)]
struct Pattern {
    text: String,
    regex: Regex,
}

/// Why a topic is copied or not.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case", tag = "why")]
pub enum Why {
    /// An include expression matches and no exclude expression does.
    Included {
        /// The first include expression that matches.
        by: String,
        /// What its groups captured, from the whole (0) on; empty where a group took no part.
        #[serde(skip)]
        captures: Vec<String>,
    },
    /// An exclude expression matches.
    Excluded {
        /// The first exclude expression that matches.
        by: String,
    },
    /// No include expression matches.
    NotIncluded,
    /// One of Kafka's own, or one that begins with two underscores.
    Internal,
    /// One of linkspan's own.
    Own,
}

impl Why {
    /// Whether the topic is copied.
    #[must_use]
    pub const fn is_included(&self) -> bool {
        matches!(self, Self::Included { .. })
    }
}

/// An expression that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a regular expression that linkspan knows: {detail}")]
pub struct SelectError {
    /// What was written.
    pub text: String,
    /// What is wrong with it.
    pub detail: String,
}

/// How the names of linkspan's own topics begin.
pub const OWN: &str = "__linkspan";

impl Selection {
    /// Reads the expressions. Each must match a name as a whole, as Java's `matches()`; look-around and back references, which
    /// Java has, are refused.
    ///
    /// # Errors
    /// [`SelectError`] for the first that is none, or one that would need more than 1 MiB compiled.
    pub fn new(include: &[String], exclude: &[String]) -> Result<Self, SelectError> {
        let read = |texts: &[String]| texts.iter().map(|text| Pattern::new(text)).collect::<Result<Vec<_>, _>>();
        Ok(Self { include: read(include)?, exclude: read(exclude)? })
    }

    /// What becomes of a topic; `internal` is the broker's word for its own.
    #[must_use]
    pub fn why(&self, topic: &str, internal: bool) -> Why {
        if topic.starts_with(OWN) {
            return Why::Own;
        }
        if internal || topic.starts_with("__") {
            return Why::Internal;
        }
        if let Some(pattern) = self.exclude.iter().find(|pattern| pattern.regex.is_match(topic)) {
            return Why::Excluded { by: pattern.text.clone() };
        }
        for pattern in &self.include {
            if let Some(found) = pattern.regex.captures(topic) {
                let captures =
                    found.iter().map(|group| group.map_or_else(String::new, |group| group.as_str().to_owned()));
                return Why::Included { by: pattern.text.clone(), captures: captures.collect() };
            }
        }
        Why::NotIncluded
    }
}

/// Expressions that a name must match one of, as a whole.
#[derive(Debug, Clone, Default)]
pub struct Patterns(Vec<Pattern>);

impl Patterns {
    /// Reads the expressions, as [`Selection::new`] does.
    ///
    /// # Errors
    /// [`SelectError`] for the first that is none.
    pub fn new(texts: &[String]) -> Result<Self, SelectError> {
        texts.iter().map(|text| Pattern::new(text)).collect::<Result<_, _>>().map(Self)
    }

    /// The first expression that matches the name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|pattern| pattern.regex.is_match(name)).map(|pattern| pattern.text.as_str())
    }
}

impl Pattern {
    fn new(text: &str) -> Result<Self, SelectError> {
        let fail = |error: &regex::Error| {
            // The crate's message draws the expression over several lines; its last line says what is wrong.
            let detail = error.to_string().lines().last().unwrap_or_default().trim().to_owned();
            SelectError { text: text.to_owned(), detail: detail.trim_start_matches("error: ").to_owned() }
        };
        // Alone first, so that an unbalanced group cannot close the one around it.
        Regex::new(text).map_err(|error| fail(&error))?;
        let whole = RegexBuilder::new(&format!("^(?:{text})$")).size_limit(1 << 20).build();
        Ok(Self { text: text.to_owned(), regex: whole.map_err(|error| fail(&error))? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|&text| text.to_owned()).collect()
    }

    fn included(by: &str, captures: &[&str]) -> Why {
        Why::Included { by: by.to_owned(), captures: texts(captures) }
    }

    #[test]
    fn each_topic_has_its_reason() {
        let selection =
            Selection::new(&texts(&["eu[.]xaz[.].*", "a|b", "(x+)-(y)?z"]), &texts(&[".*[.]tmp"])).expect("read");
        for (topic, internal, why) in [
            ("eu.xaz.orders", false, included("eu[.]xaz[.].*", &["eu.xaz.orders"])),
            ("eu.xaz.orders.tmp", false, Why::Excluded { by: ".*[.]tmp".to_owned() }),
            ("my.eu.xaz.orders", false, Why::NotIncluded),
            ("a", false, included("a|b", &["a"])),
            ("ab", false, Why::NotIncluded),
            ("b", true, Why::Internal),
            ("xx-z", false, included("(x+)-(y)?z", &["xx-z", "xx", ""])),
            ("__consumer_offsets", true, Why::Internal),
            ("__consumer_offsets", false, Why::Internal),
            ("__linkspan-progress", false, Why::Own),
        ] {
            assert_eq!(selection.why(topic, internal), why, "{topic}");
        }
        assert_eq!(Selection::new(&[], &[]).expect("read").why("a", false), Why::NotIncluded);
        let all = Selection::new(&texts(&[".*"]), &[]).expect("read");
        assert!(!all.why("__x", false).is_included() && all.why("_x", false).is_included());
    }

    #[test]
    fn what_is_no_expression_is_named() {
        for text in ["a)(b", "(", "a(?=b)", r"(a)\1", "[z-a]", "a{1000}{1000}"] {
            let error = Selection::new(&texts(&["ok", text]), &[]).expect_err(text);
            assert_eq!(error.text, text);
            assert!(!error.detail.is_empty() && !error.detail.contains('\n'), "{}", error.detail);
        }
    }
}
