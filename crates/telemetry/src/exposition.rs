//! Counters as Envoy's `/stats` prints them: text, JSON and Prometheus.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::json;

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
    /// Whether it can go down.
    pub gauge: bool,
}

impl Sample {
    /// The dotted name.
    #[must_use]
    pub fn name(&self) -> String {
        match &self.tag {
            // Envoy's own exceptions: the filter's prefix comes first, or is all there is.
            Some((_, tag)) if self.prefix == "network" => format!("{tag}{}", self.metric),
            Some((_, tag)) if self.prefix == "http_local_rate_limit" => {
                format!("{tag}.{}.{}", self.prefix, self.metric)
            }
            Some((_, tag)) => format!("{}.{tag}.{}", self.prefix, self.metric),
            None => format!("{}.{}", self.prefix, self.metric),
        }
    }
}

/// Which samples to show.
#[derive(Debug, Default, Clone)]
pub struct Filter {
    /// What a part of the name must match.
    pub pattern: Option<regex::Regex>,
    /// Only those that were ever counted.
    pub used_only: bool,
}

impl Filter {
    fn lets_through(&self, sample: &Sample) -> bool {
        self.pattern.as_ref().is_none_or(|p| p.is_match(&sample.name())) && (!self.used_only || sample.value != 0)
    }
}

/// `name: value` lines, sorted.
#[must_use]
pub fn text(samples: &[Sample], filter: &Filter) -> String {
    let mut lines: Vec<String> =
        samples.iter().filter(|s| filter.lets_through(s)).map(|s| format!("{}: {}\n", s.name(), s.value)).collect();
    lines.sort();
    lines.concat()
}

/// `{"stats": [{"name": …, "value": …}]}`.
#[must_use]
pub fn json(samples: &[Sample], filter: &Filter) -> String {
    let mut list: Vec<_> = samples.iter().filter(|s| filter.lets_through(s)).map(|s| (s.name(), s.value)).collect();
    list.sort();
    let list: Vec<_> = list.into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
    json!({ "stats": list }).to_string()
}

/// Prometheus text format with Envoy's names and labels.
#[must_use]
pub fn prometheus(samples: &[Sample], filter: &Filter) -> String {
    let mut families: BTreeMap<String, (bool, Vec<String>)> = BTreeMap::new();
    for sample in samples.iter().filter(|s| filter.lets_through(s)) {
        let (metric, class) = split_class(&sample.metric);
        let family = sanitise(&format!("envoy_{}_{metric}", sample.prefix));
        let mut labels: Vec<String> = Vec::new();
        if let Some(class) = class {
            labels.push(class);
        }
        if let Some((name, value)) = &sample.tag {
            labels.push(format!("{name}=\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"")));
        }
        let line = format!("{family}{{{}}} {}\n", labels.join(","), sample.value);
        families.entry(family).or_insert_with(|| (sample.gauge, Vec::new())).1.push(line);
    }
    let mut out = String::new();
    for (family, (gauge, lines)) in families {
        let _ = writeln!(out, "# TYPE {family} {}", if gauge { "gauge" } else { "counter" });
        out.push_str(&lines.concat());
    }
    out
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
        assert_eq!(text(&samples, &used), "cluster.outbound|80||a.b.upstream_rq_2xx: 3\n");
        assert_eq!(
            prometheus(&samples, &used),
            "# TYPE envoy_cluster_upstream_rq_xx counter\n\
             envoy_cluster_upstream_rq_xx{envoy_response_code_class=\"2\",envoy_cluster_name=\"outbound|80||a.b\"} 3\n"
        );
        assert!(json(&samples, &Filter::default()).contains("\"value\":3"));
    }
}
