//! Which filter chain of a listener a connection gets.
//!
//! One property after the other narrows the choice to the chains that match it most specifically; a chain that was left out at one
//! property is not looked at again, even if none of the others matches the next. Source: Envoy, `FilterChainMatch`
//! (`config.listener.v3`), "the following order applies".

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serin_resources::listener::{FilterChain, FilterChainMatch, SourceType, TransportProtocol};
use serin_resources::network::Network;

/// What is known of a connection when its chain is chosen.
#[derive(Debug, Clone, Copy)]
pub struct Connection<'a> {
    /// The address to which the client connected.
    pub destination: SocketAddr,
    /// The address of whoever made the connection.
    pub direct_source: SocketAddr,
    /// The address of the client.
    pub source: SocketAddr,
    /// What its TLS client asks for; `None` when it is no TLS, or nobody has looked.
    pub hello: Option<Hello<'a>>,
}

/// What a TLS client asks for.
#[derive(Debug, Clone, Copy)]
pub struct Hello<'a> {
    /// The name of the server, in lower case.
    pub server_name: Option<&'a str>,
    /// The protocols above TLS that it speaks.
    pub protocols: &'a [Vec<u8>],
}

/// How well a chain matches one property; greater is more specific, `None` does not match.
type Score = Option<u32>;

/// Properties, in the order in which they decide.
const PROPERTIES: [fn(&FilterChainMatch, &Connection<'_>) -> Score; 9] = [
    |chain, connection| {
        let port = connection.destination.port();
        chain.destination_port.map_or(Some(0), |wanted| (wanted.get() == port).then_some(1))
    },
    |chain, connection| in_ranges(&chain.destinations, connection.destination.ip()),
    |chain, connection| of_names(&chain.server_names, connection.hello.and_then(|hello| hello.server_name)),
    |chain, connection| match chain.transport {
        TransportProtocol::Any => Some(0),
        TransportProtocol::RawBuffer => connection.hello.is_none().then_some(1),
        TransportProtocol::Tls => connection.hello.is_some().then_some(1),
    },
    |chain, connection| match chain.protocols.as_slice() {
        [] => Some(0),
        wanted => {
            let spoken = connection.hello.map_or(&[][..], |hello| hello.protocols);
            // The client's order counts.
            let is_wanted = |own: &Vec<u8>| wanted.iter().any(|one| one.as_bytes() == own);
            spoken.iter().position(is_wanted).map(|place| u32::MAX - place as u32)
        }
    },
    |chain, connection| in_ranges(&chain.direct_sources, connection.direct_source.ip()),
    |chain, connection| match chain.source_type {
        SourceType::Any => Some(0),
        SourceType::SameIpOrLoopback => is_local(connection).then_some(1),
        SourceType::External => (!is_local(connection)).then_some(1),
    },
    |chain, connection| in_ranges(&chain.sources, connection.source.ip()),
    |chain, connection| match chain.source_ports.as_slice() {
        [] => Some(0),
        ports => ports.contains(&connection.source.port()).then_some(1),
    },
];

/// Chooses the chain of a connection, by its number; `None` when no chain matches.
#[must_use]
pub fn choose(chains: &[FilterChain], connection: &Connection<'_>) -> Option<usize> {
    let mut left: Vec<usize> = (0..chains.len()).collect();
    for score in PROPERTIES {
        let scored = |number: &usize| chains.get(*number).and_then(|chain| score(&chain.matches, connection));
        let best = left.iter().filter_map(scored).max()?;
        left.retain(|number| scored(number) == Some(best));
    }
    left.first().copied()
}

/// The length of the longest range that contains an address; no range at all is as good as one that contains every address.
fn in_ranges(ranges: &[Network], address: IpAddr) -> Score {
    if ranges.is_empty() {
        return Some(0);
    }
    ranges.iter().filter(|range| range.contains(address)).map(Network::bits).max()
}

/// How well a server's name is among those of a chain: itself is best, else the wildcard with the longest end.
fn of_names(names: &[String], wanted: Option<&str>) -> Score {
    if names.is_empty() {
        return Some(0);
    }
    let wanted = wanted?;
    let score = |name: &String| match name.strip_prefix('*') {
        None => (name == wanted).then_some(u32::MAX),
        Some(end) => (wanted.len() > end.len() && wanted.ends_with(end)).then_some(1 + end.len() as u32),
    };
    names.iter().filter_map(score).max()
}

/// Returns true when the client is on the machine of the listener.
fn is_local(connection: &Connection<'_>) -> bool {
    let source = connection.source.ip().to_canonical();
    // Envoy takes these two addresses alone for the loopback.
    let is_loopback = source == Ipv4Addr::LOCALHOST || source == Ipv6Addr::LOCALHOST;
    is_loopback || source == connection.destination.ip().to_canonical()
}

#[cfg(test)]
mod tests {
    use serin_resources::connection_manager::{HttpConnectionManager, RouteSource};
    use serin_resources::listener::Filter;

    use super::*;

    fn network(text: &str) -> Network {
        let (address, bits) = text.split_once('/').unwrap();
        Network::new(address.parse().unwrap(), bits.parse().unwrap())
    }

    fn networks(text: &str) -> Vec<Network> {
        text.split_whitespace().map(network).collect()
    }

    fn chosen(matches: &[FilterChainMatch], destination: &str, source: &str) -> Option<usize> {
        let manager = HttpConnectionManager::new("a", RouteSource::Rds("r".to_owned()));
        let chain = |matches: &FilterChainMatch| FilterChain {
            matches: matches.clone(),
            ..FilterChain::new(Filter::http(manager.clone()))
        };
        let chains: Vec<FilterChain> = matches.iter().map(chain).collect();
        let source = source.parse().unwrap();
        choose(
            &chains,
            &Connection { destination: destination.parse().unwrap(), direct_source: source, source, hello: None },
        )
    }

    #[test]
    fn the_longest_range_of_the_destination_wins() {
        let to = |ranges| FilterChainMatch { destinations: networks(ranges), ..FilterChainMatch::default() };
        let chains = [to(""), to("10.0.0.0/8"), to("10.1.0.0/16 192.168.0.0/16"), to("::/0")];
        for (destination, expected) in [
            ("10.1.2.3:80", Some(2)),
            ("10.2.2.3:80", Some(1)),
            ("192.168.7.7:80", Some(2)),
            ("172.16.0.1:80", Some(0)),
        ] {
            assert_eq!(chosen(&chains, destination, "1.2.3.4:1000"), expected, "{destination}");
        }
    }

    /// A property that matched decides, though a later one does not match then.
    #[test]
    fn there_is_no_way_back() {
        let port = FilterChainMatch {
            destination_port: std::num::NonZeroU16::new(80),
            source_ports: vec![7],
            ..FilterChainMatch::default()
        };
        let chains = [FilterChainMatch::default(), port];
        assert_eq!(chosen(&chains, "10.0.0.1:80", "1.2.3.4:7"), Some(1));
        assert_eq!(chosen(&chains, "10.0.0.1:80", "1.2.3.4:8"), None);
        assert_eq!(chosen(&chains, "10.0.0.1:81", "1.2.3.4:7"), Some(0));
    }

    #[test]
    fn sources_are_local_or_external() {
        let of = |source_type| FilterChainMatch { source_type, ..FilterChainMatch::default() };
        let chains = [of(SourceType::SameIpOrLoopback), of(SourceType::External)];
        assert_eq!(chosen(&chains, "10.0.0.1:80", "127.0.0.1:7"), Some(0));
        assert_eq!(chosen(&chains, "10.0.0.1:80", "10.0.0.1:7"), Some(0));
        assert_eq!(chosen(&chains, "[::ffff:10.0.0.1]:80", "10.0.0.1:7"), Some(0));
        assert_eq!(chosen(&chains, "10.0.0.1:80", "10.0.0.2:7"), Some(1));
        assert_eq!(chosen(&chains, "127.0.0.1:80", "127.0.0.2:7"), Some(1));
        assert_eq!(chosen(&chains, "[::2]:80", "[::1]:7"), Some(0));
        assert_eq!(chosen(&chains[1..], "10.0.0.1:80", "127.0.0.1:7"), None);
        let any = [of(SourceType::Any), of(SourceType::External)];
        assert_eq!(chosen(&any, "10.0.0.1:80", "127.0.0.1:7"), Some(0));
    }

    /// The range of the source decides after its type, and its port last.
    #[test]
    fn later_properties_decide_among_those_left() {
        let from = |sources, ports: &[u16]| FilterChainMatch {
            sources: networks(sources),
            source_ports: ports.to_vec(),
            ..FilterChainMatch::default()
        };
        let chains = [from("10.0.0.0/8", &[]), from("10.0.0.0/8", &[5, 6]), from("10.9.0.0/16", &[5])];
        assert_eq!(chosen(&chains, "1.1.1.1:80", "10.1.0.1:6"), Some(1));
        assert_eq!(chosen(&chains, "1.1.1.1:80", "10.1.0.1:7"), Some(0));
        assert_eq!(chosen(&chains, "1.1.1.1:80", "10.9.0.1:5"), Some(2));
        assert_eq!(chosen(&chains, "1.1.1.1:80", "10.9.0.1:6"), None);
        assert_eq!(chosen(&chains, "1.1.1.1:80", "11.9.0.1:6"), None);
    }

    #[test]
    fn the_name_of_the_server_decides_before_its_protocols() {
        let of = |names: &[&str], protocols: &[&str]| FilterChainMatch {
            server_names: names.iter().map(ToString::to_string).collect(),
            protocols: protocols.iter().map(ToString::to_string).collect(),
            ..FilterChainMatch::default()
        };
        let manager = HttpConnectionManager::new("a", RouteSource::Rds("r".to_owned()));
        let matches = [
            of(&[], &[]),
            of(&["*.example"], &[]),
            of(&["*.a.example", "other"], &["h2"]),
            of(&["b.a.example"], &[]),
            FilterChainMatch { transport: TransportProtocol::Tls, ..FilterChainMatch::default() },
        ];
        let chain = |matches: &FilterChainMatch| FilterChain {
            matches: matches.clone(),
            ..FilterChain::new(Filter::http(manager.clone()))
        };
        let chains: Vec<FilterChain> = matches.iter().map(chain).collect();
        let address = "10.0.0.1:80".parse().unwrap();
        let h2 = [b"h2".to_vec()];
        for (server_name, protocols, expected) in [
            (Some("b.a.example"), &[][..], Some(3)),
            (Some("c.a.example"), &h2[..], Some(2)),
            (Some("c.a.example"), &[], None),
            (Some("c.d.example"), &[], Some(1)),
            (Some("example"), &[], Some(4)),
            (None, &[], Some(4)),
        ] {
            let hello = Some(Hello { server_name, protocols });
            let connection = Connection { destination: address, direct_source: address, source: address, hello };
            assert_eq!(choose(&chains, &connection), expected, "{server_name:?}");
        }
        let plain = Connection { destination: address, direct_source: address, source: address, hello: None };
        assert_eq!(choose(&chains, &plain), Some(0));
    }
}
