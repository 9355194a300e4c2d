//! Header edits in Envoy's order: the most specific level first, additions before removals within a level.

use serin_http1::HeaderBlock;
use serin_resources::header::{AppendAction, HeaderEdits};

/// Applies one level of edits.
pub fn apply(edits: &HeaderEdits, fields: &mut HeaderBlock) {
    for edit in &edits.add {
        let there = fields.contains(&edit.name);
        match edit.action {
            AppendAction::Append => fields.append(edit.name.as_bytes(), edit.value.as_bytes()),
            AppendAction::AddIfAbsent if !there => fields.append(edit.name.as_bytes(), edit.value.as_bytes()),
            AppendAction::Overwrite => fields.set(&edit.name, edit.value.as_bytes()),
            AppendAction::OverwriteIfExists if there => fields.set(&edit.name, edit.value.as_bytes()),
            AppendAction::AddIfAbsent | AppendAction::OverwriteIfExists => {}
        }
    }
    for name in &edits.remove {
        if name != "host" {
            fields.remove(name);
        }
    }
}
