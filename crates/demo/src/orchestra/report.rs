//! The output of the demo: a table for people, a line for programs.

use std::io::Write as _;

use serde_json::{Value, json};

use super::documents::GATEWAY_NAME;
use super::options::DataPlane;
use super::plan::{Part, Plan};
use super::processes::Processes;
use super::ready::Places;

/// Says that everything is ready.
pub(super) fn ready(plan: &Plan, processes: &Processes, places: &Places, as_json: bool) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if as_json {
        writeln!(out, "{}", line(plan, processes, places))?;
    } else {
        table(&mut out, plan, processes, places)?;
    }
    out.flush()?;
    Ok(())
}

fn line(plan: &Plan, processes: &Processes, places: &Places) -> Value {
    let mut proxies = Vec::new();
    for (index, instance) in plan.instances.iter().enumerate() {
        let Some(proxy) = &instance.proxy else { continue };
        proxies.push(json!({
            "workload": instance.name,
            "service": instance.service,
            "version": instance.version,
            "role": "sidecar",
            "app": instance.app.to_string(),
            "app_pid": processes.pid(Part::App(index)),
            "admin": format!("http://{}", proxy.admin),
            "pid": processes.pid(Part::Proxy(index)),
        }));
    }
    proxies.push(json!({
        "workload": GATEWAY_NAME,
        "service": GATEWAY_NAME,
        "version": "",
        "role": "gateway",
        "app": null,
        "app_pid": null,
        "admin": format!("http://{}", plan.gateway.admin),
        "pid": processes.pid(Part::Gateway),
    }));
    json!({
        "productpage": places.productpage,
        "gateway": places.gateway,
        "pilot": {
            "admin": format!("http://{}", plan.pilot_admin),
            "xds": plan.pilot_xds.to_string(),
            "pid": processes.pid(Part::Pilot),
        },
        "proxies": proxies,
        "config": plan.rules.display().to_string(),
    })
}

fn table(out: &mut impl std::io::Write, plan: &Plan, processes: &Processes, places: &Places) -> anyhow::Result<()> {
    let data_plane = match plan.data_plane {
        DataPlane::Serin => "Serin's own proxy",
        DataPlane::Envoy => "real Envoy",
    };
    writeln!(out, "Bookinfo is up, with {data_plane} as data plane.\n")?;
    writeln!(out, "  page    {}", places.productpage)?;
    match &places.gateway {
        Some(url) => writeln!(out, "  gateway {url}  (admin http://{})", plan.gateway.admin)?,
        None => writeln!(out, "  gateway none: no Gateway in the rules selects istio: ingressgateway")?,
    }
    writeln!(out, "  pilot   http://{}  (xDS {})", plan.pilot_admin, plan.pilot_xds)?;
    writeln!(out, "  rules   {}\n", plan.rules.display())?;
    writeln!(
        out,
        "  {:<18} {:<8} {:<10} {:<18} {:<18} {:<18} ADMIN",
        "WORKLOAD", "APP PID", "PROXY PID", "APPLICATION", "INBOUND", "OUTBOUND"
    )?;
    for (index, instance) in plan.instances.iter().enumerate() {
        let pid = processes.pid(Part::App(index)).unwrap_or_default();
        let proxy_pid = processes.pid(Part::Proxy(index)).map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        let (inbound, outbound, admin) = match &instance.proxy {
            Some(p) => (p.inbound.to_string(), p.outbound.to_string(), format!("http://{}", p.admin)),
            None => ("no proxy".to_owned(), String::new(), String::new()),
        };
        writeln!(
            out,
            "  {:<18} {pid:<8} {proxy_pid:<10} {:<18} {inbound:<18} {outbound:<18} {admin}",
            instance.name,
            instance.app.to_string()
        )?;
    }
    let gateway = processes.pid(Part::Gateway).map_or_else(|| "-".to_owned(), |pid| pid.to_string());
    writeln!(out, "  {GATEWAY_NAME:<18} {:<8} {gateway:<10}", "-")?;
    if plan.scenario.is_some() {
        writeln!(out, "\nCtrl-C ends everything.")?;
        return Ok(());
    }
    let rules = plan.rules.join("reviews.yaml");
    writeln!(
        out,
        "\nTry next:\n  \
         curl -s {page} | grep -o 'reviews-v[0-9]'            which version answered\n  \
         curl -s -H 'end-user: jason' {page} | grep -c ★      jason sees the stars of v2\n  \
         $EDITOR {rules}            give v3 a weight of 10 and save: traffic follows within a second\n  \
         kill -9 <APP PID>                                    an application dies: the demo withdraws it\n  \
         kill -9 <PROXY PID>                                  a proxy dies: it is withdrawn and started again\n\n\
         Ctrl-C ends everything.",
        page = places.productpage,
        rules = rules.display(),
    )?;
    Ok(())
}

/// Says that everything stays up after a release has ended.
pub(super) fn kept(plan: &Plan, as_json: bool) -> anyhow::Result<()> {
    if !as_json {
        let pilot = plan.pilot_admin;
        writeln!(
            std::io::stdout(),
            "\nEverything stays up. Look at the release:\n  \
             serin release get reviews-v3 --pilot {pilot}\n  \
             serin release audit --pilot {pilot}\n  \
             http://{pilot}/releases in a browser\n\n\
             Ctrl-C ends everything."
        )?;
    }
    Ok(())
}

/// Tells of something that happened.
pub(super) fn event(text: &str) {
    eprintln!("demo: {text}");
}
