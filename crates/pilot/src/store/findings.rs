//! Findings about the set of documents as a whole.

use std::sync::Arc;
use std::time::Duration;

use serin_ingest::{Code, Diagnostic, Document, Position, Severity};

/// Rewords the finding about a policy that is passed over.
pub(super) fn not_refused(diagnostic: &mut Diagnostic) {
    let said = diagnostic.message.replace(" are refused", " would be refused");
    diagnostic.message = format!("{said}; with --allow-unenforced-policies they go through without what it demands");
    "start the pilot without --allow-unenforced-policies to refuse them".clone_into(&mut diagnostic.help);
}

/// The finding about folders without a document.
pub(super) fn nothing() -> Diagnostic {
    Diagnostic {
        code: Code::NoObjects,
        severity: Severity::Warning,
        file: Arc::from("--config"),
        at: Position::default(),
        path: String::new(),
        message: "there is no document: no service, rule or release is in force".to_owned(),
        help: "save documents with the ending .yaml, .yml or .json in the folder".to_owned(),
    }
}

pub(super) fn half_written(name: &str, grace: Duration) -> Diagnostic {
    Diagnostic {
        code: Code::HalfWritten,
        severity: Severity::Warning,
        file: Arc::from(name),
        at: Position::default(),
        path: String::new(),
        message: "objects that stood in it are missing: they stay in force, because the file may be half-written"
            .to_owned(),
        help: format!("when it stays so for {} s they are taken away", grace.as_secs_f64()),
    }
}

pub(super) fn duplicate(document: &Document, first: &Document) -> Diagnostic {
    Diagnostic {
        code: Code::Duplicate,
        severity: Severity::Error,
        file: document.file.clone(),
        at: document.at,
        path: String::new(),
        message: format!("{} is defined twice", document.key),
        help: format!("the one in {}:{} is used", first.file, first.at.line),
    }
}
