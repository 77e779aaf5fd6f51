//! `linkspan pause`, `resume` and `plan`: the operator's hand on flows, through the running endpoint.

use std::fmt::Write as _;
use std::time::Duration;

use super::args::{PauseArgs, PlanArgs, ReportOutput};
use super::exit::{Exit, Failure};
use super::output::{self, Paint, Style, clean};
use super::{runtime, source};
use crate::control::operate::{FlowPlan, PauseDocument, PlanDocument, Selector};

/// How long the endpoint may take: it asks both clusters.
const DEADLINE: Duration = Duration::from_secs(45);

/// Pauses or resumes.
///
/// # Errors
/// As [`super::admin::Admin::post`].
pub(crate) fn pause(args: &PauseArgs, paused: bool) -> Result<Exit, Failure> {
    let admin = source::operator(args.admin.as_deref(), &args.config)?;
    let what = Selector { flow: args.flow.clone(), topic: args.topic.clone() };
    let page = if paused { "/api/v1/pause" } else { "/api/v1/resume" };
    let done: PauseDocument = runtime()?.block_on(admin.post(page, &what, DEADLINE))?;
    match args.output {
        ReportOutput::Json => output::print_json(&done)?,
        ReportOutput::Human => output::print(&paused_text(&done))?,
    }
    Ok(Exit::Ok)
}

fn paused_text(done: &PauseDocument) -> String {
    let mut text = String::new();
    for flow in &done.flows {
        let what = match (flow.paused, flow.topics.as_slice()) {
            (true, _) => "paused".to_owned(),
            (false, []) => "nothing is paused".to_owned(),
            (false, topics) => {
                format!("paused: {}", topics.iter().map(|topic| clean(topic)).collect::<Vec<_>>().join(", "))
            }
        };
        let _ = writeln!(text, "flow {}: {what}", clean(&flow.flow));
    }
    text
}

/// Shows what the flows of the configuration file would create or change.
///
/// # Errors
/// As [`super::admin::Admin::post`], and a configuration that does not load.
pub(crate) fn plan(args: &PlanArgs) -> Result<Exit, Failure> {
    let admin = source::operator(args.admin.as_deref(), &args.config)?;
    let flows = source::load_without_secrets(&args.config)?.replicate;
    if flows.is_empty() {
        return Err(Failure::new(Exit::Usage, "the configuration has no [[replicate]], so there is nothing to plan")
            .fixed_by("run it beside the cluster that the copies go to"));
    }
    let ask = serde_json::json!({ "flows": flows });
    let plan: PlanDocument = runtime()?.block_on(admin.post("/api/v1/plan", &ask, DEADLINE))?;
    match args.output {
        ReportOutput::Json => output::print_json(&plan)?,
        ReportOutput::Human => output::print(&plan_text(&plan, Style::stdout()))?,
    }
    Ok(match (args.detailed_exitcode, plan.problems, plan.changes) {
        (_, 1.., _) => Exit::Unhealthy,
        (true, 0, 1..) => Exit::Pending,
        _ => Exit::Ok,
    })
}

fn plan_text(plan: &PlanDocument, style: Style) -> String {
    let mut text = String::new();
    for flow in &plan.flows {
        flow_text(&mut text, flow, style);
    }
    let topics: usize = plan.flows.iter().map(|flow| flow.topics.len()).sum();
    let _ = writeln!(text, "Plan: {} changes, {topics} topics copied, {} problems.", plan.changes, plan.problems);
    text
}

fn flow_text(text: &mut String, flow: &FlowPlan, style: Style) {
    let title = format!("flow {} ({} to {})", clean(&flow.flow), clean(&flow.source), clean(&flow.target));
    let _ = writeln!(text, "{}", style.paint(Paint::Strong, &title));
    for topic in &flow.topics {
        let paused = if topic.paused { "   paused" } else { "" };
        let (from, to, why) = (clean(&topic.source), clean(&topic.target), clean(&topic.why));
        let _ = writeln!(text, "  {from} -> {to}   in by {why}{paused}");
        for action in &topic.actions {
            let sign = style.paint(Paint::Doubtful, if action.action == "create" { "+" } else { "~" });
            let _ = writeln!(text, "    {sign} {}", clean(&action.text));
        }
        for problem in &topic.problems {
            let sign = style.paint(Paint::Bad, if problem.stops { "×" } else { "!" });
            let _ = writeln!(text, "    {sign} {} {}", problem.code, clean(&problem.text));
        }
    }
    for acl in &flow.acls {
        let sign = style.paint(Paint::Doubtful, if acl.action == "create_acl" { "+" } else { "-" });
        let _ = writeln!(text, "  {sign} ACL {}", clean(&acl.text));
    }
    if let Some(problem) = &flow.acls_problem {
        let _ = writeln!(text, "  {} {} {}", style.paint(Paint::Bad, "!"), problem.code, clean(&problem.text));
    }
    for out in &flow.left_out {
        let line = format!("  {}   out: {}", clean(&out.source), clean(&out.why));
        let _ = writeln!(text, "{}", style.paint(Paint::Faint, &line));
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Code;
    use crate::control::operate::{LeftOut, PausedFlow, PlannedAction, PlannedProblem, TopicPlan};

    fn topic(name: &str, actions: &[(&str, &str)], problems: &[(Code, bool, &str)]) -> TopicPlan {
        let actions = actions
            .iter()
            .map(|(action, text)| PlannedAction { action: (*action).to_owned(), text: (*text).to_owned() });
        let problems =
            problems.iter().map(|&(code, stops, text)| PlannedProblem { code, stops, text: text.to_owned() });
        TopicPlan {
            source: name.to_owned(),
            target: format!("{name}.copy"),
            partitions: 3,
            why: "topics 'eu[.].*'".to_owned(),
            paused: false,
            actions: actions.collect(),
            problems: problems.collect(),
        }
    }

    #[test]
    fn a_plan_says_why_each_topic_is_in_or_out_and_what_would_change() {
        let flow = FlowPlan {
            flow: "f".to_owned(),
            source: "orange".to_owned(),
            target: "grape".to_owned(),
            topics: vec![
                topic("eu.a", &[("create", "create eu.a.copy: 3 partitions, retention.ms=5")], &[]),
                topic("eu.b\u{1b}", &[("alter_config", "eu.b.copy: retention.ms from 5 to 6")], &[]),
                topic("eu.c", &[], &[(Code::TOPIC_NAME, true, "target name: too long")]),
            ],
            acls: vec![PlannedAction { action: "create_acl".to_owned(), text: "ALLOW Read".to_owned() }],
            acls_problem: None,
            left_out: vec![LeftOut { source: "us.a".to_owned(), why: "no expression of topics matches".to_owned() }],
        };
        let (schema, link) = ("linkspan/v1/Plan".to_owned(), "l".to_owned());
        let plan = PlanDocument { schema, link, changes: 3, problems: 1, flows: vec![flow] };
        assert_eq!(
            plan_text(&plan, Style::PLAIN),
            "flow f (orange to grape)\n  \
             eu.a -> eu.a.copy   in by topics 'eu[.].*'\n    \
             + create eu.a.copy: 3 partitions, retention.ms=5\n  \
             eu.b\\u{1b} -> eu.b\\u{1b}.copy   in by topics 'eu[.].*'\n    \
             ~ eu.b.copy: retention.ms from 5 to 6\n  \
             eu.c -> eu.c.copy   in by topics 'eu[.].*'\n    \
             × LS403 target name: too long\n  \
             + ACL ALLOW Read\n  \
             us.a   out: no expression of topics matches\n\n\
             Plan: 3 changes, 3 topics copied, 1 problems.\n"
        );
    }

    #[test]
    fn what_is_paused_is_said() {
        let flow = |paused, topics: &[&str]| PausedFlow {
            flow: "f".to_owned(),
            paused,
            topics: topics.iter().map(|&topic| topic.to_owned()).collect(),
        };
        let done = |flows| PauseDocument { schema: "linkspan/v1/Pause".to_owned(), flows };
        assert_eq!(paused_text(&done(vec![flow(true, &[])])), "flow f: paused\n");
        assert_eq!(paused_text(&done(vec![flow(false, &["a", "b"])])), "flow f: paused: a, b\n");
        assert_eq!(paused_text(&done(vec![flow(false, &[])])), "flow f: nothing is paused\n");
    }
}
