//! What is measured: a job for the contenders, a load for it, and what is demanded of Serin.

use std::net::SocketAddr;

use anyhow::bail;

/// Where a contender listens and where it sends everything.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Job {
    pub(crate) listen: SocketAddr,
    pub(crate) upstream: SocketAddr,
    pub(crate) core: usize,
}

/// What a contender speaks on one of its sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wire {
    Http1,
    /// With prior knowledge, in clear text.
    Http2,
    /// gRPC over HTTP/2: the backend answers with messages and trailers.
    Grpc,
    /// Bytes, unread.
    Tcp,
}

impl Wire {
    /// Whether it is HTTP/2 below.
    pub(crate) fn is_h2(self) -> bool {
        matches!(self, Self::Http2 | Self::Grpc)
    }
}

/// How the routes of a contender tell requests apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    /// One route for everything.
    Nothing,
    /// The whole path.
    Exact,
    /// The beginning of the path.
    Prefix,
    /// The value of `x-tenant`.
    Header,
}

/// What a contender is set up for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup {
    pub(crate) front: Wire,
    pub(crate) back: Wire,
    pub(crate) by: By,
    /// Number of routes; the load takes the last of them.
    pub(crate) routes: usize,
    /// Number of clusters, all with the same endpoint; the routes use them in turn.
    pub(crate) clusters: usize,
}

impl Setup {
    /// The path under which route `number` is found, behind the size that the backend reads.
    pub(crate) fn path(self, number: usize) -> String {
        match self.by {
            By::Nothing | By::Header => "/110".to_owned(),
            By::Exact => format!("/110/routes/{number}"),
            By::Prefix => format!("/110/routes/{number}/"),
        }
    }
}

/// What clients do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    /// Path that the backend understands: `/N` is a body of N bytes, `/N/h` the same with 15 header fields. Empty: the
    /// path of the last route.
    pub(crate) path: &'static str,
    pub(crate) connections: u32,
    /// Streams at a time on each HTTP/2 connection.
    pub(crate) streams: u32,
    /// Header fields of a request beyond what every client sends.
    pub(crate) request_headers: u32,
    /// Bytes that a request uploads.
    pub(crate) upload: usize,
    /// Whether every request comes on a connection of its own.
    pub(crate) close: bool,
    /// gRPC messages in an answer.
    pub(crate) messages: usize,
}

/// What is asked of a case beside the processor time of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extra {
    Nothing,
    /// Latency at a fixed rate.
    Latency,
    /// No load: the memory of connections that finished that many requests and wait.
    Idle {
        finished: u32,
    },
}

/// One kind of measurement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// What it shows, for the table.
    pub(crate) about: &'static str,
    pub(crate) setup: Setup,
    pub(crate) load: Load,
    pub(crate) extra: Extra,
    /// Most that Serin may cost, as a ratio to contenders.
    pub(crate) limits: &'static [(&'static str, f64)],
    /// A case whose rounds are interleaved with this one's, and the most that Serin may cost in ratio to itself there.
    pub(crate) beside: Option<(&'static str, f64)>,
    /// Why it is not measured at all.
    pub(crate) unable: Option<&'static str>,
}

const PLAIN: Setup = Setup { front: Wire::Http1, back: Wire::Http1, by: By::Nothing, routes: 1, clusters: 1 };

const GET: Load =
    Load { path: "/110", connections: 64, streams: 1, request_headers: 0, upload: 0, close: false, messages: 0 };

const SMALL: Case = Case {
    name: "h1-small",
    about: "HTTP/1.1 keep-alive, 64 connections, 110-byte answers",
    setup: PLAIN,
    load: GET,
    extra: Extra::Latency,
    limits: &[("haproxy", 0.85), ("nginx", 0.85), ("envoy", 0.3), ("floor", 1.3)],
    beside: None,
    unable: None,
};

const BODY: Case = Case { extra: Extra::Nothing, limits: &[("haproxy", 0.9)], ..SMALL };

const H2: Case = Case {
    name: "h2-h2",
    about: "HTTP/2 on both sides, 8 connections of 16 streams, 110-byte answers",
    setup: Setup { front: Wire::Http2, back: Wire::Http2, ..PLAIN },
    load: Load { connections: 8, streams: 16, ..GET },
    limits: &[("haproxy", 1.2), ("envoy", 0.6)],
    extra: Extra::Nothing,
    ..SMALL
};

const GRPC: Case = Case {
    name: "grpc-unary",
    about: "gRPC, 8 connections of 16 streams, one message of 100 bytes each way",
    setup: Setup { front: Wire::Grpc, back: Wire::Grpc, ..PLAIN },
    load: Load { path: "/bench.Echo/Unary", upload: 105, messages: 1, ..H2.load },
    ..H2
};

/// A case with many routes, whose last is taken.
const fn routed(name: &'static str, by: By, routes: usize, beside: Option<(&'static str, f64)>) -> Case {
    let about = match by {
        By::Nothing => "one route",
        By::Exact => "the last of so many exact paths",
        By::Prefix => "the last of so many prefixes",
        By::Header => "the last of so many routes that a header's value tells apart",
    };
    let setup = Setup { by, routes, ..PLAIN };
    Case { name, about, setup, load: Load { path: "", ..GET }, extra: Extra::Nothing, limits: &[], beside, ..SMALL }
}

/// A case that is not measured, and why.
const fn unable(name: &'static str, about: &'static str, reason: &'static str) -> Case {
    Case { name, about, unable: Some(reason), ..SMALL }
}

const NO_TLS: &str = "Serin has no TLS yet";

/// All cases.
pub(crate) const CASES: [Case; 30] = [
    SMALL,
    Case {
        name: "h1-headers",
        about: "as h1-small, with 20 request and 15 response fields",
        load: Load { path: "/110/h", request_headers: 20, ..GET },
        limits: &[("haproxy", 0.85)],
        ..SMALL
    },
    Case {
        name: "h1-64k",
        about: "64 KiB answers, 16 connections",
        load: Load { path: "/65536", connections: 16, ..GET },
        ..BODY
    },
    Case {
        name: "h1-1m",
        about: "1 MiB answers, 8 connections",
        load: Load { path: "/1048576", connections: 8, ..GET },
        ..BODY
    },
    Case {
        name: "h1-64k-up",
        about: "64 KiB uploads, 16 connections",
        load: Load { connections: 16, upload: 65_536, ..GET },
        ..BODY
    },
    Case {
        name: "h1-1m-up",
        about: "1 MiB uploads, 8 connections",
        load: Load { connections: 8, upload: 1_048_576, ..GET },
        ..BODY
    },
    Case {
        name: "h1-new",
        about: "a new connection for every request",
        load: Load { close: true, ..GET },
        extra: Extra::Nothing,
        limits: &[("haproxy", 1.0)],
        ..SMALL
    },
    H2,
    Case {
        name: "h1-h2",
        about: "HTTP/1.1 clients, 64 connections, HTTP/2 to the backend",
        setup: Setup { back: Wire::Http2, ..PLAIN },
        extra: Extra::Nothing,
        limits: &[],
        ..SMALL
    },
    Case {
        name: "h2-h1",
        about: "HTTP/2 clients, 8 connections of 16 streams, HTTP/1.1 to the backend",
        setup: Setup { front: Wire::Http2, ..PLAIN },
        limits: &[],
        ..H2
    },
    GRPC,
    Case {
        name: "grpc-stream",
        about: "gRPC, 8 connections of 16 streams, 100 messages of 100 bytes in an answer",
        load: Load { path: "/bench.Echo/Stream", messages: 100, ..GRPC.load },
        limits: &[],
        ..GRPC
    },
    Case {
        name: "tcp-small",
        about: "TCP proxy, 64 connections, 110-byte answers",
        setup: Setup { front: Wire::Tcp, back: Wire::Tcp, ..PLAIN },
        limits: &[],
        extra: Extra::Nothing,
        ..SMALL
    },
    Case {
        name: "tcp-1m",
        about: "TCP proxy, 8 connections, 1 MiB answers",
        setup: Setup { front: Wire::Tcp, back: Wire::Tcp, ..PLAIN },
        load: Load { path: "/1048576", connections: 8, ..GET },
        limits: &[],
        ..BODY
    },
    routed("routes-1", By::Nothing, 1, None),
    routed("exact-10", By::Exact, 10, Some(("routes-1", f64::INFINITY))),
    routed("exact-100", By::Exact, 100, Some(("exact-10", 1.05))),
    routed("exact-10000", By::Exact, 10_000, Some(("exact-10", 1.05))),
    routed("prefix-10", By::Prefix, 10, None),
    routed("prefix-100", By::Prefix, 100, Some(("prefix-10", 1.05))),
    routed("prefix-10000", By::Prefix, 10_000, Some(("prefix-10", 1.05))),
    routed("header-10", By::Header, 10, None),
    routed("header-100", By::Header, 100, Some(("header-10", f64::INFINITY))),
    routed("header-10000", By::Header, 10_000, Some(("header-10", f64::INFINITY))),
    Case {
        name: "clusters-1000",
        about: "1,000 clusters, each with a route of its own",
        setup: Setup { by: By::Prefix, routes: 1000, clusters: 1000, ..PLAIN },
        beside: Some(("prefix-10", f64::INFINITY)),
        ..routed("", By::Prefix, 1000, None)
    },
    Case {
        name: "idle-h1",
        about: "10,000 HTTP/1.1 connections that made one request and wait",
        load: Load { connections: 10_000, ..GET },
        extra: Extra::Idle { finished: 1 },
        limits: &[],
        ..SMALL
    },
    Case {
        name: "idle-h2",
        about: "1,000 HTTP/2 connections that made 100 requests and wait",
        setup: Setup { front: Wire::Http2, ..PLAIN },
        load: Load { connections: 1000, ..GET },
        extra: Extra::Idle { finished: 100 },
        limits: &[],
        ..SMALL
    },
    unable("tls-small", "as h1-small over TLS", NO_TLS),
    unable("tls-full", "a full TLS handshake for every request", NO_TLS),
    unable("tls-resumed", "a resumed TLS handshake for every request", NO_TLS),
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

/// Cases that are measured in the same rounds: one, with those that are compared with it.
pub(crate) fn groups(cases: &[Case]) -> Vec<Vec<Case>> {
    let mut groups: Vec<Vec<Case>> = Vec::new();
    for case in cases {
        let beside = |group: &&mut Vec<Case>| case.beside.is_some_and(|(name, _)| group.iter().any(|c| c.name == name));
        match groups.iter_mut().find(beside) {
            Some(group) => group.push(*case),
            None => groups.push(vec![*case]),
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compared_cases_share_their_rounds() {
        let names = |group: &Vec<Case>| group.iter().map(|c| c.name).collect::<Vec<_>>();
        let groups = groups(&CASES);
        assert!(groups.iter().any(|g| names(g) == ["routes-1", "exact-10", "exact-100", "exact-10000"]));
        assert!(groups.iter().any(|g| names(g) == ["prefix-10", "prefix-100", "prefix-10000", "clusters-1000"]));
        assert_eq!(groups.iter().map(Vec::len).sum::<usize>(), CASES.len());
        assert!(chosen(&["nothing".to_owned()]).is_err());
    }
}
