//! Processes under measurement: started, timed by the kernel's own count, and ended by their id.

use std::fs;
use std::process::{Child, Command};

/// A started process that ends with this value.
pub struct Running(Child);

impl Running {
    pub fn start(mut command: Command) -> Self {
        Self(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }

    pub fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// CPU seconds that processes and their ended children have used so far: utime and stime of /proc/PID/stat, 100 a second on Linux.
pub fn cpu_seconds(ids: &[u32]) -> f64 {
    ids.iter()
        .map(|id| {
            let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
            let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
            let fields: Vec<f64> =
                after_name.split_whitespace().skip(11).take(4).filter_map(|field| field.parse().ok()).collect();
            fields.iter().sum::<f64>() / 100.0
        })
        .sum()
}

/// The process and all that descend from it, by /proc.
pub fn family(id: u32) -> Vec<u32> {
    let mut all = vec![id];
    let mut at = 0;
    while at < all.len() {
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", all[at])).unwrap_or_default();
        all.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        at += 1;
    }
    all
}
