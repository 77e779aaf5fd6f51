//! Which ACLs of the source's topics their copies get, and what is to be done at the target when they differ.
//!
//! A copy has one writer, the flow. So what lets somebody read goes along: ALLOW of READ, DESCRIBE and DESCRIBE_CONFIGS as it is, ALL as
//! READ; what lets somebody write, create, delete or alter stays behind. Of what denies, the same operations go along, ALL as READ;
//! to deny DESCRIBE to everybody stays behind too, for it would shut the flow itself out. (MirrorMaker drops ALLOW WRITE and makes
//! ALL to READ, and copies all else, DELETE and ALTER among it.)
//!
//! An ACL for one topic follows that topic's name. One for all topics (`*`), or for a prefix, is given to each copy of a topic that
//! it covers, because at the target the same pattern would cover topics that are no copies. A prefix stays a prefix where it is
//! certain to cover nothing else: the naming keeps it, every source topic under it is copied, and every target topic under the new
//! prefix is a copy.

use std::collections::{BTreeMap, BTreeSet};

use super::naming::Naming;
use crate::client::{Acl, AclOperation, AclPattern};

/// What the flow was told of ACLs.
#[derive(Debug, Clone, Default)]
pub struct AclRules {
    /// Principals at the target, by those at the source; others keep their names.
    pub principals: BTreeMap<String, String>,
}

/// Both clusters, as far as ACLs are concerned.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// Target names of the topics that are copied, by their names at the source.
    pub copies: &'a BTreeMap<String, String>,
    /// All topics of the source.
    pub source_topics: &'a BTreeSet<String>,
    /// All topics of the target.
    pub target_topics: &'a BTreeSet<String>,
    /// How copies are named.
    pub naming: &'a Naming,
}

/// What is to be done at the target.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AclPlan {
    /// To be created, and owned from then on.
    pub create: Vec<Acl>,
    /// Owned, and not wanted any more.
    pub delete: Vec<Acl>,
    /// Owned, and gone from the target: somebody else has removed them, or they are not wanted and not there.
    pub forget: Vec<Acl>,
}

/// The ACLs that copies are to have.
#[must_use]
pub fn wanted(rules: &AclRules, view: &View<'_>, source: &[Acl]) -> BTreeSet<Acl> {
    let mut out = BTreeSet::new();
    for acl in source {
        let Some(operation) = operation(acl) else { continue };
        let principal = rules.principals.get(&acl.principal).unwrap_or(&acl.principal).clone();
        let copy = Acl { principal, operation, ..acl.clone() };
        if acl.pattern == AclPattern::Prefixed
            && let Some(name) = prefix(view, &acl.name)
        {
            out.insert(Acl { name, ..copy });
            continue;
        }
        let covers = |topic: &str| match acl.pattern {
            AclPattern::Literal => acl.name == "*" || acl.name == topic,
            AclPattern::Prefixed => topic.starts_with(&acl.name),
        };
        for (_, target) in view.copies.iter().filter(|(topic, _)| covers(topic)) {
            out.insert(Acl { pattern: AclPattern::Literal, name: target.clone(), ..copy.clone() });
        }
    }
    out
}

/// What becomes of an ACL's operation; `None` where the ACL stays behind.
fn operation(acl: &Acl) -> Option<AclOperation> {
    match acl.operation {
        AclOperation::All => Some(AclOperation::Read),
        AclOperation::Describe if !acl.allow && acl.principal == EVERYBODY => None,
        AclOperation::Read | AclOperation::Describe | AclOperation::DescribeConfigs => Some(acl.operation),
        _ => None,
    }
}

const EVERYBODY: &str = "User:*";

/// A source prefix as one of the target, where it covers there what it covers here and nothing else.
fn prefix(view: &View<'_>, prefix: &str) -> Option<String> {
    let moved = view.naming.prefix(prefix)?;
    let copied = view.source_topics.iter().filter(|topic| topic.starts_with(prefix));
    let targets: BTreeSet<&String> = view.copies.values().collect();
    let ours = view.target_topics.iter().filter(|topic| topic.starts_with(&moved));
    let certain = copied.into_iter().all(|topic| view.copies.contains_key(topic))
        && ours.into_iter().all(|t| targets.contains(t));
    certain.then_some(moved)
}

/// What is to be done so that the target has what is wanted. What it had before the flow came is never touched: only what is `owned`
/// is removed.
#[must_use]
pub fn plan(wanted: &BTreeSet<Acl>, target: &BTreeSet<Acl>, owned: &BTreeSet<Acl>) -> AclPlan {
    let unwanted = || owned.difference(wanted);
    AclPlan {
        create: wanted.difference(target).cloned().collect(),
        delete: unwanted().filter(|acl| target.contains(acl)).cloned().collect(),
        forget: unwanted().filter(|acl| !target.contains(acl)).cloned().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(pattern: AclPattern, name: &str, principal: &str, operation: AclOperation, allow: bool) -> Acl {
        let (name, principal, host) = (name.to_owned(), principal.to_owned(), "*".to_owned());
        Acl { pattern, name, principal, host, operation, allow }
    }

    fn literal(name: &str, operation: AclOperation, allow: bool) -> Acl {
        acl(AclPattern::Literal, name, "User:a", operation, allow)
    }

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    /// What copies of `eu.a` and `eu.b` get, where the source also has `us.a`.
    fn got(template: &str, foreign: &[&str], source: &[Acl]) -> Vec<Acl> {
        let naming = Naming::new(template).expect("a template");
        let copies: BTreeMap<_, _> =
            ["eu.a", "eu.b"].map(|topic| (topic.to_owned(), naming.target(topic, &[]).expect("a name"))).into();
        let mut target_topics: BTreeSet<String> = copies.values().cloned().collect();
        target_topics.extend(names(foreign));
        let source_topics = names(&["eu.a", "eu.b", "us.a"]);
        let view =
            View { copies: &copies, source_topics: &source_topics, target_topics: &target_topics, naming: &naming };
        let rules = AclRules { principals: [("User:old".to_owned(), "User:new".to_owned())].into() };
        wanted(&rules, &view, source).into_iter().collect()
    }

    #[test]
    fn what_lets_read_goes_along_and_what_lets_write_stays() {
        use AclOperation::{All, Alter, AlterConfigs, Create, Delete, Describe, DescribeConfigs, Read, Write};
        for (operation, allow, expected) in [
            (Read, true, Some(Read)),
            (Describe, true, Some(Describe)),
            (DescribeConfigs, true, Some(DescribeConfigs)),
            (All, true, Some(Read)),
            (Write, true, None),
            (Create, true, None),
            (Delete, true, None),
            (Alter, true, None),
            (AlterConfigs, true, None),
            (Read, false, Some(Read)),
            (All, false, Some(Read)),
            (Describe, false, Some(Describe)),
            (Write, false, None),
        ] {
            let expected: Vec<_> = expected.map(|operation| literal("x.eu.a", operation, allow)).into_iter().collect();
            assert_eq!(got("x.${topic}", &[], &[literal("eu.a", operation, allow)]), expected, "{operation:?} {allow}");
        }
        let everybody = acl(AclPattern::Literal, "eu.a", "User:*", Describe, false);
        assert_eq!(got("x.${topic}", &[], &[everybody]), []);
    }

    #[test]
    fn names_and_principals_are_mapped_and_other_topics_are_not_named() {
        let read = AclOperation::Read;
        let source = [
            acl(AclPattern::Literal, "eu.a", "User:old", read, true),
            acl(AclPattern::Literal, "us.a", "User:old", read, true),
        ];
        assert_eq!(got("${topic}.copy", &[], &source), [acl(AclPattern::Literal, "eu.a.copy", "User:new", read, true)]);
    }

    #[test]
    fn one_for_all_topics_is_given_to_each_copy() {
        let read = AclOperation::Read;
        let copies = [literal("eu.a", read, true), literal("eu.b", read, true)];
        assert_eq!(got("${topic}", &[], &[literal("*", read, true)]), copies);
    }

    #[test]
    fn a_prefix_stays_one_only_where_it_covers_copies_alone() {
        let read = AclOperation::Read;
        let prefixed = |name: &str| acl(AclPattern::Prefixed, name, "User:a", read, true);
        let each = |a: &str, b: &str| [literal(a, read, true), literal(b, read, true)];
        assert_eq!(got("${topic}", &[], &[prefixed("eu.")]), [prefixed("eu.")]);
        assert_eq!(got("o.${topic}", &[], &[prefixed("eu.")]), [prefixed("o.eu.")]);
        // Under a suffix the prefix is the same, and covers the copies.
        assert_eq!(got("${topic}.copy", &[], &[prefixed("eu.")]), [prefixed("eu.")]);
        // Another topic of the target would be covered, or a source topic that is not copied.
        assert_eq!(got("${topic}", &["eu.own"], &[prefixed("eu.")]), each("eu.a", "eu.b"));
        assert_eq!(got("${topic}", &[], &[prefixed("")]), each("eu.a", "eu.b"));
        assert_eq!(got("o.${topic}", &["o.eu.own"], &[prefixed("eu.a")]), [prefixed("o.eu.a")]);
    }

    #[test]
    fn only_what_is_owned_is_removed() {
        let read = AclOperation::Read;
        let [a, b, c, d] = ["a", "b", "c", "d"].map(|name| literal(name, read, true));
        let set = |acls: &[&Acl]| acls.iter().map(|&acl| acl.clone()).collect::<BTreeSet<_>>();
        let plan = plan(&set(&[&a, &b]), &set(&[&b, &c, &d]), &set(&[&b, &c]));
        assert_eq!(plan, AclPlan { create: vec![a.clone()], delete: vec![c.clone()], forget: vec![] });
        let gone = super::plan(&set(&[]), &set(&[&d]), &set(&[&c]));
        assert_eq!(gone, AclPlan { create: vec![], delete: vec![], forget: vec![c] });
    }
}
