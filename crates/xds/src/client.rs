//! The asking end.

mod session;
mod transport;

pub use session::{Session, Update, Wanted};
pub use transport::{Config, Handler, run};
pub(crate) use transport::{connect, jitter};
