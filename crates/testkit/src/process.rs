//! Real processes: started with their output read, ended when dropped.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};

/// A running process.
pub struct Process {
    child: Child,
    stdout: Lines,
    stderr: Lines,
}

type Lines = Arc<Mutex<Vec<String>>>;

impl Process {
    /// Starts a command.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(command: &mut Command) -> anyhow::Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {:?}", command.get_program()))?;
        let stdout = child.stdout.take().map(collect).unwrap_or_default();
        let stderr = child.stderr.take().map(collect).unwrap_or_default();
        Ok(Self { child, stdout, stderr })
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Processor time that it has used, in its own name and the system's.
    ///
    /// # Errors
    /// When it has ended.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.id()))?;
        // After the name, which stands in parentheses: utime and stime are the 12th and 13th, in hundredths of a second.
        let fields = text.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect::<Vec<_>>());
        let ticks = fields.iter().flat_map(|f| f.get(11..13)).flatten().filter_map(|t| t.parse::<u64>().ok());
        Ok(Duration::from_millis(ticks.sum::<u64>() * 10))
    }

    /// What it wrote to standard output so far.
    #[must_use]
    pub fn stdout(&self) -> Vec<String> {
        self.stdout.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What it wrote to standard error so far.
    #[must_use]
    pub fn stderr(&self) -> Vec<String> {
        self.stderr.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The first line of standard output.
    ///
    /// # Errors
    /// When none comes within `patience`, with what was written to standard error.
    pub fn first_line(&mut self, patience: Duration) -> anyhow::Result<String> {
        wait_until(patience, || self.stdout().first().cloned())
            .with_context(|| format!("no line on standard output; standard error:\n{}", self.stderr().join("\n")))
    }

    /// Waits for a line on standard error that contains `text`.
    ///
    /// # Errors
    /// When none comes within `patience`.
    pub fn wait_for(&self, text: &str, patience: Duration) -> anyhow::Result<String> {
        let found = || self.stderr().into_iter().find(|line| line.contains(text));
        wait_until(patience, found).with_context(|| format!("'{text}' not in:\n{}", self.stderr().join("\n")))
    }

    /// Sends SIGTERM and waits for the end.
    ///
    /// # Errors
    /// When it does not end within `patience`.
    pub fn terminate(&mut self, patience: Duration) -> anyhow::Result<()> {
        signal(self.id(), Signal::TERM);
        wait_until(patience, || self.child.try_wait().ok().flatten()).context("it did not end")?;
        Ok(())
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for the end and yields the exit code.
    ///
    /// # Errors
    /// When it does not end within `patience`.
    pub fn exit_code(&mut self, patience: Duration) -> anyhow::Result<Option<i32>> {
        Ok(wait_until(patience, || self.child.try_wait().ok().flatten())?.code())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            signal(self.id(), Signal::TERM);
            if wait_until(Duration::from_secs(10), || self.child.try_wait().ok().flatten()).is_err() {
                let _ = self.child.kill();
            }
        }
        let _ = self.child.wait();
    }
}

fn collect(stream: impl std::io::Read + Send + 'static) -> Lines {
    let lines = Lines::default();
    let sink = lines.clone();
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            sink.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
    });
    lines
}

/// Sends a signal to a process of ours.
pub fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid.cast_signed()) {
        let _ = kill_process(pid, signal);
    }
}

/// Sends SIGKILL.
pub fn kill(pid: u32) {
    signal(pid, Signal::KILL);
}

/// Sends SIGTERM.
pub fn terminate(pid: u32) {
    signal(pid, Signal::TERM);
}

/// Asks again and again until there is an answer.
///
/// # Errors
/// When there is none within `patience`.
pub fn wait_until<T>(patience: Duration, mut ask: impl FnMut() -> Option<T>) -> anyhow::Result<T> {
    let started = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return Ok(answer);
        }
        if started.elapsed() > patience {
            bail!("nothing within {} s", patience.as_secs_f32());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
