//! Diagnostics as a person reads them: the source line with a caret under the place.

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

use crate::diagnostic::{Diagnostic, Severity};

/// A diagnostic with its source line; `source` is the file's text, when it is at hand.
#[must_use]
pub fn render_text(diagnostic: &Diagnostic, source: Option<&str>, color: bool) -> String {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
        Severity::Info => Level::INFO,
    };
    let title = if diagnostic.path.is_empty() {
        diagnostic.message.clone()
    } else {
        format!("{}: {}", diagnostic.path, diagnostic.message)
    };
    let span = source.and_then(|text| place(text, diagnostic));
    let mut group = level
        .primary_title(title.as_str())
        .id(diagnostic.code.as_str())
        .elements(Vec::<annotate_snippets::Message<'_>>::new());
    if let (Some(text), Some((line, start, end))) = (source, span) {
        let source_line = text.lines().nth(line - 1).unwrap_or_default();
        group = group.element(
            Snippet::source(source_line)
                .line_start(line)
                .path(&*diagnostic.file)
                .annotation(AnnotationKind::Primary.span(start..end)),
        );
    }
    if !diagnostic.help.is_empty() {
        group = group.element(Level::HELP.message(diagnostic.help.as_str()));
    }
    let renderer = if color { Renderer::styled() } else { Renderer::plain() };
    let mut text = renderer.render(&[group]).to_string();
    if span.is_none() {
        text.push_str(&format!("\n  --> {}", diagnostic.file));
        if diagnostic.at.line > 0 {
            text.push_str(&format!(":{}:{}", diagnostic.at.line, diagnostic.at.column));
        }
    }
    text
}

/// Line number and byte range of the word at the diagnostic's place.
fn place(text: &str, diagnostic: &Diagnostic) -> Option<(usize, usize, usize)> {
    let line_number = diagnostic.at.line as usize;
    let line = text.lines().nth(line_number.checked_sub(1)?)?;
    let start = line.char_indices().nth(diagnostic.at.column.saturating_sub(1) as usize).map_or(line.len(), |(i, _)| i);
    let rest = line.get(start..)?;
    let length = rest.find([' ', ',', '}', ']', '#']).unwrap_or(rest.len()).max(usize::from(!rest.is_empty()));
    Some((line_number, start, start + length))
}

/// `2 errors, 1 warning`.
#[must_use]
pub fn summary(diagnostics: &[Diagnostic]) -> String {
    let count = |severity| diagnostics.iter().filter(|d| d.severity == severity).count();
    let part = |n: usize, name: &str| match n {
        0 => None,
        1 => Some(format!("1 {name}")),
        _ => Some(format!("{n} {name}s")),
    };
    let parts: Vec<String> = [
        part(count(Severity::Error), "error"),
        part(count(Severity::Warning), "warning"),
        match count(Severity::Info) {
            0 => None,
            n => Some(format!("{n} info")),
        },
    ]
    .into_iter()
    .flatten()
    .collect();
    if parts.is_empty() { "no problems".to_owned() } else { parts.join(", ") }
}
