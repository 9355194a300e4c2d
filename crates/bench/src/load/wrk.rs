//! HTTP/1.1 by wrk, and what it says.

use std::fmt::Write as _;

use anyhow::{Context as _, ensure};

use super::{Aim, Outcome};
use crate::case::Case;

pub(super) fn run(case: &Case, aim: Aim<'_>, seconds: u32) -> anyhow::Result<Outcome> {
    let script = aim.scratch.join(format!("{}.lua", case.name));
    std::fs::write(&script, lua(case))?;
    let output = aim
        .pinned()
        .args(["wrk", "-t", "1", "-c", &case.load.connections.to_string()])
        .args(["-d", &format!("{seconds}s"), "--timeout", "10s", "-s"])
        .arg(&script)
        .arg(format!("http://{}{}", aim.address, super::path(case)))
        .output()
        .context("taskset and wrk are needed (Debian: util-linux, wrk)")?;
    ensure!(output.status.success(), "wrk: {}", String::from_utf8_lossy(&output.stderr).trim());
    parse(&String::from_utf8_lossy(&output.stdout))
}

fn lua(case: &Case) -> String {
    let mut text = String::new();
    for (name, value) in super::fields(case) {
        // The formatting of a String cannot fail.
        let _ = writeln!(text, "wrk.headers[\"{name}\"] = \"{value}\"");
    }
    if case.load.close {
        text.push_str("wrk.headers[\"connection\"] = \"close\"\n");
    }
    if case.load.upload > 0 {
        let _ = writeln!(text, "wrk.method = \"POST\"\nwrk.body = string.rep(\"x\", {})", case.load.upload);
    }
    text
}

fn parse(text: &str) -> anyhow::Result<Outcome> {
    let requests = text.lines().find_map(|l| l.trim().split_once(" requests in ")?.0.parse().ok());
    let requests: u64 = requests.with_context(|| format!("wrk said no number of requests:\n{text}"))?;
    let bad = text.lines().find_map(|l| l.trim().strip_prefix("Non-2xx or 3xx responses:")?.trim().parse::<u64>().ok());
    let errors = text.lines().find_map(|l| l.trim().strip_prefix("Socket errors:"));
    let errors: u64 =
        errors.map_or(0, |l| l.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse::<u64>().ok()).sum());
    Ok(Outcome { requests, failed: bad.unwrap_or(0) + errors })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_added_up() {
        let text = "Running 1s test\n  42 requests in 1.00s, 1MB read\n  Socket errors: connect 1, read 2, write 3, timeout 4\n  \
                    Non-2xx or 3xx responses: 5\nRequests/sec: 42\n";
        assert_eq!(parse(text).unwrap(), Outcome { requests: 42, failed: 15 });
        assert!(parse("nothing").is_err());
    }
}
