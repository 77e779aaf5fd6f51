//! `bin/chaos replicator [--faults N] [--seed S] [--minutes M] [--rate R] [-o json]`: real brokers, and faults without end.

use std::time::Duration;

use crate::bed;
use crate::chaos::{Settings, WHOLE_HAND, keep_logs, run};

/// Faults where nothing else is said, the time from one to the next, and records a second.
const FAULTS: usize = 7 * WHOLE_HAND;
const GAP: Duration = Duration::from_millis(800);
const RATE: u64 = 8_000;

pub fn main(args: &[String]) {
    let (mut settings, mut minutes, mut json) =
        (Settings { seed: 1, faults: FAULTS, gap: GAP, rate: RATE }, None, false);
    let mut rest = args.iter().filter(|arg| *arg != "--bench");
    while let Some(arg) = rest.next() {
        let value = rest.next().map_or("", String::as_str);
        let number = || value.parse().unwrap_or_else(|_| usage(arg));
        match arg.as_str() {
            "--faults" => settings.faults = number() as usize,
            "--seed" => settings.seed = number(),
            "--minutes" => minutes = Some(value.parse::<f64>().ok().filter(|m| *m > 0.0).unwrap_or_else(|| usage(arg))),
            "--rate" => settings.rate = number(),
            "-o" | "--output" if value == "json" => json = true,
            other => usage(other),
        }
    }
    if let Some(minutes) = minutes {
        // The schedule is in no hurry; where faults wait for each other it takes longer.
        settings.gap = Duration::from_secs_f64(minutes * 60.0 / settings.faults.max(1) as f64);
    }
    let report = {
        let _bed = Ends(settings.seed);
        run(&settings)
    };
    if json {
        println!("{}", serde_json::to_string(&report).unwrap());
    } else {
        println!("{report}");
    }
    if !report.wrong.is_empty() {
        eprintln!("chaos: the replicator failed; --seed {} repeats the schedule", report.seed);
        std::process::exit(1);
    }
}

/// The bed ends with the run, whichever way that ends.
struct Ends(u64);

impl Drop for Ends {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("chaos: logs of brokers and endpoints are kept in {}", keep_logs(self.0).display());
        }
        bed::down();
    }
}

fn usage(what: &str) -> ! {
    eprintln!(
        "chaos: `{what}` is not understood\nusage: bin/chaos replicator [--faults N] [--seed S] [--minutes M] [--rate R] [-o json]"
    );
    std::process::exit(2)
}
