//! The asking end.

mod secure;
mod session;
mod transport;

pub use secure::{Connector, Identity, Secure};
pub use session::{Session, Update, Wanted};
pub(crate) use transport::jitter;
pub use transport::{Config, Connections, Handler, run};
