//! Load: by wrk and h2load where they can, by small generators of our own where they cannot.

pub(crate) mod h2load;
pub(crate) mod idle;
pub(crate) mod paced;
pub(crate) mod wrk;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use crate::case::Case;

/// What came of a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) requests: u64,
    pub(crate) failed: u64,
}

/// Where a load goes, and from which core.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Aim<'a> {
    pub(crate) address: SocketAddr,
    pub(crate) core: usize,
    /// For files.
    pub(crate) scratch: &'a Path,
}

impl Aim<'_> {
    /// A command that runs on the core.
    fn pinned(&self) -> Command {
        let mut command = Command::new("taskset");
        command.args(["-c", &self.core.to_string()]);
        command
    }
}

/// Loads with as much as is taken, for that many seconds.
pub(crate) fn run(case: &Case, aim: Aim<'_>, seconds: u32) -> anyhow::Result<Outcome> {
    if case.setup.front.is_h2() { h2load::run(case, aim, seconds) } else { wrk::run(case, aim, seconds) }
}

/// Path of a case's requests.
fn path(case: &Case) -> String {
    if case.load.path.is_empty() { case.setup.path(case.setup.routes - 1) } else { case.load.path.to_owned() }
}

/// Header fields of a case's requests.
fn fields(case: &Case) -> Vec<(String, String)> {
    let mut fields: Vec<(String, String)> = (0..case.load.request_headers)
        .map(|n| (format!("x-field-{n}"), format!("value-of-field-number-{n}")))
        .collect();
    if case.setup.by == crate::case::By::Header {
        fields.push(("x-tenant".to_owned(), format!("tenant-{}", case.setup.routes - 1)));
    }
    if case.load.messages > 0 {
        fields.push(("content-type".to_owned(), "application/grpc".to_owned()));
        fields.push(("te".to_owned(), "trailers".to_owned()));
    }
    fields
}
