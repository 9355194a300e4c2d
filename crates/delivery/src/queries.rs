//! Values that others measure: they are queried at intervals and kept within limits. A missing value is no evidence: it holds a
//! release up and never takes it back.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serin_model::Query;

use crate::Millis;

/// A response.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// The time at which it came.
    pub at: Millis,
    /// The value, or why there is none.
    pub value: Result<f64, String>,
}

/// The state of a query since the step began to be judged.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Queried {
    /// The time at which it was asked last.
    pub asked: Millis,
    /// The time at which the last response came.
    pub answered: Millis,
    /// The value, when the last response had one.
    pub value: Option<f64>,
    /// The number of values in a row that were outside the limits.
    pub outside: u32,
    /// The reason why the last response was none.
    pub problem: Option<String>,
}

impl Queried {
    fn take(&mut self, query: &Query, reading: &Reading) {
        if reading.at < self.asked || reading.at <= self.answered {
            return;
        }
        self.answered = reading.at;
        match &reading.value {
            Ok(value) => {
                self.value = Some(*value);
                self.problem = None;
                self.outside = breach(query, *value).map_or(0, |_| self.outside + 1);
            }
            Err(why) => {
                // What it was before says nothing of now.
                self.value = None;
                self.problem = Some(why.clone());
            }
        }
    }
}

/// The sentence about a value that breaks the limits.
fn breach(query: &Query, value: f64) -> Option<String> {
    match (query.min, query.max) {
        (Some(min), _) if value < min => Some(format!("{} is {value}, below {min}", query.name)),
        (_, Some(max)) if value > max => Some(format!("{} is {value}, above {max}", query.name)),
        _ => None,
    }
}

/// All queries of a release.
pub(crate) type All = BTreeMap<String, Queried>;

/// Takes responses in; yields the numbers of the queries that are to be asked now.
pub(crate) fn look(queries: &[Query], all: &mut All, readings: &BTreeMap<String, Reading>, now: Millis) -> Vec<usize> {
    let mut due = Vec::new();
    for (number, query) in queries.iter().enumerate() {
        let known = all.entry(query.name.clone()).or_default();
        if let Some(reading) = readings.get(&query.name).filter(|_| known.asked > 0) {
            known.take(query, reading);
        }
        if now.saturating_sub(known.asked) >= query.interval.as_millis() as u64 {
            known.asked = now;
            due.push(number);
        }
    }
    due
}

/// A value that was outside too often.
pub(crate) fn regression(queries: &[Query], all: &All) -> Option<String> {
    queries.iter().find_map(|query| {
        let known = all.get(&query.name).filter(|k| k.outside >= query.failures)?;
        Some(format!("{}, {} times in a row", breach(query, known.value?)?, known.outside))
    })
}

/// The sentence about the first query that keeps a step from its end.
pub(crate) fn missing(queries: &[Query], all: &All) -> Option<String> {
    queries.iter().find_map(|query| {
        let known = all.get(&query.name);
        match known.and_then(|k| k.value) {
            Some(value) => breach(query, value),
            None => {
                let problem = known.and_then(|k| k.problem.as_ref()).map_or(String::new(), |p| format!(": {p}"));
                Some(format!("{} has no value{problem}", query.name))
            }
        }
    })
}
