//! The reasons for which a release does not go forward, or does not begin.

use serin_model::Release;

use crate::Millis;
use crate::evidence::Evidence;
use crate::status::Status;

/// The reason of the pause of a release whose document is gone.
pub const DOCUMENT_GONE: &str = "its document is gone: its traffic stays for a minute as it is";

/// The reason for which a release does not go forward; `calendar` is the time by the clock on the wall, in UTC.
pub(crate) fn obstacle(spec: &Release, status: &Status, calendar: Millis) -> Option<String> {
    if let Some(why) = &status.paused {
        return Some(if why == DOCUMENT_GONE { format!("paused: {why}") } else { format!("paused by {why}") });
    }
    frozen(spec, calendar).map(|until| format!("it is a time of freeze until {until}"))
}

/// Until when it does not go forward, when it is a time of freeze.
pub(crate) fn frozen(spec: &Release, calendar: Millis) -> Option<String> {
    let minute = (calendar / 60_000 + 3 * 24 * 60) % (7 * 24 * 60);
    let within = |(from, to): &&(u32, u32)| {
        let (from, to) = (u64::from(*from), u64::from(*to));
        if from <= to { (from..to).contains(&minute) } else { minute >= from || minute < to }
    };
    let (_, until) = spec.freezes.iter().find(within)?;
    let day = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"].into_iter().cycle().nth(*until as usize / 1440);
    Some(format!("{} {:02}:{:02} UTC", day.unwrap_or_default(), until % 1440 / 60, until % 60))
}

/// The sentence about another version than the one named as stable that has the traffic.
pub(crate) fn misnamed(spec: &Release, status: &Status) -> Option<String> {
    let holder = status.holder.as_ref().filter(|holder| **holder != spec.stable)?;
    let labels: Vec<String> = holder.iter().map(|(key, value)| format!("{key}={value}")).collect();
    Some(format!("{} has the traffic, by an earlier release: name it as stable", labels.join(",")))
}

/// The reason for which a release cannot begin.
pub(crate) fn lacking(spec: &Release, status: &Status, evidence: &Evidence) -> Option<String> {
    let misnamed = misnamed(spec, status);
    if misnamed.is_some() {
        return misnamed;
    }
    let lacking = match evidence {
        _ if spec.waits_for_start && !status.go => "it waits to be started",
        e if e.candidate_ready == 0 => "no instance of the candidate is ready",
        e if e.stable_ready == 0 => "no instance of the stable version is ready",
        e if spec.baseline.is_some() && e.baseline_ready == 0 => "no instance of the baseline is ready",
        _ => return None,
    };
    Some(lacking.to_owned())
}
