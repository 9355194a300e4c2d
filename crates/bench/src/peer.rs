//! The contenders, each with the configuration for the same job: one listener, one backend, keep-alive on both sides,
//! no access log.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use crate::ProxyOptions;

/// A contender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    Serin,
    Haproxy,
    Nginx,
    Envoy,
    Floor,
}

/// Where a contender listens and where it sends everything.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Job {
    pub(crate) listen: SocketAddr,
    pub(crate) upstream: SocketAddr,
    pub(crate) core: usize,
}

impl Peer {
    pub(crate) fn parse(name: &str) -> anyhow::Result<Self> {
        Ok(match name {
            "haproxy" => Self::Haproxy,
            "nginx" => Self::Nginx,
            "envoy" => Self::Envoy,
            "floor" => Self::Floor,
            other => bail!("--peers {other}: known are haproxy, nginx, envoy, floor"),
        })
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Serin => "serin",
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
            Self::Envoy => "envoy",
            Self::Floor => "floor",
        }
    }

    /// Why it cannot be measured here, if so.
    pub(crate) fn missing(self, options: &ProxyOptions) -> Option<String> {
        let file = |path: &Path, how: &str| {
            (!path.is_file()).then(|| format!("{}: {} is not there; {how}", self.name(), path.display()))
        };
        let program = |name: &str| {
            let found = Command::new(name).arg("-v").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
            (!found).then(|| format!("{name} is not installed (Debian: {name})"))
        };
        match self {
            Self::Serin => file(&options.serin, "cargo build --profile dist makes it"),
            Self::Envoy => file(&options.envoy, "cargo xtask interop installs it"),
            Self::Haproxy => program("haproxy"),
            Self::Nginx => program("nginx"),
            Self::Floor => None,
        }
    }

    /// Starts it on its core and waits until it accepts.
    pub(crate) fn start(self, job: Job, options: &ProxyOptions, scratch: &Path) -> anyhow::Result<Running> {
        let mut command = Command::new("taskset");
        command.args(["-c", &job.core.to_string()]);
        self.describe(&mut command, job, options, scratch)?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().with_context(|| format!("cannot start {}", self.name()))?;
        let running = Running(child);
        let started = Instant::now();
        while std::net::TcpStream::connect(job.listen).is_err() {
            if started.elapsed() > Duration::from_secs(20) {
                bail!("{} does not listen on {}", self.name(), job.listen);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(running)
    }

    fn describe(self, command: &mut Command, job: Job, options: &ProxyOptions, scratch: &Path) -> anyhow::Result<()> {
        let write = |name: &str, text: String| -> anyhow::Result<PathBuf> {
            let path = scratch.join(name);
            std::fs::write(&path, text)?;
            Ok(path)
        };
        match self {
            Self::Serin => {
                let file = write("bootstrap.json", bootstrap(job).to_string())?;
                command.arg(&options.serin).args(["proxy", "--concurrency", "1", "--bootstrap"]).arg(file);
            }
            Self::Envoy => {
                let file = write("bootstrap.json", bootstrap(job).to_string())?;
                command
                    .arg(&options.envoy)
                    .args(["--concurrency", "1", "--disable-hot-restart", "-l", "off", "-c"])
                    .arg(file);
            }
            Self::Haproxy => {
                command.args(["haproxy", "-db", "-q", "-f"]).arg(write("haproxy.cfg", haproxy(job))?);
            }
            Self::Nginx => {
                command.arg("nginx").arg("-c").arg(write("nginx.conf", nginx(job, scratch))?);
            }
            Self::Floor => {
                command.arg(std::env::current_exe()?).arg("floor");
                command.args(["--listen", &job.listen.to_string(), "--upstream", &job.upstream.to_string()]);
            }
        }
        Ok(())
    }
}

/// A process that is ended when this goes.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        for _ in 0..50 {
            if matches!(self.0.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The one file that Serin and Envoy both run: a route with a timeout and a retry policy, as a mesh would have.
fn bootstrap(job: Job) -> Value {
    let address = |a: SocketAddr| json!({"socket_address": {"address": a.ip().to_string(), "port_value": a.port()}});
    let router = json!({"name": "envoy.filters.http.router", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}});
    let route = json!({"match": {"prefix": "/"}, "route": {"cluster": "backend", "timeout": "15s",
        "retry_policy": {"retry_on": "gateway-error,connect-failure,reset", "num_retries": 2}}});
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bench",
        "route_config": {"name": "bench", "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [router],
    });
    let filter = json!({"name": "envoy.filters.network.http_connection_manager", "typed_config": manager});
    let endpoint = json!({"endpoint": {"address": address(job.upstream)}});
    json!({
        "admin": {"address": address(SocketAddr::new(job.listen.ip(), 0))},
        "static_resources": {
            "listeners": [{"name": "bench", "address": address(job.listen), "filter_chains": [{"filters": [filter]}]}],
            "clusters": [{"name": "backend", "type": "STATIC", "connect_timeout": "1s",
                "load_assignment": {"cluster_name": "backend", "endpoints": [{"lb_endpoints": [endpoint]}]}}],
        },
    })
}

fn haproxy(job: Job) -> String {
    format!(
        "global\n  nbthread 1\n  maxconn 4000\ndefaults\n  mode http\n  retries 2\n  timeout connect 1s\n  timeout client 60s\n  \
         timeout server 15s\n  http-reuse always\nfrontend f\n  bind {}\n  default_backend b\nbackend b\n  server s1 {}\n",
        job.listen, job.upstream
    )
}

fn nginx(job: Job, scratch: &Path) -> String {
    format!(
        "worker_processes 1;\ndaemon off;\npid {scratch}/nginx.pid;\nerror_log /dev/null;\nevents {{ worker_connections 4000; }}\n\
         http {{\n  access_log off;\n  keepalive_requests 1000000000;\n  client_max_body_size 16m;\n  \
         client_body_temp_path {scratch}/nginx-body;\n  proxy_temp_path {scratch}/nginx-proxy;\n  \
         fastcgi_temp_path {scratch}/nginx-fcgi;\n  uwsgi_temp_path {scratch}/nginx-uwsgi;\n  scgi_temp_path {scratch}/nginx-scgi;\n  \
         upstream b {{ server {upstream}; keepalive 256; keepalive_requests 1000000000; }}\n  \
         server {{ listen {listen}; location / {{ proxy_pass http://b; proxy_http_version 1.1; \
         proxy_set_header Connection \"\"; proxy_request_buffering off; }} }}\n}}\n",
        scratch = scratch.display(),
        upstream = job.upstream,
        listen = job.listen,
    )
}
