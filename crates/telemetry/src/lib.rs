//! What a process shows of itself: counters, their text, JSON and Prometheus forms, and access logs.
//!
//! Counting is one store to memory that only one worker writes; adding up happens when somebody looks.
//! It deliberately knows no metric by name: rooms that count own their names.

pub mod access_log;
mod counters;
mod exposition;

pub use counters::Counters;
pub use exposition::{Filter, Sample, json, prometheus, text};
