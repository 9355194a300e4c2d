//! Latency at a fixed rate (open loop): requests are due by the clock, whatever became of those before, and each is
//! measured from when it was due. So a stall is charged to all that had to wait for it, not to one.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Args;
use rustix::event::{Timespec, epoll};
use serde_json::{Value, json};

use super::Aim;
use crate::case::Case;

/// Options of the generator.
#[derive(Debug, Clone, Args)]
pub(crate) struct PacedOptions {
    #[arg(long)]
    address: SocketAddr,
    #[arg(long)]
    path: String,
    /// Header field, NAME: VALUE; may be repeated
    #[arg(long = "field")]
    fields: Vec<String>,
    #[arg(long)]
    connections: usize,
    /// Requests per second
    #[arg(long)]
    rate: f64,
    #[arg(long)]
    seconds: f64,
}

/// Microseconds.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) failed: u64,
}

/// Runs the generator on its core and reads what it says.
pub(crate) fn run(case: &Case, aim: Aim<'_>, rate: f64, seconds: f64) -> anyhow::Result<Latency> {
    let mut command = aim.pinned();
    command.arg(std::env::current_exe()?).arg("paced").args(["--address", &aim.address.to_string()]);
    command.args(["--path", &super::path(case), "--connections", &case.load.connections.to_string()]);
    command.args(["--rate", &rate.to_string(), "--seconds", &seconds.to_string()]);
    for (name, value) in super::fields(case) {
        command.arg("--field").arg(format!("{name}: {value}"));
    }
    let output = command.stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "the paced load failed");
    let said: Value = serde_json::from_slice(&output.stdout)?;
    let figure = |name: &str| said[name].as_f64().with_context(|| format!("the paced load said no {name}"));
    Ok(Latency {
        p50: figure("p50_us")?,
        p99: figure("p99_us")?,
        p999: figure("p999_us")?,
        failed: said["failed"].as_u64().unwrap_or(0),
    })
}

struct Client {
    stream: TcpStream,
    input: Vec<u8>,
    /// When the request on it was due.
    due: Option<Instant>,
}

/// The generator: prints its figures as JSON.
pub(crate) fn generate(options: &PacedOptions) -> anyhow::Result<()> {
    // The default lets the kernel be 50 µs late.
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
    let fields: String = options.fields.iter().map(|f| format!("{f}\r\n")).collect();
    let request = format!("GET {} HTTP/1.1\r\nhost: bench\r\n{fields}\r\n", options.path).into_bytes();
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut clients = Vec::new();
    for number in 0..options.connections {
        let stream = TcpStream::connect(options.address)?;
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&poll, &stream, epoll::EventData::new_u64(number as u64), flags)?;
        clients.push(Client { stream, input: Vec::new(), due: None });
    }
    let mut free: Vec<usize> = (0..clients.len()).collect();
    let mut waiting: VecDeque<Instant> = VecDeque::new();
    let (started, step) = (Instant::now(), Duration::from_secs_f64(1.0 / options.rate));
    let total = (options.rate * options.seconds) as u32;
    let (mut due, mut taken, mut failed) = (0u32, Vec::with_capacity(total as usize), 0u64);
    let mut events = Vec::with_capacity(256);
    while taken.len() as u64 + failed < u64::from(total) {
        ensure!(started.elapsed().as_secs_f64() < options.seconds + 10.0, "answers are missing");
        while due < total && started + step * due <= Instant::now() {
            waiting.push_back(started + step * due);
            due += 1;
        }
        while let (Some(&at), Some(number)) = (waiting.front(), free.last().copied()) {
            waiting.pop_front();
            free.pop();
            clients[number].due = Some(at);
            clients[number].stream.write_all(&request).context("a connection broke")?;
        }
        let pause = (started + step * due).saturating_duration_since(Instant::now()).min(Duration::from_millis(100));
        let pause = if due < total { pause } else { Duration::from_millis(100) };
        events.clear();
        let pause = Timespec { tv_sec: 0, tv_nsec: i64::from(pause.subsec_nanos()) };
        epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), Some(&pause))?;
        for event in &events {
            let number = event.data.u64() as usize;
            let Some(good) = answered(&mut clients[number])? else { continue };
            if let Some(at) = clients[number].due.take() {
                taken.push(at.elapsed());
                failed += u64::from(!good);
                free.push(number);
            }
        }
    }
    taken.sort();
    let at = |share: f64| {
        let place = ((taken.len() as f64 * share) as usize).min(taken.len().saturating_sub(1));
        taken.get(place).map_or(0.0, |d| d.as_secs_f64() * 1e6)
    };
    let said = json!({"p50_us": at(0.5), "p99_us": at(0.99), "p999_us": at(0.999), "failed": failed});
    std::io::stdout().write_all(said.to_string().as_bytes())?;
    Ok(())
}

/// Whether the answer that is awaited is here, and good. Answers have a length.
fn answered(client: &mut Client) -> anyhow::Result<Option<bool>> {
    let mut buffer = [0u8; 64 * 1024];
    loop {
        match client.stream.read(&mut buffer) {
            Ok(0) => anyhow::bail!("a connection was closed"),
            Ok(n) => client.input.extend_from_slice(buffer.get(..n).unwrap_or_default()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error.into()),
        }
    }
    let Some(head) = client.input.windows(4).position(|w| w == b"\r\n\r\n") else { return Ok(None) };
    let text = String::from_utf8_lossy(client.input.get(..head).unwrap_or_default()).to_ascii_lowercase();
    let length = text.lines().find_map(|l| l.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    if client.input.len() < head + 4 + length.unwrap_or(0) {
        return Ok(None);
    }
    client.input.clear();
    Ok(Some(text.starts_with("http/1.1 200")))
}
