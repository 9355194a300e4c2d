//! Watches over the running demo: an instance is registered exactly while its application lives and its proxy serves.
//! Proxies and the pilot that end are started again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::documents;
use super::plan::{Part, Plan};
use super::processes::{Ended, Processes};
use super::ready::is_ready;
use super::report::event;
use crate::client::Client;

const LOOK: Duration = Duration::from_millis(100);

/// Runs until the demo ends.
pub(super) async fn run(plan: &Plan, processes: &mut Processes) -> anyhow::Result<()> {
    let client = Client::new();
    let mut watch = Watch { plan, dead: BTreeSet::new(), away: BTreeSet::new(), restarts: BTreeMap::new() };
    loop {
        tokio::select! {
            ended = processes.ended.recv() => {
                if let Some(ended) = ended {
                    watch.ended(processes, &ended)?;
                }
            }
            () = tokio::time::sleep(LOOK) => {
                watch.restart(processes)?;
                watch.look(&client).await?;
            }
        }
    }
}

struct Watch<'a> {
    plan: &'a Plan,
    /// Instances whose application ended.
    dead: BTreeSet<usize>,
    /// Instances whose proxy does not serve.
    away: BTreeSet<usize>,
    /// The parts that were started again, or will be, with the times.
    restarts: BTreeMap<Part, Restart>,
}

/// A part that ended and is started again: soon the first time, later each time it does not stay.
struct Restart {
    wait: Duration,
    due: Option<Instant>,
    started: Instant,
}

const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// Time after which a part counts as having stayed.
const STAYED: Duration = Duration::from_secs(10);

impl Watch<'_> {
    fn ended(&mut self, processes: &mut Processes, ended: &Ended) -> anyhow::Result<()> {
        processes.forget(ended.pid);
        let how = ended.status.map_or_else(|| "ended".to_owned(), |s| format!("ended ({s})"));
        match ended.part {
            Part::App(index) => {
                self.dead.insert(index);
                event(&format!("application {} {how}: its registration is withdrawn", self.name(index)));
                return self.register();
            }
            Part::Proxy(index) => {
                self.away.insert(index);
                event(&format!("proxy of {} {how}: withdrawn and started again", self.name(index)));
                self.register()?;
            }
            Part::Pilot => event(&format!("pilot {how}: started again")),
            Part::Gateway => event(&format!("gateway {how}: started again")),
        }
        let now = Instant::now();
        let restart =
            self.restarts.entry(ended.part).or_insert(Restart { wait: FIRST_WAIT / 2, due: None, started: now });
        let stayed = now.duration_since(restart.started) > STAYED;
        restart.wait = if stayed { FIRST_WAIT } else { (restart.wait * 2).min(LONGEST_WAIT) };
        restart.due = Some(now + restart.wait);
        Ok(())
    }

    /// Starts what is due.
    fn restart(&mut self, processes: &mut Processes) -> anyhow::Result<()> {
        let now = Instant::now();
        for (part, restart) in &mut self.restarts {
            if restart.due.is_some_and(|due| due <= now) {
                restart.due = None;
                restart.started = now;
                processes.launch(self.plan, *part)?;
            }
        }
        Ok(())
    }

    /// Asks every proxy whether it serves; one that says no, or does not answer, is withdrawn until it does.
    async fn look(&mut self, client: &Client) -> anyhow::Result<()> {
        let mut asked = JoinSet::new();
        for (index, instance) in self.plan.instances.iter().enumerate() {
            let Some(proxy) = &instance.proxy else { continue };
            let (client, admin) = (client.clone(), proxy.admin);
            asked.spawn(async move { (index, is_ready(&client, admin).await) });
        }
        let mut changed = false;
        for (index, ready) in asked.join_all().await {
            let Some(ready) = ready else { continue };
            if ready && self.away.remove(&index) {
                changed = true;
                event(&format!("proxy of {} serves again", self.name(index)));
            } else if !ready && self.away.insert(index) {
                changed = true;
                event(&format!("proxy of {} does not serve: withdrawn", self.name(index)));
            }
        }
        if changed { self.register() } else { Ok(()) }
    }

    fn register(&self) -> anyhow::Result<()> {
        let gone = |name: &str| {
            let index = self.plan.instances.iter().position(|i| i.name == name);
            index.is_none_or(|i| self.dead.contains(&i) || self.away.contains(&i))
        };
        documents::register(self.plan, |instance| !gone(&instance.name))
    }

    fn name(&self, index: usize) -> &str {
        self.plan.instances.get(index).map_or("?", |i| &i.name)
    }
}
