//! Watches over the running demo: an instance is registered exactly while its application lives and its proxy serves.
//! Proxies and the pilot that end are started again.

use std::collections::BTreeSet;
use std::time::Duration;

use super::documents;
use super::plan::Plan;
use super::processes::{Ended, Part, Processes};
use super::ready::is_ready;
use super::report::event;
use crate::client::Client;

const LOOK: Duration = Duration::from_millis(100);

/// Runs until the demo ends.
pub(super) async fn run(plan: &Plan, processes: &mut Processes) -> anyhow::Result<()> {
    let client = Client::new();
    let mut watch = Watch { plan, dead: BTreeSet::new(), away: BTreeSet::new() };
    loop {
        tokio::select! {
            ended = processes.ended.recv() => {
                if let Some(ended) = ended {
                    watch.ended(processes, &ended).await?;
                }
            }
            () = tokio::time::sleep(LOOK) => watch.look(&client).await?,
        }
    }
}

struct Watch<'a> {
    plan: &'a Plan,
    /// Instances whose application ended.
    dead: BTreeSet<usize>,
    /// Instances whose proxy does not serve.
    away: BTreeSet<usize>,
}

impl Watch<'_> {
    async fn ended(&mut self, processes: &mut Processes, ended: &Ended) -> anyhow::Result<()> {
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
            Part::Pilot => {
                event(&format!("pilot {how}: started again"));
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
            Part::Gateway => event(&format!("gateway {how}: started again")),
        }
        processes.launch(self.plan, ended.part)
    }

    /// Asks every proxy whether it serves; one that says no, or does not answer, is withdrawn until it does.
    async fn look(&mut self, client: &Client) -> anyhow::Result<()> {
        let mut changed = false;
        for (index, instance) in self.plan.instances.iter().enumerate() {
            let Some(proxy) = &instance.proxy else { continue };
            let ready = is_ready(client, proxy.admin).await;
            if ready && self.away.remove(&index) {
                changed = true;
                event(&format!("proxy of {} serves again", instance.name));
            } else if !ready && self.away.insert(index) {
                changed = true;
                event(&format!("proxy of {} does not serve: withdrawn", instance.name));
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
