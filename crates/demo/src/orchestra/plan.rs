//! The processes and their ports. Made once; ports are checked before anything is started.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use serin_transport::BoundListener;

use super::options::{DataPlane, DemoOptions};
use super::scenario::Scenario;

/// The part of the demo that a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Part {
    Pilot,
    /// Index into the plan's instances.
    App(usize),
    /// Index into the plan's instances.
    Proxy(usize),
    Gateway,
}

/// Everything that is decided before the start.
pub(super) struct Plan {
    pub(super) data_plane: DataPlane,
    /// The story of the release of reviews v3.
    pub(super) scenario: Option<Scenario>,
    pub(super) envoy: PathBuf,
    pub(super) pilot_xds: SocketAddr,
    pub(super) pilot_admin: SocketAddr,
    pub(super) instances: Vec<Instance>,
    pub(super) gateway: GatewayPlan,
    /// The user's rules.
    pub(super) rules: PathBuf,
    /// The demo's own documents.
    pub(super) registry: PathBuf,
    /// Bootstraps and the like.
    pub(super) scratch: PathBuf,
    /// The sockets that keep others from the ports.
    _ports: Vec<BoundListener>,
}

/// The gateway.
pub(super) struct GatewayPlan {
    pub(super) admin: SocketAddr,
    /// Free ports for the ports that Gateways name; empty when those are used as they are.
    pub(super) ports: BTreeMap<u16, u16>,
}

/// One application with its proxy.
#[derive(Clone)]
pub(super) struct Instance {
    pub(super) name: String,
    pub(super) service: &'static str,
    pub(super) version: &'static str,
    pub(super) app: SocketAddr,
    pub(super) proxy: Option<ProxyPlan>,
}

/// A proxy beside an application.
#[derive(Clone, Copy)]
pub(super) struct ProxyPlan {
    pub(super) inbound: SocketAddr,
    pub(super) outbound: SocketAddr,
    pub(super) admin: SocketAddr,
}

impl Instance {
    /// The address at which others reach it.
    pub(super) fn reached_at(&self) -> SocketAddr {
        self.proxy.map_or(self.app, |p| p.inbound)
    }

    pub(super) fn labels(&self) -> [(&'static str, &str); 3] {
        [("app", self.service), ("version", self.version), ("instance", &self.name)]
    }
}

/// Services with their versions.
const SERVICES: [(&str, &str); 6] = [
    ("productpage", "v1"),
    ("details", "v1"),
    ("ratings", "v1"),
    ("reviews", "v1"),
    ("reviews", "v2"),
    ("reviews", "v3"),
];

impl Plan {
    /// A part's name for people.
    pub(super) fn describe(&self, part: Part) -> String {
        let name = |index: usize| self.instances.get(index).map_or("?", |i| i.name.as_str());
        match part {
            Part::Pilot => "the pilot".to_owned(),
            Part::Gateway => "the gateway's proxy".to_owned(),
            Part::App(index) => format!("application {}", name(index)),
            Part::Proxy(index) => format!("the proxy of {}", name(index)),
        }
    }

    pub(super) fn make(options: &DemoOptions, scratch: &Path, rules: &Path) -> anyhow::Result<Self> {
        for name in &options.without_proxy {
            ensure!(
                SERVICES.iter().any(|(service, _)| service == name),
                "--without-proxy {name}: no such service; there are productpage, details, reviews and ratings"
            );
        }
        if options.data_plane == DataPlane::Envoy {
            check_envoy(&options.envoy)?;
        }
        let mut ports = Ports::new(options.free_ports);
        let pilot_xds = ports.take(15010, "the pilot's xDS")?;
        let pilot_admin = ports.take(15014, "the pilot's admin interface")?;
        let mut instances = Vec::new();
        let copies = |s: &(&'static str, &'static str)| {
            let (service, version) = *s;
            (0..Scenario::copies(options.release, service, version)).map(move |copy| (service, version, copy))
        };
        for (index, (service, version, copy)) in SERVICES.iter().flat_map(copies).enumerate() {
            let name = format!("{service}-{version}-{copy}");
            let number = index as u16;
            let app = ports.take(19100 + number, &format!("application {name}"))?;
            let proxy = if options.without_proxy.iter().any(|s| s == service) {
                None
            } else {
                Some(ProxyPlan {
                    inbound: ports.take(19200 + number, &format!("inbound proxy of {name}"))?,
                    outbound: ports.take(19300 + number, &format!("outbound proxy of {name}"))?,
                    admin: ports.take(19400 + number, &format!("proxy admin of {name}"))?,
                })
            };
            instances.push(Instance { name, service, version, app, proxy });
        }
        let admin = ports.take(15000, "the gateway's admin interface")?;
        let mut mapped = BTreeMap::new();
        for port in gateway_ports(rules) {
            let address = ports.take(port, "a Gateway in the rules")?;
            if options.free_ports {
                mapped.insert(port, address.port());
            }
        }
        let registry = scratch.join("registry");
        std::fs::create_dir_all(&registry)?;
        Ok(Self {
            data_plane: options.data_plane,
            scenario: options.release,
            envoy: options.envoy.clone(),
            pilot_xds,
            pilot_admin,
            instances,
            gateway: GatewayPlan { admin, ports: mapped },
            rules: rules.to_path_buf(),
            registry,
            scratch: scratch.to_path_buf(),
            _ports: ports.guards,
        })
    }

    pub(super) fn of_service(&self, service: &str) -> impl Iterator<Item = &Instance> {
        self.instances.iter().filter(move |i| i.service == service)
    }
}

fn check_envoy(path: &Path) -> anyhow::Result<()> {
    let output = std::process::Command::new(path).arg("--version").output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        _ => bail!("cannot run Envoy as {}: give its path with --envoy PATH", path.display()),
    }
}

/// Ports that Gateways of the rules open on the demo's gateway; common ones too, so that a Gateway that is
/// written later finds its port mapped.
fn gateway_ports(rules: &Path) -> BTreeSet<u16> {
    let mut ports = BTreeSet::new();
    for entry in std::fs::read_dir(rules).into_iter().flatten().flatten() {
        let path = entry.path();
        if !path.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json") {
            continue;
        }
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        for document in serin_ingest::parse(&path.display().to_string(), &text).documents {
            if let serin_model::Object::Gateway(gateway) = &*document.object {
                ports.extend(gateway.listeners.iter().map(|s| s.port));
            }
        }
    }
    ports
}

/// Hands out ports and makes sure that they are free.
struct Ports {
    free: bool,
    /// The next one to try, and where its block ends.
    next: u16,
    end: u16,
    /// The first port of each block that is taken.
    guards: Vec<BoundListener>,
}

/// Below the range from which kernels take ports for outgoing connections.
const FREE_PORTS: std::ops::Range<u16> = 16_000..32_000;

/// Ports of a block. Who listens on the first one has all of them: another demo that begins at the same time takes other blocks.
const BLOCK: u16 = 160;

impl Ports {
    fn new(free: bool) -> Self {
        Self { free, next: 0, end: 0, guards: Vec::new() }
    }

    fn take(&mut self, wanted: u16, purpose: &str) -> anyhow::Result<SocketAddr> {
        let local = |port| SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
        if !self.free {
            let address = local(wanted);
            if let Err(error) = occupy(address) {
                bail!(
                    "port {wanted}, for {purpose}, cannot be used ({error}): end what uses it, or start the demo with --free-ports"
                );
            }
            return Ok(address);
        }
        loop {
            while self.next < self.end {
                let address = local(self.next);
                self.next += 1;
                if occupy(address).is_ok() {
                    return Ok(address);
                }
            }
            self.claim().with_context(|| format!("no free port for {purpose}"))?;
        }
    }

    /// Takes another block, wherever one is free.
    fn claim(&mut self) -> Option<()> {
        let blocks = (FREE_PORTS.end - FREE_PORTS.start) / BLOCK;
        let seed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.subsec_nanos());
        let first = (seed.wrapping_add(std::process::id()) % u32::from(blocks)) as u16;
        (0..blocks).find_map(|n| {
            let start = FREE_PORTS.start + (first + n) % blocks * BLOCK;
            let guard = occupy(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), start)).ok()?;
            self.guards.push(guard);
            (self.next, self.end) = (start + 1, start + BLOCK);
            Some(())
        })
    }
}

/// Takes an address. Fails when somebody has it.
fn occupy(address: SocketAddr) -> std::io::Result<BoundListener> {
    BoundListener::bind(address, 1)
}
