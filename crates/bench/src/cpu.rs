//! Processor time and memory as the kernel accounts them (Linux `/proc`).

use std::collections::BTreeMap;
use std::fs::read_to_string;

/// What a contender has used since its start.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    /// Nanoseconds on a processor, of all its threads and children.
    pub(crate) nanos: u64,
    /// Of these, ticks in user space and in the kernel.
    pub(crate) user: u64,
    pub(crate) system: u64,
}

/// The usage of a process and its children.
pub(crate) fn usage(pid: u32) -> Usage {
    let mut total = Usage::default();
    for process in family(pid) {
        let threads = std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
        for thread in threads {
            let text = read_to_string(thread.path().join("schedstat")).unwrap_or_default();
            total.nanos += text.split(' ').next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
        }
        let stat = read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |index: usize| fields.get(index).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0);
        total.user += ticks(11);
        total.system += ticks(12);
    }
    total
}

/// Returns the nanoseconds on a processor of each thread of a process, which lacks those of threads that have ended.
pub(crate) fn threads(pid: u32) -> BTreeMap<u32, u64> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let of = |thread: std::fs::DirEntry| {
        let text = read_to_string(thread.path().join("schedstat")).ok()?;
        Some((thread.file_name().to_str()?.parse().ok()?, text.split(' ').next()?.parse().ok()?))
    };
    threads.filter_map(of).collect()
}

/// Returns the nanoseconds that threads used between two samples; a thread that ended in between counts nothing.
pub(crate) fn between(before: &BTreeMap<u32, u64>, after: &BTreeMap<u32, u64>) -> u64 {
    after.keys().map(|thread| after[thread].saturating_sub(before.get(thread).copied().unwrap_or(0))).sum()
}

/// Resident memory of a process and its children, in KiB.
pub(crate) fn resident(pid: u32) -> u64 {
    let of = |process: u32| {
        let text = read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
        let line = text.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap_or_default().to_owned();
        line.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0)
    };
    family(pid).into_iter().map(of).sum()
}

/// Nanoseconds that a processor was busy, with whatever, since the machine started.
pub(crate) fn busy(core: usize) -> u64 {
    let text = read_to_string("/proc/stat").unwrap_or_default();
    let prefix = format!("cpu{core} ");
    let line = text.lines().find_map(|l| l.strip_prefix(&prefix)).unwrap_or_default();
    let ticks: Vec<u64> = line.split_whitespace().filter_map(|f| f.parse().ok()).collect();
    // user, nice, system, (idle, iowait), irq, softirq, steal
    let sum: u64 = [0, 1, 2, 5, 6, 7].into_iter().filter_map(|i| ticks.get(i)).sum();
    sum * 10_000_000
}

/// A process with its children, and theirs.
pub(crate) fn family(pid: u32) -> Vec<u32> {
    let children = read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let mut all = vec![pid];
    for child in children.split_whitespace().filter_map(|c| c.parse().ok()) {
        all.extend(family(child));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_that_begin_or_end_are_counted_for_what_is_known() {
        let before = BTreeMap::from([(1, 100), (2, 50)]);
        let after = BTreeMap::from([(1, 130), (3, 7)]);
        assert_eq!(between(&before, &after), 37);
    }

    #[test]
    fn this_process_has_used_a_processor() {
        assert!(threads(std::process::id()).values().sum::<u64>() > 0);
    }
}
