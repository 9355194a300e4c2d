//! Sockets in the transport crate alone: the rest of the product holds byte streams and does not know what carries them.
//!
//! Tests, the test kit and the benchmark talk to the product from outside and use sockets as they like. The rule looks at
//! names, so a type that is renamed where it is imported is found there.

use super::code;
use super::source::SourceFile;

/// Names of sockets, and of the crate that makes them.
const NAMES: [&str; 8] = [
    "TcpStream",
    "TcpListener",
    "TcpSocket",
    "UnixStream",
    "UnixListener",
    "OwnedReadHalf",
    "OwnedWriteHalf",
    "socket2",
];

/// The crates to which the rule does not apply: the one that has the sockets, and those that are no part of the product.
const EXEMPT: [&str; 3] = ["transport", "testkit", "bench"];

/// Looks at the sources of every other crate, without their tests and benchmarks.
pub(super) fn check(files: &[SourceFile]) -> Vec<String> {
    files.iter().filter(|file| is_product(file)).flat_map(check_file).collect()
}

fn is_product(file: &SourceFile) -> bool {
    let mut parts = file.path.iter().map(|part| part.to_string_lossy());
    let is_crate = parts.next().is_some_and(|part| part == "crates");
    let is_exempt = parts.next().is_none_or(|name| EXEMPT.contains(&&*name));
    is_crate && !is_exempt && parts.next().is_some_and(|part| part == "src") && !file.is_test()
}

fn check_file(file: &SourceFile) -> Vec<String> {
    let code = code::without_tests(&code::without_literals(&file.text));
    let is_part = |byte: Option<&u8>| byte.is_some_and(|byte| code::is_name(*byte));
    let mut violations = Vec::new();
    for name in NAMES {
        for (at, _) in code.match_indices(name) {
            let bytes = code.as_bytes();
            if is_part(bytes[..at].last()) || is_part(bytes.get(at + name.len())) {
                continue;
            }
            let (shown, line) = (file.path.display(), code::line(&code, at));
            violations
                .push(format!("{shown}:{line}: '{name}' belongs in crates/transport: use its ByteStream or Listener"));
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<String> {
        check(&[SourceFile { path: path.into(), text: text.to_owned() }])
    }

    #[test]
    fn a_socket_outside_of_transport_is_found() {
        assert_eq!(
            found("crates/proxy/src/tcp.rs", "//! A.\nuse tokio::net::TcpStream;\n"),
            ["crates/proxy/src/tcp.rs:2: 'TcpStream' belongs in crates/transport: use its ByteStream or Listener"]
        );
        for bad in [
            "use std::net::{SocketAddr, TcpListener as Std};",
            "fn f(stream: &UnixStream) {}",
            "let socket = socket2::Socket::new(domain, kind, None)?;",
            "struct A(tokio::net::tcp::OwnedReadHalf);",
        ] {
            assert_eq!(found("crates/demo/src/a/b.rs", bad).len(), 1, "{bad}");
        }
    }

    #[test]
    fn transport_tests_and_other_names_are_in_order() {
        let socket = "use tokio::net::TcpStream;";
        for path in [
            "crates/transport/src/stream.rs",
            "crates/testkit/src/lib.rs",
            "crates/bench/src/floor.rs",
            "crates/proxy/tests/roundtrip.rs",
            "crates/proxy/src/a/tests.rs",
            "crates/http1/fuzz/targets/body.rs",
            "xtask/src/main.rs",
        ] {
            assert!(found(path, socket).is_empty(), "{path}");
        }
        let good = "use tokio_stream::wrappers::TcpListenerStream; // TcpListener\n\
            #[cfg(test)]\nmod tests { use std::net::TcpStream; }\nfn f() { g(\"TcpStream\"); }";
        assert!(found("crates/pilot/src/a.rs", good).is_empty());
    }
}
