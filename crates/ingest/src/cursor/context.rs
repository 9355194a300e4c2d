//! Findings about one object while it is read.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use crate::diagnostic::{Diagnostic, Severity};
use crate::reference::Reference;
use crate::spelling::camel_case;

/// Where findings about one object gather.
pub struct Context {
    pub(super) file: Arc<str>,
    namespace: RefCell<String>,
    diagnostics: RefCell<Vec<Diagnostic>>,
    references: RefCell<Vec<Reference>>,
    pub(super) errors: Cell<usize>,
    /// True when fields may be written `like_this` too, as protobuf's JSON parsers allow.
    pub(super) protobuf: Cell<bool>,
}

impl Context {
    pub(crate) fn new(file: Arc<str>) -> Self {
        Self {
            file,
            namespace: RefCell::new("default".to_owned()),
            diagnostics: RefCell::default(),
            references: RefCell::default(),
            errors: Cell::new(0),
            protobuf: Cell::new(false),
        }
    }

    /// From here on the object is one whose schema is protobuf's.
    pub(crate) fn set_protobuf(&self) {
        self.protobuf.set(true);
    }

    /// Returns whether a key as it is written means the field of that name (in camel case).
    pub(super) fn means(&self, written: &str, name: &str) -> bool {
        written == name || (self.protobuf.get() && written.contains('_') && camel_case(written) == name)
    }

    pub(crate) fn set_namespace(&self, namespace: &str) {
        *self.namespace.borrow_mut() = namespace.to_owned();
    }

    /// Namespace of the object at hand.
    pub fn namespace(&self) -> String {
        self.namespace.borrow().clone()
    }

    pub(crate) fn refer(&self, reference: Reference) {
        self.references.borrow_mut().push(reference);
    }

    pub(crate) fn report(&self, diagnostic: Diagnostic) {
        if diagnostic.severity == Severity::Error {
            self.errors.set(self.errors.get() + 1);
        }
        self.diagnostics.borrow_mut().push(diagnostic);
    }

    pub(crate) fn failed(&self) -> bool {
        self.errors.get() > 0
    }

    pub(crate) fn finish(self) -> (Vec<Diagnostic>, Vec<Reference>) {
        (self.diagnostics.into_inner(), self.references.into_inner())
    }
}
