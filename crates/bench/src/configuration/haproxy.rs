//! HAProxy: routes by a map, which it keeps as a tree.

use std::fmt::Write as _;
use std::path::Path;

use crate::case::{By, Job, Setup, Wire};

/// The configuration file's text; a map is written beside it.
pub(crate) fn text(job: Job, setup: Setup, scratch: &Path) -> std::io::Result<String> {
    let tcp = setup.front == Wire::Tcp;
    let mut text = format!(
        "global\n  no strict-limits\n  nbthread 1\n  maxconn 12000\ndefaults\n  mode {}\n  retries 2\n  timeout connect 1s\n  timeout client 60s\n  \
         timeout server 15s\n{}frontend f\n  bind {}{}\n",
        if tcp { "tcp" } else { "http" },
        if tcp { "" } else { "  http-reuse always\n" },
        job.listen,
        if setup.front.is_h2() { " proto h2" } else { "" },
    );
    // The formatting of a String cannot fail.
    if setup.by == By::Nothing {
        text.push_str("  default_backend b0\n");
    } else {
        let map = scratch.join("haproxy.map");
        let entry = |number: usize| match setup.by {
            By::Header => format!("tenant-{number} b{}\n", number % setup.clusters),
            _ => format!("{} b{}\n", setup.path(number), number % setup.clusters),
        };
        std::fs::write(&map, (0..setup.routes).map(entry).collect::<String>())?;
        let sample = match setup.by {
            By::Exact => "path,map_str",
            By::Prefix => "path,map_beg",
            _ => "req.hdr(x-tenant),map_str",
        };
        let _ = writeln!(text, "  use_backend %[{sample}({})]", map.display());
    }
    let proto = if setup.back.is_h2() { " proto h2" } else { "" };
    for number in 0..setup.clusters {
        let _ = writeln!(text, "backend b{number}\n  server s1 {}{proto}", job.upstream);
    }
    Ok(text)
}
