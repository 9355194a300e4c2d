//! The stories of releases: what the new version does wrong, and how its release should end.

use clap::ValueEnum;

/// The behaviour of the new version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// The new version is as good as the old one and gets all traffic.
    Good,
    /// The new version fails requests and is rolled back.
    Bad,
    /// The new version is slow and is rolled back.
    Slow,
    /// One of the ten instances of the new version fails, and the version is rolled back.
    Flaky,
    /// There are too few requests for a verdict, and a person must decide.
    LowTraffic,
}

impl Scenario {
    /// The outcome that is expected.
    pub(super) fn outcome(self) -> &'static str {
        match self {
            Self::Good => "promoted",
            Self::Bad | Self::Slow | Self::Flaky => "rolledBack",
            Self::LowTraffic => "held",
        }
    }

    /// Requests a second.
    pub(super) fn rate(self) -> u32 {
        if self == Self::LowTraffic { 2 } else { 120 }
    }

    /// Instances of a version.
    pub(super) fn copies(scenario: Option<Self>, service: &str, version: &str) -> usize {
        if scenario == Some(Self::Flaky) && (service, version) == ("reviews", "v3") { 10 } else { 2 }
    }

    /// The options for the faults of an instance.
    pub(super) fn faults(self, instance: &str, service: &str, version: &str) -> Vec<String> {
        if (service, version) != ("reviews", "v3") {
            return Vec::new();
        }
        let words: &[&str] = match self {
            Self::Good | Self::LowTraffic => &[],
            Self::Bad => &["--fail", "0.3"],
            Self::Slow => &["--delay", "1500ms"],
            Self::Flaky if instance.ends_with("-0") => &["--fail", "1"],
            Self::Flaky => &[],
        };
        words.iter().map(|w| (*w).to_owned()).collect()
    }
}

/// The rules of a story: everybody is with v2 before it begins.
pub(super) fn rules(text: &str) -> String {
    text.replace("subset: v1\n      weight: 100", "subset: v2\n      weight: 100")
}
