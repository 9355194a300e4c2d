//! The asking end.

mod session;
mod transport;

pub use session::{Session, Update, Wanted};
pub(crate) use transport::{connect, jitter};
pub use transport::{Config, Handler, run};
