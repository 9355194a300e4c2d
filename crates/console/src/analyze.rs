//! `serin analyze`: checks documents in the same way as the pilot, without a pilot.
//!
//! Documents are checked against all given paths and against their own folder. A finding gets the lower severity of the two,
//! so that there are no false errors for a folder of independent examples, or for a mesh that is spread over several folders.

use std::collections::{BTreeMap, HashMap};
use std::io::{IsTerminal as _, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use serin_ingest::{Code, Diagnostic, Document, MAX_FILE_BYTES, Severity, check, parse, render_text, summary};
use serin_model::Object;

use crate::pilot::Pilot;
use crate::release::plan::blind_spots;

/// Output format of findings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Text with the source line and a caret.
    Text,
    /// A JSON list of objects.
    Json,
}

/// Options of `serin analyze`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Exit code: 0 no findings or only warnings, 1 errors, 2 something cannot be read or written (the rest is checked).\n\nExamples:\n  serin analyze ./mesh\n  serin analyze rules.yaml services.yaml -o json\n  serin analyze ./mesh --rps 3\n  serin analyze --pilot 127.0.0.1:15014"
)]
pub struct AnalyzeOptions {
    /// Files and folders to check together; - reads standard input
    #[arg(value_name = "PATH", required_unless_present = "pilot")]
    pub paths: Vec<PathBuf>,
    /// Show the findings of a running pilot instead, and the objects of which an older version is active
    #[arg(long, value_name = "HOST:PORT", conflicts_with_all = ["paths", "rps"])]
    pub pilot: Option<String>,
    /// Output format
    #[arg(short, long, value_enum, default_value = "text")]
    pub output: Output,
    /// Requests per second: warn about releases that cannot detect a doubling of failures at this rate
    #[arg(long, value_name = "NUMBER")]
    pub rps: Option<f64>,
    /// Percentage of requests that fail at present
    #[arg(long, value_name = "PERCENT", default_value_t = 0.1, requires = "rps")]
    pub error_rate: f64,
}

/// Runs the command.
///
/// # Errors
/// When the pilot that is asked does not answer. What cannot be read or written is said and ends with exit code 2.
pub fn analyze(options: &AnalyzeOptions) -> anyhow::Result<ExitCode> {
    if let Some(pilot) = &options.pilot {
        return live(pilot, options.output);
    }
    let mut files = BTreeMap::new();
    // What cannot be read is said, and the rest is checked all the same.
    let mut unread = false;
    for path in &options.paths {
        for error in collect(path, &mut files) {
            eprintln!("error: {error}");
            unread = true;
        }
    }
    let examined = examine(&files, options.rps.map(|rps| (rps, options.error_rate)));
    match show(options.output, &files, &examined) {
        // Whoever reads has seen enough.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            eprintln!("error: cannot write: {error}");
            return Ok(ExitCode::from(2));
        }
        _ => {}
    }
    let failed = examined.findings.iter().any(|f| f.severity == Severity::Error);
    Ok(if unread { ExitCode::from(2) } else { ExitCode::from(u8::from(failed)) })
}

/// Prints the findings of a running pilot.
fn live(pilot: &str, output: Output) -> anyhow::Result<ExitCode> {
    let pilot = Pilot::new(pilot, None)?;
    let (findings, objects) = (pilot.get("/debug/diagnosticz")?, pilot.get("/debug/configz")?);
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let (findings, objects) = (list(&findings), list(&objects));
    let outdated: Vec<&Value> = objects.iter().filter(|o| o["outdatedSeconds"].is_u64()).collect();
    let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let mut out = std::io::stdout().lock();
    match output {
        Output::Json => {
            let all = json!({"findings": findings, "outdated": outdated});
            writeln!(out, "{}", serde_json::to_string_pretty(&all)?)?;
        }
        Output::Text => {
            for finding in &findings {
                let (severity, code, file) = (text(finding, "severity"), text(finding, "code"), text(finding, "file"));
                let path = text(finding, "path");
                let path = if path.is_empty() { path } else { format!("{path}: ") };
                writeln!(out, "{severity}[{code}] {file}:{}: {path}{}", finding["line"], text(finding, "message"))?;
            }
            for object in &outdated {
                let (kind, namespace, name) = (text(object, "kind"), text(object, "namespace"), text(object, "name"));
                let age = object["outdatedSeconds"].as_u64().unwrap_or_default();
                writeln!(out, "{kind} {namespace}/{name}: an older version is in force, for {age} s now")?;
            }
            let problems =
                if findings.is_empty() { "no problems".to_owned() } else { format!("{} findings", findings.len()) };
            writeln!(out, "{} objects in force, {problems}", objects.len())?;
        }
    }
    let failed = findings.iter().any(|f| text(f, "severity") == "error");
    Ok(ExitCode::from(u8::from(failed)))
}

fn show(
    output: Output,
    files: &BTreeMap<String, String>,
    Examined { findings, objects }: &Examined,
) -> std::io::Result<()> {
    let objects = if *objects == 1 { "1 object".to_owned() } else { format!("{objects} objects") };
    let mut out = std::io::stdout().lock();
    match output {
        Output::Json => {
            let list: Vec<Value> = findings.iter().map(to_json).collect();
            writeln!(out, "{}", serde_json::to_string_pretty(&list)?)
        }
        Output::Text => {
            let color = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            for finding in findings {
                writeln!(out, "{}", render_text(finding, files.get(&*finding.file).map(String::as_str), color))?;
            }
            writeln!(out, "{objects} loaded, {}", summary(findings))
        }
    }
}

/// Adds the files of a path; yields what cannot be read.
fn collect(path: &Path, files: &mut BTreeMap<String, String>) -> Vec<String> {
    let shown = path.display().to_string();
    if path == Path::new("-") {
        let mut text = String::new();
        return match std::io::stdin().take(MAX_FILE_BYTES as u64 + 1).read_to_string(&mut text) {
            Ok(_) => {
                files.insert("<stdin>".to_owned(), text);
                Vec::new()
            }
            Err(error) => vec![format!("cannot read standard input: {error}")],
        };
    }
    let found: Vec<(String, Result<String, serin_folders::Unread>)> = if path.is_dir() {
        let contents = serin_folders::read(&[path.to_path_buf()]);
        let unreadable = contents.unreadable.into_iter().map(|(folder, reason)| (folder, Err(reason.into())));
        contents.files.into_iter().map(|(name, found)| (name, found.text)).chain(unreadable).collect()
    } else {
        vec![(shown, serin_folders::read_file(path).text)]
    };
    let mut unread = Vec::new();
    for (name, text) in found {
        match text {
            Ok(text) => {
                files.insert(name, text);
            }
            Err(reason) => unread.push(format!("cannot read {name}: {reason}")),
        }
    }
    unread
}

/// The outcome of checking the documents.
struct Examined {
    findings: Vec<Diagnostic>,
    /// Objects that could be used.
    objects: usize,
}

/// All findings, by place.
fn examine(files: &BTreeMap<String, String>, traffic: Option<(f64, f64)>) -> Examined {
    let mut findings = Vec::new();
    let mut documents: Vec<Document> = Vec::new();
    for (file, text) in files {
        let parsed = parse(file, text);
        findings.extend(parsed.diagnostics);
        documents.extend(parsed.documents);
    }
    findings.extend(duplicates(&documents));
    let narrow = by_folder(&documents);
    for finding in check(documents.iter()).diagnostics {
        let key = (finding.file.clone(), finding.at, finding.code);
        if let Some(severity) = narrow.get(&key) {
            findings.push(Diagnostic { severity: finding.severity.min(*severity), ..finding });
        }
    }
    if documents.is_empty() && findings.is_empty() {
        findings.push(nothing());
    }
    if let Some((rps, error_rate)) = traffic {
        findings.extend(documents.iter().flat_map(|d| blind(d, rps, error_rate)));
    }
    findings.sort_by(|a, b| (&a.file, a.at, a.code).cmp(&(&b.file, b.at, b.code)));
    Examined { findings, objects: documents.len() }
}

/// The finding where there is no document.
fn nothing() -> Diagnostic {
    Diagnostic {
        code: Code::NoObjects,
        severity: Severity::Warning,
        file: Arc::from("analyze"),
        at: serin_ingest::Position::default(),
        path: String::new(),
        message: "there is no document in what was named".to_owned(),
        help: "documents are in files that end in .yaml, .yml or .json".to_owned(),
    }
}

/// The findings about a release's blind spots at so many requests a second, of which so many per cent fail.
fn blind(document: &Document, rps: f64, error_rate: f64) -> Vec<Diagnostic> {
    let Object::Release(release) = document.object.as_ref() else { return Vec::new() };
    let finding = |message| Diagnostic {
        code: Code::BlindRelease,
        severity: Severity::Warning,
        file: document.file.clone(),
        at: document.at,
        path: "spec.steps".to_owned(),
        message,
        help: "give it more time, more weight, or a limit".to_owned(),
    };
    blind_spots(release, rps, error_rate).into_iter().map(finding).collect()
}

type Place = (Arc<str>, serin_ingest::Position, Code);

/// The findings of each folder's documents among themselves.
fn by_folder(documents: &[Document]) -> BTreeMap<Place, Severity> {
    let mut folders: BTreeMap<PathBuf, Vec<&Document>> = BTreeMap::new();
    for document in documents {
        folders.entry(folder(document)).or_default().push(document);
    }
    let findings = folders.values().flat_map(|list| check(list.iter().copied()).diagnostics);
    findings.map(|f| ((f.file.clone(), f.at, f.code), f.severity)).collect()
}

fn folder(document: &Document) -> PathBuf {
    Path::new(&*document.file).parent().map(Path::to_path_buf).unwrap_or_default()
}

/// Objects that a folder defines twice.
fn duplicates(documents: &[Document]) -> Vec<Diagnostic> {
    let mut seen: HashMap<_, &Document> = HashMap::new();
    let mut findings = Vec::new();
    for document in documents {
        match seen.get(&(folder(document), &document.key)) {
            None => {
                seen.insert((folder(document), &document.key), document);
            }
            Some(first) => findings.push(Diagnostic {
                code: Code::Duplicate,
                severity: Severity::Error,
                file: document.file.clone(),
                at: document.at,
                path: String::new(),
                message: format!("{} is defined twice", document.key),
                help: format!("the first one stands in {}:{}", first.file, first.at.line),
            }),
        }
    }
    findings
}

fn to_json(finding: &Diagnostic) -> Value {
    json!({
        "code": finding.code.as_str(),
        "severity": finding.severity.as_str(),
        "file": &*finding.file,
        "line": finding.at.line,
        "column": finding.at.column,
        "path": finding.path,
        "message": finding.message,
        "help": finding.help,
    })
}
