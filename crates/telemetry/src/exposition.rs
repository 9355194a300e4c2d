//! Counters and histograms as Envoy's `/stats` prints them: text, JSON and Prometheus.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::json;

use crate::histogram::{BOUNDS, Distribution, QUANTILES};

/// One number with its name in parts: `PREFIX.TAG.METRIC`, where the tag becomes a label for Prometheus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// `cluster`, `http`, `listener`, `server`, …
    pub prefix: &'static str,
    /// Label name and value, such as `envoy_cluster_name`.
    pub tag: Option<(&'static str, String)>,
    /// `upstream_rq_total`, …
    pub metric: String,
    /// The number.
    pub value: u64,
    /// True when it can go down.
    pub gauge: bool,
}

/// A histogram with its name in parts.
#[derive(Debug, Clone, PartialEq)]
pub struct Timing {
    /// `cluster`, `http`, …
    pub prefix: &'static str,
    /// Label name and value.
    pub tag: (&'static str, String),
    /// `upstream_rq_time`, …
    pub metric: &'static str,
    /// The values since the process began.
    pub seen: Distribution,
}

impl Timing {
    /// The dotted name.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}.{}.{}", self.prefix, self.tag.1, self.metric)
    }

    /// Each quantile with its value, in milliseconds; an interval is not kept, and is shown as Envoy shows an empty one.
    fn quantiles(&self) -> Vec<(f64, f64)> {
        QUANTILES.iter().filter_map(|percent| Some((*percent, rounded(self.seen.quantile(*percent)?)))).collect()
    }
}

/// To three significant digits or better.
fn rounded(millis: f64) -> f64 {
    let unit = if millis < 10.0 { 1000.0 } else { 10.0 };
    (millis * unit).round() / unit
}

impl Sample {
    /// The dotted name.
    #[must_use]
    pub fn name(&self) -> String {
        match &self.tag {
            // Envoy's own exceptions: the filter's prefix comes first, or is all there is.
            Some((_, tag)) if self.prefix == "network" => format!("{tag}.{}", self.metric),
            Some((_, tag)) if self.prefix == "http_local_rate_limit" => {
                format!("{tag}.{}.{}", self.prefix, self.metric)
            }
            Some((_, tag)) => format!("{}.{tag}.{}", self.prefix, self.metric),
            None => format!("{}.{}", self.prefix, self.metric),
        }
    }
}

/// Selects the samples to show.
#[derive(Debug, Default, Clone)]
pub struct Filter {
    /// The pattern that a part of the name must match.
    pub pattern: Option<regex::Regex>,
    /// Only those that were ever counted.
    pub used_only: bool,
}

impl Filter {
    fn lets_through(&self, sample: &Sample) -> bool {
        self.shows(&sample.name(), sample.value)
    }

    fn lets_by(&self, timing: &&Timing) -> bool {
        self.shows(&timing.name(), timing.seen.count())
    }

    pub(crate) fn shows(&self, name: &str, count: u64) -> bool {
        self.pattern.as_ref().is_none_or(|p| p.is_match(name)) && (!self.used_only || count != 0)
    }
}

/// `name: value` lines, sorted; histograms behind counters, as `P50(of the interval,of all time)`.
#[must_use]
pub fn text(samples: &[Sample], timings: &[Timing], filter: &Filter) -> String {
    let mut lines: Vec<String> =
        samples.iter().filter(|s| filter.lets_through(s)).map(|s| format!("{}: {}\n", s.name(), s.value)).collect();
    lines.sort();
    let mut behind: Vec<String> = timings.iter().filter(|t| filter.lets_by(t)).map(timing_line).collect();
    behind.sort();
    lines.concat() + &behind.concat()
}

fn timing_line(timing: &Timing) -> String {
    let quantiles: Vec<_> =
        timing.quantiles().iter().map(|(percent, value)| format!("P{percent}(nan,{value})")).collect();
    let quantiles = if quantiles.is_empty() { "No recorded values".to_owned() } else { quantiles.join(" ") };
    format!("{}: {quantiles}\n", timing.name())
}

/// `{"stats": [{"name": …, "value": …}]}`, with histograms as the last of the list.
#[must_use]
pub fn json(samples: &[Sample], timings: &[Timing], filter: &Filter) -> String {
    let mut list: Vec<_> = samples.iter().filter(|s| filter.lets_through(s)).map(|s| (s.name(), s.value)).collect();
    list.sort();
    let mut list: Vec<_> = list.into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
    let computed: Vec<_> = timings.iter().filter(|t| filter.lets_by(t)).map(timing_json).collect();
    if !computed.is_empty() {
        list.push(json!({"histograms": {"supported_quantiles": QUANTILES, "computed_quantiles": computed}}));
    }
    json!({ "stats": list }).to_string()
}

fn timing_json(timing: &Timing) -> serde_json::Value {
    let values: Vec<_> = QUANTILES
        .iter()
        .map(|percent| json!({"interval": null, "cumulative": timing.seen.quantile(*percent).map(rounded)}))
        .collect();
    json!({"name": timing.name(), "values": values})
}

/// Prometheus text format with Envoy's names and labels.
#[must_use]
pub fn prometheus(samples: &[Sample], timings: &[Timing], filter: &Filter) -> String {
    let mut families: BTreeMap<String, (bool, Vec<String>)> = BTreeMap::new();
    for sample in samples.iter().filter(|s| filter.lets_through(s)) {
        let (metric, class) = split_class(&sample.metric);
        let family = sanitise(&format!("envoy_{}_{metric}", sample.prefix));
        let mut labels: Vec<String> = Vec::new();
        if let Some(class) = class {
            labels.push(class);
        }
        if let Some((name, value)) = &sample.tag {
            labels.push(label(name, value));
        }
        let line = format!("{family}{{{}}} {}\n", labels.join(","), sample.value);
        families.entry(family).or_insert_with(|| (sample.gauge, Vec::new())).1.push(line);
    }
    let mut out = String::new();
    for (family, (gauge, lines)) in families {
        let _ = writeln!(out, "# TYPE {family} {}", if gauge { "gauge" } else { "counter" });
        out.push_str(&lines.concat());
    }
    let mut families: BTreeMap<String, String> = BTreeMap::new();
    for timing in timings.iter().filter(|t| filter.lets_by(t)) {
        let family = sanitise(&format!("envoy_{}_{}", timing.prefix, timing.metric));
        let label = label(timing.tag.0, &timing.tag.1);
        histogram(&family, &label, std::slice::from_ref(&timing.seen), families.entry(family.clone()).or_default());
    }
    for (family, lines) in families {
        let _ = write!(out, "# TYPE {family} histogram\n{lines}");
    }
    out
}

/// The lines of one histogram, of which there may be parts.
pub(crate) fn histogram(family: &str, labels: &str, parts: &[Distribution], out: &mut String) {
    let count: u64 = parts.iter().map(Distribution::count).sum();
    for bound in BOUNDS {
        let within: u64 = parts.iter().map(|p| p.at_most(bound)).sum();
        let _ = writeln!(out, "{family}_bucket{{{labels},le=\"{bound}\"}} {within}");
    }
    let sum: f64 = parts.iter().map(|p| p.sum).sum();
    let _ = writeln!(out, "{family}_bucket{{{labels},le=\"+Inf\"}} {count}");
    let _ = writeln!(out, "{family}_sum{{{labels}}} {sum}\n{family}_count{{{labels}}} {count}");
}

/// `name="value"`, escaped.
pub(crate) fn label(name: &str, value: &str) -> String {
    format!("{name}=\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

/// `upstream_rq_2xx` is the family `upstream_rq_xx` with class 2.
fn split_class(metric: &str) -> (String, Option<String>) {
    match metric.strip_suffix("xx").and_then(|m| m.char_indices().last().map(|(at, c)| (m.get(..at), c))) {
        Some((Some(stem), class)) if class.is_ascii_digit() => {
            (format!("{stem}xx"), Some(format!("envoy_response_code_class=\"{class}\"")))
        }
        _ => (metric.to_owned(), None),
    }
}

fn sanitise(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(metric: &str, value: u64) -> Sample {
        let tag = Some(("envoy_cluster_name", "outbound|80||a.b".to_owned()));
        Sample { prefix: "cluster", tag, metric: metric.to_owned(), value, gauge: false }
    }

    #[test]
    fn names_are_envoys() {
        let samples = [sample("upstream_rq_2xx", 3), sample("upstream_rq_total", 0)];
        let used = Filter { used_only: true, pattern: None };
        assert_eq!(text(&samples, &[], &used), "cluster.outbound|80||a.b.upstream_rq_2xx: 3\n");
        assert_eq!(
            prometheus(&samples, &[], &used),
            "# TYPE envoy_cluster_upstream_rq_xx counter\n\
             envoy_cluster_upstream_rq_xx{envoy_response_code_class=\"2\",envoy_cluster_name=\"outbound|80||a.b\"} 3\n"
        );
        assert!(json(&samples, &[], &Filter::default()).contains("\"value\":3"));
    }

    #[test]
    fn histograms_stand_behind_counters() {
        let histogram = crate::Histogram::new(1);
        histogram.record(0, std::time::Duration::from_millis(20));
        let tag = ("envoy_cluster_name", "a".to_owned());
        let mut timing = Timing { prefix: "cluster", tag, metric: "upstream_rq_time", seen: histogram.read() };
        let all = Filter::default();
        let lines = text(&[sample("upstream_rq_total", 1)], std::slice::from_ref(&timing), &all);
        assert!(lines.contains("\ncluster.a.upstream_rq_time: P0(nan,20.1) P25(nan,20.1) "), "{lines}");
        let lines = prometheus(&[], std::slice::from_ref(&timing), &all);
        for line in [
            "# TYPE envoy_cluster_upstream_rq_time histogram\n",
            "envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name=\"a\",le=\"10\"} 0\n",
            "envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name=\"a\",le=\"25\"} 1\n",
            "envoy_cluster_upstream_rq_time_count{envoy_cluster_name=\"a\"} 1\n",
        ] {
            assert!(lines.contains(line), "{line} is not in\n{lines}");
        }
        assert!(json(&[], std::slice::from_ref(&timing), &all).contains("\"cumulative\":20.1"));
        timing.seen = Distribution::default();
        assert_eq!(text(&[], &[timing], &all), "cluster.a.upstream_rq_time: No recorded values\n");
    }
}
