//! The decision about every field of every message, checked by the compiler.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::{Error, Path};

/// The fields that the decoder of a resource found and did not use.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Audit {
    /// Paths of fields that are set and have no effect here.
    pub ignored: Vec<String>,
    /// Values that the bootstrap's runtime has, by key.
    pub runtime: Runtime,
}

/// Values by runtime key, shared by all decoders of a process.
pub type Runtime = Arc<BTreeMap<String, RuntimeValue>>;

/// A value of the runtime (Envoy: `Runtime::Snapshot::Entry`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RuntimeValue {
    /// A number, which may stand for itself or for per cent.
    Number(f64),
    /// On or off.
    Flag(bool),
    /// A share, in parts of a million.
    Share(u32),
}

impl RuntimeValue {
    /// Returns it as a share, in parts of a million: a number is per cent, what is on is all.
    #[must_use]
    pub fn share(self) -> u32 {
        match self {
            Self::Number(percent) => (percent.clamp(0.0, 100.0) * 10_000.0) as u32,
            Self::Flag(on) => u32::from(on) * 1_000_000,
            Self::Share(parts) => parts,
        }
    }

    /// Returns it as a number, if it is one.
    #[must_use]
    pub fn number(self) -> Option<f64> {
        match self {
            Self::Number(number) if number >= 0.0 => Some(number),
            _ => None,
        }
    }
}

impl Audit {
    /// Notes a field that is set and has no effect.
    pub fn ignore(&mut self, path: &Path<'_>, field: &str) {
        self.ignored.push(path.field(field).to_string());
    }

    /// The error for a field that must not be ignored.
    #[must_use]
    pub fn refuse(path: &Path<'_>, field: &str) -> Error {
        path.field(field).error("not supported; ignoring it would change where traffic goes or how safe it is")
    }
}

/// Destructures a message exhaustively into supported, ignored and refused fields.
///
/// A field counts as set when it differs from the message's default.
macro_rules! audit {
    ($value:expr, $ty:ty as $pat:path, $audit:expr, $path:expr;
     supported: $($s:ident),* ; ignored: $($i:ident),* ; refused: $($r:ident),* $(;)?) => {{
        let $pat { $($s: _,)* $($i,)* $($r,)* } = $value;
        let defaults = <$ty>::default();
        let _ = (&defaults, &$audit);
        $( if *$i != defaults.$i { $audit.ignore($path, stringify!($i)); } )*
        $( if *$r != defaults.$r { return Err($crate::Audit::refuse($path, stringify!($r))); } )*
    }};
}
