//! What the system says of this process, for the metrics every Prometheus user expects (`process_*`).
//!
//! Read from `/proc`; on systems without it the metrics are absent.

/// Kernel clock ticks a second in `/proc`; fixed at 100 on every Linux that Rust runs on.
const TICKS: f64 = 100.0;

/// Bytes of a page in `/proc/self/stat`; `/proc/self/status` is used where bytes matter, which needs no page size.
const KIB: u64 = 1024;

/// Resources of this process.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Process {
    /// User and system time, in seconds.
    pub(crate) cpu_seconds: Option<f64>,
    /// Resident memory, in bytes.
    pub(crate) resident: Option<u64>,
    /// Address space, in bytes.
    pub(crate) virtual_: Option<u64>,
    /// Threads.
    pub(crate) threads: Option<u64>,
    /// Open file descriptors.
    pub(crate) open_fds: Option<u64>,
    /// Most file descriptors that may be open.
    pub(crate) max_fds: Option<u64>,
    /// When it started, in seconds since 1970.
    pub(crate) start: Option<f64>,
}

impl Process {
    /// Reads `/proc/self`; what cannot be read is `None`.
    pub(crate) fn read() -> Self {
        let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let open = std::fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count() as u64);
        Self {
            open_fds: open,
            ..Self::from_texts(
                &text("/proc/self/stat"),
                &text("/proc/self/status"),
                &text("/proc/self/limits"),
                &text("/proc/stat"),
            )
        }
    }

    fn from_texts(stat: &str, status: &str, limits: &str, system: &str) -> Self {
        // The command's name may hold spaces and brackets; fields are counted from after its last bracket, where the third is first.
        let fields: Vec<&str> =
            stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or_default();
        let field = |number: usize| fields.get(number - 3).and_then(|text| text.parse::<f64>().ok());
        let boot = line(system, "btime").and_then(|text| text.parse::<f64>().ok());
        let kib = |name| line(status, name).and_then(|text| text.parse::<u64>().ok()).map(|kib| kib * KIB);
        Self {
            cpu_seconds: field(14).zip(field(15)).map(|(user, system)| (user + system) / TICKS),
            resident: kib("VmRSS:"),
            virtual_: kib("VmSize:"),
            threads: line(status, "Threads:").and_then(|text| text.parse().ok()),
            open_fds: None,
            max_fds: line(limits, "Max open files").and_then(|text| text.parse().ok()),
            start: field(22).zip(boot).map(|(ticks, boot)| boot + ticks / TICKS),
        }
    }
}

/// The first word after `name` in the line that begins with it.
fn line<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)).and_then(|rest| rest.split_whitespace().next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_linux_writes() {
        let stat = "4711 (a) b (c) S 1 4711 4711 0 -1 4194560 1000 0 0 0 250 50 0 0 20 0 9 0 6000 123456 789 18446744073709551615";
        let read = Process::from_texts(
            stat,
            "Name:\tlinkspan\nVmSize:\t   2048 kB\nVmRSS:\t    12 kB\nThreads:\t9\n",
            "Limit                     Soft Limit           Hard Limit           Units\nMax open files            1024                 524288               files\n",
            "cpu 1 2 3\nbtime 1000\n",
        );
        assert_eq!(
            read,
            Process {
                cpu_seconds: Some(3.0),
                resident: Some(12_288),
                virtual_: Some(2_097_152),
                threads: Some(9),
                open_fds: None,
                max_fds: Some(1024),
                start: Some(1060.0),
            }
        );
        assert_eq!(Process::from_texts("", "", "", ""), Process::default());
        assert_eq!(Process::from_texts("1 (x) S", "VmRSS:", "Max open files unlimited", "btime x"), Process::default());
    }
}
