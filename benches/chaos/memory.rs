//! What a process holds, as the kernel counts it.

use std::fs;

/// Resident memory of a process, in bytes: VmRSS of /proc/PID/status. The kernel's own memory for sockets is not in it.
pub fn resident(id: u32) -> f64 {
    field(id, "VmRSS:") * 1024.0
}

/// Open descriptors of a process.
pub fn descriptors(id: u32) -> usize {
    fs::read_dir(format!("/proc/{id}/fd")).map_or(0, Iterator::count)
}

fn field(id: u32, name: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0.0)
}
