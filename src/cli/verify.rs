//! `linkspan verify`: compares copies with their sources, through the running endpoint.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use super::admin::Admin;
use super::args::{ReportOutput, VerifyArgs};
use super::exit::{Exit, Failure};
use super::output::{self, Paint, Style, clean, grouped};
use super::{runtime, source};
use crate::control::operate::{VerifyCompared, VerifyDifference, VerifyPart, VerifyRequest, VerifyTarget};

/// How long the endpoint may take for one part.
const DEADLINE: Duration = Duration::from_secs(45);

/// What was compared.
#[derive(Debug, Serialize)]
struct Report {
    /// `linkspan/v1/Verify`.
    schema: &'static str,
    /// Records that are the same, over all partitions.
    records: u64,
    /// Partitions that differ.
    different: u64,
    /// Partitions that could not be compared.
    not_compared: u64,
    /// The partitions.
    partitions: Vec<Partition>,
}

/// What was compared of one partition.
#[derive(Debug, Serialize)]
struct Partition {
    flow: String,
    topic: String,
    target: String,
    partition: i32,
    /// Records that are the same.
    records: u64,
    /// The first difference.
    difference: Option<VerifyDifference>,
    /// Why nothing was compared.
    note: Option<String>,
}

/// Compares, and prints a line a partition. [`Exit::Unhealthy`] where any differs.
///
/// # Errors
/// As [`Admin::post`].
pub(crate) fn run(args: &VerifyArgs) -> Result<Exit, Failure> {
    let admin = source::operator(args.admin.as_deref(), &args.config)?;
    let report = runtime()?.block_on(compare(&admin, args))?;
    match args.output {
        ReportOutput::Json => output::print_json(&report)?,
        ReportOutput::Human => output::print(&text(&report, Style::stdout()))?,
    }
    Ok(if report.different > 0 { Exit::Unhealthy } else { Exit::Ok })
}

async fn compare(admin: &Admin, args: &VerifyArgs) -> Result<Report, Failure> {
    let which = VerifyRequest { flow: args.flow.clone(), topic: args.topic.clone(), ..VerifyRequest::default() };
    let VerifyPart::Partitions(all) = admin.post("/api/v1/verify", &which, DEADLINE).await? else {
        return Err(Failure::new(Exit::Internal, "the endpoint did not list its partitions"));
    };
    let sample = (!args.full).then_some(args.sample);
    let mut partitions = Vec::with_capacity(all.len());
    for one in all {
        partitions.push(partition(admin, one, sample).await?);
    }
    Ok(Report {
        schema: "linkspan/v1/Verify",
        records: partitions.iter().map(|one| one.records).sum(),
        different: partitions.iter().filter(|one| one.difference.is_some()).count() as u64,
        not_compared: partitions.iter().filter(|one| one.note.is_some()).count() as u64,
        partitions,
    })
}

async fn partition(admin: &Admin, which: VerifyTarget, sample: Option<u64>) -> Result<Partition, Failure> {
    let VerifyTarget { flow, topic, partition } = which;
    let mut ask = VerifyRequest {
        flow: Some(flow.clone()),
        topic: Some(topic.clone()),
        partition: Some(partition),
        sample,
        cursor: None,
    };
    let mut records = 0;
    loop {
        let VerifyPart::Compared(part) = admin.post("/api/v1/verify", &ask, DEADLINE).await? else {
            return Err(Failure::new(Exit::Internal, "the endpoint did not compare the partition"));
        };
        let VerifyCompared { target, records: more, cursor, difference, note } = part;
        records += more;
        if cursor.is_none() {
            return Ok(Partition { flow, topic, target, partition, records, difference, note });
        }
        ask.cursor = cursor;
    }
}

fn text(report: &Report, style: Style) -> String {
    let mut text = String::new();
    for one in &report.partitions {
        let name = format!("{}-{} -> {}", clean(&one.topic), one.partition, clean(&one.target));
        let line = match (&one.difference, &one.note) {
            (Some(difference), _) => {
                let sign = style.paint(Paint::Bad, "×");
                format!("{sign} {name}   {} records are the same, then {}", grouped(one.records), words(difference))
            }
            (None, Some(note)) => format!("{} {name}   {}", style.paint(Paint::Doubtful, "-"), clean(note)),
            (None, None) => {
                format!("{} {name}   {} records are the same", style.paint(Paint::Good, "√"), grouped(one.records))
            }
        };
        let _ = writeln!(text, "{line}");
    }
    let _ = writeln!(
        text,
        "{} records are the same; {} of {} partitions differ, {} were not compared.",
        grouped(report.records),
        report.different,
        report.partitions.len(),
        report.not_compared
    );
    text
}

fn words(difference: &VerifyDifference) -> String {
    match (difference.source_offset, difference.target_offset) {
        (Some(from), Some(to)) => {
            format!("the {} of source offset {from} and target offset {to} differ", clean(&difference.what))
        }
        (Some(from), None) => format!("source offset {from} is missing in the copy"),
        (None, Some(to)) => format!("target offset {to} is a record that the source does not have"),
        (None, None) => clean(&difference.what),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(number: i32, difference: Option<VerifyDifference>, note: Option<&str>) -> Partition {
        let (flow, topic, target) = ("f".to_owned(), "t".to_owned(), "t.copy".to_owned());
        Partition { flow, topic, target, partition: number, records: 1_000, difference, note: note.map(str::to_owned) }
    }

    #[test]
    fn each_partition_has_its_line_and_the_first_difference_its_offsets() {
        let difference = |source_offset, target_offset, what: &str| {
            Some(VerifyDifference { source_offset, target_offset, what: what.to_owned() })
        };
        let partitions = vec![
            partition(0, None, None),
            partition(1, difference(Some(12), Some(7), "value"), None),
            partition(2, difference(Some(12), None, "missing"), None),
            partition(3, difference(None, Some(7), "extra"), None),
            partition(4, None, Some("not compared: t is compacted")),
        ];
        let report = Report { schema: "linkspan/v1/Verify", records: 5_000, different: 3, not_compared: 1, partitions };
        assert_eq!(
            text(&report, Style::PLAIN),
            "√ t-0 -> t.copy   1,000 records are the same\n\
             × t-1 -> t.copy   1,000 records are the same, then the value of source offset 12 and target offset 7 differ\n\
             × t-2 -> t.copy   1,000 records are the same, then source offset 12 is missing in the copy\n\
             × t-3 -> t.copy   1,000 records are the same, then target offset 7 is a record that the source does not have\n\
             - t-4 -> t.copy   not compared: t is compacted\n\
             5,000 records are the same; 3 of 5 partitions differ, 1 were not compared.\n"
        );
    }
}
