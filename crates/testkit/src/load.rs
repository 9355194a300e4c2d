//! Load in the background: paced requests from several connections, every answer kept.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::client::Client;

/// One answer, in short.
#[derive(Debug, Clone)]
pub struct Answer {
    /// When the request was sent.
    pub at: Instant,
    /// How long the answer took, to its last byte.
    pub took: Duration,
    /// Status and what `classify` made of the body, or why there was none.
    pub outcome: Result<(u16, String), String>,
}

/// Running load.
pub struct Load {
    stop: Arc<AtomicBool>,
    answers: Arc<Mutex<Vec<Answer>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    /// Sends GETs of `path` at `rate` requests a second until stopped; `classify` names what an answer is.
    pub fn start(address: SocketAddr, path: &str, rate: u32, classify: fn(&str) -> String) -> Self {
        const CONNECTIONS: u32 = 8;
        let stop = Arc::new(AtomicBool::new(false));
        let answers: Arc<Mutex<Vec<Answer>>> = Arc::default();
        let interval = Duration::from_secs(1) * CONNECTIONS / rate.max(1);
        let spawn = |index: u32| {
            let (stop, answers, path) = (stop.clone(), answers.clone(), path.to_owned());
            std::thread::spawn(move || {
                let mut client = Client::new(address);
                let mut next = Instant::now() + interval * index / CONNECTIONS;
                while !stop.load(Relaxed) {
                    std::thread::sleep(next.saturating_duration_since(Instant::now()));
                    next += interval;
                    let at = Instant::now();
                    let outcome = client.get(&path, &[]);
                    let took = at.elapsed();
                    let outcome = outcome.map(|r| (r.status, classify(&r.text()))).map_err(|e| format!("{e:#}"));
                    answers.lock().unwrap_or_else(PoisonError::into_inner).push(Answer { at, took, outcome });
                }
            })
        };
        let threads = (0..CONNECTIONS).map(spawn).collect();
        Self { stop, answers, threads }
    }

    /// Answers so far.
    #[must_use]
    pub fn answers(&self) -> Vec<Answer> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Number of answers so far.
    #[must_use]
    pub fn count(&self) -> usize {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Stops and yields every answer, by time.
    #[must_use]
    pub fn stop(mut self) -> Vec<Answer> {
        self.stop.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        let mut answers = self.answers();
        answers.sort_by_key(|a| a.at);
        answers
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}

/// Answers that are not 200, as text.
#[must_use]
pub fn failures(answers: &[Answer]) -> Vec<String> {
    let failed = |a: &Answer| match &a.outcome {
        Ok((200, _)) => None,
        Ok((status, text)) => Some(format!("{status} {text}")),
        Err(error) => Some(error.clone()),
    };
    answers.iter().filter_map(failed).collect()
}

/// Sends `count` GETs as fast as they are answered, over several connections; yields what `classify` made of each.
#[must_use]
pub fn burst(address: SocketAddr, path: &str, count: usize, classify: fn(&str) -> String) -> Vec<Answer> {
    const CONNECTIONS: usize = 8;
    let run = |share: usize| {
        let path = path.to_owned();
        std::thread::spawn(move || {
            let mut client = Client::new(address);
            let one = |_| {
                let at = Instant::now();
                let outcome = client.get(&path, &[]);
                let took = at.elapsed();
                Answer {
                    at,
                    took,
                    outcome: outcome.map(|r| (r.status, classify(&r.text()))).map_err(|e| format!("{e:#}")),
                }
            };
            (0..share).map(one).collect::<Vec<_>>()
        })
    };
    let threads: Vec<_> =
        (0..CONNECTIONS).map(|i| run(count / CONNECTIONS + usize::from(i < count % CONNECTIONS))).collect();
    threads.into_iter().flat_map(|t| t.join().unwrap_or_default()).collect()
}
