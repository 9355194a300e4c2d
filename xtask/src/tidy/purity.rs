//! No clock, no randomness and no environment in the crates that decide: time and random numbers are their arguments.

use super::code;
use super::layers::PURE;
use super::source::SourceFile;

/// Names that read a clock, a generator of the thread or the environment, with what is said about them.
const SOURCES: [(&str, &str); 8] = [
    ("::now", "reads a clock"),
    (".elapsed()", "reads a clock"),
    ("std::env", "reads the environment"),
    ("thread_rng", "draws random numbers"),
    ("rand::random", "draws random numbers"),
    ("rand::rng", "draws random numbers"),
    ("fastrand::", "draws random numbers"),
    ("RandomState::new", "draws random numbers"),
];

/// A generator with a seed is a value like any other.
const SEEDED: &str = "fastrand::Rng";

/// Looks at the sources of every pure crate, without their tests and benchmarks.
pub(super) fn check(files: &[SourceFile]) -> Vec<String> {
    let is_pure = |file: &&SourceFile| {
        PURE.iter().any(|name| file.path.starts_with(format!("crates/{name}/src"))) && !file.is_test()
    };
    files.iter().filter(is_pure).flat_map(check_file).collect()
}

fn check_file(file: &SourceFile) -> Vec<String> {
    let code = code::without_tests(&code::without_literals(&file.text));
    let mut violations = Vec::new();
    for (text, what) in SOURCES {
        let is_whole = |at: usize| {
            let after = code.as_bytes().get(at + text.len());
            text.ends_with([':', ')']) || !after.is_some_and(|b| code::is_name(*b))
        };
        let is_seeded = |at: usize| code[at..].starts_with(SEEDED) && !code[at..].starts_with("fastrand::Rng::new");
        for (at, _) in code.match_indices(text).filter(|(at, _)| is_whole(*at) && !is_seeded(*at)) {
            let line = code::line(&code, at);
            violations.push(format!("{}:{line}: '{text}' {what}, which a pure crate may not", file.path.display()));
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
    fn a_clock_in_delivery_is_found() {
        assert_eq!(
            found("crates/delivery/src/machine.rs", "//! A.\nfn f() -> Instant {\n    Instant::now()\n}\n"),
            ["crates/delivery/src/machine.rs:3: '::now' reads a clock, which a pure crate may not"]
        );
        let path = "crates/traffic/src/a.rs";
        for bad in [
            "let t = SystemTime::now();",
            "a.map_or_else(Instant::now, f);",
            "let t = began.elapsed();",
            "std::env::var(NAME)",
            "fastrand::u64(..)",
            "let mut rng = fastrand::Rng::new();",
            "let x = rand::random();",
        ] {
            assert_eq!(found(path, bad).len(), 1, "{bad}");
        }
    }

    #[test]
    fn arguments_tests_and_other_crates_are_in_order() {
        let good = "fn f(now: Instant, rng: &mut fastrand::Rng) { g(now, rng.u64(..), env!(\"A\")) } // Instant::now()\n\
            #[cfg(test)]\nmod tests { fn f() { Instant::now(); } }";
        assert!(found("crates/delivery/src/a.rs", good).is_empty());
        assert!(found("crates/delivery/src/machine/tests.rs", "Instant::now()").is_empty());
        assert!(found("crates/traffic/benches/a.rs", "Instant::now()").is_empty());
        assert!(found("crates/proxy/src/a.rs", "Instant::now()").is_empty());
    }
}
