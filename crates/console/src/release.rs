//! `serin release`: shows and controls releases.

mod import;
pub(crate) mod plan;
mod show;
mod simulate;

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use crate::pilot::{NotFound, Pilot, Unreachable};

/// Options of `serin release`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Examples:\n  serin release list\n  serin release watch reviews-v3\n  serin release approve reviews-v3 -m 'looks good'\n  \
    serin release status reviews-v3 --wait --timeout 30m\n  serin release retry reviews-v3 -m 'fixed in 3.0.1'\n  serin release lint release.yaml --rps 50"
)]
pub struct ReleaseOptions {
    #[command(subcommand)]
    command: Command,
    /// Admin address of the pilot
    #[arg(long, global = true, env = "SERIN_PILOT", value_name = "HOST:PORT", default_value = "127.0.0.1:15014")]
    pilot: String,
    /// Token for the API, if the pilot requires one (--tokens)
    #[arg(long, global = true, env = "SERIN_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Namespace of the release
    #[arg(short, long, global = true, default_value = "default")]
    namespace: String,
}

#[derive(Debug, Clone, Subcommand)]
enum Command {
    /// List all releases
    List(OutputOptions),
    /// Show one release with its status
    Get(NamedOutput),
    /// Show one release and update the output while it changes
    Watch(Named),
    /// Exit with the outcome of a release: 0 promoted, 1 rolled back or aborted, 2 undecided, 3 still in progress
    Status(StatusOptions),
    /// Start a release that has start: manual
    Start(Said),
    /// Pause a release: do not go to the next step
    Pause(Said),
    /// Resume a paused release
    Resume(Said),
    /// Approve the current step
    Approve(Said),
    /// Go to the next step, regardless of the evidence
    Promote(PromoteOptions),
    /// Send all traffic back to the stable version, immediately
    Abort(ForcedOptions),
    /// Send all traffic back to the stable version, also after a promotion
    Undo(ForcedOptions),
    /// Restart a release that was aborted or rolled back
    Retry(Said),
    /// Check releases in files: what regressions they can detect, and how long they take
    Lint(plan::LintOptions),
    /// Simulate a release with generated or recorded traffic
    Simulate(simulate::SimulateOptions),
    /// Show the audit log (who did what) and verify that it is complete
    Audit(AuditOptions),
    /// Convert a Flagger Canary or an Argo Rollout to a Release
    Import(ImportOptions),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// Text for people.
    Table,
    /// JSON for programs.
    Json,
    /// The same data as YAML.
    Yaml,
}

#[derive(Debug, Clone, Args)]
struct OutputOptions {
    /// Output format
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

#[derive(Debug, Clone, Args)]
struct NamedOutput {
    /// Name of the release
    name: String,
    /// Output format
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

#[derive(Debug, Clone, Args)]
struct Named {
    /// Name of the release
    name: String,
}

#[derive(Debug, Clone, Args)]
struct Said {
    /// Name of the release
    name: String,
    /// Reason, written to the audit log
    #[arg(short = 'm', long, default_value = "")]
    comment: String,
}

#[derive(Debug, Clone, Args)]
struct ForcedOptions {
    #[command(flatten)]
    said: Said,
    /// Do it even if this sends traffic to a version without ready instances
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Clone, Args)]
struct PromoteOptions {
    #[command(flatten)]
    said: Said,
    /// Go to the end, not only to the next step
    #[arg(long)]
    full: bool,
    /// Do it even if no instance of the candidate is ready, or during a freeze
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Clone, Args)]
struct StatusOptions {
    /// Name of the release
    name: String,
    /// Wait until the release has ended; also wait for a release that does not exist yet
    #[arg(long)]
    wait: bool,
    /// Maximum time to wait
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = serin_ingest::duration)]
    timeout: Duration,
}

#[derive(Debug, Clone, Args)]
struct AuditOptions {
    /// Only verify the chain of hashes from its beginning, and print no entries
    #[arg(long)]
    verify: bool,
    /// Number of entries to print, counted from the end
    #[arg(long, value_name = "NUMBER", default_value_t = 50)]
    last: usize,
}

#[derive(Debug, Clone, Args)]
struct ImportOptions {
    /// Files with Canary, Rollout and AnalysisTemplate documents
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// When the pilot cannot be reached, does not know the release, or refuses; when a file cannot be read.
pub fn release(options: &ReleaseOptions) -> anyhow::Result<ExitCode> {
    let asker = Asker { options, pilot: Pilot::new(&options.pilot, options.token.clone())? };
    match &options.command {
        Command::List(o) => asker.list(o.output),
        Command::Get(o) => asker.get(&o.name, o.output),
        Command::Watch(o) => asker.watch(&o.name),
        Command::Status(o) => asker.status(o),
        Command::Start(o) => asker.act("start", o),
        Command::Pause(o) => asker.act("pause", o),
        Command::Resume(o) => asker.act("resume", o),
        Command::Approve(o) => asker.act("approve", o),
        Command::Abort(o) => asker.forced("abort", o),
        Command::Undo(o) => asker.forced("undo", o),
        Command::Retry(o) => asker.act("retry", o),
        Command::Promote(o) => {
            let body = json!({"full": o.full, "comment": o.said.comment, "force": o.force});
            asker.says(&o.said.name, "promote", &body)
        }
        Command::Lint(o) => plan::lint(o),
        Command::Simulate(o) => simulate::simulate(o),
        Command::Audit(o) => asker.audit(o),
        Command::Import(o) => import::run(&o.files),
    }
}

struct Asker<'a> {
    options: &'a ReleaseOptions,
    pilot: Pilot,
}

impl Asker<'_> {
    fn path(&self, name: &str) -> String {
        format!("/api/v1/releases/{}/{name}", self.options.namespace)
    }

    fn list(&self, output: Output) -> anyhow::Result<ExitCode> {
        let all = self.pilot.get("/api/v1/releases")?;
        match output {
            Output::Table => print(&show::table(&all))?,
            _ => print(&formatted(&all, output)?)?,
        }
        Ok(ExitCode::SUCCESS)
    }

    fn get(&self, name: &str, output: Output) -> anyhow::Result<ExitCode> {
        let one = self.pilot.get(&self.path(name))?;
        match output {
            Output::Table => {
                let proxies = self.pilot.get("/debug/syncz").unwrap_or_default();
                print(&show::tree(&one, &proxies, show::Look::of_stdout()))?;
            }
            _ => print(&formatted(&one, output)?)?,
        }
        Ok(ExitCode::SUCCESS)
    }

    fn watch(&self, name: &str) -> anyhow::Result<ExitCode> {
        let drawn = std::io::stdout().is_terminal();
        let mut before = String::new();
        let mut seen = false;
        loop {
            let one = match self.pilot.get(&self.path(name)) {
                Ok(one) => one,
                // A pilot that begins anew is away for a moment.
                Err(error) if seen && (error.is::<Unreachable>() || error.is::<NotFound>()) => {
                    let text = format!("waiting: {error:#}\n");
                    if !before.starts_with(&text) {
                        print(&text)?;
                        before = text;
                    }
                    std::thread::sleep(Duration::from_millis(500));
                    continue;
                }
                Err(error) => return Err(error),
            };
            seen = true;
            let proxies = self.pilot.get("/debug/syncz").unwrap_or_default();
            let text = show::tree(&one, &proxies, show::Look::of_stdout());
            if text != before {
                // On a terminal the picture is drawn in place.
                print(&format!("{}{text}", if drawn { "\u{1b}[H\u{1b}[J" } else { "" }))?;
                before = text;
            }
            if let Some(code) = ending(&one["status"]) {
                return Ok(code);
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    fn status(&self, options: &StatusOptions) -> anyhow::Result<ExitCode> {
        let started = Instant::now();
        loop {
            let late = !options.wait || started.elapsed() >= options.timeout;
            match self.pilot.get(&self.path(&options.name)) {
                Ok(one) => {
                    let status = &one["status"];
                    let over = ending(status);
                    if over.is_some() || late {
                        let reason = status["reason"].as_str().unwrap_or_default();
                        print(&format!("{}: {reason}\n", show::phase(status)))?;
                        return Ok(over.unwrap_or(ExitCode::from(3)));
                    }
                }
                // A pilot that begins anew is away for a moment, and a release may not have been saved yet; what nobody ever
                // answers cannot be said.
                Err(error) if late || !(error.is::<Unreachable>() || error.is::<NotFound>()) => {
                    eprintln!("error: {error:#}");
                    return Ok(ExitCode::from(2));
                }
                Err(_) => {}
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    fn act(&self, action: &str, said: &Said) -> anyhow::Result<ExitCode> {
        self.says(&said.name, action, &json!({"comment": said.comment}))
    }

    fn forced(&self, action: &str, ForcedOptions { said, force }: &ForcedOptions) -> anyhow::Result<ExitCode> {
        self.says(&said.name, action, &json!({"comment": said.comment, "force": force}))
    }

    fn says(&self, name: &str, action: &str, body: &Value) -> anyhow::Result<ExitCode> {
        let answer = self.pilot.post(&format!("{}/{action}", self.path(name)), body)?;
        let status = &answer["status"];
        print(&format!("{name}: {}\n", show::phase(status)))?;
        Ok(ExitCode::SUCCESS)
    }

    fn audit(&self, options: &AuditOptions) -> anyhow::Result<ExitCode> {
        let last = if options.verify { 0 } else { options.last };
        let answer = self.pilot.get(&format!("/api/v1/audit?last={last}"))?;
        if answer["whole"] != json!(true) {
            eprintln!("error: the audit log is not whole: {}", answer["reason"].as_str().unwrap_or_default());
            return Ok(ExitCode::FAILURE);
        }
        print(&show::log(answer["last"].as_array().map(Vec::as_slice).unwrap_or_default()))?;
        let hash = answer["hash"].as_str().unwrap_or_default();
        print(&format!("{} entries, whole, last {hash}\n", answer["entries"]))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// The exit code for a release that ended; `None` while it has not. One that waits for a person cannot say.
fn ending(status: &Value) -> Option<ExitCode> {
    match status["phase"].as_str() {
        Some("promoted") => Some(ExitCode::SUCCESS),
        Some("rolledBack") => Some(ExitCode::from(1)),
        _ if status["held"] == json!(true) => Some(ExitCode::from(2)),
        _ => None,
    }
}

fn formatted(value: &Value, output: Output) -> anyhow::Result<String> {
    Ok(match output {
        Output::Yaml => serde_saphyr::to_string(value)?,
        _ => serde_json::to_string_pretty(value)? + "\n",
    })
}

/// Writes to standard output; whoever has seen enough may go.
fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()).and_then(|()| std::io::stdout().flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
