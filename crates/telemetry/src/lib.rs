//! Output of a process about itself: counters and histograms, their text, JSON and Prometheus forms, and access logs.
//!
//! Counting is one store to memory that only one worker writes; adding up happens when somebody looks.
//! It deliberately knows no metric by name, but for Istio's standard ones: rooms that count own their names.

pub mod access_log;
mod counters;
mod exposition;
mod histogram;
pub mod istio;
pub mod otlp;

pub use counters::Counters;
pub use exposition::{Filter, Sample, Timing, json, prometheus, text};
pub use histogram::{Distribution, Histogram};
