//! A release: a new version of a service that gets traffic step by step, and what it is judged by.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::name::{Hostname, Labels, ObjectName, selects};
use crate::policy::HashKey;
use crate::route::HttpMatch;
use crate::share::Share;

/// What people want of a release.
#[derive(Debug, Clone, PartialEq)]
pub struct Release {
    /// Its name.
    pub name: ObjectName,
    /// The service.
    pub host: Hostname,
    /// Instances that have the traffic now.
    pub stable: Labels,
    /// Instances that are to have it.
    pub candidate: Labels,
    /// Instances of the old version that get the candidate's share, to be compared with; none compares with all of it.
    pub baseline: Option<Labels>,
    /// What keeps a user with one version while weights rise.
    pub stickiness: Option<HashKey>,
    /// Its steps, in order; the last one gives everything to the candidate.
    pub steps: Vec<Step>,
    /// What it is judged by.
    pub analysis: Analysis,
    /// How long the old version stays ready after promotion, and a regression still rolls back.
    pub guard: Duration,
    /// Times at which it does not advance, in minutes of the week in UTC, from Monday 00:00.
    pub freezes: Vec<(u32, u32)>,
    /// Whether it waits for somebody to start it.
    pub waits_for_start: bool,
    /// What becomes of it while another of the same host runs.
    pub supersede: Supersede,
    /// The train that it is part of, and its place in it: it begins when those before it have all the traffic, and when one goes
    /// back, all do.
    pub train: Option<(String, u32)>,
    /// Whom to tell.
    pub alerts: Vec<Alert>,
    /// What was written, as JSON: the document's `spec`.
    pub document: String,
}

/// What becomes of a release while an earlier one of the same host runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Supersede {
    /// It waits until the other has ended.
    #[default]
    Queue,
    /// It takes the other's place, which is aborted.
    Replace,
    /// It is refused.
    Refuse,
}

/// Somebody to tell of events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    /// Where to POST.
    pub url: String,
    /// In which form.
    pub form: AlertForm,
}

/// What is posted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AlertForm {
    /// `{"text": …}`, which Slack and its kin take, made from this template.
    Slack(String),
    /// A CloudEvent in structured mode.
    CloudEvent,
}

/// One step.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Step {
    /// The candidate's share from here on; `None` leaves it.
    pub weight: Option<Share>,
    /// Requests that go to the candidate whatever its share, from here on; `None` leaves them.
    pub cohorts: Option<Vec<HttpMatch>>,
    /// Share of requests that are copied to the candidate, during this step.
    pub mirror: Option<Share>,
    /// How long it lasts.
    pub bake: Bake,
    /// Somebody must say go before the next one.
    pub approval: Option<Approval>,
    /// What is done before and after it.
    pub before: Vec<Hook>,
    /// See above.
    pub after: Vec<Hook>,
}

/// How long a step lasts: as long as it must, and until there is enough evidence, at most.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bake {
    /// At least.
    pub min: Duration,
    /// At most.
    pub max: Duration,
}

/// Somebody's consent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Approval {
    /// The role that it takes; empty is any that may release.
    pub role: String,
    /// How long is waited for it; then the release is rolled back.
    pub expires: Option<Duration>,
}

/// Something that is done around a step; the release is rolled back when it fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// What.
    pub call: HookCall,
    /// What is sent with it: `metadata` of the request's body, or variables `SERIN_METADATA_NAME` of a program.
    pub metadata: BTreeMap<String, String>,
    /// How long it may take.
    pub timeout: Duration,
}

/// What a hook does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HookCall {
    /// POSTs the release and its step as JSON; 2xx is success.
    Http(String),
    /// Runs a program; 0 is success.
    Command(Vec<String>),
}

/// A value from outside that is kept within limits while the candidate has traffic.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    /// Its name, for people.
    pub name: String,
    /// Where a Prometheus answers, such as `http://127.0.0.1:9090`.
    pub server: String,
    /// What it is asked, in its language; the answer must be one number.
    pub expression: String,
    /// What the value must be at least.
    pub min: Option<f64>,
    /// What it may be at most.
    pub max: Option<f64>,
    /// How often it is asked.
    pub interval: Duration,
    /// How often in a row it may be outside before the release is rolled back.
    pub failures: u32,
}

/// Judge by Kayenta's score instead.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Kayenta {
    /// Time of one point.
    pub interval: Duration,
    /// Points of each version that it takes.
    pub points: u32,
    /// The least score that is good enough, of 100.
    pub pass: f64,
    /// The least that is not a regression.
    pub marginal: f64,
}

/// Responses that count as failures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failing {
    /// All of a class, by its first digit, but for these.
    Class(u16, Vec<u16>),
    /// One status.
    Status(u16),
    /// A gRPC status.
    Grpc(u32),
    /// No response: nobody could be reached, the connection broke, or it took too long.
    NoResponse,
}

impl Failing {
    /// Whether it means a response, by [`Failing::key`].
    #[must_use]
    pub fn means(&self, key: u32) -> bool {
        match self {
            Self::Class(class, except) => {
                key < 1000 && key / 100 == u32::from(*class) && !except.iter().any(|e| u32::from(*e) == key)
            }
            Self::Status(status) => key == u32::from(*status),
            Self::Grpc(code) => key == Self::GRPC + code,
            Self::NoResponse => key == Self::NONE,
        }
    }

    /// The key of no response.
    pub const NONE: u32 = 0;
    /// What is added to a gRPC status to make its key; other keys are HTTP statuses.
    pub const GRPC: u32 = 1000;
}

/// What becomes of a release whose candidate answers with other classes of statuses than the stable version.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnMix {
    /// It is said.
    #[default]
    Warn,
    /// It is rolled back.
    Rollback,
    /// Nothing.
    Ignore,
}

/// What a release is judged by.
#[derive(Debug, Clone, PartialEq)]
pub struct Analysis {
    /// Chance of a rollback though the candidate is no worse, over the whole release.
    pub rollback_alpha: f64,
    /// Chance of advancing though it is worse by the margin, at each step.
    pub promote_alpha: f64,
    /// How much worse it may be: 1.5 is half as many failures again. `None` is by the share: 2 up to 5 %, 1.5 up to 25 %, then 1.25.
    pub margin: Option<f64>,
    /// Failures that it may have, whatever the stable version has.
    pub error_rate: Option<f64>,
    /// A quantile of its times and what it may be at most.
    pub latency: Option<(f64, Duration)>,
    /// Whether its times are compared with the stable version's.
    pub compare_latency: bool,
    /// What becomes of a step whose time is up without enough evidence.
    pub on_deadline: OnDeadline,
    /// Time after a change of traffic that is not judged.
    pub warmup: Duration,
    /// Values from outside that count too.
    pub queries: Vec<Query>,
    /// Whether Kayenta's score judges instead of the evidence.
    pub kayenta: Option<Kayenta>,
    /// Which responses are failures; `None` is 5xx, no response, and the gRPC statuses that stand for 5xx.
    pub failures: Option<Vec<Failing>>,
    /// What becomes of it when classes of statuses differ.
    pub on_mix: OnMix,
}

impl Default for Analysis {
    fn default() -> Self {
        Self {
            rollback_alpha: 0.01,
            promote_alpha: 0.05,
            margin: None,
            error_rate: None,
            latency: None,
            compare_latency: true,
            on_deadline: OnDeadline::Hold,
            warmup: Duration::from_secs(20),
            queries: Vec::new(),
            kayenta: None,
            failures: None,
            on_mix: OnMix::default(),
        }
    }
}

/// What becomes of a step whose time is up without enough evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDeadline {
    /// It waits for a person.
    Hold,
    /// It goes on.
    Promote,
    /// It is rolled back.
    Abort,
}

/// What a release makes of the routes to its host, for now.
#[derive(Debug, Clone, PartialEq)]
pub struct Overlay {
    /// Whose it is.
    pub release: ObjectName,
    /// The versions.
    pub stable: Labels,
    /// Versions that were stable before it: destinations that name one of them mean the stable version.
    pub former: Vec<Labels>,
    /// See above.
    pub candidate: Labels,
    /// Instances that get the candidate's share beside it, to be compared with.
    pub baseline: Option<Labels>,
    /// The candidate's share.
    pub weight: Share,
    /// Requests that go to it all the same.
    pub cohorts: Vec<HttpMatch>,
    /// Share of requests that are copied to it.
    pub mirror: Share,
    /// What keeps a user with one version.
    pub stickiness: Option<HashKey>,
    /// Mixed into the hash of what keeps a user with one version, so that two releases do not choose the same users; empty mixes in
    /// nothing.
    pub salt: String,
}

impl Overlay {
    /// The labels by which a destination's instances of another version are found: those of its subset, with the labels of the stable
    /// version, or one that was stable before, replaced. `None` when the subset is not the stable version's.
    #[must_use]
    pub fn in_version(&self, subset: &Labels, version: &Labels) -> Option<Labels> {
        let mut known = std::iter::once(&self.stable).chain(&self.former);
        let own = known.find(|labels| selects(labels, subset))?;
        let mut labels: Labels =
            subset.iter().filter(|(key, _)| !own.contains_key(*key)).map(|(k, v)| (k.clone(), v.clone())).collect();
        labels.extend(version.iter().map(|(k, v)| (k.clone(), v.clone())));
        Some(labels)
    }
}
