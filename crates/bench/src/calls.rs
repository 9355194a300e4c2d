//! System calls of a contender, counted by perf, where that is allowed.

use std::process::{Child, Command, Stdio};

/// A count that runs.
pub(crate) struct Calls(Child);

impl Calls {
    /// Counts from now on; `None` when perf is not there or may not.
    pub(crate) fn of(pids: &[u32]) -> Option<Self> {
        let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
        let perf = Command::new("perf")
            .args(["stat", "-x", ",", "-e", "raw_syscalls:sys_enter", "-p", &pids.join(",")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .ok()?;
        // It has no way to say that it has begun.
        std::thread::sleep(std::time::Duration::from_millis(300));
        Some(Self(perf))
    }

    /// How many there were.
    pub(crate) fn end(self) -> Option<u64> {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.0), rustix::process::Signal::INT).ok()?;
        let output = self.0.wait_with_output().ok()?;
        let text = String::from_utf8_lossy(&output.stderr);
        text.lines().find(|l| l.contains("raw_syscalls"))?.split(',').next()?.trim().parse().ok()
    }
}
