//! Both ways at once under one name; and what happens when it cannot be told any more whose a record is.

use std::time::Duration;

use serde_json::Value;

use crate::bed::{Bed, Side, TOPICS};
use crate::chaos::{Settings, both};

#[test]
fn both_sides_have_every_record_once_and_stop_when_the_registry_is_gone() {
    let settings = Settings { seed: 1, faults: 9, gap: Duration::from_millis(800), rate: 4_000 };
    let (hurter, report) = both::run(&settings);
    eprintln!("{report:?}");
    assert!(report.wrong.is_empty(), "{}", report.wrong.join("\n"));
    assert!(report.records.iter().all(|&records| records > 10_000), "{report:?}");

    // Orange's registry tells which of its records came from grape: without it nothing of orange is copied.
    let bed = Bed::get();
    let file = bed.client_file(Side::Orange).display().to_string();
    let server = ["--bootstrap-server", Side::Orange.bootstrap(), "--command-config", &file];
    bed.tool_ok(Side::Orange, TOPICS, &[&server[..], &["--delete", "--topic", "__linkspan-producers"]].concat());
    let stopped = |status: &Value| {
        let reason = &status["flows"][0]["topics"][0]["reason"];
        status["flows"][0]["state"] == "stopped" && reason.as_str().is_some_and(|reason| reason.contains("LS409"))
    };
    let took = hurter.grape.wait("stopped", Duration::from_secs(60), stopped);
    eprintln!("stopped {took:?} after the registry was deleted");
}
