//! The asking end.

mod session;
mod transport;

pub use session::{Session, Update, Wanted};
pub(crate) use transport::jitter;
pub use transport::{Config, Connections, Handler, run};
