//! HTTP/2 and gRPC by h2load, and what it says.

use anyhow::{Context as _, ensure};

use super::{Aim, Outcome};
use crate::case::Case;

/// As much as is taken, for that many seconds.
pub(super) fn run(case: &Case, aim: Aim<'_>, seconds: u32) -> anyhow::Result<Outcome> {
    let (connections, streams) = (case.load.connections.to_string(), case.load.streams.to_string());
    load(case, aim, &["-c", &connections, "-m", &streams, "-D", &seconds.to_string()])
}

/// So many requests, one after the other.
pub(crate) fn exactly(case: &Case, aim: Aim<'_>, requests: u32) -> anyhow::Result<Outcome> {
    load(case, aim, &["-c", "1", "-m", "1", "-n", &requests.to_string()])
}

fn load(case: &Case, aim: Aim<'_>, how_much: &[&str]) -> anyhow::Result<Outcome> {
    let mut command = aim.pinned();
    command.args(["h2load", "-t1"]).args(how_much);
    if !case.setup.front.is_h2() {
        command.arg("--h1");
    }
    // One stream's window is enough for every answer; the connection's must not be what limits.
    command.args(["-w", "20", "-W", "24"]);
    for (name, value) in super::fields(case) {
        command.args(["-H", &format!("{name}: {value}")]);
    }
    if case.load.upload > 0 {
        let file = aim.scratch.join("upload");
        let mut body = vec![b'x'; case.load.upload];
        if case.load.messages > 0 {
            // A gRPC message's head: not compressed, and its length.
            body.splice(..5, [0].into_iter().chain((case.load.upload as u32 - 5).to_be_bytes()));
        }
        std::fs::write(&file, body)?;
        command.arg("-d").arg(file);
    }
    command.arg(format!("http://{}{}", aim.address, super::path(case)));
    let output = command.output().context("h2load is needed (Debian: nghttp2-client)")?;
    ensure!(output.status.success(), "h2load: {}", String::from_utf8_lossy(&output.stderr).trim());
    parse(&String::from_utf8_lossy(&output.stdout))
}

fn parse(text: &str) -> anyhow::Result<Outcome> {
    let line = text.lines().find_map(|l| l.strip_prefix("requests: "));
    let line = line.with_context(|| format!("h2load said no number of requests:\n{text}"))?;
    let count = |what: &str| -> u64 {
        let part = line.split(", ").find(|part| part.ends_with(what));
        part.and_then(|p| p.split(' ').next()?.parse().ok()).unwrap_or(0)
    };
    let codes = text.lines().find_map(|l| l.strip_prefix("status codes: ")).unwrap_or_default();
    let good: u64 = codes.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0);
    let done = count("done");
    Ok(Outcome { requests: done, failed: count("failed").max(done.saturating_sub(good)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_without_a_good_status_has_failed() {
        let text = "requests: 100 total, 100 started, 90 done, 90 succeeded, 0 failed, 0 errored, 0 timeout\n\
                    status codes: 80 2xx, 0 3xx, 0 4xx, 10 5xx\n";
        assert_eq!(parse(text).unwrap(), Outcome { requests: 90, failed: 10 });
        assert!(parse("nothing").is_err());
    }
}
