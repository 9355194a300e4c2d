//! Commands of people, hooks and other releases to a release.

use serin_delivery::{Command, Phase, Said, Status, command};
use serin_model::ObjectName;

use super::audit::Stamp;
use super::order::{Wait, in_force, running, waits_for};
use super::{Inner, PendingEffects, Refusal, now};

impl Inner {
    /// Does what is said: in the status, in the audit log, for those who ask and for those who are told.
    pub(super) fn say(&mut self, name: &ObjectName, said: Said) -> Result<Status, Refusal> {
        self.may(name, &said.command)?;
        let entry =
            self.entries.get_mut(name).ok_or_else(|| Refusal::Senseless(format!("there is no release {name}")))?;
        let (before, who, force) = (entry.status.phase, said.who.clone(), said.force);
        let events = command(&entry.spec, &mut entry.status, &entry.known, said, now());
        let events = events.map_err(|error| Refusal::Senseless(error.to_string()))?;
        let (status, release) = (entry.status.clone(), entry.spec.clone());
        if status.phase == Phase::Pending && before == Phase::RolledBack {
            self.tally.forget(name);
        }
        let text = events.first().map(|e| e.reason.clone()).filter(|text| !text.is_empty());
        let text = text.unwrap_or_else(|| "a hook has ended".to_owned());
        let value =
            serde_json::json!({"before": before, "after": status.phase, "target": status.target, "force": force});
        self.audit.write(Stamp { at: now(), who: &who }, name, &text, &value);
        self.happened(name, &events);
        self.pending.push(PendingEffects { release, actions: Vec::new(), events });
        Ok(status)
    }

    /// Checks whether another release of the same host lets this one do it.
    fn may(&self, name: &ObjectName, says: &Command) -> Result<(), Refusal> {
        let refused = |why: String| Err(Refusal::Senseless(why));
        let Some(entry) = self.entries.get(name) else { return Ok(()) };
        if matches!(says, Command::Undo(_))
            && let Some(other) = running(&self.entries, name)
        {
            return refused(format!("release {other} of the same host is under way: abort that first"));
        }
        match (says, in_force(&self.entries, name)) {
            (Command::Promote { .. }, _) if entry.status.phase == Phase::Pending => {
                match waits_for(&self.entries, name) {
                    Some(Wait::Refused(why) | Wait::For(why)) => refused(why),
                    None => Ok(()),
                }
            }
            // One that began later and is over, or has not begun yet, may have left the traffic where this one brought it.
            (Command::Undo(_), Some((other, e)))
                if !(e.status.phase.is_final() || e.status.phase == Phase::Pending)
                    || e.status.holds() != Some(&entry.spec.candidate) =>
            {
                refused(format!("release {other} of the same host has the traffic by now: undo that"))
            }
            _ => Ok(()),
        }
    }
}
