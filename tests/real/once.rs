//! Each record once, whatever is killed meanwhile: the short form of `bin/chaos replicator`.

use std::time::Duration;

use crate::chaos::{Settings, WHOLE_HAND, run};

#[test]
fn every_record_comes_once_whatever_is_killed() {
    // A fault of each kind; other seeds are for the long form.
    let report = run(&Settings { seed: 1, faults: WHOLE_HAND, gap: Duration::from_millis(800), rate: 5_000 });
    eprintln!("{report}");
    assert!(report.wrong.is_empty(), "{}", report.wrong.join("\n"));
    assert!(report.records > 50_000, "{report}");
}
