//! The states of a release: what comes next, given what was asked for, what is known, and the time.
//!
//! Traffic goes back before anything else: a regression, a failed hook, an expired consent or a word of a person leads to
//! `RollingBack` from every state, at once, as long as the stable version has an instance; a person's word needs none. Nothing
//! moves forward while there is no evidence, while not every proxy has confirmed the last change, while it is paused, or in a freeze.

use serin_model::{Labels, Release};

use crate::Millis;
use crate::error::Error;
use crate::evidence::Evidence;
use crate::states::{Action, HookAt, Run, frozen, lacking, misnamed, obstacle};
use crate::status::{Consent, Event, EventKind, Phase, Status};

/// A command of a person or of a hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Begin.
    Start(String),
    /// Go no further.
    Pause(String),
    /// Go on.
    Resume(String),
    /// Consent to the step at hand.
    Approve(String),
    /// Go on to the next step, whatever the evidence; `all` goes to the end.
    Promote {
        /// To the end.
        all: bool,
        /// The reason, for the record.
        why: String,
    },
    /// Back to the stable version.
    Abort(String),
    /// Back to the stable version, though it was promoted.
    Undo(String),
    /// Begin anew one that was aborted or went back.
    Retry(String),
    /// A hook has ended.
    Hooked {
        /// The hook, as in the action that started it.
        hook: HookAt,
        /// Its result.
        result: Result<(), String>,
    },
}

/// One look at a release: what happened, and what is to be done.
pub fn advance(spec: &Release, status: &mut Status, evidence: &Evidence, now: Millis) -> (Vec<Event>, Vec<Action>) {
    let mut run = Run { spec, status, evidence, now, events: Vec::new(), actions: Vec::new() };
    run.look();
    // States that last no time pass in one go.
    for _ in 0..8 {
        if !run.next() {
            break;
        }
    }
    (run.events, run.actions)
}

/// A command with its sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// The sender, for the record.
    pub who: String,
    /// The command.
    pub command: Command,
    /// True when it is done although it sends traffic where no instance is ready, or in a freeze.
    pub force: bool,
}

impl Said {
    /// Said without force.
    #[must_use]
    pub fn new(who: impl Into<String>, command: Command) -> Self {
        Self { who: who.into(), command, force: false }
    }
}

/// Does what somebody says.
///
/// # Errors
/// When that makes no sense in this state, or is refused because it would cause an outage.
pub fn command(
    spec: &Release,
    status: &mut Status,
    evidence: &Evidence,
    said: Said,
    now: Millis,
) -> Result<Vec<Event>, Error> {
    let phase = status.phase;
    if !said.force {
        refuse_outage(spec, status, evidence, &said.command)?;
    }
    let Said { who, command, .. } = said;
    let who = who.as_str();
    let mut run = Run { spec, status, evidence, now, events: Vec::new(), actions: Vec::new() };
    let says = |run: &mut Run<'_>, text: String| run.note(EventKind::Action, &text);
    match command {
        Command::Undo(why) => {
            if phase == Phase::Pending || phase == Phase::RolledBack {
                return Err(Error::NothingToUndo);
            }
            says(&mut run, because(who, "undoes it", &why));
            run.roll_back(&because(who, "undid it", &why));
        }
        Command::Retry(why) => {
            if phase != Phase::RolledBack {
                return Err(Error::NotRolledBack(phase));
            }
            *run.status = run.status.anew(spec);
            says(&mut run, because(who, "retries it", &why));
        }
        _ if phase.is_final() => return Err(Error::Over(phase)),
        Command::Start(why) => {
            run.status.go = true;
            says(&mut run, because(who, "starts it", &why));
        }
        Command::Pause(why) => {
            run.status.paused = Some(if why.is_empty() { who.to_owned() } else { format!("{who}: {why}") });
            says(&mut run, because(who, "pauses it", &why));
        }
        Command::Resume(why) => {
            run.status.paused = None;
            run.status.failed_hook = None;
            says(&mut run, because(who, "resumes it", &why));
        }
        Command::Approve(comment) => {
            if phase != Phase::AwaitingApproval {
                return Err(Error::NotAwaitingApproval(phase));
            }
            says(&mut run, because(who, "approves", &comment));
            run.status.approved = Some(Consent { by: who.to_owned(), comment });
            run.status.forced = true;
        }
        Command::Promote { all, why } => {
            may_promote(spec, run.status)?;
            says(&mut run, because(who, if all { "promotes it to the end" } else { "promotes it" }, &why));
            promote(&mut run, all);
        }
        Command::Abort(why) => {
            says(&mut run, because(who, "aborts it", &why));
            abort(&mut run, &because(who, "aborted it", &why));
        }
        Command::Hooked { hook, result } => hooked(&mut run, hook, result)?,
    }
    Ok(run.events)
}

/// Rolls a release back that a person aborts.
fn abort(run: &mut Run<'_>, why: &str) {
    let evidence = run.evidence;
    match run.status.phase {
        Phase::RollingBack => {}
        // It moved nothing yet: what an earlier release has in hand stays there, and nothing goes where nobody is.
        Phase::Pending if run.status.holder.is_some() || evidence.contested || evidence.stable_ready == 0 => {
            run.enter(Phase::RolledBack, why);
        }
        _ => run.roll_back(why),
    }
}

/// A hook has ended: the next one is its turn, or the release goes back.
fn hooked(run: &mut Run<'_>, hook: HookAt, result: Result<(), String>) -> Result<(), Error> {
    let number = run.status.hook.unwrap_or_default();
    let before = run.status.phase == Phase::Before;
    let at = HookAt { step: run.status.step, before, number, since: run.status.since };
    if run.status.hook.is_none() || hook != at {
        return Err(Error::NoSuchHook);
    }
    match result {
        Ok(()) => run.status.hook = Some(number + 1),
        Err(why) => {
            run.status.failed_hook = Some(why);
            run.overdue();
        }
    }
    Ok(())
}

/// Refuses a command that would leave users without an instance, or move traffic in a freeze by accident.
fn refuse_outage(spec: &Release, status: &Status, evidence: &Evidence, command: &Command) -> Result<(), Error> {
    let labels = |labels: &Labels| labels.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(",");
    let moves_back = match command {
        Command::Undo(_) => !matches!(status.phase, Phase::Pending | Phase::RolledBack),
        // One that has not begun moves nothing.
        Command::Abort(_) => !status.phase.is_final() && !matches!(status.phase, Phase::Pending | Phase::RollingBack),
        _ => false,
    };
    if moves_back && evidence.stable_ready == 0 {
        return Err(Error::StableNotReady(labels(&spec.stable)));
    }
    if moves_back && !evidence.without_stable.is_empty() {
        return Err(Error::SubsetNotReady(evidence.without_stable.join(", ")));
    }
    if let Command::Promote { .. } = command
        && !status.phase.is_final()
    {
        if evidence.candidate_ready == 0 {
            return Err(Error::CandidateNotReady(labels(&spec.candidate)));
        }
        if let Some(until) = frozen(spec, evidence.calendar) {
            return Err(Error::Frozen(until));
        }
    }
    Ok(())
}

/// Refuses a promotion while traffic goes back, or when another version than the named one has it.
fn may_promote(spec: &Release, status: &Status) -> Result<(), Error> {
    if status.phase == Phase::RollingBack {
        return Err(Error::RollingBack);
    }
    misnamed(spec, status).map_or(Ok(()), |why| Err(Error::Misnamed(why)))
}

/// Passes over what is in the way of the next step, or of the end.
fn promote(run: &mut Run<'_>, all: bool) {
    run.status.paused = None;
    run.status.failed_hook = None;
    run.status.forced = true;
    run.status.go = true;
    match run.status.phase {
        Phase::Promoting => {}
        Phase::Guarding => run.enter(Phase::Promoted, "somebody promoted it"),
        Phase::Pending if !all => {}
        _ if all => {
            run.set_out();
            run.promote();
        }
        _ => run.end_step(),
    }
}

/// Returns true when a release that has not begun could begin now, by itself and by its evidence.
#[must_use]
pub fn may_begin(spec: &Release, status: &Status, evidence: &Evidence) -> bool {
    obstacle(spec, status, evidence.calendar).is_none() && lacking(spec, status, evidence).is_none()
}

/// A sentence about a command: who did it, and the reason if one was given.
fn because(who: &str, did: &str, why: &str) -> String {
    if why.is_empty() { format!("{who} {did}") } else { format!("{who} {did}: {why}") }
}

#[cfg(test)]
mod tests;
