//! What is measured.

use anyhow::bail;

/// One kind of load.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// What it shows, for the table.
    pub(crate) about: &'static str,
    /// Path that the backend understands: `/N` is a body of N bytes, `/N/h` the same with 15 header fields.
    pub(crate) path: &'static str,
    pub(crate) connections: u32,
    /// Header fields of a request beyond what every client sends.
    pub(crate) request_headers: u32,
    /// Bytes that a request uploads.
    pub(crate) upload: usize,
    /// Whether every request comes on a connection of its own.
    pub(crate) close: bool,
}

const SMALL: Case = Case {
    name: "h1-small",
    about: "HTTP/1.1 keep-alive, 64 connections, 110-byte answers",
    path: "/110",
    connections: 64,
    request_headers: 0,
    upload: 0,
    close: false,
};

/// All cases.
pub(crate) const CASES: [Case; 7] = [
    SMALL,
    Case {
        name: "h1-headers",
        about: "as h1-small, with 20 request and 15 response fields",
        path: "/110/h",
        request_headers: 20,
        ..SMALL
    },
    Case { name: "h1-64k", about: "64 KiB answers, 16 connections", path: "/65536", connections: 16, ..SMALL },
    Case { name: "h1-1m", about: "1 MiB answers, 8 connections", path: "/1048576", connections: 8, ..SMALL },
    Case {
        name: "h1-64k-up",
        about: "64 KiB uploads, 16 connections",
        path: "/110",
        connections: 16,
        upload: 65_536,
        ..SMALL
    },
    Case {
        name: "h1-1m-up",
        about: "1 MiB uploads, 8 connections",
        path: "/110",
        connections: 8,
        upload: 1_048_576,
        ..SMALL
    },
    Case { name: "h1-new", about: "a new connection for every request", close: true, ..SMALL },
];

/// The cases of these names, all for none.
pub(crate) fn chosen(names: &[String]) -> anyhow::Result<Vec<Case>> {
    for name in names {
        if !CASES.iter().any(|c| c.name == name) {
            let known: Vec<&str> = CASES.iter().map(|c| c.name).collect();
            bail!("--case {name}: there is no such case; there are {}", known.join(", "));
        }
    }
    Ok(CASES.into_iter().filter(|c| names.is_empty() || names.iter().any(|n| n == c.name)).collect())
}
